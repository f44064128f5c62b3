#include "program/rotary_graph.h"

#include <algorithm>

#include "program/plain_graph.h"

namespace emm {
namespace {

constexpr uint8_t kAdd = 1;
constexpr uint8_t kMultiply = 15;
constexpr uint8_t kSubtract = 16;
constexpr uint8_t kConcatenateTwo = 32;
constexpr size_t kNodesOfPart = 9;

class RotaryReader {
 public:
  explicit RotaryReader(const PlainGraph& graph)
      : graph_(graph), made_by_(graph.values.size()), uses_(graph.values.size()) {
    for (const PlainNode& node : graph.nodes) fits_ = fits_ && read_node(node);
  }

  std::optional<std::vector<RotaryPart>> result() {
    if (!fits_) return std::nullopt;
    std::vector<RotaryPart> parts;
    std::vector<uint32_t> known;
    size_t outside = 0;
    for (size_t v = 0; v < graph_.values.size(); ++v) {
      const PlainValue& value = graph_.values[v];
      outside += value.is_input || value.is_output;
      // What lives within the graph is used as a part uses it.
      if (!value.is_input && !value.is_output && uses_[v] != 1) return std::nullopt;
      if (!value.is_output) continue;
      const auto part = read_part(v);
      if (!part) return std::nullopt;
      parts.push_back(*part);
      for (const uint32_t external :
           {part->even, part->odd, part->cosine, part->sine, part->output}) {
        if (std::find(known.begin(), known.end(), external) == known.end())
          known.push_back(external);
      }
    }
    // Everything belongs to a part.
    if (parts.empty() || known.size() != outside ||
        graph_.nodes.size() != kNodesOfPart * parts.size())
      return std::nullopt;
    return parts;
  }

 private:
  bool read_node(const PlainNode& node) {
    const auto& field = node.fields;
    switch (node.type) {
      case kAdd:
      case kSubtract:
      case kMultiply:
        return field[3] == 0 && define(node, field[2], field[0], field[1]);
      case kReshapeNode:  // only to add a dimension of one
        return field[4] == 0 && define(node, field[3], field[2], field[2]) && is_column(node);
      case kConcatenateTwo:
        return field[6] == 0 && define(node, field[5], field[1], field[2]) &&
               field[0] + size_t{1} == graph_.values[graph_.find(field[1])].dims.size();
      default:
        return false;
    }
  }

  // A size of 0 in a new shape is found from the others.
  bool is_column(const PlainNode& node) const {
    std::vector<uint32_t> wanted = graph_.values[graph_.find(node.fields[2])].dims;
    wanted.push_back(1);
    return graph_.values[graph_.find(node.fields[3])].dims == wanted &&
           std::count(node.shape.begin(), node.shape.end(), 0) <= 1 &&
           std::equal(node.shape.begin(), node.shape.end(), wanted.begin(), wanted.end(),
                      [](uint32_t size, uint32_t dim) { return size == dim || size == 0; });
  }

  bool define(const PlainNode& node, uint32_t to, uint32_t a, uint32_t b) {
    const size_t target = graph_.find(to);
    if (target == graph_.values.size() || made_by_[target].type != 0 ||
        graph_.values[target].is_input)
      return false;
    for (const uint32_t id : {a, b}) {
      const size_t from = graph_.find(id);
      if (from == graph_.values.size() || graph_.values[from].is_output) return false;
      if (!graph_.values[from].is_input && made_by_[from].type == 0) return false;
      ++uses_[from];
      if (a == b) break;
    }
    made_by_[target] = {node.type, graph_.find(a), graph_.find(b)};
    return true;
  }

  struct Made {
    uint8_t type = 0;  // 0 for what comes from outside
    size_t a = 0;
    size_t b = 0;
  };

  // What a half of `pairs` is made of, behind its new dimension; null where that is another node.
  const Made* half(size_t value, uint8_t type) const {
    if (made_by_[value].type != kReshapeNode) return nullptr;
    const Made& made = made_by_[made_by_[value].a];
    const bool are_products = made.type == type && made_by_[made.a].type == kMultiply &&
                              made_by_[made.b].type == kMultiply;
    return are_products ? &made : nullptr;
  }

  std::optional<RotaryPart> read_part(size_t value) const {
    const PlainValue& output = graph_.values[value];
    if (made_by_[value].type != kConcatenateTwo || output.dims.size() < 4) return std::nullopt;
    const Made* first = half(made_by_[value].a, kSubtract);
    const Made* second = half(made_by_[value].b, kAdd);
    if (first == nullptr || second == nullptr) return std::nullopt;
    const Made& even_cosine = made_by_[first->a];
    const Made& odd_sine = made_by_[first->b];
    const Made& even_sine = made_by_[second->a];
    const Made& odd_cosine = made_by_[second->b];
    if (even_cosine.a != even_sine.a || odd_sine.a != odd_cosine.a ||
        even_cosine.b != odd_cosine.b || odd_sine.b != even_sine.b)
      return std::nullopt;
    const PlainValue& even = graph_.values[even_cosine.a];
    const PlainValue& odd = graph_.values[odd_sine.a];
    const PlainValue& cosine = graph_.values[even_cosine.b];
    const PlainValue& sine = graph_.values[odd_sine.b];
    if (!even.is_input || !odd.is_input || !cosine.is_input || !sine.is_input) return std::nullopt;
    std::vector<uint32_t> dims(output.dims.begin(), output.dims.end() - 1);
    if (output.dims.back() != 2 || even.dims != dims || odd.dims != dims) return std::nullopt;
    const RotaryPart part{even.external,
                          odd.external,
                          cosine.external,
                          sine.external,
                          output.external,
                          static_cast<int64_t>(dims[dims.size() - 2]),
                          static_cast<int64_t>(dims.back())};
    dims[dims.size() - 2] = 1;
    if (cosine.dims != dims || sine.dims != dims) return std::nullopt;
    return part;
  }

  const PlainGraph& graph_;
  std::vector<Made> made_by_;
  std::vector<int> uses_;
  bool fits_ = true;
};

}  // namespace

std::optional<std::vector<RotaryPart>> read_rotary_graph(const uint8_t* data, size_t size,
                                                         const std::string& what) {
  const auto graph = read_plain_graph(data, size, what);
  return graph ? RotaryReader(*graph).result() : std::nullopt;
}

}  // namespace emm
