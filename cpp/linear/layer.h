// A linear layer whose weights lie where the file was mapped: row by row, unpacked, unaligned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace emm::linear {

enum class Format : uint8_t {
  kFloat32,
  kInt8,        // one float scale for each output
  kInt4,        // the same; two values a byte, the first in the low half, 8 means 0
  kInt4Groups,  // one bfloat16 scale for each `group` inputs of each output
};

// The integer formats take their input as 8-bit integers, quantised row by row (quantise.h).
inline bool is_quantised(Format format) { return format != Format::kFloat32; }
inline bool is_int4(Format format) {
  return format == Format::kInt4 || format == Format::kInt4Groups;
}

struct Layer {
  Format format = Format::kFloat32;
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t group = 0;  // kInt4Groups: 32, 64 or a multiple of 128, and inputs are whole groups
  const uint8_t* weights = nullptr;  // [outputs][row_bytes()]
  const uint8_t* scales = nullptr;   // bfloat16 [outputs][inputs / group], or float [outputs]
  const uint8_t* bias = nullptr;     // float [outputs], or none
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();

  int64_t row_bytes() const {
    if (format == Format::kFloat32) return inputs * int64_t{sizeof(float)};
    return is_int4(format) ? inputs / 2 : inputs;
  }
  int64_t groups() const { return format == Format::kInt4Groups ? inputs / group : 1; }
  int64_t scale_bytes() const {
    if (format == Format::kFloat32) return 0;
    return format == Format::kInt4Groups ? outputs * groups() * 2 : outputs * 4;
  }
  const uint8_t* row(int64_t output) const { return weights + output * row_bytes(); }
};

// Beyond these the 32-bit sums of products could overflow.
constexpr int64_t kMaxInputs = int64_t{1} << 15;
constexpr int64_t kGroupUnit = 32;

// 8-bit rows are padded with zeros to a multiple of this.
constexpr int64_t kRowUnit = 128;
inline int64_t padded(int64_t inputs) { return (inputs + kRowUnit - 1) / kRowUnit * kRowUnit; }

inline float load_float(const uint8_t* floats, int64_t index) {
  float value;
  std::memcpy(&value, floats + index * 4, sizeof value);
  return value;
}

inline float load_bfloat16(const uint8_t* values, int64_t index) {
  uint16_t half;
  std::memcpy(&half, values + index * 2, sizeof half);
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The scales of 4-bit groups of outputs [begin, end) as [groups][block] floats, behind the last
// output the last one's. For every instruction set: it has no -m options of its own.
void expand_scales(const Layer& layer, int64_t begin, int64_t end, int64_t block, float* to);

}  // namespace emm::linear
