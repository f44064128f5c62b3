// The attention operators: custom_sdpa, its int8 form, and the older one that also updates the
// cache.
#pragma once

#include "ops/op_args.h"

namespace emm::ops {

void custom_sdpa(Context& ctx, Stack stack);
void custom_quantized_sdpa(Context& ctx, Stack stack);
void sdpa_with_kv_cache(Context& ctx, Stack stack);

}  // namespace emm::ops
