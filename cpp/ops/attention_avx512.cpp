// The attention kernels for AVX-512 F, BW, VL and DQ.
#include "ops/attention_tile.h"

namespace emm::ops {

const AttentionIsa kAttentionAvx512 = make_isa("avx512");

}  // namespace emm::ops
