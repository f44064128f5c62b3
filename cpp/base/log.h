// Where the core's diagnostics go. Library code never prints: ExecuTorch's error lines are
// collected by the LogCapture that is open on the current thread and end up in the exception's
// message.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace emm {

// Collects the error lines that this thread logs while it lives. Captures nest; the innermost gets
// the lines. Must be destroyed on the thread that made it.
class LogCapture {
 public:
  LogCapture() : outer_(current()) { current() = this; }
  ~LogCapture() { current() = outer_; }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  static void add(std::string line) {
    if (current() != nullptr) current()->lines_.push_back(std::move(line));
  }

  // The lines so far, joined by "; ". Empty when nothing was logged.
  std::string text() const {
    std::string joined;
    for (const std::string& line : lines_) {
      if (!joined.empty()) joined += "; ";
      joined += line;
    }
    return joined;
  }

 private:
  static LogCapture*& current() {
    thread_local LogCapture* innermost = nullptr;
    return innermost;
  }

  LogCapture* outer_;
  std::vector<std::string> lines_;
};

}  // namespace emm
