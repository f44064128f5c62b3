// What a .pte file says, read without ExecuTorch, so that a file can be looked at (and refused)
// before any of ExecuTorch's code sees it. Plain data; field names follow the format's schema.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "program/rotary_graph.h"

namespace emm {

enum class ValueKind : uint8_t {  // numbered as in the schema's union
  kNull = 1,
  kInt,
  kBool,
  kDouble,
  kTensor,
  kString,
  kIntList,
  kDoubleList,
  kBoolList,
  kTensorList,
  kOptionalTensorList,
};

struct ProgramTensor {
  int8_t scalar_type = 0;      // ExecuTorch's ScalarType
  std::vector<int32_t> sizes;  // upper bounds where is_dynamic
  std::vector<uint8_t> dim_order;
  int32_t storage_offset = 0;
  bool is_dynamic = false;
  bool is_unbound = false;
  uint32_t data_index = 0;  // 0: no data in the program
  bool is_planned = false;  // has a place in planned memory:
  uint32_t memory_id = 0;
  uint64_t memory_offset = 0;
  bool is_external = false;  // its data is in a .ptd file, under `name`
  std::string name;
};

struct ProgramValue {
  ValueKind kind = ValueKind::kNull;
  int64_t integer = 0;  // kInt, kBool
  double real = 0;
  std::string text;
  // Lists: of ints and tensors as indices of values (-1: no tensor), of bools as they are.
  std::vector<int64_t> items;
  std::vector<double> reals;
  size_t tensor = 0;  // index in ProgramMethod::tensors
};

enum class InstructionKind : uint8_t { kKernel = 1, kDelegate, kMove, kJumpFalse, kFree };

struct ProgramInstruction {
  InstructionKind kind = InstructionKind::kKernel;
  // Operator or delegate; kMove: from; kJumpFalse: the condition's value; kFree: the value.
  int32_t index = 0;
  int32_t target = 0;  // kMove: to; kJumpFalse: the instruction to go on with
  std::vector<int32_t> args;
};

struct ProgramDelegate {
  std::string id;
  bool in_segment = false;
  uint32_t index = 0;  // of a segment, or of the program's inline data
  // Where in the file its data lies; absent if the index leads nowhere.
  std::optional<uint64_t> offset;
  uint64_t bytes = 0;
  uint64_t id_at = 0;         // where in the file the distance to its id lies
  bool is_linear = false;     // linear layers that we can run ourselves: found by check_program()
  bool is_int4 = false;       // all of them with 4-bit weights in groups
  bool is_pointwise = false;  // number by number (pointwise_graph.h): the same
  // Which arguments of a call it writes, where that is known: the same.
  std::optional<std::vector<uint32_t>> outputs;
  std::vector<RotaryPart> rotary;  // what a rotary embedding consists of: the same
};

struct ProgramMethod {
  std::string name;
  std::vector<ProgramValue> values;
  std::vector<ProgramTensor> tensors;
  std::vector<int32_t> inputs;  // indices of values
  std::vector<int32_t> outputs;
  std::vector<std::vector<ProgramInstruction>> chains;
  std::vector<std::string> operators;  // "name.overload", "name" where there is none
  std::vector<ProgramDelegate> delegates;
  std::vector<int64_t> arena_bytes;  // planned memory; memory_id i is entry i, entry 0 is unused

  const ProgramTensor* tensor(int64_t value) const {
    const auto index = static_cast<size_t>(value);
    if (value < 0 || index >= values.size() || values[index].kind != ValueKind::kTensor)
      return nullptr;
    return &tensors[values[index].tensor];
  }
};

struct ProgramSegment {
  uint64_t offset = 0;  // from segment_base
  uint64_t bytes = 0;
};

// Where each of several pieces of data begins in a segment.
struct ProgramOffsets {
  uint32_t segment = 0;
  std::vector<uint64_t> offsets;
};

struct ProgramNamedData {
  std::string key;
  uint32_t segment = 0;
};

struct ProgramInfo {
  uint64_t file_bytes = 0;
  uint64_t program_bytes = 0;  // of the structure, without the segments
  uint64_t segment_base = 0;   // 0: the file has no segments
  uint64_t segment_bytes = 0;  // as the header says; 0 in old files
  uint32_t version = 0;
  std::vector<ProgramMethod> methods;
  std::vector<ProgramSegment> segments;
  std::optional<ProgramOffsets> constants;
  std::vector<uint64_t> inline_constants;  // bytes of each, in files from before segments
  std::vector<ProgramOffsets> mutable_data;
  std::vector<ProgramNamedData> named_data;

  const ProgramMethod* find(const std::string& name) const {
    for (const ProgramMethod& method : methods) {
      if (method.name == name) return &method;
    }
    return nullptr;
  }
};

// Reads a program from the bytes of a .pte. Throws Error(kLoad), which names what is malformed and
// where; does not check what the program means (see program_check.h). `file_bytes` is given where
// the data is the beginning of a file: its structure without its segments.
ProgramInfo read_program(const uint8_t* data, size_t size,
                         std::optional<uint64_t> file_bytes = std::nullopt);

// Bytes of an element of an ExecuTorch ScalarType that kernels know, 0 for any other.
size_t scalar_type_bytes(int8_t scalar_type);
// numpy's name where there is one, else ExecuTorch's.
std::string scalar_type_name(int8_t scalar_type);
// Bytes of the whole tensor; nothing if a size is negative or the product overflows.
std::optional<uint64_t> tensor_bytes(const ProgramTensor& tensor);

}  // namespace emm
