// What does not survive a call although it is written, whose rows a position numbers, and memory
// that methods share.
#include <doctest/doctest.h>

#include "method_builder.h"
#include "model/cache_kind.h"
#include "model/value_uses.h"

using namespace emm;

namespace {

// count <- start, at once or behind a look at what is there.
std::vector<StateTensor> state_of_count(bool is_looked_at, bool is_conditional, bool is_part) {
  Builder b;
  const int32_t count = b.tensor({4}, kLong);
  const int32_t start = b.tensor({4}, kLong);
  const int32_t seen = b.tensor({4}, kLong);
  const int32_t no = b.integer(0);
  if (is_conditional) b.jump(b.integer(1));
  if (is_looked_at) b.call("aten::mul.Scalar_out", {count, no, seen, seen});
  // A part of the same memory under another name.
  const int32_t target = is_part ? b.tensor_at(1, 0, {2}, kLong) : count;
  b.call("aten::copy_", {target, start, no, target});
  b.call("aten::copy_", {count, seen, no, count});
  return find_state(b.method(), 48);
}

ProgramInfo two_methods(uint64_t second_offset, int64_t second_bytes, bool is_scratch) {
  ProgramInfo program;
  for (const bool is_second : {false, true}) {
    Builder b;
    const int32_t cache = b.tensor_at(2, is_second ? second_offset : 0, {1, 48, 2, 8});
    const int32_t dummy = b.tensor({1});
    const int32_t tokens = b.tensor({1, 15}, kLong);
    if (is_scratch) b.call("aten::mul.Scalar_out", {tokens, b.integer(2), cache, cache});
    b.call("llama::update_cache.out", {b.tensor({1, 15, 2, 8}), cache, b.integer(0), dummy, dummy});
    b.input(tokens);
    b.method().name = is_second ? "second" : "first";
    b.method().arena_bytes = {0, 4096, is_second ? second_bytes : 65536};
    program.methods.push_back(b.method());
  }
  return program;
}

}  // namespace

TEST_CASE("what every call fills before it is read does not survive") {
  CHECK(state_of_count(false, false, false).empty());
  CHECK(state_of_count(true, false, false).size() == 1);
  CHECK(state_of_count(false, true, false).size() == 1);
  CHECK(state_of_count(false, false, true).size() >= 1);
}

TEST_CASE("a functional copy does not look at the tensor whose shape it takes") {
  Builder b;
  const int32_t count = b.tensor({}, kLong);
  const int32_t position = b.tensor({}, kLong);
  const int32_t now = b.tensor({}, kLong);
  const int32_t next = b.tensor({}, kLong);
  const int32_t no = b.integer(0);
  b.call("aten::copy.out", {count, position, no, now, now});
  b.call("aten::add.Scalar_out", {now, no, no, next, next});
  b.call("aten::copy_", {count, next, no, count});
  CHECK(find_state(b.method(), 48).empty());
}

TEST_CASE("rows that the position numbers are flat, however few; folded ones are not") {
  for (const bool is_folded : {false, true}) {
    Builder b;
    const int32_t cache = b.tensor({1, 2, 5, 8});
    const int32_t tokens = b.tensor({1, 3}, kLong);
    const int32_t position = b.tensor({3}, kLong);
    const int32_t one = b.integer(1);
    int32_t rows = b.tensor({3}, kLong);
    b.input(tokens);
    b.input(position);
    b.call("aten::add.Scalar_out", {position, one, one, rows, rows});
    if (is_folded) {
      const int32_t folded = b.tensor({3}, kLong);
      b.call("aten::remainder.Scalar_out", {rows, b.integer(5), folded, folded});
      rows = folded;
    }
    b.put_rows(cache, rows, b.tensor({1, 2, 3, 8}));
    const auto state = find_state(b.method(), 48);
    REQUIRE(state.size() == 1);
    CHECK(state[0].kind == (is_folded ? StateKind::kWhole : StateKind::kFlat));
    CHECK(state[0].rows == 5);
  }
}

TEST_CASE("keys that attention reads up to the position bound it, those read by a mask do not") {
  for (const bool by_position : {false, true}) {
    Builder b;
    const int32_t keys = b.tensor({1, 16, 2, 8});
    const int32_t position = b.integer(0);
    const int32_t none = b.nothing();
    const int32_t query = b.tensor({1, 3, 2, 8});
    b.input(b.tensor({1, 3}, kLong));
    b.input(position);
    const int32_t start = by_position ? position : b.integer(0);
    const int32_t out = b.tensor({1, 3, 2, 8});
    b.call("llama::custom_sdpa.out",
           {query, keys, keys, start, none, b.integer(0), b.integer(1), none, out, out});
    CHECK(num_attended_rows(b.method()) == (by_position ? 16 : 0));
    CHECK(has_own_attention(b.method()));
  }
}

TEST_CASE(
    "methods share a memory of one size that holds the same state for all, and nothing else") {
  const uint64_t bytes = 48 * 2 * 8 * 4;
  const ProgramInfo one = two_methods(0, 65536, false);
  const Sharing sharing = find_sharing(one);
  REQUIRE(sharing.memories.size() == 1);
  CHECK(sharing.memories.at(2) == 65536);
  CHECK(find_state(sharing, one.methods[0], 48).size() == 1);

  const ProgramInfo apart = two_methods(bytes, 65536, false);
  CHECK(find_state(find_sharing(apart), apart.methods[0], 48).size() == 2);  // the other's too

  CHECK(find_sharing(two_methods(bytes / 2, 65536, false)).memories.empty());  // they overlap
  CHECK(find_sharing(two_methods(0, 32768, false)).memories.empty());
  CHECK(find_sharing(two_methods(0, 65536, true)).memories.empty());  // a place for results
}
