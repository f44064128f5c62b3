// Filters that narrow a next-token distribution: pure functions over a list of candidates in the
// order of their ids, which they keep. Nothing is sorted: a cut is found by counting into buckets,
// so the time is linear in the candidates, and of equals the lower ids stay, on every platform.
#pragma once

#include <cstdint>
#include <vector>

namespace emm {

struct Candidate {
  float value;    // a logit, or an unnormalized probability ("weight")
  int32_t token;  // its id
};

// Keeps the k candidates of largest value, k >= 1.
void keep_top_k(std::vector<Candidate>& candidates, int64_t k);

// Keeps the likeliest candidates that together reach `mass`; at least one stays. Values are
// weights.
void keep_top_p(std::vector<Candidate>& candidates, double mass);

// Keeps the candidates whose weight is at least `least`.
void keep_min_p(std::vector<Candidate>& candidates, float least);

// Keeps the candidates whose surprise -ln(p) is nearest to the expected one until they reach the
// share `p` of the whole; at least one stays. Values are weights > 0. `distances` is scratch.
void keep_typical(std::vector<Candidate>& candidates, float p, std::vector<float>& distances);

// The sum of all values.
double sum_of_values(const std::vector<Candidate>& candidates);

}  // namespace emm
