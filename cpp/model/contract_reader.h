// Reads a program's promises and checks that this runner can keep its side of them.
#pragma once

#include "model/contract.h"
#include "program/program_file.h"

namespace emm {

// What the file says of the methods, their limits and, from the decoder's instructions, what it
// remembers. Throws Error(kContract) that names the method, what was expected and what the program
// has.
Contract read_contract(const ProgramInfo& program);

}  // namespace emm
