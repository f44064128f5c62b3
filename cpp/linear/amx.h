// Whether this machine and its operating system let us use AMX's tiles. Nobody gets these kernels
// who has not asked for them by name: they are tested on emulated tiles,
// and no processor has run them.
#pragma once

#include "linear/kernels.h"

namespace emm::linear {

// Of the processor and the operating system, as far as can be told without asking for anything.
bool has_amx();

struct AmxAnswer {
  const Kernels* kernels = nullptr;  // those for AVX512-VNNI where there is a problem
  const char* problem = nullptr;
};

// Where has_amx(): asks the operating system for the tiles (once and for the whole process), then
// compares what a small layer gives with and without them. Later calls repeat the first answer.
AmxAnswer ask_for_amx();

}  // namespace emm::linear
