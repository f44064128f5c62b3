#include "program/xnnpack_nodes.h"

#include <algorithm>
#include <array>
#include <initializer_list>

namespace emm {
namespace {

constexpr uint32_t kTransposedWeights = 1;  // flag of a linear layer
enum NodeType : uint8_t {
  kFullyConnected = 2,
  kStaticTranspose = 5,
  kConv2d = 7,
  kConstantPad = 10,
  kDepthwiseConv2d = 13,
  kStaticReshape = 20,
  kPReLU = 31,
  kStaticSlice = 35,
  kConvTranspose2d = 39,
};

// Fields of a node that name values.
struct NodeFields {
  std::array<int8_t, 5> inputs{-1, -1, -1, -1, -1};
  std::array<int8_t, 2> outputs{-1, -1};
  int8_t optional_input = -1;
  int8_t axis = -1;  // of a concatenation
};

NodeFields node_fields(uint8_t type) {
  switch (type) {
    case 1:  // two inputs, one output
    case 8:
    case 12:
    case 15:
    case 16:
    case 26:
    case kPReLU:
    case 37:
      return {{0, 1, -1, -1, -1}, {2, -1}};
    case kFullyConnected:
      return {{0, 1, -1, -1, -1}, {3, -1}, 2};
    case kConv2d:
    case kDepthwiseConv2d:
    case kConvTranspose2d:
      return {{15, 16, -1, -1, -1}, {18, -1}, 17};
    case kStaticTranspose:
    case 9:  // resize
    case kStaticReshape:
      return {{2, -1, -1, -1, -1}, {3, -1}};
    case kConstantPad:
    case kStaticSlice:
      return {{3, -1, -1, -1, -1}, {4, -1}};
    case 11:  // pooling
    case 14:
      return {{10, -1, -1, -1, -1}, {11, -1}};
    case 21:  // with indices
      return {{6, -1, -1, -1, -1}, {7, 8}};
    case 25:
    case 29:
      return {{1, -1, -1, -1, -1}, {2, -1}};
    case 32:
      return {{1, 2, -1, -1, -1}, {5, -1}, -1, 0};
    case 33:
      return {{1, 2, 3, -1, -1}, {5, -1}, -1, 0};
    case 34:
      return {{1, 2, 3, 4, -1}, {5, -1}, -1, 0};
    case 38:
      return {{1, 2, 3, 4, 7}, {5, -1}, -1, 0};
    case 36:  // attention
      return {{0, 1, 2, 3, 4}, {5, -1}};
    default:  // one input, one output
      return {{0, -1, -1, -1, -1}, {1, -1}};
  }
}
constexpr uint8_t kLastNodeType = 47;

// Whether its second input is weights, which it copies when the graph is loaded.
bool is_packing(uint8_t type) {
  return type == kFullyConnected || type == kConv2d || type == kDepthwiseConv2d ||
         type == kConvTranspose2d || type == kPReLU;
}

class NodeChecker {
 public:
  NodeChecker(const FlatBuffer& buffer, XnnpackValues& values) : buffer_(buffer), values_(values) {}

  void check(const FlatTable& entry) {
    const auto type = entry.scalar<uint8_t>(0);
    if (type < 1 || type > kLastNodeType) buffer_.fail("a node of unknown type");
    const FlatTable node = entry.table(1);
    if (entry.has(3)) entry.table(3);
    const NodeFields fields = node_fields(type);
    size_t rank = 0;
    for (const int8_t slot : fields.inputs) {
      if (slot < 0) break;
      const XnnpackValue& input = input_of(node, slot);
      if (slot == fields.inputs[0]) rank = input.dims.size();
      // The delegate lets go of the data once layers have packed it: nothing else may read it.
      const bool is_packed = slot == fields.inputs[1] && is_packing(type);
      if (input.has_data && !is_packed) buffer_.fail("data that is no layer's weights");
    }
    if (fields.optional_input >= 0 &&
        node.scalar<uint32_t>(fields.optional_input) != kNoXnnpackValue)
      input_of(node, fields.optional_input);
    check_parameters(type, node, fields, rank);
    for (const int8_t slot : fields.outputs) {
      if (slot < 0) break;
      XnnpackValue& output = value_of(node, slot);
      if (output.is_filled) buffer_.fail("a value that is computed twice");
      output.is_filled = true;
    }
  }

 private:
  XnnpackValue& value_of(const FlatTable& node, int slot) {
    const auto found = values_.find(node.scalar<uint32_t>(slot));
    if (found == values_.end()) buffer_.fail("a value that does not exist");
    return found->second;
  }

  const XnnpackValue& input_of(const FlatTable& node, int slot) {
    const XnnpackValue& value = value_of(node, slot);
    if (!value.is_filled) buffer_.fail("a value that nothing has computed yet");
    return value;
  }

  void check_parameters(uint8_t type, const FlatTable& node, const NodeFields& fields,
                        size_t rank) {
    if (fields.axis >= 0 && node.scalar<uint32_t>(fields.axis) >= rank)
      buffer_.fail("an axis that its inputs do not have");
    switch (type) {
      case kFullyConnected:
        return check_linear(node);
      case kConv2d:
      case kDepthwiseConv2d:
      case kConvTranspose2d:
        return check_convolution(type, node);
      case kPReLU: {
        const XnnpackValue& input = input_of(node, 0);
        const XnnpackValue& slope = input_of(node, 1);
        if (rank == 0 || slope.elements() < input.dims.back())
          buffer_.fail("fewer slopes than channels");
        return;
      }
      case kStaticTranspose: {
        auto order = node.scalars<uint32_t>(1);
        std::sort(order.begin(), order.end());
        bool is_permutation = order.size() == rank && node.scalar<uint32_t>(0) == rank;
        for (size_t i = 0; i < order.size(); ++i) is_permutation = is_permutation && order[i] == i;
        if (!is_permutation) buffer_.fail("an order that is not a permutation");
        return;
      }
      case kStaticReshape:
        return expect_counts(node, node.scalar<uint32_t>(0), {1});
      case kConstantPad:
        return expect_counts(node, rank, {0, 1});
      case kStaticSlice:
        if (node.scalar<uint32_t>(0) != rank) buffer_.fail("another rank than its input's");
        return expect_counts(node, rank, {1, 2});
      default:
        return;
    }
  }

  void expect_counts(const FlatTable& node, size_t rank, std::initializer_list<int> slots) const {
    if (rank > kMaxXnnpackRank) buffer_.fail("more than 6 dimensions");
    for (const int slot : slots) {
      if (node.count(slot) != rank) buffer_.fail("a list that does not fit the dimensions");
    }
  }

  void expect_bias(const FlatTable& node, int slot, uint64_t channels) {
    if (node.scalar<uint32_t>(slot) == kNoXnnpackValue) return;
    if (input_of(node, slot).elements() < channels)
      buffer_.fail("a bias shorter than the channels");
  }

  void check_linear(const FlatTable& node) {
    const XnnpackValue& input = input_of(node, 0);
    const XnnpackValue& filter = input_of(node, 1);
    if (filter.dims.size() != 2 || input.dims.empty())
      buffer_.fail("weights that are not a matrix, or an input without dimensions");
    const bool transposed = (node.scalar<uint32_t>(4) & kTransposedWeights) != 0;
    if (input.dims.back() != filter.dims[transposed ? 0 : 1])
      buffer_.fail("weights for another number of inputs");
    expect_bias(node, 2, filter.dims[transposed ? 1 : 0]);
  }

  void check_convolution(uint8_t type, const FlatTable& node) {
    const uint64_t window = uint64_t{node.scalar<uint32_t>(4)} * node.scalar<uint32_t>(5);
    const uint64_t inputs = node.scalar<uint32_t>(10);
    const uint64_t outputs = node.scalar<uint32_t>(11);
    const uint64_t groups = node.scalar<uint32_t>(12);
    const XnnpackValue& input = input_of(node, 15);
    const XnnpackValue& filter = input_of(node, 16);
    for (const uint64_t size : {window, inputs, outputs, groups}) {
      if (size == 0 || size > kMaxXnnpackRank << 20) buffer_.fail("a kernel of impossible size");
    }
    if (input.dims.size() != 4 || filter.dims.size() != 4)
      buffer_.fail("expected four dimensions of input and weights");
    const bool depthwise = type == kDepthwiseConv2d;
    const uint64_t weights =
        depthwise ? window * outputs * groups : window * inputs * outputs * groups;
    if (filter.elements() != weights || input.dims[3] != inputs * groups)
      buffer_.fail("weights or an input of another size than the kernel's");
    expect_bias(node, 17, outputs * groups);
  }

  const FlatBuffer& buffer_;
  XnnpackValues& values_;
};

}  // namespace

void check_xnnpack_node(const FlatTable& entry, XnnpackValues& values) {
  NodeChecker(entry.buffer(), values).check(entry);
}

}  // namespace emm
