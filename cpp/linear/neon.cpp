#include "linear/neon.h"

#include <array>

namespace emm::linear {
namespace neon {
namespace {

// The integers of 16 inputs in the order of chunks of 8 or 16: the even ones, then the odd ones.
int8x16_t reorder(int8x16_t v, int64_t chunk) {
  const int8x16_t apart = vcombine_s8(vget_low_s8(vuzp1q_s8(v, v)), vget_low_s8(vuzp2q_s8(v, v)));
  if (chunk == kI8mmChunk) return apart;
  const int32x4_t words = vreinterpretq_s32_s8(apart);
  const int32x2x2_t pairs = vzip_s32(vget_low_s32(words), vget_high_s32(words));
  return vreinterpretq_s8_s32(vcombine_s32(pairs.val[0], pairs.val[1]));
}

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* /*plain*/,
                  const RowTarget& target) {
  float32x4_t least = vdupq_n_f32(0);
  float32x4_t most = vdupq_n_f32(0);
  for (int64_t k = 0; k < inputs; k += 4) {
    const float32x4_t v = inputs - k >= 4 ? vld1q_f32(x + k) : load_floats(x + k, inputs - k);
    least = vminnmq_f32(least, v);  // the other operand where there is NaN
    most = vmaxnmq_f32(most, v);
  }
  RowScale row = choose_scale(vminvq_f32(least), vmaxvq_f32(most));

  const float32x4_t highest = vdupq_n_f32(static_cast<float>(127 - row.zero_point));
  const float32x4_t lowest = vdupq_n_f32(static_cast<float>(-128 - row.zero_point));
  const int32x4_t zero = vdupq_n_s32(row.zero_point);
  const auto four = [&](int64_t k) {
    const int64_t left = inputs - k;
    if (left <= 0) return vdupq_n_s32(0);
    float32x4_t v = left >= 4 ? vld1q_f32(x + k) : load_floats(x + k, left);
    v = vmulq_n_f32(v, row.inverse);
    v = vmaxnmq_f32(vminnmq_f32(v, highest), lowest);
    const int32x4_t integers = vaddq_s32(vcvtnq_s32_f32(v), zero);
    if (left >= 4) return integers;
    constexpr std::array<int32_t, 4> kIndex = {0, 1, 2, 3};
    const uint32x4_t is_input =
        vcltq_s32(vld1q_s32(kIndex.data()), vdupq_n_s32(static_cast<int32_t>(left)));
    return vandq_s32(integers, vreinterpretq_s32_u32(is_input));
  };
  const int8x16_t ones = vdupq_n_s8(1);
  int32x4_t total = vdupq_n_s32(0);
  for (int64_t k = 0; k < padded(inputs); k += 32) {
    int8x16_t half[2];
    int32x4_t quads[2];
    for (int64_t h = 0; h < 2; ++h) {
      const int64_t at = k + h * 16;
      const int16x8_t low = vcombine_s16(vmovn_s32(four(at)), vmovn_s32(four(at + 4)));
      const int16x8_t high = vcombine_s16(vmovn_s32(four(at + 8)), vmovn_s32(four(at + 12)));
      half[h] = vcombine_s8(vmovn_s16(low), vmovn_s16(high));
      quads[h] = vdotq_s32(vdupq_n_s32(0), half[h], ones);
    }
    const int32x4_t eights = vpaddq_s32(quads[0], quads[1]);
    total = vaddq_s32(total, eights);
    vst1q_s32(target.offsets8 + k / 8, vmulq_n_s32(eights, -8));
    target.offsets32[k / 32] = -8 * vaddvq_s32(eights);
    if (chunk == kRowChunk) {
      vst1q_s8(target.values + k, vuzp1q_s8(half[0], half[1]));
      vst1q_s8(target.values + k + 16, vuzp2q_s8(half[0], half[1]));
    } else {
      for (int64_t h = 0; h < 2; ++h)
        vst1q_s8(target.values + k + h * 16, chunk == 1 ? half[h] : reorder(half[h], chunk));
    }
  }
  row.sum = vaddvq_s32(total);
  return row;
}

}  // namespace
}  // namespace neon

const Kernels kDotprodKernels = {
    "dotprod",  neon::kRowChunk, neon::kDotChunk,      4,           4, neon::kBlock, neon::quantise,
    neon::rows, neon::columns,   neon::column_scratch, &kPlainLoops};
const Kernels kI8mmKernels = {"i8mm",
                              neon::kRowChunk,
                              neon::kI8mmChunk,
                              4,
                              4,
                              neon::kBlock,
                              neon::quantise,
                              neon::rows,
                              neon::i8mm_columns,
                              neon::column_scratch,
                              &kPlainLoops};

}  // namespace emm::linear
