// The vector kernels for AVX2, FMA and F16C.
#include "ops/isa_kernels.h"

namespace emm::ops {

const IsaKernels kAvx2Kernels = make_kernels("avx2");

}  // namespace emm::ops
