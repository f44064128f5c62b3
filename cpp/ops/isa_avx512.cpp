// The vector kernels for AVX-512 F, BW, VL and DQ.
#include "ops/isa_kernels.h"

namespace emm::ops {

const IsaKernels kAvx512Kernels = make_kernels("avx512");

}  // namespace emm::ops
