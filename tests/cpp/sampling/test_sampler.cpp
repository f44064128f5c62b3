// The sampler against distributions computed here in double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "base/error.h"
#include "sampling/sampler.h"

using namespace emm;

namespace {

TensorView row(const std::vector<float>& values) {
  return {values.data(), DType::kFloat32, {static_cast<int64_t>(values.size())}};
}

// The distribution after temperature, top_k and top_p, by sorting everything.
std::vector<double> reference(const std::vector<float>& logits, const SamplingOptions& options) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(options.top_k)));
  std::vector<double> weights;
  for (const size_t token : order) {
    weights.push_back(
        std::exp((double{logits[token]} - double{logits[order[0]]}) / double{options.temperature}));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0.0;
  size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < double{options.top_p} * total))
    kept += weights[count++];
  std::vector<double> probabilities(logits.size(), 0.0);
  for (size_t i = 0; i < count; ++i) probabilities[order[i]] = weights[i] / kept;
  return probabilities;
}

std::vector<float> random_logits(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

constexpr double kSamples = 20000;

// Largest distance between the frequencies of kSamples draws and the reference.
double distance(const std::vector<float>& logits, const SamplingOptions& options) {
  Sampler sampler(options);
  std::vector<double> counts(logits.size());
  for (int i = 0; i < static_cast<int>(kSamples); ++i)
    ++counts[static_cast<size_t>(sampler.sample(row(logits)))];
  const auto expected = reference(logits, options);
  double largest = 0.0;
  for (size_t token = 0; token < logits.size(); ++token) {
    if (expected[token] == 0.0) CHECK(counts[token] == 0.0);
    largest = std::max(largest, std::abs(counts[token] / kSamples - expected[token]));
  }
  return largest;
}

}  // namespace

TEST_CASE("temperature 0 picks the largest logit, the first of equals") {
  Sampler sampler{SamplingOptions{}};
  CHECK(sampler.sample(row({0.5f, 2.0f, 2.0f, -1.0f})) == 1);
  CHECK(sampler.sample(row({std::nanf(""), -5.0f, std::nanf("")})) == 1);
}

TEST_CASE("samples follow the filtered distribution") {
  const auto logits = random_logits(50, 7);
  for (const SamplingOptions& options :
       {SamplingOptions{0.7f, 0, 1.0f, 1}, SamplingOptions{1.5f, 0, 1.0f, 2},
        SamplingOptions{1.0f, 5, 1.0f, 3}, SamplingOptions{1.0f, 0, 0.9f, 4},
        SamplingOptions{1.3f, 20, 0.6f, 5}, SamplingOptions{1.0f, 0, 0.01f, 6},
        SamplingOptions{100.0f, 0, 0.5f, 8}}) {
    CAPTURE(options.temperature);
    CAPTURE(options.top_k);
    CAPTURE(options.top_p);
    CHECK(distance(logits, options) <
          0.015);  // four standard deviations of a frequency of one half
  }
}

TEST_CASE("top_p keeps exactly the tokens that a full sort keeps") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    const auto logits = random_logits(300, seed);
    const SamplingOptions options{1.0f, 0, 0.05f + 0.9f * static_cast<float>(seed) / 200.0f, seed};
    std::vector<Candidate> candidates;
    for (size_t i = 0; i < logits.size(); ++i)
      candidates.push_back({logits[i], static_cast<int32_t>(i)});
    softmax_weights(candidates, options.temperature);
    keep_top_p(candidates, options.top_p);
    std::set<int32_t> kept;
    for (const Candidate& candidate : candidates) kept.insert(candidate.token);
    std::set<int32_t> expected;
    const auto probabilities = reference(logits, options);
    for (size_t i = 0; i < probabilities.size(); ++i) {
      if (probabilities[i] > 0.0) expected.insert(static_cast<int32_t>(i));
    }
    CHECK(kept == expected);
  }
}

TEST_CASE("the same seed draws the same tokens, another seed others") {
  const auto logits = random_logits(100, 1);
  const auto draw = [&](uint64_t seed) {
    Sampler sampler{SamplingOptions{1.0f, 0, 1.0f, seed}};
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(sampler.sample(row(logits)));
    return tokens;
  };
  CHECK(draw(42) == draw(42));
  CHECK(draw(42) != draw(43));
}

TEST_CASE("forbidden tokens are never drawn and a row without any token is an error") {
  const float forbidden = -std::numeric_limits<float>::infinity();
  Sampler sampler{SamplingOptions{1.0f, 0, 1.0f, 3}};
  for (int i = 0; i < 100; ++i)
    CHECK(sampler.sample(row({forbidden, 0.0f, forbidden, 0.0f})) % 2 == 1);
  CHECK_THROWS_AS(sampler.sample(row({forbidden, forbidden})), Error);
  CHECK_THROWS_AS(sampler.sample(row({0.0f, std::numeric_limits<float>::infinity()})), Error);
  CHECK_THROWS_AS(sampler.sample(row({std::nanf(""), std::nanf("")})), Error);
}

TEST_CASE("half and bfloat16 logits are read as the numbers they are") {
  const std::vector<uint16_t> half = {0x3C00, 0x4000, 0xC000};   // 1, 2, -2
  const std::vector<uint16_t> brain = {0x3F80, 0xC000, 0x4040};  // 1, -2, 3
  const std::vector<uint16_t> quantised = {7, 65535, 3};
  Sampler sampler{SamplingOptions{}};
  CHECK(sampler.sample({half.data(), DType::kFloat16, {3}}) == 1);
  CHECK(sampler.sample({brain.data(), DType::kBFloat16, {3}}) == 2);
  CHECK(sampler.sample({quantised.data(), DType::kUInt16, {3}}) == 1);
  CHECK_THROWS_AS(sampler.sample({half.data(), DType::kInt32, {1}}), Error);
}
