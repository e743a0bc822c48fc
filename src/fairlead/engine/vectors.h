// Vectors of fp32 numbers, and what the compiler has no name for.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

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
}  // namespace
