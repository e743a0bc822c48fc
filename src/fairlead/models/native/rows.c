/* Passes over the rows of a batch that PyTorch makes in several: norms, gated activations and softmax, forward and gradient. Each reads what it
   needs once and writes what others need once; sums over rows are taken in fixed pieces, so threads change nothing.

   Legend: N rows, H their width, bf16 where `is_low`, else fp32. */

#include "numbers.h"
#include <stdlib.h>
#include <string.h>

#define PIECES 64
#define BLOCK 4096

static inline __m512 load(const void *x, int is_low, int64_t at, __mmask16 some) {
    return is_low ? load_low((const bf16 *)x + at, some) : _mm512_maskz_loadu_ps(some, (const float *)x + at);
}

static inline void store(void *x, int is_low, int64_t at, __mmask16 some, __m512 value) {
    if (is_low) store_low((bf16 *)x + at, some, value);
    else _mm512_mask_storeu_ps((float *)x + at, some, value);
}

/* y = x inverse (weight + offset), inverse = 1 / sqrt(mean(x^2) + epsilon); x is fp32. */
void norm_forward(const float *x, const float *weight, float offset, float epsilon, void *y, int is_low, float *inverse, int64_t N, int64_t H) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        const float *row = x + n * H;
        __m512 squares = _mm512_setzero_ps();
        for (int64_t i = 0; i < H; i += 16) {
            __m512 value = _mm512_maskz_loadu_ps(lanes(H - i), row + i);
            squares = _mm512_fmadd_ps(value, value, squares);
        }
        inverse[n] = 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)H + epsilon);
        for (int64_t i = 0; i < H; i += 16) {
            __mmask16 some = lanes(H - i);
            __m512 scale = _mm512_add_ps(_mm512_maskz_loadu_ps(some, weight + i), _mm512_set1_ps(offset));
            __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, row + i), _mm512_set1_ps(inverse[n]));
            store(y, is_low, n * H + i, some, _mm512_mul_ps(value, scale));
        }
    }
}

/* With n = x inverse and h = g (weight + offset): dx = inverse (h - n mean(h n)), dweight = sum of g n. Returns 0 without memory. */
int norm_backward(const float *x, const float *weight, float offset, const float *inverse, const void *g, int is_low, float *dx, float *dweight,
                  int64_t N, int64_t H) {
    float *sums = dweight ? calloc((size_t)PIECES * H, sizeof(float)) : NULL;
    if (dweight && !sums) return 0;
#pragma omp parallel for schedule(static)
    for (int64_t piece = 0; piece < PIECES; piece++)
        for (int64_t n = piece * N / PIECES; n < (piece + 1) * N / PIECES; n++) {
            const float *row = x + n * H;
            __m512 scale = _mm512_set1_ps(inverse[n]), along = _mm512_setzero_ps();
            for (int64_t i = 0; i < H; i += 16) {
                __mmask16 some = lanes(H - i);
                __m512 normed = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, row + i), scale), grad = load(g, is_low, n * H + i, some);
                __m512 h = _mm512_mul_ps(grad, _mm512_add_ps(_mm512_maskz_loadu_ps(some, weight + i), _mm512_set1_ps(offset)));
                along = _mm512_fmadd_ps(h, normed, along);
                if (sums) {
                    float *sum = sums + piece * H + i;
                    _mm512_mask_storeu_ps(sum, some, _mm512_fmadd_ps(grad, normed, _mm512_maskz_loadu_ps(some, sum)));
                }
            }
            __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(along) / (float)H);
            for (int64_t i = 0; i < H; i += 16) {
                __mmask16 some = lanes(H - i);
                __m512 normed = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, row + i), scale), grad = load(g, is_low, n * H + i, some);
                __m512 h = _mm512_mul_ps(grad, _mm512_add_ps(_mm512_maskz_loadu_ps(some, weight + i), _mm512_set1_ps(offset)));
                _mm512_mask_storeu_ps(dx + n * H + i, some, _mm512_mul_ps(scale, _mm512_fnmadd_ps(normed, mean, h)));
            }
        }
    if (sums) {
        memset(dweight, 0, (size_t)H * sizeof(float));
        for (int64_t piece = 0; piece < PIECES; piece++)
            for (int64_t i = 0; i < H; i++) dweight[i] += sums[piece * H + i];
        free(sums);
    }
    return 1;
}

/* h = silu(gate) up, of `count` numbers. */
void gate_forward(const void *gate, const void *up, void *h, int is_low, int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < count; start += BLOCK)
        for (int64_t i = start; i < count && i < start + BLOCK; i += 16) {
            __mmask16 some = lanes(count - i);
            __m512 a = load(gate, is_low, i, some), b = load(up, is_low, i, some), one = _mm512_set1_ps(1.0f);
            __m512 sigmoid = _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), a))));
            store(h, is_low, i, some, _mm512_mul_ps(_mm512_mul_ps(a, sigmoid), b));
        }
}

/* With s = sigmoid(gate): dgate = g up s (1 + gate (1 - s)), dup = g gate s. */
void gate_backward(const void *gate, const void *up, const void *g, void *dgate, void *dup, int is_low, int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < count; start += BLOCK)
        for (int64_t i = start; i < count && i < start + BLOCK; i += 16) {
            __mmask16 some = lanes(count - i);
            __m512 a = load(gate, is_low, i, some), b = load(up, is_low, i, some), grad = load(g, is_low, i, some), one = _mm512_set1_ps(1.0f);
            __m512 s = _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), a))));
            __m512 slope = _mm512_mul_ps(s, _mm512_fmadd_ps(a, _mm512_sub_ps(one, s), one));
            store(dgate, is_low, i, some, _mm512_mul_ps(_mm512_mul_ps(grad, b), slope));
            store(dup, is_low, i, some, _mm512_mul_ps(_mm512_mul_ps(grad, a), s));
        }
}

/* With norm = log sum e^logits of each row: logprob = logits[target] - norm, entropy = norm - sum p logits, and p in bf16 where that is wanted.
   The rows of logits are overwritten then. */
void softmax_rows(float *logits, const int64_t *targets, float *logprob, float *norm, float *entropy, bf16 *p, int64_t N, int64_t V) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < N; n++) {
        float *row = logits + n * V;
        __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps(), along = _mm512_setzero_ps();
        for (int64_t i = 0; i < V; i += 16) most = _mm512_mask_max_ps(most, lanes(V - i), most, _mm512_maskz_loadu_ps(lanes(V - i), row + i));
        float top = _mm512_reduce_max_ps(most), at_target = row[targets[n]] - top;
        for (int64_t i = 0; i < V; i += 16) {
            __mmask16 some = lanes(V - i);
            __m512 x = _mm512_sub_ps(_mm512_maskz_loadu_ps(some, row + i), _mm512_set1_ps(top)), e = _mm512_maskz_mov_ps(some, exponential(x));
            sum = _mm512_add_ps(sum, e);
            if (entropy) along = _mm512_fmadd_ps(e, x, along);
            if (p) _mm512_mask_storeu_ps(row + i, some, e);
        }
        float total = _mm512_reduce_add_ps(sum), log_total = logf(total);
        logprob[n] = at_target - log_total;
        norm[n] = top + log_total;
        if (entropy) entropy[n] = log_total - _mm512_reduce_add_ps(along) / total;
        if (p)
            for (int64_t i = 0; i < V; i += 16) {
                __mmask16 some = lanes(V - i);
                store_low(p + n * V + i, some, _mm512_mul_ps(_mm512_maskz_loadu_ps(some, row + i), _mm512_set1_ps(1.0f / total)));
            }
    }
}
