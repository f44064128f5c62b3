#include "ops/gated_delta.h"

#include <cstdint>

#include <executorch/runtime/core/event_tracer_hooks.h>

#include "ops/isa.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace emm::ops {
namespace {

using executorch::runtime::internal::EventTracerProfileOpScope;

// Multiplications (tokens x keys x values) for which a thread is worth waking.
constexpr int64_t kWorkPerThread = 100'000;

struct DeltaArgs {
  const Tensor *q, *k, *v, *decay, *beta, *state, *out, *final_state;
};

bool overlap(const Tensor& a, const Tensor& b) {
  const auto* a_data = static_cast<const unsigned char*>(a.const_data_ptr());
  const auto* b_data = static_cast<const unsigned char*>(b.const_data_ptr());
  return a_data < b_data + b.nbytes() && b_data < a_data + a.nbytes();
}

bool shapes_fit(const DeltaArgs& a) {
  const Tensor &q = *a.q, &k = *a.k, &v = *a.v, &decay = *a.decay, &beta = *a.beta,
               &state = *a.state;
  if (q.dim() != 4 || k.dim() != 4 || v.dim() != 4 || beta.dim() != 3 || state.dim() != 4 ||
      (decay.dim() != 3 && decay.dim() != 4)) {
    return false;
  }
  bool fit = q.size(0) == k.size(0) && q.size(2) == k.size(2) && q.size(3) == k.size(3) &&
             k.size(1) > 0 && q.size(1) % k.size(1) == 0;
  for (int d = 0; d < 3; ++d) {
    fit = fit && v.size(d) == k.size(d) && decay.size(d) == k.size(d) && beta.size(d) == k.size(d);
  }
  fit = fit && (decay.dim() == 3 || decay.size(3) == k.size(3));
  return fit && state.size(0) == k.size(0) && state.size(1) == k.size(1) &&
         state.size(2) == k.size(3) && state.size(3) == v.size(3);
}

bool check(Context& ctx, const char* op, const DeltaArgs& a) {
  for (const Tensor* t : {a.q, a.k, a.v, a.decay, a.beta, a.state, a.out, a.final_state}) {
    if (t->scalar_type() != ScalarType::Float || !is_plain(*t)) {
      fail(ctx,
           "%s: expected contiguous Float tensors with memory, got %s among query, key, value, "
           "decay, beta, state "
           "and outputs, with query %s",
           op, TensorText(*t).c_str(), TensorText(*a.q).c_str());
      return false;
    }
  }
  if (!shapes_fit(a)) {
    fail(ctx,
         "%s: expected q,k,v,state [B,Hq|Hkv,T,K|K|V], [B,Hkv,K,V], got q %s k %s v %s decay %s "
         "beta %s state %s",
         op, TensorText(*a.q).c_str(), TensorText(*a.k).c_str(), TensorText(*a.v).c_str(),
         TensorText(*a.decay).c_str(), TensorText(*a.beta).c_str(), TensorText(*a.state).c_str());
    return false;
  }
  const int64_t out_sizes[] = {a.q->size(0), a.q->size(1), a.q->size(2), a.v->size(3)};
  const int64_t state_sizes[] = {a.state->size(0), a.state->size(1), a.state->size(2),
                                 a.state->size(3)};
  if (!resize_output(ctx, op, *a.out, out_sizes, 4) ||
      !resize_output(ctx, op, *a.final_state, state_sizes, 4)) {
    return false;
  }
  if (overlap(*a.state, *a.final_state)) {
    fail(ctx,
         "%s: expected a final state apart from the initial one, got overlapping memory for %s", op,
         TensorText(*a.state).c_str());
    return false;
  }
  return true;
}

GatedDeltaHead head_of(const DeltaArgs& a, int64_t b, int64_t kv_head) {
  const int64_t heads = a.k->size(1);
  GatedDeltaHead h;
  h.group = a.q->size(1) / heads;
  h.tokens = a.k->size(2);
  h.keys = a.k->size(3);
  h.values = a.v->size(3);
  h.scalar_decay = a.decay->dim() == 3;
  const int64_t at = b * heads + kv_head;
  h.q = a.q->const_data_ptr<float>() + at * h.group * h.tokens * h.keys;
  h.k = a.k->const_data_ptr<float>() + at * h.tokens * h.keys;
  h.v = a.v->const_data_ptr<float>() + at * h.tokens * h.values;
  h.decay = a.decay->const_data_ptr<float>() + at * h.tokens * (h.scalar_decay ? 1 : h.keys);
  h.beta = a.beta->const_data_ptr<float>() + at * h.tokens;
  h.state_in = a.state->const_data_ptr<float>() + at * h.keys * h.values;
  h.state_out = a.final_state->mutable_data_ptr<float>() + at * h.keys * h.values;
  h.out = a.out->mutable_data_ptr<float>() + at * h.group * h.tokens * h.values;
  return h;
}

// (query, key, value, decay, beta, initial_state, *, out!, final_state_out!)
void run(Context& ctx, Stack stack, const char* op) {
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), op);
  Args args(ctx, stack, op, 8);
  const DeltaArgs a{args.tensor(0), args.tensor(1), args.tensor(2), args.tensor(3),
                    args.tensor(4), args.tensor(5), args.tensor(6), args.tensor(7)};
  if (!args.ok() || !check(ctx, op, a)) {
    return;
  }
  const IsaKernels& kernels = isa_kernels();
  const int64_t heads = a.k->size(0) * a.k->size(1);
  const int64_t strips = (a.v->size(3) + kernels.delta_columns - 1) / kernels.delta_columns;
  const int64_t work = a.q->numel() * a.v->size(3);
  const int64_t threads = threads_for(heads * strips, work, kWorkPerThread);
  const int64_t each = a.k->size(3) * kernels.delta_columns;
  float* memory = scratch_memory(threads * each + 1);
  if (memory == nullptr) {
    fail(ctx, "%s: expected memory for a copy of the state %s, got none", op,
         TensorText(*a.state).c_str());
    return;
  }
  run_tasks(heads * strips, threads, [&](int64_t task, int64_t worker) {
    const int64_t head = task / strips;
    kernels.gated_delta(head_of(a, head / a.k->size(1), head % a.k->size(1)),
                        task % strips * kernels.delta_columns, memory + worker * each);
  });
}

}  // namespace

void gated_delta_rule(Context& ctx, Stack stack) { run(ctx, stack, "llama::gated_delta_rule"); }

void channelwise_gated_delta_rule(Context& ctx, Stack stack) {
  run(ctx, stack, "llama::channelwise_gated_delta_rule");
}

}  // namespace emm::ops
