// Answers that are drafted ahead in many threads, with one draft model for all.
#include <doctest/doctest.h>

#include "at_once.h"
#include "runtime/drafter.h"
#ifdef __linux__
#include "remote_model.h"
#endif

using namespace emm;
using namespace emm::threads;

namespace {

constexpr int64_t kCount = 20;

Ids prompt_of(int number) { return {5, 9, 2, 33, 5, 9, 2, 33, 5, 4 + number % 4}; }

GenerationOptions options_with(int64_t num_lookup_tokens, int64_t num_assistant_tokens,
                               float temperature) {
  GenerationOptions options;
  options.num_lookup_tokens = num_lookup_tokens;
  options.num_assistant_tokens = num_assistant_tokens;
  options.sampling.temperature = temperature;
  options.sampling.seed = 3;
  return options;
}

// `is_measured`: how much is guessed follows from the clock, whose books all threads write.
void expect_as_without(Session& model, Session& draft, const LoadOptions& options,
                       bool is_measured) {
  const std::shared_ptr<Session> plain = load(options);
  std::vector<Tokens> wanted;
  for (int number = 0; number < 8; ++number) {
    plain->reset();
    read(*plain, prompt_of(number));
    wanted.push_back(answer(plain, kCount, options_with(0, 0, number < 4 ? 0.0F : 0.8F)));
  }
  if (!is_measured) model.costs()->fix();
  std::vector<std::shared_ptr<Session>> sessions;
  std::vector<std::shared_ptr<Drafter>> drafters;
  for (int i = 0; i < kNumThreads; ++i) {
    sessions.push_back(model.another());
    drafters.push_back(std::make_shared<Drafter>(draft.another(), 0.05, is_measured));
  }
  std::atomic<int> num_wrong{0};
  std::atomic<int64_t> num_drafted{0};
  const int num_thrown = at_once([&](int thread) {
    std::mt19937 chance(static_cast<unsigned>(thread));
    std::shared_ptr<Session> session = sessions[static_cast<size_t>(thread)];
    std::shared_ptr<Drafter> drafter = drafters[static_cast<size_t>(thread)];
    for (int round = 0; round < 15; ++round) {
      const auto number = static_cast<size_t>(chance() % 8);
      session->reset();
      read(*session, prompt_of(static_cast<int>(number)));
      if (chance() % 4 == 0) {  // as executorch_mm/_engine/drafting.py forks it
        session = session->fork();
        drafter = std::make_shared<Drafter>(drafter->session().fork(), 0.05, is_measured);
      }
      const bool is_looked_up = chance() % 2 == 0;
      const GenerationOptions how =
          options_with(is_looked_up ? 5 : 0, is_looked_up ? 0 : 5, number < 4 ? 0.0F : 0.8F);
      const bool is_cancelled = chance() % 5 == 0;
      std::thread other;
      if (is_cancelled) other = std::thread([session] { session->cancel(); });
      const Tokens found = answer(session, kCount, how, is_looked_up ? nullptr : drafter);
      if (is_cancelled) other.join();
      const Tokens& all = wanted[number];
      const auto end = all.begin() + static_cast<std::ptrdiff_t>(found.size());
      num_wrong += is_cancelled ? found != Tokens(all.begin(), end) : found != all;
      num_drafted += session->timings().num_drafted_tokens;
    }
  });
  CHECK(num_thrown == 0);
  CHECK(num_wrong == 0);
  if (!is_measured) CHECK(num_drafted > 0);
}

}  // namespace

TEST_CASE("answers that a lookup or a model drafts are those without, in every thread") {
  for (const char* const name :
       {"export_llm/llama_full_logits.pte", "optimum/llama_custom.pte", "kvcache/flat.pte"}) {
    for (const bool is_measured : {false, true}) {
      CAPTURE(name);
      CAPTURE(is_measured);
      expect_as_without(*load(options_of(name)), *load(options_of("export_llm/llama.pte")),
                        options_of(name), is_measured);
    }
  }
}

TEST_CASE("a model may draft for itself") {
  const LoadOptions options = options_of("export_llm/llama_full_logits.pte");
  const std::shared_ptr<Session> model = load(options);
  const std::shared_ptr<Session> draft = load(options);
  expect_as_without(*model, *draft, options, false);
}

TEST_CASE("the same over a folder") {
  expect_as_without(*load(llama_folder()), *load(options_of("export_llm/llama.pte")),
                    llama_folder(), false);
}

#ifdef __linux__
TEST_CASE("the same where both models are in processes of their own") {
  const LoadOptions options = options_of("export_llm/llama_full_logits.pte");
  const RemoteSession model = load_remote(options);
  const RemoteSession draft = load_remote(options_of("export_llm/llama.pte"));
  expect_as_without(*model.session, *draft.session, options, false);
}
#endif
