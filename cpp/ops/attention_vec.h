// Vectors of floats for the attention kernels, through the compiler's vector extensions.
// Included by one translation unit per instruction set, so everything lives in an unnamed namespace
// and nothing comes from the standard library: a shared inline function compiled with AVX-512 could
// otherwise be the copy that the linker keeps for everyone.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define EMM_UNROLL _Pragma("GCC unroll 16")

namespace emm::ops {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef int32_t vi __attribute__((vector_size(kLanes * 4)));
typedef uint32_t vu __attribute__((vector_size(kLanes * 4)));
typedef uint16_t vu16 __attribute__((vector_size(kLanes * 2)));
typedef int8_t vi8 __attribute__((vector_size(kLanes)));
typedef float v4 __attribute__((vector_size(16)));

constexpr float kInf = __builtin_inff();

template <class V>
inline V load_as(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline vf load(const float* p) { return load_as<vf>(p); }
inline void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
inline vf splat(float x) { return x - vf{}; }  // x - 0 is x for every x, so nothing is computed
inline vf max(vf a, vf b) { return b > a ? b : a; }  // keeps a where b is NaN

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// How one element type of the cache becomes floats. `zero` is the zero point of int8 data, 0
// otherwise.
struct F32 {
  using T = float;
  static vf load(const T* p, float) { return load_as<vf>(p); }
};

struct BF16 {
  using T = uint16_t;
  static vf load(const T* p, float) {
    return (vf)(__builtin_convertvector(load_as<vu16>(p), vu) << 16);
  }
};

struct F16 {
  using T = uint16_t;
  static vf load(const T* p, float) {
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_cvtph_ps(static_cast<__mmask16>(-1), load_as<__m256i>(p));
#elif defined(__F16C__)
    return (vf)_mm256_cvtph_ps(load_as<__m128i>(p));
#elif defined(__aarch64__)
    typedef __fp16 vh __attribute__((vector_size(kLanes * 2)));
    return __builtin_convertvector(load_as<vh>(p), vf);
#else
    // Move exponent and mantissa into place and let a multiplication rebias the exponent, which
    // also gives subnormal numbers their leading bit; only infinity and NaN need their exponent
    // filled up.
    const vu bits = __builtin_convertvector(load_as<vu16>(p), vu);
    const vu magnitude = (bits & 0x7FFF) << 13;
    const vu special = (vu)((bits & 0x7C00) == 0x7C00) & 0x7F800000u;
    return (vf)((vu)((vf)magnitude * 0x1p112f) | special | ((bits & 0x8000) << 16));
#endif
  }
};

struct I8 {
  using T = int8_t;
  // GCC converts vectors of bytes one by one, so the instructions are named.
  static vf load(const T* p, float zero) {
#if defined(__AVX512F__)
    const vi wide = (vi)_mm512_maskz_cvtepi8_epi32(static_cast<__mmask16>(-1), load_as<__m128i>(p));
#elif defined(__AVX2__)
    const vi wide = (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__x86_64__)
    const __m128i bytes = _mm_cvtsi32_si128(load_as<int32_t>(p));
    const __m128i twice = _mm_unpacklo_epi8(bytes, bytes);
    const vi wide = (vi)_mm_unpacklo_epi16(twice, twice) >> 24;
#elif defined(__aarch64__)
    const int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(load_as<uint32_t>(p)));
    const vi wide = (vi)vmovl_s16(vget_low_s16(vmovl_s8(bytes)));
#else
    const vi wide = __builtin_convertvector(load_as<vi8>(p), vi);
#endif
    return __builtin_convertvector(wide, vf) - zero;
  }
};

// Bytes of `count` < kLanes elements of type T, put so that the compiler sees the bound.
template <class T>
inline uint64_t tail_bytes(int64_t count) {
  return static_cast<uint64_t>(count & (kLanes - 1)) * sizeof(T);
}

// The last `count` < kLanes elements of a row; zeros (stored) follow.
template <class L>
inline vf load_tail(const typename L::T* p, int64_t count, float zero) {
  typename L::T buffer[kLanes] = {};
  __builtin_memcpy(buffer, p, tail_bytes<typename L::T>(count));
  return L::load(buffer, zero);
}

// e^x for x <= 0, relative error below 2e-7; 0 below the smallest normal number; NaN stays NaN.
inline vf exp_nonpositive(vf x) {
  const vf shifted =
      x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer nearest to x / ln 2 in the low bits
  const vf n = shifted - 12582912.0f;
  const vf r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vf y = splat(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  const vf power = (vf)(((vu)shifted + 127u) << 23);
  return x < -87.33f ? vf{} : y * power;
}

inline vf safe_max(vf m) { return m == -kInf ? vf{} : m; }

inline float sum_lanes(vf v) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) {
    sum += v[i];
  }
  return sum;
}

inline float max_lanes(vf v) {
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) {
    most = v[i] > most ? v[i] : most;
  }
  return most;
}

// The same vector, in a register: gcc reads what several operations share anew from memory for each
// of them. Only AVX-512 has registers to spare.
inline vf in_register(vf a) {
#if defined(__AVX512F__)
  asm("" : "+v"(a));
#endif
  return a;
}

// Adds up the lanes of kLanes / 4 rows x 4 vectors at once: element [row * 4 + i] of the result is
// the sum of a[row][i]. Each step halves what is left with two shuffles and an addition.
inline vf sum_all(const vf (*a)[4]) {
  vf x[4];
  EMM_UNROLL for (int i = 0; i < 4; ++i) {
#if defined(__AVX512F__)
    const vf p = __builtin_shufflevector(a[0][i], a[1][i], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19,
                                         20, 21, 22, 23) +
                 __builtin_shufflevector(a[0][i], a[1][i], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26,
                                         27, 28, 29, 30, 31);
    const vf q = __builtin_shufflevector(a[2][i], a[3][i], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19,
                                         20, 21, 22, 23) +
                 __builtin_shufflevector(a[2][i], a[3][i], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26,
                                         27, 28, 29, 30, 31);
    x[i] =
        __builtin_shufflevector(p, q, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
        __builtin_shufflevector(p, q, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
#elif defined(__AVX2__)
    x[i] = __builtin_shufflevector(a[0][i], a[1][i], 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(a[0][i], a[1][i], 4, 5, 6, 7, 12, 13, 14, 15);
#else
    x[i] = a[0][i];
#endif
  }
  vf y[2];
  EMM_UNROLL for (int i = 0; i < 2; ++i) {
#if defined(__AVX512F__)
    y[i] = __builtin_shufflevector(x[2 * i], x[2 * i + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25,
                                   12, 13, 28, 29) +
           __builtin_shufflevector(x[2 * i], x[2 * i + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26,
                                   27, 14, 15, 30, 31);
#elif defined(__AVX2__)
    y[i] = __builtin_shufflevector(x[2 * i], x[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
           __builtin_shufflevector(x[2 * i], x[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
#else
    y[i] = __builtin_shufflevector(x[2 * i], x[2 * i + 1], 0, 1, 4, 5) +
           __builtin_shufflevector(x[2 * i], x[2 * i + 1], 2, 3, 6, 7);
#endif
  }
#if defined(__AVX512F__)
  return __builtin_shufflevector(y[0], y[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28,
                                 30) +
         __builtin_shufflevector(y[0], y[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29,
                                 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(y[0], y[1], 0, 2, 8, 10, 4, 6, 12, 14) +
         __builtin_shufflevector(y[0], y[1], 1, 3, 9, 11, 5, 7, 13, 15);
#else
  return __builtin_shufflevector(y[0], y[1], 0, 2, 4, 6) +
         __builtin_shufflevector(y[0], y[1], 1, 3, 5, 7);
#endif
}

// Copies a rows x columns matrix into its transpose, four by four.
inline void transpose(const float* from, int64_t from_stride, int64_t rows, int64_t columns,
                      float* to, int64_t to_stride) {
  const int64_t whole_rows = rows & ~int64_t{3};
  const int64_t whole_columns = columns & ~int64_t{3};
  for (int64_t r = 0; r < whole_rows; r += 4) {
    const float* f = from + r * from_stride;
    float* t = to + r;
    for (int64_t c = 0; c < whole_columns; c += 4) {
      const v4 a = load_as<v4>(f + c);
      const v4 b = load_as<v4>(f + from_stride + c);
      const v4 e = load_as<v4>(f + 2 * from_stride + c);
      const v4 g = load_as<v4>(f + 3 * from_stride + c);
      const v4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
      const v4 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const v4 eg_low = __builtin_shufflevector(e, g, 0, 4, 1, 5);
      const v4 eg_high = __builtin_shufflevector(e, g, 2, 6, 3, 7);
      const v4 out[4] = {__builtin_shufflevector(ab_low, eg_low, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_low, eg_low, 2, 3, 6, 7),
                         __builtin_shufflevector(ab_high, eg_high, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_high, eg_high, 2, 3, 6, 7)};
      EMM_UNROLL for (int i = 0; i < 4; ++i) {
        __builtin_memcpy(t + (c + i) * to_stride, &out[i], sizeof out[i]);
      }
    }
    for (int64_t c = whole_columns; c < columns; ++c) {
      EMM_UNROLL for (int i = 0; i < 4; ++i) { t[c * to_stride + i] = f[i * from_stride + c]; }
    }
  }
  for (int64_t r = whole_rows; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      to[c * to_stride + r] = from[r * from_stride + c];
    }
  }
}

}  // namespace
}  // namespace emm::ops
