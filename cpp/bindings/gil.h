// Who holds the GIL in native code, while Python runs and while it ends.
//
// Until CPython 3.13 a thread that asks for the GIL of an interpreter that is ending is ended with
// pthread_exit. On Linux that unwinds the thread's stack, and the first destructor, noexcept
// function or catch (...) on the way turns it into std::terminate: SIGABRT for the whole process.
// Here such a thread is left standing, as CPython 3.14 does itself. So that few get that far,
// end_native_work() waits for what runs and lets other threads begin nothing.
//
// nanobind's own guards do none of this and are not used.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>
#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

namespace emm::bindings {

// The thread waits for the end of the process.
[[noreturn]] void stand_still() noexcept;

// Runs what may wait for the GIL or run Python code; a thread that is ended in it stands still.
// `call` goes to Python through its C API: nanobind has noexcept functions in between.
template <typename Call>
#if defined(__GLIBCXX__) && defined(__GNUC__) && !defined(__clang__)
// The exception of a thread's end has no type that the sanitizer could look up.
__attribute__((no_sanitize("undefined")))
#endif
auto outlast_exit(Call&& call) {
#ifdef __GLIBCXX__
  try {
    return std::forward<Call>(call)();
  } catch (abi::__forced_unwind&) {
    stand_still();
  }
#else
  return std::forward<Call>(call)();  // nothing is unwound there
#endif
}

// The GIL is given back for native work.
class ReleaseGil {
 public:
  // Throws Error(kExecution) in a thread that comes after end_native_work().
  ReleaseGil();
  ~ReleaseGil();
  ReleaseGil(const ReleaseGil&) = delete;
  ReleaseGil& operator=(const ReleaseGil&) = delete;
};

// The GIL is held in the midst of native work; elsewhere it is held anyway.
class HoldGil {
 public:
  HoldGil();
  ~HoldGil();
  HoldGil(const HoldGil&) = delete;
  HoldGil& operator=(const HoldGil&) = delete;

 private:
  PyThreadState* state_;
};

// Frees what belongs to Python, wherever its last holder lets go.
struct DeleteWithGil {
  template <typename Owner>
  void operator()(Owner* owner) const {
    const HoldGil gil;
    delete owner;
  }
};

// Native work of another library, which cannot be trusted to outlast the interpreter's end either.
void begin_foreign_work();
void end_foreign_work();

// For the thread that ends the interpreter: waits a while for the native work of the others, and
// refuses what they begin from now on.
void end_native_work();

// For a child that was forked.
void forget_other_threads();

}  // namespace emm::bindings
