// The attention kernels for AVX2, FMA and F16C.
#include "ops/attention_tile.h"

namespace emm::ops {

const AttentionIsa kAttentionAvx2 = make_isa("avx2");

}  // namespace emm::ops
