// Products of fp32 rows with a weight, where the trainer keeps it: tiles of dot products over rows of both, which need no other layout.

#pragma once

#include "vectors.h"

#include <omp.h>

namespace {

#if defined(__AVX512F__)
constexpr int TILE_ROWS = 6;  // 24 sums, 4 weights and a row in 32 registers
#elif defined(__AVX2__)
constexpr int TILE_ROWS = 2;  // 8 sums, 4 weights and a row in 16 registers
#else
constexpr int TILE_ROWS = 4;
#endif
constexpr int TILE_COLUMNS = 4, LINE = 16;  // LINE: floats of a cache line
constexpr int64_t PANEL_FLOATS = 1 << 16;   // 256 KiB of weights
constexpr int64_t BLOCK_FLOATS = 6144;      // 24 KiB of rows

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
    const float* weight;    // [out, in]
    const float* bias;      // [out] or null
    const int32_t* packed;  // the weight in pairs of bf16, see low.h; null in fp32
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
}  // namespace
