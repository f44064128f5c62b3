// Rows of activations cut into tiles. For files with -m options of their own, which must share no
// function: each has its own copies.
#pragma once

#include <cstdint>
#include <type_traits>

namespace emm::linear {
namespace {

template <int kHeight, class Body>
inline void with_height(int64_t height, const Body& body) {
  if constexpr (kHeight > 1) {
    if (height < kHeight) return with_height<kHeight - 1>(height, body);
  }
  body(std::integral_constant<int, kHeight>());
}

// Calls body(height, first row) for tiles of nearly the same height, at most kMost; the height is a
// constant.
template <int kMost, class Body>
inline void for_tiles(int64_t rows, const Body& body) {
  int64_t tiles = (rows + kMost - 1) / kMost;
  for (int64_t i = 0; i < rows; --tiles) {
    const int64_t height = (rows - i + tiles - 1) / tiles;
    with_height<kMost>(height, [&](auto of) { body(of, i); });
    i += height;
  }
}

}  // namespace
}  // namespace emm::linear
