#include "et/thread_choice.h"

#include <algorithm>
#include <fstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace emm {
namespace {

// On two cores the shipped model (3 MB) is three to four times faster on one thread, and one of
// 105 MB faster on both in every phase; the margins are wide because machines differ.
constexpr size_t kOneThreadBytes = 8u << 20;
constexpr size_t kPoolBytes = 64u << 20;

// cpu.max of a version 2 control group holds "<quota> <period>" or "max <period>".
size_t control_group_cores(size_t otherwise) {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0.0;
  double period = 0.0;
  if (!(file >> quota >> period) || quota <= 0.0 || period <= 0.0) return otherwise;
  return std::max<size_t>(1, static_cast<size_t>(quota / period + 0.5));
}

}  // namespace

ThreadChoice choose_threads(size_t model_bytes, size_t pool_size) {
  if (model_bytes < kOneThreadBytes || pool_size < 2) return ThreadChoice::kOne;
  return model_bytes < kPoolBytes ? ThreadChoice::kMeasure : ThreadChoice::kPool;
}

size_t usable_cores() {
  size_t cores = std::max(1u, std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0)
    cores = std::max<size_t>(1, static_cast<size_t>(CPU_COUNT(&set)));
  cores = std::min(cores, control_group_cores(cores));
#endif
  return cores;
}

}  // namespace emm
