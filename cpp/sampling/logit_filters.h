// Filters that narrow a next-token distribution. Pure functions over a list of candidates, applied
// in transformers' order: temperature, top_k, top_p.
#pragma once

#include <cstdint>
#include <vector>

namespace emm {

struct Candidate {
  float value;    // a logit before, an unnormalised probability after the softmax step
  int32_t token;  // its id
};

// Keeps the k candidates of largest value (of equals, the lower token id).
void keep_top_k(std::vector<Candidate>& candidates, int32_t k);

// Replaces logits by exp((logit - max) / temperature) and drops what underflows to zero.
void softmax_weights(std::vector<Candidate>& candidates, float temperature);

// Keeps the smallest set of likeliest candidates whose share of the whole reaches p; at least one
// stays. Values are unnormalised probabilities.
void keep_top_p(std::vector<Candidate>& candidates, float p);

}  // namespace emm
