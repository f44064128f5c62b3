// Which instructions of a method a backend of ours makes needless: what only moves data between
// linear layers and a graph that reads and writes it where it lies. Found by structure; what cannot
// be proved equal stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "program/program_file.h"

namespace emm {

// Of a method's only chain.
struct ShortChain {
  std::vector<bool> is_dropped;                     // one for each instruction; empty: none
  std::map<size_t, std::vector<int32_t>> new_args;  // by instruction
  std::vector<size_t> rotary_delegates;             // those that are called with such arguments

  bool is_whole() const { return new_args.empty(); }
  size_t num_dropped() const;
};

// Rotary embeddings: the views, slices and squeezes that take a tensor [.., heads * pairs * 2]
// apart, and the view of the result. The graph's call then gets the whole tensor for both halves of
// its pairs, and the view for its output.
ShortChain shorten_chain(const ProgramMethod& method);

}  // namespace emm
