// Who uses the values of a method, and where they lie: what proofs about its instructions start
// from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "program/program_file.h"

namespace emm {

constexpr const char* kView = "executorch_prim::et_view.default";

// Files are from strangers: what is looked through for a place in a chain has a bound.
constexpr size_t kMostBetween = 256;  // instructions from what makes a value to what takes it

// The instruction calls this operator.
bool is_call(const ProgramMethod& method, const ProgramInstruction& instruction, const char* name);

// A part of planned memory.
struct PlannedRange {
  uint32_t memory;
  uint64_t begin;
  uint64_t end;

  bool meets(const PlannedRange& other) const {
    return memory == other.memory && begin < other.end && other.begin < end;
  }
};

// Nothing for null, and for what has no place there.
std::optional<PlannedRange> place_of(const ProgramTensor* tensor);

// An argument of the instruction, or a tensor in a list that is one, lies there.
bool touches(const ProgramMethod& method, const ProgramInstruction& instruction,
             const PlannedRange& place);

// One chain, without jumps and moves.
bool is_straight(const ProgramMethod& method);

// Only for straight methods.
class ChainUses {
 public:
  // `chain`: the instructions of the method, or what became of them.
  ChainUses(const ProgramMethod& method, const std::vector<ProgramInstruction>& chain);

  // Exactly these instructions use it, in this order, and neither caller.
  bool are(int32_t value, const std::vector<size_t>& instructions) const {
    return !is_pinned(value) && of(value) == instructions;
  }
  // In ascending order.
  const std::vector<size_t>& of(int32_t value) const { return by_[static_cast<size_t>(value)]; }
  // An input or an output of the method.
  bool is_pinned(int32_t value) const { return is_pinned_[static_cast<size_t>(value)]; }

  // A number that no instruction changes.
  std::optional<int64_t> constant(int64_t value) const;

 private:
  void add(int64_t value, size_t instruction);

  const ProgramMethod& method_;
  std::vector<std::vector<size_t>> by_;
  std::vector<bool> is_made_;
  std::vector<bool> is_pinned_;
};

}  // namespace emm
