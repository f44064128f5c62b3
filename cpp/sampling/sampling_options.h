// How the next token is chosen. Plain numbers; Python validates them before they get here.
#pragma once

#include <cstdint>

namespace emm {

struct SamplingOptions {
  float temperature = 0.0f;  // 0 = greedy
  int32_t top_k = 0;         // 0 = off
  float top_p = 1.0f;        // 1 = off
  uint64_t seed = 0;
};

}  // namespace emm
