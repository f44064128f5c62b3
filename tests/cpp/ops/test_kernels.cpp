// What the Python tests of the operators cannot see: the table of kernels, and calls from several
// threads at once (for the thread sanitizer).
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <utility>
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

TEST_CASE("rows that are to come out as alone have the bits of calls of one token") {
  const std::string before = emm::ops::instruction_set();
  for (const char* isa : {"baseline", "avx2", "avx512", "neon"}) {
    if (!emm::ops::force_isa(isa)) continue;
    // Few heads and many, keys of one task and of several, and a border between such within a call.
    for (const auto& [heads, kv_heads] :
         {std::pair<int64_t, int64_t>{6, 2}, {9, 3}, {4, 4}, {12, 1}}) {
      for (const int64_t keys : {14, 170, 180, 300, 900}) {
        for (const int64_t window : {0, 20}) {
          for (const int64_t tokens : {2, 3, 7, 13}) {
            Problem together(tokens, keys, heads, kv_heads, 64);
            together.description.window = window;
            {
              const emm::ops::RowsAlone scope(true);
              REQUIRE(emm::ops::attention(together.description));
            }
            Problem alone(tokens, keys, heads, kv_heads, 64);
            const auto row = static_cast<size_t>(heads * 64);
            for (int64_t token = 0; token < tokens; ++token) {
              emm::ops::AttentionProblem one = alone.description;
              const auto at = static_cast<size_t>(token) * row;
              one.tokens = 1;
              one.q.data = &alone.q[at];
              one.out = &alone.out[at];
              one.causal_start = keys - tokens + token;
              one.keys = one.causal_start + 1;
              if (window > 0 && one.keys > window) {  // as a ring has it: only what is looked at
                const int64_t first = one.keys - window;
                one.k.data = &alone.k[static_cast<size_t>(first * kv_heads * 64)];
                one.v.data = &alone.v[static_cast<size_t>(first * kv_heads * 64)];
                one.keys = window;
                one.causal_start -= first;
              }
              one.window = window;
              REQUIRE(emm::ops::attention(one));
            }
            CHECK(together.out == alone.out);
          }
        }
      }
    }
  }
  CHECK(emm::ops::force_isa(before.c_str()));
}

TEST_CASE("rows over bytes that are to come out as alone have the bits of calls of one token") {
  const std::string before = emm::ops::instruction_set();
  const int64_t heads = 9, kv_heads = 3;
  for (const char* isa : {"baseline", "avx2", "avx512", "neon"}) {
    if (!emm::ops::force_isa(isa)) continue;
    for (const int64_t keys : {14, 97, 300, 900}) {
      for (const int64_t tokens : {2, 7, 13}) {
        Problem together(tokens, keys, heads, kv_heads, 64);
        std::vector<int8_t> bytes(together.k.size());
        std::vector<int8_t> zeros(static_cast<size_t>(keys * kv_heads));
        std::vector<float> scales(zeros.size());
        for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<int8_t>(i * 37 % 251);
        for (size_t i = 0; i < zeros.size(); ++i) {
          zeros[i] = static_cast<int8_t>(i * 91 % 256);
          scales[i] = 0.001f * static_cast<float>(i % 13 + 1);
        }
        auto& p = together.description;
        p.store = emm::ops::Store::kInt8;
        for (emm::ops::Matrix* m : {&p.k, &p.v}) {
          m->data = bytes.data();
          m->zeros = zeros.data();
          m->scales = scales.data();
          m->quant_strides = {0, kv_heads, 1};
        }
        std::vector<float> alone(together.out.size());
        for (int64_t token = 0; token < tokens; ++token) {
          emm::ops::AttentionProblem one = p;
          const auto at = static_cast<size_t>(token * heads * 64);
          one.tokens = 1;
          one.q.data = &together.q[at];
          one.out = &alone[at];
          one.causal_start = keys - tokens + token;
          one.keys = one.causal_start + 1;
          REQUIRE(emm::ops::attention(one));
        }
        const emm::ops::RowsAlone scope(true);
        REQUIRE(emm::ops::attention(p));
        CHECK(together.out == alone);
      }
    }
  }
  CHECK(emm::ops::force_isa(before.c_str()));
}

TEST_CASE("rows that are to come out as alone look at a mask's row each") {
  const int64_t tokens = 5;
  const int64_t keys = 400;
  Problem together(tokens, keys, 9, 3, 64);
  std::vector<float> mask(static_cast<size_t>(tokens * keys));
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 7 == 3 ? -INFINITY : 0.0f;
  together.description.causal_start = emm::ops::kNotCausal;
  together.description.mask = mask.data();
  together.description.mask_stride = keys;
  Problem alone(tokens, keys, 9, 3, 64);
  for (int64_t token = 0; token < tokens; ++token) {
    emm::ops::AttentionProblem one = together.description;
    one.tokens = 1;
    one.q.data = &alone.q[static_cast<size_t>(token * 9 * 64)];
    one.out = &alone.out[static_cast<size_t>(token * 9 * 64)];
    one.mask = &mask[static_cast<size_t>(token * keys)];
    REQUIRE(emm::ops::attention(one));
  }
  const emm::ops::RowsAlone scope(true);
  REQUIRE(emm::ops::attention(together.description));
  CHECK(together.out == alone.out);
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

TEST_CASE("a row of a call of several tokens has the same bits however many they are") {
  const std::string before = emm::ops::instruction_set();
  constexpr int64_t kMany = 40;
  for (const char* isa : {"baseline", "avx2", "avx512", "neon"}) {
    if (!emm::ops::force_isa(isa)) continue;
    for (const auto& [heads, kv_heads] :
         {std::pair<int64_t, int64_t>{6, 2}, {9, 3}, {4, 4}, {12, 1}}) {
      for (const int64_t keys : {kMany, int64_t{170}, int64_t{900}}) {
        Problem many(kMany, keys, heads, kv_heads, 64);
        REQUIRE(emm::ops::attention(many.description));
        const auto row = static_cast<size_t>(heads * 64);
        for (const int64_t tokens : {2, 3, 4, 5, 8, 9, 17, 39}) {
          for (const int64_t first : {int64_t{0}, (kMany - tokens) / 2, kMany - tokens}) {
            Problem few(kMany, keys, heads, kv_heads, 64);
            emm::ops::AttentionProblem& part = few.description;
            const auto at = static_cast<size_t>(first) * row;
            part.tokens = tokens;
            part.q.data = &few.q[at];
            part.causal_start = keys - kMany + first;
            part.keys = part.causal_start + tokens;
            REQUIRE(emm::ops::attention(part));
            CHECK(std::memcmp(few.out.data(), &many.out[at],
                              static_cast<size_t>(tokens) * row * sizeof(float)) == 0);
          }
        }
      }
    }
  }
  CHECK(emm::ops::force_isa(before.c_str()));
}
