#include "model/value_uses.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "program/op_signatures.h"

namespace emm {
namespace {

std::string_view base_name(std::string_view op) {
  op = op.substr(0, op.find('.'));
  return op.size() > 1 && op.back() == '_' ? op.substr(0, op.size() - 1) : op;
}

// What is there before the call makes no difference to it.
bool ignores_content(std::string_view op, size_t arg) {
  const std::string_view base = base_name(op);
  const bool is_about_shape = base == "aten::sym_size" || base == "aten::full_like" ||
                              base == "aten::empty_like" || base == "aten::zeros_like";
  return arg == 0 && (is_about_shape || base == "aten::copy");
}

// One position in, one out: it may be moved, added to, repeated and reshaped.
bool keeps_positions(std::string_view base) {
  static constexpr std::string_view kNames[] = {"aten::add",
                                                "aten::arange",
                                                "aten::clone",
                                                "aten::copy",
                                                "aten::expand_copy",
                                                "aten::_local_scalar_dense",
                                                "aten::permute_copy",
                                                "aten::select_copy",
                                                "aten::slice_copy",
                                                "aten::squeeze_copy",
                                                "aten::sub",
                                                "aten::_to_copy",
                                                "aten::unsqueeze_copy",
                                                "aten::view_copy",
                                                "dim_order_ops::_clone_dim_order",
                                                "dim_order_ops::_to_dim_order_copy",
                                                "executorch_prim::add",
                                                "executorch_prim::et_view",
                                                "executorch_prim::sub"};
  return std::find(std::begin(kNames), std::end(kNames), base) != std::end(kNames);
}

// Positions come last, behind tokens or embeddings; beside both they are the ids of one dimension.
int32_t position_input(const ProgramMethod& method) {
  constexpr int8_t kInt32 = 3;
  constexpr int8_t kInt64 = 4;
  for (size_t i = method.inputs.size(); i-- > 1;) {
    const ProgramTensor* tensor = method.tensor(method.inputs[i]);
    if (tensor != nullptr && tensor->sizes.size() == 1 &&
        (tensor->scalar_type == kInt32 || tensor->scalar_type == kInt64))
      return method.inputs[i];
  }
  return method.inputs.size() > 1 ? method.inputs.back() : -1;
}

enum class Effect { kNone, kFill, kOther };

// Follows what instructions do to one tensor's memory.
class Watch {
 public:
  Watch(const ProgramMethod& method, const ProgramTensor& tensor)
      : method_(method), tensor_(tensor) {}

  Effect effect_of(const ProgramInstruction& instruction) const {
    switch (instruction.kind) {
      case InstructionKind::kKernel:
        return effect_of_kernel(instruction);
      case InstructionKind::kMove:
        return touches(instruction.index) || touches(instruction.target) ? Effect::kOther
                                                                         : Effect::kNone;
      case InstructionKind::kJumpFalse:
        return Effect::kOther;  // what follows may not be run
      default:
        return touches_any(instruction.args) ? Effect::kOther : Effect::kNone;
    }
  }

  template <typename Values>
  bool touches_any(const Values& values) const {
    return std::any_of(values.begin(), values.end(),
                       [this](int64_t value) { return touches(value) || touches_items(value); });
  }

 private:
  bool touches(int64_t value) const {
    const ProgramTensor* other = method_.tensor(value);
    return other != nullptr && overlap(tensor_, *other);
  }
  bool touches_items(int64_t value) const {
    if (value < 0 || static_cast<size_t>(value) >= method_.values.size()) return false;
    const ProgramValue& list = method_.values[static_cast<size_t>(value)];
    const bool is_list =
        list.kind == ValueKind::kTensorList || list.kind == ValueKind::kOptionalTensorList;
    return is_list && std::any_of(list.items.begin(), list.items.end(),
                                  [this](int64_t item) { return touches(item); });
  }
  bool is_all_of_it(int64_t value) const {
    const ProgramTensor* other = method_.tensor(value);
    return other->memory_offset == tensor_.memory_offset && other->sizes == tensor_.sizes &&
           other->scalar_type == tensor_.scalar_type && !other->is_dynamic;
  }

  Effect effect_of_kernel(const ProgramInstruction& call) const {
    if (!touches_any(call.args)) return Effect::kNone;
    if (call.index < 0 || static_cast<size_t>(call.index) >= method_.operators.size())
      return Effect::kOther;
    const std::string_view op = method_.operators[static_cast<size_t>(call.index)];
    const auto found = op_signature(op);
    if (!found || found->num_args() != call.args.size()) return Effect::kOther;
    const OpSignature signature = *found;
    Effect effect = Effect::kNone;
    for (size_t i = 0; i < signature.args.size(); ++i) {  // what a call returns repeats its outputs
      const int32_t value = call.args[i];
      if (touches_items(value)) return Effect::kOther;
      if (!touches(value)) continue;
      const bool is_in_place_copy =
          i == 0 && signature.kind(i) == 'o' && base_name(op) == "aten::copy";
      if (is_in_place_copy || signature.is_output(i)) {
        if (!is_all_of_it(value)) return Effect::kOther;
        effect = Effect::kFill;
      } else if (!ignores_content(op, i)) {
        return Effect::kOther;
      }
    }
    return effect;
  }

  const ProgramMethod& method_;
  const ProgramTensor& tensor_;
};

}  // namespace

Uses::Uses(const ProgramMethod& method) : method_(method), uses_(method.values.size()) {
  const int32_t positions = position_input(method);
  if (is_known(positions)) uses_[static_cast<size_t>(positions)].origin = Origin::kPosition;
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

void Uses::see_kernel(const ProgramInstruction& call) {
  if (call.index < 0 || static_cast<size_t>(call.index) >= method_.operators.size()) return;
  const std::string_view op = method_.operators[static_cast<size_t>(call.index)];
  const auto signature = op_signature(op);
  if (!signature || call.args.size() != signature->num_args()) {
    for (const int32_t arg : call.args) touch(arg);
    return;
  }
  const Origin origin = result_origin(*signature, call);
  for (size_t i = 0; i < call.args.size(); ++i) {
    const int32_t arg = call.args[i];
    if (!is_known(arg)) continue;
    Use& use = uses_[static_cast<size_t>(arg)];
    if (signature->is_output(i) || signature->kind(i) == 'X') {
      if (!use.is_used) use.is_temporary = true;
      use.is_computed = true;
      use.origin = origin;
      const Rows rows = rows_of(op, call);
      use.changed_dim = rows.dim;
      use.changed_origin = rows.origin;
    } else if (i < signature->args.size() && signature->kind(i) == 'o') {
      see_write(op, use, call);
      use.origin = origin;
    }
    use.is_used = true;
  }
}

void Uses::see_write(std::string_view op, Use& use, const ProgramInstruction& call) {
  const std::string_view base = base_name(op);
  if (base == "llama::update_cache_with_indices") {
    use.by_indices = true;
    use.row_dim = 1;
    return;
  }
  if (base == "llama::update_cache" || base == "llama::sdpa_with_kv_cache") {
    use.by_position = true;
    use.row_dim = 1;
    return;
  }
  Rows rows = rows_of(op, call);
  if (base == "aten::copy") {
    // Written back after a change to a copy of it.
    const int64_t source = call.args.size() > 1 ? call.args[1] : -1;
    if (is_known(source)) {
      const Use& changed = uses_[static_cast<size_t>(source)];
      rows = {changed.changed_dim, changed.changed_origin};
    }
  }
  use.row_dim = rows.dim;
  use.row_origin = rows.origin;
  (rows.dim >= 0 ? use.by_rows : use.as_a_whole) = true;
}

const ProgramValue* Uses::value(const ProgramInstruction& call, size_t arg) const {
  const bool is_there = arg < call.args.size() && is_known(call.args[arg]);
  return is_there ? &method_.values[static_cast<size_t>(call.args[arg])] : nullptr;
}

Origin Uses::origin_of(int64_t value) const {
  return is_known(value) ? uses_[static_cast<size_t>(value)].origin : Origin::kFixed;
}

Origin Uses::result_origin(const OpSignature& op, const ProgramInstruction& call) const {
  const std::string_view base = base_name(op.name);
  size_t num_positions = 0;
  bool is_other = false;
  for (size_t i = 0; i < call.args.size(); ++i) {
    if (op.is_output(i) || op.kind(i) == 'X' || ignores_content(op.name, i)) continue;
    const Origin origin = origin_of(call.args[i]);
    num_positions += origin == Origin::kPosition;
    is_other |= origin == Origin::kOther;
    const ProgramValue* list = value(call, i);
    if (list == nullptr) continue;
    if (list->kind != ValueKind::kTensorList && list->kind != ValueKind::kOptionalTensorList)
      continue;
    is_other |= std::any_of(list->items.begin(), list->items.end(),
                            [this](int64_t item) { return origin_of(item) != Origin::kFixed; });
  }
  if (num_positions == 0 && !is_other) return Origin::kFixed;
  const bool is_range = base == "aten::arange";  // from one position to another
  if (is_other || (num_positions > 1 && !is_range)) return Origin::kOther;
  return keeps_positions(base) ? Origin::kPosition : Origin::kOther;
}

Uses::Rows Uses::rows_of(std::string_view op, const ProgramInstruction& call) const {
  const std::string_view base = base_name(op);
  if (base == "aten::index_put") {
    const ProgramValue* indices = value(call, 1);
    if (indices == nullptr) return {};
    Rows rows;
    for (size_t i = 0; i < indices->items.size(); ++i) {
      if (indices->items[i] < 0) continue;
      const Origin origin = origin_of(indices->items[i]);
      // Beside the rows there may be a fixed index, of the batch.
      if (rows.dim < 0 || (rows.origin == Origin::kFixed && origin != Origin::kFixed))
        rows = {static_cast<int64_t>(i), origin};
    }
    return rows;
  }
  size_t dim_arg = 1;
  size_t index_arg = 2;
  if (base == "aten::slice_scatter") {
    // A slice that always begins at the same row is the batch, not a position.
    index_arg = 3;
    if (value(call, index_arg) == nullptr ||
        !uses_[static_cast<size_t>(call.args[index_arg])].is_computed)
      return {};
    dim_arg = 2;
  } else if (base == "aten::select_scatter") {
    dim_arg = 2;
    index_arg = 3;
  } else if (base != "aten::index_copy" && base != "aten::scatter") {
    return {};
  }
  const ProgramValue* dim = value(call, dim_arg);
  const ProgramTensor* self = call.args.empty() ? nullptr : method_.tensor(call.args[0]);
  if (dim == nullptr || dim->kind != ValueKind::kInt || self == nullptr) return {};
  const int64_t rank = static_cast<int64_t>(self->sizes.size());
  const Origin origin =
      index_arg < call.args.size() ? origin_of(call.args[index_arg]) : Origin::kFixed;
  return {dim->integer < 0 ? dim->integer + rank : dim->integer, origin};
}

bool has_own_attention(const ProgramMethod& method) {
  return std::any_of(method.operators.begin(), method.operators.end(), [](const std::string& op) {
    const std::string_view base = base_name(op);
    return base == "llama::custom_sdpa" || base == "llama::custom_quantized_sdpa" ||
           base == "llama::sdpa_with_kv_cache" || base == "kvcache::update_and_attend";
  });
}

int64_t num_attended_rows(const ProgramMethod& method) {
  const Uses uses(method);
  int64_t fewest = 0;
  for (const auto& chain : method.chains) {
    for (const ProgramInstruction& call : chain) {
      if (call.kind != InstructionKind::kKernel || call.index < 0 ||
          static_cast<size_t>(call.index) >= method.operators.size() || call.args.size() < 4)
        continue;
      const std::string_view base = base_name(method.operators[static_cast<size_t>(call.index)]);
      if (base != "llama::custom_sdpa" && base != "llama::custom_quantized_sdpa") continue;
      const ProgramTensor* keys = method.tensor(call.args[1]);
      const int32_t start = call.args[3];
      if (keys == nullptr || keys->is_dynamic || keys->sizes.size() != 4 || start < 0 ||
          static_cast<size_t>(start) >= method.values.size() ||
          uses[static_cast<size_t>(start)].origin != Origin::kPosition)
        continue;
      fewest = fewest == 0 ? keys->sizes[1] : std::min<int64_t>(fewest, keys->sizes[1]);
    }
  }
  return fewest;
}

std::vector<int64_t> compared_ids(const ProgramMethod& method, size_t place) {
  std::set<int64_t> ids;
  if (place >= method.inputs.size()) return {};
  std::set<int32_t> copies = {method.inputs[place]};
  for (const auto& chain : method.chains) {
    for (const ProgramInstruction& call : chain) {
      if (call.kind != InstructionKind::kKernel || call.index < 0 || call.args.size() < 3 ||
          static_cast<size_t>(call.index) >= method.operators.size() ||
          copies.count(call.args[0]) == 0)
        continue;
      const std::string_view op = method.operators[static_cast<size_t>(call.index)];
      if (op == "aten::eq.Scalar_out") {
        const auto value = static_cast<size_t>(call.args[1]);
        if (call.args[1] >= 0 && value < method.values.size() &&
            method.values[value].kind == ValueKind::kInt)
          ids.insert(method.values[value].integer);
      } else if (keeps_positions(base_name(op)) && op.find("add") == std::string_view::npos &&
                 op.find("sub") == std::string_view::npos) {
        copies.insert(call.args.back());
      }
    }
  }
  return {ids.begin(), ids.end()};
}

bool overlap(const ProgramTensor& one, const ProgramTensor& other) {
  const auto end = [](const ProgramTensor& tensor) {
    return tensor.memory_offset + tensor_bytes(tensor).value_or(0);
  };
  return one.is_planned && other.is_planned && one.memory_id == other.memory_id &&
         one.memory_offset < end(other) && other.memory_offset < end(one);
}

bool is_filled_first(const ProgramMethod& method, const ProgramTensor& tensor) {
  const Watch watch(method, tensor);
  if (method.chains.size() != 1 || watch.touches_any(method.inputs)) return false;
  for (const ProgramInstruction& instruction : method.chains[0]) {
    const Effect effect = watch.effect_of(instruction);
    if (effect != Effect::kNone) return effect == Effect::kFill;
  }
  return false;
}

}  // namespace emm
