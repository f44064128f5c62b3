#include "et/et_log.h"

#include <executorch/runtime/platform/platform.h>

#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>

#include "base/log.h"
#include "et/et_abort.h"

namespace emm {
namespace {

LogLevel to_log_level(et_pal_log_level_t level) {
  switch (level) {
    case kDebug:
      return LogLevel::kDebug;
    case kError:
      return LogLevel::kError;
    case kFatal:
      return LogLevel::kFatal;
    default:
      return LogLevel::kInfo;
  }
}

// Called on any thread, kernels' worker threads too, and so without Python.
void emit(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, size_t line,
          const char* message, size_t length) {
  const std::string text(message, length);
  if (level == kError || level == kFatal) LogCapture::add(text);
  LogQueue::instance().push({to_log_level(level), file, static_cast<int64_t>(line), text});
  // A fatal line is followed by abort(), see et_abort.h: without a capture nobody would read it.
  if (level == kFatal && !LogCapture::is_open())
    std::fprintf(stderr, "executorch_mm: fatal: %s\n", text.c_str());
}

}  // namespace

void install_log_handler() {
  // Another user of the same runtime may have put in its own since the last model was loaded.
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto* current = executorch::runtime::get_pal_impl();
  if (current != nullptr && current->emit_log_message == emit) return;
  executorch::runtime::register_pal(executorch::runtime::PalImpl::create(
      nullptr, leave_executorch, nullptr, nullptr, emit, nullptr, nullptr, "executorch_mm"));
}

}  // namespace emm
