// Scratch memory of the operators. It belongs to the thread that calls an operator, also for the
// parts that the thread pool computes; it grows to the largest call so far and is freed when the
// thread ends, so a warm call allocates nothing.
#pragma once

#include <cstdint>

namespace emm::ops {

// Memory for so many floats, aligned to a cache line, valid until the thread's next request. Null
// where it cannot be had.
float* scratch_memory(int64_t floats);

// How often the calling thread's memory had to grow.
int64_t scratch_growths();

}  // namespace emm::ops
