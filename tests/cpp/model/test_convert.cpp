// Element conversion and the arena that methods live in.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "model/arena.h"
#include "model/convert.h"

using namespace emm;

TEST_CASE("data of the wanted dtype is passed on, not copied") {
  const std::vector<float> values = {1.0f, 2.0f};
  std::vector<uint8_t> buffer;
  const TensorView view{values.data(), DType::kFloat32, {2}};
  CHECK(convert(view, DType::kFloat32, buffer, "image").data == values.data());
  CHECK(buffer.empty());
}

TEST_CASE("bytes become fractions of 255 and floats keep their value") {
  const std::vector<uint8_t> bytes = {0, 51, 255};
  std::vector<uint8_t> buffer;
  const TensorView view =
      convert({bytes.data(), DType::kUInt8, {3}}, DType::kFloat32, buffer, "image");
  const float* out = static_cast<const float*>(view.data);
  CHECK(out[0] == 0.0f);
  CHECK(out[1] == doctest::Approx(0.2));
  CHECK(out[2] == doctest::Approx(1.0));

  const std::vector<double> doubles = {-1.5, 3.0};
  const TensorView half =
      convert({doubles.data(), DType::kFloat64, {2}}, DType::kFloat16, buffer, "image");
  CHECK(float16_to_float(static_cast<const uint16_t*>(half.data)[0]) == -1.5f);
}

TEST_CASE("floats do not silently become bytes") {
  const std::vector<float> values = {0.5f};
  std::vector<uint8_t> buffer;
  CHECK_THROWS_WITH_AS(
      convert({values.data(), DType::kFloat32, {1}}, DType::kUInt8, buffer, "image"),
      "image: expected uint8, got float32", Error);
}

TEST_CASE("NaN and infinity are found in every float dtype") {
  const std::vector<float> good = {1.0f, -3e38f};
  const std::vector<float> bad = {1.0f, NAN};
  const std::vector<double> infinite = {INFINITY};
  const std::vector<uint16_t> half = {0x7C00};
  CHECK(all_finite({good.data(), DType::kFloat32, {2}}));
  CHECK_FALSE(all_finite({bad.data(), DType::kFloat32, {2}}));
  CHECK_FALSE(all_finite({infinite.data(), DType::kFloat64, {1}}));
  CHECK_FALSE(all_finite({half.data(), DType::kFloat16, {1}}));
  CHECK(all_finite({half.data(), DType::kBFloat16, {1}}));  // the same bits are a number there
}

TEST_CASE("an arena starts zeroed, returns to what loading wrote, and can be copied") {
  Arena arena({100000, 64});
  auto* bytes = static_cast<uint8_t*>(arena.allocator()->get_offset_address(0, 0, 100000).get());
  auto* small = static_cast<uint8_t*>(arena.allocator()->get_offset_address(1, 0, 64).get());
  CHECK(bytes[99999] == 0);
  bytes[5000] = 7;  // an initialised buffer
  arena.remember_initial_state();

  std::memset(bytes, 1, 100000);
  small[3] = 9;
  const auto saved = arena.copy();
  arena.reset();
  CHECK(bytes[5000] == 7);
  CHECK(bytes[4999] == 0);
  CHECK(bytes[99999] == 0);
  CHECK(small[3] == 0);

  arena.assign(saved);
  CHECK(bytes[99999] == 1);
  CHECK(small[3] == 9);
  CHECK_FALSE(arena.allocator()->get_offset_address(1, 60, 8).ok());
}
