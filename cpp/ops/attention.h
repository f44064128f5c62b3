// Scaled dot-product attention over a key/value cache, described without any type of the runtime's,
// so that the kernels compiled per instruction set share nothing with the rest of the program but
// this header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emm::ops {

// How the elements of query, key and value are stored. kInt8 carries scales and zero points.
enum class Store : uint8_t { kFloat32, kFloat16, kBFloat16, kInt8 };

// Where the element [batch, token, head, 0] lies: data + batch * b + token * t + head * h, in
// elements. The last dimension is always dense.
struct Strides {
  int64_t b = 0;
  int64_t t = 0;
  int64_t h = 0;
};

struct Matrix {
  const void* data = nullptr;
  Strides strides;
  // Only for kInt8: one scale and one zero point for each [batch, token, head]; real = (stored -
  // zero) * scale.
  const float* scales = nullptr;
  const int8_t* zeros = nullptr;
  Strides quant_strides;
};

constexpr int64_t kNotCausal = INT64_MIN;

struct AttentionProblem {
  Matrix q, k, v;
  Store store = Store::kFloat32;    // of keys and values
  Store q_store = Store::kFloat32;  // of queries
  void* out = nullptr;
  Store out_store = Store::kFloat32;
  Strides out_strides;

  int64_t batch = 0;
  int64_t tokens = 0;  // query tokens
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_size = 0;
  int64_t keys = 0;  // key positions that any query may attend to
  float scale = 1;
  // Query token i attends to key j only when j <= causal_start + i. Negative where the first keys
  // are newer than the first query.
  int64_t causal_start = kNotCausal;
  int64_t window = 0;           // and, unless 0, only when j > causal_start + i - window
  const float* mask = nullptr;  // [tokens, keys], added to the scaled scores; -inf excludes the key
  int64_t mask_stride = 0;

  int64_t group() const { return q_heads / kv_heads; }  // query heads that share one key/value head
};

// Queries whose keys lie in several places: the runs differ in k, v, keys and causal_start only.
struct AttentionSpan {
  const AttentionProblem* runs = nullptr;
  int64_t num_runs = 0;
};

// Computes every output row, on the SDK's thread pool where that pays. Excluded keys (by the causal
// limit, or a mask of -inf) play no part whatever they hold, and a row with no key left is all
// zeros. A NaN in what a row does use, or a score of +inf, makes its outputs NaN. The result does
// not depend on the number of threads. Returns false where the scratch memory could not be had.
bool attention(const AttentionProblem& problem);

// The same for several spans at once, which share the threads; none of them is empty.
bool attention(const AttentionSpan* spans, int64_t num_spans);

}  // namespace emm::ops
