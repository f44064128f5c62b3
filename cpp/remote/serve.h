// The loop of a model's process.
#pragma once

#include "base/error.h"
#include "model/executor.h"

namespace emm::remote {

// Says over the socket that the model is there, then does what is asked until the other end is
// closed. Both files belong to the call. Throws nothing of the model's: errors are answers.
void serve(Executor& executor, int socket, int memory);

// For a model that could not be loaded.
void refuse(int socket, const Error& error);

}  // namespace emm::remote
