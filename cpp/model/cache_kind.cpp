#include "model/cache_kind.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "program/op_signatures.h"

namespace emm {
namespace {

constexpr int8_t kUInt8 = 0;
constexpr int8_t kInt8 = 1;
constexpr int8_t kInt64 = 4;

std::string_view base_name(std::string_view op) {
  op = op.substr(0, op.find('.'));
  return op.size() > 1 && op.back() == '_' ? op.substr(0, op.size() - 1) : op;
}

// What the instructions do to one value, in their order.
struct Use {
  bool is_temporary = false;  // a kernel filled it before anything else used it
  bool is_used = false;
  bool by_rows = false;
  bool by_indices = false;   // llama::update_cache_with_indices: a ring
  bool by_position = false;  // llama::update_cache: flat
  bool as_a_whole = false;
  int64_t row_dim = -1;      // of the rows, where it is written by rows
  bool is_computed = false;  // a kernel writes it
  int64_t changed_dim = -1;  // row_dim(): it was last filled with a copy that differs in some rows

  bool is_written() const { return by_rows || by_indices || by_position || as_a_whole; }
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
  bool is_known(int64_t value) const {
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
        use.changed_dim = row_dim(op, call);
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
      use.row_dim = 1;
    } else if (base == "llama::update_cache" || base == "llama::sdpa_with_kv_cache") {
      use.by_position = true;
      use.row_dim = 1;
    } else if (base == "aten::copy") {
      // Written back after a change to a copy of it.
      const int64_t source = call.args.size() > 1 ? call.args[1] : -1;
      use.row_dim = is_known(source) ? uses_[static_cast<size_t>(source)].changed_dim : -1;
      (use.row_dim >= 0 ? use.by_rows : use.as_a_whole) = true;
    } else {
      use.row_dim = row_dim(op, call);
      (use.row_dim >= 0 ? use.by_rows : use.as_a_whole) = true;
    }
  }

  // The dimension of the rows that a call writes in its first argument or a copy of it; -1 if it
  // writes all of it or does not tell.
  int64_t row_dim(std::string_view op, const ProgramInstruction& call) const {
    const std::string_view base = base_name(op);
    const auto value = [&](size_t i) -> const ProgramValue* {
      const bool is_there = i < call.args.size() && is_known(call.args[i]);
      return is_there ? &method_.values[static_cast<size_t>(call.args[i])] : nullptr;
    };
    if (base == "aten::index_put") {
      const ProgramValue* indices = value(1);
      if (indices == nullptr) return -1;
      const auto first = std::find_if(indices->items.begin(), indices->items.end(),
                                      [](int64_t item) { return item >= 0; });
      return first == indices->items.end() ? -1 : first - indices->items.begin();
    }
    size_t dim_arg = 1;
    if (base == "aten::slice_scatter") {
      // A slice that always begins at the same row is the batch, not a position.
      constexpr size_t kStart = 3;
      if (value(kStart) == nullptr || !uses_[static_cast<size_t>(call.args[kStart])].is_computed)
        return -1;
      dim_arg = 2;
    } else if (base == "aten::select_scatter") {
      dim_arg = 2;
    } else if (base != "aten::index_copy" && base != "aten::scatter") {
      return -1;
    }
    const ProgramValue* dim = value(dim_arg);
    const ProgramTensor* self = call.args.empty() ? nullptr : method_.tensor(call.args[0]);
    if (dim == nullptr || dim->kind != ValueKind::kInt || self == nullptr) return -1;
    return dim->integer < 0 ? dim->integer + static_cast<int64_t>(self->sizes.size())
                            : dim->integer;
  }

  const ProgramMethod& method_;
  std::vector<Use> uses_;
};

// A table of the positions that the rows of a ring hold.
bool is_position_table(const ProgramTensor& tensor, const Use& use) {
  return use.by_rows && tensor.scalar_type == kInt64 && tensor.sizes.size() == 1 &&
         tensor.sizes[0] > 1;
}

struct Buffer {
  const ProgramTensor* tensor;
  const Use* use;
};

std::vector<Buffer> surviving_buffers(const ProgramMethod& method, const Uses& uses) {
  std::vector<Buffer> buffers;
  for (size_t i = 0; i < method.values.size(); ++i) {
    const ProgramTensor* tensor = method.tensor(static_cast<int64_t>(i));
    if (tensor == nullptr || !tensor->is_planned || uses[i].is_temporary) continue;
    if (uses[i].is_written()) buffers.push_back({tensor, &uses[i]});
  }
  return buffers;
}

int64_t num_rows(const Buffer& buffer) {
  const auto& sizes = buffer.tensor->sizes;
  const int64_t dim = buffer.use->row_dim;
  return dim >= 0 && static_cast<size_t>(dim) < sizes.size() ? sizes[static_cast<size_t>(dim)] : 0;
}

StateKind kind_of(const Buffer& buffer, const std::set<int64_t>& ring_sizes, int64_t capacity) {
  const Use& use = *buffer.use;
  const int64_t rows = num_rows(buffer);
  if (use.as_a_whole || rows == 0) return StateKind::kWhole;
  if (use.by_position) return StateKind::kFlat;
  if (use.by_indices || ring_sizes.count(rows) != 0) return StateKind::kRing;
  // Recurrences are written by rows too, always the same ones.
  return rows >= std::max<int64_t>(capacity, 2) ? StateKind::kFlat : StateKind::kWhole;
}

StateTensor to_state(const Buffer& buffer, StateKind kind) {
  StateTensor state;
  state.kind = kind;
  state.arena_buffer = buffer.tensor->memory_id - 1;
  state.offset = buffer.tensor->memory_offset;
  state.has_initial_value = buffer.tensor->data_index != 0;
  const auto bytes = static_cast<int64_t>(tensor_bytes(*buffer.tensor).value_or(0));
  state.rows = std::max<int64_t>(num_rows(buffer), 1);
  for (int64_t i = 0; i < buffer.use->row_dim && state.rows > 1; ++i)
    state.outer *= buffer.tensor->sizes[static_cast<size_t>(i)];
  const int64_t num_blocks = state.outer * state.rows;
  state.row_bytes = num_blocks > 0 ? bytes / num_blocks : 0;
  return state;
}

}  // namespace

std::vector<StateTensor> find_state(const ProgramMethod& method, int64_t capacity) {
  const Uses uses(method);
  const std::vector<Buffer> buffers = surviving_buffers(method, uses);
  // A ring without update_cache_with_indices writes its rows as a flat cache does: what tells is
  // the table of positions of the same size.
  std::set<int64_t> ring_sizes;
  for (const Buffer& buffer : buffers) {
    if (buffer.use->by_indices || is_position_table(*buffer.tensor, *buffer.use))
      ring_sizes.insert(num_rows(buffer));
  }
  std::vector<StateTensor> state;
  state.reserve(buffers.size());
  for (const Buffer& buffer : buffers)
    state.push_back(to_state(buffer, kind_of(buffer, ring_sizes, capacity)));
  return state;
}

CacheLimits cache_limits(const std::vector<StateTensor>& state) {
  CacheLimits limits;
  bool has_sink = false;
  for (const StateTensor& tensor : state) {
    limits.is_recurrent |= tensor.kind == StateKind::kWhole;
    if (tensor.kind == StateKind::kWhole) continue;
    const bool is_ring = tensor.kind == StateKind::kRing;
    int64_t& rows = is_ring ? limits.ring_rows : limits.flat_rows;
    rows = rows == 0 ? tensor.rows : std::min(rows, tensor.rows);
    has_sink |= is_ring && tensor.has_initial_value;
  }
  // Exporters make rings of two windows, so that a call may write a window beside the one it reads.
  // Only rings with an attention sink have a table with an initial value; the sink, of a size that
  // nothing tells, takes a part of their rows, and positions beyond it are folded.
  limits.ring_window = limits.ring_rows / (has_sink ? 4 : 2);
  limits.is_unbounded = has_sink && std::all_of(state.begin(), state.end(), [](const auto& tensor) {
                          return tensor.kind == StateKind::kRing;
                        });
  return limits;
}

CacheKind find_cache_kind(const ProgramMethod& method, int64_t capacity) {
  CacheKind kind;
  for (const StateTensor& tensor : find_state(method, capacity)) {
    kind.bytes += tensor.bytes();
    kind.has_flat |= tensor.kind == StateKind::kFlat;
    kind.has_ring |= tensor.kind == StateKind::kRing;
    kind.has_state |= tensor.kind == StateKind::kWhole;
  }
  const Uses uses(method);
  for (const Buffer& buffer : surviving_buffers(method, uses)) {
    const int8_t type = buffer.tensor->scalar_type;
    kind.is_quantized |= !buffer.use->as_a_whole && (type == kInt8 || type == kUInt8);
  }
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
