// What a decoder remembers of one conversation, in memory of the conversation's own: the parts of
// the program's planned memory that hold state, each as the methods lay it out. Before a call the
// model points the method's tensors here, or copies the content to and fro.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "et/arena.h"
#include "et/state_memory.h"
#include "model/contract.h"
#include "model/executor.h"

namespace emm {

// Where the state of a model's decoders lies.
struct StateLayout {
  // A planned memory, from the first byte of state in it to the last.
  struct Memory {
    std::string method;  // whose it is; empty where methods share it
    size_t buffer = 0;
    uint64_t begin = 0;
    uint64_t end = 0;
    // What loading wrote. A method that is loaded later may write more to what it shares.
    std::vector<std::vector<PlannedMemory::Page>> starts;
    std::vector<StateTensor> pieces;  // the state in it, of all decoders

    // Those of flat caches, counted from `begin`.
    std::vector<RowBlocks> flat_rows() const;
  };
  std::vector<Memory> memories;
  std::map<const Contract*, std::vector<size_t>> of;  // the memory of each piece of its state

  // The contracts must outlive the layout.
  void add(const Contract& contract, const SharedBuffers& shared);
};

class EtState {
 public:
  // The layout must outlive the state.
  explicit EtState(const StateLayout& layout) : layout_(layout), parts_(layout.memories.size()) {}

  // The first byte of state in a memory, as loading wrote it unless a call has changed it.
  uint8_t* data(size_t memory);
  uint8_t* at(const Contract& contract, size_t piece) {
    const StateTensor& tensor = contract.state[piece];
    const size_t memory = layout_.of.at(&contract)[piece];
    return data(memory) + (tensor.offset - layout_.memories[memory].begin);
  }

  // Copies bytes to a place in a piece.
  void write(const Contract& contract, size_t piece, size_t offset, const uint8_t* bytes,
             size_t size);

  // Rows of flat caches from `first_row` on, and whatever else there is, are about to be written.
  void begin_write(const Contract& contract, int64_t first_row);

  // Another conversation that has read the same; of flat caches the first `num_rows` of `num_used`
  // rows. Nothing is copied where the system shares memory, but what a fork itself has written
  // since.
  std::shared_ptr<EtState> fork(const Contract& contract, int64_t num_rows, int64_t num_used);

  // As after loading.
  void reset();

  // What it keeps in memory of num_rows positions.
  std::vector<MemoryUse> memory(const Contract& contract, int64_t num_rows) const;

  // Flat rows that were written last end here; of a state that is copied to and fro.
  int64_t num_used_rows = 0;
  int64_t first_changed_row = std::numeric_limits<int64_t>::max();

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

  struct Part {
    std::unique_ptr<StateMemory> memory;
    size_t num_starts = 0;  // of the layout's that it has
    // An owner: rows below this may be in use by those who share the memory.
    int64_t num_lent_rows = 0;
    // Else: flat rows from here on differ from the shared ones, and what is not flat once it has
    // been written.
    int64_t first_own_row = kNone;
    bool is_written = false;
  };

  // Copies pieces from one to the other: flat rows from `first` to `end`, the others whole.
  void copy_pieces(const Contract& contract, size_t memory, int64_t first, int64_t end,
                   const uint8_t* from, uint8_t* to) const;
  bool has_flat_pieces_only(const Contract& contract, size_t memory) const;
  void take_later_starts(Part& part, const StateLayout::Memory& memory) const;
  void fork_part(const Contract& contract, size_t memory, int64_t num_rows, int64_t num_used,
                 Part& child);

  const StateLayout& layout_;
  std::vector<Part> parts_;
};

// Calls visit(piece's index, offset from its first byte, bytes) for flat rows from `first` to `end`
// and for all of the pieces that are not flat, in order.
template <typename Visit>
void for_each_piece(const std::vector<StateTensor>& state, int64_t first, int64_t end,
                    Visit visit) {
  for (size_t i = 0; i < state.size(); ++i) {
    const StateTensor& tensor = state[i];
    const bool is_flat = tensor.kind == StateKind::kFlat;
    const int64_t from = is_flat ? std::min(first, tensor.rows) : 0;
    const int64_t to = is_flat ? std::min(end, tensor.rows) : tensor.rows;
    for (int64_t block = 0; from < to && block < tensor.outer; ++block) {
      visit(i, static_cast<size_t>((block * tensor.rows + from) * tensor.row_bytes),
            static_cast<size_t>((to - from) * tensor.row_bytes));
    }
  }
}

}  // namespace emm
