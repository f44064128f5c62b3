// The vector kernels for what every machine of the architecture has: SSE2 on x86-64, NEON on
// aarch64.
#include "ops/isa_kernels.h"

namespace emm::ops {

#if defined(__aarch64__)
const IsaKernels kBaselineKernels = make_kernels("neon");
#else
const IsaKernels kBaselineKernels = make_kernels("baseline");
#endif

}  // namespace emm::ops
