// What a decoder remembers, and how much of it: its state and cache, the positions of a context,
// the tokens of a call.
#pragma once

#include "model/contract.h"
#include "model/contract_reader.h"
#include "program/program_file.h"

namespace emm {

// Of the contract's decoder, whose inputs are known. Throws Error(kContract), or Error(kInput) for
// a request that cannot be met.
void read_context_limits(const ProgramInfo& program, const ContractRequest& request,
                         Contract& contract);

}  // namespace emm
