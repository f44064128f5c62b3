// Whether a model runs on one thread or on the pool when its user leaves that to us. Handing work
// over costs microseconds per operator, so small models are faster on one thread and large ones on
// the pool; in between only running the model tells.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/executor.h"

namespace emm {

enum class ThreadChoice { kOne, kPool, kMeasure };

// `model_bytes`: the program and its data files.
ThreadChoice choose_threads(size_t model_bytes, size_t pool_size);

// Cores that this process may use: what its affinity and its control group (Linux) leave of the
// machine.
size_t usable_cores();

// Nanoseconds of a short prompt and answer; the conversation is at its beginning before and after.
int64_t time_turn(Executor& executor);

}  // namespace emm
