// One forward of a Llama-like decoder over a key-value cache, and the draw of a token: what native.py calls through ctypes.
//
// Every row (a token of some slot) is computed by itself: each sum runs in an order that depends on the row's own position alone, never on
// the other rows or on the number of threads. So a sample has the same bits in every batch. Weights are read where the trainer keeps them:
// a product is a tile of dot products over rows of a weight, which needs no other layout.
//
// Plain C at its border, no torch headers: it compiles in seconds.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <omp.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 6;  // 24 sums, 4 weights and a row in 32 registers
#elif defined(__AVX2__)
constexpr int LANES = 8, TILE_ROWS = 2;  // 8 sums, 4 weights and a row in 16 registers
#else
constexpr int LANES = 4, TILE_ROWS = 4;
#endif
constexpr int TILE_COLUMNS = 4, LINE = 16;  // LINE: floats of a cache line
constexpr int64_t PANEL_FLOATS = 1 << 16;   // 256 KiB of weights
constexpr int64_t BLOCK_FLOATS = 6144;      // 24 KiB of rows

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float Loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(LANES * 4)));
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

inline Vector load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Loose*>(p) = v; }
inline Vector fill(float x) { return x - Vector{}; }

// The sums of four vectors, side by side.
inline Four sum_each(Vector a, Vector b, Vector c, Vector d) {
#if defined(__AVX512F__)
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    __m512 all = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), upper);
    return (Four)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
    __m256 ab = _mm256_hadd_ps(a, b), cd = _mm256_hadd_ps(c, d), all = _mm256_hadd_ps(ab, cd);
    return (Four)_mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
#else
    Vector v[4] = {a, b, c, d};
    Four out = {};
    for (int i = 0; i < 4; ++i)
        for (int l = 0; l < LANES; ++l) out[i] += v[i][l];
    return out;
#endif
}

inline float sum_of(Vector v) { return sum_each(v, v, v, v)[0]; }

// e^x to 2 units in the last place; 0 below -87, where the result would not be normal.
inline Vector exponential(Vector x) {
    Vector bounded = x > fill(88.0f) ? fill(88.0f) : x;
    bounded = bounded < fill(-87.0f) ? fill(-87.0f) : bounded;
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    Vector rounded = bounded * 1.44269504088896341f + shift;
    Vector n = rounded - shift;
    Vector r = bounded - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    Vector p = fill(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Whole exponent = ((Whole)rounded - 0x4B400000 + 127) << 23;
    Vector result = p * (Vector)exponent;
    return x < fill(-87.0f) ? fill(0.0f) : result;
}

inline Vector hyperbolic_tangent(Vector x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

// One tile of x w^T + bias, written or added to y: `ROWS` rows of x and four rows of w, all of the same inner size.
template <int ROWS>
inline void tile(const float* x, const float* const* w, int64_t inner, Four bias, float* y, int64_t stride, bool adds) {
    Vector sums[ROWS][TILE_COLUMNS] = {};
    for (int64_t k = 0; k < inner; k += LANES) {
        Vector weights[TILE_COLUMNS];
        for (int j = 0; j < TILE_COLUMNS; ++j) weights[j] = load(w[j] + k);
        for (int i = 0; i < ROWS; ++i) {
            Vector value = load(x + i * inner + k);
            for (int j = 0; j < TILE_COLUMNS; ++j) sums[i][j] += value * weights[j];
        }
    }
    Four found[ROWS];
    for (int i = 0; i < ROWS; ++i) found[i] = sum_each(sums[i][0], sums[i][1], sums[i][2], sums[i][3]) + bias;
    for (int i = 0; i < ROWS; ++i) {
        Four* place = reinterpret_cast<Four*>(y + i * stride);
        *place = adds ? *place + found[i] : found[i];
    }
}

using Tile = void (*)(const float*, const float* const*, int64_t, Four, float*, int64_t, bool);
constexpr Tile TILES[] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};  // no more than TILE_ROWS are used

struct Range {
    int64_t begin, end;
};

// This thread's part of `count` columns, in whole cache lines.
inline Range share(int64_t count) {
    int64_t lines = (count + LINE - 1) / LINE, threads = omp_get_num_threads(), me = omp_get_thread_num();
    return {std::min(count, lines * me / threads * LINE), std::min(count, lines * (me + 1) / threads * LINE)};
}

extern "C" struct Linear {
    const float* weight;  // [out, in]
    const float* bias;    // [out] or null
};

// y = x w^T + bias of four columns from n on, or fewer at the end, and of rows [begin, end), in tiles of even height.
void multiply_columns(const float* x, int64_t inner, const Linear& w, float* y, int64_t stride, Range rows, int64_t n, int64_t width, bool adds) {
    const float* columns[TILE_COLUMNS];
    Four bias = {};
    for (int64_t j = 0; j < TILE_COLUMNS; ++j) columns[j] = w.weight + (n + std::min(j, width - 1)) * inner;
    for (int64_t j = 0; j < width && w.bias; ++j) bias[j] = w.bias[n + j];
    int64_t count = rows.end - rows.begin, tiles = (count + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t t = 0; t < tiles; ++t) {
        int64_t top = rows.begin + count * t / tiles, height = rows.begin + count * (t + 1) / tiles - top;
        if (width == TILE_COLUMNS) {
            TILES[height](x + top * inner, columns, inner, bias, y + top * stride + n, stride, adds);
            continue;
        }
        float found[TILE_ROWS * TILE_COLUMNS];
        TILES[height](x + top * inner, columns, inner, bias, found, TILE_COLUMNS, false);
        for (int64_t i = 0; i < height; ++i)
            for (int64_t j = 0; j < width; ++j) {
                float* place = y + (top + i) * stride + n + j;
                *place = found[i * TILE_COLUMNS + j] + (adds ? *place : 0.0f);
            }
    }
}

// y [rows, out] = x w^T + bias, or added to y: the columns of `part` alone. A panel of weights stays in the second cache while rows pass by,
// and a block of rows in the first while the panel passes by.
void multiply(const float* x, int64_t inner, const Linear& w, float* y, int64_t stride, int64_t rows, Range part, bool adds) {
    int64_t panel = std::max<int64_t>(TILE_COLUMNS, PANEL_FLOATS / inner / TILE_COLUMNS * TILE_COLUMNS);
    int64_t height = std::max<int64_t>(TILE_ROWS, BLOCK_FLOATS / inner / TILE_ROWS * TILE_ROWS);
    for (int64_t left = part.begin; left < part.end; left += panel)
        for (int64_t top = 0; top < rows; top += height) {
            int64_t right = std::min(part.end, left + panel), bottom = std::min(rows, top + height);
            for (int64_t n = left; n < right; n += TILE_COLUMNS)
                multiply_columns(x, inner, w, y, stride, {top, bottom}, n, std::min<int64_t>(TILE_COLUMNS, right - n), adds);
        }
}

// out = x / sqrt(mean(x^2) + epsilon) * (weight + offset), or that added to out; any size.
void norm(const float* x, const float* weight, int64_t size, double epsilon, double offset, float* out, bool adds) {
    Vector squares = {};
    int64_t whole = size / LANES * LANES;
    for (int64_t k = 0; k < whole; k += LANES) squares += load(x + k) * load(x + k);
    float total = sum_of(squares);
    for (int64_t k = whole; k < size; ++k) total += x[k] * x[k];
    float inverse = static_cast<float>(1.0 / std::sqrt(static_cast<double>(total) / size + epsilon)), add = static_cast<float>(offset);
    for (int64_t k = 0; k < size; ++k) {
        float y = x[k] * inverse * (weight[k] + add);
        out[k] = adds ? out[k] + y : y;
    }
}

extern "C" struct Layer {
    Linear query, key, value, output, gate, up, down;
    const float *norm_in, *norm_attended, *norm_middle, *norm_out;  // the second and the last: of what is added, or null
    const float *norm_query, *norm_key;                             // a head each, or null
    const float *cosine, *sine;                                     // [capacity, rotated]
    float *keys, *values;                                           // [slots, kv_heads, capacity, head]
    int64_t window;                                                 // a query sees so many of the last keys; 0 for all
};

extern "C" struct Model {
    int64_t num_layers, hidden, heads, kv_heads, head, rotated, inner, vocabulary, capacity, activation;  // activation: 0 SiLU, 1 tanh GELU
    double epsilon, norm_offset, score_scale, score_cap, embedding_scale, logit_scale, logit_cap;         // caps: 0 for none
    const float *embedding, *norm;
    Linear output;
    const Layer* layers;
};

extern "C" struct Batch {
    int64_t rows;
    const int64_t *tokens, *slots, *positions;
    int64_t num_logits;
    const int64_t* logit_rows;  // rows whose logits are wanted
    float* logits;              // [num_logits, vocabulary]
    float* scratch;             // see scratch_size
    int64_t threads;
};

struct Scratch {
    float *x, *normed, *projected, *attended, *gate, *up, *scores;
    int64_t room;  // scores of a thread

    Scratch(const Model& m, int64_t rows, float* base) {
        int64_t width = (m.heads + 2 * m.kv_heads) * m.head;
        x = base;
        normed = x + rows * m.hidden;
        projected = normed + rows * m.hidden;
        attended = projected + rows * width;
        gate = attended + rows * m.heads * m.head;
        up = gate + rows * m.inner;
        scores = up + rows * m.inner;
        room = (m.capacity / LINE + 2) * LINE;
    }
};

inline void rotate(float* x, const float* cosine, const float* sine, int64_t rotated) {
    int64_t half = rotated / 2;
    for (int64_t k = 0; k < half; ++k) {
        float first = x[k], second = x[k + half];
        x[k] = first * cosine[k] - second * sine[k];
        x[k + half] = second * cosine[k + half] + first * sine[k + half];
    }
}

// Norms and rotation of one row's queries and keys; keys and values go to the cache.
void place(const Model& m, const Layer& layer, float* row, int64_t slot, int64_t position) {
    const float *cosine = layer.cosine + position * m.rotated, *sine = layer.sine + position * m.rotated;
    for (int64_t h = 0; h < m.heads + m.kv_heads; ++h) {
        float* x = row + h * m.head;
        const float* weight = h < m.heads ? layer.norm_query : layer.norm_key;
        if (weight) norm(x, weight, m.head, m.epsilon, m.norm_offset, x, false);
        rotate(x, cosine, sine, m.rotated);
    }
    for (int64_t h = 0; h < m.kv_heads; ++h) {
        int64_t there = ((slot * m.kv_heads + h) * m.capacity + position) * m.head;
        std::memcpy(layer.keys + there, row + (m.heads + h) * m.head, m.head * sizeof(float));
        std::memcpy(layer.values + there, row + (m.heads + m.kv_heads + h) * m.head, m.head * sizeof(float));
    }
}

// scores[j] = query . key j for `count` keys; CHUNKS vectors a head, or any head size when 0.
template <int CHUNKS>
void score(const float* query, const float* keys, int64_t count, int64_t head, float* scores) {
    if constexpr (CHUNKS == 0) {
        for (int64_t j = 0; j < count; ++j) {
            float total = 0.0f;
            for (int64_t k = 0; k < head; ++k) total += query[k] * keys[j * head + k];
            scores[j] = total;
        }
    } else {
        Vector q[CHUNKS];
        for (int c = 0; c < CHUNKS; ++c) q[c] = load(query + c * LANES);
        for (int64_t j = 0; j < count; j += 4) {
            Vector sums[4] = {};
            for (int i = 0; i < 4; ++i) {
                const float* key = keys + std::min(j + i, count - 1) * head;
                for (int c = 0; c < CHUNKS; ++c) sums[i] += q[c] * load(key + c * LANES);
            }
            *reinterpret_cast<Four*>(scores + j) = sum_each(sums[0], sums[1], sums[2], sums[3]);
        }
    }
}

// out = sum_j weights[j] value j, divided by `total`.
template <int CHUNKS>
void gather(const float* weights, const float* values, int64_t count, int64_t head, float total, float* out) {
    if constexpr (CHUNKS == 0) {
        for (int64_t k = 0; k < head; ++k) out[k] = 0.0f;
        for (int64_t j = 0; j < count; ++j)
            for (int64_t k = 0; k < head; ++k) out[k] += weights[j] * values[j * head + k];
        for (int64_t k = 0; k < head; ++k) out[k] /= total;
    } else {
        constexpr int STREAMS = CHUNKS <= 3 ? 4 : CHUNKS <= 8 ? 2 : 1;  // additions that do not wait for each other
        Vector sums[STREAMS][CHUNKS] = {};
        int64_t j = 0;
        for (; j + STREAMS <= count; j += STREAMS)
            for (int s = 0; s < STREAMS; ++s)
                for (int c = 0; c < CHUNKS; ++c) sums[s][c] += weights[j + s] * load(values + (j + s) * head + c * LANES);
        for (; j < count; ++j)
            for (int c = 0; c < CHUNKS; ++c) sums[0][c] += weights[j] * load(values + j * head + c * LANES);
        for (int c = 0; c < CHUNKS; ++c) {
            Vector all = sums[0][c];
            for (int s = 1; s < STREAMS; ++s) all += sums[s][c];
            store(out + c * LANES, all / total);
        }
    }
}

// scores become weights, their largest 1; returns their sum. There is room for a whole vector beyond `count`.
float soften(float* scores, int64_t count, float scale, float cap) {
    for (int64_t j = count; j % LANES; ++j) scores[j] = -std::numeric_limits<float>::infinity();
    Vector top = fill(-std::numeric_limits<float>::infinity());
    for (int64_t j = 0; j < count; j += LANES) {
        Vector s = load(scores + j) * scale;
        if (cap > 0) s = cap * hyperbolic_tangent(s / cap);
        for (int64_t l = 0; j + LANES > count && l < LANES; ++l)
            if (j + l >= count) s[l] = -std::numeric_limits<float>::infinity();
        store(scores + j, s);
        top = s > top ? s : top;
    }
    float best = top[0];
    for (int l = 1; l < LANES; ++l) best = std::max(best, top[l]);
    Vector total = {};
    for (int64_t j = 0; j < count; j += LANES) {
        Vector weight = exponential(load(scores + j) - best);
        store(scores + j, weight);
        total += weight;
    }
    return sum_of(total);
}

// The query heads of one key head and one row.
template <int CHUNKS>
void attend(const Model& m, const Layer& layer, const float* queries, int64_t slot, int64_t position, int64_t kv, float* scores, float* out) {
    int64_t start = layer.window > 0 ? std::max<int64_t>(0, position + 1 - layer.window) : 0, count = position + 1 - start;
    int64_t there = ((slot * m.kv_heads + kv) * m.capacity + start) * m.head, group = m.heads / m.kv_heads;
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
        score<CHUNKS>(queries + h * m.head, layer.keys + there, count, m.head, scores);
        float total = soften(scores, count, static_cast<float>(m.score_scale), static_cast<float>(m.score_cap));
        gather<CHUNKS>(scores, layer.values + there, count, m.head, total, out + h * m.head);
    }
}

using Attend = void (*)(const Model&, const Layer&, const float*, int64_t, int64_t, int64_t, float*, float*);

Attend attend_for(int64_t head) {
    if (head % LANES == 0) switch (head / LANES) {
            case 1: return attend<1>;
            case 2: return attend<2>;
            case 3: return attend<3>;
            case 4: return attend<4>;
            case 5: return attend<5>;
            case 6: return attend<6>;
            case 8: return attend<8>;
            case 16: return attend<16>;
        }
    return attend<0>;
}

// gate = activation(gate) * up, the columns of `part`.
void activate(float* gate, const float* up, int64_t stride, int64_t rows, Range part, int64_t kind) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t k = part.begin; k < part.end; k += LANES) {
            Vector x = load(gate + i * stride + k), y = load(up + i * stride + k);
            Vector active = kind == 0 ? x / (1.0f + exponential(-x))
                                      : 0.5f * x * (1.0f + hyperbolic_tangent(0.7978845608028654f * (x + 0.044715f * x * x * x)));
            store(gate + i * stride + k, active * y);
        }
}

// Norms of rows, shared among the threads: out = norm(x), or that added to out.
void norm_rows(const Model& m, const float* x, const float* weight, float* out, int64_t rows, bool adds) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows; ++i) norm(x + i * m.hidden, weight, m.hidden, m.epsilon, m.norm_offset, out + i * m.hidden, adds);
}

// x += w(from), with a norm of what is added where the model has one.
void add_product(const Model& m, const Linear& w, const float* from, int64_t inner, const float* norm_after, Scratch& s, int64_t rows) {
    multiply(from, inner, w, norm_after ? s.normed : s.x, m.hidden, rows, share(m.hidden), !norm_after);
#pragma omp barrier
    if (norm_after) norm_rows(m, s.normed, norm_after, s.x, rows, true);
}

void run_layer(const Model& m, const Layer& layer, const Batch& b, Scratch& s, Attend attend_one) {
    int64_t width = (m.heads + 2 * m.kv_heads) * m.head, queries = m.heads * m.head, keys = m.kv_heads * m.head;
    norm_rows(m, s.x, layer.norm_in, s.normed, b.rows, false);
    multiply(s.normed, m.hidden, layer.query, s.projected, width, b.rows, share(queries), false);
    multiply(s.normed, m.hidden, layer.key, s.projected + queries, width, b.rows, share(keys), false);
    multiply(s.normed, m.hidden, layer.value, s.projected + queries + keys, width, b.rows, share(keys), false);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < b.rows; ++i) place(m, layer, s.projected + i * width, b.slots[i], b.positions[i]);
    float* scores = s.scores + omp_get_thread_num() * s.room;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < b.rows * m.kv_heads; ++task) {
        int64_t i = task / m.kv_heads;
        attend_one(m, layer, s.projected + i * width, b.slots[i], b.positions[i], task % m.kv_heads, scores, s.attended + i * queries);
    }
    add_product(m, layer.output, s.attended, queries, layer.norm_attended, s, b.rows);
    norm_rows(m, s.x, layer.norm_middle, s.normed, b.rows, false);
    Range part = share(m.inner);
    multiply(s.normed, m.hidden, layer.gate, s.gate, m.inner, b.rows, part, false);
    multiply(s.normed, m.hidden, layer.up, s.up, m.inner, b.rows, part, false);
    activate(s.gate, s.up, m.inner, b.rows, part, m.activation);
#pragma omp barrier
    add_product(m, layer.down, s.gate, m.inner, layer.norm_out, s, b.rows);
}

// Logits of the wanted rows; the final norm goes to s.normed, in their order.
void read_out(const Model& m, const Batch& b, Scratch& s) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < b.num_logits; ++i)
        norm(s.x + b.logit_rows[i] * m.hidden, m.norm, m.hidden, m.epsilon, m.norm_offset, s.normed + i * m.hidden, false);
    Range part = share(m.vocabulary);
    multiply(s.normed, m.hidden, m.output, b.logits, m.vocabulary, b.num_logits, part, false);
    float cap = static_cast<float>(m.logit_cap), scale = static_cast<float>(m.logit_scale);
    for (int64_t i = 0; (cap > 0 || scale != 1.0f) && i < b.num_logits; ++i)
        for (int64_t v = part.begin; v < part.end; ++v) {
            float& logit = b.logits[i * m.vocabulary + v];
            logit = (cap > 0 ? cap * std::tanh(logit / cap) : logit) * scale;
        }
}

}  // namespace

extern "C" {

// Floats of scratch that a batch of so many rows needs.
int64_t fairlead_scratch_size(const Model* m, int64_t rows, int64_t threads) {
    int64_t width = (m->heads + 2 * m->kv_heads) * m->head;
    return rows * (2 * m->hidden + width + m->heads * m->head + 2 * m->inner) + threads * (m->capacity / LINE + 2) * LINE;
}

// Reads the tokens of a batch into the cache and writes the wanted logits. Rows of one slot come in order of position.
void fairlead_forward(const Model* model, const Batch* batch) {
    const Model& m = *model;
    const Batch& b = *batch;
    Scratch shared(m, b.rows, b.scratch);
    Attend attend_one = attend_for(m.head);
#pragma omp parallel num_threads(static_cast<int>(b.threads))
    {
        Scratch s = shared;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < b.rows; ++i)
            for (int64_t k = 0; k < m.hidden; ++k)
                s.x[i * m.hidden + k] = m.embedding[b.tokens[i] * m.hidden + k] * static_cast<float>(m.embedding_scale);
        for (int64_t l = 0; l < m.num_layers; ++l) run_layer(m, m.layers[l], b, s, attend_one);
        if (b.num_logits) read_out(m, b, s);
    }
}

// Draws one token a row of logits [rows, vocabulary] by the inverse distribution function at uniforms [rows], after a division by the
// temperature; the most likely token, first among equals, without uniforms. -inf has no chance.
void fairlead_draw(const float* logits, int64_t rows, int64_t vocabulary, double temperature, const double* uniforms, int64_t* tokens,
                   float* logprobs, int64_t threads) {
    constexpr int64_t BLOCK = 64;
    float scale = uniforms ? static_cast<float>(temperature) : 1.0f;
#pragma omp parallel for schedule(static) num_threads(static_cast<int>(threads))
    for (int64_t i = 0; i < rows; ++i) {
        const float* row = logits + i * vocabulary;
        auto at = [&](int64_t v) { return row[v] / scale; };
        int64_t best = 0;
        float top = row[0];
        for (int64_t v = 0; v < vocabulary; ++v) top = std::max(top, row[v]);
        top /= scale;
        auto weights = [&](int64_t start, float* out) {  // of a block; nothing beyond the vocabulary
            float padded[LANES];
            for (int64_t j = 0; j < BLOCK; j += LANES) {
                const float* from = row + start + j;
                if (start + j + LANES > vocabulary) {
                    for (int64_t l = 0; l < LANES; ++l)
                        padded[l] = start + j + l < vocabulary ? from[l] : -std::numeric_limits<float>::infinity();
                    from = padded;
                }
                store(out + j, exponential(load(from) / scale - top));
            }
        };
        auto sum_block = [&](const float* w) {
            Vector sums = {};
            for (int64_t j = 0; j < BLOCK; j += LANES) sums += load(w + j);
            return static_cast<double>(sum_of(sums));
        };
        alignas(64) float w[BLOCK];
        double total = 0.0;
        for (int64_t start = 0; start < vocabulary; start += BLOCK) weights(start, w), total += sum_block(w);
        if (!uniforms) {
            while (best + 1 < vocabulary && row[best] != top) ++best;
        } else {
            double wanted = uniforms[i] * total, reached = 0.0;
            for (int64_t start = 0; start < vocabulary; start += BLOCK) {
                weights(start, w);
                double block = sum_block(w);
                if (reached + block <= wanted && start + BLOCK < vocabulary) {
                    reached += block;
                    for (int64_t j = BLOCK - 1; j >= 0; --j)  // rounding may find nothing later
                        if (w[j] > 0.0f) {
                            best = start + j;
                            break;
                        }
                    continue;
                }
                for (int64_t j = 0; j < BLOCK && start + j < vocabulary; ++j) {
                    if (w[j] > 0.0f) best = start + j;
                    reached += w[j];
                    if (reached > wanted) break;
                }
                break;
            }
        }
        tokens[i] = best;
        logprobs[i] = static_cast<float>(static_cast<double>(at(best)) - static_cast<double>(top) - std::log(total));
    }
}
}
