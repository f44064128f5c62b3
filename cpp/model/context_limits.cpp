#include "model/context_limits.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "model/cache_kind.h"
#include "model/contract_checks.h"
#include "model/outer_cache.h"
#include "model/value_uses.h"

namespace emm {
namespace {

// `stated`: the capacity that the program or the caller names, 0 for none. What the instructions
// prove counts more: positions beyond the rows of a cache fail.
void read_state(const MethodSpec& decoder, const ProgramInfo& program, int64_t stated,
                Contract& contract) {
  const ProgramMethod* method = program.find(decoder.name);
  if (method == nullptr) return;
  const int64_t fewest_rows = stated > 0 ? stated : contract.max_chunk;
  const Sharing sharing = find_sharing(program);
  contract.state = find_state(sharing, *method, fewest_rows);
  contract.is_state_shared =
      !contract.state.empty() &&
      std::all_of(contract.state.begin(), contract.state.end(), [&](const StateTensor& tensor) {
        return sharing.memories.count(static_cast<uint32_t>(tensor.arena_buffer + 1)) != 0;
      });
  contract.is_state_copied = has_fixed_state(sharing, *method, contract.state);
  contract.has_own_attention = has_own_attention(*method);
  contract.cache = cache_limits(contract.state);
  // Keys that an attention reads up to the position may also be a ring, which then is no longer
  // than its rows.
  for (const int64_t rows : {contract.cache.flat_rows, num_attended_rows(*method)}) {
    if (rows > 0)
      contract.capacity = contract.capacity > 0 ? std::min(contract.capacity, rows) : rows;
  }
  for (const StateTensor& tensor : contract.state) {
    const bool is_inside = tensor.arena_buffer < decoder.arena_bytes.size() &&
                           tensor.offset + tensor.bytes() <=
                               static_cast<uint64_t>(decoder.arena_bytes[tensor.arena_buffer]);
    if (!is_inside) refuse_contract(decoder.name + ": a cache lies outside of the planned memory");
  }
  if (contract.cache.ring_rows > 0) {
    // More would overwrite rows that the call itself still has to read.
    contract.max_chunk = std::min(contract.max_chunk, contract.cache.ring_window);
  }
}

// The cache is ours: what holds positions is the capacity, and a window forgets.
void read_outer_cache(const MethodSpec& decoder, const ProgramInfo& program,
                      const std::string& dtype, Contract& contract) {
  const ProgramMethod* method = program.find(decoder.name);
  if (method == nullptr || !uses_outer_cache(*method)) return;
  contract.outer_cache = find_outer_cache(program, contract);
  if (!dtype.empty()) contract.outer_cache.dtype = outer_cache_dtype(dtype);
  if (contract.position_style == PositionStyle::kNone)
    refuse_contract(decoder.name + ": expected positions beside the tokens, got one input");
  const auto named_chunk = one_int(contract, "get_prefill_chunk_size");
  if (named_chunk && *named_chunk > 0)
    contract.max_chunk = std::min(contract.max_chunk, *named_chunk);
  OuterCache& cache = contract.outer_cache;
  // So that a short chunk does not make rewinds short too.
  constexpr int64_t kMostSpare = 1024;
  cache.max_write = std::max<int64_t>(1, contract.max_chunk);
  int64_t window = 0;  // the smallest
  for (const OuterCache::Layer& layer : cache.layers) {
    if (layer.window > 0) window = window == 0 ? layer.window : std::min(window, layer.window);
  }
  if (window > 0) {
    cache.max_write = std::max(cache.max_write, std::min(window, kMostSpare));
    contract.cache.ring_rows = window + cache.max_write - 1;
    contract.cache.ring_window = cache.max_write;
  }
  contract.is_state_shared = contract.state.empty() || contract.is_state_shared;
  if (contract.kind == ModelKind::kMultimodal || !contract.all_logits || !contract.state.empty() ||
      contract.position_style != PositionStyle::kRange)
    return;
  if (!contract.is_encoder_decoder() || takes_sources_apart(*method, decoder.inputs.size() - 2))
    contract.max_batch_tokens = contract.max_chunk;
}

}  // namespace

void read_context_limits(const ProgramInfo& program, const ContractRequest& request,
                         Contract& contract) {
  const MethodSpec& decoder = contract.decoder();
  const int64_t max_context_len = request.max_context_len;
  // The serialised bound is what a call may carry; get_max_seq_len is often one more than that.
  const DecoderInputs places = decoder_inputs(decoder);
  const int first = contract.is_joint ? places.tokens : 0;
  contract.max_chunk = decoder.inputs[static_cast<size_t>(first)].shape[1];
  const MethodSpec* embedding = contract.is_joint ? nullptr : contract.find("token_embedding");
  if (embedding != nullptr) {
    contract.max_chunk = std::min(contract.max_chunk, embedding->inputs[0].shape[1]);
  }
  if (contract.position_style == PositionStyle::kRange) {
    const auto place = static_cast<size_t>(places.position);
    contract.max_chunk = std::min(contract.max_chunk, decoder.inputs[place].shape[0]);
  }
  const auto max_seq_len = one_int(contract, "get_max_seq_len");
  if (max_seq_len) contract.max_chunk = std::min(contract.max_chunk, *max_seq_len);
  const bool is_asked = max_context_len > 0;
  if (contract.position_style == PositionStyle::kNone) {
    contract.capacity =
        is_asked ? std::min(max_context_len, contract.max_chunk) : contract.max_chunk;
  } else {
    auto named = one_int(contract, "get_max_context_len");
    if (!named) named = one_int(contract, "get_max_ctx_len");
    const bool is_stated = is_asked || named || max_seq_len;
    contract.capacity = is_asked ? max_context_len : named ? *named : max_seq_len.value_or(0);
    read_state(decoder, program, contract.capacity, contract);
    read_outer_cache(decoder, program, request.kv_cache_dtype, contract);
    if (!is_stated && contract.capacity == 0) {
      refuse_contract(
          decoder.name +
          ": nothing tells how many positions the context has: expected a constant method "
          "get_max_context_len (or get_max_seq_len), or a cache with a row for each position. "
          "Export again with constant_methods={\"get_max_context_len\": N}, or load with "
          "max_context_len=N");
    }
  }
  if (is_asked && contract.capacity < max_context_len) {
    throw Error(ErrorCode::kInput, "max_context_len: expected at most " +
                                       std::to_string(contract.capacity) + ", which " +
                                       decoder.name + " has room for, got " +
                                       std::to_string(max_context_len));
  }
  if (contract.max_chunk < 1 || contract.capacity < 1) {
    refuse_contract(decoder.name + ": expected room for at least one token, got a chunk of " +
                    std::to_string(contract.max_chunk) + " and a context of " +
                    std::to_string(contract.capacity));
  }
}

}  // namespace emm
