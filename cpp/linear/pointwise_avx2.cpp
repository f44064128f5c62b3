#include "linear/pointwise_loops.h"

namespace emm::linear {

const PointwiseLoops kAvx2Loops = EMM_POINTWISE_LOOPS;

}  // namespace emm::linear
