// The one error type of the core. Every failure carries a code (which Python turns into an
// exception class) and a message that says where it happened, what was expected and what came.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace emm {

enum class ErrorCode {
  kLoad,       // the file cannot be read, verified or initialised
  kContract,   // the program loads but is not a model this runner can drive
  kInput,      // the caller's data or options are wrong
  kCapacity,   // the context has no room for what was asked
  kExecution,  // a method failed while it ran
  kBusy,       // the object is in use by another thread or request
  kProcess,    // the process that the model runs in has ended
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  static Error capacity(const std::string& message, int64_t needed, int64_t available) {
    Error error(ErrorCode::kCapacity, message);
    error.needed_ = needed;
    error.available_ = available;
    return error;
  }

  ErrorCode code() const { return code_; }
  // Positions asked for and positions free; only meaningful for kCapacity.
  int64_t needed() const { return needed_; }
  int64_t available() const { return available_; }

 private:
  ErrorCode code_;
  int64_t needed_ = 0;
  int64_t available_ = 0;
};

}  // namespace emm
