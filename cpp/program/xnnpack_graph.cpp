#include "program/xnnpack_graph.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <unordered_map>

#include "base/error.h"
#include "program/flat_buffer.h"
#include "program/xnnpack_nodes.h"

namespace emm {
namespace {

constexpr uint32_t kMaxExternals = 4096;
constexpr uint64_t kMaxBytes = uint64_t{1} << 40;
// XNNPACK fills an intermediate result of any size with zeros. Real ones are no more than this
// often as large as all that goes in and out (attention scores are the largest), and some room.
constexpr uint64_t kMaxGrowth = 1024;
constexpr uint64_t kSmallBytes = uint64_t{1} << 26;
// Bits of an element by number of XNNPACK's datatype; 0: never in a file.
constexpr std::array<uint8_t, 15> kDatatypeBits = {0, 32, 16, 8, 8,  32, 8, 32,
                                                   4, 8,  4,  8, 32, 32, 16};

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
    graph.each(1, "xnodes", [this](const FlatTable& node) { check_xnnpack_node(node, values_); });
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
    XnnpackValue value;
    const auto datatype = static_cast<size_t>(tensor.scalar<int16_t>(0));
    value.bits = datatype < kDatatypeBits.size() ? kDatatypeBits[datatype] : 0;
    if (value.bits == 0) buffer_.fail("an unknown datatype");
    value.dims = tensor.scalars<uint32_t>(2);
    uint64_t bytes = value.bits;
    for (const uint32_t dim : value.dims) {
      if (dim > kMaxBytes / bytes) buffer_.fail("dimensions that overflow");
      bytes *= std::max<uint32_t>(dim, 1);
    }
    if (value.dims.size() > kMaxXnnpackRank) buffer_.fail("more than 6 dimensions");
    if (const auto index = tensor.scalar<uint32_t>(3); index != 0) {
      expect_data(index, value.bytes(), "value");
      value.has_data = true;
    }
    if (type == 2) check_quantisation(content, value);
    const auto flags = tensor.scalar<uint32_t>(5);
    if ((flags & ~(kXnnpackInput | kXnnpackOutput)) != 0) buffer_.fail("unknown flags");
    value.is_filled = value.has_data || (flags & kXnnpackInput) != 0;
    value.is_known = value.has_data || flags != 0;
    const auto id = tensor.scalar<uint32_t>(6);
    if (flags != 0) {
      read_external(tensor, flags, id, value);
    } else if (tensor.scalar<uint32_t>(4) != kNoXnnpackValue) {
      buffer_.fail("an external id of a value that is none");  // it would take another's place
    }
    if (id == kNoXnnpackValue || !values_.emplace(id, std::move(value)).second)
      buffer_.fail("an id that is taken");
  }

  void read_external(const FlatTable& tensor, uint32_t flags, uint32_t id,
                     const XnnpackValue& value) {
    const auto external = tensor.scalar<uint32_t>(4);
    if (external >= num_externals_ || !ids_.emplace(external, id).second)
      buffer_.fail("an external id that is taken or too large");
    if (value.has_data) buffer_.fail("an external value with data of its own");
    externals_.push_back({external, (flags & kXnnpackOutput) != 0,
                          static_cast<uint8_t>(value.bits / 8), value.dims});
  }

  void check_quantisation(const FlatTable& content, const XnnpackValue& value) const {
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

  size_t size_;
  FlatBuffer whole_;
  bool has_constants_ = false;
  uint64_t constant_bytes_ = 0;
  FlatBuffer buffer_;
  const NamedBytes& named_bytes_;
  uint32_t num_externals_ = 0;
  std::vector<uint64_t> data_;  // bytes of each constant
  std::vector<uint64_t> inline_data_;
  XnnpackValues values_;
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
