#include "program/equal_calls.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "program/chain_uses.h"
#include "program/op_signatures.h"

namespace emm {
namespace {

constexpr const char* kSelect = "aten::select_copy.int_out";
constexpr const char* kNumber = "aten::_local_scalar_dense";
constexpr size_t kMostViews = 16;  // different ones of one tensor that are compared

// A method's instructions as a shorter chain leaves them; dropped ones have no arguments.
std::vector<ProgramInstruction> shortened(const ProgramMethod& method, const ShortChain& chain) {
  std::vector<ProgramInstruction> instructions = method.chains[0];
  for (const auto& [i, args] : chain.new_args) instructions[i].args = args;
  for (size_t i = 0; i < chain.is_dropped.size(); ++i) {
    if (chain.is_dropped[i]) instructions[i].args.clear();
  }
  return instructions;
}

class EqualCalls {
 public:
  EqualCalls(const ProgramMethod& method, const ShortChain& chain)
      : method_(method),
        chain_(shortened(method, chain)),
        uses_(method, chain_),
        is_listed_(method.values.size()) {
    for (const ProgramValue& value : method.values) {
      if (value.kind != ValueKind::kIntList && value.kind != ValueKind::kTensorList &&
          value.kind != ValueKind::kOptionalTensorList)
        continue;
      for (const int64_t item : value.items) {
        if (item >= 0) is_listed_[static_cast<size_t>(item)] = true;
      }
    }
  }

  void find() {
    for (size_t i = 0; i < chain_.size(); ++i) {
      if (is_kernel(i, kNumber, 2)) {
        try_number(i);
      } else if (is_kernel(i, kView, 3)) {
        try_view(i);
      }
    }
  }

  size_t apply(ShortChain& chain) const {
    if (dropped_.empty()) return 0;
    chain.is_dropped.resize(chain_.size());
    for (const size_t i : dropped_) {
      chain.is_dropped[i] = true;
      chain.new_args.erase(i);
    }
    for (size_t i = 0; i < chain_.size(); ++i) {
      if (chain.is_dropped[i]) continue;
      std::vector<int32_t> args = chain_[i].args;
      for (int32_t& arg : args) {
        const auto other = instead_.find(arg);
        if (other != instead_.end()) arg = other->second;
      }
      if (args != chain_[i].args) chain.new_args[i] = std::move(args);
    }
    return dropped_.size();
  }

 private:
  bool is_kernel(size_t i, const char* name, size_t num_args) const {
    return chain_[i].args.size() == num_args && is_call(method_, chain_[i], name);
  }
  bool is_listed(int32_t value) const { return is_listed_[static_cast<size_t>(value)]; }

  // Instruction `i` takes the value, and writes nothing to it.
  bool only_reads(size_t i, int32_t value) const {
    const ProgramInstruction& call = chain_[i];
    if (call.kind == InstructionKind::kKernel) {
      const auto signature = op_signature(method_.operators[static_cast<size_t>(call.index)]);
      if (!signature || signature->num_args() != call.args.size()) return false;
      for (size_t a = 0; a < call.args.size(); ++a) {
        const char kind = signature->kind(a);
        if (call.args[a] == value && (kind == 'o' || kind == 'w' || kind == 'X')) return false;
      }
      return true;
    }
    if (call.kind != InstructionKind::kDelegate) return false;
    const auto& outputs = method_.delegates[static_cast<size_t>(call.index)].outputs;
    return outputs && std::none_of(outputs->begin(), outputs->end(), [&](uint32_t output) {
             return output >= call.args.size() || call.args[output] == value;
           });
  }

  // Instruction `maker` makes it, everybody else only reads it and stands behind.
  bool is_made_once(int32_t value, size_t maker) const {
    if (uses_.is_pinned(value) || is_listed(value)) return false;
    const std::vector<size_t>& used = uses_.of(value);
    return !used.empty() && used.front() == maker &&
           std::all_of(used.begin() + 1, used.end(),
                       [&](size_t i) { return only_reads(i, value); });
  }

  // Numbers.

  struct Selected {
    int32_t from;
    int64_t dim;
    int64_t index;

    bool operator<(const Selected& other) const {
      return std::tie(from, dim, index) < std::tie(other.from, other.dim, other.index);
    }
  };

  // An input that the caller keeps and no instruction changes.
  bool is_kept_input(int32_t value) {
    const auto [found, is_new] = is_kept_.try_emplace(value);
    if (is_new) found->second = find_is_kept(value);
    return found->second;
  }
  bool find_is_kept(int32_t value) const {
    const ProgramTensor* tensor = method_.tensor(value);
    if (tensor == nullptr || tensor->is_planned || tensor->is_external || tensor->data_index != 0 ||
        is_listed(value) ||
        std::find(method_.inputs.begin(), method_.inputs.end(), value) == method_.inputs.end())
      return false;
    const std::vector<size_t>& used = uses_.of(value);
    // No view of it either, through which it could be written.
    return std::all_of(used.begin(), used.end(), [&](size_t i) {
      return only_reads(i, value) && !is_kernel(i, kView, 3) &&
             chain_[i].kind == InstructionKind::kKernel;
    });
  }

  // select(input) that this number alone is read from, before anything else is written there.
  std::optional<std::pair<size_t, Selected>> find_select(size_t number) {
    const int32_t scalar = chain_[number].args[0];
    const std::vector<size_t>& used = uses_.of(scalar);
    if (used.size() != 2 || used[1] != number || number - used[0] > kMostBetween ||
        !is_kernel(used[0], kSelect, 5) || uses_.is_pinned(scalar) || is_listed(scalar))
      return std::nullopt;
    const std::vector<int32_t>& args = chain_[used[0]].args;
    const auto dim = uses_.constant(args[1]);
    const auto index = uses_.constant(args[2]);
    const ProgramTensor* tensor = method_.tensor(scalar);
    const auto place = place_of(tensor);
    if (args[3] != scalar || args[4] != scalar || args[0] == scalar || !dim || !index || !place ||
        !is_kept_input(args[0]) || method_.tensor(args[0])->scalar_type != tensor->scalar_type)
      return std::nullopt;
    for (size_t i = used[0] + 1; i < number; ++i) {
      if (touches(method_, chain_[i], *place)) return std::nullopt;
    }
    return std::pair{used[0], Selected{args[0], *dim, *index}};
  }

  void try_number(size_t i) {
    const int32_t number = chain_[i].args[1];
    const auto select = find_select(i);
    if (!select || method_.values[static_cast<size_t>(number)].kind != ValueKind::kInt ||
        !is_made_once(number, i))
      return;
    const auto [first, is_new] = numbers_.emplace(select->second, number);
    if (is_new) return;
    instead_[number] = first->second;
    dropped_.push_back(select->first);
    dropped_.push_back(i);
  }

  // Views.

  static bool are_alike(const ProgramTensor& a, const ProgramTensor& b) {
    return a.scalar_type == b.scalar_type && a.sizes == b.sizes && a.dim_order == b.dim_order &&
           a.is_dynamic == b.is_dynamic && a.memory_id == b.memory_id &&
           a.memory_offset == b.memory_offset;
  }
  static bool is_plain(const ProgramTensor* tensor) {
    return tensor != nullptr && tensor->is_planned && tensor->data_index == 0 &&
           tensor->storage_offset == 0 && !tensor->is_unbound && !tensor->is_external;
  }

  // The two lists hold the same numbers at both instructions.
  bool are_equal(int32_t a, int32_t b, size_t first, size_t second) {
    const ProgramValue& left = method_.values[static_cast<size_t>(a)];
    const ProgramValue& right = method_.values[static_cast<size_t>(b)];
    if (left.kind != ValueKind::kIntList || right.kind != ValueKind::kIntList ||
        left.items.size() != right.items.size())
      return false;
    for (size_t i = 0; i < left.items.size(); ++i) {
      const auto known = uses_.constant(left.items[i]);
      if (known ? known != uses_.constant(right.items[i])
                : left.items[i] != right.items[i] || is_written(left.items[i], first, second))
        return false;
    }
    return true;
  }
  // By an instruction between these two; lists that hold it are only read.
  bool is_written(int64_t value, size_t first, size_t second) {
    if (value < 0 || static_cast<size_t>(value) >= method_.values.size()) return true;
    const auto [found, is_new] = writers_.try_emplace(value);
    std::vector<size_t>& writers = found->second;
    if (is_new) {
      for (const size_t i : uses_.of(static_cast<int32_t>(value))) {
        const std::vector<int32_t>& args = chain_[i].args;
        const bool is_arg = std::find(args.begin(), args.end(), value) != args.end();
        if (is_arg && !only_reads(i, static_cast<int32_t>(value))) writers.push_back(i);
      }
    }
    const auto next = std::lower_bound(writers.begin(), writers.end(), first);
    return next != writers.end() && *next < second;
  }

  void try_view(size_t i) {
    const int32_t base = chain_[i].args[0];
    const int32_t list = chain_[i].args[1];
    const int32_t view = chain_[i].args[2];
    const ProgramTensor* tensor = method_.tensor(view);
    if (view == base || !is_plain(tensor) || !is_plain(method_.tensor(base)) ||
        !is_made_once(view, i))
      return;
    for (const size_t first : views_[base]) {
      const std::vector<int32_t>& args = chain_[first].args;
      if (!are_alike(*method_.tensor(args[2]), *tensor) || is_written(base, first, i) ||
          !are_equal(args[1], list, first, i))
        continue;
      instead_[view] = args[2];
      dropped_.push_back(i);
      return;
    }
    if (views_[base].size() < kMostViews) views_[base].push_back(i);
  }

  const ProgramMethod& method_;
  const std::vector<ProgramInstruction> chain_;
  const ChainUses uses_;
  std::vector<bool> is_listed_;  // the value is in a list

  std::map<Selected, int32_t> numbers_;
  std::map<int32_t, bool> is_kept_;
  std::map<int32_t, std::vector<size_t>> views_;    // by what they show
  std::map<int64_t, std::vector<size_t>> writers_;  // by value, once asked for
  std::map<int32_t, int32_t> instead_;
  std::vector<size_t> dropped_;
};

}  // namespace

size_t drop_equal_calls(const ProgramMethod& method, ShortChain& chain) {
  if (!is_straight(method)) return 0;
  EqualCalls calls(method, chain);
  calls.find();
  return calls.apply(chain);
}

}  // namespace emm
