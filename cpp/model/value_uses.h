// What a method's instructions do to its values: the evidence for what survives a call.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "program/op_signatures.h"
#include "program/program_file.h"

namespace emm {

// How a number follows from the position that a call is given.
enum class Origin : uint8_t {
  kFixed,     // not at all
  kPosition,  // by adding to it
  kOther,     // in some other way, such as a remainder
};

// What the instructions do to one value, in their order.
struct Use {
  bool is_temporary = false;  // a kernel filled it before anything else used it
  bool is_used = false;
  bool by_rows = false;
  bool by_indices = false;   // llama::update_cache_with_indices: a ring
  bool by_position = false;  // llama::update_cache: flat
  bool as_a_whole = false;
  int64_t row_dim = -1;                // of the rows, where it is written by rows
  Origin row_origin = Origin::kFixed;  // of the rows' numbers
  Origin origin = Origin::kFixed;      // of its content
  bool is_computed = false;            // a kernel writes it
  // It was last filled with a copy that differs in some rows: as row_dim and row_origin.
  int64_t changed_dim = -1;
  Origin changed_origin = Origin::kFixed;

  bool is_written() const { return by_rows || by_indices || by_position || as_a_whole; }
};

class Uses {
 public:
  explicit Uses(const ProgramMethod& method);

  const Use& operator[](size_t value) const { return uses_[value]; }

 private:
  bool is_known(int64_t value) const {
    return value >= 0 && static_cast<size_t>(value) < uses_.size();
  }
  void touch(int32_t value) {
    if (is_known(value)) uses_[static_cast<size_t>(value)].is_used = true;
  }
  void see_kernel(const ProgramInstruction& call);
  void see_write(std::string_view op, Use& use, const ProgramInstruction& call);
  const ProgramValue* value(const ProgramInstruction& call, size_t arg) const;
  Origin origin_of(int64_t value) const;
  // Of what the call makes of its arguments.
  Origin result_origin(const OpSignature& op, const ProgramInstruction& call) const;

  struct Rows {
    int64_t dim = -1;
    Origin origin = Origin::kFixed;
  };
  // The rows that a call writes in its first argument or a copy of it; no dimension if it writes
  // all of it or does not tell.
  Rows rows_of(std::string_view op, const ProgramInstruction& call) const;

  const ProgramMethod& method_;
  std::vector<Use> uses_;
};

// Rows of the smallest keys that an attention operator reads up to the position: it fails beyond. 0
// where there is none.
int64_t num_attended_rows(const ProgramMethod& method);

// Whether it calls an attention operator, all of which are ours: see cpp/ops.
bool has_own_attention(const ProgramMethod& method);

// The ids that the instructions compare the method's input `place`, or a copy of it in another
// dtype or shape, with; ascending.
std::vector<int64_t> compared_ids(const ProgramMethod& method, size_t place);

// Whether two tensors, both with a place in planned memory, have a byte in common.
bool overlap(const ProgramTensor& one, const ProgramTensor& other);

// Whether every call fills this tensor of planned memory before anything reads what is there, under
// whatever name: then nothing of it survives. False where the instructions do not prove it.
bool is_filled_first(const ProgramMethod& method, const ProgramTensor& tensor);

}  // namespace emm
