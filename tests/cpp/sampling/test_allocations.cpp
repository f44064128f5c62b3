// A step allocates nothing once a sampler is prepared. Counts the calls of operator new.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <vector>

#include "sampling/sampler.h"

// gcc sees new and delete replaced one by one where it inlines them, as under the sanitizers.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

namespace {
std::atomic<int64_t> num_allocations{0};
}

void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++num_allocations;
  return std::malloc(size);
}
void* operator new(size_t size) {
  if (void* memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

using namespace emm;

TEST_CASE("a step allocates nothing") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> row(20000);
  for (float& logit : row) logit = normal(random);
  std::vector<int64_t> history = {5, 6, 7, 5, 6};
  history.reserve(100);

  SamplingOptions plain;
  plain.temperature = 0.8f;
  SamplingOptions nucleus = plain, typical = plain, everything = plain;
  nucleus.top_p = 0.9f;
  typical.typical_p = 0.9f;
  everything.top_k = 1000;
  everything.top_p = 0.9f;
  everything.min_p = 0.001f;
  everything.typical_p = 0.9f;
  everything.repetition_penalty = 1.2f;
  everything.frequency_penalty = 0.1f;
  everything.no_repeat_ngram_size = 3;
  everything.suppress_tokens = {1, 2};
  everything.logit_bias = {{3, 1.0f}};
  everything.num_logprobs = 5;
  for (const SamplingOptions& options : {SamplingOptions{}, plain, nucleus, typical, everything}) {
    Sampler sampler(options);
    history.push_back(sampler.sample(row.data(), 20000, history));
    const int64_t before = num_allocations;
    for (int i = 0; i < 10; ++i) history.push_back(sampler.sample(row.data(), 20000, history));
    CHECK(num_allocations == before);
  }
}
