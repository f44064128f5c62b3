// Checks what one method of a program means: its values, planned memory, calls of operators and
// delegates, and what these read and write.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "program/program_file.h"

namespace emm {

// A piece of named data.
struct NamedEntry {
  uint64_t bytes = 0;
  const ProgramTensor* layout = nullptr;  // where it is a tensor's
  bool is_outside = false;                // in a .ptd file
};
using NamedEntries = std::unordered_map<std::string_view, NamedEntry>;

[[noreturn]] inline void refuse_program(const std::string& what) {
  throw Error(ErrorCode::kLoad, what);
}

inline bool is_inside(uint64_t offset, uint64_t bytes, uint64_t end) {
  return offset <= end && bytes <= end - offset;
}

// Whether it names each of `rank` dimensions once.
bool is_dim_order(const std::vector<uint8_t>& order, size_t rank);

// Returns how many bytes of each planned memory its tensors need. Throws Error(kLoad), which names
// the place in the method. `data` is the whole file.
std::vector<uint64_t> check_method(const ProgramInfo& program, const ProgramMethod& method,
                                   const uint8_t* data, const NamedEntries& named_data);

}  // namespace emm
