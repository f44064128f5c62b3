#include "ops/update_cache.h"

#include <cinttypes>
#include <cstring>

#include <executorch/runtime/core/event_tracer_hooks.h>

#include "ops/parallel.h"

namespace emm::ops {
namespace {

using executorch::runtime::internal::EventTracerProfileOpScope;

bool check_shapes(Context& ctx, const char* op, const Tensor& value, const Tensor& cache) {
  const bool fits = value.dim() == 4 && cache.dim() == 4 && value.size(0) == cache.size(0) &&
                    value.size(2) == cache.size(2) && value.size(3) == cache.size(3);
  if (!fits) {
    fail(ctx,
         "%s: expected value [B, S, H, D] and cache [B, Smax, H, D], got value %s and cache %s", op,
         TensorText(value).c_str(), TensorText(cache).c_str());
    return false;
  }
  if (value.element_size() != cache.element_size()) {
    fail(ctx, "%s: expected elements of the same size, got value %s and cache %s", op,
         TensorText(value).c_str(), TensorText(cache).c_str());
    return false;
  }
  if (!is_plain(value) || !is_plain(cache)) {
    fail(ctx, "%s: expected contiguous tensors with memory, got value %s and cache %s", op,
         TensorText(value).c_str(), TensorText(cache).c_str());
    return false;
  }
  return true;
}

// What a thread copies at a time: the pages of a cache are touched for the first time here, which
// takes longer than the copy.
constexpr int64_t kTaskBytes = 32 << 10;

void copy_bytes(unsigned char* to, const unsigned char* from, int64_t bytes) {
  const int64_t tasks = (bytes + kTaskBytes - 1) / kTaskBytes;
  const bool overlap = to < from + bytes && from < to + bytes;
  if (overlap || tasks == 1) {
    std::memmove(to, from, static_cast<size_t>(bytes));
    return;
  }
  run_tasks(tasks, threads_for(tasks, bytes, kTaskBytes), [&](int64_t task, int64_t /*worker*/) {
    const int64_t at = task * kTaskBytes;
    const int64_t left = bytes - at;
    std::memcpy(to + at, from + at, static_cast<size_t>(left < kTaskBytes ? left : kTaskBytes));
  });
}

}  // namespace

bool copy_into_cache(Context& ctx, const char* op, const Tensor& value, const Tensor& cache,
                     int64_t start_pos) {
  if (!check_shapes(ctx, op, value, cache)) {
    return false;
  }
  const int64_t tokens = value.size(1);
  const int64_t capacity = cache.size(1);
  // Written so that a huge start_pos cannot overflow the sum.
  if (start_pos < 0 || start_pos >= capacity || tokens > capacity - start_pos) {
    fail(ctx,
         "%s: expected positions within [0, %" PRId64 "), got start_pos %" PRId64
         " for value %s and cache %s",
         op, capacity, start_pos, TensorText(value).c_str(), TensorText(cache).c_str());
    return false;
  }
  if (value.numel() == 0) {
    return true;
  }
  const int64_t token_bytes = value.size(2) * value.size(3) * value.element_size();
  const auto* source = static_cast<const unsigned char*>(value.const_data_ptr());
  auto* target = static_cast<unsigned char*>(cache.mutable_data_ptr());
  for (int64_t b = 0; b < value.size(0); ++b) {
    copy_bytes(target + (b * capacity + start_pos) * token_bytes, source + b * tokens * token_bytes,
               tokens * token_bytes);
  }
  return true;
}

// update_cache.out(value, cache!, start_pos, *, out!): `out` is a placeholder that stays as it is.
void update_cache(Context& ctx, Stack stack) {
  constexpr const char* kOp = "llama::update_cache";
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 4);
  const Tensor* value = args.tensor(0);
  const Tensor* cache = args.tensor(1);
  const int64_t start_pos = args.integer(2);
  if (args.ok()) {
    copy_into_cache(ctx, kOp, *value, *cache, start_pos);
  }
}

// update_cache_with_indices.out(value, cache!, start_pos, indices, *, out!): start_pos plays no
// part.
void update_cache_with_indices(Context& ctx, Stack stack) {
  constexpr const char* kOp = "llama::update_cache_with_indices";
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 5);
  const Tensor* value = args.tensor(0);
  const Tensor* cache = args.tensor(1);
  const Tensor* indices = args.tensor(3);
  if (!args.ok() || !check_shapes(ctx, kOp, *value, *cache)) {
    return;
  }
  if (indices->dim() != 2 || indices->scalar_type() != ScalarType::Long ||
      indices->size(0) != value->size(0) || indices->size(1) != value->size(1) ||
      !is_plain(*indices)) {
    fail(ctx, "%s: expected contiguous indices Long[B, S], got indices %s for value %s", kOp,
         TensorText(*indices).c_str(), TensorText(*value).c_str());
    return;
  }
  const int64_t capacity = cache->size(1);
  const auto* positions = static_cast<const int64_t*>(indices->const_data_ptr());
  for (int64_t i = 0; i < indices->numel();
       ++i) {  // all of them first, so that a bad call changes nothing
    if (positions[i] < 0 || positions[i] >= capacity) {
      fail(ctx,
           "%s: expected indices within [0, %" PRId64 "), got %" PRId64 " at element %" PRId64
           " of %s for cache %s",
           kOp, capacity, positions[i], i, TensorText(*indices).c_str(),
           TensorText(*cache).c_str());
      return;
    }
  }
  if (value->numel() == 0) {
    return;
  }
  const int64_t tokens = value->size(1);
  const int64_t token_bytes = value->size(2) * value->size(3) * value->element_size();
  const auto* source = static_cast<const unsigned char*>(value->const_data_ptr());
  auto* target = static_cast<unsigned char*>(cache->mutable_data_ptr());
  for (int64_t b = 0; b < value->size(0); ++b) {
    for (int64_t s = 0; s < tokens; ++s) {
      std::memcpy(target + (b * capacity + positions[b * tokens + s]) * token_bytes,
                  source + (b * tokens + s) * token_bytes, static_cast<size_t>(token_bytes));
    }
  }
}

}  // namespace emm::ops
