// Few rows of activations, straight from the weights, four outputs at a time. Sums of integers are
// exact, and floats are added group by group as in columns(), so that a row has the same bits among
// few and among many.
#include "linear/neon.h"

namespace emm::linear::neon {
namespace {

constexpr int kOutputs = 4;
constexpr int64_t kAhead = 4096;  // bytes of weights, which come from memory once in a decode step

// The sums of four vectors.
int32x4_t sum_four(const int32x4_t (&v)[kOutputs]) {
  return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

struct FourOutputs {
  const uint8_t* row[kOutputs];
  const uint8_t* scales[kOutputs];

  FourOutputs(const Layer& layer, int64_t n, int64_t count) {
    for (int64_t r = 0; r < kOutputs; ++r) {
      const int64_t output = n + std::min(r, count - 1);
      row[r] = layer.row(output);
      scales[r] = layer.scales + output * layer.groups() * 2;
    }
  }

  float32x4_t scales_of(int64_t group) const {
    uint16x4_t halves = vdup_n_u16(0);
    const auto at = [&](int r) {
      uint16_t half;
      std::memcpy(&half, scales[r] + group * 2, sizeof half);
      return half;
    };
    halves = vset_lane_u16(at(0), halves, 0);
    halves = vset_lane_u16(at(1), halves, 1);
    halves = vset_lane_u16(at(2), halves, 2);
    halves = vset_lane_u16(at(3), halves, 3);
    return vreinterpretq_f32_u32(vshll_n_u16(halves, 16));
  }
};

// Adds the products of 32 inputs with 4-bit weights.
template <int kM>
inline __attribute__((always_inline)) void add_unit(const FourOutputs& four, int64_t unit,
                                                    int64_t bytes, const int8_t* const (&x)[kM],
                                                    const int32_t* const (&offsets)[kM],
                                                    int32x4_t (&sum)[kM][kOutputs]) {
  for (int r = 0; r < kOutputs; ++r) {
    const uint8x16_t packed = load_bytes(four.row[r] + unit * 16, bytes - unit * 16);
    const int8x16_t low = low_half(packed);
    const int8x16_t high = high_half(packed);
    for (int m = 0; m < kM; ++m) {
      // Lane j of both halves has the inputs that offset j is of.
      sum[m][r] = vaddq_s32(sum[m][r], vld1q_s32(offsets[m] + unit * 4));
      sum[m][r] = vdotq_s32(sum[m][r], low, vld1q_s8(x[m] + unit * 32));
      sum[m][r] = vdotq_s32(sum[m][r], high, vld1q_s8(x[m] + unit * 32 + 16));
    }
  }
}

template <int kM>
void int4_rows(const Layer& layer, const Activations& in, int64_t i, const float* sums,
               int64_t begin, int64_t end, float* out) {
  const int64_t bytes = layer.row_bytes();
  const int64_t units = (bytes + 15) / 16;
  const bool has_groups = layer.format == Format::kInt4Groups;
  const int64_t group_units = has_groups ? layer.group / kGroupUnit : units;
  const int8_t* x[kM];
  const int32_t* offsets[kM];
  for (int m = 0; m < kM; ++m) {
    x[m] = in.values + (i + m) * in.stride;
    offsets[m] = in.offsets8 + (i + m) * (in.stride / 8);
  }
  for (int64_t n = begin; n < end; n += kOutputs) {
    const Finish finish(layer, sums, n, end - n);
    const FourOutputs four(layer, n, finish.count);
    float32x4_t total[kM];
    int32x4_t sum[kM][kOutputs] = {};
    for (int m = 0; m < kM; ++m) total[m] = finish.first_total(in.scales[i + m]);
    for (int64_t unit = 0; unit < units;) {
      const int64_t stop = unit + group_units;
      const float32x4_t scales = has_groups ? four.scales_of(unit / group_units) : vdupq_n_f32(1);
      for (; unit < stop; ++unit) {
        __builtin_prefetch(four.row[0] + unit * 64 + kAhead);
        add_unit<kM>(four, unit, bytes, x, offsets, sum);
      }
      if (!has_groups) break;
      for (int m = 0; m < kM; ++m) {
        total[m] = vfmaq_f32(total[m], vcvtq_f32_s32(sum_four(sum[m])), scales);
        for (int32x4_t& of_output : sum[m]) of_output = vdupq_n_s32(0);
      }
    }
    for (int m = 0; m < kM; ++m) {
      float* const to = out + (i + m) * layer.outputs;
      if (sums == nullptr) {
        finish.store_bare(has_groups ? total[m] : vcvtq_f32_s32(sum_four(sum[m])), to);
      } else if (has_groups) {
        finish.store_groups(in.scales[i + m], total[m], to);
      } else {
        finish.store_whole(in.scales[i + m], sum_four(sum[m]), to);
      }
    }
  }
}

void int8_row(const Layer& layer, const Activations& in, int64_t i, const float* sums,
              int64_t begin, int64_t end, float* out) {
  const int8_t* const x = in.values + i * in.stride;
  for (int64_t n = begin; n < end; n += kOutputs) {
    const Finish finish(layer, sums, n, end - n);
    const uint8_t* row[kOutputs];
    int32x4_t sum[kOutputs];
    for (int r = 0; r < kOutputs; ++r) {
      row[r] = layer.row(n + std::min<int64_t>(r, finish.count - 1));
      sum[r] = vdupq_n_s32(0);
    }
    for (int64_t k = 0; k < layer.inputs; k += 16) {
      const int8x16_t values = vld1q_s8(x + k);
      __builtin_prefetch(row[0] + k * 4 + kAhead);
      for (int r = 0; r < kOutputs; ++r) {
        const uint8x16_t weights = load_bytes(row[r] + k, layer.inputs - k);
        sum[r] = vdotq_s32(sum[r], vreinterpretq_s8_u8(weights), values);
      }
    }
    float* const to = out + i * layer.outputs;
    if (sums == nullptr) {
      finish.store_bare(vcvtq_f32_s32(sum_four(sum)), to);
    } else {
      finish.store_whole(in.scales[i], sum_four(sum), to);
    }
  }
}

void float_row(const Layer& layer, const Activations& in, int64_t i, int64_t begin, int64_t end,
               float* out) {
  const float* const x = in.floats + i * in.inputs;
  for (int64_t n = begin; n < end; n += kOutputs) {
    const Finish finish(layer, nullptr, n, end - n);
    const uint8_t* row[kOutputs];
    float32x4_t sum[kOutputs];
    for (int r = 0; r < kOutputs; ++r) {
      row[r] = layer.row(n + std::min<int64_t>(r, finish.count - 1));
      sum[r] = vdupq_n_f32(0);
    }
    for (int64_t k = 0; k < layer.inputs; k += 4) {
      const int64_t left = layer.inputs - k;
      const float32x4_t values = load_floats(x + k, left);
      for (int r = 0; r < kOutputs; ++r)
        sum[r] = vfmaq_f32(sum[r], load_floats(row[r] + k * 4, left), values);
    }
    const float32x4_t all = vpaddq_f32(vpaddq_f32(sum[0], sum[1]), vpaddq_f32(sum[2], sum[3]));
    finish.store_floats(all, out + i * layer.outputs);
  }
}

}  // namespace

void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out) {
  int64_t i = 0;
  if (is_int4(layer.format)) {
    for (; i + 2 <= in.rows; i += 2) int4_rows<2>(layer, in, i, sums, begin, end, out);
    if (i < in.rows) int4_rows<1>(layer, in, i, sums, begin, end, out);
    return;
  }
  for (; i < in.rows; ++i) {
    if (layer.format == Format::kInt8) int8_row(layer, in, i, sums, begin, end, out);
    if (layer.format == Format::kFloat32) float_row(layer, in, i, begin, end, out);
  }
}

}  // namespace emm::linear::neon
