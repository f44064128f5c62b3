// The sampler: what it draws follows the distribution that its filters leave, in the right order.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "base/error.h"
#include "sampling/sampler.h"

using namespace emm;

namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

template <typename Set>
SamplingOptions options_with(Set set) {
  SamplingOptions options;
  options.temperature = 1.0f;
  options.seed = 7;
  set(options);
  return options;
}

std::vector<float> random_logits(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

int32_t sample(Sampler& sampler, const std::vector<float>& row,
               const std::vector<int64_t>& history = {}, const SampleHooks& hooks = {}) {
  return sampler.sample(row.data(), static_cast<int64_t>(row.size()), history, hooks);
}

std::vector<double> distribution(const SamplingOptions& options, const std::vector<float>& row,
                                 const std::vector<int64_t>& history = {},
                                 const SampleHooks& hooks = {}) {
  Sampler sampler(options);
  std::vector<double> probabilities(row.size());
  sampler.distribution(row.data(), static_cast<int64_t>(row.size()), history, hooks,
                       probabilities.data());
  return probabilities;
}

// Pearson's statistic of `count` draws against the distribution, over tokens expected at least five
// times, with the number of those less one.
struct ChiSquare {
  double statistic = 0.0;
  double freedom = -1.0;
};

ChiSquare chi_square(const SamplingOptions& options, const std::vector<float>& row, int count) {
  Sampler sampler(options);
  std::vector<double> drawn(row.size());
  for (int i = 0; i < count; ++i) ++drawn[static_cast<size_t>(sample(sampler, row))];
  const auto probabilities = distribution(options, row);
  ChiSquare result;
  double rest_drawn = 0.0, rest_expected = 0.0;
  const auto add = [&result](double seen, double expected) {
    result.statistic += (seen - expected) * (seen - expected) / expected;
    ++result.freedom;
  };
  for (size_t token = 0; token < row.size(); ++token) {
    const double expected = probabilities[token] * count;
    if (expected == 0.0) CHECK(drawn[token] == 0.0);
    if (expected >= 5.0) {
      add(drawn[token], expected);
    } else {
      rest_drawn += drawn[token];
      rest_expected += expected;
    }
  }
  if (rest_expected >= 5.0) add(rest_drawn, rest_expected);
  return result;
}

}  // namespace

TEST_CASE("temperature 0 picks the largest logit, the first of equals") {
  Sampler sampler{SamplingOptions{}};
  CHECK(sample(sampler, {0.5f, 2.0f, 2.0f, -1.0f}) == 1);
  Sampler other{SamplingOptions{}};
  CHECK(sample(other, {std::nanf(""), -5.0f, std::nanf("")}) == 1);
}

TEST_CASE("a temperature next to 0 and top_k = 1 pick it too") {
  const auto row = random_logits(3000, 5);
  const auto best = std::max_element(row.begin(), row.end()) - row.begin();
  for (const auto& options : {options_with([](auto& o) { o.temperature = 1e-44f; }),
                              options_with([](auto& o) { o.temperature = 50.0f, o.top_k = 1; }),
                              options_with([](auto& o) { o.top_p = 1e-30f; }),
                              options_with([](auto& o) { o.min_p = 1.0f; })}) {
    Sampler sampler(options);
    for (int i = 0; i < 50; ++i) CHECK(sample(sampler, row) == best);
  }
}

TEST_CASE("samples follow the filtered distribution") {
  for (const size_t size : {50u, 700u}) {
    const auto row = random_logits(size, 7);
    for (const auto& options :
         {options_with([](auto&) {}), options_with([](auto& o) { o.temperature = 3.0f; }),
          options_with([](auto& o) { o.top_k = 5; }), options_with([](auto& o) { o.top_p = 0.9f; }),
          options_with([](auto& o) { o.temperature = 4.0f, o.top_p = 0.3f; }),
          options_with([](auto& o) { o.min_p = 0.05f; }),
          options_with([](auto& o) { o.min_p = 0.01f, o.top_p = 0.95f; }),
          options_with([](auto& o) { o.typical_p = 0.5f; }),
          options_with([](auto& o) { o.temperature = 2.0f, o.top_k = 30, o.top_p = 0.8f; }),
          options_with([](auto& o) { o.top_k = 40, o.min_p = 0.01f, o.typical_p = 0.9f; })}) {
      CAPTURE(size);
      CAPTURE(options.temperature);
      CAPTURE(options.top_k);
      CAPTURE(options.top_p);
      CAPTURE(options.min_p);
      CAPTURE(options.typical_p);
      const ChiSquare result = chi_square(options, row, 20000);
      // Mean: the degrees of freedom; five standard deviations above it.
      CHECK(result.statistic < result.freedom + 5.0 * std::sqrt(2.0 * result.freedom) + 5.0);
    }
  }
}

TEST_CASE("equal logits are drawn equally often and top_p cuts them at the lower ids") {
  const std::vector<float> row(1000, 1.5f);
  const auto options = options_with([](auto& o) { o.top_p = 0.5f; });
  const ChiSquare result = chi_square(options, row, 50000);
  CHECK(result.statistic < result.freedom + 5.0 * std::sqrt(2.0 * result.freedom));
  const auto probabilities = distribution(options, row);
  CHECK(std::count(probabilities.begin(), probabilities.end(), 0.0) == 500);
  CHECK(probabilities[499] > 0.0);
}

TEST_CASE("the same seed draws the same tokens, another seed others") {
  const auto row = random_logits(100, 1);
  const auto draw = [&](uint64_t seed) {
    Sampler sampler(options_with([seed](auto& o) { o.seed = seed; }));
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(sample(sampler, row));
    return tokens;
  };
  CHECK(draw(42) == draw(42));
  CHECK(draw(42) != draw(43));
}

TEST_CASE("forbidden tokens are never drawn and a row without any token is an error") {
  Sampler sampler(options_with([](auto&) {}));
  for (int i = 0; i < 100; ++i)
    CHECK(sample(sampler, {kForbidden, 0.0f, std::nanf(""), 0.0f}) % 2 == 1);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const auto& options : {SamplingOptions{}, options_with([](auto&) {}),
                              options_with([](auto& o) { o.top_k = 1; })}) {
    Sampler strict(options);
    CHECK_THROWS_AS(sample(strict, {kForbidden, kForbidden}), Error);
    CHECK_THROWS_AS(sample(strict, {0.0f, kInfinity}), Error);
    CHECK_THROWS_AS(sample(strict, {std::nanf(""), std::nanf("")}), Error);
  }
}

TEST_CASE("forced tokens come first whatever the logits and other options say") {
  auto options = options_with([](auto& o) { o.temperature = 0.0f; });
  options.forced_tokens = {2, 0};
  options.logit_bias = {{2, kForbidden}};
  Sampler sampler(options);
  const std::vector<float> row = {0.0f, 5.0f, 1.0f};
  CHECK(sample(sampler, row) == 2);
  CHECK(sample(sampler, row) == 0);
  CHECK(sample(sampler, row) == 1);
}

TEST_CASE("end tokens wait for min_new_tokens") {
  SamplingOptions options;
  options.min_new_tokens = 2;
  options.end_tokens = {1, 1000000};  // one that the model does not have does no harm
  Sampler sampler(options);
  const std::vector<float> row = {0.0f, 5.0f, 1.0f};
  CHECK(sample(sampler, row) == 2);
  CHECK(sample(sampler, row) == 2);
  CHECK(sample(sampler, row) == 1);
}

TEST_CASE("single logits change in transformers' order") {
  // The bias comes before the repetition penalty, which therefore divides it too; the frequency
  // penalty comes after both.
  SamplingOptions options = options_with([](auto& o) {
    o.logit_bias = {{0, 3.0f}};
    o.repetition_penalty = 2.0f;
    o.frequency_penalty = 0.5f;
  });
  const std::vector<float> row = {1.0f, 2.0f};
  const auto probabilities = distribution(options, row, {0});  // 0 is of the prompt
  CHECK(std::log(probabilities[0] / probabilities[1]) == doctest::Approx(0.0).epsilon(1e-6));
}

TEST_CASE("a hook sees the logits after the options, and the mask has the last word") {
  SamplingOptions options;
  options.suppress_tokens = {3};
  Sampler sampler(options);
  const std::vector<float> row = {0.0f, 1.0f, 2.0f, 9.0f};
  const uint32_t allowed = 0b0011;
  SampleHooks hooks;
  std::vector<float> seen;
  hooks.edit = [&](float* logits, int64_t vocab_size, const std::vector<int64_t>& history) {
    seen.assign(logits, logits + vocab_size);
    CHECK(history == std::vector<int64_t>{8});
    logits[2] = 100.0f;
  };
  CHECK(sample(sampler, row, {8}, hooks) == 2);
  CHECK(seen == std::vector<float>{0.0f, 1.0f, 2.0f, kForbidden});
  hooks.allowed = &allowed;
  CHECK(sample(sampler, row, {8}, hooks) == 1);
  CHECK(row[2] == 2.0f);
}

TEST_CASE("a hook that throws leaves the sampler as it was") {
  const auto row = random_logits(100, 2);
  Sampler sampler(options_with([](auto&) {})), untouched(options_with([](auto&) {}));
  SampleHooks hooks;
  hooks.edit = [](float*, int64_t, const std::vector<int64_t>&) { throw std::runtime_error("no"); };
  CHECK_THROWS_AS(sample(sampler, row, {}, hooks), std::runtime_error);
  for (int i = 0; i < 20; ++i) CHECK(sample(sampler, row) == sample(untouched, row));
}

TEST_CASE("logprobs are those of the model, whatever the options do to them") {
  const auto row = random_logits(1000, 9);
  double total = 0.0;
  for (const float logit : row) total += std::exp(double{logit});
  const auto logprob = [&](int32_t token) {
    return double{row[static_cast<size_t>(token)]} - std::log(total);
  };
  auto options = options_with([](auto& o) {
    o.temperature = 0.3f, o.top_k = 3, o.num_logprobs = 5;
    o.logit_bias = {{500, 50.0f}};
  });
  Sampler sampler(options);
  CHECK(sample(sampler, row) == 500);
  CHECK(sampler.logprob() == doctest::Approx(logprob(500)).epsilon(1e-5));
  REQUIRE(sampler.top_logprobs().size() == 5);
  std::vector<int32_t> order(row.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
  });
  for (size_t i = 0; i < 5; ++i) {
    CHECK(sampler.top_logprobs()[i].token == order[i]);
    CHECK(sampler.top_logprobs()[i].value == doctest::Approx(logprob(order[i])).epsilon(1e-5));
  }
}

TEST_CASE("what may follow is ranked after the rules, with what leads back to the model's own") {
  std::vector<float> row = {1.0f, 3.0f, 2.0f, 0.5f};
  SamplingOptions options;
  options.num_logprobs = 2;
  options.suppress_tokens = {1};
  options.begin_suppress_tokens = {2};
  Sampler sampler(options);
  const auto rank = [&](size_t num_tokens) {
    return sampler.rank(row.data(), 4, {9, 9}, num_tokens);
  };
  const auto log_sum = [&](std::vector<size_t> of) {
    double sum = 0.0;
    for (const size_t i : of) sum += std::exp(double{row[i]});
    return std::log(sum);
  };
  const double first = rank(0);
  REQUIRE(sampler.top_logprobs().size() == 2);
  CHECK(sampler.top_logprobs()[0].token == 0);
  CHECK(sampler.top_logprobs()[0].value == doctest::Approx(1.0 - log_sum({0, 3})).epsilon(1e-5));
  CHECK(first == doctest::Approx(log_sum({0, 3}) - log_sum({0, 1, 2, 3})).epsilon(1e-5));
  const double later = rank(1);  // in any order of answers
  CHECK(sampler.top_logprobs()[0].token == 2);
  CHECK(later == doctest::Approx(log_sum({0, 2, 3}) - log_sum({0, 1, 2, 3})).epsilon(1e-5));
  CHECK(rank(0) == first);
  row = {kForbidden, 3.0f, kForbidden, kForbidden};
  CHECK_THROWS_AS(rank(1), Error);
}

TEST_CASE("more logprobs than tokens are all of them") {
  SamplingOptions options;
  options.num_logprobs = 10;
  Sampler sampler(options);
  sample(sampler, {0.0f, 1.0f, kForbidden});
  CHECK(sampler.top_logprobs().size() == 2);
}

TEST_CASE("options that name a token beyond the row are refused by name") {
  SamplingOptions options;
  SUBCASE("logit_bias") {
    options.logit_bias = {{3, 1.0f}};
    CHECK_THROWS_WITH_AS(Sampler(options).prepare(3),
                         "logit_bias: expected token ids in 0..2, got 3", Error);
  }
  SUBCASE("suppress_tokens") {
    options.suppress_tokens = {-1};
    CHECK_THROWS_AS(Sampler(options).prepare(3), Error);
  }
  SUBCASE("forced_tokens") {
    options.forced_tokens = {7};
    CHECK_THROWS_AS(Sampler(options).prepare(3), Error);
  }
}
