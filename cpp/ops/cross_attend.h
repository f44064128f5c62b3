// Attention to what an encoder has made: keys and values that are inputs of the program.
#pragma once

#include "ops/op_args.h"

namespace emm::ops {

void cross_attend(Context& ctx, Stack stack);
void cross_weights(Context& ctx, Stack stack);

}  // namespace emm::ops
