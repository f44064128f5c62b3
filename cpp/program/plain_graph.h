// XNNPACK graphs of floats without constants, as lists: what readers of small graphs start from.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace emm {

struct PlainValue {
  uint32_t id = 0;
  std::vector<uint32_t> dims;
  bool is_input = false;
  bool is_output = false;
  uint32_t external = 0;  // of the delegate's call
};

struct PlainNode {
  uint8_t type = 0;
  std::array<uint32_t, 8> fields{};  // in the schema's order; 0 where absent
  std::vector<uint32_t> shape;       // of a reshape
};

struct PlainGraph {
  std::vector<PlainValue> values;
  std::vector<PlainNode> nodes;

  // Index of a value; values.size() where there is none.
  size_t find(uint32_t id) const;
};

constexpr uint8_t kReshapeNode = 20;
constexpr size_t kMaxPlainValues = 128;

// Reads a delegate's data that check_xnnpack_graph() has passed. Nothing where the graph holds a
// constant, another kind of number, a range of an output, or too much.
std::optional<PlainGraph> read_plain_graph(const uint8_t* data, size_t size,
                                           const std::string& what);

}  // namespace emm
