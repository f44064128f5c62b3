#include "ops/copies.h"

#include <cinttypes>
#include <cstring>

#include <executorch/runtime/core/event_tracer_hooks.h>

namespace emm::ops {

using executorch::runtime::internal::EventTracerProfileOpScope;

// fallback.out(in, *, out!)
void fallback(Context& ctx, Stack stack) {
  constexpr const char* kOp = "llama::fallback";
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 2);
  const Tensor* in = args.tensor(0);
  const Tensor* out = args.tensor(1);
  if (!args.ok()) {
    return;
  }
  constexpr ssize_t kMaxRank = 16;
  if (in->scalar_type() != out->scalar_type() || in->dim() > kMaxRank || !is_plain(*in)) {
    fail(ctx,
         "%s: expected a contiguous tensor and an output of its dtype, got input %s, output %s",
         kOp, TensorText(*in).c_str(), TensorText(*out).c_str());
    return;
  }
  int64_t sizes[kMaxRank];
  for (ssize_t d = 0; d < in->dim(); ++d) {
    sizes[d] = in->size(d);
  }
  if (resize_output(ctx, kOp, *out, sizes, static_cast<size_t>(in->dim())) && in->nbytes() > 0) {
    std::memmove(out->mutable_data_ptr(), in->const_data_ptr(), in->nbytes());
  }
}

// tile_crop.out(input [C, H, W], tile_size, *, out! [H / t * W / t, C, t, t]): the tiles row by
// row.
void tile_crop(Context& ctx, Stack stack) {
  constexpr const char* kOp = "preprocess::tile_crop";
  EventTracerProfileOpScope scope(ctx.internal_event_tracer(), kOp);
  Args args(ctx, stack, kOp, 3);
  const Tensor* in = args.tensor(0);
  const int64_t tile = args.integer(1);
  const Tensor* out = args.tensor(2);
  if (!args.ok()) {
    return;
  }
  if (in->dim() != 3 || tile <= 0 || in->size(1) % tile != 0 || in->size(2) % tile != 0 ||
      in->scalar_type() != out->scalar_type() || !is_plain(*in)) {
    fail(ctx,
         "%s: expected a contiguous [C, H, W] with H and W multiples of the tile size and an "
         "output of its dtype, "
         "got input %s, tile size %" PRId64 ", output %s",
         kOp, TensorText(*in).c_str(), tile, TensorText(*out).c_str());
    return;
  }
  const int64_t channels = in->size(0);
  const int64_t height = in->size(1);
  const int64_t width = in->size(2);
  const int64_t sizes[] = {(height / tile) * (width / tile), channels, tile, tile};
  if (!resize_output(ctx, kOp, *out, sizes, 4) || in->numel() == 0) {
    return;
  }
  const int64_t line = tile * in->element_size();
  const auto* from = static_cast<const unsigned char*>(in->const_data_ptr());
  auto* to = static_cast<unsigned char*>(out->mutable_data_ptr());
  for (int64_t top = 0; top < height; top += tile) {
    for (int64_t left = 0; left < width; left += tile) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t y = top; y < top + tile; ++y) {
          std::memcpy(to, from + ((c * height + y) * width + left) * in->element_size(),
                      static_cast<size_t>(line));
          to += line;
        }
      }
    }
  }
}

}  // namespace emm::ops
