// Attention over a key/value cache that is not in the graph.
#pragma once

#include "ops/op_args.h"

namespace emm::ops {

void update_and_attend(Context& ctx, Stack stack);

}  // namespace emm::ops
