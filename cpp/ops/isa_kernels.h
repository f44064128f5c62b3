// The table of the vector kernels of one instruction set; included by that set's translation unit
// only.
#pragma once

#include "ops/attention_direct.h"
#include "ops/attention_tile.h"
#include "ops/gated_delta_kernel.h"
#include "ops/hadamard_kernel.h"
#include "ops/isa.h"

namespace emm::ops {
namespace {

constexpr IsaKernels make_kernels(const char* name) {
  return {name,   kDirectRows, kTileRows, kPanel,        kDirectKeys, direct_scratch, tile_scratch,
          direct, tile,        merge,     kDeltaColumns, gated_delta, hadamard};
}

}  // namespace
}  // namespace emm::ops
