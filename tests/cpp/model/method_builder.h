// A method that grows instruction by instruction, as exporters emit them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "program/program_file.h"

namespace emm {

constexpr int8_t kFloat = 6;
constexpr int8_t kLong = 4;

class Builder {
 public:
  Builder() { method_.chains.emplace_back(); }

  // In memory 1, behind what is there.
  int32_t tensor(std::vector<int32_t> sizes, int8_t type = kFloat, uint32_t data_index = 0) {
    const int32_t made = tensor_at(1, next_offset_, std::move(sizes), type);
    method_.tensors.back().data_index = data_index;
    next_offset_ += tensor_bytes(method_.tensors.back()).value();
    return made;
  }
  int32_t tensor_at(uint32_t memory_id, uint64_t offset, std::vector<int32_t> sizes,
                    int8_t type = kFloat) {
    ProgramTensor tensor;
    tensor.sizes = std::move(sizes);
    tensor.scalar_type = type;
    tensor.is_planned = true;
    tensor.memory_id = memory_id;
    tensor.memory_offset = offset;
    method_.tensors.push_back(tensor);
    return value(ValueKind::kTensor,
                 [&](ProgramValue& v) { v.tensor = method_.tensors.size() - 1; });
  }
  int32_t integer(int64_t number) {
    return value(ValueKind::kInt, [&](ProgramValue& v) { v.integer = number; });
  }
  int32_t tensors(std::vector<int64_t> items) {
    return value(ValueKind::kOptionalTensorList, [&](ProgramValue& v) { v.items = items; });
  }
  int32_t nothing() {
    return value(ValueKind::kNull, [](ProgramValue&) {});
  }

  void call(const std::string& op, std::vector<int32_t> args) {
    method_.operators.push_back(op);
    ProgramInstruction instruction;
    instruction.index = static_cast<int32_t>(method_.operators.size()) - 1;
    instruction.args = std::move(args);
    method_.chains[0].push_back(instruction);
  }

  // cache[:, :, rows] = value through a copy that is written back at the end.
  void put_rows(int32_t cache, int32_t rows, int32_t value, bool at_front = false) {
    const int32_t copy = tensor(method_.tensor(cache)->sizes);
    const int32_t indices = at_front ? tensors({rows}) : tensors({-1, -1, rows});
    call("aten::index_put.out", {cache, indices, value, integer(0), copy, copy});
    call("aten::copy_", {cache, copy, integer(0), cache});
  }

  void jump(int32_t condition) {
    ProgramInstruction instruction;
    instruction.kind = InstructionKind::kJumpFalse;
    instruction.index = condition;
    method_.chains[0].push_back(instruction);
  }
  void input(int32_t value) { method_.inputs.push_back(value); }

  ProgramMethod& method() { return method_; }

 private:
  template <typename Fill>
  int32_t value(ValueKind kind, Fill fill) {
    ProgramValue value;
    value.kind = kind;
    fill(value);
    method_.values.push_back(value);
    return static_cast<int32_t>(method_.values.size()) - 1;
  }

  ProgramMethod method_;
  uint64_t next_offset_ = 0;
};

}  // namespace emm
