#include "program/short_chain.h"

#include <algorithm>
#include <optional>
#include <string>

#include "program/chain_uses.h"
#include "program/rotary_graph.h"

namespace emm {
namespace {

constexpr int8_t kFloat = 6;

// The one value that says how many rows the views of a call have.
struct Rows {
  std::optional<int64_t> value;

  bool are(int64_t other) {
    if (!value) value = other;
    return *value == other;
  }
};

class Shortener {
 public:
  explicit Shortener(const ProgramMethod& method)
      : method_(method),
        chain_(method.chains[0]),
        uses_(method, method.chains[0]),
        num_calls_(method.delegates.size()) {
    short_.is_dropped.resize(chain_.size());
    for (const ProgramInstruction& instruction : chain_) {
      if (instruction.kind == InstructionKind::kDelegate)
        ++num_calls_[static_cast<size_t>(instruction.index)];
    }
  }

  ShortChain run() {
    for (size_t i = 0; i < chain_.size(); ++i) {
      if (chain_[i].kind == InstructionKind::kDelegate) try_rotary(i);
    }
    if (short_.new_args.empty()) return {};
    return std::move(short_);
  }

 private:
  // A tensor that is taken apart into halves of pairs.
  struct Source {
    int32_t base;
    size_t first;  // the instruction from which on it must stay as it is
    std::vector<size_t> dropped;
  };
  struct Half {
    int32_t whole;
    size_t slice;
    size_t squeeze;
  };

  // The kernel that has `value` as its output, if it is `name`.
  std::optional<size_t> producer(int32_t value, const char* name, size_t before) const {
    for (const size_t i : uses_.of(value)) {
      const ProgramInstruction& instruction = chain_[i];
      if (i >= before) break;
      if (instruction.kind == InstructionKind::kKernel && instruction.args.back() == value)
        return is_kernel(i, name) ? std::optional<size_t>(i) : std::nullopt;
    }
    return std::nullopt;
  }
  bool is_kernel(size_t i, const char* name) const { return is_call(method_, chain_[i], name); }

  // A planned tensor of floats in the plain order.
  const ProgramTensor* floats(int32_t value) const {
    const ProgramTensor* tensor = method_.tensor(value);
    if (tensor == nullptr || tensor->scalar_type != kFloat || !tensor->is_planned ||
        tensor->data_index != 0 || tensor->storage_offset != 0 || tensor->is_unbound)
      return nullptr;
    for (size_t i = 0; i < tensor->dim_order.size(); ++i) {
      if (tensor->dim_order[i] != i) return nullptr;
    }
    return tensor;
  }

  // Sizes of `wide` are those of `base` but for the last one, which becomes `last`.
  static bool splits(const ProgramTensor& base, const ProgramTensor& wide,
                     const std::vector<int64_t>& last) {
    const size_t lead = base.sizes.size() - 1;
    int64_t product = 1;
    for (const int64_t size : last) product *= size;
    return !base.sizes.empty() && wide.sizes.size() == lead + last.size() &&
           std::equal(base.sizes.begin(), base.sizes.end() - 1, wide.sizes.begin()) &&
           std::equal(last.begin(), last.end(), wide.sizes.begin() + static_cast<int64_t>(lead)) &&
           product == base.sizes.back();
  }

  // A view with these last sizes. What the others are multiplied is the number of its rows: all of
  // them are 1 but one that is known when it runs, which is noted (as a value) and has to be the
  // same for all views of a call. Then one size that is left to the view is no other than this.
  bool is_view(size_t i, const ProgramTensor& wide, size_t num_last, Rows& rows) const {
    if (!is_kernel(i, kView) || chain_[i].args.size() != 3) return false;
    const auto list = static_cast<size_t>(chain_[i].args[1]);
    if (list >= method_.values.size() || method_.values[list].kind != ValueKind::kIntList)
      return false;
    const std::vector<int64_t>& items = method_.values[list].items;
    if (items.size() != wide.sizes.size() || items.size() < num_last) return false;
    size_t unknown = 0;
    size_t left = 0;
    for (size_t d = 0; d < items.size(); ++d) {
      const auto known = uses_.constant(items[d]);
      if (d + num_last < items.size()) {
        if (known ? *known != 1 || wide.sizes[d] != 1 : ++unknown > 1) return false;
        if (!known && !rows.are(items[d])) return false;
      } else if (!known || (*known != wide.sizes[d] && (*known != -1 || ++left > 1))) {
        return false;
      }
    }
    return true;
  }

  // Half `which` of pairs: squeeze(slice(whole)).
  std::optional<Half> find_half(int32_t value, size_t call, int64_t which) const {
    const ProgramTensor* half = floats(value);
    const auto squeeze = producer(value, "aten::squeeze_copy.dims_out", call);
    if (half == nullptr || !squeeze || chain_[*squeeze].args.size() != 4 ||
        !uses_.are(value, {*squeeze, call}))
      return std::nullopt;
    const std::vector<int32_t>& squeezed = chain_[*squeeze].args;
    const int32_t column = squeezed[0];
    const ProgramTensor* tensor = floats(column);
    const auto slice = producer(column, "aten::slice_copy.Tensor_out", *squeeze);
    if (tensor == nullptr || !slice || chain_[*slice].args.size() != 7 ||
        !uses_.are(column, {*slice, *squeeze}))
      return std::nullopt;
    const std::vector<int32_t>& args = chain_[*slice].args;
    const ProgramTensor* whole = floats(args[0]);
    if (whole == nullptr || whole->sizes.size() != half->sizes.size() + 1) return std::nullopt;
    const auto rank = static_cast<int64_t>(whole->sizes.size());
    const auto is_last = [rank](std::optional<int64_t> dim) {
      return dim && (*dim == -1 || *dim == rank - 1);
    };
    const auto& dims = method_.values[static_cast<size_t>(squeezed[1])];
    std::vector<int32_t> wanted = half->sizes;
    wanted.push_back(1);
    if (dims.kind != ValueKind::kIntList || dims.items.size() != 1 ||
        !is_last(uses_.constant(dims.items[0])) || !is_last(uses_.constant(args[1])) ||
        uses_.constant(args[2]) != which || uses_.constant(args[3]) != which + 1 ||
        uses_.constant(args[4]) != 1 || tensor->sizes != wanted)
      return std::nullopt;
    wanted.back() = 2;
    if (whole->sizes != wanted) return std::nullopt;
    return Half{args[0], *slice, *squeeze};
  }

  std::optional<Source> find_source(int32_t even, int32_t odd, size_t call, const RotaryPart& part,
                                    Rows& rows) const {
    const auto first = find_half(even, call, 0);
    const auto second = find_half(odd, call, 1);
    if (!first || !second || first->whole != second->whole) return std::nullopt;
    const auto view = producer(first->whole, kView, std::min(first->slice, second->slice));
    if (!view || !uses_.are(first->whole, {*view, std::min(first->slice, second->slice),
                                           std::max(first->slice, second->slice)}))
      return std::nullopt;
    const int32_t base = chain_[*view].args[0];
    const ProgramTensor* tensor = floats(base);
    const ProgramTensor* whole = floats(first->whole);
    if (tensor == nullptr || tensor->sizes.empty() ||
        !splits(*tensor, *whole, {part.heads, part.pairs, 2}) || !is_view(*view, *whole, 3, rows))
      return std::nullopt;
    return Source{
        base, *view, {*view, first->slice, second->slice, first->squeeze, second->squeeze}};
  }

  // The view of a result that is used in its place, [.., heads, pairs * 2].
  std::optional<size_t> find_result(int32_t output, size_t call, const ProgramTensor& base,
                                    const RotaryPart& part, Rows& rows) const {
    const auto& used = uses_.of(output);
    if (used.size() != 2 || used.front() != call) return std::nullopt;
    const size_t view = used.back();
    if (!uses_.are(output, {call, view}) || chain_[view].kind != InstructionKind::kKernel ||
        chain_[view].args.size() != 3 || chain_[view].args[0] != output)
      return std::nullopt;
    const int32_t result = chain_[view].args[2];
    const ProgramTensor* from = floats(output);
    const ProgramTensor* to = floats(result);
    if (from == nullptr || to == nullptr || from->memory_id != to->memory_id ||
        from->memory_offset != to->memory_offset || uses_.of(result).front() != view ||
        !splits(base, *to, {part.heads, part.pairs * 2}) || !is_view(view, *to, 2, rows))
      return std::nullopt;
    return view;
  }

  void try_rotary(size_t call) {
    const ProgramDelegate& delegate = method_.delegates[static_cast<size_t>(chain_[call].index)];
    std::vector<int32_t> args = chain_[call].args;
    std::vector<size_t> dropped;
    std::vector<std::pair<int32_t, size_t>> bases;
    std::vector<int32_t> angles;
    std::vector<int32_t> results;
    Rows rows;
    for (const RotaryPart& part : delegate.rotary) {
      for (const uint32_t external : {part.even, part.odd, part.cosine, part.sine, part.output}) {
        if (external >= args.size()) return;
      }
      const auto& given = chain_[call].args;
      const auto source = find_source(given[part.even], given[part.odd], call, part, rows);
      if (!source) return;
      const auto result =
          find_result(given[part.output], call, *method_.tensor(source->base), part, rows);
      if (!result) return;
      for (const uint32_t angle : {part.cosine, part.sine}) {
        const auto view = producer(given[angle], kView, call);
        const ProgramTensor* tensor = floats(given[angle]);
        if (!view || tensor == nullptr || !is_view(*view, *tensor, 2, rows)) return;
      }
      args[part.even] = args[part.odd] = source->base;
      args[part.output] = chain_[*result].args[2];
      dropped.insert(dropped.end(), source->dropped.begin(), source->dropped.end());
      dropped.push_back(*result);
      bases.emplace_back(source->base, source->first);
      angles.push_back(args[part.cosine]);
      angles.push_back(args[part.sine]);
      results.push_back(args[part.output]);
    }
    if (results.empty() || num_calls_[static_cast<size_t>(chain_[call].index)] != 1) return;
    if (!are_apart(call, dropped, bases, angles, results)) return;
    for (const size_t i : dropped) short_.is_dropped[i] = true;
    short_.new_args.emplace(call, std::move(args));
    short_.rotary_delegates.push_back(static_cast<size_t>(chain_[call].index));
  }

  // The plan of memory lets a base go once it has been copied from. Nothing that stays may lie in
  // it until the call, and no result of a part that is computed before it has been read: parts are
  // computed one after the other.
  bool are_apart(size_t call, const std::vector<size_t>& dropped,
                 const std::vector<std::pair<int32_t, size_t>>& bases,
                 const std::vector<int32_t>& angles, const std::vector<int32_t>& results) const {
    std::vector<PlannedRange> read;
    for (const auto& [base, first] : bases) {
      const auto of_base = place_of(method_.tensor(base));
      if (!of_base) return false;
      read.push_back(*of_base);
      if (call - first > kMostBetween) return false;
      for (size_t i = first + 1; i < call; ++i) {
        if (std::find(dropped.begin(), dropped.end(), i) != dropped.end()) continue;
        if (chain_[i].kind == InstructionKind::kFree || touches(method_, chain_[i], *of_base))
          return false;
      }
    }
    for (const int32_t angle : angles) {
      const ProgramTensor* tensor = floats(angle);
      if (tensor == nullptr) return false;
      const auto of_angle = place_of(tensor);
      if (!of_angle) return false;
      read.push_back(*of_angle);
    }
    for (size_t part = 0; part < results.size(); ++part) {
      const auto written = place_of(method_.tensor(results[part]));
      if (!written) return false;
      for (size_t other = part; other < read.size(); ++other) {
        if (written->meets(read[other])) return false;
      }
      read.push_back(*written);
    }
    return true;
  }

  const ProgramMethod& method_;
  const std::vector<ProgramInstruction>& chain_;
  const ChainUses uses_;
  std::vector<size_t> num_calls_;  // of each delegate
  ShortChain short_;
};

}  // namespace

size_t ShortChain::num_dropped() const {
  return static_cast<size_t>(std::count(is_dropped.begin(), is_dropped.end(), true));
}

ShortChain shorten_chain(const ProgramMethod& method) {
  const bool has_rotary =
      std::any_of(method.delegates.begin(), method.delegates.end(),
                  [](const ProgramDelegate& delegate) { return !delegate.rotary.empty(); });
  if (!is_straight(method) || !has_rotary) return {};
  return Shortener(method).run();
}

}  // namespace emm
