// A decode step's row of activations and the 4-bit groups that most models' weights are.
#include "linear/avx512vnni.h"

namespace emm::linear::avx512vnni {
namespace {

// The sums of each 128 bits of four vectors. Eight products of 4-bit and 8-bit integers are no more
// than 8192 and thirty-two no more than 32768, so that packing loses nothing until the last sum.
inline __attribute__((always_inline)) __m512i fold_four(const __m512i* v) {
  const __m512i ones = _mm512_set1_epi16(1);
  const __m512i ab = _mm512_madd_epi16(_mm512_packs_epi32(v[0], v[1]), ones);
  const __m512i cd = _mm512_madd_epi16(_mm512_packs_epi32(v[2], v[3]), ones);
  return _mm512_madd_epi16(_mm512_packs_epi32(ab, cd), ones);
}

inline __attribute__((always_inline)) __m512i int4_dot(__m512i packed, __m512i even, __m512i odd,
                                                       __m512i offset) {
  const __m512i low_half = _mm512_set1_epi8(15);
  const __m512i low = _mm512_and_si512(packed, low_half);
  const __m512i high = _mm512_and_si512(_mm512_srli_epi16(packed, 4), low_half);
  return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(offset, low, even), high, odd);
}

}  // namespace

// One row and 4-bit weights in groups of 32, `kWide` outputs at a time; their rows are whole halves
// of 64 bytes. The same sums in the same order as int4_rows().
void one_row(const Layer& layer, const Activations& in, int64_t i, const float* sums, int64_t begin,
             int64_t end, float* out) {
  const int64_t bytes = layer.row_bytes();
  const int64_t groups = layer.groups();
  const int8_t* const x = in.values + i * in.stride;
  const int32_t* const offsets = in.offsets8 + i * (in.stride / 8);
  const __m256 scale_of_row = _mm256_set1_ps(in.scales[i].scale);
  const __m256 zero = _mm256_set1_ps(-static_cast<float>(in.scales[i].zero_point));
  // From four words of each of eight outputs to the high halves of two groups' floats.
  const __m512i first = _mm512_set_epi16(29, 0, 25, 0, 21, 0, 17, 0, 13, 0, 9, 0, 5, 0, 1, 0,  //
                                         28, 0, 24, 0, 20, 0, 16, 0, 12, 0, 8, 0, 4, 0, 0, 0);
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(2));
  // The same from two words of each.
  const __m512i of_half = _mm512_set_epi16(15, 0, 13, 0, 11, 0, 9, 0, 7, 0, 5, 0, 3, 0, 1, 0,  //
                                           14, 0, 12, 0, 10, 0, 8, 0, 6, 0, 4, 0, 2, 0, 0, 0);
  const __m512i lower = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  const __m512i upper = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  const __m512i halves = _mm512_set_epi64(7, 6, 3, 2, 5, 4, 1, 0);
  constexpr __mmask32 kHighs = 0xAAAAAAAA;
  const __m256 bias_of_none = _mm256_setzero_ps();

  for (int64_t n = begin; n < end; n += kWide) {
    const uint8_t* row = layer.row(n);
    const uint8_t* scales = layer.scales + n * groups * 2;
    __m256 total = _mm256_mul_ps(zero, _mm256_loadu_ps(sums + n));
    // Through memory, because taking vectors apart is what the shuffling port is busy with.
    alignas(64) float values[32];
    alignas(64) float factors[32];
    const auto add = [&](int64_t count) __attribute__((always_inline)) {
      asm("" : "+m"(values), "+m"(factors));
#pragma GCC unroll 4
      for (int64_t g = 0; g < count; ++g)
        total =
            _mm256_fmadd_ps(_mm256_load_ps(values + g * 8), _mm256_load_ps(factors + g * 8), total);
    };
    const uint8_t* ahead = row + kAhead;
    int64_t k = 0;
    for (; k + 64 <= bytes; k += 64, ahead += 64 * kWide, scales += 8) {
      const __m512i even = _mm512_loadu_si512(x + k * 2);
      const __m512i odd = _mm512_loadu_si512(x + k * 2 + 64);
      const __m512i offset = _mm512_loadu_si512(offsets + k / 4);
      __m512i dot[kWide];
      __m512i words = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int64_t r = 0; r < kWide; ++r) {
        dot[r] = int4_dot(_mm512_loadu_si512(row + r * bytes + k), even, odd, offset);
        // In the order of addresses.
        _mm_prefetch(reinterpret_cast<const char*>(ahead + r * 64), _MM_HINT_T1);
        words = _mm512_mask_broadcastq_epi64(
            words, static_cast<__mmask8>(1u << r),
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + r * groups * 2)));
      }
      const __m512 a = _mm512_cvtepi32_ps(fold_four(dot));
      const __m512 b = _mm512_cvtepi32_ps(fold_four(dot + 4));
      _mm512_store_ps(values, _mm512_castpd_ps(_mm512_permutex2var_pd(_mm512_castps_pd(a), lower,
                                                                      _mm512_castps_pd(b))));
      _mm512_store_ps(values + 16, _mm512_castpd_ps(_mm512_permutex2var_pd(
                                       _mm512_castps_pd(a), upper, _mm512_castps_pd(b))));
      _mm512_store_si512(factors, _mm512_maskz_permutexvar_epi16(kHighs, first, words));
      _mm512_store_si512(factors + 16, _mm512_maskz_permutexvar_epi16(kHighs, second, words));
      add(4);
      _mm_prefetch(reinterpret_cast<const char*>(scales + k * (kWide - 1) / 8 + kAhead / 8),
                   _MM_HINT_T1);
    }
    if (k < bytes) {  // two outputs share a vector
      const auto both = [](const void* half) {
        return _mm512_broadcast_i64x4(_mm256_loadu_si256(static_cast<const __m256i*>(half)));
      };
      const __m512i even = both(x + k * 2);
      const __m512i odd = both(x + k * 2 + 64);
      const __m512i offset = both(offsets + k / 4);
      __m512i dot[4];
      const auto half = [&](int64_t r) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + r * bytes + k));
      };
      __m256i words = _mm256_setzero_si256();
#pragma GCC unroll 8
      for (int64_t r = 0; r < kWide; ++r) {
        words = _mm256_mask_broadcastd_epi32(words, static_cast<__mmask8>(1u << r),
                                             _mm_loadu_si32(scales + r * groups * 2));
      }
#pragma GCC unroll 4
      for (int64_t r = 0; r < 4; ++r) {
        dot[r] = int4_dot(_mm512_inserti64x4(_mm512_castsi256_si512(half(r)), half(r + 4), 1), even,
                          odd, offset);
        _mm_prefetch(reinterpret_cast<const char*>(ahead + r * 64), _MM_HINT_T1);
      }
      const __m512 a = _mm512_cvtepi32_ps(fold_four(dot));
      _mm512_store_ps(values, _mm512_castpd_ps(_mm512_permutexvar_pd(halves, _mm512_castps_pd(a))));
      _mm512_store_si512(
          factors, _mm512_maskz_permutexvar_epi16(kHighs, of_half, _mm512_castsi256_si512(words)));
      add(2);
    }
    const __m256 bias =
        layer.bias ? _mm256_loadu_ps(reinterpret_cast<const float*>(layer.bias) + n) : bias_of_none;
    __m256 y = _mm256_add_ps(_mm256_mul_ps(total, scale_of_row), bias);
    y = _mm256_max_ps(_mm256_set1_ps(layer.low), y);  // NaN stays
    y = _mm256_min_ps(_mm256_set1_ps(layer.high), y);
    _mm256_storeu_ps(out + i * layer.outputs + n, y);
  }
}

}  // namespace emm::linear::avx512vnni
