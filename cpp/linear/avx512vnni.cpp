#include "linear/avx512vnni.h"

namespace emm::linear {
namespace avx512vnni {

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* plain,
                  const RowTarget& target) {
  __m512 least = _mm512_setzero_ps();
  __m512 most = _mm512_setzero_ps();
  int64_t k = 0;
  // Several at a time: each waits for the one before it.
  __m512 lows[3] = {least, least, least};
  __m512 highs[3] = {most, most, most};
  for (; k + 48 <= inputs; k += 48) {
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      const __m512 v = _mm512_loadu_ps(x + k + j * 16);
      lows[j] = _mm512_min_ps(v, lows[j]);
      highs[j] = _mm512_max_ps(v, highs[j]);
    }
  }
  least = _mm512_min_ps(_mm512_min_ps(lows[0], lows[1]), lows[2]);
  most = _mm512_max_ps(_mm512_max_ps(highs[0], highs[1]), highs[2]);
  for (; k + 16 <= inputs; k += 16) {
    const __m512 v = _mm512_loadu_ps(x + k);
    least = _mm512_min_ps(v, least);  // the second operand where there is NaN
    most = _mm512_max_ps(v, most);
  }
  if (k < inputs) {
    const __m512 v = _mm512_maskz_loadu_ps(lanes(inputs - k), x + k);
    least = _mm512_min_ps(v, least);
    most = _mm512_max_ps(v, most);
  }
  RowScale row = choose_scale(_mm512_reduce_min_ps(least), _mm512_reduce_max_ps(most));

  const int64_t stride = padded(inputs);
  int8_t* const natural = chunk == 1 ? target.values : plain;
  const __m512 inverse = _mm512_set1_ps(row.inverse);
  const __m512 highest = _mm512_set1_ps(static_cast<float>(127 - row.zero_point));
  const __m512 lowest = _mm512_set1_ps(static_cast<float>(-128 - row.zero_point));
  const __m512i zero = _mm512_set1_epi32(row.zero_point);
  const auto quantised = [&](__m512 v) {
    v = _mm512_max_ps(_mm512_min_ps(_mm512_mul_ps(v, inverse), highest), lowest);
    return _mm512_add_epi32(_mm512_cvtps_epi32(v), zero);
  };
  const auto store = [&](__mmask16 mask, __m512i q) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(natural + k), _mm512_maskz_cvtepi32_epi8(mask, q));
  };
  for (k = 0; k + 16 <= inputs; k += 16) store(0xFFFF, quantised(_mm512_loadu_ps(x + k)));
  if (k < inputs) {
    const __mmask16 mask = lanes(inputs - k);
    store(mask, quantised(_mm512_maskz_loadu_ps(mask, x + k)));
    k += 16;
  }
  for (; k < stride; k += 16) store(0, zero);

  const __m512i ones = _mm512_set1_epi8(1);
  __m512i total = _mm512_setzero_si512();
  const __m512i halves =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  const __m512i quarters =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  const __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
  for (k = 0; k < stride; k += 128) {
    const __m512i a = _mm512_loadu_si512(natural + k);
    const __m512i b = _mm512_loadu_si512(natural + k + 64);
    const __m512i four_a = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, a);
    const __m512i four_b = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, b);
    total = _mm512_add_epi32(total, _mm512_add_epi32(four_a, four_b));
    if (chunk == 1) continue;
    const auto eights = [](__m512i four) {
      return _mm512_cvtepi64_epi32(_mm512_add_epi32(four, _mm512_srli_epi64(four, 32)));
    };
    __m512i eight = _mm512_inserti64x4(_mm512_castsi256_si512(eights(four_a)), eights(four_b), 1);
    eight = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(eight, 3));
    _mm512_storeu_si512(target.offsets8 + k / 8, eight);
    __m512i wide = _mm512_add_epi32(eight, _mm512_shuffle_epi32(eight, _MM_PERM_CDAB));
    wide = _mm512_add_epi32(wide, _mm512_shuffle_epi32(wide, _MM_PERM_BADC));
    wide = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), wide);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target.offsets32 + k / 32),
                     _mm512_castsi512_si128(wide));
    if (chunk == 8) {
      _mm512_storeu_si512(target.values + k, _mm512_shuffle_epi8(a, quarters));
      _mm512_storeu_si512(target.values + k + 64, _mm512_shuffle_epi8(b, quarters));
    } else {
      const __m512i sa = _mm512_shuffle_epi8(a, halves);
      const __m512i sb = _mm512_shuffle_epi8(b, halves);
      _mm512_storeu_si512(target.values + k, _mm512_permutex2var_epi64(sa, even, sb));
      _mm512_storeu_si512(target.values + k + 64, _mm512_permutex2var_epi64(sa, odd, sb));
    }
  }
  row.sum = _mm512_reduce_add_epi32(total);
  return row;
}

}  // namespace avx512vnni

const Kernels kAvx512VnniKernels = {"avx512vnni",
                                    128,
                                    8,
                                    8,
                                    8,
                                    avx512vnni::kBlock,
                                    avx512vnni::quantise,
                                    avx512vnni::rows,
                                    avx512vnni::columns,
                                    avx512vnni::column_scratch,
                                    &kAvx512Loops};

}  // namespace emm::linear
