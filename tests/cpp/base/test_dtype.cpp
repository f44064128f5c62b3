// 16-bit float conversions, against the definitions of the formats.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>

#include "base/dtype.h"

using namespace emm;

namespace {

// Value of a binary16 from its fields.
double half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const double mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.0 + mantissa, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

}  // namespace

TEST_CASE("every finite float16 converts exactly and comes back") {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if (((half >> 10) & 31) == 31) continue;
    REQUIRE(static_cast<double>(float16_to_float(half)) == half_value(half));
    REQUIRE(float_to_float16(float16_to_float(half)) == half);
  }
}

TEST_CASE("float32 rounds to the nearest float16, ties to even") {
  for (uint32_t bits = 0; bits < 0x7BFFu; ++bits) {
    const auto low = static_cast<uint16_t>(bits);
    const auto high = static_cast<uint16_t>(bits + 1);
    const float middle = static_cast<float>((half_value(low) + half_value(high)) / 2);
    REQUIRE(float_to_float16(middle) == ((low & 1) == 0 ? low : high));
    REQUIRE(float_to_float16(std::nextafter(middle, 0.0f)) == low);
    REQUIRE(float_to_float16(std::nextafter(middle, 1e9f)) == high);
  }
  CHECK(float_to_float16(65519.0f) == 0x7BFF);
  CHECK(float_to_float16(65520.0f) == 0x7C00);
  CHECK(float_to_float16(-INFINITY) == 0xFC00);
  CHECK(std::isnan(float16_to_float(float_to_float16(NAN))));
}

TEST_CASE("bfloat16 rounds to nearest even and keeps NaN and infinity") {
  CHECK(float_to_bfloat16(1.0f) == 0x3F80);
  CHECK(float_to_bfloat16(bits_float(0x3F808000u)) == 0x3F80);
  CHECK(float_to_bfloat16(bits_float(0x3F818000u)) == 0x3F82);
  CHECK(float_to_bfloat16(bits_float(0x3F808001u)) == 0x3F81);
  CHECK(float_to_bfloat16(INFINITY) == 0x7F80);
  CHECK(std::isnan(bfloat16_to_float(float_to_bfloat16(bits_float(0x7F800001u)))));
}
