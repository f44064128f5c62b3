#include "program/chain_uses.h"

#include <algorithm>

#include "program/program_check.h"

namespace emm {
namespace {

// What a list of tensors holds; nothing for other values.
const std::vector<int64_t>& tensor_list(const ProgramMethod& method, int32_t value) {
  static const std::vector<int64_t> nothing;
  if (value < 0 || static_cast<size_t>(value) >= method.values.size()) return nothing;
  const ProgramValue& content = method.values[static_cast<size_t>(value)];
  const bool holds_tensors =
      content.kind == ValueKind::kTensorList || content.kind == ValueKind::kOptionalTensorList;
  return holds_tensors ? content.items : nothing;
}

}  // namespace

bool is_call(const ProgramMethod& method, const ProgramInstruction& instruction, const char* name) {
  return instruction.kind == InstructionKind::kKernel &&
         method.operators[static_cast<size_t>(instruction.index)] == name;
}

std::optional<PlannedRange> place_of(const ProgramTensor* tensor) {
  const auto bytes = tensor && tensor->is_planned ? tensor_bytes(*tensor) : std::nullopt;
  if (!bytes) return std::nullopt;
  return PlannedRange{tensor->memory_id, tensor->memory_offset, tensor->memory_offset + *bytes};
}

bool touches(const ProgramMethod& method, const ProgramInstruction& instruction,
             const PlannedRange& place) {
  const auto lies_there = [&](int64_t value) {
    const auto where = place_of(method.tensor(value));
    return where && where->meets(place);
  };
  return std::any_of(instruction.args.begin(), instruction.args.end(), [&](int32_t arg) {
    const std::vector<int64_t>& list = tensor_list(method, arg);
    return lies_there(arg) || std::any_of(list.begin(), list.end(), lies_there);
  });
}

bool is_straight(const ProgramMethod& method) {
  return method.chains.size() == 1 &&
         std::all_of(method.chains[0].begin(), method.chains[0].end(),
                     [](const ProgramInstruction& instruction) {
                       return instruction.kind != InstructionKind::kMove &&
                              instruction.kind != InstructionKind::kJumpFalse;
                     });
}

ChainUses::ChainUses(const ProgramMethod& method, const std::vector<ProgramInstruction>& chain)
    : method_(method),
      by_(method.values.size()),
      is_made_(method.values.size()),
      is_pinned_(method.values.size()) {
  for (size_t i = 0; i < chain.size(); ++i) {
    for (const int32_t arg : chain[i].args) {
      add(arg, i);
      for (const int64_t item : tensor_list(method, arg)) add(item, i);
    }
    if (chain[i].kind == InstructionKind::kKernel && !chain[i].args.empty())
      is_made_[static_cast<size_t>(chain[i].args.back())] = true;
  }
  for (const int32_t value : method.inputs) is_pinned_[static_cast<size_t>(value)] = true;
  for (const int32_t value : method.outputs) is_pinned_[static_cast<size_t>(value)] = true;
}

std::optional<int64_t> ChainUses::constant(int64_t value) const {
  if (value < 0 || static_cast<size_t>(value) >= method_.values.size()) return std::nullopt;
  const ProgramValue& found = method_.values[static_cast<size_t>(value)];
  if (found.kind != ValueKind::kInt || is_made_[static_cast<size_t>(value)]) return std::nullopt;
  return found.integer;
}

void ChainUses::add(int64_t value, size_t instruction) {
  if (value < 0 || static_cast<size_t>(value) >= by_.size()) return;
  auto& by = by_[static_cast<size_t>(value)];
  if (by.empty() || by.back() != instruction) by.push_back(instruction);
}

}  // namespace emm
