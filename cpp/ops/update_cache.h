// Writing new keys or values (or their int8 data, scales and zero points) into a model's cache.
#pragma once

#include "ops/op_args.h"

namespace emm::ops {

// Copies value [B, S, H, D] into cache[:, start_pos : start_pos + S] of [B, Smax, H, D]. The dtypes
// may differ as long as the elements have the same size. Reports what is wrong as `op` and returns
// false, leaving the cache untouched.
bool copy_into_cache(Context& ctx, const char* op, const Tensor& value, const Tensor& cache,
                     int64_t start_pos);

void update_cache(Context& ctx, Stack stack);
void update_cache_with_indices(Context& ctx, Stack stack);

}  // namespace emm::ops
