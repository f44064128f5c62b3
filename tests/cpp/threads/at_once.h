// Threads that use one loaded model at the same time. Under ThreadSanitizer they show what is
// shared without a lock; in every build that each answers as a conversation that is alone.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "et/et_executor.h"
#include "et/et_folder.h"
#include "runtime/generation.h"
#include "runtime/session.h"

namespace emm::threads {

using Ids = std::vector<int64_t>;
using Tokens = std::vector<int32_t>;

constexpr int kNumThreads = 6;

inline std::string model_file(const std::string& name) {
  return std::string(EMM_SOURCE_DIR) + "/tests/models/" + name;
}

// ExecuTorch's thread pool is not instrumented: its hand-overs would be reported as races.
inline LoadOptions options_of(const std::string& name) {
  LoadOptions options;
  options.model_path = model_file(name);
  options.num_threads = 1;
  return options;
}

inline std::shared_ptr<Session> load(const LoadOptions& options) {
  std::unique_ptr<Executor> executor;
  if (options.folder.parts.empty())
    executor = std::make_unique<EtExecutor>(options);
  else
    executor = std::make_unique<EtFolder>(options);
  return std::make_shared<Session>(std::move(executor));
}

// Runs `work(number)` in threads that begin together; how many of them threw.
inline int at_once(const std::function<void(int)>& work, int num_threads = kNumThreads) {
  std::atomic<int> num_here{0};
  std::atomic<int> num_thrown{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < num_threads; ++number) {
    threads.emplace_back([&, number] {
      ++num_here;
      while (num_here < num_threads) std::this_thread::yield();
      try {
        work(number);
      } catch (const std::exception&) {
        ++num_thrown;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return num_thrown;
}

inline void prefill(Session& session, std::vector<Input> inputs) {
  session.begin_request();
  session.begin_prefill(std::move(inputs));
  while (session.step_prefill()) {
  }
}
inline void read(Session& session, Ids ids) { prefill(session, {TokenInput{std::move(ids)}}); }

inline Tokens answer(const std::shared_ptr<Session>& session, int64_t count,
                     const GenerationOptions& like = {},
                     const std::shared_ptr<Drafter>& drafter = nullptr) {
  GenerationOptions options = like;
  options.max_new_tokens = count;
  session->begin_request();
  Generation generation(session, options, drafter);
  Tokens tokens;
  while (const auto token = generation.next()) tokens.push_back(*token);
  return tokens;
}

// Folders of tests/models/export_folders, as their export.json says: Python reads it, and is not
// here. One whose cache is ours, one whose cache grows, and one whose decoder keeps it.
LoadOptions llama_folder();
LoadOptions gpt2_folder();
LoadOptions llava_folder();

}  // namespace emm::threads
