#include "bindings/gil.h"

#ifdef __GLIBC__
#include <unistd.h>
#endif

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "base/error.h"

namespace emm::bindings {
namespace {

using std::chrono::milliseconds;

#ifdef __GLIBC__
constexpr milliseconds kPatience{500};  // with work under way when the interpreter is about to end
#else
constexpr milliseconds kPatience = std::chrono::hours(24);
#endif
constexpr milliseconds kGrace{2000};  // for the interpreter to end before a thread gets an error

std::atomic<int> num_running{0};
std::atomic<bool> is_ending{false};
std::atomic<std::thread::id> ending_thread;  // which goes on as ever
thread_local PyThreadState* released = nullptr;

bool has_ended_elsewhere() {
  return is_ending && ending_thread.load() != std::this_thread::get_id();
}

void take_back(PyThreadState* state) {
  if (has_ended_elsewhere() && Py_IsInitialized() == 0) stand_still();
  outlast_exit([state] { PyEval_RestoreThread(state); });
}

#ifdef __GLIBC__
// A call of the model that outlasts our patience cannot be ended, and static objects that it uses
// (the thread pool) must not be destroyed under it.
void exit_around_work(int status, void*) {
  if (num_running <= 0) return;
  std::fflush(nullptr);
  _exit(status);
}
#endif

}  // namespace

void stand_still() noexcept {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(24));
}

void begin_foreign_work() {
  ++num_running;
  if (!has_ended_elsewhere()) return;
  --num_running;
  PyThreadState* state = PyEval_SaveThread();
  std::this_thread::sleep_for(kGrace);
  take_back(state);
  throw Error(ErrorCode::kExecution, "the interpreter is ending: too late for a thread's new work");
}

void end_foreign_work() { --num_running; }

ReleaseGil::ReleaseGil() {
  begin_foreign_work();
  released = PyEval_SaveThread();
}

ReleaseGil::~ReleaseGil() {
  end_foreign_work();
  take_back(std::exchange(released, nullptr));
}

HoldGil::HoldGil() : state_(std::exchange(released, nullptr)) {
  if (state_ != nullptr) take_back(state_);
}

HoldGil::~HoldGil() {
  if (state_ != nullptr) released = PyEval_SaveThread();
}

void end_native_work() {
  ending_thread = std::this_thread::get_id();
  is_ending = true;
  PyThreadState* state = PyEval_SaveThread();
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (num_running > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(milliseconds(1));
#ifdef __GLIBC__
  if (num_running > 0)
    on_exit(exit_around_work, nullptr);  // before the static objects' destructors
#endif
  take_back(state);
}

void forget_other_threads() { num_running = 0; }

}  // namespace emm::bindings
