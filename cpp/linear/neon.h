// What the kernels for aarch64 have in common. They need sdot (dotprod); i8mm adds columns of
// smmla. 4-bit weights keep their offset of 8 in rows(), where the rows' sums take it off again,
// and lose it in columns() where they are copied.
#pragma once

#include <arm_neon.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "linear/kernels.h"

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define EMM_NEON_OPTIONS with_i8mm
#else
#define EMM_NEON_OPTIONS with_dotprod
#endif

namespace emm::linear::neon {

constexpr int64_t kRowChunk = 32;
constexpr int64_t kDotChunk = 8;
constexpr int64_t kI8mmChunk = 16;
constexpr int64_t kBlock = 16;  // outputs of columns()

// What files with different options compile must not be taken for the same function.
inline namespace EMM_NEON_OPTIONS {

// Up to 16 bytes, zeros behind them.
inline uint8x16_t load_bytes(const uint8_t* from, int64_t count) {
  if (count >= 16) return vld1q_u8(from);
  uint8_t copy[16] = {};
  if (count > 0) std::memcpy(copy, from, static_cast<size_t>(count));
  return vld1q_u8(copy);
}
// Up to four floats of a file or of a row, zeros behind them.
inline float32x4_t load_floats(const void* from, int64_t count) {
  return vreinterpretq_f32_u8(load_bytes(static_cast<const uint8_t*>(from), count * 4));
}
inline int8x16_t low_half(uint8x16_t packed) {
  return vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15)));
}
inline int8x16_t high_half(uint8x16_t packed) { return vreinterpretq_s8_u8(vshrq_n_u8(packed, 4)); }

// What comes behind the sums of products of four outputs, `count` of which are wanted.
struct Finish {
  const Layer& layer;
  int64_t output;
  int64_t count;
  float32x4_t bias;
  float32x4_t sums;  // of the weights: see Kernels::rows

  Finish(const Layer& of, const float* all_sums, int64_t first, int64_t some)
      : layer(of),
        output(first),
        count(std::min<int64_t>(some, 4)),
        bias(of.bias ? load_floats(of.bias + first * 4, count) : vdupq_n_f32(0)),
        sums(all_sums ? load_floats(all_sums + first, count) : vdupq_n_f32(0)) {}

  // What total begins with where there are groups.
  float32x4_t first_total(const RowScale& row) const {
    return vmulq_f32(vdupq_n_f32(-static_cast<float>(row.zero_point)), sums);
  }
  // Rounded as XNNPACK does: see reference.cpp.
  void store_groups(const RowScale& row, float32x4_t total, float* out) const {
    store(vaddq_f32(vmulq_n_f32(total, row.scale), bias), out);
  }
  void store_whole(const RowScale& row, int32x4_t sum, float* out) const {
    sum = vmlsq_s32(sum, vdupq_n_s32(row.zero_point), vcvtnq_s32_f32(sums));
    const float32x4_t factor = load_floats(layer.scales + output * 4, count);
    store(vfmaq_f32(bias, vmulq_n_f32(vcvtq_f32_s32(sum), row.scale), factor), out);
  }
  void store_floats(float32x4_t sum, float* out) const { store(vaddq_f32(sum, bias), out); }
  void store_bare(float32x4_t y, float* out) const {
    if (count == 4) return vst1q_f32(out + output, y);
    float copy[4];
    vst1q_f32(copy, y);
    std::memcpy(out + output, copy, static_cast<size_t>(count) * 4);
  }

 private:
  void store(float32x4_t y, float* out) const {
    y = vmaxq_f32(y, vdupq_n_f32(layer.low));  // NaN stays
    store_bare(vminq_f32(y, vdupq_n_f32(layer.high)), out);
  }
};

// Two of them, for up to eight outputs. Where there are no more than four, nobody asks the second.
using Finishes = std::array<Finish, 2>;
inline Finishes finish_eight(const Layer& layer, const float* sums, int64_t first, int64_t count) {
  if (count <= 4) return {Finish(layer, sums, first, count), Finish(layer, sums, first, 1)};
  return {Finish(layer, sums, first, count), Finish(layer, sums, first + 4, count - 4)};
}

// In the scratch scales of groups lie behind the weights.
inline int64_t weight_room(const Layer& layer) {
  return padded(layer.inputs) * kBlock * (layer.format == Format::kFloat32 ? 4 : 1);
}
inline const float* scales_in(uint8_t* scratch, const Layer& layer, int64_t begin, int64_t end) {
  float* const to = reinterpret_cast<float*>(scratch + weight_room(layer));
  if (layer.format == Format::kInt4Groups) expand_scales(layer, begin, end, kBlock, to);
  return to;
}

}  // namespace EMM_NEON_OPTIONS

void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out);
void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out);
void i8mm_columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
                  int64_t end, uint8_t* scratch, float* out);
int64_t column_scratch(const Layer& layer);

}  // namespace emm::linear::neon
