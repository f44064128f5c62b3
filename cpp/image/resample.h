// Resizing of RGB images of 8 bits, bit for bit as Pillow does it: fixed-point weights, the
// columns first, rounded to bytes in between.
#pragma once

#include <cstdint>

namespace emm {

// Fraction bits of the weights.
constexpr int kResampleBits = 22;

// How each element of a resized axis is made of neighbouring elements of the source.
struct ResampleAxis {
  const int32_t* first;    // [size]: the first neighbour
  const int32_t* weights;  // [size][taps]
  int64_t size;
  int64_t taps;
};

// Rows of pixels of three bytes.
struct RgbImage {
  const uint8_t* pixels;
  int64_t height;
  int64_t width;
};

// `out` holds rows.size rows of columns.size pixels. Throws Error (kInput) if a neighbour is
// outside of the source.
void resample(const RgbImage& source, const ResampleAxis& columns, const ResampleAxis& rows,
              uint8_t* out);

}  // namespace emm
