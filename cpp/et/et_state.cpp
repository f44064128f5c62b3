#include "et/et_state.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace emm {
namespace {

// Calls visit(byte of the memory, what it was, what it is) where the pages that loading wrote
// differ.
template <typename Visit>
void for_each_difference(const std::vector<PlannedMemory::Page>& before,
                         const std::vector<PlannedMemory::Page>& after, Visit visit) {
  struct Both {
    const std::vector<uint8_t>* before = nullptr;
    const std::vector<uint8_t>* after = nullptr;
  };
  std::map<size_t, Both> pages;
  for (const auto& page : before) pages[page.offset].before = &page.bytes;
  for (const auto& page : after) pages[page.offset].after = &page.bytes;
  for (const auto& [offset, page] : pages) {
    const size_t size = (page.before != nullptr ? page.before : page.after)->size();
    for (size_t i = 0; i < size; ++i) {
      const uint8_t was = page.before != nullptr ? (*page.before)[i] : 0;
      const uint8_t is = page.after != nullptr ? (*page.after)[i] : 0;
      if (was != is) visit(offset + i, was, is);
    }
  }
}

}  // namespace

void StateLayout::add(const Contract& contract, const SharedBuffers& shared) {
  std::vector<size_t>& found = of[&contract];
  for (const StateTensor& tensor : contract.state) {
    const bool is_shared = shared.count(tensor.arena_buffer) != 0;
    const std::string method = is_shared ? "" : contract.decoder_name;
    size_t i = 0;
    while (i < memories.size() &&
           (memories[i].method != method || memories[i].buffer != tensor.arena_buffer))
      ++i;
    const uint64_t end = tensor.offset + tensor.bytes();
    if (i == memories.size())
      memories.push_back({method, tensor.arena_buffer, tensor.offset, end, {}, {}});
    memories[i].begin = std::min(memories[i].begin, tensor.offset);
    memories[i].end = std::max(memories[i].end, end);
    memories[i].pieces.push_back(tensor);
    found.push_back(i);
  }
}

// Where decoders share a memory, a piece counts once, and as flat where it is for all of them.
std::vector<RowBlocks> StateLayout::Memory::flat_rows() const {
  std::vector<RowBlocks> rows;
  for (const StateTensor& piece : pieces) {
    const auto overlaps = [&](const StateTensor& other) {
      const bool is_apart = other.offset + other.bytes() <= piece.offset ||
                            piece.offset + piece.bytes() <= other.offset;
      return !is_apart && (other.kind != StateKind::kFlat || other.offset != piece.offset ||
                           other.rows != piece.rows || other.row_bytes != piece.row_bytes);
    };
    const uint64_t offset = piece.offset - begin;
    const bool is_known = std::any_of(
        rows.begin(), rows.end(), [&](const RowBlocks& known) { return known.offset == offset; });
    if (is_known || piece.kind != StateKind::kFlat ||
        std::any_of(pieces.begin(), pieces.end(), overlaps))
      continue;
    rows.push_back({offset, piece.outer, piece.rows, piece.row_bytes});
  }
  return rows;
}

uint8_t* EtState::data(size_t memory) {
  Part& part = parts_[memory];
  const StateLayout::Memory& place = layout_.memories[memory];
  if (part.memory == nullptr) {
    part.memory = std::make_unique<StateMemory>(place.end - place.begin, place.flat_rows());
    part.num_starts = 0;
  }
  if (part.num_starts < place.starts.size()) take_later_starts(part, place);
  return part.memory->data();
}

void EtState::take_later_starts(Part& part, const StateLayout::Memory& place) const {
  for (; part.num_starts < place.starts.size(); ++part.num_starts) {
    const std::vector<PlannedMemory::Page> nothing;
    const auto& before = part.num_starts == 0 ? nothing : place.starts[part.num_starts - 1];
    for_each_difference(before, place.starts[part.num_starts],
                        [&](size_t offset, uint8_t was, uint8_t is) {
                          if (offset < place.begin || offset >= place.end) return;
                          uint8_t& byte = part.memory->data()[offset - place.begin];
                          if (byte == was) byte = is;
                        });
  }
}

void EtState::write(const Contract& contract, size_t piece, size_t offset, const uint8_t* bytes,
                    size_t size) {
  const StateTensor& tensor = contract.state[piece];
  const size_t memory = layout_.of.at(&contract)[piece];
  data(memory);  // makes it
  parts_[memory].memory->write(tensor.offset - layout_.memories[memory].begin + offset, bytes,
                               size);
}

void EtState::begin_write(const Contract& contract, int64_t first_row) {
  for (const size_t memory : layout_.of.at(&contract)) {
    Part& part = parts_[memory];
    if (part.memory == nullptr) continue;
    if (part.memory->is_owner()) {
      if (first_row >= part.num_lent_rows) continue;
      if (part.memory->is_shared()) {
        part.memory->stop_owning(part.num_lent_rows);
        part.first_own_row = part.num_lent_rows;
      }
      part.num_lent_rows = 0;
    }
    if (part.memory->is_owner()) continue;
    part.first_own_row = std::min(part.first_own_row, first_row);
    part.is_written = true;
  }
}

void EtState::copy_pieces(const Contract& contract, size_t memory, int64_t first, int64_t end,
                          const uint8_t* from, uint8_t* to) const {
  const std::vector<size_t>& memories = layout_.of.at(&contract);
  for_each_piece(contract.state, first, end, [&](size_t piece, size_t offset, size_t size) {
    if (memories[piece] != memory) return;
    const size_t at = contract.state[piece].offset - layout_.memories[memory].begin + offset;
    std::memcpy(to + at, from + at, size);
  });
}

bool EtState::has_flat_pieces_only(const Contract& contract, size_t memory) const {
  const std::vector<size_t>& memories = layout_.of.at(&contract);
  for (size_t i = 0; i < memories.size(); ++i) {
    if (memories[i] == memory && contract.state[i].kind != StateKind::kFlat) return false;
  }
  return true;
}

void EtState::fork_part(const Contract& contract, size_t memory, int64_t num_rows, int64_t num_used,
                        Part& child) {
  Part& part = parts_[memory];
  const size_t bytes = part.memory->bytes();
  child.num_starts = part.num_starts;
  const int64_t num_own_rows = num_rows - std::min(num_rows, part.first_own_row);
  if (part.memory->has_file() && !part.memory->is_owner() && 2 * num_own_rows > num_rows) {
    // More is copied than shared. Once it lies in a file of its own, forks of it copy nothing.
    auto whole = std::make_unique<StateMemory>(bytes, layout_.memories[memory].flat_rows());
    copy_pieces(contract, memory, 0, num_used, part.memory->data(), whole->data());
    part.memory = std::move(whole);
    part.num_lent_rows = 0;
    part.first_own_row = kNone;
    part.is_written = false;
  }
  child.memory = part.memory->share(std::min(num_rows, part.first_own_row));
  if (child.memory == nullptr) {
    child.memory = std::make_unique<StateMemory>(bytes);
    copy_pieces(contract, memory, 0, num_rows, part.memory->data(), child.memory->data());
    return;
  }
  child.first_own_row = std::min(num_rows, part.first_own_row);
  child.is_written = part.is_written;
  if (!part.memory->is_owner()) {
    if (part.is_written) {
      copy_pieces(contract, memory, child.first_own_row, num_rows, part.memory->data(),
                  child.memory->data());
    }
  } else if (has_flat_pieces_only(contract, memory)) {
    // Whoever wrote the rows may go on behind them.
    part.num_lent_rows = std::max(part.num_lent_rows, num_rows);
  } else {
    part.memory->stop_owning(num_used);
    part.first_own_row = num_used;
  }
}

std::shared_ptr<EtState> EtState::fork(const Contract& contract, int64_t num_rows,
                                       int64_t num_used) {
  auto child = std::make_shared<EtState>(layout_);
  child->num_used_rows = std::min(num_used_rows, num_rows);
  for (const size_t memory : layout_.of.at(&contract)) {
    if (parts_[memory].memory != nullptr && child->parts_[memory].memory == nullptr)
      fork_part(contract, memory, num_rows, num_used, child->parts_[memory]);
  }
  return child;
}

std::vector<MemoryUse> EtState::memory(const Contract& contract, int64_t num_rows) const {
  std::vector<MemoryUse> uses;
  const std::vector<size_t>& memories = layout_.of.at(&contract);
  for (size_t memory = 0; memory < parts_.size(); ++memory) {
    const Part& part = parts_[memory];
    if (part.memory == nullptr) continue;
    const int64_t first_own = part.memory->has_file() ? std::min(part.first_own_row, num_rows) : 0;
    TouchedPages shared, own;
    for (size_t i = 0; i < memories.size(); ++i) {
      const StateTensor& piece = contract.state[i];
      if (memories[i] != memory) continue;
      const RowBlocks rows{piece.offset - layout_.memories[memory].begin, piece.outer, piece.rows,
                           piece.row_bytes};
      const bool is_flat = piece.kind == StateKind::kFlat;
      shared.add(rows, 0, is_flat ? first_own : piece.rows);
      own.add(rows, is_flat ? first_own : 0, is_flat ? num_rows : piece.rows);
    }
    if (part.memory->has_file()) uses.push_back({part.memory->file(), shared.bytes()});
    if (part.is_written || !part.memory->has_file())
      uses.push_back({part.memory.get(), own.bytes()});
  }
  return uses;
}

void EtState::reset() {
  for (Part& part : parts_) part = {};
  num_used_rows = 0;
  first_changed_row = kNone;
}

}  // namespace emm
