#include "ops/kv_attend.h"

#include <cinttypes>
#include <cmath>
#include <new>
#include <string>
#include <vector>

#include <executorch/runtime/core/event_tracer_hooks.h>

#include "base/dtype.h"
#include "ops/attention.h"
#include "ops/kv_cache.h"

namespace emm::ops {
namespace {

using executorch::runtime::internal::EventTracerProfileOpScope;

constexpr const char* kOp = "kvcache::update_and_attend";

struct Call {
  const Tensor* q;         // [B, Hq, S, D]
  const Tensor* k;         // [B, Hkv, S, D]
  const Tensor* v;         // [B, Hkv, S, Dv]
  const Tensor* position;  // [S, 1], or [B * S, 1]
  int64_t layer;
  double scale;
  int64_t out_dtype;
  const Tensor* out;  // [B, Hq, S, Dv]

  int64_t batch() const { return q->size(0); }
  int64_t tokens() const { return q->size(2); }  // of one entry of the batch
};

bool to_store(ScalarType type, Store* store) {
  switch (type) {
    case ScalarType::Float:
      *store = Store::kFloat32;
      return true;
    case ScalarType::Half:
      *store = Store::kFloat16;
      return true;
    case ScalarType::BFloat16:
      *store = Store::kBFloat16;
      return true;
    default:
      return false;
  }
}

Strides strides_of(const Tensor& tensor) {  // of a contiguous [B, H, S, D]
  const int64_t heads = tensor.size(2) * tensor.size(3);
  return {heads * tensor.size(1), tensor.size(3), heads};
}

bool check_tensors(Context& ctx, const Call& c) {
  const Tensor &q = *c.q, &k = *c.k, &v = *c.v;
  const bool fits = q.dim() == 4 && k.dim() == 4 && v.dim() == 4 && q.size(0) == k.size(0) &&
                    q.size(0) == v.size(0) && q.size(2) == k.size(2) && q.size(2) == v.size(2) &&
                    k.size(1) == v.size(1) && q.size(3) == k.size(3) && k.size(1) > 0 &&
                    q.size(1) % k.size(1) == 0;
  if (!fits) {
    fail(ctx,
         "%s: expected query [B, Hq, S, D], key [B, Hkv, S, D], value [B, Hkv, S, Dv], Hq a "
         "multiple of Hkv, got %s, %s, %s",
         kOp, TensorText(q).c_str(), TensorText(k).c_str(), TensorText(v).c_str());
    return false;
  }
  Store store = Store::kFloat32;
  if (!to_store(q.scalar_type(), &store) || !to_store(k.scalar_type(), &store) ||
      !to_store(v.scalar_type(), &store) || !is_plain(q) || !is_plain(k) || !is_plain(v)) {
    fail(ctx, "%s: expected contiguous Float, Half or BFloat16, got query %s, key %s, value %s",
         kOp, TensorText(q).c_str(), TensorText(k).c_str(), TensorText(v).c_str());
    return false;
  }
  if (!to_store(c.out->scalar_type(), &store) ||
      static_cast<int64_t>(c.out->scalar_type()) != c.out_dtype) {
    fail(ctx,
         "%s: expected an output Float, Half or BFloat16 as out_dtype %" PRId64 " says, got %s",
         kOp, c.out_dtype, TensorText(*c.out).c_str());
    return false;
  }
  const Tensor& position = *c.position;
  const int64_t count = position.numel();
  const bool is_index =
      position.scalar_type() == ScalarType::Long || position.scalar_type() == ScalarType::Int;
  const bool has_one = position.dim() == 1 || (position.dim() == 2 && position.size(1) == 1);
  if (!is_index || !has_one || !is_plain(position) ||
      (count != c.tokens() && count != c.batch() * c.tokens())) {
    fail(ctx, "%s: expected a position for each token, Long[%" PRId64 ", 1], got %s for query %s",
         kOp, c.tokens(), TensorText(position).c_str(), TensorText(q).c_str());
    return false;
  }
  if (!std::isfinite(c.scale)) {
    fail(ctx, "%s: expected a finite scale, got %g", kOp, c.scale);
    return false;
  }
  return true;
}

bool check_layer(Context& ctx, const Call& c, const KvCacheShape& shape) {
  const auto num_layers = static_cast<int64_t>(shape.layers.size());
  const KvLayer layer =
      c.layer >= 0 && c.layer < num_layers ? shape.layers[static_cast<size_t>(c.layer)] : KvLayer{};
  if (layer.heads == c.k->size(1) && layer.key_size == c.k->size(3) &&
      layer.value_size == c.v->size(3))
    return true;
  fail(ctx,
       "%s: expected for layer %" PRId64 " of the cache %" PRId64 " heads of %" PRId64
       " and %" PRId64 ", got key %s, value %s",
       kOp, c.layer, layer.heads, layer.key_size, layer.value_size, TensorText(*c.k).c_str(),
       TensorText(*c.v).c_str());
  return false;
}

std::vector<int64_t> positions_of(const Call& c) {
  const int64_t count = c.position->numel();
  std::vector<int64_t> positions(static_cast<size_t>(c.batch() * c.tokens()));
  const void* data = c.position->const_data_ptr();
  const bool is_long = c.position->scalar_type() == ScalarType::Long;
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto at = static_cast<int64_t>(i) % count;
    positions[i] =
        is_long ? static_cast<const int64_t*>(data)[at] : static_cast<const int32_t*>(data)[at];
  }
  return positions;
}

// Heads that are smaller than the cache's rows (keys and values of different sizes) take a detour
// through memory of the rows' size.
struct Padding {
  std::vector<float> q, out;
};

const char* offset_in(const Tensor& tensor, int64_t elements) {
  return static_cast<const char*>(tensor.const_data_ptr()) + elements * tensor.element_size();
}

float float_at(const Tensor& tensor, int64_t at) {
  const void* data = tensor.const_data_ptr();
  switch (tensor.scalar_type()) {
    case ScalarType::Half:
      return float16_to_float(static_cast<const uint16_t*>(data)[at]);
    case ScalarType::BFloat16:
      return bfloat16_to_float(static_cast<const uint16_t*>(data)[at]);
    default:
      return static_cast<const float*>(data)[at];
  }
}

void set_float(const Tensor& tensor, int64_t at, float value) {
  void* data = tensor.mutable_data_ptr();
  switch (tensor.scalar_type()) {
    case ScalarType::Half:
      static_cast<uint16_t*>(data)[at] = float_to_float16(value);
      break;
    case ScalarType::BFloat16:
      static_cast<uint16_t*>(data)[at] = float_to_bfloat16(value);
      break;
    default:
      static_cast<float*>(data)[at] = value;
  }
}

class Attend {
 public:
  Attend(const Call& call, KvCache& cache)
      : c_(call),
        cache_(cache),
        layer_(cache.shape().layers[static_cast<size_t>(call.layer)]),
        is_padded_(layer_.key_size != layer_.value_size) {}

  // False where there is no memory.
  bool run() {
    if (is_padded_) pad();
    int64_t first = 0;  // token of the step
    for (const KvSpan& span : cache_.step()) {
      cache_.runs(c_.layer, span, &runs_);
      write(span, first);
      describe(span, first);
      first += span.num_tokens;
    }
    std::vector<AttentionSpan> spans;
    size_t at = 0;
    for (const size_t count : num_runs_) {
      spans.push_back({&problems_[at], static_cast<int64_t>(count)});
      at += count;
    }
    if (!attention(spans.data(), static_cast<int64_t>(spans.size()))) return false;
    if (is_padded_) strip();
    return true;
  }

 private:
  // The rows of the tokens of a span are the last ones of its last run.
  void write(const KvSpan& span, int64_t first) {
    const KvRun& run = runs_.back();
    Store k_store = Store::kFloat32;
    Store v_store = Store::kFloat32;
    to_store(c_.k->scalar_type(), &k_store);
    to_store(c_.v->scalar_type(), &v_store);
    const Strides k = strides_of(*c_.k);
    const Strides v = strides_of(*c_.v);
    const int64_t b = first / c_.tokens();
    for (int64_t i = 0; i < span.num_tokens; ++i) {
      const int64_t row = run.row + run.count - span.num_tokens + i;
      const int64_t t = first % c_.tokens() + i;
      for (int64_t h = 0; h < layer_.heads; ++h) {
        run.pair->keys.write(row, h, offset_in(*c_.k, b * k.b + t * k.t + h * k.h), k_store,
                             layer_.key_size);
        run.pair->values.write(row, h, offset_in(*c_.v, b * v.b + t * v.t + h * v.h), v_store,
                               layer_.value_size);
      }
    }
  }

  void describe(const KvSpan& span, int64_t first) {
    AttentionProblem p;
    p.store = cache_.shape().store;
    p.batch = 1;
    p.tokens = span.num_tokens;
    p.q_heads = c_.q->size(1);
    p.kv_heads = layer_.heads;
    p.head_size = layer_.size();
    p.scale = static_cast<float>(c_.scale);
    p.window = layer_.window;
    const int64_t b = first / c_.tokens();
    const int64_t t = first % c_.tokens();
    if (is_padded_) {
      p.q.strides = p.out_strides = padded_strides();
      const int64_t at = b * p.q.strides.b + t * p.q.strides.t;
      p.q.data = &padding_.q[static_cast<size_t>(at)];
      p.out = &padding_.out[static_cast<size_t>(at)];
    } else {
      to_store(c_.q->scalar_type(), &p.q_store);
      to_store(c_.out->scalar_type(), &p.out_store);
      p.q.strides = strides_of(*c_.q);
      p.out_strides = strides_of(*c_.out);
      p.q.data = offset_in(*c_.q, b * p.q.strides.b + t * p.q.strides.t);
      p.out = static_cast<char*>(c_.out->mutable_data_ptr()) +
              (b * p.out_strides.b + t * p.out_strides.t) * c_.out->element_size();
    }
    const int64_t position = runs_.back().position + runs_.back().count - span.num_tokens;
    for (const KvRun& run : runs_) {
      p.k = run.pair->keys.matrix(run.row);
      p.v = run.pair->values.matrix(run.row);
      p.keys = run.count;
      p.causal_start = position - run.position;
      problems_.push_back(p);
    }
    num_runs_.push_back(runs_.size());
  }

  Strides padded_strides() const {
    const int64_t heads = c_.tokens() * layer_.size();
    return {heads * c_.q->size(1), layer_.size(), heads};
  }
  void pad() {
    const int64_t rows = c_.batch() * c_.q->size(1) * c_.tokens();
    padding_.q.assign(static_cast<size_t>(rows * layer_.size()), 0.0f);
    padding_.out.assign(padding_.q.size(), 0.0f);
    for (int64_t i = 0; i < rows * layer_.key_size; ++i) {
      const int64_t at = i / layer_.key_size * layer_.size() + i % layer_.key_size;
      padding_.q[static_cast<size_t>(at)] = float_at(*c_.q, i);
    }
  }
  void strip() {
    for (int64_t i = 0; i < c_.out->numel(); ++i) {
      const int64_t at = i / layer_.value_size * layer_.size() + i % layer_.value_size;
      set_float(*c_.out, i, padding_.out[static_cast<size_t>(at)]);
    }
  }

  const Call& c_;
  KvCache& cache_;
  const KvLayer layer_;
  const bool is_padded_;
  Padding padding_;
  std::vector<KvRun> runs_;
  std::vector<AttentionProblem> problems_;
  std::vector<size_t> num_runs_;  // of each span
};

// A span lies in one entry of the batch.
bool check_step(Context& ctx, const Call& c, const KvCache& cache) {
  int64_t first = 0;
  for (const KvSpan& span : cache.step()) {
    if (span.num_tokens > c.tokens() - first % c.tokens()) {
      fail(ctx,
           "%s: expected at most %" PRId64 " tokens of the next sequence, got %" PRId64
           " for query %s",
           kOp, c.tokens() - first % c.tokens(), span.num_tokens, TensorText(*c.q).c_str());
      return false;
    }
    first += span.num_tokens;
  }
  return true;
}

void run(Context& ctx, const Call& c) {
  if (!check_tensors(ctx, c)) return;
  KvCache* cache = KvCacheScope::current();
  if (cache == nullptr) {
    fail(ctx, "%s: this program keeps its cache outside, and was run without one", kOp);
    return;
  }
  if (!check_layer(ctx, c, cache->shape())) return;
  const int64_t sizes[] = {c.batch(), c.q->size(1), c.tokens(), c.v->size(3)};
  if (!resize_output(ctx, kOp, *c.out, sizes, 4) || c.q->numel() == 0) return;
  if (!check_step(ctx, c, *cache)) return;
  const std::string wrong = cache->place(positions_of(c));
  if (!wrong.empty()) {
    fail(ctx, "%s: %s", kOp, wrong.c_str());
    return;
  }
  if (!Attend(c, *cache).run())
    fail(ctx, "%s: expected memory for scratch buffers of query %s, got none", kOp,
         TensorText(*c.q).c_str());
}

}  // namespace

// update_and_attend.out(q, k, v, position, layer_id, scale, out_dtype, *, out!)
void update_and_attend(Context& ctx, Stack stack) {
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 8);
  const Call call{args.tensor(0),  args.tensor(1), args.tensor(2),  args.tensor(3),
                  args.integer(4), args.number(5), args.integer(6), args.tensor(7)};
  if (!args.ok()) return;
  try {
    run(ctx, call);
  } catch (const std::bad_alloc&) {
    fail(ctx, "%s: expected memory for the cache at query %s, got none", kOp,
         TensorText(*call.q).c_str());
  }
}

}  // namespace emm::ops
