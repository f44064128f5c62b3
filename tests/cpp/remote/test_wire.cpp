// What comes from the other process: arrays that do not lie in the memory are refused.
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "remote/wire.h"

namespace emm::remote {
namespace {

constexpr size_t kBytes = 1024;

TensorView view(const Array& array, size_t offset = 0) {
  static std::vector<uint8_t> memory(kBytes);
  return view_of(array, memory.data(), kBytes, offset);
}

Array floats(std::vector<int64_t> dims) {
  return describe({nullptr, DType::kFloat32, Shape(dims.begin(), dims.end())});
}

}  // namespace

TEST_CASE("an array that lies in the memory is seen there") {
  CHECK(view(floats({256})).shape == Shape{256});
  CHECK(view(floats({4, 32}), 512).size_bytes() == 512);
  CHECK(view(floats({0, 1 << 20})).size_bytes() == 0);
}

TEST_CASE("an array that ends behind the memory is refused") {
  CHECK_THROWS_AS(view(floats({257})), Closed);
  CHECK_THROWS_AS(view(floats({4, 32}), 520), Closed);
  CHECK_THROWS_AS(view(floats({1}), kBytes + 1), Closed);
}

TEST_CASE("sizes that overflow, negative ones and unknown kinds are refused") {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  CHECK_THROWS_AS(view(floats({kHuge})), Closed);
  CHECK_THROWS_AS(view(floats({kHuge, kHuge, kHuge})), Closed);
  CHECK_THROWS_AS(view(floats({-1})), Closed);
  Array array = floats({1});
  array.rank = 9;
  CHECK_THROWS_AS(view(array), Closed);
  array.rank = -1;
  CHECK_THROWS_AS(view(array), Closed);
  array = floats({1});
  array.dtype = 99;
  CHECK_THROWS_AS(view(array), Closed);
}

}  // namespace emm::remote
