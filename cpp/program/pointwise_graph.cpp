#include "program/pointwise_graph.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "program/flat_buffer.h"

namespace emm {
namespace {

constexpr int16_t kFp32 = 1;
constexpr uint32_t kIsInput = 1;
constexpr uint32_t kIsOutput = 2;
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
  // `graph` is read; `fits` says whether it can be run.
  explicit PointwiseReader(const FlatTable& graph) {
    graph.each(2, "xvalues", [this](const FlatTable& entry) { read_value(entry); });
    fits_ = fits_ && find_shapes();
    graph.each(1, "xnodes", [this](const FlatTable& entry) { fits_ = fits_ && read_node(entry); });
    fits_ = fits_ && is_complete();
  }

  std::optional<PointwiseGraph> result() {
    if (!fits_) return std::nullopt;
    return std::move(graph_);
  }

 private:
  void read_value(const FlatTable& entry) {
    fits_ = fits_ && entry.scalar<uint8_t>(0) == 1 && graph_.values.size() < kMaxValues;
    if (!fits_) return;
    const FlatTable tensor = entry.table(1);
    PointwiseValue value;
    value.dims = tensor.scalars<uint32_t>(2);
    const auto flags = tensor.scalar<uint32_t>(5);
    if (flags == kIsInput) value.input = tensor.scalar<uint32_t>(4);
    if (flags == kIsOutput) value.output = tensor.scalar<uint32_t>(4);
    fits_ = tensor.scalar<int16_t>(0) == kFp32 && tensor.scalar<int16_t>(7) == 0 &&
            tensor.scalar<uint32_t>(3) == 0 && flags <= kIsOutput && !value.dims.empty() &&
            ids_.emplace(tensor.scalar<uint32_t>(6), graph_.values.size()).second;
    graph_.values.push_back(std::move(value));
  }

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

  std::optional<size_t> find(uint32_t id) const {
    const auto found = ids_.find(id);
    return found == ids_.end() ? std::nullopt : std::optional<size_t>(found->second);
  }

  bool read_node(const FlatTable& entry) {
    const auto known = operation(entry.scalar<uint8_t>(0));
    if (!known || entry.has(3) || graph_.nodes.size() == kMaxPointwiseNodes) return false;
    const FlatTable node = entry.table(1);
    const auto a = find(node.scalar<uint32_t>(0));
    const auto b = known->has_two ? find(node.scalar<uint32_t>(1)) : a;
    const auto to = find(node.scalar<uint32_t>(known->has_two ? 2 : 1));
    if (!a || !b || !to || node.scalar<uint32_t>(known->has_two ? 3 : 2) != 0) return false;
    if (!is_made_[*a] || !is_made_[*b] || is_made_[*to]) return false;
    const PointwiseValue& left = graph_.values[*a];
    const PointwiseValue& right = graph_.values[*b];
    const PointwiseValue& target = graph_.values[*to];
    if (target.has_rows != (left.has_rows || right.has_rows)) return false;
    if (target.has_columns != (left.has_columns || right.has_columns)) return false;
    is_made_[*to] = is_used_[*a] = is_used_[*b] = true;
    graph_.nodes.push_back({known->op, *a, *b, *to});
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

  PointwiseGraph graph_;
  std::map<uint32_t, size_t> ids_;
  std::vector<bool> is_made_;
  std::vector<bool> is_used_;
  bool fits_ = true;
};

}  // namespace

std::optional<PointwiseGraph> read_pointwise_graph(const uint8_t* data, size_t size,
                                                   const std::string& what) {
  const FlatBuffer whole(data, size, what);
  if (size < 30 || std::memcmp(whole.bytes(4, 4), "XH00", 4) != 0) return std::nullopt;
  const size_t offset = whole.scalar<uint32_t>(10);
  const size_t bytes = whole.scalar<uint32_t>(14);
  FlatBuffer graph(whole.bytes(offset, bytes), bytes, what);
  return PointwiseReader(FlatTable(graph, graph.follow(0))).result();
}

}  // namespace emm
