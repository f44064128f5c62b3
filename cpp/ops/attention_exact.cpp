#include "ops/attention_exact.h"

#include <cmath>
#include <limits>

#include "base/dtype.h"

namespace emm::ops {
namespace {

float element(const Matrix& m, Store store, int64_t b, int64_t token, int64_t head, int64_t d) {
  const int64_t at = b * m.strides.b + token * m.strides.t + head * m.strides.h + d;
  switch (store) {
    case Store::kFloat32:
      return static_cast<const float*>(m.data)[at];
    case Store::kFloat16:
      return float16_to_float(static_cast<const uint16_t*>(m.data)[at]);
    case Store::kBFloat16:
      return bfloat16_to_float(static_cast<const uint16_t*>(m.data)[at]);
    case Store::kInt8:
      break;
  }
  const int64_t param =
      b * m.quant_strides.b + token * m.quant_strides.t + head * m.quant_strides.h;
  const int difference = static_cast<const int8_t*>(m.data)[at] - m.zeros[param];
  return static_cast<float>(difference) * m.scales[param];
}

void write(const AttentionProblem& p, int64_t b, int64_t token, int64_t head, int64_t d,
           float value) {
  const int64_t at = b * p.out_strides.b + token * p.out_strides.t + head * p.out_strides.h + d;
  switch (p.out_store) {
    case Store::kFloat16:
      static_cast<uint16_t*>(p.out)[at] = float_to_float16(value);
      break;
    case Store::kBFloat16:
      static_cast<uint16_t*>(p.out)[at] = float_to_bfloat16(value);
      break;
    default:
      static_cast<float*>(p.out)[at] = value;
  }
}

}  // namespace

void attention_row(const AttentionSpan& span, int64_t b, int64_t token, int64_t head) {
  const AttentionProblem& first_run = span.runs[0];
  const int64_t kv_head = head / first_run.group();
  const auto score = [&](const AttentionProblem& p, int64_t key) {
    float sum = 0;
    for (int64_t d = 0; d < p.head_size; ++d) {
      sum += element(p.q, p.q_store, b, token, head, d) * element(p.k, p.store, b, key, kv_head, d);
    }
    return sum * p.scale + (p.mask == nullptr ? 0.0f : p.mask[token * p.mask_stride + key]);
  };
  // Calls visit(run, key) for every key that counts.
  const auto for_each_key = [&](const auto& visit) {
    for (int64_t run = 0; run < span.num_runs; ++run) {
      const AttentionProblem& p = span.runs[run];
      const bool is_causal = p.causal_start != kNotCausal;
      const int64_t own =
          is_causal ? p.causal_start + token : 0;  // the key of the query's own position
      for (int64_t key = 0; key < p.keys && (!is_causal || key <= own); ++key) {
        const bool is_old = is_causal && p.window > 0 && key <= own - p.window;
        const bool is_masked = p.mask != nullptr && p.mask[token * p.mask_stride + key] ==
                                                        -std::numeric_limits<float>::infinity();
        if (!is_old && !is_masked) visit(p, key);
      }
    }
  };
  float highest = -std::numeric_limits<float>::infinity();
  for_each_key([&](const AttentionProblem& p, int64_t key) {
    const float s = score(p, key);
    highest = s > highest ? s : highest;
  });
  if (highest == -std::numeric_limits<float>::infinity()) {
    highest = 0;
  }
  // A few columns at a time, so that no memory is needed and the scores are not recomputed for each
  // of them.
  constexpr int64_t kColumns = 64;
  const int64_t head_size = first_run.head_size;
  for (int64_t first = 0; first < head_size; first += kColumns) {
    const int64_t columns = head_size - first < kColumns ? head_size - first : kColumns;
    float sums[kColumns] = {};
    float total = 0;
    for_each_key([&](const AttentionProblem& p, int64_t key) {
      const float weight = std::exp(score(p, key) - highest);
      total += weight;
      for (int64_t d = 0; d < columns; ++d) {
        sums[d] += weight * element(p.v, p.store, b, key, kv_head, first + d);
      }
    });
    for (int64_t d = 0; d < columns; ++d) {
      write(first_run, b, token, head, first + d, total == 0 ? 0.0f : sums[d] / total);
    }
  }
}

}  // namespace emm::ops
