// The same in bf16, where the processor multiplies it (AVX512-BF16): operands are rounded and stand in pairs of 32 bits, sums are fp32.
//
//     weights    panels of 16 outputs [out / 16][in / 2][16 pairs], packed once a version of the weights
//     rows       pairs along the row, which is what a row of bf16 is
//     keys       blocks of 16 tokens [tokens / 16][head / 2][16 pairs]: a vector of pairs scores 16 tokens, and nothing is added across it
//     values     pairs of tokens [tokens / 2][head]
//
// Keys and values of 16 tokens take the room of 16 tokens, so whole blocks of a slot are copied as if they stood one after another.

#pragma once

#include "products.h"

namespace {

constexpr int BLOCK = 16;                   // outputs of a panel, tokens of a block of keys
constexpr int64_t ROW_PAIRS = 1 << 16;      // 256 KiB of rows
constexpr int LOW_ROWS = 8, LOW_PANELS = 3; // 24 sums, 3 weights and a row in 32 registers

inline int64_t packed_size(int64_t out, int64_t in) { return (out + BLOCK - 1) / BLOCK * BLOCK * (in / 2); }

#if defined(__AVX512F__) && defined(__AVX512BF16__)
constexpr bool HAS_LOW = true;

inline __m512bh pairs_at(const int32_t* p) { return (__m512bh)_mm512_loadu_si512(p); }
inline __m512bh pair_everywhere(int32_t p) { return (__m512bh)_mm512_set1_epi32(p); }
inline void lower_vector(const float* from, void* to) { _mm256_storeu_si256(static_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from))); }

template <int ROWS, int PANELS>
void low_tile(const int32_t* x, int64_t x_stride, const int32_t* w, int64_t pairs, float* y, int64_t stride, const float* bias, int64_t width, bool adds) {
    __m512 sums[ROWS][PANELS] = {};
    for (int64_t k = 0; k < pairs; ++k) {
        __m512bh weights[PANELS];
        for (int c = 0; c < PANELS; ++c) weights[c] = pairs_at(w + (c * pairs + k) * BLOCK);
        for (int i = 0; i < ROWS; ++i) {
            __m512bh row = pair_everywhere(x[i * x_stride + k]);
            for (int c = 0; c < PANELS; ++c) sums[i][c] = _mm512_dpbf16_ps(sums[i][c], row, weights[c]);
        }
    }
    for (int c = 0; c < PANELS; ++c) {
        int64_t left = width - c * BLOCK;
        __mmask16 there = left >= BLOCK ? 0xFFFF : static_cast<__mmask16>((1 << left) - 1);
        __m512 add = bias ? _mm512_maskz_loadu_ps(there, bias + c * BLOCK) : _mm512_setzero_ps();
        for (int i = 0; i < ROWS; ++i) {
            float* place = y + i * stride + c * BLOCK;
            __m512 found = _mm512_add_ps(sums[i][c], add);
            if (adds) found = _mm512_add_ps(found, _mm512_maskz_loadu_ps(there, place));
            _mm512_mask_storeu_ps(place, there, found);
        }
    }
}

using LowTile = void (*)(const int32_t*, int64_t, const int32_t*, int64_t, float*, int64_t, const float*, int64_t, bool);
#define LOW_TILES(rows) {low_tile<rows, 1>, low_tile<rows, 2>, low_tile<rows, 3>}
constexpr LowTile TILES_LOW[LOW_ROWS][LOW_PANELS] = {LOW_TILES(1), LOW_TILES(2), LOW_TILES(3), LOW_TILES(4),
                                                     LOW_TILES(5), LOW_TILES(6), LOW_TILES(7), LOW_TILES(8)};
#undef LOW_TILES

// y [rows, out] = x w^T + bias, or added to y: the columns of `part` alone. Rows of x start `x_stride` pairs apart.
void multiply_low(const int32_t* x, int64_t x_stride, int64_t inner, const Linear& w, float* y, int64_t stride, int64_t rows, Range part, bool adds) {
    int64_t pairs = inner / 2, height = std::max<int64_t>(LOW_ROWS, ROW_PAIRS / pairs / LOW_ROWS * LOW_ROWS);
    for (int64_t top = 0; top < rows; top += height)
        for (int64_t n = part.begin; n < part.end; n += LOW_PANELS * BLOCK) {
            int64_t count = std::min(height, rows - top), tiles = (count + LOW_ROWS - 1) / LOW_ROWS, width = part.end - n;
            int64_t panels = std::min<int64_t>(LOW_PANELS, (width + BLOCK - 1) / BLOCK);
            for (int64_t t = 0; t < tiles; ++t) {
                int64_t first = top + count * t / tiles, tall = top + count * (t + 1) / tiles - first;
                TILES_LOW[tall - 1][panels - 1](x + first * x_stride, x_stride, w.packed + n * pairs, pairs, y + first * stride + n, stride,
                                                w.bias ? w.bias + n : nullptr, width, adds);
            }
        }
}

// A row of fp32 becomes a row of bf16 in its first half.
void lower(float* row, int64_t size) {
    for (int64_t k = 0; k < size; k += BLOCK) lower_vector(row + k, reinterpret_cast<uint16_t*>(row) + k);
}

// The columns of `part` of a row, to a row of bf16.
void lower_part(const float* from, float* to, Range part) {
    for (int64_t k = part.begin; k < part.end; k += BLOCK) lower_vector(from + k, reinterpret_cast<uint16_t*>(to) + k);
}

// This thread's panels of a weight.
void pack(const float* weight, int64_t out, int64_t in, int32_t* packed) {
#pragma omp for schedule(static)
    for (int64_t n = 0; n < out; n += BLOCK)
        for (int64_t k = 0; k < in; k += BLOCK)
            for (int64_t j = 0; j < BLOCK; ++j) {
                alignas(32) int32_t found[BLOCK / 2] = {};
                if (n + j < out) lower_vector(weight + (n + j) * in + k, found);
                for (int64_t i = 0; i < BLOCK / 2; ++i) packed[n * (in / 2) + (k / 2 + i) * BLOCK + j] = found[i];
            }
}

// A key and a value of one head to position `position` of what a slot has for it. `ends`: no token of this batch stands beside it, so the other
// half of its pair of values is made 0, for what is there may be anything and is read with weight 0.
void place_low(const float* key, const float* value, int64_t head, int64_t position, int32_t* keys, int32_t* values, bool ends) {
    alignas(32) int32_t low[BLOCK / 2];
    int32_t* block = keys + position / BLOCK * BLOCK * (head / 2) + position % BLOCK;
    uint16_t* pair = reinterpret_cast<uint16_t*>(values + position / 2 * head) + position % 2;
    for (int64_t d = 0; d < head; d += BLOCK) {
        lower_vector(key + d, low);
        for (int64_t i = 0; i < BLOCK / 2; ++i) block[(d / 2 + i) * BLOCK] = low[i];
        lower_vector(value + d, low);
        for (int64_t i = 0; i < BLOCK; ++i) pair[2 * (d + i)] = reinterpret_cast<uint16_t*>(low)[i];
        for (int64_t i = 0; i < BLOCK && ends && position % 2 == 0; ++i) pair[2 * (d + i) + 1] = 0;
    }
}

// scores[j] = query . key j for `count` keys from a block's first on, and as many more as fill the last block.
template <int CHUNKS>
void score_low(const int32_t* query, const int32_t* keys, int64_t count, float* scores) {
    constexpr int PAIRS = CHUNKS * BLOCK / 2;
    for (int64_t j = 0; j < count; j += BLOCK) {
        const int32_t* block = keys + j * PAIRS;
        __m512 sums[4] = {};
        for (int p = 0; p < PAIRS; p += 4)
            for (int s = 0; s < 4; ++s) sums[s] = _mm512_dpbf16_ps(sums[s], pair_everywhere(query[p + s]), pairs_at(block + (p + s) * BLOCK));
        _mm512_storeu_ps(scores + j, _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
    }
}

// out = sum over pairs of tokens of weights times values, divided by `total`.
template <int CHUNKS>
void gather_low(const int32_t* weights, const int32_t* values, int64_t pairs, float total, float* out) {
    constexpr int STREAMS = CHUNKS <= 3 ? 4 : CHUNKS <= 8 ? 2 : 1, HEAD = CHUNKS * BLOCK;
    __m512 sums[STREAMS][CHUNKS] = {};
    int64_t j = 0;
    for (; j + STREAMS <= pairs; j += STREAMS)
        for (int s = 0; s < STREAMS; ++s)
            for (int c = 0; c < CHUNKS; ++c)
                sums[s][c] = _mm512_dpbf16_ps(sums[s][c], pair_everywhere(weights[j + s]), pairs_at(values + (j + s) * HEAD + c * BLOCK));
    for (; j < pairs; ++j)
        for (int c = 0; c < CHUNKS; ++c) sums[0][c] = _mm512_dpbf16_ps(sums[0][c], pair_everywhere(weights[j]), pairs_at(values + j * HEAD + c * BLOCK));
    for (int c = 0; c < CHUNKS; ++c) {
        for (int s = 1; s < STREAMS; ++s) sums[0][c] = _mm512_add_ps(sums[0][c], sums[s][c]);
        _mm512_storeu_ps(out + c * BLOCK, _mm512_div_ps(sums[0][c], _mm512_set1_ps(total)));
    }
}
#else
constexpr bool HAS_LOW = false;  // never called

void multiply_low(const int32_t*, int64_t, int64_t, const Linear&, float*, int64_t, int64_t, Range, bool) {}
void lower(float*, int64_t) {}
void lower_part(const float*, float*, Range) {}
void pack(const float*, int64_t, int64_t, int32_t*) {}
void place_low(const float*, const float*, int64_t, int64_t, int32_t*, int32_t*, bool) {}
template <int CHUNKS>
void score_low(const int32_t*, const int32_t*, int64_t, float*) {}
template <int CHUNKS>
void gather_low(const int32_t*, const int32_t*, int64_t, float, float*) {}
#endif

// In the arithmetic of the weight: rows of fp32, or of bf16 in their first halves.
void multiply_any(const float* x, int64_t inner, const Linear& w, float* y, int64_t stride, int64_t rows, Range part, bool adds) {
    if (w.packed) multiply_low(reinterpret_cast<const int32_t*>(x), inner, inner, w, y, stride, rows, part, adds);
    else multiply(x, inner, w, y, stride, rows, part, adds);
}

}  // namespace
