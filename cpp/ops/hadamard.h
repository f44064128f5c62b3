// The fast Walsh-Hadamard transform of rows, used by SpinQuant exports to spread outliers before
// quantization.
#pragma once

#include "ops/op_args.h"

namespace emm::ops {

void fast_hadamard_transform(Context& ctx, Stack stack);

}  // namespace emm::ops
