#include "model/cache_kind.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "model/op_signatures.h"

namespace emm {
namespace {

constexpr int8_t kUInt8 = 0;
constexpr int8_t kInt8 = 1;
constexpr int8_t kInt64 = 4;

// Write some rows of their first argument and leave the others.
constexpr std::array<std::string_view, 6> kRowWriters = {
    "aten::index_put", "aten::index_copy",     "aten::slice_scatter",
    "aten::scatter",   "aten::select_scatter", "aten::masked_scatter"};

std::string_view base_name(std::string_view op) {
  op = op.substr(0, op.find('.'));
  return op.size() > 1 && op.back() == '_' ? op.substr(0, op.size() - 1) : op;
}

// What the instructions do to one value, in their order.
struct Use {
  bool is_temporary = false;  // a kernel filled it before anything else used it
  bool is_used = false;
  bool by_rows = false;
  bool by_indices = false;
  bool as_a_whole = false;
  bool is_computed = false;    // a kernel writes it
  bool is_row_change = false;  // it was last filled with a copy of another value but for some rows
};

class Uses {
 public:
  explicit Uses(const ProgramMethod& method) : method_(method), uses_(method.values.size()) {
    for (const auto& chain : method.chains) {
      for (const ProgramInstruction& instruction : chain) {
        if (instruction.kind == InstructionKind::kKernel) {
          see_kernel(instruction);
        } else {
          for (const int32_t arg : instruction.args) touch(arg);
        }
      }
    }
  }

  const Use& operator[](size_t value) const { return uses_[value]; }

 private:
  bool is_known(int32_t value) const {
    return value >= 0 && static_cast<size_t>(value) < uses_.size();
  }
  void touch(int32_t value) {
    if (is_known(value)) uses_[static_cast<size_t>(value)].is_used = true;
  }

  void see_kernel(const ProgramInstruction& call) {
    if (call.index < 0 || static_cast<size_t>(call.index) >= method_.operators.size()) return;
    const std::string_view op = method_.operators[static_cast<size_t>(call.index)];
    const auto signature = op_signature(op);
    if (!signature || call.args.size() != signature->num_args()) {
      for (const int32_t arg : call.args) touch(arg);
      return;
    }
    for (size_t i = 0; i < call.args.size(); ++i) {
      const int32_t arg = call.args[i];
      if (!is_known(arg)) continue;
      Use& use = uses_[static_cast<size_t>(arg)];
      if (signature->is_output(i) || signature->kind(i) == 'X') {
        if (!use.is_used) use.is_temporary = true;
        use.is_computed = true;
        use.is_row_change = writes_rows(op, call);
      } else if (i < signature->args.size() && signature->kind(i) == 'o') {
        see_write(op, use, call);
      }
      use.is_used = true;
    }
  }

  void see_write(std::string_view op, Use& use, const ProgramInstruction& call) {
    const std::string_view base = base_name(op);
    if (base == "llama::update_cache_with_indices") {
      use.by_indices = true;
    } else if (base == "llama::update_cache" || base == "llama::sdpa_with_kv_cache") {
      use.by_rows = true;
    } else if (base == "aten::copy") {
      // Written back after a change to a copy of it.
      const int32_t source = call.args.size() > 1 ? call.args[1] : -1;
      const bool rows = is_known(source) && uses_[static_cast<size_t>(source)].is_row_change;
      (rows ? use.by_rows : use.as_a_whole) = true;
    } else {
      (writes_rows(op, call) ? use.by_rows : use.as_a_whole) = true;
    }
  }

  bool writes_rows(std::string_view op, const ProgramInstruction& call) const {
    const std::string_view base = base_name(op);
    if (std::find(kRowWriters.begin(), kRowWriters.end(), base) == kRowWriters.end()) return false;
    // A slice that always begins at the same row is the batch, not a position.
    constexpr size_t kStart = 3;
    return base != "aten::slice_scatter" ||
           (is_known(call.args[kStart]) && uses_[static_cast<size_t>(call.args[kStart])].is_computed);
  }

  const ProgramMethod& method_;
  std::vector<Use> uses_;
};

// A table of the positions that the rows of a ring hold.
bool is_position_table(const ProgramTensor& tensor) {
  return tensor.scalar_type == kInt64 && tensor.sizes.size() == 1 && tensor.sizes[0] > 1;
}

}  // namespace

CacheKind find_cache_kind(const ProgramMethod& method) {
  const Uses uses(method);
  CacheKind kind;
  for (size_t i = 0; i < method.values.size(); ++i) {
    const ProgramTensor* tensor = method.tensor(static_cast<int64_t>(i));
    const Use& use = uses[i];
    const bool is_written = use.by_rows || use.by_indices || use.as_a_whole;
    if (tensor == nullptr || !tensor->is_planned || use.is_temporary || !is_written) continue;
    kind.bytes += tensor_bytes(*tensor).value_or(0);
    if (is_position_table(*tensor) || use.by_indices) {
      kind.has_ring = true;
    } else if (use.by_rows) {
      kind.has_flat = true;
    } else {
      kind.has_state = true;
    }
    if ((use.by_rows || use.by_indices) &&
        (tensor->scalar_type == kInt8 || tensor->scalar_type == kUInt8))
      kind.is_quantized = true;
  }
  // A ring without update_cache_with_indices writes its rows as a flat cache does: what tells is
  // the table of positions. A model may have layers of both kinds; the stricter one counts.
  return kind;
}

std::string CacheKind::name() const {
  if (is_none()) return "none";
  std::string name;
  for (const auto& [is_set, word] : {std::pair{has_flat, "flat"}, std::pair{has_ring, "ring"},
                                     std::pair{has_state, "recurrent"}}) {
    if (is_set) name += (name.empty() ? "" : "+") + std::string(word);
  }
  return (is_quantized ? "quantized " : "") + name;
}

}  // namespace emm
