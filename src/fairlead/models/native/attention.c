/* Attention of a packed row of trees, forward and gradient, on processors that multiply bf16 (AVX512-BF16).

   Every product is one tile kernel: 8 rows times up to 48 columns, operands in pairs of bf16, sums in fp32. Scores, softmax and the
   gradient of the softmax are fp32 and never leave the cache; nothing of the size of queries x keys is written to memory.

   A tree is worked on by one thread for one key head, so results do not depend on the number of threads.

   Legend: D head size, Dp D rounded up to 16, T keys of a tree, L keys of a segment rounded up to 32, G query heads that share a key
   head, BQ queries of a block. A segment sees the keys of a prompt and of one branch, its queries are the last of them. */

#include "numbers.h"
#include <stdlib.h>
#include <string.h>

#define BQ 64
#define ROWS 8
#define MAX_SIZE 512 /* of a head; the caller looks */

static inline int up(int n, int m) { return (n + m - 1) / m * m; }

/* Two rows of fp32 become pairs: lane i holds bf16(low[i]) | bf16(high[i]) << 16. */
static inline __m512i pairs(__m512 low, __m512 high) {
    __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
    __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
    return _mm512_or_epi32(a, _mm512_slli_epi32(b, 16));
}

/* c[8][16 C] (+)= a[8][K pairs] b[K pairs][16 C] */
#define TILE(C)                                                                                                            \
    static inline void tile##C(const int32_t *a, int lda, const int32_t *b, int ldb, int K, float *c, int ldc, int adds) { \
        __m512 sum[ROWS][C];                                                                                               \
        for (int r = 0; r < ROWS; r++)                                                                                     \
            for (int i = 0; i < C; i++) sum[r][i] = adds ? _mm512_loadu_ps(c + r * ldc + 16 * i) : _mm512_setzero_ps();    \
        for (int k = 0; k < K; k++) {                                                                                      \
            __m512bh column[C];                                                                                            \
            for (int i = 0; i < C; i++) column[i] = (__m512bh)_mm512_loadu_si512(b + (size_t)k * ldb + 16 * i);            \
            for (int r = 0; r < ROWS; r++) {                                                                               \
                __m512bh row = (__m512bh)_mm512_set1_epi32(a[r * lda + k]);                                                \
                for (int i = 0; i < C; i++) sum[r][i] = _mm512_dpbf16_ps(sum[r][i], row, column[i]);                       \
            }                                                                                                              \
        }                                                                                                                  \
        for (int r = 0; r < ROWS; r++)                                                                                     \
            for (int i = 0; i < C; i++) _mm512_storeu_ps(c + r * ldc + 16 * i, sum[r][i]);                                 \
    }
TILE(1)
TILE(2)
TILE(3)

/* c[M][N] (+)= a[M][K pairs] b[K pairs][N]; M a multiple of 8, N of 16. */
static void product(int M, int N, int K, const int32_t *a, int lda, const int32_t *b, int ldb, float *c, int ldc, int adds) {
    int n = 0;
    while (n < N) {
        int width = N - n >= 48 && N - n != 64 ? 48 : N - n >= 32 ? 32 : 16;
        for (int m = 0; m < M; m += ROWS) {
            const int32_t *rows = a + (size_t)m * lda;
            float *out = c + (size_t)m * ldc + n;
            if (width == 48) tile3(rows, lda, b + n, ldb, K, out, ldc, adds);
            else if (width == 32) tile2(rows, lda, b + n, ldb, K, out, ldc, adds);
            else tile1(rows, lda, b + n, ldb, K, out, ldc, adds);
        }
        n += width;
    }
}

/* Where a flat row's matrix lies: element (token, head, d) at token * row + head * head_step + d. */
typedef struct { int64_t row, head; } Steps;

/* A segment: keys are prompt_num rows from prompt_start, then branch_num rows from branch_start; queries are the keys from query_from. */
typedef struct { int64_t prompt_start, prompt_num, branch_start, branch_num, query_from; } Segment;

static inline int64_t row_of(const Segment *s, int i) {
    return i < s->prompt_num ? s->prompt_start + i : s->branch_start + i - s->prompt_num;
}

/* The keys that queries [first, end) of a segment may see: [*from, *to), to rounded up to 16 by the caller. */
static inline void seen(int first, int end, int window, int *from, int *to) {
    *to = end;
    *from = window > 0 && first + 1 > window ? (first + 1 - window) / 16 * 16 : 0;
}

/* One row of scores against its limits: minus infinity outside [low, high]. */
static inline __m512 limited(__m512 x, int key, int low, int high) {
    __m512i lane = _mm512_add_epi32(_mm512_set1_epi32(key), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __mmask16 ok = _mm512_cmple_epi32_mask(lane, _mm512_set1_epi32(high)) & _mm512_cmpge_epi32_mask(lane, _mm512_set1_epi32(low));
    return _mm512_mask_blend_ps(ok, _mm512_set1_ps(-INFINITY), x);
}

/* out[Dp / 2][ld]: pairs along d, one lane a key; x is [.., D] in bf16 rows of `rows`. */
static void pack_across(const bf16 *rows, int num, int Dp, int32_t *out, int ld) {
    for (int i = 0; i < num; i++) {
        const int32_t *pair = (const int32_t *)(rows + (size_t)i * Dp);
        for (int d = 0; d < Dp / 2; d++) out[(size_t)d * ld + i] = pair[d];
    }
}

/* out[num / 2][Dp]: pairs along the rows; num is even. */
static void pack_along(const bf16 *rows, int num, int Dp, int32_t *out) {
    for (int i = 0; i < num; i += 2)
        for (int d = 0; d < Dp; d += 16) {
            __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(rows + (size_t)i * Dp + d)));
            __m512i b = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(rows + (size_t)(i + 1) * Dp + d)));
            _mm512_storeu_si512(out + (size_t)(i / 2) * Dp + d, _mm512_or_epi32(a, _mm512_slli_epi32(b, 16)));
        }
}

/* Queries or keys: fp32, or bf16 that is rotated on the way in; cosine and sine are [N][D], or null for none. */
typedef struct { const void *x; Steps at; int64_t is_low; const float *cosine, *sine; } Matrix;

/* One row in fp32: x[d] cos[d] -+ x[d -+ D/2] sin[d], transformers' halves. */
static inline void load_row(const Matrix *m, int64_t token, int head, int D, float *to) {
    float plain[MAX_SIZE];
    float *row = m->cosine ? plain : to;
    int64_t first = token * m->at.row + head * m->at.head;
    if (m->is_low) {
        const bf16 *x = (const bf16 *)m->x + first;
        for (int d = 0; d < D; d++) row[d] = wide(x[d]);
    } else {
        memcpy(row, (const float *)m->x + first, (size_t)D * sizeof(float));
    }
    if (!m->cosine) return;
    const float *c = m->cosine + token * D, *s = m->sine + token * D;
    int half = D / 2;
    for (int d = 0; d < half; d++) to[d] = row[d] * c[d] - row[d + half] * s[d];
    for (int d = half; d < D; d++) to[d] = row[d] * c[d] + row[d - half] * s[d];
}

/* The gradient of load_row, times a factor, in the dtype of the matrix; element (token, head, d) at (token * heads + head) * D + d. */
static inline void store_gradient(const Matrix *m, int64_t token, int head, int heads, int D, const float *g, float factor, void *to) {
    float turned[MAX_SIZE];
    int64_t first = (token * heads + head) * D;
    if (m->cosine) {
        const float *c = m->cosine + token * D, *s = m->sine + token * D;
        int half = D / 2;
        for (int d = 0; d < half; d++) turned[d] = g[d] * c[d] + g[d + half] * s[d + half];
        for (int d = half; d < D; d++) turned[d] = g[d] * c[d] - g[d - half] * s[d - half];
        g = turned;
    }
    if (m->is_low) for (int d = 0; d < D; d++) ((bf16 *)to)[first + d] = narrow(g[d] * factor);
    else for (int d = 0; d < D; d++) ((float *)to)[first + d] = g[d] * factor;
}

/* Rows of a segment as bf16 [num][Dp], zeros behind D and behind the last row. */
static void gather_wide(const Matrix *m, int head, const Segment *s, int first, int num, int padded, int D, int Dp, float scale, bf16 *out) {
    float row[MAX_SIZE];
    memset(out, 0, (size_t)padded * Dp * sizeof(bf16));
    for (int i = 0; i < num; i++) {
        load_row(m, row_of(s, first + i), head, D, row);
        for (int d = 0; d < D; d++) out[(size_t)i * Dp + d] = narrow(row[d] * scale);
    }
}

static void gather_low(const bf16 *x, Steps at, int head, const Segment *s, int first, int num, int padded, int D, int Dp, bf16 *out) {
    memset(out, 0, (size_t)padded * Dp * sizeof(bf16));
    for (int i = 0; i < num; i++) memcpy(out + (size_t)i * Dp, x + row_of(s, first + i) * at.row + head * at.head, (size_t)D * sizeof(bf16));
}

typedef struct {
    int32_t *k_across, *k_along, *v_across, *v_along; /* [Dp/2][L], [L/2][Dp], ... */
    bf16 *rows, *queries, *outputs;                   /* [L][Dp], [BQ][Dp] */
    float *scores, *grads, *tile;                     /* [BQ][L], [BQ][L], [BQ][Dp] */
    bf16 *low;                                        /* [BQ][L] */
    int32_t *p_pairs, *d_pairs, *q_turned, *g_turned; /* [BQ/2][L] twice, [Dp][BQ/2] twice */
    float *dk, *dv;                                   /* [Dp][L] of one segment */
    float *sum_k, *sum_v;                             /* [T][Dp] of a tree */
    char *block;
} Scratch;

static char *take(char **at, size_t bytes) {
    char *found = *at;
    *at += (bytes + 63) / 64 * 64;
    return found;
}

static int reserve(Scratch *s, int L, int T, int Dp, int learns) {
    for (int pass = 0; pass < 2; pass++) {
        char *start = pass ? s->block : NULL, *at = start;
        size_t l = L, d = Dp;
        s->k_across = (int32_t *)take(&at, l * d * 2);
        s->v_across = (int32_t *)take(&at, l * d * 2);
        s->k_along = (int32_t *)take(&at, l * d * 2);
        s->v_along = (int32_t *)take(&at, l * d * 2);
        s->rows = (bf16 *)take(&at, l * d * 2);
        s->queries = (bf16 *)take(&at, BQ * d * 2);
        s->outputs = (bf16 *)take(&at, BQ * d * 2);
        s->scores = (float *)take(&at, BQ * l * 4);
        s->tile = (float *)take(&at, BQ * d * 4);
        s->low = (bf16 *)take(&at, BQ * l * 2);
        if (learns) {
            s->grads = (float *)take(&at, BQ * l * 4);
            s->p_pairs = (int32_t *)take(&at, BQ * l * 2);
            s->d_pairs = (int32_t *)take(&at, BQ * l * 2);
            s->q_turned = (int32_t *)take(&at, BQ * d * 2);
            s->g_turned = (int32_t *)take(&at, BQ * d * 2);
            s->dk = (float *)take(&at, l * d * 4);
            s->dv = (float *)take(&at, l * d * 4);
            s->sum_k = (float *)take(&at, (size_t)T * d * 4);
            s->sum_v = (float *)take(&at, (size_t)T * d * 4);
        }
        if (!pass && !(s->block = aligned_alloc(64, (size_t)(at - start) + 64))) return 0;
    }
    return 1;
}

/* Keys and values of a segment in the layouts that the products read. */
static void load_keys(Scratch *s, const Matrix *k, const bf16 *v, Steps v_at, int head, const Segment *segment, int num, int L, int D, int Dv, int Dp, int learns) {
    gather_wide(k, head, segment, 0, num, L, D, Dp, 1.0f, s->rows);
    pack_across(s->rows, L, Dp, s->k_across, L);
    if (learns) pack_along(s->rows, L, Dp, s->k_along);
    gather_low(v, v_at, head, segment, 0, num, L, Dv, Dp, s->rows);
    pack_along(s->rows, L, Dp, s->v_along);
    if (learns) pack_across(s->rows, L, Dp, s->v_across, L);
}

/* Returns 0 when memory ran out.

   segments: grouped by tree; tree t has segments tree_starts[t] .. tree_starts[t + 1] of rows [row_starts[t], row_starts[t + 1]).
   norms: [N][H] log of the sum of exponentials of the scores, for the gradient. */
int attend_forward(const Matrix *q, const Matrix *k, const bf16 *v, Steps v_at, bf16 *out, float *norms, const Segment *segments,
                   const int64_t *tree_starts, int num_trees, int H, int Hkv, int D, int Dv, int window, float scale) {
    int G = H / Hkv, Dp = up(D > Dv ? D : Dv, 16), failed = 0;
#pragma omp parallel
    {
        Scratch s = {0};
        int held = 0;
#pragma omp for schedule(dynamic, 1)
        for (int item = 0; item < num_trees * Hkv; item++) {
            int tree = item / Hkv, kv = item % Hkv;
            for (int64_t g = tree_starts[tree]; g < tree_starts[tree + 1]; g++) {
                const Segment *segment = segments + g;
                int num = (int)(segment->prompt_num + segment->branch_num), L = up(num, 32), from, to;
                if (L > held) {
                    free(s.block);
                    s.block = NULL;
                    held = L + L / 4;
                    held = up(held, 32);
                    if (!reserve(&s, held, 0, Dp, 0)) { failed = 1; held = 0; break; }
                }
                load_keys(&s, k, v, v_at, kv, segment, num, L, D, Dv, Dp, 0);
                for (int h = kv * G; h < (kv + 1) * G; h++)
                    for (int first = (int)segment->query_from; first < num; first += BQ) {
                        int count = num - first < BQ ? num - first : BQ, padded = up(count, ROWS);
                        seen(first, first + count, window, &from, &to);
                        int width = up(to - from, 16);
                        gather_wide(q, h, segment, first, count, padded, D, Dp, scale, s.queries);
                        product(padded, width, Dp / 2, (int32_t *)s.queries, Dp / 2, s.k_across + from, L, s.scores, L, 0);
                        for (int i = 0; i < padded; i++) {
                            float *row = s.scores + (size_t)i * L;
                            int high = first + (i < count ? i : count - 1), low = window > 0 ? high + 1 - window : 0;
                            __m512 most = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
                            for (int j = 0; j < width; j += 16) {
                                __m512 x = limited(_mm512_loadu_ps(row + j), from + j, low, high);
                                _mm512_storeu_ps(row + j, x);
                                most = _mm512_max_ps(most, x);
                            }
                            __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
                            for (int j = 0; j < width; j += 16) {
                                __m512 x = exponential(_mm512_sub_ps(_mm512_loadu_ps(row + j), top));
                                x = _mm512_maskz_mov_ps(_mm512_cmpneq_ps_mask(_mm512_loadu_ps(row + j), _mm512_set1_ps(-INFINITY)), x);
                                _mm512_storeu_ps(row + j, x);
                                total = _mm512_add_ps(total, x);
                            }
                            float sum = _mm512_reduce_add_ps(total);
                            __m512 share = _mm512_set1_ps(1.0f / sum);
                            for (int j = 0; j < width; j += 16)
                                _mm256_storeu_si256((__m256i *)(s.low + (size_t)i * L + j), (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(row + j), share)));
                            if (i < count) norms[row_of(segment, first + i) * H + h] = _mm512_cvtss_f32(top) + logf(sum);
                        }
                        product(padded, Dp, width / 2, (int32_t *)s.low, L / 2, s.v_along + (size_t)(from / 2) * Dp, Dp, s.tile, Dp, 0);
                        for (int i = 0; i < count; i++) {
                            bf16 *to_row = out + (row_of(segment, first + i) * H + h) * Dv;
                            for (int d = 0; d < Dv; d++) to_row[d] = narrow(s.tile[(size_t)i * Dp + d]);
                        }
                    }
            }
        }
        free(s.block);
    }
    return !failed;
}

/* out[Dp][BQ / 2]: pairs along the rows of x [BQ][Dp], turned. */
static void turn(const bf16 *x, int Dp, int32_t *out) {
    for (int i = 0; i < BQ; i += 2)
        for (int d = 0; d < Dp; d++) out[(size_t)d * (BQ / 2) + i / 2] = x[(size_t)i * Dp + d] | (int32_t)((uint32_t)x[(size_t)(i + 1) * Dp + d] << 16);
}

/* sum[row - start][Dp] += turned x[Dp][L]; rows of one segment. */
static void add_turned(const float *x, int L, int Dp, const Segment *segment, int num, int64_t start, float *sum) {
    for (int i = 0; i < num; i++) {
        float *row = sum + (row_of(segment, i) - start) * Dp;
        for (int d = 0; d < Dp; d++) row[d] += x[(size_t)d * L + i];
    }
}

/* Gradients: dq [N][H][D] and dk [N][Hkv][D] in the dtypes of q and k, dv [N][Hkv][Dv] in bf16; g and out are [N][H][Dv]. */
int attend_backward(const Matrix *q, const Matrix *k, const bf16 *v, Steps v_at, const bf16 *out, const float *norms, const bf16 *g,
                    void *dq, void *dk, bf16 *dv, const Segment *segments, const int64_t *tree_starts, const int64_t *row_starts, int num_trees, int H, int Hkv, int D,
                    int Dv, int window, float scale) {
    int G = H / Hkv, Dp = up(D > Dv ? D : Dv, 16), failed = 0;
    Steps own = {(int64_t)H * Dv, Dv};
#pragma omp parallel
    {
        Scratch s = {0};
        int held = 0, held_rows = 0;
#pragma omp for schedule(dynamic, 1)
        for (int item = 0; item < num_trees * Hkv; item++) {
            int tree = item / Hkv, kv = item % Hkv;
            int64_t start = row_starts[tree];
            int T = (int)(row_starts[tree + 1] - start), longest = 0;
            for (int64_t x = tree_starts[tree]; x < tree_starts[tree + 1]; x++) {
                int num = (int)(segments[x].prompt_num + segments[x].branch_num);
                longest = num > longest ? num : longest;
            }
            if (up(longest, 32) > held || T > held_rows) {
                free(s.block);
                s.block = NULL;
                held = up(up(longest, 32) + up(longest, 32) / 4, 32);
                held_rows = T + T / 4;
                if (!reserve(&s, held, held_rows, Dp, 1)) { failed = 1; held = held_rows = 0; continue; }
            }
            memset(s.sum_k, 0, (size_t)T * Dp * 4);
            memset(s.sum_v, 0, (size_t)T * Dp * 4);
            for (int64_t x = tree_starts[tree]; x < tree_starts[tree + 1]; x++) {
                const Segment *segment = segments + x;
                int num = (int)(segment->prompt_num + segment->branch_num), L = up(num, 32), from, to;
                load_keys(&s, k, v, v_at, kv, segment, num, L, D, Dv, Dp, 1);
                memset(s.dk, 0, (size_t)Dp * L * 4);
                memset(s.dv, 0, (size_t)Dp * L * 4);
                for (int h = kv * G; h < (kv + 1) * G; h++)
                    for (int first = (int)segment->query_from; first < num; first += BQ) {
                        int count = num - first < BQ ? num - first : BQ, padded = up(count, ROWS);
                        seen(first, first + count, window, &from, &to);
                        int width = up(to - from, 16), deep = up(padded, 2) / 2;
                        gather_wide(q, h, segment, first, count, BQ, D, Dp, scale, s.queries);
                        gather_low(g, own, h, segment, first, count, BQ, Dv, Dp, s.outputs);
                        turn(s.queries, Dp, s.q_turned);
                        turn(s.outputs, Dp, s.g_turned);
                        product(padded, width, Dp / 2, (int32_t *)s.queries, Dp / 2, s.k_across + from, L, s.scores, L, 0);
                        product(padded, width, Dp / 2, (int32_t *)s.outputs, Dp / 2, s.v_across + from, L, s.grads, L, 0);
                        for (int i = 0; i < padded; i += 2) {
                            float *row[2], *grad[2], norm[2] = {INFINITY, INFINITY}, delta[2] = {0, 0};
                            int high[2], low[2];
                            for (int e = 0; e < 2; e++) {
                                row[e] = s.scores + (size_t)(i + e) * L;
                                grad[e] = s.grads + (size_t)(i + e) * L;
                                high[e] = first + i + e;
                                low[e] = window > 0 ? high[e] + 1 - window : 0;
                                if (i + e < count) {
                                    int64_t at = row_of(segment, first + i + e) * H + h;
                                    norm[e] = norms[at];
                                    for (int d = 0; d < Dv; d++) delta[e] += wide(out[at * Dv + d]) * wide(g[at * Dv + d]);
                                }
                            }
                            for (int j = 0; j < width; j += 16) {
                                __m512 p[2], ds[2];
                                for (int e = 0; e < 2; e++) {
                                    __m512 score = limited(_mm512_loadu_ps(row[e] + j), from + j, low[e], high[e]);
                                    p[e] = exponential(_mm512_sub_ps(score, _mm512_set1_ps(norm[e])));
                                    p[e] = _mm512_maskz_mov_ps(_mm512_cmpneq_ps_mask(score, _mm512_set1_ps(-INFINITY)), p[e]);
                                    ds[e] = _mm512_mul_ps(p[e], _mm512_sub_ps(_mm512_loadu_ps(grad[e] + j), _mm512_set1_ps(delta[e])));
                                    _mm256_storeu_si256((__m256i *)(s.low + (size_t)(i + e) * L + j), (__m256i)_mm512_cvtneps_pbh(ds[e]));
                                }
                                _mm512_storeu_si512(s.p_pairs + (size_t)(i / 2) * L + j, pairs(p[0], p[1]));
                                _mm512_storeu_si512(s.d_pairs + (size_t)(i / 2) * L + j, pairs(ds[0], ds[1]));
                            }
                        }
                        product(Dp, width, deep, s.g_turned, BQ / 2, s.p_pairs, L, s.dv + from, L, 1);
                        product(Dp, width, deep, s.q_turned, BQ / 2, s.d_pairs, L, s.dk + from, L, 1);
                        product(padded, Dp, width / 2, (int32_t *)s.low, L / 2, s.k_along + (size_t)(from / 2) * Dp, Dp, s.tile, Dp, 0);
                        for (int i = 0; i < count; i++)
                            store_gradient(q, row_of(segment, first + i), h, H, D, s.tile + (size_t)i * Dp, scale, dq);
                    }
                add_turned(s.dk, L, Dp, segment, num, start, s.sum_k);
                add_turned(s.dv, L, Dp, segment, num, start, s.sum_v);
            }
            for (int i = 0; i < T; i++) {
                bf16 *v_row = dv + ((start + i) * Hkv + kv) * Dv;
                store_gradient(k, start + i, kv, Hkv, D, s.sum_k + (size_t)i * Dp, 1.0f, dk);
                for (int d = 0; d < Dv; d++) v_row[d] = narrow(s.sum_v[(size_t)i * Dp + d]);
            }
        }
        free(s.block);
    }
    return !failed;
}
