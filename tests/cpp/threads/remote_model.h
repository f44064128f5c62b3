// A model in a process of its own, without Python between.
#pragma once

#include <sys/types.h>

#include "at_once.h"

namespace emm::threads {

struct RemoteSession {
  std::shared_ptr<Session> session;
  pid_t process = 0;
};

// Call it while no other thread runs.
RemoteSession load_remote(const LoadOptions& options);

}  // namespace emm::threads
