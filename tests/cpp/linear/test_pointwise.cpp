#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "linear/kernels.h"
#include "linear/pointwise.h"

namespace {

using namespace emm::linear;

std::vector<float> numbers(size_t count, float low, float high, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> values(low, high);
  std::vector<float> result(count);
  for (float& value : result) value = values(random);
  return result;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// x * (1 / sqrt(mean + eps)) * weight, as a norm ends.
PointwisePlan norm_plan(const PointwiseLoops& loops, int64_t columns) {
  PointwisePlan plan;
  plan.columns = columns;
  // mean, eps, x, weight, out; then what lives within a row.
  plan.values = {{true, false, true},  {false, false, true}, {true, true, true},
                 {false, true, true},  {true, true, true},   {true, false, false},
                 {true, false, false}, {true, true, false}};
  if (columns == 1) {
    for (PointwisePlan::Value& value : plan.values) value.has_columns = true;
  }
  plan.steps = {{&loops.add, nullptr, 0, 1, 5},
                {nullptr, loops.reciprocal_root, 5, 5, 6},
                {&loops.multiply, nullptr, 2, 6, 7},
                {&loops.multiply, nullptr, 7, 3, 4}};
  return plan;
}

TEST_CASE("steps in one pass give the same as each by itself, whatever the columns and rows") {
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(std::string(kernels->name));
    const PointwiseLoops& loops = *kernels->pointwise;
    for (const int64_t columns : {1, 3, 255, 256, 257, 576, 1025, 4100}) {
      CAPTURE(columns);
      constexpr int64_t kRows = 5;
      const auto all = static_cast<size_t>(kRows * columns);
      auto mean = numbers(kRows, 0, 2, 1);
      std::vector<float> eps = {1e-5f};
      auto x = numbers(all, -3, 3, 2);
      auto weight = numbers(static_cast<size_t>(columns), -1, 1, 3);
      std::vector<float> out(all, NAN);
      const PointwisePlan plan = norm_plan(loops, columns);
      const std::vector<float*> memory = {mean.data(), eps.data(), x.data(), weight.data(),
                                          out.data(),  nullptr,    nullptr,  nullptr};
      plan.run(memory, 0, 2);
      for (size_t i = static_cast<size_t>(2 * columns); i < all; ++i) CHECK(std::isnan(out[i]));
      plan.run(memory, 2, kRows);

      for (int64_t i = 0; i < kRows; ++i) {
        const float scale = 1.0f / std::sqrt(mean[static_cast<size_t>(i)] + eps[0]);
        for (int64_t k = 0; k < columns; ++k) {
          const auto at = static_cast<size_t>(i * columns + k);
          CHECK(out[at] == x[at] * scale * weight[static_cast<size_t>(k)]);
        }
      }
    }
  }
}

TEST_CASE("an output can be an operand of a later step, and one operand both sides") {
  PointwisePlan plan;
  plan.columns = 300;
  plan.values = {{true, true, true}, {true, true, true}, {true, true, true}, {true, true, true}};
  plan.steps = {{&kPlainLoops.subtract, nullptr, 0, 1, 2},
                {&kPlainLoops.multiply, nullptr, 2, 2, 3}};
  auto a = numbers(600, -1, 1, 4);
  auto b = numbers(600, -1, 1, 5);
  std::vector<float> difference(600);
  std::vector<float> square(600);
  plan.run({a.data(), b.data(), difference.data(), square.data()}, 0, 2);
  for (size_t i = 0; i < 600; ++i) {
    CHECK(difference[i] == a[i] - b[i]);
    CHECK(square[i] == (a[i] - b[i]) * (a[i] - b[i]));
  }
}

TEST_CASE("a sigmoid is right to two units in the last place of what it is computed from") {
  std::vector<float> x = numbers(20'000, -90, 90, 6);
  const auto near = numbers(20'000, -2, 2, 7);
  x.insert(x.end(), near.begin(), near.end());
  for (const Kernels* kernels : usable_kernels()) {
    std::vector<float> got(x.size());
    kernels->pointwise->sigmoid(x.data(), got.data(), static_cast<int64_t>(x.size()));
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double wanted = 1 / (1 + std::exp(-double{x[i]}));
      if (wanted > 1e-37) worst = std::fmax(worst, std::fabs(got[i] - wanted) / wanted);
    }
    CHECK(worst < 4e-7);
  }
}

TEST_CASE("pairs are turned, each product and sum rounded") {
  for (const Kernels* kernels : usable_kernels()) {
    for (const int64_t n : {1, 4, 7, 16, 32, 67}) {
      CAPTURE(n);
      const auto count = static_cast<size_t>(n);
      const auto pairs = numbers(2 * count, -3, 3, 11);
      const auto cosine = numbers(count, -1, 1, 12);
      const auto sine = numbers(count, -1, 1, 13);
      std::vector<float> got(2 * count);
      kernels->pointwise->rotate(pairs.data(), cosine.data(), sine.data(), got.data(), n);
      for (size_t i = 0; i < count; ++i) {
        volatile const float ac = pairs[2 * i] * cosine[i];
        volatile const float bs = pairs[2 * i + 1] * sine[i];
        volatile const float as = pairs[2 * i] * sine[i];
        volatile const float bc = pairs[2 * i + 1] * cosine[i];
        CHECK(got[2 * i] == ac - bs);
        CHECK(got[2 * i + 1] == as + bc);
      }
    }
  }
}

TEST_CASE("numbers at the ends of floats") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0.0f, -0.0f, kInfinity, -kInfinity, NAN, 3e38f, -3e38f, 1e-45f};
  for (const Kernels* kernels : usable_kernels()) {
    std::vector<float> got(x.size());
    kernels->pointwise->sigmoid(x.data(), got.data(), static_cast<int64_t>(x.size()));
    CHECK(got[0] == 0.5f);
    CHECK(got[1] == 0.5f);
    CHECK(got[2] == 1.0f);
    CHECK(got[3] == 0.0f);
    CHECK(std::isnan(got[4]));
    CHECK(got[5] == 1.0f);
    CHECK(got[6] == 0.0f);
    CHECK(got[7] == 0.5f);
    kernels->pointwise->reciprocal_root(x.data(), got.data(), static_cast<int64_t>(x.size()));
    CHECK(got[0] == kInfinity);
    CHECK(got[2] == 0.0f);
    CHECK(std::isnan(got[3]));
    CHECK(std::isnan(got[4]));
  }
}

TEST_CASE("all instruction sets give the same bits") {
  const auto a = numbers(1003, -20, 20, 8);
  const auto b = numbers(1003, 0, 5, 9);
  const auto results = [&](const PointwiseLoops& loops) {
    std::vector<float> all;
    const auto add = [&](auto loop) {
      std::vector<float> got(a.size());
      loop(got.data(), static_cast<int64_t>(a.size()));
      all.insert(all.end(), got.begin(), got.end());
    };
    for (const PointwiseLoops::Binary* two : {&loops.add, &loops.subtract, &loops.multiply}) {
      for (const auto loop : {two->both, two->one_left, two->one_right})
        add([&](float* to, int64_t n) { loop(a.data(), b.data(), to, n); });
    }
    add([&](float* to, int64_t n) { loops.sigmoid(a.data(), to, n); });
    add([&](float* to, int64_t n) { loops.reciprocal_root(b.data(), to, n); });
    return all;
  };
  const auto wanted = results(kPlainLoops);
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(std::string(kernels->name));
    CHECK(same_bits(results(*kernels->pointwise), wanted));
  }
}

}  // namespace
