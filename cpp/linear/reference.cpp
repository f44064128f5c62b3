// The plain C++ kernels that the others are tested against. They round as XNNPACK does: with groups
// the bias is added after the multiplication, with one scale for each output in the same step.
#include <algorithm>
#include <cmath>

#include "linear/kernels.h"

namespace emm::linear {
namespace {

int32_t quantised(float x, const RowScale& row) {
  float scaled = x * row.inverse;
  const float highest = static_cast<float>(127 - row.zero_point);
  scaled = scaled < highest ? scaled : highest;  // NaN too becomes the highest
  const float lowest = static_cast<float>(-128 - row.zero_point);
  scaled = scaled > lowest ? scaled : lowest;
  return static_cast<int32_t>(std::nearbyint(scaled)) + row.zero_point;
}

// Where input k of a row lies.
int64_t place(int64_t k, int64_t chunk) {
  if (chunk == 1) return k;
  const int64_t within = k % chunk;
  return k - within + (within % 2) * (chunk / 2) + within / 2;
}

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* /*plain*/,
                  const RowTarget& target) {
  float least = 0;
  float most = 0;
  for (int64_t k = 0; k < inputs; ++k) {
    least = x[k] < least ? x[k] : least;
    most = x[k] > most ? x[k] : most;
  }
  RowScale row = choose_scale(least, most);
  const int64_t stride = padded(inputs);
  std::fill_n(target.values, stride, int8_t{0});
  std::fill_n(target.offsets8, stride / 8, 0);
  std::fill_n(target.offsets32, stride / 32, 0);
  for (int64_t k = 0; k < inputs; ++k) {
    const int32_t value = quantised(x[k], row);
    target.values[place(k, chunk)] = static_cast<int8_t>(value);
    row.sum += value;
    target.offsets8[k / 8] -= 8 * value;
    target.offsets32[k / 32] -= 8 * value;
  }
  return row;
}

int32_t weight(const Layer& layer, const uint8_t* row, int64_t k) {
  if (layer.format == Format::kInt8) return static_cast<int8_t>(row[k]);
  return (k % 2 == 0 ? row[k / 2] & 15 : row[k / 2] >> 4) - 8;
}

float dot(const Layer& layer, const Activations& in, int64_t output, int64_t i, const float* sums) {
  const uint8_t* const row = layer.row(output);
  if (layer.format == Format::kFloat32) {
    float sum = 0;
    for (int64_t k = 0; k < layer.inputs; ++k)
      sum += in.floats[i * in.inputs + k] * load_float(row, k);
    return sum;
  }
  const int8_t* const x = in.values + i * in.stride;
  const RowScale& scale = in.scales[i];
  const int64_t group = layer.format == Format::kInt4Groups ? layer.group : layer.inputs;
  float total = sums && layer.format == Format::kInt4Groups
                    ? -static_cast<float>(scale.zero_point) * sums[output]
                    : 0.0f;
  for (int64_t g = 0; g < layer.groups(); ++g) {
    int32_t sum = 0;
    for (int64_t k = g * group; k < (g + 1) * group; ++k)
      sum += x[place(k, in.chunk)] * weight(layer, row, k);
    if (layer.format == Format::kInt4Groups) {
      total += static_cast<float>(sum) * load_bfloat16(layer.scales, output * layer.groups() + g);
      continue;
    }
    if (sums == nullptr) return static_cast<float>(sum);
    sum -= scale.zero_point * static_cast<int32_t>(sums[output]);
    const float bias = layer.bias ? load_float(layer.bias, output) : 0.0f;
    return std::fma(static_cast<float>(sum) * scale.scale, load_float(layer.scales, output), bias);
  }
  if (sums == nullptr) return total;
  total *= scale.scale;
  return layer.bias ? total + load_float(layer.bias, output) : total;
}

void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out) {
  const bool is_bare = is_quantised(layer.format) && sums == nullptr;
  for (int64_t i = 0; i < in.rows; ++i) {
    for (int64_t n = begin; n < end; ++n) {
      float value = dot(layer, in, n, i, sums);
      if (!is_bare) {
        if (layer.bias && layer.format == Format::kFloat32) value += load_float(layer.bias, n);
        value = std::min(std::max(value, layer.low), layer.high);
      }
      out[i * layer.outputs + n] = value;
    }
  }
}

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* /*scratch*/, float* out) {
  rows(layer, in, sums, begin, end, out);
}

int64_t column_scratch(const Layer&) { return 0; }

}  // namespace

const Kernels kReferenceKernels = {
    "reference", 1, 1, 4, 4, 32, quantise, rows, columns, column_scratch, &kPlainLoops};

}  // namespace emm::linear
