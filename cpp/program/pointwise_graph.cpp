#include "program/pointwise_graph.h"

#include <algorithm>

#include "program/plain_graph.h"

namespace emm {
namespace {

constexpr size_t kMaxValues = 3 * kMaxPointwiseNodes;
constexpr uint32_t kMaxColumns = 1u << 28;

struct Operation {
  PointwiseOp op;
  bool has_two;
};
std::optional<Operation> operation(uint8_t type) {
  switch (type) {
    case 1:
      return Operation{PointwiseOp::kAdd, true};
    case 4:
      return Operation{PointwiseOp::kSigmoid, false};
    case 15:
      return Operation{PointwiseOp::kMultiply, true};
    case 16:
      return Operation{PointwiseOp::kSubtract, true};
    case 40:
      return Operation{PointwiseOp::kReciprocalRoot, false};
    default:
      return std::nullopt;
  }
}

class PointwiseReader {
 public:
  explicit PointwiseReader(const PlainGraph& plain) : plain_(plain) {
    fits_ = plain.values.size() <= kMaxValues;
    if (!fits_) return;
    for (const PlainValue& given : plain.values) {
      PointwiseValue& value = graph_.values.emplace_back();
      value.dims = given.dims;
      if (given.is_input) value.input = given.external;
      if (given.is_output) value.output = given.external;
    }
    fits_ = find_shapes();
    for (const PlainNode& node : plain.nodes) fits_ = fits_ && read_node(node);
    fits_ = fits_ && is_complete();
  }

  std::optional<PointwiseGraph> result() {
    if (!fits_) return std::nullopt;
    return std::move(graph_);
  }

 private:
  // Rows are all dimensions but the last one.
  bool find_shapes() {
    std::vector<uint32_t> widest;
    uint32_t columns = 1;
    for (const PointwiseValue& value : graph_.values) {
      columns = std::max(columns, value.dims.back());
      if (value.dims.size() > widest.size()) widest.assign(value.dims.size(), 1);
    }
    if (widest.empty() || columns > kMaxColumns) return false;
    for (const PointwiseValue& value : graph_.values) {
      const size_t missing = widest.size() - value.dims.size();
      for (size_t i = 0; i + 1 < value.dims.size(); ++i)
        widest[missing + i] = std::max(widest[missing + i], value.dims[i]);
    }
    widest.back() = columns;
    graph_.columns = columns;
    for (PointwiseValue& value : graph_.values) {
      const auto lead = [&](uint32_t one) {
        return std::all_of(value.dims.begin(), value.dims.end() - 1,
                           [one](uint32_t size) { return size == one; });
      };
      const bool is_whole = value.dims.size() == widest.size() &&
                            std::equal(widest.begin(), widest.end() - 1, value.dims.begin());
      if (!is_whole && !lead(1)) return false;
      if (value.dims.back() != columns && value.dims.back() != 1) return false;
      value.has_rows = is_whole;
      value.has_columns = value.dims.back() == columns;
      is_made_.push_back(value.input.has_value());
      is_used_.push_back(false);
    }
    return true;
  }

  bool read_node(const PlainNode& node) {
    const auto known = operation(node.type);
    if (!known || graph_.nodes.size() == kMaxPointwiseNodes) return false;
    const size_t count = graph_.values.size();
    const size_t a = plain_.find(node.fields[0]);
    const size_t b = known->has_two ? plain_.find(node.fields[1]) : a;
    const size_t to = plain_.find(node.fields[known->has_two ? 2 : 1]);
    if (a == count || b == count || to == count || node.fields[known->has_two ? 3 : 2] != 0)
      return false;
    if (!is_made_[a] || !is_made_[b] || is_made_[to]) return false;
    const PointwiseValue& left = graph_.values[a];
    const PointwiseValue& right = graph_.values[b];
    const PointwiseValue& target = graph_.values[to];
    if (target.has_rows != (left.has_rows || right.has_rows)) return false;
    if (target.has_columns != (left.has_columns || right.has_columns)) return false;
    is_made_[to] = is_used_[a] = is_used_[b] = true;
    graph_.nodes.push_back({known->op, a, b, to});
    return true;
  }

  // All that comes in is used and all that goes out is a whole matrix, whose shape an input has.
  bool is_complete() const {
    bool has_shape = false;
    bool has_output = false;
    for (size_t i = 0; i < graph_.values.size(); ++i) {
      const PointwiseValue& value = graph_.values[i];
      if (!is_made_[i] || (value.input && !is_used_[i])) return false;
      if (value.output && !(value.has_rows && value.has_columns)) return false;
      has_shape = has_shape || (value.input && value.has_rows);
      has_output = has_output || value.output;
    }
    return has_shape && has_output;
  }

  const PlainGraph& plain_;
  PointwiseGraph graph_;
  std::vector<bool> is_made_;
  std::vector<bool> is_used_;
  bool fits_ = true;
};

}  // namespace

std::optional<PointwiseGraph> read_pointwise_graph(const uint8_t* data, size_t size,
                                                   const std::string& what) {
  const auto graph = read_plain_graph(data, size, what);
  return graph ? PointwiseReader(*graph).result() : std::nullopt;
}

}  // namespace emm
