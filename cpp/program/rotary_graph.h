// XNNPACK graphs that turn pairs of numbers by angles (rotary embeddings whose pairs lie side by
// side) and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace emm {

// One output [.., rows, heads, pairs, 2], of external ids of the delegate's call:
//   output[.., 0] = even * cosine - odd * sine,  output[.., 1] = even * sine + odd * cosine
// with even and odd [.., rows, heads, pairs], cosine and sine [.., rows, 1, pairs].
struct RotaryPart {
  uint32_t even = 0;
  uint32_t odd = 0;
  uint32_t cosine = 0;
  uint32_t sine = 0;
  uint32_t output = 0;
  int64_t heads = 0;
  int64_t pairs = 0;
};

// Reads a delegate's data that check_xnnpack_graph() has passed. Nothing where the graph holds
// anything else.
std::optional<std::vector<RotaryPart>> read_rotary_graph(const uint8_t* data, size_t size,
                                                         const std::string& what);

}  // namespace emm
