// Many rows of activations with smmla, which multiplies 8 inputs of two rows with those of two
// outputs: the weights of 16 outputs as [inputs / 8][8 pairs][2][8] signed bytes.
#include "linear/neon.h"

namespace emm::linear::neon {
namespace {

constexpr int kPairs = 4;  // of outputs that a tile has at a time
constexpr int64_t kStep = 8 * kBlock;

void expand(const Layer& layer, int64_t begin, int64_t end, int8_t* to) {
  const int64_t bytes = layer.row_bytes();
  const int8x16_t offset = vdupq_n_s8(8);
  for (int64_t pair = 0; pair < kBlock / 2; ++pair) {
    const uint8_t* const first = layer.row(std::min(begin + pair * 2, end - 1));
    const uint8_t* const second = layer.row(std::min(begin + pair * 2 + 1, end - 1));
    int8_t* at = to + pair * 16;
    for (int64_t b = 0; b < bytes; b += 16) {
      const uint64x2_t x = vreinterpretq_u64_u8(load_bytes(first + b, bytes - b));
      const uint64x2_t y = vreinterpretq_u64_u8(load_bytes(second + b, bytes - b));
      for (const uint64x2_t eights : {vzip1q_u64(x, y), vzip2q_u64(x, y)}) {
        const uint8x16_t values = vreinterpretq_u8_u64(eights);
        if (is_int4(layer.format)) {
          vst1q_s8(at, vsubq_s8(low_half(values), offset));
          vst1q_s8(at + kStep, vsubq_s8(high_half(values), offset));
          at += 2 * kStep;
        } else {
          vst1q_s8(at, vreinterpretq_s8_u8(values));
          at += kStep;
        }
      }
    }
  }
}

float32x4_t twice(const float* two) {
  const float32x2_t values = vld1_f32(two);
  return vcombine_f32(values, values);
}

struct Tile {
  const Layer& layer;
  const Activations& in;
  const int8_t* weights;
  const float* scales;
  const float* sums;     // of its eight outputs, zeros behind them
  const Finish* finish;  // of four outputs each
  int64_t vectors;
  float* out;
};

// 2 * kTwos rows, the last of which is left out where there are only `rows`.
template <int kTwos>
void some_tile(const Tile& tile, int64_t i, int64_t rows) {
  const Layer& layer = tile.layer;
  const bool has_groups = layer.format == Format::kInt4Groups;
  // Chunks are copied whole.
  const int64_t group =
      has_groups ? layer.group : (layer.inputs + kI8mmChunk - 1) / kI8mmChunk * kI8mmChunk;
  const int8_t* x[kTwos][2];
  float32x4_t total[kTwos][kPairs];
  int32x4_t sum[kTwos][kPairs] = {};
  for (int t = 0; t < kTwos; ++t) {
    float zero[2];
    for (int64_t r = 0; r < 2; ++r) {
      const int64_t row = i + std::min(t * 2 + r, rows - 1);
      x[t][r] = tile.in.values + row * tile.in.stride;
      zero[r] = -static_cast<float>(tile.in.scales[row].zero_point);
    }
    const float32x4_t zeros = vcombine_f32(vdup_n_f32(zero[0]), vdup_n_f32(zero[1]));
    for (int p = 0; p < kPairs; ++p) total[t][p] = vmulq_f32(zeros, twice(tile.sums + p * 2));
  }
  const float* scales = tile.scales;
  for (int64_t begin = 0; begin < layer.inputs; begin += group) {
    for (int64_t k = begin; k < begin + group; k += 8) {
      int8x16_t values[kTwos];
      for (int t = 0; t < kTwos; ++t)
        values[t] = vcombine_s8(vld1_s8(x[t][0] + k), vld1_s8(x[t][1] + k));
      for (int p = 0; p < kPairs; ++p) {
        const int8x16_t weights = vld1q_s8(tile.weights + k * kBlock + p * 16);
        for (int t = 0; t < kTwos; ++t) sum[t][p] = vmmlaq_s32(sum[t][p], values[t], weights);
      }
    }
    if (!has_groups) break;
    for (int p = 0; p < kPairs; ++p) {
      const float32x4_t scale = twice(scales + p * 2);
      for (int t = 0; t < kTwos; ++t) {
        total[t][p] = vfmaq_f32(total[t][p], vcvtq_f32_s32(sum[t][p]), scale);
        sum[t][p] = vdupq_n_s32(0);
      }
    }
    scales += kBlock;
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t t = r / 2;
    const RowScale& row = tile.in.scales[i + r];
    float* const to = tile.out + (i + r) * layer.outputs;
    const auto half = [&](auto both) {
      return r % 2 == 0 ? vget_low_s32(both) : vget_high_s32(both);
    };
    for (int64_t v = 0; v < tile.vectors; ++v) {
      const auto four = [&](const int32x4_t a, const int32x4_t b) {
        return vcombine_s32(half(a), half(b));
      };
      if (has_groups) {
        const int32x4_t bits = four(vreinterpretq_s32_f32(total[t][v * 2]),
                                    vreinterpretq_s32_f32(total[t][v * 2 + 1]));
        tile.finish[v].store_groups(row, vreinterpretq_f32_s32(bits), to);
      } else {
        tile.finish[v].store_whole(row, four(sum[t][v * 2], sum[t][v * 2 + 1]), to);
      }
    }
  }
}

}  // namespace

void i8mm_columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
                  int64_t end, uint8_t* scratch, float* out) {
  if (layer.format == Format::kFloat32) return columns(layer, in, sums, begin, end, scratch, out);
  int8_t* const weights = reinterpret_cast<int8_t*>(scratch);
  expand(layer, begin, end, weights);
  const float* const scales = scales_in(scratch, layer, begin, end);
  constexpr int64_t kWidth = kPairs * 2;
  for (int64_t n = begin; n < end; n += kWidth) {
    const int64_t count = std::min(kWidth, end - n);
    float eight[kWidth] = {};
    std::copy_n(sums + n, count, eight);
    const Finishes finish = finish_eight(layer, sums, n, count);
    const Tile tile = {
        layer,           in, weights + (n - begin) * 8, scales + (n - begin), eight, finish.data(),
        (count + 3) / 4, out};
    int64_t i = 0;
    for (; i + 4 <= in.rows; i += 4) some_tile<2>(tile, i, 4);
    for (; i < in.rows; i += 2) some_tile<1>(tile, i, std::min<int64_t>(in.rows - i, 2));
  }
}

}  // namespace emm::linear::neon
