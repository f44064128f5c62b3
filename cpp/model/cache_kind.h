// How a decoder keeps what it has read, as far as its instructions tell.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/contract.h"
#include "program/program_file.h"

namespace emm {

struct CacheKind {
  bool has_flat = false;   // one row for each position, written at the position
  bool has_ring = false;   // rows are used again: old positions are gone
  bool has_state = false;  // rewritten as a whole at each call: convolutions, recurrences
  bool is_outer = false;   // the runner brings it (outer_cache.h): flat, or as get_windows says
  bool is_quantized = false;
  uint64_t bytes = 0;  // of all buffers that survive a call

  bool is_none() const { return !has_flat && !has_ring && !has_state && !is_outer; }
  // Lowering the position is enough to forget what came after it.
  bool can_rewind() const { return !has_ring && !has_state; }
  // "none", or "outer", "flat", "ring" and "recurrent" joined by "+", with "quantized " before it.
  std::string name() const;
};

// The planned memory that the methods of a program have in common: what one leaves there another
// finds.
struct Sharing {
  std::map<uint32_t, int64_t> memories;       // bytes of each, by its number in the file
  std::vector<const ProgramMethod*> methods;  // those with inputs

  bool has(const ProgramTensor& tensor) const { return memories.count(tensor.memory_id) != 0; }
};

// Found by how the memory is used; names are not asked, which a file need not have.
Sharing find_sharing(const ProgramInfo& program);

// `capacity`: a flat cache has at least that many rows, as far as known.
CacheKind find_cache_kind(const ProgramMethod& method, int64_t capacity = 2);

// The buffers that survive a call of the method, in the order of the program; of shared memory also
// what the other methods keep there.
std::vector<StateTensor> find_state(const Sharing& sharing, const ProgramMethod& method,
                                    int64_t capacity);
std::vector<StateTensor> find_state(const ProgramMethod& method, int64_t capacity = 2);
// Whether methods cannot simply be pointed to another copy of the state: a delegate that may keep
// its address, or a tensor that is in it only in part.
bool has_fixed_state(const Sharing& sharing, const ProgramMethod& method,
                     const std::vector<StateTensor>& state);
CacheLimits cache_limits(const std::vector<StateTensor>& state);

}  // namespace emm
