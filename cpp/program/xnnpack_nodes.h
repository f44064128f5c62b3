// The nodes of an XNNPACK graph: which values they read and fill, and that their parameters fit
// these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "program/flat_buffer.h"

namespace emm {

constexpr uint32_t kNoXnnpackValue = std::numeric_limits<uint32_t>::max();
constexpr uint32_t kXnnpackInput = 1;  // flags of a value
constexpr uint32_t kXnnpackOutput = 2;
constexpr size_t kMaxXnnpackRank = 6;

struct XnnpackValue {
  uint8_t bits = 0;
  std::vector<uint32_t> dims;
  bool has_data = false;
  bool is_known = false;   // external or constant
  bool is_filled = false;  // an input, a constant, or the output of an earlier node

  uint64_t elements() const {
    uint64_t count = 1;
    for (const uint32_t dim : dims) count *= dim;
    return count;
  }
  uint64_t bytes() const { return (elements() * bits + 7) / 8; }
};

using XnnpackValues = std::unordered_map<uint32_t, XnnpackValue>;  // by id

// Checks a node whose inputs earlier ones have filled, and fills its outputs. Throws Error(kLoad).
void check_xnnpack_node(const FlatTable& entry, XnnpackValues& values);

}  // namespace emm
