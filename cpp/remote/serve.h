// The loop of a model's process.
#pragma once

#include <memory>

#include "base/error.h"
#include "model/executor.h"

namespace emm::remote {

// Says over the socket that the model is there, then does what is asked of its conversations, the
// given one and those made of it, until the other end is closed. Both files belong to the call.
// Throws nothing of the model's: errors are answers.
void serve(std::unique_ptr<Executor> executor, int socket, int memory);

// For a model that could not be loaded.
void refuse(int socket, const Error& error);

}  // namespace emm::remote
