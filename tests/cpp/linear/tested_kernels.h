#pragma once

#include <vector>

#include "linear/kernels.h"

namespace emm::linear {

// What this machine runs, and AMX's kernels on emulated tiles. With EMM_TEST_AMX=1 also on the
// processor's: by default they are not run, because no machine of ours has them.
const std::vector<const Kernels*>& tested_kernels();

}  // namespace emm::linear
