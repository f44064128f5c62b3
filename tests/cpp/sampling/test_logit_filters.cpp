// Filters against references that sort everything, in double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <set>
#include <vector>

#include "sampling/logit_filters.h"

using namespace emm;

namespace {

std::vector<Candidate> random_candidates(size_t count, unsigned seed, bool with_ties) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < count; ++i) {
    const float value = normal(random);
    candidates.push_back({with_ties ? std::round(value) : value, static_cast<int32_t>(3 * i)});
  }
  return candidates;
}

std::vector<Candidate> as_weights(std::vector<Candidate> candidates) {
  for (Candidate& candidate : candidates) candidate.value = std::exp(candidate.value - 9.0f);
  return candidates;
}

std::vector<int32_t> tokens_of(const std::vector<Candidate>& candidates) {
  std::vector<int32_t> tokens;
  for (const Candidate& candidate : candidates) tokens.push_back(candidate.token);
  return tokens;
}

// The tokens, in the order of ids, that come first by `cost` until their amounts reach `wanted`.
std::vector<int32_t> first_by(const std::vector<Candidate>& candidates, double wanted,
                              const std::function<double(const Candidate&)>& cost,
                              const std::function<double(const Candidate&)>& amount) {
  std::vector<Candidate> sorted = candidates;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const Candidate& a, const Candidate& b) { return cost(a) < cost(b); });
  std::vector<int32_t> kept;
  for (const Candidate& candidate : sorted) {
    if (wanted <= 0.0) break;
    kept.push_back(candidate.token);
    wanted -= amount(candidate);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

double falling(const Candidate& candidate) { return -double{candidate.value}; }
double weight(const Candidate& candidate) { return double{candidate.value}; }
double one(const Candidate&) { return 1.0; }

}  // namespace

TEST_CASE("top_k keeps the k largest, of equals the lower ids, in the order of ids") {
  for (unsigned seed = 0; seed < 100; ++seed) {
    const auto all = random_candidates(1 + seed * 37 % 3000, seed, seed % 2 == 0);
    for (const int64_t k : {1, 2, 50, 5000}) {
      auto kept = all;
      keep_top_k(kept, k);
      CHECK(tokens_of(kept) == first_by(all, static_cast<double>(k), falling, one));
    }
  }
}

TEST_CASE("-0 and 0 are equals") {
  std::vector<Candidate> candidates = {{-0.0f, 0}, {0.0f, 1}, {-1.0f, 2}};
  keep_top_k(candidates, 1);
  CHECK(tokens_of(candidates) == std::vector<int32_t>{0});
}

TEST_CASE("top_p keeps exactly the tokens that a full sort keeps") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    const auto all = as_weights(random_candidates(300 + seed * 10, seed, seed % 2 == 0));
    const double mass = (0.02 + 0.97 * seed / 200.0) * sum_of_values(all);
    auto kept = all;
    keep_top_p(kept, mass);
    CHECK(tokens_of(kept) == first_by(all, mass, falling, weight));
  }
}

TEST_CASE("top_p keeps the likeliest token however small the mass, and all for a mass beyond all") {
  const auto all = as_weights(random_candidates(100, 1, false));
  auto kept = all;
  keep_top_p(kept, 1e-30);
  CHECK(tokens_of(kept) == first_by(all, 1.0, falling, one));
  kept = all;
  keep_top_p(kept, 1e30);
  CHECK(kept.size() == all.size());
}

TEST_CASE("equal weights are cut at the lower ids") {
  std::vector<Candidate> candidates;
  for (int32_t token = 0; token < 10; ++token) candidates.push_back({0.1f, token});
  keep_top_p(candidates, 0.45 * sum_of_values(candidates));
  CHECK(tokens_of(candidates) == std::vector<int32_t>{0, 1, 2, 3, 4});
}

TEST_CASE("min_p keeps what is at least the bound") {
  std::vector<Candidate> candidates = {{1.0f, 0}, {0.1f, 1}, {0.0999f, 2}, {0.5f, 3}};
  keep_min_p(candidates, 0.1f);
  CHECK(tokens_of(candidates) == std::vector<int32_t>{0, 1, 3});
}

TEST_CASE("typical_p keeps the tokens whose surprise is nearest to the entropy") {
  std::vector<float> scratch;
  for (unsigned seed = 0; seed < 100; ++seed) {
    const auto all = as_weights(random_candidates(200 + seed * 10, seed, false));
    const double total = sum_of_values(all);
    double entropy = 0.0;
    for (const Candidate& c : all) entropy -= weight(c) / total * std::log(weight(c) / total);
    const float p = 0.05f + 0.9f * static_cast<float>(seed) / 100.0f;
    auto kept = all;
    keep_typical(kept, p, scratch);
    const auto distance = [&](const Candidate& c) {
      return std::abs(-std::log(weight(c) / total) - entropy);
    };
    CHECK(tokens_of(kept) == first_by(all, double{p} * total, distance, weight));
  }
}

TEST_CASE("typical_p may drop the likeliest token") {
  // Entropy 1.64: the surprise of the likeliest (0.92) is farther from it than that of the others
  // (2.12).
  std::vector<Candidate> candidates = {{0.4f, 0},  {0.12f, 1}, {0.12f, 2},
                                       {0.12f, 3}, {0.12f, 4}, {0.12f, 5}};
  std::vector<float> scratch;
  keep_typical(candidates, 0.3f, scratch);
  CHECK(tokens_of(candidates) == std::vector<int32_t>{1, 2, 3});
}
