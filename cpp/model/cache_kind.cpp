#include "model/cache_kind.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "model/outer_cache.h"
#include "model/signatures.h"
#include "model/value_uses.h"

namespace emm {
namespace {

constexpr int8_t kUInt8 = 0;
constexpr int8_t kInt8 = 1;
constexpr int8_t kInt64 = 4;

// A table of the positions that the rows of a ring hold.
bool is_position_table(const ProgramTensor& tensor, const Use& use) {
  return use.by_rows && tensor.scalar_type == kInt64 && tensor.sizes.size() == 1 &&
         tensor.sizes[0] > 1;
}

struct Buffer {
  const ProgramMethod* method;
  const ProgramTensor* tensor;
  Use use;
};

std::vector<Buffer> written_buffers(const ProgramMethod& method) {
  const Uses uses(method);
  std::vector<Buffer> buffers;
  for (size_t i = 0; i < method.values.size(); ++i) {
    const ProgramTensor* tensor = method.tensor(static_cast<int64_t>(i));
    if (tensor == nullptr || !tensor->is_planned || uses[i].is_temporary) continue;
    if (uses[i].is_written() && tensor_bytes(*tensor))
      buffers.push_back({&method, tensor, uses[i]});
  }
  return buffers;
}

// One place in memory, as each method that shares it writes it.
using Place = std::vector<Buffer>;

bool is_used(const ProgramMethod& method, const ProgramTensor& tensor) {
  return std::any_of(method.tensors.begin(), method.tensors.end(),
                     [&](const ProgramTensor& other) { return overlap(tensor, other); });
}

// The places that survive a call, in the order of the methods.
std::vector<Place> surviving_places(const Sharing& sharing, const ProgramMethod& method) {
  std::vector<Place> places;
  std::map<std::pair<uint32_t, uint64_t>, size_t> found;
  const auto add = [&](const Buffer& buffer) {
    const auto key = std::pair(buffer.tensor->memory_id, buffer.tensor->memory_offset);
    const auto [entry, is_new] = found.emplace(key, places.size());
    if (is_new) places.emplace_back();
    places[entry->second].push_back(buffer);
  };
  for (const Buffer& buffer : written_buffers(method)) add(buffer);
  for (const ProgramMethod* other : sharing.methods) {
    if (other == &method) continue;
    for (const Buffer& buffer : written_buffers(*other)) {
      if (sharing.has(*buffer.tensor)) add(buffer);
    }
  }
  const auto is_forgotten = [&](const Place& place) {
    if (!place[0].use.as_a_whole) return false;
    const ProgramTensor& tensor = *place[0].tensor;
    if (!is_filled_first(method, tensor) && is_used(method, tensor)) return false;
    return !sharing.has(tensor) || std::all_of(sharing.methods.begin(), sharing.methods.end(),
                                               [&](const ProgramMethod* other) {
                                                 return is_filled_first(*other, tensor) ||
                                                        !is_used(*other, tensor);
                                               });
  };
  places.erase(std::remove_if(places.begin(), places.end(), is_forgotten), places.end());
  return places;
}

int64_t num_rows(const Buffer& buffer) {
  const auto& sizes = buffer.tensor->sizes;
  const int64_t dim = buffer.use.row_dim;
  return dim >= 0 && static_cast<size_t>(dim) < sizes.size() ? sizes[static_cast<size_t>(dim)] : 0;
}

StateKind kind_of(const Buffer& buffer, const std::set<int64_t>& ring_sizes, int64_t capacity) {
  const Use& use = buffer.use;
  const int64_t rows = num_rows(buffer);
  if (use.as_a_whole || rows == 0) return StateKind::kWhole;
  if (use.by_position || use.row_origin == Origin::kPosition) return StateKind::kFlat;
  if (use.by_indices || ring_sizes.count(rows) != 0) return StateKind::kRing;
  // Recurrences are written by rows too, always the same ones.
  return rows >= std::max<int64_t>(capacity, 2) ? StateKind::kFlat : StateKind::kWhole;
}

StateTensor to_state(const Place& place, const std::set<int64_t>& ring_sizes, int64_t capacity) {
  const Buffer& buffer = place[0];
  StateTensor state;
  state.kind = StateKind::kFlat;
  for (const Buffer& seen : place) {
    // What one method writes in a less orderly way is no more orderly for the others.
    state.kind = std::max(state.kind, kind_of(seen, ring_sizes, capacity));
    state.has_initial_value |= seen.tensor->data_index != 0;
    if (num_rows(seen) != num_rows(buffer)) state.kind = StateKind::kWhole;
  }
  state.dtype = to_dtype(buffer.tensor->scalar_type);
  for (const Buffer& seen : place) {
    if (seen.tensor->scalar_type != buffer.tensor->scalar_type) state.dtype = DType::kOther;
  }
  state.arena_buffer = buffer.tensor->memory_id - 1;
  state.offset = buffer.tensor->memory_offset;
  const auto bytes = static_cast<int64_t>(tensor_bytes(*buffer.tensor).value_or(0));
  state.rows = std::max<int64_t>(num_rows(buffer), 1);
  for (int64_t i = 0; i < buffer.use.row_dim && state.rows > 1; ++i)
    state.outer *= buffer.tensor->sizes[static_cast<size_t>(i)];
  const int64_t num_blocks = state.outer * state.rows;
  state.row_bytes = num_blocks > 0 ? bytes / num_blocks : 0;
  return state;
}

// Shared memory holds state alone, each piece in the same place for all: what lies there of any
// two methods is the same tensor or apart.
bool is_laid_out_as_one(const std::vector<const ProgramMethod*>& methods, uint32_t memory_id) {
  std::vector<const ProgramTensor*> seen;
  for (const ProgramMethod* method : methods) {
    const Uses uses(*method);
    for (size_t i = 0; i < method->values.size(); ++i) {
      const ProgramTensor* tensor = method->tensor(static_cast<int64_t>(i));
      if (tensor == nullptr || !tensor->is_planned || tensor->memory_id != memory_id) continue;
      if (uses[i].is_temporary) return false;
      for (const ProgramTensor* other : seen) {
        const bool is_same = other->memory_offset == tensor->memory_offset &&
                             other->sizes == tensor->sizes &&
                             other->scalar_type == tensor->scalar_type;
        if (!is_same && overlap(*other, *tensor)) return false;
      }
      seen.push_back(tensor);
    }
  }
  return !seen.empty();
}

// 0: apart from all of it, 1: inside a piece of it, 2: neither.
int place_in(const std::vector<StateTensor>& state, const ProgramTensor* tensor) {
  if (tensor == nullptr || !tensor->is_planned) return 0;
  const uint64_t begin = tensor->memory_offset;
  const uint64_t end = begin + tensor_bytes(*tensor).value_or(0);
  for (const StateTensor& piece : state) {
    const uint64_t piece_end = piece.offset + piece.bytes();
    if (piece.arena_buffer + 1 != tensor->memory_id || begin >= piece_end || end <= piece.offset)
      continue;
    return begin >= piece.offset && end <= piece_end ? 1 : 2;
  }
  return 0;
}

// XNNPACK's delegates, ours among them, ask for the address of each argument at each call.
bool is_fixed(const ProgramMethod& method, const std::vector<StateTensor>& state) {
  for (size_t i = 0; i < method.values.size(); ++i) {
    if (place_in(state, method.tensor(static_cast<int64_t>(i))) == 2) return true;
  }
  for (const auto& chain : method.chains) {
    for (const ProgramInstruction& call : chain) {
      const auto index = static_cast<size_t>(call.index);
      if (call.kind != InstructionKind::kDelegate || index >= method.delegates.size() ||
          method.delegates[index].id == "XnnpackBackend")
        continue;
      if (std::any_of(call.args.begin(), call.args.end(),
                      [&](int32_t arg) { return place_in(state, method.tensor(arg)) != 0; }))
        return true;
    }
  }
  return false;
}

}  // namespace

std::vector<StateTensor> find_state(const Sharing& sharing, const ProgramMethod& method,
                                    int64_t capacity) {
  const std::vector<Place> places = surviving_places(sharing, method);
  // A ring without update_cache_with_indices writes its rows as a flat cache does: what tells is
  // the table of positions of the same size.
  std::set<int64_t> ring_sizes;
  for (const Place& place : places) {
    for (const Buffer& buffer : place) {
      if (buffer.use.by_indices || is_position_table(*buffer.tensor, buffer.use))
        ring_sizes.insert(num_rows(buffer));
    }
  }
  std::vector<StateTensor> state;
  state.reserve(places.size());
  for (const Place& place : places) state.push_back(to_state(place, ring_sizes, capacity));
  return state;
}

Sharing find_sharing(const ProgramInfo& program) {
  Sharing sharing;
  for (const ProgramMethod& method : program.methods) {
    if (!method.inputs.empty()) sharing.methods.push_back(&method);
  }
  const auto& methods = sharing.methods;
  if (methods.size() < 2) return {};
  // Exporters put what methods share into a memory of its own, which has its whole size in each of
  // them; the first memory is the method's alone.
  for (size_t id = 2; id < methods[0]->arena_bytes.size(); ++id) {
    const int64_t bytes = methods[0]->arena_bytes[id];
    const bool is_everywhere =
        bytes > 0 && std::all_of(methods.begin(), methods.end(), [&](const auto* method) {
          return id < method->arena_bytes.size() && method->arena_bytes[id] == bytes;
        });
    if (is_everywhere && is_laid_out_as_one(methods, static_cast<uint32_t>(id)))
      sharing.memories.emplace(static_cast<uint32_t>(id), bytes);
  }
  return sharing;
}

std::vector<StateTensor> find_state(const ProgramMethod& method, int64_t capacity) {
  return find_state({}, method, capacity);
}

bool has_fixed_state(const Sharing& sharing, const ProgramMethod& method,
                     const std::vector<StateTensor>& state) {
  if (is_fixed(method, state)) return true;
  std::vector<StateTensor> shared;
  std::copy_if(state.begin(), state.end(), std::back_inserter(shared), [&](const auto& tensor) {
    return sharing.memories.count(static_cast<uint32_t>(tensor.arena_buffer + 1)) != 0;
  });
  return std::any_of(sharing.methods.begin(), sharing.methods.end(),
                     [&](const ProgramMethod* other) { return is_fixed(*other, shared); });
}

CacheLimits cache_limits(const std::vector<StateTensor>& state) {
  CacheLimits limits;
  bool has_sink = false;
  for (const StateTensor& tensor : state) {
    limits.is_recurrent |= tensor.kind == StateKind::kWhole;
    if (tensor.kind == StateKind::kWhole) continue;
    const bool is_ring = tensor.kind == StateKind::kRing;
    int64_t& rows = is_ring ? limits.ring_rows : limits.flat_rows;
    rows = rows == 0 ? tensor.rows : std::min(rows, tensor.rows);
    has_sink |= is_ring && tensor.has_initial_value;
  }
  // Exporters make rings of two windows, so that a call may write a window beside the one it reads.
  // Only rings with an attention sink have a table with an initial value; the sink, of a size that
  // nothing tells, takes a part of their rows, and positions beyond it are folded.
  limits.ring_window = limits.ring_rows / (has_sink ? 4 : 2);
  limits.is_unbounded = has_sink && std::all_of(state.begin(), state.end(), [](const auto& tensor) {
                          return tensor.kind == StateKind::kRing;
                        });
  return limits;
}

CacheKind find_cache_kind(const ProgramMethod& method, int64_t capacity) {
  CacheKind kind;
  kind.is_outer = uses_outer_cache(method);
  for (const StateTensor& tensor : find_state(method, capacity)) {
    kind.bytes += tensor.bytes();
    kind.has_flat |= tensor.kind == StateKind::kFlat;
    kind.has_ring |= tensor.kind == StateKind::kRing;
    kind.has_state |= tensor.kind == StateKind::kWhole;
  }
  for (const Place& place : surviving_places({}, method)) {
    const int8_t type = place[0].tensor->scalar_type;
    kind.is_quantized |= !place[0].use.as_a_whole && (type == kInt8 || type == kUInt8);
  }
  return kind;
}

std::string CacheKind::name() const {
  if (is_none()) return "none";
  std::string name;
  for (const auto& [is_set, word] :
       {std::pair{is_outer, "outer"}, std::pair{has_flat, "flat"}, std::pair{has_ring, "ring"},
        std::pair{has_state, "recurrent"}}) {
    if (is_set) name += (name.empty() ? "" : "+") + std::string(word);
  }
  return (is_quantized ? "quantized " : "") + name;
}

}  // namespace emm
