// XNNPACK graphs that are linear layers and nothing else: what a backend of ours needs to run them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace emm {

enum class LinearFormat : uint8_t { kFloat32, kInt8, kInt4, kInt4Groups };

// Constant data: under a name, or in the delegate's own bytes.
struct LinearData {
  std::string key;
  uint64_t offset = 0;  // without a key
  uint64_t bytes = 0;   // what the layer reads of it
};

struct LinearNode {
  LinearFormat format = LinearFormat::kFloat32;
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t group = 0;  // kInt4Groups
  LinearData weights;
  LinearData scales;  // of the integer formats
  std::optional<LinearData> bias;
  std::optional<float> low;
  std::optional<float> high;
  uint32_t input_arg = 0;  // of the delegate's call
  uint32_t output_arg = 0;
};

// Reads a delegate's data that check_xnnpack_graph() has passed. Nothing where the graph holds more
// than linear layers, or any that no kernel of ours takes (a constant within it, a shape, a flag).
std::optional<std::vector<LinearNode>> read_linear_graph(const uint8_t* data, size_t size,
                                                         const std::string& what);

}  // namespace emm
