#include "et/et_abort.h"

#include <dlfcn.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>
#include <unwind.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/log.h"

namespace emm {
namespace {

struct Search {
  const void* library;  // where it is loaded
  bool is_found = false;
};

_Unwind_Reason_Code look_at_frame(_Unwind_Context* frame, void* data) {
  auto& search = *static_cast<Search*>(data);
  Dl_info facts{};
  if (dladdr(reinterpret_cast<void*>(_Unwind_GetIP(frame)), &facts) != 0 &&
      facts.dli_fbase == search.library)
    search.is_found = true;
  return search.is_found ? _URC_END_OF_STACK : _URC_NO_REASON;
}

// pthreadpool is C: an exception would pass it without giving back its lock.
bool is_in_thread_pool() {
  if (executorch::extension::threadpool::NoThreadPoolGuard::is_enabled()) return false;
  Dl_info facts{};
  const auto parallel_for = &executorch::extension::parallel_for;
  if (dladdr(reinterpret_cast<const void*>(parallel_for), &facts) == 0) return true;
  Search search{facts.dli_fbase};
  _Unwind_Backtrace(look_at_frame, &search);
  return search.is_found;
}

}  // namespace

void leave_executorch() {
  const std::string reason = LogCapture::innermost_text();
  if (LogCapture::is_open() && !is_in_thread_pool())
    throw Error(ErrorCode::kExecution, "ExecuTorch gave up: " + reason);
  std::fprintf(stderr, "executorch_mm: fatal: %s\n", reason.c_str());
  std::abort();
}

}  // namespace emm
