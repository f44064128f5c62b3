#include "et/thread_pool.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <string>

#include "base/error.h"
#include "et/et_log.h"
#include "et/thread_choice.h"

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
namespace {

std::mutex claim_mutex;
bool is_claimed = false;

}  // namespace

size_t thread_pool_size() {
  install_log_handler();  // making the pool logs what it finds out about the processor
  return executorch::extension::threadpool::get_threadpool()->get_thread_count();
}

bool is_thread_pool_claimed() {
  const std::lock_guard<std::mutex> lock(claim_mutex);
  return is_claimed;
}

void claim_thread_pool(size_t num_threads) {
  const std::lock_guard<std::mutex> lock(claim_mutex);
  const size_t current = thread_pool_size();
  if (num_threads != current) {
    if (is_claimed) {
      throw Error(ErrorCode::kInput, "num_threads: expected " + std::to_string(current) +
                                         " (fixed when the first "
                                         "model of this process was loaded) or 1, got " +
                                         std::to_string(num_threads));
    }
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(
        static_cast<uint32_t>(num_threads));
  }
  is_claimed = true;
}

int64_t untried_num_threads(size_t model_bytes) {
  const size_t pool_size = std::min(thread_pool_size(), usable_cores());
  if (choose_threads(model_bytes, pool_size) == ThreadChoice::kOne) return 1;
  return static_cast<int64_t>(is_thread_pool_claimed() ? thread_pool_size() : pool_size);
}

}  // namespace emm
