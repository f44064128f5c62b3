// Pillow is the reference, in tests/python/preprocess/test_preprocess_image.py; here is what
// Python's weights never ask for.
#include <doctest/doctest.h>

#include <vector>

#include "base/error.h"
#include "image/resample.h"

namespace {

constexpr int32_t kOne = 1 << emm::kResampleBits;

std::vector<uint8_t> resized(const std::vector<uint8_t>& pixels, int64_t height, int64_t width,
                             const emm::ResampleAxis& columns, const emm::ResampleAxis& rows) {
  std::vector<uint8_t> out(rows.size * columns.size * 3);
  emm::resample({pixels.data(), height, width}, columns, rows, out.data());
  return out;
}

TEST_CASE("sums are rounded and kept in a byte's range") {
  const std::vector<uint8_t> pixels{0, 100, 255, 1, 200, 255};
  const int32_t first[] = {0, 0, 0};
  const int32_t weights[] = {kOne / 2, kOne / 2, -kOne, kOne, kOne, kOne / 2};
  const int32_t whole[] = {kOne};
  const auto out = resized(pixels, 1, 2, {first, weights, 3, 2}, {first, whole, 1, 1});
  CHECK(out == std::vector<uint8_t>{1, 150, 255, 1, 100, 0, 1, 200, 255});
}

TEST_CASE("rows beyond a whole block and bytes beyond a whole span are resized too") {
  constexpr int64_t kHeight = 19;
  constexpr int64_t kWidth = 23;
  std::vector<uint8_t> pixels(kHeight * kWidth * 3);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 37 % 251);
  std::vector<int32_t> first(kWidth);
  for (int32_t i = 0; i < kWidth; ++i) first[i] = i;
  const std::vector<int32_t> whole(kWidth, kOne);
  CHECK(resized(pixels, kHeight, kWidth, {first.data(), whole.data(), kWidth, 1},
                {first.data(), whole.data(), kHeight, 1}) == pixels);
}

TEST_CASE("neighbours outside of the image are an error") {
  const std::vector<uint8_t> pixels(3 * 4 * 3);
  const int32_t whole[] = {kOne, kOne};
  const int32_t inside[] = {0};
  for (const int32_t first : {-1, 3, 4}) {
    const int32_t outside[] = {first};
    CHECK_THROWS_AS(resized(pixels, 3, 4, {outside, whole, 1, 2}, {inside, whole, 1, 1}),
                    emm::Error);
    CHECK_THROWS_AS(resized(pixels, 3, 4, {inside, whole, 1, 1}, {outside, whole, 1, 2}),
                    emm::Error);
  }
  CHECK_THROWS_AS(resized(pixels, 3, 4, {inside, whole, 0, 1}, {inside, whole, 1, 1}), emm::Error);
}

}  // namespace
