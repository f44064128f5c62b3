// Log lines wait in a bounded queue; error lines also go to the capture of their thread.
#include <doctest/doctest.h>

#include <string>
#include <thread>

#include "base/log.h"

using namespace emm;

namespace {

void push(int number) { LogQueue::instance().push({LogLevel::kInfo, "file", number, "line"}); }

}  // namespace

TEST_CASE("lines of all threads are taken once, in order") {
  LogQueue::instance().take();
  push(1);
  std::thread(push, 2).join();
  const auto lines = LogQueue::instance().take();
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].line == 1);
  CHECK(lines[1].line == 2);
  CHECK(LogQueue::instance().take().empty());
}

TEST_CASE("when nobody takes the lines the oldest go, and their number is told") {
  LogQueue::instance().take();
  for (int i = 0; i < static_cast<int>(LogQueue::kCapacity) + 3; ++i) push(i);
  const auto lines = LogQueue::instance().take();
  REQUIRE(lines.size() == LogQueue::kCapacity + 1);
  CHECK(lines[0].text == "3 older log lines were dropped");
  CHECK(lines[1].line == 3);
  push(0);
  CHECK(LogQueue::instance().take().size() == 1);
}

TEST_CASE("the innermost capture of a thread gets its lines") {
  const LogCapture outer;
  LogCapture::add("one");
  {
    const LogCapture inner;
    LogCapture::add("two");
    std::thread([] { LogCapture::add("elsewhere"); }).join();
    CHECK(inner.text() == "two");
  }
  LogCapture::add("three");
  CHECK(outer.text() == "one; three");
}
