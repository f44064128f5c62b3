// Conversations with a model in a process of its own, from many threads.
#ifdef __linux__
#include <doctest/doctest.h>
#include <signal.h>

#include "base/error.h"
#include "remote_model.h"
#include "talk.h"

using namespace emm;
using namespace emm::threads;

TEST_CASE("conversations with a model in another process answer as alone") {
  for (const char* const name :
       {"export_llm/llama.pte", "export_llm/gemma3_narrow.pte", "export_llm/lfm2.pte"}) {
    CAPTURE(name);
    const RemoteSession remote = load_remote(options_of(name));
    expect_as_alone(*remote.session, options_of(name));
  }
}

TEST_CASE("a process that ends is the same error in every thread, and none waits for ever") {
  const RemoteSession remote = load_remote(options_of("export_llm/llama.pte"));
  std::vector<std::shared_ptr<Session>> sessions;
  for (int i = 0; i < kNumThreads; ++i) sessions.push_back(remote.session->another());
  std::atomic<int> num_told{0};
  const int num_thrown = at_once([&](int number) {
    const std::shared_ptr<Session>& session = sessions[static_cast<size_t>(number)];
    try {
      for (int round = 0;; ++round) {
        if (number == 0 && round == 3) kill(remote.process, SIGKILL);
        session->reset();
        read(*session, {5, 9, 2});
        answer(session, 6);
      }
    } catch (const Error& error) {
      num_told += error.code() == ErrorCode::kProcess;
    }
  });
  CHECK(num_thrown == 0);
  CHECK(num_told == kNumThreads);
}
#endif
