// One thread at a time: a second one is refused, not kept waiting.
#pragma once

#include <mutex>
#include <string>

#include "base/error.h"

namespace emm {

// Throws Error(kBusy) when another thread holds the mutex.
inline std::unique_lock<std::mutex> lock_or_refuse(std::mutex& mutex, const std::string& what) {
  std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
  if (!lock.owns_lock()) throw Error(ErrorCode::kBusy, what + " is in use by another thread");
  return lock;
}

}  // namespace emm
