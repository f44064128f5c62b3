// Passes over a whole row of logits, written so that compilers vectorise them: fixed numbers of
// independent lanes, no calls, no branches. NaN counts as -inf everywhere.
#pragma once

#include <cstdint>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

constexpr int64_t kRowBlock = 256;  // values per block of the two functions below

inline int64_t num_row_blocks(int64_t size) { return (size + kRowBlock - 1) / kRowBlock; }

// The row as float32: the view's own memory where it already is, otherwise `scratch`.
const float* as_float32(const TensorView& logits, std::vector<float>& scratch);

// Index of the largest value, the first of equals; -1 when nothing is above -inf.
int32_t argmax(const float* row, int64_t size);

// maxima[b]: the largest value of block b. Returns the largest of all.
float block_maxima(const float* row, int64_t size, float* maxima);

// exp((value - largest) / temperature) for value <= largest, within 3e-7 of it; 0 below 2^-126.
float softmax_weight(float value, float largest, float temperature);

// The same for a row. sums[b]: the sum of block b. Returns the sum of all.
double softmax_weights(const float* row, int64_t size, float largest, float temperature,
                       float* weights, double* sums);

// The logarithm of the sum of exp(value); -inf where nothing is above -inf.
double log_sum_exp(const float* row, int64_t size);

// How typical each weight's surprise -ln(p) is: keys[i] is its distance from the expected one,
// negative; -inf where the weight is 0. The weights are those of softmax_weights(), `total` their
// sum.
void typicality(const float* row, int64_t size, float largest, float temperature,
                const float* weights, double total, float* keys);

// A place in the order of falling keys; of equal ones the lower index comes first.
struct Rank {
  float key;
  int64_t index;

  bool is_after(float other, int64_t other_index) const {
    return other > key || (other == key && other_index < index);
  }
};

// Sums of the weights whose keys come before `rank`: sums[b] of block b, and of all as the result.
// The weights may be their own keys.
double sums_before(Rank rank, const float* keys, const float* weights, int64_t size, double* sums);

}  // namespace emm
