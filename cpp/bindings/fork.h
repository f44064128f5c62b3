// What happens to a model in a process that is forked from the one that loaded it.
#pragma once

#ifndef _WIN32
#include <unistd.h>
#endif

#include <cstdint>
#include <memory>

namespace emm::bindings {

inline int64_t process_id() {
#ifdef _WIN32
  return 0;  // nothing forks there
#else
  return getpid();
#endif
}

// A forked child has the model's memory, but not the threads that worked on it: a lock that one of
// them held stays locked there, and freeing the model could wait for it for ever. So it is not
// freed.
template <typename Model>
std::shared_ptr<Model> kept_in_children(std::unique_ptr<Model> model) {
  return {model.release(), [owner = process_id()](Model* loaded) {
            if (process_id() == owner) delete loaded;
          }};
}

}  // namespace emm::bindings
