#include "sampling/logit_filters.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "base/dtype.h"

namespace emm {
namespace {

constexpr size_t kNumBuckets = 2048;

// Orders as the float does; -0 and 0 are one number.
uint32_t ordered_bits(float value) {
  const uint32_t bits = float_bits(value + 0.0f);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// Where the candidates, in the order of falling keys, reach an amount: all above `key` are needed,
// and of those with exactly that key as many as `rest` asks for.
struct Cut {
  uint32_t key;
  double rest;
};

template <typename Key, typename Amount>
Cut find_cut(size_t count, double wanted, Key key_of, Amount amount_of) {
  uint32_t low = std::numeric_limits<uint32_t>::max(), high = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t key = key_of(i);
    low = std::min(low, key);
    high = std::max(high, key);
  }
  while (low < high) {
    int shift = 0;
    while ((high - low) >> shift >= kNumBuckets) ++shift;
    std::array<double, kNumBuckets> amounts{};
    for (size_t i = 0; i < count; ++i) {
      const uint32_t key = key_of(i);
      if (key >= low && key <= high) amounts[(key - low) >> shift] += amount_of(i);
    }
    uint32_t bucket = (high - low) >> shift;
    while (bucket > 0 && wanted > amounts[bucket]) wanted -= amounts[bucket--];
    low += bucket << shift;
    high = low + std::min(high - low, (1u << shift) - 1);
  }
  return {low, wanted};
}

template <typename Key, typename Amount>
void keep_until(std::vector<Candidate>& candidates, double wanted, Key key_of, Amount amount_of) {
  Cut cut = find_cut(candidates.size(), wanted, key_of, amount_of);
  size_t kept = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const uint32_t key = key_of(i);
    const bool is_needed = key > cut.key || (key == cut.key && cut.rest > 0.0);
    if (key == cut.key) cut.rest -= amount_of(i);
    candidates[kept] = candidates[i];
    kept += is_needed ? 1 : 0;
  }
  candidates.resize(kept);
}

}  // namespace

void keep_top_k(std::vector<Candidate>& candidates, int64_t k) {
  if (static_cast<size_t>(k) >= candidates.size()) return;
  keep_until(
      candidates, static_cast<double>(k),
      [&](size_t i) { return ordered_bits(candidates[i].value); }, [](size_t) { return 1.0; });
}

void keep_top_p(std::vector<Candidate>& candidates, double mass) {
  keep_until(
      candidates, mass, [&](size_t i) { return float_bits(candidates[i].value); },
      [&](size_t i) { return static_cast<double>(candidates[i].value); });
}

void keep_min_p(std::vector<Candidate>& candidates, float least) {
  const auto is_less = [least](const Candidate& candidate) { return candidate.value < least; };
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(), is_less), candidates.end());
}

void keep_typical(std::vector<Candidate>& candidates, float p, std::vector<float>& distances) {
  const double total = sum_of_values(candidates);
  distances.resize(candidates.size());
  double expected = 0.0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const float surprise = -std::log(candidates[i].value);  // but for a constant
    distances[i] = surprise;
    expected += static_cast<double>(candidates[i].value) * static_cast<double>(surprise);
  }
  const auto middle = static_cast<float>(expected / total);
  for (float& distance : distances) distance = std::abs(distance - middle);
  keep_until(
      candidates, static_cast<double>(p) * total,
      [&](size_t i) { return ~float_bits(distances[i]); },
      [&](size_t i) { return static_cast<double>(candidates[i].value); });
}

double sum_of_values(const std::vector<Candidate>& candidates) {
  std::array<double, 4> lanes{};
  for (size_t i = 0; i < candidates.size(); ++i)
    lanes[i % lanes.size()] += static_cast<double>(candidates[i].value);
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

}  // namespace emm
