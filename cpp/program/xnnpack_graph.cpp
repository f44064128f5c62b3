#include "program/xnnpack_graph.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "program/flat_buffer.h"

namespace emm {
namespace {

constexpr uint32_t kNoValue = std::numeric_limits<uint32_t>::max();
constexpr uint32_t kIsInput = 1;  // flags of a value
constexpr uint32_t kIsOutput = 2;
constexpr uint32_t kTransposedWeights = 1;  // flag of a linear layer
constexpr size_t kMaxRank = 6;
constexpr uint32_t kMaxExternals = 4096;
constexpr uint64_t kMaxBytes = uint64_t{1} << 40;
// XNNPACK fills an intermediate result of any size with zeros. Real ones are no more than this
// often as large as all that goes in and out (attention scores are the largest), and some room.
constexpr uint64_t kMaxGrowth = 1024;
constexpr uint64_t kSmallBytes = uint64_t{1} << 26;
// Bits of an element by number of XNNPACK's datatype; 0: never in a file.
constexpr std::array<uint8_t, 15> kDatatypeBits = {0, 32, 16, 8, 8,  32, 8, 32,
                                                   4, 8,  4,  8, 32, 32, 16};
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

struct Value {
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

class GraphReader {
 public:
  GraphReader(const uint8_t* data, size_t size, const std::string& what,
              const NamedBytes& named_bytes)
      : size_(size),
        whole_(data, size, what),
        buffer_(locate(data, what)),
        named_bytes_(named_bytes) {}

  std::vector<XnnpackExternal> read() {
    const FlatTable graph(buffer_, buffer_.follow(0));
    if (!graph.has(1) || !graph.has(2)) buffer_.fail("a graph without nodes or values");
    num_externals_ = graph.scalar<uint32_t>(3);
    if (num_externals_ > kMaxExternals) buffer_.fail("more than 4096 external values");
    graph.each(6, "constant_buffer",
               [this](const FlatTable& entry) { inline_data_.push_back(entry.bytes(0).size); });
    graph.each(8, "constant_data", [this](const FlatTable& entry) { read_data(entry); });
    graph.each(2, "xvalues", [this](const FlatTable& value) { read_value(value); });
    graph.each(1, "xnodes", [this](const FlatTable& node) { read_node(node); });
    check_intermediates();
    for (const XnnpackExternal& external : externals_) {
      if (external.is_output && !values_.at(ids_.at(external.id)).is_filled)
        buffer_.fail("output " + std::to_string(external.id) + " is never computed");
    }
    return std::move(externals_);
  }

 private:
  // The delegate's data: a header, the graph, the constants; or the graph alone in old files.
  FlatBuffer locate(const uint8_t* data, const std::string& what) {
    size_t offset = 0;
    size_t bytes = size_;
    if (size_ >= 30 && std::memcmp(data + 4, "XH00", 4) == 0) {
      offset = whole_.scalar<uint32_t>(10);
      bytes = whole_.scalar<uint32_t>(14);
      const uint64_t constants = whole_.scalar<uint32_t>(18);
      constant_bytes_ = whole_.scalar<uint64_t>(22);
      has_constants_ = true;
      if (constants > size_ || constant_bytes_ > size_ - constants)
        whole_.fail("its constants lie beyond its end");
      if (constants < offset + bytes) whole_.fail("its constants overlap its graph");
    }
    FlatBuffer graph(whole_.bytes(offset, bytes), bytes, what);
    const auto* mark = graph.bytes(4, 4);
    if (std::memcmp(mark, "XN00", 4) != 0 && std::memcmp(mark, "XN01", 4) != 0)
      graph.fail("expected the mark XN00 or XN01 of an XNNPACK graph");
    return graph;
  }

  void read_data(const FlatTable& entry) {
    const auto offset = entry.scalar<uint64_t>(0);
    const auto bytes = entry.scalar<uint64_t>(1);
    if (entry.has(2)) {
      // Not in this file: a .ptd file may have it, whose sizes are not known here.
      data_.push_back(named_bytes_(entry.text(2)).value_or(std::numeric_limits<uint64_t>::max()));
      return;
    }
    if (offset > constant_bytes_ || bytes > constant_bytes_ - offset)
      buffer_.fail("data beyond the constants' end");
    data_.push_back(bytes);
  }

  void check_intermediates() const {
    uint64_t known = 0;
    for (const auto& [id, value] : values_) {
      if (value.is_known) known += value.bytes();
    }
    for (const auto& [id, value] : values_) {
      if (!value.is_known && value.bytes() > kSmallBytes + kMaxGrowth * known) {
        buffer_.fail("an intermediate value of " + std::to_string(value.bytes()) + " bytes, from " +
                     std::to_string(known));
      }
    }
  }

  void expect_data(uint32_t index, uint64_t bytes, const char* of) const {
    const std::vector<uint64_t>& sizes = has_constants_ ? data_ : inline_data_;
    if (index >= sizes.size()) buffer_.fail(std::string(of) + ": no data of that number");
    if (sizes[index] < bytes) {
      buffer_.fail(std::string(of) + ": expected " + std::to_string(bytes) +
                   " bytes of data, got " + std::to_string(sizes[index]));
    }
  }

  void read_value(const FlatTable& entry) {
    const auto type = entry.scalar<uint8_t>(0);
    if (type != 1 && type != 2) buffer_.fail("a value of unknown type");
    const FlatTable content = entry.table(1);
    const FlatTable tensor = type == 1 ? content : content.table(0);
    Value value;
    const auto datatype = static_cast<size_t>(tensor.scalar<int16_t>(0));
    value.bits = datatype < kDatatypeBits.size() ? kDatatypeBits[datatype] : 0;
    if (value.bits == 0) buffer_.fail("an unknown datatype");
    value.dims = tensor.scalars<uint32_t>(2);
    uint64_t bytes = value.bits;
    for (const uint32_t dim : value.dims) {
      if (dim > kMaxBytes / bytes) buffer_.fail("dimensions that overflow");
      bytes *= std::max<uint32_t>(dim, 1);
    }
    if (value.dims.size() > kMaxRank) buffer_.fail("more than 6 dimensions");
    if (const auto index = tensor.scalar<uint32_t>(3); index != 0) {
      expect_data(index, value.bytes(), "value");
      value.has_data = true;
    }
    if (type == 2) check_quantisation(content, value);
    const auto flags = tensor.scalar<uint32_t>(5);
    if ((flags & ~(kIsInput | kIsOutput)) != 0) buffer_.fail("unknown flags");
    value.is_filled = value.has_data || (flags & kIsInput) != 0;
    value.is_known = value.has_data || flags != 0;
    const auto id = tensor.scalar<uint32_t>(6);
    if (flags != 0) {
      read_external(tensor, flags, id, value);
    } else if (tensor.scalar<uint32_t>(4) != kNoValue) {
      buffer_.fail("an external id of a value that is none");  // it would take another's place
    }
    if (id == kNoValue || !values_.emplace(id, std::move(value)).second)
      buffer_.fail("an id that is taken");
  }

  void read_external(const FlatTable& tensor, uint32_t flags, uint32_t id, const Value& value) {
    const auto external = tensor.scalar<uint32_t>(4);
    if (external >= num_externals_ || !ids_.emplace(external, id).second)
      buffer_.fail("an external id that is taken or too large");
    if (value.has_data) buffer_.fail("an external value with data of its own");
    externals_.push_back(
        {external, (flags & kIsOutput) != 0, static_cast<uint8_t>(value.bits / 8), value.dims});
  }

  void check_quantisation(const FlatTable& content, const Value& value) const {
    const auto type = content.scalar<uint8_t>(1);
    if (type < 1 || type > 4) buffer_.fail("an unknown quantisation");
    const FlatTable params = content.table(2);
    const auto channels = [&](int slot) -> uint64_t {
      const auto dim = static_cast<size_t>(params.scalar<int32_t>(slot));
      if (dim >= value.dims.size()) buffer_.fail("a channel dimension that it does not have");
      return value.dims[dim];
    };
    if (type == 1) {  // one scale for each channel
      const uint64_t count = channels(1);
      if (const auto index = params.scalar<uint32_t>(2); index != 0) {
        expect_data(index, count * sizeof(float), "scales");
      } else if (params.count(0) < count) {
        buffer_.fail("fewer scales than channels");
      }
    } else if (type == 3) {
      const auto batch_dims = static_cast<size_t>(params.scalar<int32_t>(0));
      if (batch_dims > value.dims.size()) buffer_.fail("more dimensions to quantise than it has");
    } else if (type == 4) {  // one scale for each group of inputs
      channels(1);
      const auto group = params.scalar<int32_t>(2);
      if (value.dims.size() != 2 || group <= 0 || value.dims[1] % static_cast<uint32_t>(group) != 0)
        buffer_.fail("groups that do not divide the channels");
      const uint64_t count = value.elements() / static_cast<uint64_t>(group);
      const auto index = params.scalar<uint32_t>(4);
      const uint64_t given = index != 0 ? params.scalar<uint32_t>(5) : params.count(0);
      if (given != count) buffer_.fail("a number of scales that does not fit the groups");
      if (index != 0) expect_data(index, count * sizeof(uint16_t), "scales");
    }
  }

  Value& value_of(const FlatTable& node, int slot) {
    const auto found = values_.find(node.scalar<uint32_t>(slot));
    if (found == values_.end()) buffer_.fail("a value that does not exist");
    return found->second;
  }

  const Value& input_of(const FlatTable& node, int slot) {
    const Value& value = value_of(node, slot);
    if (!value.is_filled) buffer_.fail("a value that nothing has computed yet");
    return value;
  }

  void read_node(const FlatTable& entry) {
    const auto type = entry.scalar<uint8_t>(0);
    if (type < 1 || type > kLastNodeType) buffer_.fail("a node of unknown type");
    const FlatTable node = entry.table(1);
    if (entry.has(3)) entry.table(3);
    const NodeFields fields = node_fields(type);
    size_t rank = 0;
    for (const int8_t slot : fields.inputs) {
      if (slot < 0) break;
      const Value& input = input_of(node, slot);
      if (slot == fields.inputs[0]) rank = input.dims.size();
      // The delegate lets go of the data once layers have packed it: nothing else may read it.
      const bool is_packed = slot == fields.inputs[1] && is_packing(type);
      if (input.has_data && !is_packed) buffer_.fail("data that is no layer's weights");
    }
    if (fields.optional_input >= 0 && node.scalar<uint32_t>(fields.optional_input) != kNoValue)
      input_of(node, fields.optional_input);
    check_parameters(type, node, fields, rank);
    for (const int8_t slot : fields.outputs) {
      if (slot < 0) break;
      Value& output = value_of(node, slot);
      if (output.is_filled) buffer_.fail("a value that is computed twice");
      output.is_filled = true;
    }
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
        const Value& input = input_of(node, 0);
        const Value& slope = input_of(node, 1);
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
    if (rank > kMaxRank) buffer_.fail("more than 6 dimensions");
    for (const int slot : slots) {
      if (node.count(slot) != rank) buffer_.fail("a list that does not fit the dimensions");
    }
  }

  void expect_bias(const FlatTable& node, int slot, uint64_t channels) {
    if (node.scalar<uint32_t>(slot) == kNoValue) return;
    if (input_of(node, slot).elements() < channels)
      buffer_.fail("a bias shorter than the channels");
  }

  void check_linear(const FlatTable& node) {
    const Value& input = input_of(node, 0);
    const Value& filter = input_of(node, 1);
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
    const Value& input = input_of(node, 15);
    const Value& filter = input_of(node, 16);
    for (const uint64_t size : {window, inputs, outputs, groups}) {
      if (size == 0 || size > kMaxRank << 20) buffer_.fail("a kernel of impossible size");
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

  size_t size_;
  FlatBuffer whole_;
  bool has_constants_ = false;
  uint64_t constant_bytes_ = 0;
  FlatBuffer buffer_;
  const NamedBytes& named_bytes_;
  uint32_t num_externals_ = 0;
  std::vector<uint64_t> data_;  // bytes of each constant
  std::vector<uint64_t> inline_data_;
  std::unordered_map<uint32_t, Value> values_;
  std::unordered_map<uint32_t, uint32_t> ids_;  // of external values
  std::vector<XnnpackExternal> externals_;
};

}  // namespace

std::vector<XnnpackExternal> check_xnnpack_graph(const uint8_t* data, size_t size,
                                                 const std::string& what,
                                                 const NamedBytes& named_bytes) {
  return GraphReader(data, size, what, named_bytes).read();
}

}  // namespace emm
