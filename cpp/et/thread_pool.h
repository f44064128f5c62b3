// ExecuTorch's process-wide thread pool. Its size can change only while no model uses it: a reset
// under a loaded XNNPACK method is a use after free.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emm {

size_t thread_pool_size();

// Whether a model has fixed the size.
bool is_thread_pool_claimed();

// Asks for `num_threads` and marks the size as final for the rest of the process. Throws
// Error(kInput) when an earlier model fixed another size.
void claim_thread_pool(size_t num_threads);

// For a model of this size that is not run to find out: 1, or the size of the pool. A pool that a
// model has fixed stays as it is, even where it is larger than our share.
int64_t untried_num_threads(size_t model_bytes);

}  // namespace emm
