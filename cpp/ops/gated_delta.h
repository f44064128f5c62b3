// The gated delta rule (linear attention with a state that decays and is corrected), used by
// Qwen3.5 exports.
#pragma once

#include "ops/op_args.h"

namespace emm::ops {

void gated_delta_rule(Context& ctx, Stack stack);
// The operator's older name.
void channelwise_gated_delta_rule(Context& ctx, Stack stack);

}  // namespace emm::ops
