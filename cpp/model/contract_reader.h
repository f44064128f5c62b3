// Reads a program's promises and checks that this runner can keep its side of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/contract.h"
#include "program/program_file.h"

namespace emm {

// What the caller chooses, as in LoadOptions.
struct ContractRequest {
  std::string method;
  int64_t max_context_len = 0;
  std::string kv_cache_dtype;
};

// What the file says of the methods, their limits and, from the decoder's instructions, what it
// remembers. Throws Error(kContract) that names the method, what was expected and what the program
// has, Error(kInput) for a request that it cannot meet.
Contract read_contract(const ProgramInfo& program, const ContractRequest& request = {});

// The same, and behind it those of the other decoders that the program has.
std::vector<Contract> read_contracts(const ProgramInfo& program, const ContractRequest& request);

}  // namespace emm
