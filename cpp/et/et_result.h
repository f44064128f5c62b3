// The one place where an ExecuTorch error code becomes an exception of ours.
#pragma once

#include <executorch/runtime/core/error.h>

#include <cstdio>
#include <string>

#include "base/error.h"
#include "base/log.h"

namespace emm {

[[noreturn]] inline void throw_et_error(ErrorCode code, const std::string& what,
                                        executorch::runtime::Error error, const LogCapture& log) {
  char number[8];
  std::snprintf(number, sizeof number, "0x%02x", static_cast<unsigned>(error));
  std::string message =
      what + " failed with " + executorch::runtime::to_string(error) + " (" + number + ")";
  const std::string details = log.text();
  if (!details.empty()) message += ": " + details;
  throw Error(code, message);
}

}  // namespace emm
