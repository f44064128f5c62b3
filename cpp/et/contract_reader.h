// Reads a loaded program's promises and checks that this runner can keep its side of them.
#pragma once

#include <executorch/extension/module/module.h>

#include <map>
#include <string>

#include "model/contract.h"
#include "program/program_file.h"

namespace emm {

// The signatures of all methods of a program, whatever it is for. Throws Error(kLoad).
std::map<std::string, MethodSpec> read_methods(executorch::extension::Module& module,
                                               const ProgramInfo& program);

// The same, with the constant methods run for their values. Throws Error(kLoad).
Signatures read_signatures(executorch::extension::Module& module, const ProgramInfo& program);

// Runs the constant methods, reads every other method's signature and, from the decoder's
// instructions, what it remembers. `program` is the same file's structure. Throws Error(kContract)
// that names the method, what was expected and what the program has.
Contract read_contract(executorch::extension::Module& module, const ProgramInfo& program);

}  // namespace emm
