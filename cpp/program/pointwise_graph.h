// XNNPACK graphs that compute number by number and nothing else (the scaling of a norm, a gate, a
// residual): what a backend of ours needs to run them in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace emm {

enum class PointwiseOp : uint8_t { kAdd, kSubtract, kMultiply, kSigmoid, kReciprocalRoot };

// A matrix, a column of it (one number for each row), a row (the same for all), or one number.
struct PointwiseValue {
  bool has_rows = false;
  bool has_columns = false;
  std::vector<uint32_t> dims;      // as the file bounds them
  std::optional<uint32_t> input;   // of the delegate's call
  std::optional<uint32_t> output;  // the same
};

struct PointwiseNode {
  PointwiseOp op = PointwiseOp::kAdd;
  size_t a = 0;  // indices of values
  size_t b = 0;  // a again for those with one operand
  size_t to = 0;
};

struct PointwiseGraph {
  int64_t columns = 0;
  std::vector<PointwiseValue> values;
  std::vector<PointwiseNode> nodes;  // in an order in which they can run
};

constexpr size_t kMaxPointwiseNodes = 16;

// Reads a delegate's data that check_xnnpack_graph() has passed. Nothing where the graph holds
// anything else: another operation, a range, a constant, shapes that are not rows and columns.
std::optional<PointwiseGraph> read_pointwise_graph(const uint8_t* data, size_t size,
                                                   const std::string& what);

}  // namespace emm
