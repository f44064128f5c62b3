// A session over a FakeExecutor, for tests of what sessions and generations do.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "runtime/generation.h"
#include "runtime/session.h"
#include "testing/fake_executor.h"

namespace emm::testing {

struct FakeSession {
  explicit FakeSession(Contract contract = fake_contract(),
                       FakeExecutor::Rule rule = FakeExecutor::count_up) {
    auto executor = std::make_unique<FakeExecutor>(std::move(contract), std::move(rule));
    fake = executor.get();
    session = std::make_shared<Session>(std::move(executor));
    session->costs()->fix();  // its calls take no time
  }

  void prefill(std::vector<Input> inputs) {
    session->begin_prefill(std::move(inputs));
    while (session->step_prefill()) {
    }
  }

  std::vector<int32_t> generate(int64_t max_new_tokens, FinishReason* reason = nullptr) {
    GenerationOptions options;
    options.max_new_tokens = max_new_tokens;
    options.eos_ids = session->contract().eos_ids;
    Generation generation(session, options);
    std::vector<int32_t> tokens;
    while (const auto token = generation.next()) tokens.push_back(*token);
    if (reason != nullptr) *reason = generation.finish_reason();
    return tokens;
  }

  FakeExecutor* fake;  // owned by the session
  std::shared_ptr<Session> session;
};

inline const std::vector<float> kPixels(3 * 4 * 4, 0.25f);

inline ImageInput image() { return {{kPixels.data(), DType::kFloat32, {3, 4, 4}}, nullptr}; }

}  // namespace emm::testing
