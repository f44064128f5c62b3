// aten::mean.out as norms call it, with several rows side by side; whatever else is asked of it the
// SDK's kernel does.
#pragma once

#include "ops/op_args.h"

namespace emm::ops {

void mean(Context& ctx, Stack stack);

}  // namespace emm::ops
