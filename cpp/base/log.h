// Where the core's diagnostics go. Library code never prints: every line is put into the LogQueue,
// which the bindings empty into the caller's log, and error lines are also collected by the
// LogCapture that is open on the current thread and end up in the exception's message.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace emm {

enum class LogLevel { kDebug, kInfo, kError, kFatal };

struct LogLine {
  LogLevel level = LogLevel::kInfo;
  std::string file;
  int64_t line = 0;
  std::string text;
};

// The lines of all threads that nobody has taken yet. Holds a bounded number of them: when nobody
// comes to take them, the oldest go.
class LogQueue {
 public:
  // Never destroyed: worker threads may log while the process exits.
  static LogQueue& instance() {
    static auto* queue = new LogQueue;
    return *queue;
  }

  void push(LogLine line) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (lines_.size() == kCapacity) {
      lines_.pop_front();
      ++num_dropped_;
    }
    lines_.push_back(std::move(line));
    is_empty_ = false;
  }

  // Takes them all; a line that says so comes first when some had to go. Costs one load when there
  // are none.
  std::vector<LogLine> take() {
    if (is_empty_) return {};
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<LogLine> taken;
    if (num_dropped_ > 0) {
      taken.push_back({LogLevel::kInfo, "log.h", __LINE__,
                       std::to_string(num_dropped_) + " older log lines were dropped"});
    }
    for (LogLine& line : lines_) taken.push_back(std::move(line));
    lines_.clear();
    num_dropped_ = 0;
    is_empty_ = true;
    return taken;
  }

  static constexpr size_t kCapacity = 1000;

 private:
  std::mutex mutex_;
  std::deque<LogLine> lines_;
  int64_t num_dropped_ = 0;
  std::atomic<bool> is_empty_{true};
};

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

  static bool is_open() { return current() != nullptr; }
  static std::string innermost_text() { return is_open() ? current()->text() : std::string(); }

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
