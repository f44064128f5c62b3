// Operators that only move data: fallback (a copy) and tile_crop (an image cut into square tiles).
#pragma once

#include "ops/op_args.h"

namespace emm::ops {

void fallback(Context& ctx, Stack stack);
void tile_crop(Context& ctx, Stack stack);

}  // namespace emm::ops
