// Reads a program's promises and checks that this runner can keep its side of them.
#pragma once

#include "model/contract.h"
#include "program/program_file.h"

namespace emm {

// What the file says of the methods, their limits and, from the decoder's instructions, what it
// remembers. max_context_len: as in LoadOptions. Throws Error(kContract) that names the method,
// what was expected and what the program has, Error(kInput) for a context that does not fit.
Contract read_contract(const ProgramInfo& program, int64_t max_context_len = 0);

}  // namespace emm
