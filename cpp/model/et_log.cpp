#include "model/et_log.h"

#include <executorch/runtime/platform/platform.h>

#include <cstdio>
#include <mutex>
#include <string>

#include "base/log.h"

namespace emm {
namespace {

void emit(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t,
          const char* message, size_t length) {
  if (level == kError) LogCapture::add(std::string(message, length));
  // A fatal line is followed by abort(): nobody would be left to read a capture.
  if (level == kFatal)
    std::fprintf(stderr, "executorch_mm: fatal: %.*s\n", static_cast<int>(length), message);
}

}  // namespace

void install_log_handler() {
  static std::once_flag installed;
  std::call_once(installed, [] {
    executorch::runtime::register_pal(executorch::runtime::PalImpl::create(emit, "executorch_mm"));
  });
}

}  // namespace emm
