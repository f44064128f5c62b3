// Conversations over one model in many threads: programs with each kind of cache, and folders.
#include <doctest/doctest.h>

#include "talk.h"

using namespace emm;
using namespace emm::threads;

TEST_CASE("conversations over one program answer as alone, whatever its cache is like") {
  for (const char* const name : {"export_llm/llama.pte", "export_llm/llama_quantized_kv_cache.pte",
                                 "export_llm/gemma3_narrow.pte", "export_llm/lfm2.pte",
                                 "optimum/llama.pte", "kvcache/flat.pte", "kvcache/ring.pte"}) {
    CAPTURE(name);
    expect_as_alone(*load(options_of(name)), options_of(name));
  }
}

TEST_CASE("conversations whose state is copied answer as alone") {
  LoadOptions options = options_of("export_llm/lfm2.pte");
  options.copies_state = true;
  const std::shared_ptr<Session> model = load(options);
  REQUIRE(model->contract().is_state_copied);
  expect_as_alone(*model, options_of("export_llm/lfm2.pte"));
}

TEST_CASE("conversations over a folder answer as alone, whoever has its cache") {
  for (const LoadOptions& options : {llama_folder(), gpt2_folder(), llava_folder()}) {
    CAPTURE(options.folder.parts[0].path);
    const std::shared_ptr<Session> model = load(options);
    CHECK(model->contract().is_state_copied == (options.folder.parts.size() == 5));
    expect_as_alone(*model, options);
  }
}
