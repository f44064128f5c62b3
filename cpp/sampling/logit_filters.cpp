#include "sampling/logit_filters.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "base/dtype.h"

namespace emm {
namespace {

bool likelier(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

// Weights lie in (0, 1]; one bucket per quarter octave, the likeliest first. Anything below 2^-32
// of the likeliest shares the last bucket.
constexpr size_t kNumBuckets = 129;

size_t bucket_of(float weight) {
  // The two leading mantissa bits make a quarter octave; 127 << 2 is the exponent of 1.0.
  const int32_t key = static_cast<int32_t>(float_bits(weight) >> 21);
  const int32_t index = (127 << 2) - key;
  return static_cast<size_t>(std::clamp<int32_t>(index, 0, static_cast<int32_t>(kNumBuckets) - 1));
}

}  // namespace

void keep_top_k(std::vector<Candidate>& candidates, int32_t k) {
  const auto count = static_cast<size_t>(k);
  if (count >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + (k - 1), candidates.end(), likelier);
  candidates.resize(count);
}

void softmax_weights(std::vector<Candidate>& candidates, float temperature) {
  float largest = -INFINITY;
  for (const Candidate& candidate : candidates) largest = std::max(largest, candidate.value);
  size_t kept = 0;
  for (const Candidate& candidate : candidates) {
    const float weight = std::exp((candidate.value - largest) / temperature);
    if (weight > 0.0f) candidates[kept++] = {weight, candidate.token};
  }
  candidates.resize(kept);
}

void keep_top_p(std::vector<Candidate>& candidates, float p) {
  std::array<double, kNumBuckets> mass{};
  double total = 0.0;
  for (const Candidate& candidate : candidates) mass[bucket_of(candidate.value)] += candidate.value;
  for (const double bucket : mass) total += bucket;

  // Whole buckets are kept until the next one would reach p; only that one is sorted.
  const double wanted = static_cast<double>(p) * total;
  double kept_mass = 0.0;
  size_t border = 0;
  while (border + 1 < kNumBuckets && kept_mass + mass[border] < wanted) kept_mass += mass[border++];

  const auto middle =
      std::partition(candidates.begin(), candidates.end(),
                     [border](const Candidate& c) { return bucket_of(c.value) < border; });
  const auto end = std::partition(middle, candidates.end(), [border](const Candidate& c) {
    return bucket_of(c.value) == border;
  });
  std::sort(middle, end, likelier);
  auto last = middle;
  while (last != end && (kept_mass < wanted || last == candidates.begin()))
    kept_mass += (last++)->value;
  candidates.erase(last, candidates.end());
}

}  // namespace emm
