#include "ops/cross_attend.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <new>
#include <vector>

#include <executorch/runtime/core/event_tracer_hooks.h>

#include "ops/attention.h"
#include "ops/kv_cache.h"

namespace emm::ops {
namespace {

using executorch::runtime::internal::EventTracerProfileOpScope;

constexpr const char* kAttend = "executorch_mm::cross_attend";
constexpr const char* kWeights = "executorch_mm::cross_weights";

bool is_floats(const Tensor& tensor) {
  return tensor.dim() == 4 && tensor.size(0) == 1 && tensor.scalar_type() == ScalarType::Float &&
         is_plain(tensor);
}

bool check(Context& ctx, const char* op, const Tensor& q, const Tensor& keys, const Tensor& values,
           const Tensor& out, double scale) {
  if (out.scalar_type() == ScalarType::Float && is_floats(q) && is_floats(keys) &&
      same_shape(keys, values) && is_floats(values) && keys.size(1) > 0 &&
      keys.size(2) == q.size(2) && keys.size(3) == q.size(3) && std::isfinite(scale))
    return true;
  fail(ctx,
       "%s: expected contiguous query Float[1, S, H, D], keys and values Float[1, T, H, D], a "
       "finite scale and an output Float, got %s, %s, %s, %g",
       op, TensorText(q).c_str(), TensorText(keys).c_str(), TensorText(values).c_str(), scale);
  return false;
}

Strides strides_of(const Tensor& tensor) {
  return {0, tensor.size(2) * tensor.size(3), tensor.size(3)};
}

// The place among a sequence's sources of what the program was given; their number if it is none.
size_t place_of(const std::vector<KvSource>& sources, const Tensor& tensor) {
  size_t place = 0;
  while (place < sources.size() && sources[place].data != tensor.const_data_ptr()) ++place;
  return place;
}

struct Call {
  const Tensor* q;
  const Tensor* keys;
  const Tensor* values;
  double scale;
  const Tensor* out;
};

AttentionProblem problem_of(const Call& c, int64_t first, int64_t num_tokens) {
  AttentionProblem p;
  p.batch = 1;
  p.tokens = num_tokens;
  p.q_heads = p.kv_heads = c.q->size(2);
  p.head_size = c.q->size(3);
  p.scale = static_cast<float>(c.scale);
  const Strides strides = strides_of(*c.q);
  p.q.strides = p.k.strides = p.v.strides = p.out_strides = strides;
  p.q.data = c.q->const_data_ptr<float>() + first * strides.t;
  p.out = c.out->mutable_data_ptr<float>() + first * strides.t;
  p.k.data = c.keys->const_data_ptr();
  p.v.data = c.values->const_data_ptr();
  p.keys = c.keys->size(1);
  return p;
}

// Of several sequences, each with sources of its own.
bool is_shared_step() {
  const KvCache* cache = KvCacheScope::current();
  return cache != nullptr && !cache->step().empty() && cache->step()[0].sources != nullptr;
}

void run(Context& ctx, const Call& c) {
  if (!check(ctx, kAttend, *c.q, *c.keys, *c.values, *c.out, c.scale)) return;
  const int64_t sizes[] = {1, c.q->size(1), c.q->size(2), c.q->size(3)};
  if (!resize_output(ctx, kAttend, *c.out, sizes, 4) || c.q->numel() == 0) return;
  std::vector<AttentionProblem> problems;
  if (!is_shared_step()) {
    problems.push_back(problem_of(c, 0, c.q->size(1)));
  } else {
    const std::vector<KvSpan>& step = KvCacheScope::current()->step();
    const size_t key = place_of(*step[0].sources, *c.keys);
    const size_t value = place_of(*step[0].sources, *c.values);
    int64_t first = 0;
    for (const KvSpan& span : step) {
      if (key >= span.sources->size() || value >= span.sources->size() ||
          span.num_tokens > c.q->size(1) - first)
        break;
      AttentionProblem p = problem_of(c, first, span.num_tokens);
      p.k.data = (*span.sources)[key].data;
      p.v.data = (*span.sources)[value].data;
      p.keys = (*span.sources)[key].rows;
      problems.push_back(p);
      first += span.num_tokens;
    }
    if (first != c.q->size(1)) {
      fail(ctx,
           "%s: expected keys and values as the program is given them and a token of each of the "
           "step's, got %s for query %s",
           kAttend, TensorText(*c.keys).c_str(), TensorText(*c.q).c_str());
      return;
    }
  }
  std::vector<AttentionSpan> spans;
  for (const AttentionProblem& problem : problems) spans.push_back({&problem, 1});
  if (!attention(spans.data(), static_cast<int64_t>(spans.size())))
    fail(ctx, "%s: expected memory for the scratch buffers of query %s, got none", kAttend,
         TensorText(*c.q).c_str());
}

void weigh(const Tensor& q, const Tensor& keys, int64_t head, float scale, float* out) {
  const Strides strides = strides_of(q);
  const float* query = q.const_data_ptr<float>() + (q.size(1) - 1) * strides.t + head * strides.h;
  const float* key = keys.const_data_ptr<float>() + head * strides.h;
  const int64_t rows = keys.size(1);
  float most = -INFINITY;
  for (int64_t row = 0; row < rows; ++row, key += strides.t) {
    float score = 0;
    for (int64_t i = 0; i < strides.h; ++i) score += query[i] * key[i];
    out[row] = score * scale;
    most = out[row] > most ? out[row] : most;
  }
  float sum = 0;
  for (int64_t row = 0; row < rows; ++row) sum += out[row] = std::exp(out[row] - most);
  for (int64_t row = 0; row < rows; ++row) out[row] /= sum;
}

}  // namespace

// cross_attend.out(q, keys, values, scale, *, out!)
void cross_attend(Context& ctx, Stack stack) {
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kAttend);
  Args args(ctx, stack, kAttend, 5);
  const Call call{args.tensor(0), args.tensor(1), args.tensor(2), args.number(3), args.tensor(4)};
  if (!args.ok()) return;
  try {
    run(ctx, call);
  } catch (const std::bad_alloc&) {
    fail(ctx, "%s: expected memory for query %s, got none", kAttend, TensorText(*call.q).c_str());
  }
}

// cross_weights.out(q, keys, head, scale, *, out!): [1, 1, T], how much the last token looks at
// each key with this head. Zeros in a step of several sequences.
void cross_weights(Context& ctx, Stack stack) {
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kWeights);
  Args args(ctx, stack, kWeights, 5);
  const Tensor *q = args.tensor(0), *keys = args.tensor(1);
  const int64_t head = args.integer(2);
  const double scale = args.number(3);
  const Tensor* out = args.tensor(4);
  if (!args.ok() || !check(ctx, kWeights, *q, *keys, *keys, *out, scale)) return;
  if (head < 0 || head >= q->size(2) || q->numel() == 0) {
    fail(ctx, "%s: expected a head and a query for it, got head %" PRId64 " of query %s", kWeights,
         head, TensorText(*q).c_str());
    return;
  }
  const int64_t sizes[] = {1, 1, keys->size(1)};
  if (!resize_output(ctx, kWeights, *out, sizes, 3)) return;
  float* const weights = out->mutable_data_ptr<float>();
  if (is_shared_step())
    std::fill(weights, weights + keys->size(1), 0.0f);
  else
    weigh(*q, *keys, head, static_cast<float>(scale), weights);
}

}  // namespace emm::ops
