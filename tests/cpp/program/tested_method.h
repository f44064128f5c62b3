// export_llm's program with two layers, and its method taken apart: 83 instructions, in each layer
// twelve around a rotary embedding.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "program/program_check.h"

namespace emm {

inline const std::vector<uint8_t>& file() {
  static const std::vector<uint8_t> bytes = [] {
    std::ifstream stream(
        std::string(EMM_SOURCE_DIR) + "/tests/models/export_llm/llama_xnnpack_8da4w.pte",
        std::ios::binary);
    return std::vector<uint8_t>{std::istreambuf_iterator<char>(stream),
                                std::istreambuf_iterator<char>()};
  }();
  return bytes;
}

inline ProgramInfo program() { return check_program(file().data(), file().size(), "model"); }

struct Method {
  ProgramInfo whole = program();
  ProgramMethod& method = *std::find_if(whole.methods.begin(), whole.methods.end(),
                                        [](const auto& m) { return m.name == "forward"; });

  // Where the `nth` call of an operator stands.
  size_t find(const std::string& name, int nth = 0) const {
    const auto& chain = method.chains[0];
    for (size_t i = 0; i < chain.size(); ++i) {
      if (chain[i].kind == InstructionKind::kKernel &&
          method.operators[static_cast<size_t>(chain[i].index)] == name && nth-- == 0)
        return i;
    }
    FAIL("no " << name);
    return 0;
  }
  size_t find_rotary() const {
    const auto& chain = method.chains[0];
    for (size_t i = 0; i < chain.size(); ++i) {
      if (chain[i].kind == InstructionKind::kDelegate &&
          !method.delegates[static_cast<size_t>(chain[i].index)].rotary.empty())
        return i;
    }
    FAIL("no rotary embedding");
    return 0;
  }
  std::vector<int32_t>& args(size_t i) { return method.chains[0][i].args; }
  ProgramTensor& tensor(int32_t value) {
    return method.tensors[method.values[static_cast<size_t>(value)].tensor];
  }
};

}  // namespace emm
