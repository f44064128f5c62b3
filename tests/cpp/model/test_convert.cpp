// Element conversion.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "model/convert.h"

using namespace emm;

TEST_CASE("data of the wanted dtype is passed on, not copied") {
  const std::vector<float> values = {1.0f, 2.0f};
  std::vector<uint8_t> buffer;
  const TensorView view{values.data(), DType::kFloat32, {2}};
  CHECK(convert(view, DType::kFloat32, buffer, "image").data == values.data());
  CHECK(buffer.empty());
}

TEST_CASE("floats of each width become floats of each other width, rounded to nearest even") {
  // Exact in every width, so that the value must come back; 1 + 2^-9 lies half way in bfloat16.
  const std::vector<float> values = {0.0f, -1.5f, 3.0f, 0.0078125f};
  std::vector<uint8_t> first;
  std::vector<uint8_t> second;
  const TensorView floats{values.data(), DType::kFloat32, {4}};
  for (const DType through : {DType::kFloat16, DType::kBFloat16}) {
    const TensorView narrow = convert(floats, through, first, "image");
    CHECK(narrow.dtype == through);
    for (const DType other : {DType::kFloat16, DType::kBFloat16, DType::kFloat32}) {
      std::vector<uint8_t> third;
      const TensorView there = convert(narrow, other, second, "image");
      const TensorView back = convert(there, DType::kFloat32, third, "image");
      CHECK(std::memcmp(back.data, values.data(), sizeof(float) * values.size()) == 0);
    }
  }
  const std::vector<double> doubles = {1.001953125};
  const TensorView rounded =
      convert({doubles.data(), DType::kFloat64, {1}}, DType::kBFloat16, first, "image");
  CHECK(static_cast<const uint16_t*>(rounded.data)[0] == 0x3F80);
}

TEST_CASE("in images bytes stand for floats in 0..1, both ways") {
  const std::vector<uint8_t> bytes = {0, 51, 128, 255};
  std::vector<uint8_t> first;
  std::vector<uint8_t> second;
  const TensorView view{bytes.data(), DType::kUInt8, {4}};
  const TensorView floats = convert_image(view, DType::kFloat32, first);
  const auto* out = static_cast<const float*>(floats.data);
  CHECK(out[0] == 0.0f);
  CHECK(out[1] == doctest::Approx(0.2));
  CHECK(out[3] == 1.0f);
  const TensorView back = convert_image(floats, DType::kUInt8, second);
  CHECK(std::memcmp(back.data, bytes.data(), bytes.size()) == 0);
  for (const DType narrow : {DType::kFloat16, DType::kBFloat16}) {
    std::vector<uint8_t> third;
    const TensorView halves = convert_image(view, narrow, second);
    const TensorView again = convert_image(halves, DType::kUInt8, third);
    CHECK(static_cast<const uint8_t*>(again.data)[3] == 255);
  }
  CHECK(convert_image(view, DType::kUInt8, first).data == bytes.data());
}

TEST_CASE("what has no meaning is refused by name") {
  std::vector<uint8_t> buffer;
  const std::vector<float> values = {0.5f, 1.5f};
  const std::vector<uint8_t> bytes = {1};
  const TensorView floats{values.data(), DType::kFloat32, {2}};
  CHECK_THROWS_WITH_AS(convert(floats, DType::kUInt8, buffer, "audio"),
                       "audio: expected uint8, got float32", Error);
  CHECK_THROWS_WITH_AS(
      convert({bytes.data(), DType::kUInt8, {1}}, DType::kFloat32, buffer, "audio"),
      "audio: expected float32, got uint8", Error);
  CHECK_THROWS_WITH_AS(convert_image(floats, DType::kInt8, buffer),
                       "image: expected int8, got float32", Error);
  CHECK_THROWS_WITH_AS(convert_image(floats, DType::kUInt8, buffer),
                       "image: the encoder takes bytes: expected uint8, or floats in 0..1, got "
                       "floats with 1 values beyond",
                       Error);
}

TEST_CASE("ids become narrower where the program wants it") {
  const std::vector<int64_t> ids = {0, 7, 2147483647};
  std::vector<uint8_t> buffer;
  const TensorView narrow =
      convert({ids.data(), DType::kInt64, {1, 3}}, DType::kInt32, buffer, "tokens");
  CHECK(static_cast<const int32_t*>(narrow.data)[2] == 2147483647);
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
