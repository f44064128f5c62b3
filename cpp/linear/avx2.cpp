#include "linear/avx2.h"

#include <algorithm>

namespace emm::linear {
namespace avx2 {
namespace {

// -8 times the sums of the first two and of the last two bytes of every four, as 16-bit integers:
// what vpmaddubsw's lanes begin with.
int32_t offset_pair(__m256i bytes) {
  const __m256i twos = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
  __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(twos), _mm256_extracti128_si256(twos, 1));
  sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0x4E));
  sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0xB1));
  return _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16(sum, 3)));
}

}  // namespace

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* plain,
                  const RowTarget& target) {
  alignas(32) float extremes[2][8];
  __m256 least = _mm256_setzero_ps();
  __m256 most = _mm256_setzero_ps();
  for (int64_t k = 0; k < inputs; k += 8) {
    const __m256 v = inputs - k >= 8 ? _mm256_loadu_ps(x + k) : load_some(x + k, inputs - k);
    least = _mm256_min_ps(v, least);  // the second operand where there is NaN
    most = _mm256_max_ps(v, most);
  }
  _mm256_store_ps(extremes[0], least);
  _mm256_store_ps(extremes[1], most);
  RowScale row = choose_scale(*std::min_element(extremes[0], extremes[0] + 8),
                              *std::max_element(extremes[1], extremes[1] + 8));

  const int64_t stride = padded(inputs);
  int8_t* const natural = chunk == 1 ? target.values : plain;
  const __m256 inverse = _mm256_set1_ps(row.inverse);
  const __m256 highest = _mm256_set1_ps(static_cast<float>(127 - row.zero_point));
  const __m256 lowest = _mm256_set1_ps(static_cast<float>(-128 - row.zero_point));
  const __m256i zero = _mm256_set1_epi32(row.zero_point);
  const auto eight = [&](int64_t k) {
    const int64_t left = inputs - k;
    if (left <= 0) return _mm256_setzero_si256();
    const __m256i mask = lanes(left);
    __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x + k, mask), inverse);
    v = _mm256_max_ps(_mm256_min_ps(v, highest), lowest);
    return _mm256_and_si256(mask, _mm256_add_epi32(_mm256_cvtps_epi32(v), zero));
  };
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int64_t k = 0; k < stride; k += 32) {
    const __m256i low = _mm256_packs_epi32(eight(k), eight(k + 8));
    const __m256i high = _mm256_packs_epi32(eight(k + 16), eight(k + 24));
    store_whole(natural + k, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order));
  }

  const __m256i ones = _mm256_set1_epi8(1);
  const __m256i pairs = _mm256_set1_epi16(1);
  const __m256i quarters = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  const __m256i halves = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  __m256i total = _mm256_setzero_si256();
  for (int64_t k = 0; k < stride; k += kChunk) {
    const __m256i a = load_whole(natural + k);
    const __m256i b = load_whole(natural + k + 32);
    const __m256i four_a = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, a), pairs);
    const __m256i four_b = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, b), pairs);
    total = _mm256_add_epi32(total, _mm256_add_epi32(four_a, four_b));
    if (chunk == 1) continue;
    if (chunk == 8) {
      const __m256i sa = _mm256_shuffle_epi8(a, quarters);
      const __m256i sb = _mm256_shuffle_epi8(b, quarters);
      store_whole(target.values + k, sa);
      store_whole(target.values + k + 32, sb);
      target.offsets32[k / 32] = offset_pair(sa);
      target.offsets32[k / 32 + 1] = offset_pair(sb);
    } else {
      __m256i eights = _mm256_permute4x64_epi64(_mm256_hadd_epi32(four_a, four_b), 0xD8);
      eights = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(eights, 3));
      store_whole(target.offsets8 + k / 8, eights);
      target.offsets32[k / 32] = sum_of(_mm256_castsi256_si128(eights));
      target.offsets32[k / 32 + 1] = sum_of(_mm256_extracti128_si256(eights, 1));
      const __m256i sa = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, halves), 0xD8);
      const __m256i sb = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(b, halves), 0xD8);
      store_whole(target.values + k, _mm256_permute2x128_si256(sa, sb, 0x20));
      store_whole(target.values + k + 32, _mm256_permute2x128_si256(sa, sb, 0x31));
    }
  }
  row.sum = sum_of(total);
  return row;
}

}  // namespace avx2

const Kernels kAvx2Kernels = {
    "avx2",        avx2::kChunk,         8,          6, 2, avx2::kBlock, avx2::quantise, avx2::rows,
    avx2::columns, avx2::column_scratch, &kAvx2Loops};

}  // namespace emm::linear
