// The attention kernels for what every machine of the architecture has: SSE2 on x86-64, NEON on aarch64.
#include "ops/attention_tile.h"

namespace emm::ops {

#if defined(__aarch64__)
const AttentionIsa kAttentionBaseline = make_isa("neon");
#else
const AttentionIsa kAttentionBaseline = make_isa("baseline");
#endif

}  // namespace emm::ops
