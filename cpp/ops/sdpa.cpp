#include "ops/sdpa.h"

#include <cinttypes>
#include <cmath>

#include <executorch/runtime/core/event_tracer_hooks.h>

#include "ops/attention.h"
#include "ops/update_cache.h"

namespace emm::ops {
namespace {

using executorch::runtime::internal::EventTracerProfileOpScope;

struct SdpaArgs {
  const char* op;
  const Tensor* q;
  const Tensor* k;
  const Tensor* v;
  int64_t start_pos;
  const Tensor* mask;  // may be null
  bool is_causal;
  double scale;  // NaN: 1 / sqrt(head size)
  const Tensor* out;
  // The int8 form only: zero points and scales of q, k and v, in the order of the schema.
  const Tensor* quant[6] = {};
  bool sequence_at_dim_2 = false;
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
    case ScalarType::Char:
      *store = Store::kInt8;
      return true;
    default:
      return false;
  }
}

// Strides of a contiguous [B, S, H, D] tensor, or of [B, H, S, D].
Strides strides_of(const Tensor& tensor, bool sequence_at_dim_2) {
  const int64_t inner = tensor.size(3);
  const int64_t second = inner * tensor.size(2);
  Strides strides;
  strides.b = second * tensor.size(1);
  strides.t = sequence_at_dim_2 ? inner : second;
  strides.h = sequence_at_dim_2 ? second : inner;
  return strides;
}

Matrix matrix_of(const Tensor& tensor, bool sequence_at_dim_2) {
  Matrix matrix;
  matrix.data = tensor.const_data_ptr();
  matrix.strides = strides_of(tensor, sequence_at_dim_2);
  return matrix;
}

bool check_tensors(Context& ctx, const SdpaArgs& a, Store* store) {
  const Tensor &q = *a.q, &k = *a.k, &v = *a.v;
  const int seq = a.sequence_at_dim_2 ? 2 : 1;
  const int head = 3 - seq;
  const bool fits = q.dim() == 4 && k.dim() == 4 && v.dim() == 4 && same_shape(k, v) &&
                    q.size(0) == k.size(0) && q.size(3) == k.size(3) && k.size(head) > 0 &&
                    q.size(head) % k.size(head) == 0;
  if (!fits) {
    fail(ctx,
         "%s: expected query %s, key and value %s, Hq a multiple of Hkv, got query %s, key %s, "
         "value %s",
         a.op, seq == 1 ? "[B, S, Hq, D]" : "[B, Hq, S, D]",
         seq == 1 ? "[B, Smax, Hkv, D]" : "[B, Hkv, Smax, D]", TensorText(q).c_str(),
         TensorText(k).c_str(), TensorText(v).c_str());
    return false;
  }
  const bool quantized = a.quant[0] != nullptr;
  const bool known = to_store(q.scalar_type(), store) && (*store != Store::kInt8 || quantized);
  if (!known || k.scalar_type() != q.scalar_type() || v.scalar_type() != q.scalar_type()) {
    fail(ctx,
         "%s: expected query, key and value of one dtype out of Float, Half, BFloat16%s, got query "
         "%s, key %s, "
         "value %s",
         a.op, quantized ? " and Char" : "", TensorText(q).c_str(), TensorText(k).c_str(),
         TensorText(v).c_str());
    return false;
  }
  if (!is_plain(q) || !is_plain(k) || !is_plain(v)) {
    fail(ctx, "%s: expected contiguous tensors with memory, got query %s, key %s, value %s", a.op,
         TensorText(q).c_str(), TensorText(k).c_str(), TensorText(v).c_str());
    return false;
  }
  const ScalarType out_type = a.out->scalar_type();
  const bool out_fits = *store == Store::kInt8
                            ? out_type == ScalarType::Float || out_type == ScalarType::Half ||
                                  out_type == ScalarType::BFloat16
                            : out_type == q.scalar_type();
  if (!out_fits) {
    fail(ctx, "%s: expected an output of dtype %s, got output %s for query %s", a.op,
         *store == Store::kInt8 ? "Float, Half or BFloat16" : "the query's",
         TensorText(*a.out).c_str(), TensorText(q).c_str());
    return false;
  }
  return true;
}

bool check_quant(Context& ctx, const SdpaArgs& a, const char* name, const Tensor& data,
                 const Tensor& zeros, const Tensor& scales) {
  const auto fits = [&](const Tensor& t, ScalarType type) {
    return t.dim() == 4 && t.scalar_type() == type && t.size(0) == data.size(0) &&
           t.size(1) == data.size(1) && t.size(2) == data.size(2) && t.size(3) == 1 && is_plain(t);
  };
  if (!fits(zeros, ScalarType::Char) || !fits(scales, ScalarType::Float)) {
    fail(ctx,
         "%s: expected for %s %s contiguous zero points Char and scales Float of its shape with "
         "last dimension 1,"
         " got %s and %s",
         a.op, name, TensorText(data).c_str(), TensorText(zeros).c_str(),
         TensorText(scales).c_str());
    return false;
  }
  return true;
}

// Which keys may be attended to: the whole cache under a mask, else the first start_pos + S of it.
bool set_keys(Context& ctx, const SdpaArgs& a, int64_t capacity, AttentionProblem* p) {
  const bool has_mask = a.mask != nullptr && a.mask->numel() > 0;
  if (a.mask != nullptr) {
    const Tensor& mask = *a.mask;
    if (a.is_causal) {
      fail(ctx, "%s: expected either a mask or is_causal, got both, with mask %s", a.op,
           TensorText(mask).c_str());
      return false;
    }
    if (mask.dim() != 2 || mask.scalar_type() != ScalarType::Float || mask.size(0) != p->tokens ||
        mask.size(1) != capacity || !is_plain(mask)) {
      fail(ctx,
           "%s: expected a contiguous mask Float[%" PRId64 ", %" PRId64
           "], got mask %s for query %s, key %s",
           a.op, p->tokens, capacity, TensorText(mask).c_str(), TensorText(*a.q).c_str(),
           TensorText(*a.k).c_str());
      return false;
    }
    p->keys = capacity;
    p->mask = has_mask ? static_cast<const float*>(mask.const_data_ptr()) : nullptr;
    p->mask_stride = capacity;
    return true;
  }
  if (a.start_pos < 0 || a.start_pos > capacity || p->tokens > capacity - a.start_pos) {
    fail(ctx,
         "%s: expected start_pos >= 0 and start_pos + S <= %" PRId64 ", got start_pos %" PRId64
         " for query %s, key %s",
         a.op, capacity, a.start_pos, TensorText(*a.q).c_str(), TensorText(*a.k).c_str());
    return false;
  }
  p->keys = a.start_pos + p->tokens;
  p->causal_start = a.is_causal ? a.start_pos : kNotCausal;
  return true;
}

// Everything that can be wrong with a call, before anything is written.
bool describe(Context& ctx, const SdpaArgs& a, AttentionProblem* p) {
  if (!check_tensors(ctx, a, &p->store)) {
    return false;
  }
  const int seq = a.sequence_at_dim_2 ? 2 : 1;
  p->q_store = p->store;
  p->batch = a.q->size(0);
  p->tokens = a.q->size(seq);
  p->q_heads = a.q->size(3 - seq);
  p->kv_heads = a.k->size(3 - seq);
  p->head_size = a.q->size(3);
  if (!set_keys(ctx, a, a.k->size(seq), p)) {
    return false;
  }
  Matrix* matrices[] = {&p->q, &p->k, &p->v};
  const Tensor* tensors[] = {a.q, a.k, a.v};
  const char* names[] = {"query", "key", "value"};
  for (int i = 0; i < 3; ++i) {
    *matrices[i] = matrix_of(*tensors[i], a.sequence_at_dim_2);
    if (p->store == Store::kInt8) {
      const Tensor &zeros = *a.quant[2 * i], &scales = *a.quant[2 * i + 1];
      if (!check_quant(ctx, a, names[i], *tensors[i], zeros, scales)) {
        return false;
      }
      matrices[i]->zeros = static_cast<const int8_t*>(zeros.const_data_ptr());
      matrices[i]->scales = static_cast<const float*>(scales.const_data_ptr());
      matrices[i]->quant_strides = strides_of(zeros, a.sequence_at_dim_2);
    }
  }
  const double root = std::sqrt(static_cast<double>(p->head_size));
  p->scale = static_cast<float>(std::isnan(a.scale) ? 1.0 / root : a.scale);
  return true;
}

bool run(Context& ctx, const SdpaArgs& a, AttentionProblem* p) {
  const int64_t sizes[] = {a.q->size(0), a.q->size(1), a.q->size(2), a.q->size(3)};
  if (!resize_output(ctx, a.op, *a.out, sizes, 4)) {
    return false;
  }
  if (a.q->numel() == 0) {
    return true;
  }
  to_store(a.out->scalar_type(), &p->out_store);
  p->out = a.out->mutable_data_ptr();
  p->out_strides = strides_of(*a.out, a.sequence_at_dim_2);
  if (!attention(*p)) {
    fail(ctx, "%s: expected memory for the scratch buffers of query %s, key %s, got none", a.op,
         TensorText(*a.q).c_str(), TensorText(*a.k).c_str());
    return false;
  }
  return true;
}

}  // namespace

// The arguments that custom_sdpa and custom_quantized_sdpa begin with: q, k, v, start_pos, mask?,
// dropout, is_causal, scale?. Dropout is a training matter and plays no part.
SdpaArgs read_args(const char* op, Args& args, size_t out) {
  return {op,
          args.tensor(0),
          args.tensor(1),
          args.tensor(2),
          args.integer(3),
          args.optional_tensor(4),
          args.boolean(6),
          args.optional_number(7, NAN),
          args.tensor(out)};
}

// custom_sdpa.out(q, k, v, start_pos, mask?, dropout, is_causal, scale?, *, out!)
void custom_sdpa(Context& ctx, Stack stack) {
  constexpr const char* kOp = "llama::custom_sdpa";
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 9);
  const SdpaArgs a = read_args(kOp, args, 8);
  AttentionProblem problem;
  if (args.ok() && describe(ctx, a, &problem)) {
    run(ctx, a, &problem);
  }
}

// custom_quantized_sdpa.out(q, k, v, start_pos, mask?, dropout, is_causal, scale?, q_zero_points?,
//   q_scales?, k_zero_points?, k_scales?, v_zero_points?, v_scales?, is_seq_at_dim_2, *, out!).
// With a float query the quantization arguments play no part.
void custom_quantized_sdpa(Context& ctx, Stack stack) {
  constexpr const char* kOp = "llama::custom_quantized_sdpa";
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 16);
  SdpaArgs a = read_args(kOp, args, 15);
  for (size_t i = 0; i < 6; ++i) {
    a.quant[i] = args.optional_tensor(8 + i);
  }
  a.sequence_at_dim_2 = args.boolean(14);
  if (!args.ok()) {
    return;
  }
  if (a.q->scalar_type() == ScalarType::Char) {
    for (const Tensor* parameter : a.quant) {
      if (parameter == nullptr) {
        fail(ctx,
             "%s: expected zero points and scales for all of query, key and value, got None among "
             "them, with "
             "query %s, key %s",
             kOp, TensorText(*a.q).c_str(), TensorText(*a.k).c_str());
        return;
      }
    }
  }
  AttentionProblem problem;
  if (describe(ctx, a, &problem)) {
    run(ctx, a, &problem);
  }
}

// sdpa_with_kv_cache.out(q, k, v, key_cache!, value_cache!, start_pos, seq_len, mask?, dropout,
//   is_causal, scale?, *, out!): writes k and v into the caches, then attends to them.
void sdpa_with_kv_cache(Context& ctx, Stack stack) {
  constexpr const char* kOp = "llama::sdpa_with_kv_cache";
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 12);
  const Tensor* k = args.tensor(1);
  const Tensor* v = args.tensor(2);
  const int64_t seq_len = args.integer(6);
  SdpaArgs a{kOp,
             args.tensor(0),
             args.tensor(3),
             args.tensor(4),
             args.integer(5),
             args.optional_tensor(7),
             args.boolean(9),
             args.optional_number(10, NAN),
             args.tensor(11)};
  AttentionProblem problem;
  // The attention is checked first: a call that fails must not leave a half-updated cache behind.
  if (!args.ok() || !describe(ctx, a, &problem)) {
    return;
  }
  if (seq_len < 0 || a.start_pos < 0 || a.start_pos > a.k->size(1) ||
      seq_len > a.k->size(1) - a.start_pos) {
    fail(ctx,
         "%s: expected start_pos + seq_len within the cache, got start_pos %" PRId64
         " and seq_len %" PRId64 " for key cache %s",
         kOp, a.start_pos, seq_len, TensorText(*a.k).c_str());
    return;
  }
  if (!same_shape(*k, *v) || k->scalar_type() != a.k->scalar_type() ||
      v->scalar_type() != a.v->scalar_type()) {
    fail(ctx,
         "%s: expected key and value of one shape and of the caches' dtypes, got key %s, value %s, "
         "key cache %s",
         kOp, TensorText(*k).c_str(), TensorText(*v).c_str(), TensorText(*a.k).c_str());
    return;
  }
  if (copy_into_cache(ctx, kOp, *k, *a.k, a.start_pos) &&
      copy_into_cache(ctx, kOp, *v, *a.v, a.start_pos)) {
    run(ctx, a, &problem);
  }
}

}  // namespace emm::ops
