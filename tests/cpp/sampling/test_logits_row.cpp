// Passes over a row against plain double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/error.h"
#include "sampling/logits_row.h"

using namespace emm;

namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

std::vector<float> random_row(int64_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  std::vector<float> row(static_cast<size_t>(size));
  for (float& value : row) value = normal(random);
  return row;
}

}  // namespace

TEST_CASE("the largest is found wherever it stands, and the first of equals") {
  for (const int64_t size : {1, 15, 16, 17, 255, 256, 257, 1000}) {
    for (int64_t place = 0; place < size; ++place) {
      auto row = random_row(size, static_cast<unsigned>(size));
      row[static_cast<size_t>(place)] = 100.0f;
      CHECK(argmax(row.data(), size) == place);
      row.back() = 100.0f;
      CHECK(argmax(row.data(), size) == place);
    }
  }
}

TEST_CASE("NaN is never the largest and a row without numbers has none") {
  std::vector<float> row(40, std::nanf(""));
  CHECK(argmax(row.data(), 40) == -1);
  row[33] = -7.0f;
  CHECK(argmax(row.data(), 40) == 33);
  std::vector<float> maxima(1);
  CHECK(block_maxima(row.data(), 40, maxima.data()) == -7.0f);
  row.assign(40, kForbidden);
  CHECK(argmax(row.data(), 40) == -1);
}

TEST_CASE("weights are exp of the distance to the largest, over the temperature") {
  for (const float temperature : {0.1f, 0.7f, 1.0f, 5.0f}) {
    const auto row = random_row(1000, 3);
    std::vector<float> weights(1000), maxima(4);
    std::vector<double> sums(4);
    const float largest = block_maxima(row.data(), 1000, maxima.data());
    const double total =
        softmax_weights(row.data(), 1000, largest, temperature, weights.data(), sums.data());
    double expected_total = 0.0;
    for (size_t i = 0; i < row.size(); ++i) {
      const double x = (double{row[i]} - double{largest}) / double{temperature};
      const double expected = std::exp(x);
      expected_total += expected;
      // Rounding x to float costs in proportion to x.
      const double tolerance = expected * (3e-7 - 1.5e-7 * x);
      CHECK(std::abs(double{weights[i]} - expected) <= tolerance + 1e-37);
      CHECK(softmax_weight(row[i], largest, temperature) == weights[i]);
    }
    CHECK(total == doctest::Approx(expected_total).epsilon(1e-6));
    CHECK(sums[0] + sums[1] + sums[2] + sums[3] == doctest::Approx(total).epsilon(1e-12));
  }
}

TEST_CASE("the largest weighs 1 at any temperature, and what is forbidden 0") {
  for (const float temperature : {1e-45f, 1e-30f, 1.0f, 1e30f, 3e38f}) {
    CHECK(softmax_weight(2.5f, 2.5f, temperature) == 1.0f);
    CHECK(softmax_weight(kForbidden, 2.5f, temperature) == 0.0f);
    CHECK(softmax_weight(std::nanf(""), 2.5f, temperature) == 0.0f);
  }
  CHECK(softmax_weight(2.4f, 2.5f, 1e-45f) == 0.0f);
}

TEST_CASE("sums before a rank leave out the rank itself and equal weights behind it") {
  const std::vector<float> weights = {0.5f, 1.0f, 0.5f, 0.25f, 0.5f, 0.0f};
  std::vector<double> sums(1);
  const auto before = [&](float weight, int64_t index) {
    return sums_before({weight, index}, weights.data(), weights.data(), 6, sums.data());
  };
  CHECK(before(1.0f, 1) == 0.0);
  CHECK(before(0.5f, 0) == 1.0);
  CHECK(before(0.5f, 2) == 1.5);
  CHECK(before(0.5f, 4) == 2.0);
  CHECK(before(0.25f, 3) == 2.5);
  CHECK(before(0.0f, 0) == 2.75);
  CHECK(before(0.5f, 6) == 2.5);  // beyond the row: all of that weight
}

TEST_CASE("half and bfloat16 logits are read as the numbers they are") {
  const std::vector<uint16_t> half = {0x3C00, 0x4000, 0xC000};   // 1, 2, -2
  const std::vector<uint16_t> brain = {0x3F80, 0xC000, 0x4040};  // 1, -2, 3
  const std::vector<uint16_t> quantised = {7, 65535, 3};
  std::vector<float> row;
  as_float32({half.data(), DType::kFloat16, {3}}, row);
  CHECK(row == std::vector<float>{1.0f, 2.0f, -2.0f});
  as_float32({brain.data(), DType::kBFloat16, {3}}, row);
  CHECK(row == std::vector<float>{1.0f, -2.0f, 3.0f});
  as_float32({quantised.data(), DType::kUInt16, {3}}, row);
  CHECK(row == std::vector<float>{7.0f, 65535.0f, 3.0f});
  CHECK_THROWS_AS(as_float32({half.data(), DType::kInt32, {1}}, row), Error);
}

TEST_CASE("the logarithm of a sum of powers of e, whatever the size of the row and of its values") {
  for (const int64_t size : {1, 255, 256, 257, 1000}) {
    std::vector<float> row = random_row(size, static_cast<unsigned>(size));
    row[0] = kForbidden;
    row.back() = 3.0f;
    double sum = 0.0;
    for (const float value : row) sum += std::exp(static_cast<double>(value));
    CHECK(log_sum_exp(row.data(), size) == doctest::Approx(std::log(sum)).epsilon(1e-6));
    for (float& value : row) value += 1000.0f;
    CHECK(log_sum_exp(row.data(), size) == doctest::Approx(1000.0 + std::log(sum)).epsilon(1e-6));
  }
  const std::vector<float> none(300, kForbidden);
  CHECK(log_sum_exp(none.data(), 300) == -std::numeric_limits<double>::infinity());
}

TEST_CASE("typicality is the distance of a surprise from the entropy") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  std::vector<float> row(1000), weights(1000), keys(1000);
  for (float& logit : row) logit = normal(random);
  row[17] = -INFINITY;
  std::vector<double> sums(static_cast<size_t>(num_row_blocks(1000)));
  const float largest = *std::max_element(row.begin(), row.end());
  const float temperature = 0.7f;
  const double total =
      softmax_weights(row.data(), 1000, largest, temperature, weights.data(), sums.data());
  typicality(row.data(), 1000, largest, temperature, weights.data(), total, keys.data());

  std::vector<double> surprises(1000);
  double entropy = 0.0;
  for (size_t i = 0; i < 1000; ++i) {
    const double p = std::exp(double{row[i] - largest} / double{temperature}) / total;
    surprises[i] = -std::log(p);
    if (p > 0.0) entropy += p * surprises[i];
  }
  for (size_t i = 0; i < 1000; ++i) {
    if (i == 17)
      CHECK(keys[i] == -INFINITY);
    else
      CHECK(double{keys[i]} == doctest::Approx(-std::abs(surprises[i] - entropy)).epsilon(1e-4));
  }
}
