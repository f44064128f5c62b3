#include "image/resample.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define EMM_HAS_AVX2_VARIANT 1
#endif

namespace emm {
namespace {

constexpr int kChannels = 3;
constexpr int kHalf = 1 << (kResampleBits - 1);
constexpr int kLanes = 8;  // rows that are resized together
constexpr int kPixel = kChannels * kLanes;
constexpr int64_t kSpan = 64;  // bytes of a row that are resized together

// A part of an axis of the source: [begin, end).
struct Range {
  int64_t begin;
  int64_t end;
};

Range used_range(const ResampleAxis& axis, int64_t length, const char* name) {
  Range range{length, 0};
  for (int64_t i = 0; i < axis.size; ++i) {
    range.begin = std::min<int64_t>(range.begin, axis.first[i]);
    range.end = std::max<int64_t>(range.end, axis.first[i] + axis.taps);
  }
  if (axis.size < 1 || axis.taps < 1 || range.begin < 0 || range.end > length)
    throw Error(ErrorCode::kInput, std::string("resample: expected neighbours in 0.." +
                                               std::to_string(length) + " along the ") +
                                       name);
  return range;
}

inline uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kResampleBits, 0, 255));
}

// The bodies are inlined into one function for each instruction set, which decides how they are
// vectorised.
#define EMM_INLINE inline __attribute__((always_inline))

// Resizes `count` rows, at most kLanes, to `out_width` pixels. `block` holds the used columns of
// all the rows, the rows' values of one channel of one pixel side by side.
EMM_INLINE void resample_block(const int32_t* block, int64_t first_column, const ResampleAxis& axis,
                               int64_t count, uint8_t* out) {
  for (int64_t x = 0; x < axis.size; ++x) {
    int32_t sums[kPixel];
    for (int i = 0; i < kPixel; ++i) sums[i] = kHalf;
    const int32_t* values = block + (axis.first[x] - first_column) * kPixel;
    for (int64_t tap = 0; tap < axis.taps; ++tap, values += kPixel) {
      const int32_t weight = axis.weights[x * axis.taps + tap];
      for (int i = 0; i < kPixel; ++i) sums[i] += weight * values[i];
    }
    for (int64_t row = 0; row < count; ++row)
      for (int channel = 0; channel < kChannels; ++channel)
        out[(row * axis.size + x) * kChannels + channel] = to_byte(sums[channel * kLanes + row]);
  }
}

EMM_INLINE void resample_columns_body(const RgbImage& source, Range columns,
                                      const ResampleAxis& axis, std::vector<int32_t>& block,
                                      uint8_t* out) {
  const int64_t used = (columns.end - columns.begin) * kChannels;
  for (int64_t y = 0; y < source.height; y += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, source.height - y);
    for (int64_t row = 0; row < count; ++row) {
      const uint8_t* bytes = source.pixels + ((y + row) * source.width + columns.begin) * kChannels;
      for (int64_t i = 0; i < used; ++i) block[i * kLanes + row] = bytes[i];
    }
    resample_block(block.data(), columns.begin, axis, count, out + y * axis.size * kChannels);
  }
}

// One row out of `taps` rows of `length` bytes.
EMM_INLINE void resample_row_body(const uint8_t* rows, int64_t length, const int32_t* weights,
                                  int64_t taps, uint8_t* out) {
  for (int64_t x = 0; x < length; x += kSpan) {
    const int64_t count = std::min(kSpan, length - x);
    int32_t sums[kSpan];
    std::fill_n(sums, kSpan, kHalf);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const uint8_t* bytes = rows + tap * length + x;
      if (count == kSpan) {
        for (int64_t i = 0; i < kSpan; ++i) sums[i] += weights[tap] * bytes[i];
      } else {
        for (int64_t i = 0; i < count; ++i) sums[i] += weights[tap] * bytes[i];
      }
    }
    for (int64_t i = 0; i < count; ++i) out[x + i] = to_byte(sums[i]);
  }
}

struct Kernels {
  void (*columns)(const RgbImage&, Range, const ResampleAxis&, std::vector<int32_t>&, uint8_t*);
  void (*row)(const uint8_t*, int64_t, const int32_t*, int64_t, uint8_t*);
};

void columns_baseline(const RgbImage& source, Range columns, const ResampleAxis& axis,
                      std::vector<int32_t>& block, uint8_t* out) {
  resample_columns_body(source, columns, axis, block, out);
}

void row_baseline(const uint8_t* rows, int64_t length, const int32_t* weights, int64_t taps,
                  uint8_t* out) {
  resample_row_body(rows, length, weights, taps, out);
}

#ifdef EMM_HAS_AVX2_VARIANT
__attribute__((target("avx2"))) void columns_avx2(const RgbImage& source, Range columns,
                                                  const ResampleAxis& axis,
                                                  std::vector<int32_t>& block, uint8_t* out) {
  resample_columns_body(source, columns, axis, block, out);
}

__attribute__((target("avx2"))) void row_avx2(const uint8_t* rows, int64_t length,
                                              const int32_t* weights, int64_t taps, uint8_t* out) {
  resample_row_body(rows, length, weights, taps, out);
}
#endif

Kernels choose_kernels() {
#ifdef EMM_HAS_AVX2_VARIANT
  if (__builtin_cpu_supports("avx2")) return {columns_avx2, row_avx2};
#endif
  return {columns_baseline, row_baseline};
}

}  // namespace

void resample(const RgbImage& source, const ResampleAxis& columns, const ResampleAxis& rows,
              uint8_t* out) {
  static const Kernels kernels = choose_kernels();
  const Range used_columns = used_range(columns, source.width, "width");
  const Range used_rows = used_range(rows, source.height, "height");
  const RgbImage used{source.pixels + used_rows.begin * source.width * kChannels,
                      used_rows.end - used_rows.begin, source.width};
  const int64_t row_length = columns.size * kChannels;
  std::vector<int32_t> block((used_columns.end - used_columns.begin) * kPixel);
  std::vector<uint8_t> narrow(used.height * row_length);
  kernels.columns(used, used_columns, columns, block, narrow.data());
  for (int64_t y = 0; y < rows.size; ++y) {
    const uint8_t* first = narrow.data() + (rows.first[y] - used_rows.begin) * row_length;
    kernels.row(first, row_length, rows.weights + y * rows.taps, rows.taps, out + y * row_length);
  }
}

}  // namespace emm
