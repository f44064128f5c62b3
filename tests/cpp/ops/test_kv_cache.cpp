// The cache behind kvcache::update_and_attend: who owns which rows. What it makes attention compute
// is tested in Python.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "ops/kv_cache.h"

namespace {

using emm::ops::KvCache;
using emm::ops::KvCacheScope;
using emm::ops::KvCacheShape;
using emm::ops::KvRun;
using emm::ops::KvSequence;
using emm::ops::Store;

KvCacheShape shape_of(int64_t window = 0) {
  KvCacheShape shape;
  shape.layers = {{1, 4, 4, 0}, {1, 4, 4, window}};
  shape.capacity = 1000;
  shape.max_write = 8;
  return shape;
}

std::vector<int64_t> range(int64_t first, int64_t count) {
  std::vector<int64_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

// Writes `count` rows that hold `mark` from `first` on, in both layers.
std::string write(KvCache& cache, KvSequence& sequence, int64_t first, int64_t count, float mark) {
  cache.begin_step({{&sequence, count}});
  const std::string wrong = cache.place(range(first, count));
  if (!wrong.empty()) return wrong;
  const float row[4] = {mark, mark, mark, mark};
  std::vector<KvRun> runs;
  for (int64_t layer = 0; layer < 2; ++layer) {
    cache.runs(layer, {&sequence, count}, &runs);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = runs.back().row + runs.back().count - count + i;
      runs.back().pair->keys.write(at, 0, row, Store::kFloat32, 4);
      runs.back().pair->values.write(at, 0, row, Store::kFloat32, 4);
    }
  }
  return "";
}

// The marks of what a layer keeps for a last token, oldest first.
std::vector<float> marks(KvCache& cache, KvSequence& sequence, int64_t layer) {
  std::vector<KvRun> runs;
  cache.runs(layer, {&sequence, 1}, &runs);
  std::vector<float> found;
  for (const KvRun& run : runs) {
    for (int64_t i = 0; i < run.count; ++i)
      found.push_back(*static_cast<const float*>(run.pair->keys.matrix(run.row + i).data));
  }
  return found;
}

}  // namespace

TEST_CASE("a fork stays what it was, whatever is written afterwards") {
  KvCache cache(shape_of(3));
  KvSequence sequence = cache.new_sequence();
  CHECK(write(cache, sequence, 0, 5, 1).empty());
  const KvSequence saved = sequence;
  CHECK(write(cache, sequence, 5, 1, 2).empty());
  CHECK(write(cache, sequence, 2, 2, 3).empty());
  CHECK((marks(cache, sequence, 0) == std::vector<float>{1, 1, 3, 3}));
  sequence = saved;
  CHECK((marks(cache, sequence, 0) == std::vector<float>{1, 1, 1, 1, 1}));
  CHECK((marks(cache, sequence, 1) == std::vector<float>{1, 1, 1}));
  CHECK(write(cache, sequence, 5, 1, 4).empty());
  CHECK((marks(cache, sequence, 0) == std::vector<float>{1, 1, 1, 1, 1, 4}));
  sequence = saved;
  CHECK((marks(cache, sequence, 0) == std::vector<float>{1, 1, 1, 1, 1}));
}

TEST_CASE("a fork may be shorter, and takes less") {
  KvCache cache(shape_of());
  KvSequence sequence = cache.new_sequence();
  CHECK(write(cache, sequence, 0, 8, 1).empty());
  const KvSequence all = sequence.fork(100);
  const KvSequence half = sequence.fork(4);
  CHECK(all.length() == 8);
  CHECK(half.length() == 4);
  CHECK(half.bytes() * 2 == all.bytes());
}

TEST_CASE("a sequence outlives its cache, and ends on any thread") {
  auto cache = std::make_unique<KvCache>(shape_of(3));
  KvSequence sequence = cache->new_sequence();
  CHECK(write(*cache, sequence, 0, 8, 1).empty());
  auto fork = std::make_unique<KvSequence>(sequence);
  std::thread([&fork] { fork.reset(); }).join();
  CHECK(write(*cache, sequence, 8, 2, 2).empty());
  cache.reset();
  CHECK(sequence.length() == 10);
}

TEST_CASE("a ring keeps what its window and a rewind need, and no more than twice that") {
  KvCache cache(shape_of(16));
  KvSequence sequence = cache.new_sequence();
  for (int64_t position = 0; position < 500; position += 5)
    REQUIRE(write(cache, sequence, position, 5, static_cast<float>(position / 5)).empty());
  constexpr int64_t kRowBytes = 2 * 4 * 4;
  const int64_t rows = sequence.bytes() / kRowBytes - 500;
  CHECK(rows >= 16 + 8 - 1);
  CHECK(rows <= 2 * (16 + 8 - 1));
  CHECK(write(cache, sequence, 492, 1, 7).empty());
  CHECK(write(cache, sequence, 300, 1, 7) ==
        "sequence 0: expected a position from " + std::to_string(500 - rows + 15) +
            " on, where a window of 16 is still there, got 300");
  CHECK(sequence.length() == 493);
}

TEST_CASE("a sequence comes back from its bytes") {
  for (const Store store : {Store::kFloat32, Store::kFloat16, Store::kInt8}) {
    KvCacheShape shape = shape_of(3);
    shape.layers.insert(shape.layers.begin() + 1, emm::ops::KvLayer{});  // nothing calls it
    shape.layers.insert(shape.layers.begin(), shape.layers[0]);
    std::swap(shape.layers[1], shape.layers[3]);
    shape.store = store;
    KvCache cache(shape);
    KvSequence sequence = cache.new_sequence();
    CHECK(cache.num_bytes(0) == 0);
    CHECK(cache.to_bytes(sequence).empty());
    CHECK(write(cache, sequence, 0, 30, 1).empty());
    const KvSequence fork = sequence;  // so that what follows lies in a block of its own
    CHECK(write(cache, sequence, 28, 5, 2).empty());
    const std::vector<uint8_t> bytes = cache.to_bytes(sequence);
    CHECK(static_cast<int64_t>(bytes.size()) == cache.num_bytes(33));
    KvSequence other = cache.from_bytes(33, bytes.data());
    CHECK(other.length() == 33);
    CHECK((cache.to_bytes(other) == bytes));
    CHECK(write(cache, other, 33, 1, 3).empty());
    CHECK(write(cache, other, 33 - 8, 1, 3).empty());
  }
}

TEST_CASE("bytes of a ring that has been rewound have zeros where rows are gone") {
  KvCache cache(shape_of(3));
  KvSequence sequence = cache.new_sequence();
  for (int64_t position = 0; position < 99; ++position) write(cache, sequence, position, 1, 1);
  // As far back as goes.
  int64_t length = 99;
  while (write(cache, sequence, length - 1, 1, 1).empty()) {
    --length;
    sequence.truncate(length);
  }
  sequence.truncate(length);
  const std::vector<uint8_t> bytes = cache.to_bytes(sequence);
  CHECK(static_cast<int64_t>(bytes.size()) == cache.num_bytes(length));
  KvSequence other = cache.from_bytes(length, bytes.data());
  // A next token looks at the two last ones.
  CHECK((marks(cache, sequence, 1) == std::vector<float>{1, 1}));
  CHECK((marks(cache, other, 1) == std::vector<float>{0, 1, 1}));
}

TEST_CASE("each thread finds the cache of its own innermost scope") {
  KvCache one(shape_of());
  KvCache other(shape_of());
  CHECK(KvCacheScope::current() == nullptr);
  {
    const KvCacheScope outer(&one);
    {
      const KvCacheScope inner(&other);
      CHECK(KvCacheScope::current() == &other);
      std::thread([] { CHECK(KvCacheScope::current() == nullptr); }).join();
    }
    CHECK(KvCacheScope::current() == &one);
  }
  CHECK(KvCacheScope::current() == nullptr);
}
