#include "program/linear_graph.h"

#include <cmath>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "program/flat_buffer.h"
#include "program/xnnpack_nodes.h"

namespace emm {
namespace {

// Longer rows could overflow the kernels' 32-bit sums.
constexpr uint32_t kMaxInputs = 1u << 15;
constexpr uint32_t kMaxOutputs = 1u << 28;

enum Datatype : int16_t {
  kFp32 = 1,
  kQcInt8 = 6,
  kQcInt4 = 8,
  kQdInt8 = 9,
  kQbInt4 = 10,
};
enum NodeType : uint8_t { kFullyConnected = 2, kConvert = 18 };
enum Quantisation : uint8_t { kNone = 0, kPerChannel = 1, kPerToken = 3, kPerGroup = 4 };

struct Value {
  int16_t datatype = 0;
  std::vector<uint32_t> dims;
  uint32_t data = 0;  // number of its constant data, 0: none
  uint32_t flags = 0;
  uint32_t external = 0;
  uint8_t quantisation = kNone;
  int32_t channel_dim = 0;
  int32_t group = 0;
  uint32_t scales = 0;
  uint32_t num_scales = 0;
  int32_t nonbatch_dims = 0;

  bool is_plain_float() const {
    return datatype == kFp32 && quantisation == kNone && !dims.empty();
  }
  bool is_input() const { return is_plain_float() && flags == kXnnpackInput && data == 0; }
  bool is_constant() const { return flags == 0 && data != 0; }
};

struct Data {
  std::string key;
  uint64_t offset;
  uint64_t bytes;
};

class LinearReader {
 public:
  LinearReader(const uint8_t* data, size_t size, const std::string& what)
      : whole_(data, size, what), graph_(locate(size, what)) {}

  std::optional<std::vector<LinearNode>> read() {
    if (!has_header_) return std::nullopt;  // old files hold constants another way
    const FlatTable graph(graph_, graph_.follow(0));
    graph.each(8, "constant_data", [this](const FlatTable& entry) {
      data_.push_back(
          {std::string(entry.text(2)), entry.scalar<uint64_t>(0), entry.scalar<uint64_t>(1)});
    });
    graph.each(2, "xvalues", [this](const FlatTable& entry) { read_value(entry); });
    bool fits = true;
    graph.each(1, "xnodes", [&](const FlatTable& entry) { fits = fits && read_node(entry); });
    if (!fits || nodes_.empty()) return std::nullopt;
    for (const auto& [id, value] : values_) {
      if (value.flags != 0 && used_.count(id) == 0) return std::nullopt;
    }
    return std::move(nodes_);
  }

 private:
  FlatBuffer locate(size_t size, const std::string& what) {
    if (size < 30 || std::memcmp(whole_.bytes(4, 4), "XH00", 4) != 0) return whole_;
    has_header_ = true;
    const size_t offset = whole_.scalar<uint32_t>(10);
    const size_t bytes = whole_.scalar<uint32_t>(14);
    constants_ = whole_.scalar<uint32_t>(18);
    return FlatBuffer(whole_.bytes(offset, bytes), bytes, what);
  }

  void read_value(const FlatTable& entry) {
    const FlatTable content = entry.table(1);
    const bool is_quantised = entry.scalar<uint8_t>(0) == 2;
    const FlatTable tensor = is_quantised ? content.table(0) : content;
    Value value;
    value.datatype = tensor.scalar<int16_t>(0);
    value.dims = tensor.scalars<uint32_t>(2);
    value.data = tensor.scalar<uint32_t>(3);
    value.external = tensor.scalar<uint32_t>(4);
    value.flags = tensor.scalar<uint32_t>(5);
    if (tensor.scalar<int16_t>(7) != 0) value.datatype = 0;  // quantised in an older way
    if (is_quantised) {
      value.quantisation = content.scalar<uint8_t>(1);
      const FlatTable params = content.table(2);
      if (value.quantisation == kPerChannel) {
        value.channel_dim = params.scalar<int32_t>(1);
        value.scales = params.scalar<uint32_t>(2);
        value.num_scales = params.scalar<uint32_t>(3);
      } else if (value.quantisation == kPerToken) {
        value.nonbatch_dims = params.scalar<int32_t>(0);
      } else if (value.quantisation == kPerGroup) {
        value.channel_dim = params.scalar<int32_t>(1);
        value.group = params.scalar<int32_t>(2);
        value.scales = params.scalar<uint32_t>(4);
        value.num_scales = params.scalar<uint32_t>(5);
      }
    }
    values_.emplace(tensor.scalar<uint32_t>(6), std::move(value));
  }

  const Value* find(uint32_t id) const {
    const auto found = values_.find(id);
    return found == values_.end() ? nullptr : &found->second;
  }

  bool read_node(const FlatTable& entry) {
    const auto type = entry.scalar<uint8_t>(0);
    const FlatTable node = entry.table(1);
    if (type == kConvert) return !entry.has(3) && read_convert(node);
    if (type != kFullyConnected) return false;
    LinearNode linear;
    if (entry.has(3)) {
      const FlatTable range = entry.table(3);
      linear.low = range.scalar<float>(0);
      linear.high = range.scalar<float>(1);
      if (!(*linear.low <= *linear.high)) return false;
    }
    return read_linear(node, std::move(linear));
  }

  bool read_convert(const FlatTable& node) {
    const auto from = node.scalar<uint32_t>(0);
    const auto to = node.scalar<uint32_t>(1);
    const Value* input = find(from);
    const Value* output = find(to);
    if (input == nullptr || output == nullptr || !input->is_input()) return false;
    used_.insert(from);
    quantised_[to] = from;
    return output->datatype == kQdInt8 && output->quantisation == kPerToken &&
           output->nonbatch_dims == 1 && output->flags == 0 && output->data == 0 &&
           output->dims == input->dims;
  }

  // The first `bytes` of constant data.
  std::optional<LinearData> constant(uint32_t index, uint64_t bytes) const {
    if (index == 0 || index >= data_.size()) return std::nullopt;
    const Data& data = data_[index];
    if (!data.key.empty()) return LinearData{data.key, 0, bytes};
    if (data.bytes < bytes) return std::nullopt;
    whole_.bytes(constants_ + data.offset, bytes);  // fails where it lies outside
    return LinearData{"", constants_ + data.offset, bytes};
  }

  bool read_linear(const FlatTable& node, LinearNode linear) {
    auto source = node.scalar<uint32_t>(0);
    const auto converted = quantised_.find(source);
    const bool is_quantised = converted != quantised_.end();
    if (is_quantised) source = converted->second;
    const auto target = node.scalar<uint32_t>(3);
    const Value* input = find(source);
    const Value* filter = find(node.scalar<uint32_t>(1));
    const Value* output = find(target);
    if (input == nullptr || filter == nullptr || output == nullptr || !input->is_input() ||
        !filter->is_constant() || node.scalar<uint32_t>(4) != 0)
      return false;
    if (!output->is_plain_float() || output->flags != kXnnpackOutput || output->data != 0)
      return false;
    if (filter->dims.size() != 2) return false;
    const uint32_t outputs = filter->dims[0];
    const uint32_t inputs = filter->dims[1];
    if (inputs == 0 || inputs > kMaxInputs || outputs == 0 || outputs > kMaxOutputs) return false;
    std::vector<uint32_t> wanted = input->dims;
    if (wanted.back() != inputs) return false;
    wanted.back() = outputs;
    if (output->dims != wanted) return false;
    linear.inputs = inputs;
    linear.outputs = outputs;
    if (!read_weights(*filter, is_quantised, linear)) return false;
    if (const auto bias_id = node.scalar<uint32_t>(2); bias_id != kNoXnnpackValue) {
      const Value* bias = find(bias_id);
      if (bias == nullptr || !bias->is_plain_float() || !bias->is_constant() ||
          bias->dims != std::vector<uint32_t>{outputs})
        return false;
      linear.bias = constant(bias->data, uint64_t{outputs} * sizeof(float));
      if (!linear.bias) return false;
    }
    linear.input_arg = input->external;
    linear.output_arg = output->external;
    used_.insert(source);
    used_.insert(target);
    nodes_.push_back(std::move(linear));
    return true;
  }

  bool read_weights(const Value& filter, bool is_quantised, LinearNode& linear) const {
    const auto inputs = static_cast<uint64_t>(linear.inputs);
    const auto outputs = static_cast<uint64_t>(linear.outputs);
    uint64_t row_bytes = 0;
    uint64_t scale_bytes = 0;
    const bool per_channel = filter.quantisation == kPerChannel && filter.channel_dim == 0 &&
                             filter.num_scales == outputs;
    if (filter.is_plain_float() && !is_quantised) {
      linear.format = LinearFormat::kFloat32;
      row_bytes = inputs * sizeof(float);
    } else if (filter.datatype == kQcInt8 && is_quantised && per_channel) {
      linear.format = LinearFormat::kInt8;
      row_bytes = inputs;
      scale_bytes = outputs * sizeof(float);
    } else if (filter.datatype == kQcInt4 && is_quantised && per_channel && inputs % 2 == 0) {
      linear.format = LinearFormat::kInt4;
      row_bytes = inputs / 2;
      scale_bytes = outputs * sizeof(float);
    } else if (filter.datatype == kQbInt4 && is_quantised && filter.quantisation == kPerGroup &&
               filter.channel_dim == 0) {
      const int32_t group = filter.group;
      const bool has_kernel = group == 32 || group == 64 || (group > 0 && group % 128 == 0);
      if (!has_kernel || inputs % static_cast<uint64_t>(group) != 0) return false;
      const uint64_t groups = inputs / static_cast<uint64_t>(group);
      if (filter.num_scales != outputs * groups) return false;
      linear.format = LinearFormat::kInt4Groups;
      linear.group = group;
      row_bytes = inputs / 2;
      scale_bytes = outputs * groups * sizeof(uint16_t);
    } else {
      return false;
    }
    const auto weights = constant(filter.data, row_bytes * outputs);
    if (!weights) return false;
    linear.weights = *weights;
    if (scale_bytes == 0) return true;
    const auto scales = constant(filter.scales, scale_bytes);
    if (!scales) return false;
    linear.scales = *scales;
    return true;
  }

  FlatBuffer whole_;
  bool has_header_ = false;
  uint64_t constants_ = 0;  // where they begin
  FlatBuffer graph_;
  std::vector<Data> data_;
  std::unordered_map<uint32_t, Value> values_;
  std::unordered_map<uint32_t, uint32_t> quantised_;  // the input of each
  std::unordered_set<uint32_t> used_;                 // external values
  std::vector<LinearNode> nodes_;
};

}  // namespace

std::optional<std::vector<LinearNode>> read_linear_graph(const uint8_t* data, size_t size,
                                                         const std::string& what) {
  return LinearReader(data, size, what).read();
}

}  // namespace emm
