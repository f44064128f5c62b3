// Copies of weights: equal bytes once, gone with their last user.
#include "et/weight_copies.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "advised_memory.h"

using namespace emm;

namespace {

std::vector<uint8_t> some_bytes(size_t size, uint32_t seed) {
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes)
    byte = static_cast<uint8_t>((seed = seed * 1664525 + 1013904223) >> 24);
  return bytes;
}

bool are_equal(const WeightCopies::Bytes& copy, const std::vector<uint8_t>& bytes) {
  return std::equal(bytes.begin(), bytes.end(), copy.get());
}

}  // namespace

TEST_CASE("copies are equal, aligned, and not where the original is") {
  std::vector<std::vector<uint8_t>> originals;
  std::vector<WeightCopies::Bytes> copies;
  for (const size_t size : {1, 63, 64, 65, 4096, 5 << 20, 1, 40 << 20, 7})
    originals.push_back(some_bytes(size, static_cast<uint32_t>(originals.size())));
  size_t total = 0;
  for (const auto& bytes : originals) {
    copies.push_back(WeightCopies::instance().copy(bytes.data(), bytes.size()));
    total += bytes.size();
  }
  for (size_t i = 0; i < copies.size(); ++i) {
    CHECK(are_equal(copies[i], originals[i]));
    CHECK(copies[i].get() != originals[i].data());
    CHECK(reinterpret_cast<uintptr_t>(copies[i].get()) % 64 == 0);
  }
  CHECK(WeightCopies::instance().bytes_in_use() == total);
  copies.clear();
  CHECK(WeightCopies::instance().bytes_in_use() == 0);
}

TEST_CASE("equal bytes are copied once, and what differs in one byte is not equal") {
  std::vector<uint8_t> bytes = some_bytes(100'000, 5);
  const auto first = WeightCopies::instance().copy(bytes.data(), bytes.size());
  const std::vector<uint8_t> elsewhere = bytes;
  CHECK(WeightCopies::instance().copy(elsewhere.data(), elsewhere.size()).get() == first.get());
  bytes[20'000] ^= 1;  // not among those that are looked at first
  const auto other = WeightCopies::instance().copy(bytes.data(), bytes.size());
  CHECK(other.get() != first.get());
  CHECK(are_equal(other, bytes));
  CHECK(are_equal(first, elsewhere));
  const auto shorter = WeightCopies::instance().copy(elsewhere.data(), elsewhere.size() - 1);
  CHECK(shorter.get() != first.get());
  CHECK(WeightCopies::instance().bytes_in_use() == 299'999);
}

TEST_CASE("memory goes with the last user of what was copied together, and is asked for anew") {
  const std::vector<uint8_t> bytes = some_bytes(1000, 6);
  auto first = WeightCopies::instance().copy(bytes.data(), bytes.size());
  auto again = WeightCopies::instance().copy(bytes.data(), bytes.size());
  first.reset();
  CHECK(are_equal(again, bytes));
  again.reset();
  CHECK(WeightCopies::instance().bytes_in_use() == 0);
  again = WeightCopies::instance().copy(bytes.data(), bytes.size());
  CHECK(are_equal(again, bytes));
}

TEST_CASE("threads that copy the same get one copy") {
  const std::vector<uint8_t> bytes = some_bytes(1 << 20, 7);
  std::vector<WeightCopies::Bytes> copies(8);
  std::vector<std::thread> threads;
  for (auto& copy : copies) {
    threads.emplace_back([&] { copy = WeightCopies::instance().copy(bytes.data(), bytes.size()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& copy : copies) CHECK(copy.get() == copies[0].get());
  CHECK(WeightCopies::instance().bytes_in_use() == bytes.size());
}

#if defined(__linux__)
TEST_CASE("large pages are asked for") {
  if (!has_large_pages()) return;
  const std::vector<uint8_t> bytes = some_bytes(1000, 8);
  const auto copy = WeightCopies::instance().copy(bytes.data(), bytes.size());
  CHECK(is_advised(copy.get()));
}
#endif
