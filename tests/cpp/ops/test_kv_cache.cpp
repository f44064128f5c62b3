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
std::string write(KvCache& cache, int64_t sequence, int64_t first, int64_t count, float mark) {
  cache.begin_step({{sequence, count}});
  const std::string wrong = cache.place(range(first, count));
  if (!wrong.empty()) return wrong;
  const float row[4] = {mark, mark, mark, mark};
  std::vector<KvRun> runs;
  for (int64_t layer = 0; layer < 2; ++layer) {
    cache.runs(layer, {sequence, count}, &runs);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = runs.back().row + runs.back().count - count + i;
      runs.back().pair->keys.write(at, 0, row, Store::kFloat32, 4);
      runs.back().pair->values.write(at, 0, row, Store::kFloat32, 4);
    }
  }
  return "";
}

// The marks of what a layer keeps for a last token, oldest first.
std::vector<float> marks(KvCache& cache, int64_t sequence, int64_t layer) {
  std::vector<KvRun> runs;
  cache.runs(layer, {sequence, 1}, &runs);
  std::vector<float> found;
  for (const KvRun& run : runs) {
    for (int64_t i = 0; i < run.count; ++i)
      found.push_back(*static_cast<const float*>(run.pair->keys.matrix(run.row + i).data));
  }
  return found;
}

}  // namespace

TEST_CASE("a saved sequence stays what it was, whatever is written afterwards") {
  KvCache cache(shape_of(3));
  const int64_t name = cache.add();
  CHECK(write(cache, name, 0, 5, 1).empty());
  const KvSequence saved = cache.save(name, 5);
  CHECK(write(cache, name, 5, 1, 2).empty());
  CHECK(write(cache, name, 2, 2, 3).empty());
  CHECK((marks(cache, name, 0) == std::vector<float>{1, 1, 3, 3}));
  cache.restore(name, saved);
  CHECK((marks(cache, name, 0) == std::vector<float>{1, 1, 1, 1, 1}));
  CHECK((marks(cache, name, 1) == std::vector<float>{1, 1, 1}));
  CHECK(write(cache, name, 5, 1, 4).empty());
  CHECK((marks(cache, name, 0) == std::vector<float>{1, 1, 1, 1, 1, 4}));
  cache.restore(name, saved);
  CHECK((marks(cache, name, 0) == std::vector<float>{1, 1, 1, 1, 1}));
}

TEST_CASE("a saved sequence may be shorter, and takes less") {
  KvCache cache(shape_of());
  const int64_t name = cache.add();
  CHECK(write(cache, name, 0, 8, 1).empty());
  const KvSequence all = cache.save(name, 100);
  const KvSequence half = cache.save(name, 4);
  CHECK(all.length() == 8);
  CHECK(half.length() == 4);
  CHECK(half.bytes() * 2 == all.bytes());
}

TEST_CASE("a saved sequence outlives its cache, also on another thread") {
  auto cache = std::make_unique<KvCache>(shape_of(3));
  const int64_t name = cache->add();
  CHECK(write(*cache, name, 0, 8, 1).empty());
  auto saved = std::make_unique<KvSequence>(cache->save(name, 8));
  std::thread([&saved] { saved.reset(); }).join();
  CHECK(write(*cache, name, 8, 2, 2).empty());
  const KvSequence kept = cache->save(name, 10);
  cache.reset();
  CHECK(kept.length() == 10);
}

TEST_CASE("a ring keeps what its window and a rewind need, and no more than twice that") {
  KvCache cache(shape_of(16));
  const int64_t name = cache.add();
  for (int64_t position = 0; position < 500; position += 5)
    REQUIRE(write(cache, name, position, 5, static_cast<float>(position / 5)).empty());
  const KvSequence* sequence = cache.find(name);
  REQUIRE(sequence != nullptr);
  constexpr int64_t kRowBytes = 2 * 4 * 4;
  const int64_t ring_bytes = sequence->bytes() - 500 * kRowBytes;
  CHECK(ring_bytes >= (16 + 8 - 1) * kRowBytes);
  CHECK(ring_bytes <= 2 * (16 + 8 - 1) * kRowBytes);
  CHECK(write(cache, name, 492, 1, 7).empty());
  CHECK(write(cache, name, 300, 1, 7) ==
        "sequence 0: expected a position from " +
            std::to_string(493 - (ring_bytes / kRowBytes - 7) + 15) +
            " on, where a window of 16 is still there, got 300");
  CHECK(cache.find(name)->length() == 493);
}

TEST_CASE("a cleared sequence begins again, and removed ones are unknown") {
  KvCache cache(shape_of(3));
  const int64_t name = cache.add();
  const int64_t other = cache.add();
  CHECK(write(cache, name, 0, 5, 1).empty());
  cache.clear(name);
  CHECK(cache.find(name)->length() == 0);
  CHECK(cache.find(name)->bytes() == 0);
  CHECK(write(cache, name, 0, 1, 2).empty());
  cache.remove(other);
  CHECK(cache.find(other) == nullptr);
  CHECK((cache.sequences() == std::vector<int64_t>{name}));
  CHECK(write(cache, other, 0, 1, 1) == "sequence 1 does not exist");
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
