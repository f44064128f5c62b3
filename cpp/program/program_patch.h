// Changes to a copy of a program's structure: other names of delegates, shorter chains.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "program/program_file.h"
#include "program/short_chain.h"

namespace emm {

struct ProgramPatch {
  std::string backend;                        // the name of all delegates that are renamed
  std::vector<std::vector<bool>> is_renamed;  // for each method, of each delegate
  std::vector<ShortChain> chains;             // for each method
};

struct ProgramCopy {
  std::shared_ptr<uint8_t> data;
  size_t size = 0;
};

// `structure` holds program.program_bytes bytes, in which `program` was read. No data where the
// changed copy would say anything but what the patch asks for (tables of a damaged file may lie in
// each other). Throws Error(kLoad) where there is no memory.
ProgramCopy patch_program(const uint8_t* structure, const ProgramInfo& program,
                          const ProgramPatch& patch);

}  // namespace emm
