// libFuzzer on the reader and the check of programs: nothing but Error may come out of any bytes.
//   cmake -DEMM_BUILD_FUZZERS=ON -DCMAKE_CXX_COMPILER=clang++ ...   then   fuzz_program_file
//   <folder with .pte files>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "model/cache_kind.h"
#include "model/contract_reader.h"
#include "program/program_check.h"

// Whatever the program is, and also where it is refused.
void contract_of(const emm::ProgramInfo& program) {
  try {
    emm::read_contract(program);
  } catch (const emm::Error&) {
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of its own, so that a read beyond the end is seen.
  const std::vector<uint8_t> file(data, data + size);
  try {
    const emm::ProgramInfo program = emm::read_program(file.data(), file.size());
    for (const emm::ProgramMethod& method : program.methods) emm::find_cache_kind(method).name();
    contract_of(program);
    emm::check_program(file.data(), file.size(), "model");
  } catch (const emm::Error&) {
  }
  return 0;
}
