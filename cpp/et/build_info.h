// What this build of the library consists of, for reports.
#pragma once

#include <string>
#include <vector>

namespace emm {

struct BuildInfo {
  std::string compiler;
  std::string instruction_set;              // of the attention kernels on this machine
  std::vector<std::string> linear_kernels;  // instruction sets for linear layers, the best first
  std::vector<std::string> linear_kernels_on_request;  // and those that only their name chooses
  std::vector<std::string> own_operators;              // handed to every method
  std::vector<std::string> sdk_operators;              // registered by ExecuTorch's libraries
  std::vector<std::string> backends;                   // registered delegates
};

BuildInfo build_info();

}  // namespace emm
