// How a decoder keeps what it has read, as far as its instructions tell.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/contract.h"
#include "program/program_file.h"

namespace emm {

struct CacheKind {
  bool has_flat = false;   // one row for each position, written at the position
  bool has_ring = false;   // rows are used again: old positions are gone
  bool has_state = false;  // rewritten as a whole at each call: convolutions, recurrences
  bool is_quantized = false;
  uint64_t bytes = 0;  // of all buffers that survive a call

  bool is_none() const { return !has_flat && !has_ring && !has_state; }
  // Lowering the position is enough to forget what came after it.
  bool can_rewind() const { return !has_ring && !has_state; }
  // "none", or "flat", "ring" and "recurrent" joined by "+", with "quantized " before it.
  std::string name() const;
};

// `capacity`: a flat cache has at least that many rows, as far as known.
CacheKind find_cache_kind(const ProgramMethod& method, int64_t capacity = 2);

// The buffers that survive a call, in the order of the program.
std::vector<StateTensor> find_state(const ProgramMethod& method, int64_t capacity = 2);
CacheLimits cache_limits(const std::vector<StateTensor>& state);

}  // namespace emm
