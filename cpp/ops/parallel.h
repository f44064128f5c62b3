// Sharing tasks out over the SDK's thread pool.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

namespace emm::ops {

// How many threads to use for so many tasks when each thread should get at least `work_per_thread`
// of the work. One under NoThreadPoolGuard.
inline int64_t threads_for(int64_t tasks, int64_t work, int64_t work_per_thread) {
  const int64_t worth = work / work_per_thread;
  const int64_t most = tasks < worth ? tasks : worth;
  if (most <= 1 || executorch::extension::threadpool::NoThreadPoolGuard::is_enabled()) {
    return 1;
  }
  const int64_t threads = executorch::extension::get_thread_count();
  return threads < most ? threads : most;
}

// Calls body(task, worker) for every task. A worker takes a range of tasks one after the other, as
// they lie side by side in memory, and then what others have left of theirs. `worker` is in [0,
// threads).
template <class Body>
void run_tasks(int64_t tasks, int64_t threads, const Body& body) {
  constexpr int64_t kMostRanges = 32;
  struct alignas(64) Range {
    std::atomic<int64_t> next;
    int64_t end;
  };
  const int64_t ranges = threads < 1 ? 1 : threads < kMostRanges ? threads : kMostRanges;
  std::array<Range, kMostRanges> of;
  for (int64_t i = 0; i < ranges; ++i) {
    of[static_cast<size_t>(i)].next.store(tasks * i / ranges, std::memory_order_relaxed);
    of[static_cast<size_t>(i)].end = tasks * (i + 1) / ranges;
  }
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t i = 0; i < ranges; ++i) {
        Range& range = of[static_cast<size_t>((worker + i) % ranges)];
        for (int64_t task = range.next.fetch_add(1, std::memory_order_relaxed); task < range.end;
             task = range.next.fetch_add(1, std::memory_order_relaxed)) {
          body(task, worker);
        }
      }
    }
  };
  // Should the pool refuse, the calling thread does whatever is left.
  if (threads <= 1 || !executorch::extension::parallel_for(0, threads, 1, work)) {
    work(0, 1);
  }
}

}  // namespace emm::ops
