// What a decoder remembers, read from instructions as exporters emit them, and how far it can go
// back.
#include <doctest/doctest.h>

#include "method_builder.h"
#include "model/cache_kind.h"
#include "model/kv_position.h"
#include "model/value_uses.h"

using namespace emm;

TEST_CASE("a cache written at its position is flat, whichever operator writes it") {
  Builder b;
  const int32_t keys = b.tensor({1, 48, 2, 8});
  const int32_t values = b.tensor({1, 2, 48, 8});
  const int32_t dummy = b.tensor({1});
  b.call("llama::update_cache.out", {b.tensor({1, 15, 2, 8}), keys, b.integer(0), dummy, dummy});
  b.put_rows(values, b.tensor({15}, kLong), b.tensor({1, 2, 15, 8}));
  const auto state = find_state(b.method(), 48);
  REQUIRE(state.size() == 2);
  CHECK(state[0].kind == StateKind::kFlat);
  CHECK(state[0].outer == 1);
  CHECK(state[0].rows == 48);
  CHECK(state[0].row_bytes == 2 * 8 * 4);
  CHECK(state[1].kind == StateKind::kFlat);
  CHECK(state[1].outer == 2);
  CHECK(state[1].rows == 48);
  CHECK(state[1].row_bytes == 8 * 4);
  CHECK(state[1].offset == 48 * 2 * 8 * 4);
  CHECK(cache_limits(state).ring_rows == 0);
  CHECK_FALSE(cache_limits(state).is_recurrent);
}

TEST_CASE("a ring is told by its operator, or by the table of the positions in its rows") {
  for (const bool by_operator : {true, false}) {
    for (const bool has_sink : {true, false}) {
      CAPTURE(by_operator);
      CAPTURE(has_sink);
      Builder b;
      const int32_t table = b.tensor({16}, kLong, has_sink ? 3 : 0);
      const int32_t rows = b.tensor({8}, kLong);
      b.put_rows(table, rows, b.tensor({8}, kLong), /*at_front=*/true);
      if (by_operator) {
        const int32_t dummy = b.tensor({1});
        b.call("llama::update_cache_with_indices.out",
               {b.tensor({1, 8, 2, 8}), b.tensor({1, 16, 2, 8}), b.integer(0), rows, dummy, dummy});
      } else {
        b.put_rows(b.tensor({1, 2, 16, 8}), rows, b.tensor({1, 2, 8, 8}));
      }
      const auto state = find_state(b.method(), 48);
      REQUIRE(state.size() == 2);
      for (const StateTensor& tensor : state) CHECK(tensor.kind == StateKind::kRing);
      const CacheLimits limits = cache_limits(state);
      CHECK(limits.ring_rows == 16);
      CHECK(limits.ring_window == (has_sink ? 4 : 8));
      CHECK(limits.is_unbounded == has_sink);
    }
  }
}

TEST_CASE("what each call rewrites is recurrent, also when it is written like rows") {
  Builder b;
  const int32_t conv_state = b.tensor({1, 64, 2});
  const int32_t shifted = b.tensor({1, 64, 2});
  b.call("aten::mul.Scalar_out", {conv_state, b.integer(2), shifted, shifted});
  b.call("aten::copy_", {conv_state, shifted, b.integer(0), conv_state});
  const int32_t delta_state = b.tensor({1, 4, 8, 8});
  const int32_t changed = b.tensor({1, 4, 8, 8});
  const int32_t zero = b.integer(0);
  b.call("aten::slice_scatter.out", {delta_state, b.tensor({1, 4, 8, 8}), zero, zero, b.integer(1),
                                     b.integer(1), changed, changed});
  b.call("aten::copy_", {delta_state, changed, zero, delta_state});
  b.put_rows(b.tensor({1, 2, 5, 8}), b.tensor({5}, kLong), b.tensor({1, 2, 5, 8}));  // too few rows
  const auto state = find_state(b.method(), 48);
  REQUIRE(state.size() == 3);
  for (const StateTensor& tensor : state) CHECK(tensor.kind == StateKind::kWhole);
  CHECK(cache_limits(state).is_recurrent);
}

TEST_CASE("positions: how far back a flat cache, a ring and a recurrence can go") {
  KvPosition flat(100);
  flat.begin_write(60);
  flat.advance(60);
  CHECK(flat.available() == 40);
  CHECK(flat.lowest_rewind() == 0);
  CHECK(flat.stays_open(40));

  KvPosition ring(100, {16, 8, false, false});
  ring.begin_write(16);
  ring.advance(16);
  CHECK(ring.lowest_rewind() == 0);  // nothing has been overwritten
  CHECK(ring.stays_open(8));
  CHECK_FALSE(ring.stays_open(9));
  ring.begin_write(4);
  ring.advance(4);
  CHECK(ring.lowest_rewind() == 12);
  ring.rewind(14);
  CHECK(ring.lowest_rewind() == 12);  // rows above are still those of 14 to 19
  CHECK(ring.is_intact());
  ring.begin_write(15);  // fails
  CHECK_FALSE(ring.is_intact());
  ring.reset();
  CHECK(ring.is_intact());

  KvPosition recurrent(100, {0, 0, true, false});
  recurrent.begin_write(3);
  CHECK_FALSE(recurrent.is_intact());
  recurrent.advance(3);
  CHECK(recurrent.is_intact());
  CHECK(recurrent.lowest_rewind() == 3);
  CHECK_FALSE(recurrent.stays_open(1));

  KvPosition sink(100, {16, 4, false, true});
  sink.begin_write(90);
  sink.advance(90);
  CHECK(sink.available() == 100);
}

TEST_CASE("ids that tokens are compared with are found, behind a copy too; others are not") {
  Builder b;
  const int32_t tokens = b.tensor({1, 4}, kLong);
  const int32_t other = b.tensor({1, 4}, kLong);
  b.input(tokens);
  b.input(other);
  const int32_t flags = b.tensor({1, 4});
  const int32_t copy = b.tensor({1, 4}, kLong);
  b.call("aten::eq.Scalar_out", {tokens, b.integer(11), flags, flags});
  b.call("dim_order_ops::_to_dim_order_copy.out", {tokens, b.integer(0), b.integer(0), copy, copy});
  b.call("aten::eq.Scalar_out", {copy, b.integer(7), flags, flags});
  b.call("aten::eq.Scalar_out", {other, b.integer(5), flags, flags});
  b.call("aten::ge.Scalar_out", {tokens, b.integer(3), flags, flags});
  b.call("aten::add.Scalar_out", {tokens, b.integer(1), b.integer(1), other, other});
  b.call("aten::eq.Scalar_out", {other, b.integer(6), flags, flags});
  CHECK(compared_ids(b.method(), 0) == std::vector<int64_t>{7, 11});
  CHECK(compared_ids(b.method(), 5).empty());
}
