// Checks what a program means before ExecuTorch runs it: ExecuTorch's own verification covers the
// encoding, but its loader and kernels take many indices, sizes and kinds as they come.
// docs/security.md lists what is and is not covered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "program/data_file.h"
#include "program/program_file.h"

namespace emm {

// Reads and checks the bytes of a .pte. Throws Error(kLoad), which names what is wrong and where,
// `name` first. `outside`: what the .ptd files hold, see check_data().
ProgramInfo check_program(const uint8_t* data, size_t size, const std::string& name,
                          const std::vector<DataEntry>& outside = {});

// The same for a file, mapped for the time of the call.
ProgramInfo check_program_file(const std::string& path, const std::vector<DataEntry>& outside = {});

// Reads a file without checking what it means.
ProgramInfo read_program_file(const std::string& path);

}  // namespace emm
