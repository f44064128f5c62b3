// What the Python tests of the operators cannot see: the table of kernels, and calls from several
// threads at once (for the thread sanitizer).
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ops/attention.h"
#include "ops/isa.h"
#include "ops/kernels.h"
#include "ops/scratch.h"

namespace {

struct Problem {
  emm::ops::AttentionProblem description;
  std::vector<float> q, k, v, out;

  Problem(int64_t tokens, int64_t keys, int64_t heads, int64_t kv_heads, int64_t size) {
    const auto fill = [](std::vector<float>& values, int64_t count, float step) {
      values.resize(static_cast<size_t>(count));
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = std::sin(step * static_cast<float>(i));
      }
    };
    fill(q, tokens * heads * size, 0.37f);
    fill(k, keys * kv_heads * size, 0.11f);
    fill(v, keys * kv_heads * size, 0.23f);
    out.assign(q.size(), 0.0f);
    auto& p = description;
    p.q.data = q.data();
    p.k.data = k.data();
    p.v.data = v.data();
    p.out = out.data();
    p.q.strides = p.out_strides = {0, heads * size, size};
    p.k.strides = p.v.strides = {0, kv_heads * size, size};
    p.batch = 1;
    p.tokens = tokens;
    p.q_heads = heads;
    p.kv_heads = kv_heads;
    p.head_size = size;
    p.keys = keys;
    p.scale = 0.125f;
    p.causal_start = keys - tokens;
  }
};

}  // namespace

TEST_CASE("every operator is listed once, under the name that programs use") {
  std::set<std::string> names;
  for (const auto& kernel : emm::ops::llm_kernels()) {
    CHECK((kernel.op_ != nullptr));
    CHECK(names.insert(kernel.name_).second);
    CHECK(std::string(kernel.name_).find(".out") != std::string::npos);
  }
  CHECK(names.count("llama::custom_sdpa.out") == 1);
  CHECK(names.count("llama::update_cache.out") == 1);
  CHECK(names.count("preprocess::tile_crop.out") == 1);
}

TEST_CASE("an unknown instruction set is refused and changes nothing") {
  const std::string before = emm::ops::instruction_set();
  CHECK_FALSE(emm::ops::force_isa("avx1024"));
  CHECK(before == emm::ops::instruction_set());
  CHECK(emm::ops::force_isa(before.c_str()));
}

TEST_CASE("attention gives every thread that calls it at once the same answer") {
  for (const int64_t tokens : {int64_t{1}, int64_t{40}}) {
    Problem expected(tokens, 900, 6, 2, 64);
    REQUIRE(emm::ops::attention(expected.description));
    std::vector<Problem> problems;
    for (int i = 0; i < 4; ++i) {
      problems.emplace_back(tokens, 900, 6, 2, 64);
    }
    std::vector<std::thread> threads;
    for (Problem& problem : problems) {
      threads.emplace_back([&problem] {
        problem.description.out = problem.out.data();
        for (int repeat = 0; repeat < 5; ++repeat) {
          emm::ops::attention(problem.description);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    for (const Problem& problem : problems) {
      CHECK(std::memcmp(problem.out.data(), expected.out.data(), problem.out.size() * 4) == 0);
    }
  }
}

TEST_CASE("scratch memory grows to the largest request and then stays") {
  const int64_t before = emm::ops::scratch_growths();
  std::thread([] {
    CHECK(emm::ops::scratch_growths() == 0);
    float* first = emm::ops::scratch_memory(1000);
    REQUIRE(first != nullptr);
    CHECK(emm::ops::scratch_memory(10) == first);
    CHECK(emm::ops::scratch_growths() == 1);
    CHECK(emm::ops::scratch_memory(1 << 20) != nullptr);
    CHECK(emm::ops::scratch_growths() == 2);
  }).join();
  CHECK(emm::ops::scratch_growths() == before);
}
