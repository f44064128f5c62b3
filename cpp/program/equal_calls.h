// Which instructions of a method compute once more what an earlier one has: exporters write the
// position of a step, and the views of a table, anew for each layer. Found by structure; what
// cannot be proved equal stays.
#pragma once

#include <cstddef>

#include "program/program_file.h"
#include "program/short_chain.h"

namespace emm {

// Adds to what shorten_chain() has found in the method: the later calls are dropped, and who used
// their results gets those of the first. Returns how many were dropped. Two kinds are looked for:
//   a number that a select takes out of an input of the method, which nothing writes to;
//   a view of the same tensor in the same shape, which is in the same place.
size_t drop_equal_calls(const ProgramMethod& method, ShortChain& chain);

}  // namespace emm
