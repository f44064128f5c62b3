#include "program/plain_graph.h"

#include <cstring>

#include "program/flat_buffer.h"
#include "program/xnnpack_nodes.h"

namespace emm {
namespace {

constexpr int16_t kFp32 = 1;

}  // namespace

size_t PlainGraph::find(uint32_t id) const {
  size_t i = 0;
  while (i < values.size() && values[i].id != id) ++i;
  return i;
}

std::optional<PlainGraph> read_plain_graph(const uint8_t* data, size_t size,
                                           const std::string& what) {
  const FlatBuffer whole(data, size, what);
  if (size < 30 || std::memcmp(whole.bytes(4, 4), "XH00", 4) != 0) return std::nullopt;
  const size_t offset = whole.scalar<uint32_t>(10);
  const size_t bytes = whole.scalar<uint32_t>(14);
  FlatBuffer buffer(whole.bytes(offset, bytes), bytes, what);
  const FlatTable table(buffer, buffer.follow(0));
  PlainGraph graph;
  bool fits = table.count(2) <= kMaxPlainValues && table.count(1) <= kMaxPlainValues;
  if (!fits) return std::nullopt;
  table.each(2, "xvalues", [&](const FlatTable& entry) {
    fits = fits && entry.scalar<uint8_t>(0) == 1;
    if (!fits) return;
    const FlatTable tensor = entry.table(1);
    PlainValue value;
    value.id = tensor.scalar<uint32_t>(6);
    value.dims = tensor.scalars<uint32_t>(2);
    value.external = tensor.scalar<uint32_t>(4);
    const auto flags = tensor.scalar<uint32_t>(5);
    value.is_input = flags == kXnnpackInput;
    value.is_output = flags == kXnnpackOutput;
    fits = tensor.scalar<int16_t>(0) == kFp32 && tensor.scalar<int16_t>(7) == 0 &&
           tensor.scalar<uint32_t>(3) == 0 && flags <= kXnnpackOutput && !value.dims.empty() &&
           graph.find(value.id) == graph.values.size();
    graph.values.push_back(std::move(value));
  });
  table.each(1, "xnodes", [&](const FlatTable& entry) {
    fits = fits && !entry.has(3);
    if (!fits) return;
    const FlatTable content = entry.table(1);
    PlainNode node;
    node.type = entry.scalar<uint8_t>(0);
    if (node.type == kReshapeNode) node.shape = content.scalars<uint32_t>(1);
    for (size_t i = 0; i < node.fields.size(); ++i)
      node.fields[i] = content.scalar<uint32_t>(static_cast<int>(i));
    graph.nodes.push_back(std::move(node));
  });
  if (!fits) return std::nullopt;
  return graph;
}

}  // namespace emm
