#include "program/method_check.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "program/op_signatures.h"
#include "program/xnnpack_graph.h"

namespace emm {
namespace {

constexpr size_t kMaxRank = 16;  // ExecuTorch's
constexpr int8_t kBool = 11;

std::string number(int64_t value) { return std::to_string(value); }

const char* kind_name(ValueKind kind) {
  static constexpr const char* kNames[] = {"",
                                           "none",
                                           "an int",
                                           "a bool",
                                           "a float",
                                           "a tensor",
                                           "a string",
                                           "a list of ints",
                                           "a list of floats",
                                           "a list of bools",
                                           "a list of tensors",
                                           "a list of optional tensors"};
  return kNames[static_cast<size_t>(kind)];
}

// The letter that an operator's signature has for a kind of value.
char kind_letter(ValueKind kind) { return " .IBDTZLFVAP"[static_cast<size_t>(kind)]; }

class MethodChecker {
 public:
  MethodChecker(const ProgramInfo& program, const ProgramMethod& method, const uint8_t* data,
                const NamedEntries& named_data)
      : program_(program),
        method_(method),
        data_(data),
        named_data_(named_data),
        memory_(method.values.size()) {}

  std::vector<uint64_t> check() {
    if (method_.arena_bytes.empty()) fail("it has no list of planned memory");
    arena_used_.resize(method_.arena_bytes.size());
    for (size_t i = 0; i < method_.values.size(); ++i) check_value(i);
    for (const auto* ends : {&method_.inputs, &method_.outputs}) {
      for (const int32_t value : *ends) {
        expect_value(value, ends == &method_.inputs ? "input" : "output");
        lend(value);
      }
    }
    for (const ProgramDelegate& delegate : method_.delegates) check_delegate(delegate);
    if (method_.chains.empty()) fail("it has no instructions");
    for (const auto& chain : method_.chains) prepare(chain);
    for (const auto& chain : method_.chains) {
      for (size_t i = 0; i < chain.size(); ++i) {
        place_ = "instruction " + number(static_cast<int64_t>(i)) + ": ";
        check_instruction(chain[i], chain.size());
      }
    }
    return std::move(arena_used_);
  }

 private:
  // Where a tensor's elements are while the method runs.
  enum class Memory : uint8_t { kNone, kConstant, kWritable };

  [[noreturn]] void fail(const std::string& what) const {
    refuse_program("method " + method_.name + ": " + place_ + what);
  }
  bool has_value(int64_t value) const {
    return value >= 0 && static_cast<size_t>(value) < method_.values.size();
  }
  void expect_value(int64_t value, const char* what) const {
    if (!has_value(value))
      fail(std::string(what) + " " + number(value) + " is not one of its " +
           number(static_cast<int64_t>(method_.values.size())) + " values");
  }
  const ProgramValue& value_at(int64_t value) const {
    return method_.values[static_cast<size_t>(value)];
  }
  // The caller, or an instruction, gives the tensor memory.
  void lend(int64_t value) {
    Memory& memory = memory_[static_cast<size_t>(value)];
    if (memory == Memory::kNone) memory = Memory::kWritable;
  }

  void check_value(size_t index) {
    place_ = "value " + number(static_cast<int64_t>(index)) + ": ";
    const ProgramValue& value = method_.values[index];
    if (value.kind == ValueKind::kTensor) {
      memory_[index] = check_tensor(method_.tensors[value.tensor]);
    } else if (value.kind != ValueKind::kBoolList) {
      for (const int64_t item : value.items) check_item(value.kind, item, index);
    }
    place_.clear();
  }

  void check_item(ValueKind kind, int64_t item, size_t list) const {
    if (kind == ValueKind::kOptionalTensorList && item == -1) return;
    expect_value(item, "item");
    const ValueKind found = value_at(item).kind;
    if (kind == ValueKind::kIntList) {
      if (found != ValueKind::kInt) fail(std::string("expected ints, got ") + kind_name(found));
      return;
    }
    const bool is_absent = kind == ValueKind::kOptionalTensorList && found == ValueKind::kNull;
    if (found != ValueKind::kTensor && !is_absent)
      fail(std::string("expected tensors, got ") + kind_name(found));
    // ExecuTorch copies the tensors when it reads the list.
    if (static_cast<size_t>(item) >= list) fail("it comes before the tensors in it");
  }

  Memory check_tensor(const ProgramTensor& tensor) {
    const size_t element_bytes = scalar_type_bytes(tensor.scalar_type);
    if (element_bytes == 0) fail("unknown element " + scalar_type_name(tensor.scalar_type));
    const auto bytes = tensor_bytes(tensor);
    if (!bytes) fail("a negative size, or sizes that overflow");
    if (tensor.storage_offset != 0) fail("an offset into its storage");
    if (tensor.is_unbound) fail("a shape without bounds");
    const size_t rank = tensor.sizes.size();
    if (rank > kMaxRank) fail("more than 16 dimensions");
    if (!is_dim_order(tensor.dim_order, rank))
      fail("an order of dimensions that is not a permutation");
    if (tensor.is_external) check_outside(tensor, *bytes);
    if (tensor.is_planned) {
      check_place(tensor, *bytes);
      if (tensor.data_index != 0 && !tensor.is_external) check_initial_state(tensor, *bytes);
      return Memory::kWritable;
    }
    if (tensor.is_external) return Memory::kConstant;
    if (tensor.data_index == 0) return *bytes == 0 ? Memory::kWritable : Memory::kNone;
    check_constant(tensor, *bytes, element_bytes);
    return Memory::kConstant;
  }

  // What no file has is ExecuTorch's to report.
  void check_outside(const ProgramTensor& tensor, uint64_t bytes) const {
    if (tensor.name.empty()) fail("data in another file, without a name");
    const auto found = named_data_.find(tensor.name);
    if (found == named_data_.end()) return;
    const NamedEntry& entry = found->second;
    if (!entry.is_outside) fail("'" + tensor.name + "' is said to be in another file, and is not");
    if (entry.layout == nullptr) fail("'" + tensor.name + "' is no tensor in the .ptd file");
    if (entry.layout->scalar_type != tensor.scalar_type || entry.layout->sizes != tensor.sizes ||
        entry.layout->dim_order != tensor.dim_order || entry.bytes < bytes) {
      fail("'" + tensor.name + "' is another tensor in the .ptd file: expected " +
           std::to_string(bytes) + " bytes of " + scalar_type_name(tensor.scalar_type) +
           " in the same shape, got " + std::to_string(entry.bytes) + " of " +
           scalar_type_name(entry.layout->scalar_type));
    }
  }

  void check_place(const ProgramTensor& tensor, uint64_t bytes) {
    const size_t id = tensor.memory_id;
    if (id == 0 || id >= method_.arena_bytes.size() ||
        !is_inside(tensor.memory_offset, bytes,
                   static_cast<uint64_t>(std::max<int64_t>(method_.arena_bytes[id], 0)))) {
      fail("its " + std::to_string(bytes) + " bytes at " + std::to_string(tensor.memory_offset) +
           " of planned memory " + std::to_string(id) + " lie outside of it");
    }
    if (tensor.memory_offset % scalar_type_bytes(tensor.scalar_type) != 0)
      fail("a place in planned memory that is not aligned");
    arena_used_[id] = std::max(arena_used_[id], tensor.memory_offset + bytes);
  }

  void check_constant(const ProgramTensor& tensor, uint64_t bytes, size_t element_bytes) const {
    if (program_.constants && program_.constants->offsets.size() > 1) {
      expect_part(*program_.constants, tensor.data_index, bytes, element_bytes);
    } else if (tensor.data_index >= program_.inline_constants.size() ||
               program_.inline_constants[tensor.data_index] < bytes || bytes == 0) {
      fail("its data is missing or too short");
    }
  }

  void check_initial_state(const ProgramTensor& tensor, uint64_t bytes) const {
    if (program_.mutable_data.empty()) fail("an initial state that the file does not have");
    expect_part(program_.mutable_data[0], tensor.data_index, bytes, 1);
  }

  void expect_part(const ProgramOffsets& parts, uint32_t index, uint64_t bytes,
                   size_t alignment) const {
    if (index >= parts.offsets.size() || parts.segment >= program_.segments.size() ||
        !is_inside(parts.offsets[index], bytes, program_.segments[parts.segment].bytes)) {
      fail("its " + std::to_string(bytes) + " bytes of data lie outside of their segment");
    }
    if (parts.offsets[index] % alignment != 0) fail("data that is not aligned");
  }

  void check_delegate(const ProgramDelegate& delegate) {
    const std::string what = "method " + method_.name + ": delegate " +
                             std::to_string(graphs_.size()) + " (" + delegate.id + ")";
    if (!delegate.offset || !is_inside(*delegate.offset, delegate.bytes, program_.file_bytes))
      refuse_program(what + ": its data is missing or lies outside of the file");
    graphs_.emplace_back();
    if (delegate.id != "XnnpackBackend") return;
    graphs_.back() = check_xnnpack_graph(
        data_ + *delegate.offset, static_cast<size_t>(delegate.bytes), what,
        [this](std::string_view key) -> std::optional<uint64_t> {
          const auto found = named_data_.find(key);
          return found == named_data_.end() ? std::nullopt : std::optional(found->second.bytes);
        });
  }

  // Some instructions give memory to tensors that have none: moves, views.
  void prepare(const std::vector<ProgramInstruction>& chain) {
    for (const ProgramInstruction& instruction : chain) {
      if (instruction.kind == InstructionKind::kMove && has_value(instruction.target)) {
        lend(instruction.target);
      } else if (is_view(instruction) && has_value(instruction.args[0]) &&
                 has_value(instruction.args[2])) {
        const Memory source = memory_[static_cast<size_t>(instruction.args[0])];
        auto& view = memory_[static_cast<size_t>(instruction.args[2])];
        if (source == Memory::kConstant) view = source;
        if (view == Memory::kNone) view = source;
      }
    }
  }

  bool is_view(const ProgramInstruction& instruction) const {
    return instruction.kind == InstructionKind::kKernel && instruction.args.size() == 3 &&
           instruction.index >= 0 &&
           static_cast<size_t>(instruction.index) < method_.operators.size() &&
           method_.operators[static_cast<size_t>(instruction.index)] ==
               "executorch_prim::et_view.default";
  }

  void check_instruction(const ProgramInstruction& instruction, size_t count) {
    for (const int32_t arg : instruction.args) expect_value(arg, "argument");
    switch (instruction.kind) {
      case InstructionKind::kKernel:
        return check_kernel(instruction);
      case InstructionKind::kDelegate:
        return check_call(instruction);
      case InstructionKind::kMove: {
        expect_value(instruction.index, "source");
        expect_value(instruction.target, "target");
        const ProgramTensor* from = method_.tensor(instruction.index);
        const ProgramTensor* to = method_.tensor(instruction.target);
        const bool fits =
            from && to ? from->scalar_type == to->scalar_type
                       : value_at(instruction.index).kind == value_at(instruction.target).kind;
        if (!fits) fail("it moves one kind of value onto another");
        return;
      }
      case InstructionKind::kJumpFalse: {
        expect_value(instruction.index, "condition");
        const ProgramTensor* condition = method_.tensor(instruction.index);
        const bool is_bool = condition ? condition->scalar_type == kBool
                                       : value_at(instruction.index).kind == ValueKind::kBool;
        if (!is_bool) fail("a condition that is not a bool");
        if (condition) expect_memory(instruction.index, false);
        if (instruction.target < 0 || static_cast<size_t>(instruction.target) > count)
          fail("it jumps to " + number(instruction.target) + " of " +
               number(static_cast<int64_t>(count)));
        return;
      }
      case InstructionKind::kFree:
        fail("it frees a tensor, which only tensors without bounds need");
    }
  }

  void expect_memory(int64_t value, bool for_writing) const {
    const Memory memory = memory_[static_cast<size_t>(value)];
    if (memory == Memory::kNone) fail("value " + number(value) + " has no memory");
    if (for_writing && memory == Memory::kConstant)
      fail("it writes into the constant value " + number(value));
  }

  void check_kernel(const ProgramInstruction& call) {
    if (call.index < 0 || static_cast<size_t>(call.index) >= method_.operators.size())
      fail("operator " + number(call.index) + " does not exist");
    const std::string& op = method_.operators[static_cast<size_t>(call.index)];
    const auto signature = op_signature(op);
    if (!signature) return;  // nobody provides it: ExecuTorch names it when the method is loaded
    place_ += op + ": ";
    if (call.args.size() != signature->num_args()) {
      fail("expected " + std::to_string(signature->num_args()) + " arguments, got " +
           std::to_string(call.args.size()));
    }
    for (size_t i = 0; i < call.args.size(); ++i) check_argument(signature->kind(i), call.args[i]);
    check_arithmetic(op, call);
  }

  void check_argument(char wanted, int32_t index) const {
    const ProgramValue& value = value_at(index);
    const char letter = kind_letter(value.kind);
    const bool is_number = value.kind == ValueKind::kInt || value.kind == ValueKind::kBool ||
                           value.kind == ValueKind::kDouble;
    bool fits = false;
    switch (wanted) {
      case 'o':
        fits = value.kind == ValueKind::kTensor;
        break;
      case 'w':
        fits = value.kind == ValueKind::kTensorList;
        break;
      case 'S':
        fits = is_number;
        break;
      case 's':
        fits = is_number || value.kind == ValueKind::kNull;
        break;
      case 'X':
        fits = is_number || value.kind == ValueKind::kNull;
        break;
      default:
        fits =
            letter == wanted ||
            (wanted >= 'a' && (letter + ('a' - 'A') == wanted || value.kind == ValueKind::kNull));
    }
    if (!fits) {
      fail("argument " + number(index) + " is " + kind_name(value.kind) +
           ", which the operator does not take there");
    }
    const bool writes = wanted == 'o' || wanted == 'w';
    if (value.kind == ValueKind::kTensor) expect_memory(index, writes);
    if (value.kind == ValueKind::kTensorList || value.kind == ValueKind::kOptionalTensorList) {
      for (const int64_t item : value.items) {
        if (item >= 0 && method_.tensor(item)) expect_memory(item, writes);
      }
    }
  }

  // Arithmetic that traps, where the operands are known beforehand.
  void check_arithmetic(const std::string& op, const ProgramInstruction& call) const {
    constexpr int64_t kLimit = int64_t{1} << 31;
    if (op == "executorch_prim::et_view.default") {
      for (const int64_t item : value_at(call.args[1]).items) {
        const int64_t size = value_at(item).integer;
        if (size < -1 || size >= kLimit) fail("a size of " + number(size));
      }
    } else if (op.rfind("executorch_prim::floordiv", 0) == 0 ||
               op.rfind("executorch_prim::mod", 0) == 0) {
      const ProgramValue& divisor = value_at(call.args[1]);
      if (divisor.kind == ValueKind::kInt && divisor.integer == 0) fail("a division by zero");
    }
  }

  void check_call(const ProgramInstruction& call) {
    if (call.index < 0 || static_cast<size_t>(call.index) >= graphs_.size())
      fail("delegate " + number(call.index) + " does not exist");
    for (const XnnpackExternal& external : graphs_[static_cast<size_t>(call.index)]) {
      place_ += "delegate " + number(call.index) + ", value " + std::to_string(external.id) + ": ";
      if (external.id >= call.args.size()) fail("the call has no such argument");
      const int32_t value = call.args[external.id];
      const ProgramTensor* tensor = method_.tensor(value);
      if (tensor == nullptr) fail("expected a tensor");
      expect_memory(value, external.is_output);
      const bool sizes_fit = [&] {
        // XNNPACK has no scalars: a tensor without dimensions has one of size 1 there.
        if (tensor->sizes.empty() && external.dims.size() == 1) return external.dims[0] == 1;
        if (tensor->sizes.size() != external.dims.size()) return false;
        if (tensor->is_dynamic) return true;  // XNNPACK gets the sizes of each call
        for (size_t i = 0; i < external.dims.size(); ++i) {
          const auto size = static_cast<uint32_t>(tensor->sizes[tensor->dim_order[i]]);
          if (size != external.dims[i]) return false;
        }
        return true;
      }();
      if (!sizes_fit || scalar_type_bytes(tensor->scalar_type) != external.element_bytes)
        fail("expected a tensor of another shape or element");

      place_.resize(place_.find("delegate "));
    }
  }

  const ProgramInfo& program_;
  const ProgramMethod& method_;
  const uint8_t* data_;
  const NamedEntries& named_data_;
  std::vector<Memory> memory_;                        // of each value
  std::vector<uint64_t> arena_used_;                  // of each planned memory
  std::vector<std::vector<XnnpackExternal>> graphs_;  // of each delegate
  std::string place_;
};

}  // namespace

bool is_dim_order(const std::vector<uint8_t>& order, size_t rank) {
  uint32_t seen = 0;
  for (const uint8_t dim : order) {
    if (dim < rank) seen |= 1u << dim;
  }
  return order.size() == rank && rank <= kMaxRank && seen == (1u << rank) - 1;
}

std::vector<uint64_t> check_method(const ProgramInfo& program, const ProgramMethod& method,
                                   const uint8_t* data, const NamedEntries& named_data) {
  return MethodChecker(program, method, data, named_data).check();
}

}  // namespace emm
