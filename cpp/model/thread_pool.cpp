#include "model/thread_pool.h"

#include <cstdint>
#include <mutex>
#include <string>

#include "base/error.h"

// The SDK exports the pool but ships no header for it; these two members are all we need of it.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t num_threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace emm {

size_t thread_pool_size() {
  return executorch::extension::threadpool::get_threadpool()->get_thread_count();
}

void claim_thread_pool(size_t num_threads) {
  static std::mutex mutex;
  static bool is_final = false;
  const std::lock_guard<std::mutex> lock(mutex);
  const size_t current = thread_pool_size();
  if (num_threads != current) {
    if (is_final) {
      throw Error(ErrorCode::kInput, "num_threads: expected " + std::to_string(current) +
                                         " (fixed when the first "
                                         "model of this process was loaded) or 1, got " +
                                         std::to_string(num_threads));
    }
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(
        static_cast<uint32_t>(num_threads));
  }
  is_final = true;
}

}  // namespace emm
