// What a .ptd file (weights outside of the program) says, checked before ExecuTorch reads it: its
// reader follows every offset as it comes, and takes a tensor's data to be as long as the program
// says.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "program/program_file.h"

namespace emm {

struct DataEntry {
  std::string key;
  uint64_t bytes = 0;
  std::optional<ProgramTensor> layout;  // element, sizes, order of dimensions; none for other data
};

// Reads and checks the bytes of a .ptd. Throws Error(kLoad), which names what is wrong and where,
// `name` first.
std::vector<DataEntry> check_data(const uint8_t* data, size_t size, const std::string& name);

// The same for a file, mapped for the time of the call.
std::vector<DataEntry> check_data_file(const std::string& path);

// `adapter`, behind those of `paths` that have no name in common with it: what it stands in for is
// left out, since ExecuTorch takes each name once. Throws Error(kLoad).
std::vector<std::string> beside_adapter(const std::vector<std::string>& paths,
                                        const std::vector<std::string>& adapter);

}  // namespace emm
