// One forward of a Llama-like decoder over a key-value cache, and the draw of a token: what kernel.py calls through ctypes.
//
// Every row (a token of some slot) is computed by itself: each sum runs in an order that depends on the row's own position alone, never on
// the other rows or on the number of threads. So a sample has the same bits in every batch. In fp32 (products.h) weights are read where the
// trainer keeps them; in bf16 (low.h) from a packed copy, and keys and values are bf16 too. The residual stream, norms, the softmax and all
// sums are fp32 in both.
//
// Plain C at its border, no torch headers: it compiles in seconds.

#include "low.h"

namespace {

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
    float *keys, *values;                                           // [slots, kv_heads, capacity, head], in bf16 as low.h has them
    int64_t window;                                                 // a query sees so many of the last keys; 0 for all
};

extern "C" struct Model {
    int64_t num_layers, hidden, heads, kv_heads, head, rotated, inner, vocabulary, capacity, activation;  // activation: 0 SiLU, 1 tanh GELU
    double epsilon, norm_offset, score_scale, score_cap, embedding_scale, logit_scale, logit_cap;         // caps: 0 for none
    const float *embedding, *norm;
    Linear output;
    Layer* layers;
    int64_t low;  // 1: packed, in bf16
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
    float *x, *normed, *projected, *attended, *gate, *up, *active, *scores;  // active: in bf16, else the same as gate
    int64_t room;  // scores of a thread

    Scratch(const Model& m, int64_t rows, float* base) {
        int64_t width = (m.heads + 2 * m.kv_heads) * m.head;
        x = base;
        normed = x + rows * m.hidden;
        projected = normed + rows * m.hidden;
        attended = projected + rows * width;
        gate = attended + rows * m.heads * m.head;
        up = gate + rows * m.inner;
        active = m.low ? up + rows * m.inner : gate;
        scores = up + rows * m.inner * (m.low ? 2 : 1);
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

// Norms and rotation of row i's queries and keys; keys and values go to the cache.
void place(const Model& m, const Layer& layer, const Batch& b, int64_t i, float* row) {
    int64_t slot = b.slots[i], position = b.positions[i];
    const float *cosine = layer.cosine + position * m.rotated, *sine = layer.sine + position * m.rotated;
    for (int64_t h = 0; h < m.heads + m.kv_heads; ++h) {
        float* x = row + h * m.head;
        const float* weight = h < m.heads ? layer.norm_query : layer.norm_key;
        if (weight) norm(x, weight, m.head, m.epsilon, m.norm_offset, x, false);
        rotate(x, cosine, sine, m.rotated);
    }
    bool ends = i + 1 == b.rows || b.slots[i + 1] != slot;
    for (int64_t h = 0; h < m.kv_heads; ++h) {
        const float *key = row + (m.heads + h) * m.head, *value = key + m.kv_heads * m.head;
        int64_t start = (slot * m.kv_heads + h) * m.capacity * m.head, there = start + position * m.head;
        if (m.low) {
            place_low(key, value, m.head, position, reinterpret_cast<int32_t*>(layer.keys) + start / 2,
                      reinterpret_cast<int32_t*>(layer.values) + start / 2, ends);
            continue;
        }
        std::memcpy(layer.keys + there, key, m.head * sizeof(float));
        std::memcpy(layer.values + there, value, m.head * sizeof(float));
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

// scores become weights, their largest 1, but for the first `skip` (fewer than a vector), which become 0; returns their sum. There is room
// for a whole vector beyond `count`.
float soften(float* scores, int64_t count, int64_t skip, float scale, float cap) {
    for (int64_t j = count; j % LANES; ++j) scores[j] = -std::numeric_limits<float>::infinity();
    Vector top = fill(-std::numeric_limits<float>::infinity());
    for (int64_t j = 0; j < count; j += LANES) {
        Vector s = load(scores + j) * scale;
        if (cap > 0) s = cap * hyperbolic_tangent(s / cap);
        for (int64_t l = 0; j + LANES > count && l < LANES; ++l)
            if (j + l >= count) s[l] = -std::numeric_limits<float>::infinity();
        for (int64_t l = 0; j == 0 && l < skip; ++l) s[l] = -std::numeric_limits<float>::infinity();
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
        float total = soften(scores, count, 0, static_cast<float>(m.score_scale), static_cast<float>(m.score_cap));
        gather<CHUNKS>(scores, layer.values + there, count, m.head, total, out + h * m.head);
    }
}

// The same in bf16; `out` is a row of bf16.
template <int CHUNKS>
void attend_low(const Model& m, const Layer& layer, const float* queries, int64_t slot, int64_t position, int64_t kv, float* scores, float* out) {
    int64_t start = layer.window > 0 ? std::max<int64_t>(0, position + 1 - layer.window) : 0, first = start / BLOCK * BLOCK;
    int64_t there = ((slot * m.kv_heads + kv) * m.capacity + first) * (m.head / 2), count = position + 1 - first, group = m.heads / m.kv_heads;
    const int32_t *keys = reinterpret_cast<int32_t*>(layer.keys) + there, *values = reinterpret_cast<int32_t*>(layer.values) + there;
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
        float row[CHUNKS * BLOCK];
        std::memcpy(row, queries + h * m.head, sizeof(row));
        lower(row, m.head);
        score_low<CHUNKS>(reinterpret_cast<int32_t*>(row), keys, count, scores);
        float total = soften(scores, count, start - first, static_cast<float>(m.score_scale), static_cast<float>(m.score_cap));
        lower(scores, count);
        gather_low<CHUNKS>(reinterpret_cast<int32_t*>(scores), values, (count + 1) / 2, total, row);
        lower(row, m.head);
        std::memcpy(reinterpret_cast<uint16_t*>(out) + h * m.head, row, m.head * sizeof(uint16_t));
    }
}

using Attend = void (*)(const Model&, const Layer&, const float*, int64_t, int64_t, int64_t, float*, float*);

#define CHOOSE(way, vectors)                 \
    switch (vectors) {                       \
        case 1: return way<1>;               \
        case 2: return way<2>;               \
        case 3: return way<3>;               \
        case 4: return way<4>;               \
        case 5: return way<5>;               \
        case 6: return way<6>;               \
        case 8: return way<8>;               \
        case 16: return way<16>;             \
    }

// null where a head of this size is not attended to in bf16.
Attend attend_for(int64_t head, bool low) {
    if (low) {
        if (head % BLOCK == 0) CHOOSE(attend_low, head / BLOCK)
        return nullptr;
    }
    if (head % LANES == 0) CHOOSE(attend, head / LANES)
    return attend<0>;
}
#undef CHOOSE

// out = activation(gate) * up, the columns of `part`; out is gate, or rows of bf16.
void activate(float* gate, const float* up, float* out, int64_t stride, int64_t rows, Range part, int64_t kind) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t k = part.begin; k < part.end; k += LANES) {
            Vector x = load(gate + i * stride + k), y = load(up + i * stride + k);
            Vector active = kind == 0 ? x / (1.0f + exponential(-x))
                                      : 0.5f * x * (1.0f + hyperbolic_tangent(0.7978845608028654f * (x + 0.044715f * x * x * x)));
            store(gate + i * stride + k, active * y);
        }
    for (int64_t i = 0; out != gate && i < rows; ++i) lower_part(gate + i * stride, out + i * stride, part);
}

// Norms of rows, shared among the threads: out = norm(x), as a product reads it, or that added to out.
void norm_rows(const Model& m, const float* x, const float* weight, float* out, int64_t rows, bool adds) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows; ++i) {
        norm(x + i * m.hidden, weight, m.hidden, m.epsilon, m.norm_offset, out + i * m.hidden, adds);
        if (m.low && !adds) lower(out + i * m.hidden, m.hidden);
    }
}

// x += w(from), with a norm of what is added where the model has one.
void add_product(const Model& m, const Linear& w, const float* from, int64_t inner, const float* norm_after, Scratch& s, int64_t rows) {
    multiply_any(from, inner, w, norm_after ? s.normed : s.x, m.hidden, rows, share(m.hidden), !norm_after);
#pragma omp barrier
    if (norm_after) norm_rows(m, s.normed, norm_after, s.x, rows, true);
}

void run_layer(const Model& m, const Layer& layer, const Batch& b, Scratch& s, Attend attend_one) {
    int64_t width = (m.heads + 2 * m.kv_heads) * m.head, queries = m.heads * m.head, keys = m.kv_heads * m.head;
    norm_rows(m, s.x, layer.norm_in, s.normed, b.rows, false);
    multiply_any(s.normed, m.hidden, layer.query, s.projected, width, b.rows, share(queries), false);
    multiply_any(s.normed, m.hidden, layer.key, s.projected + queries, width, b.rows, share(keys), false);
    multiply_any(s.normed, m.hidden, layer.value, s.projected + queries + keys, width, b.rows, share(keys), false);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < b.rows; ++i) place(m, layer, b, i, s.projected + i * width);
    float* scores = s.scores + omp_get_thread_num() * s.room;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < b.rows * m.kv_heads; ++task) {
        int64_t i = task / m.kv_heads;
        attend_one(m, layer, s.projected + i * width, b.slots[i], b.positions[i], task % m.kv_heads, scores, s.attended + i * queries);
    }
    add_product(m, layer.output, s.attended, queries, layer.norm_attended, s, b.rows);
    norm_rows(m, s.x, layer.norm_middle, s.normed, b.rows, false);
    Range part = share(m.inner);
    multiply_any(s.normed, m.hidden, layer.gate, s.gate, m.inner, b.rows, part, false);
    multiply_any(s.normed, m.hidden, layer.up, s.up, m.inner, b.rows, part, false);
    activate(s.gate, s.up, s.active, m.inner, b.rows, part, m.activation);
#pragma omp barrier
    add_product(m, layer.down, s.active, m.inner, layer.norm_out, s, b.rows);
}

// Logits of the wanted rows; the final norm goes to s.normed, in their order.
void read_out(const Model& m, const Batch& b, Scratch& s) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < b.num_logits; ++i) {
        norm(s.x + b.logit_rows[i] * m.hidden, m.norm, m.hidden, m.epsilon, m.norm_offset, s.normed + i * m.hidden, false);
        if (m.low) lower(s.normed + i * m.hidden, m.hidden);
    }
    Range part = share(m.vocabulary);
    multiply_any(s.normed, m.hidden, m.output, b.logits, m.vocabulary, b.num_logits, part, false);
    float cap = static_cast<float>(m.logit_cap), scale = static_cast<float>(m.logit_scale);
    for (int64_t i = 0; (cap > 0 || scale != 1.0f) && i < b.num_logits; ++i)
        for (int64_t v = part.begin; v < part.end; ++v) {
            float& logit = b.logits[i * m.vocabulary + v];
            logit = (cap > 0 ? cap * std::tanh(logit / cap) : logit) * scale;
        }
}

// Calls back with every weight that is multiplied, and its sizes [out, in].
template <class Call>
void each_weight(const Model& m, Call call) {
    for (int64_t l = 0; l < m.num_layers; ++l) {
        Layer& layer = m.layers[l];
        call(layer.query, m.heads * m.head, m.hidden);
        call(layer.key, m.kv_heads * m.head, m.hidden);
        call(layer.value, m.kv_heads * m.head, m.hidden);
        call(layer.output, m.hidden, m.heads * m.head);
        call(layer.gate, m.inner, m.hidden);
        call(layer.up, m.inner, m.hidden);
        call(layer.down, m.hidden, m.inner);
    }
    call(const_cast<Linear&>(m.output), m.vocabulary, m.hidden);
}

}  // namespace

extern "C" {

// Floats of scratch that a batch of so many rows needs.
int64_t fairlead_scratch_size(const Model* m, int64_t rows, int64_t threads) {
    int64_t width = (m->heads + 2 * m->kv_heads) * m->head;
    return rows * (2 * m->hidden + width + m->heads * m->head + (m->low ? 3 : 2) * m->inner) + threads * (m->capacity / LINE + 2) * LINE;
}

// Whether products and attention of this model are computed in bf16 here.
int64_t fairlead_can_low(const Model* m) { return HAS_LOW && attend_for(m->head, true) != nullptr; }

// Pairs that the packed weights of a model take.
int64_t fairlead_packed_size(const Model* m) {
    int64_t total = 0;
    each_weight(*m, [&](Linear&, int64_t out, int64_t in) { total += packed_size(out, in); });
    return total;
}

// Packs all weights, as they are now, into `room`; the model computes in bf16 from then on.
void fairlead_pack(Model* m, int32_t* room, int64_t threads) {
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
        int32_t* next = room;
        each_weight(*m, [&](Linear& w, int64_t out, int64_t in) {
            pack(w.weight, out, in, next);
#pragma omp single nowait
            w.packed = next;
            next += packed_size(out, in);
        });
    }
    m->low = 1;
}

// Reads the tokens of a batch into the cache and writes the wanted logits. Rows of one slot come in order of position.
void fairlead_forward(const Model* model, const Batch* batch) {
    const Model& m = *model;
    const Batch& b = *batch;
    Scratch shared(m, b.rows, b.scratch);
    Attend attend_one = attend_for(m.head, m.low);
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
