#include "et/thread_choice.h"

#include <algorithm>
#include <fstream>
#include <thread>
#include <vector>

#include "base/clock.h"

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

int64_t time_turn(Executor& executor) {
  const Contract& contract = executor.contract();
  constexpr int64_t kPromptTokens = 64;
  constexpr int64_t kAnswerTokens = 64;
  constexpr int64_t kTimedPrompts = 3;
  constexpr int64_t kTimedSteps = 16;
  const std::vector<int64_t> ids(kPromptTokens, 0);
  const int64_t num_tokens =
      std::min({kPromptTokens, contract.max_chunk, std::max<int64_t>(1, contract.capacity / 2)});
  const auto time_call = [&](int64_t count, int64_t position) {
    int64_t elapsed = 0;
    {
      const ScopedTimer timer(elapsed);
      executor.decode_tokens(ids.data(), count, position);
    }
    return elapsed;
  };
  time_call(num_tokens, 0);  // the first call also prepares memory
  int64_t turn_ns = INT64_MAX;
  for (int64_t i = 0; i < kTimedPrompts; ++i) turn_ns = std::min(turn_ns, time_call(num_tokens, 0));
  if (contract.position_style != PositionStyle::kNone) {
    int64_t step_ns = INT64_MAX;
    for (int64_t i = 0; i < kTimedSteps && num_tokens + i < contract.capacity; ++i)
      step_ns = std::min(step_ns, time_call(1, num_tokens + i));
    turn_ns += kAnswerTokens * step_ns;
  }
  executor.reset_state();
  return turn_ns;
}

}  // namespace emm
