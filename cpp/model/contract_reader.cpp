#include "model/contract_reader.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "model/cache_kind.h"
#include "model/contract_checks.h"
#include "model/outer_cache.h"
#include "model/signatures.h"
#include "model/value_uses.h"

namespace emm {
namespace {

void check_logits(const MethodSpec& decoder, bool is_speech) {
  const size_t num_outputs = decoder.outputs.size();
  if (num_outputs < 1 || num_outputs > (is_speech ? 2 : 1)) {
    refuse_contract(decoder.name + ": expected one output (logits)" +
                    (is_speech ? ", and at most the attention of alignment heads" : "") + ", got " +
                    std::to_string(num_outputs));
  }
  if (num_outputs == 2) expect_tensor(decoder, Side::kOutput, 1, 3, kFloats);
  const TensorSpec& logits = decoder.outputs[0];
  const bool dtype_fits = logits.dtype == DType::kFloat32 || logits.dtype == DType::kFloat16 ||
                          logits.dtype == DType::kBFloat16 || logits.dtype == DType::kUInt16;
  if (!dtype_fits || logits.shape.size() < 2 || logits.shape.size() > 3 ||
      logits.shape.back() < 1) {
    refuse_contract(
        decoder.name +
        ": output 0: expected logits (1, vocab) or (1, tokens, vocab) in float32, float16, "
        "bfloat16 or uint16, got " +
        std::string(dtype_name(logits.dtype)) + " " + shape_string(logits.shape));
  }
}

const DTypes kMasks = {DType::kBool,  DType::kUInt8,   DType::kInt8,    DType::kInt32,
                       DType::kInt64, DType::kFloat32, DType::kFloat16, DType::kBFloat16};

// A mask says which frames or rows count, one element for each, with or without the batch.
void check_mask(const MethodSpec& encoder, Side side, int place, int64_t length) {
  const auto index = static_cast<size_t>(place);
  const TensorSpec& spec = (side == Side::kInput ? encoder.inputs : encoder.outputs)[index];
  expect_tensor(encoder, side, index, std::clamp<size_t>(spec.shape.size(), 1, 2), kMasks);
  if (num_elements(spec.shape) == length) return;
  refuse_contract(place_name(encoder, side, index) + ": expected a mask of " +
                  std::to_string(length) + " elements, got " +
                  TensorView{nullptr, spec.dtype, spec.shape}.describe());
}

void check_encoder(const Contract& contract, const MethodSpec* encoder) {
  if (encoder == nullptr) return;
  const std::string& name = encoder->name;
  const EncoderPlaces places = encoder_places(*encoder);
  if (encoder->inputs.size() > 2 || encoder->outputs.empty() || encoder->outputs.size() > 2) {
    refuse_contract(name +
                    ": expected pixels or features, and a mask or position ids beside them; "
                    "one output, and a mask beside it; got " +
                    std::to_string(encoder->inputs.size()) + " inputs and " +
                    std::to_string(encoder->outputs.size()) + " outputs");
  }
  const TensorSpec& values = encoder->inputs[static_cast<size_t>(places.values)];
  const auto values_place = static_cast<size_t>(places.values);
  if (places.positions >= 0) {
    expect_tensor(*encoder, Side::kInput, values_place, 3, kFloats);
    const TensorSpec& positions = encoder->inputs[static_cast<size_t>(places.positions)];
    if (positions.shape[1] != values.shape[1]) {
      refuse_contract(name + ": expected position ids of " + std::to_string(values.shape[1]) +
                      " patches, got " + std::to_string(positions.shape[1]));
    }
  } else if (places.mask >= 0) {
    expect_tensor(*encoder, Side::kInput, values_place, 3, kFloats);
    check_mask(*encoder, Side::kInput, places.mask, values.shape[1]);
  }
  // Leading dimensions (batch, images, tiles) are stacked, and floats converted.
  const auto rows_place = static_cast<size_t>(places.rows);
  const Shape& output = encoder->outputs[rows_place].shape;
  expect_tensor(*encoder, Side::kOutput, rows_place, std::clamp<size_t>(output.size(), 2, 4),
                kFloats);
  const int64_t hidden = output.back();
  if (places.rows_mask >= 0)
    check_mask(*encoder, Side::kOutput, places.rows_mask,
               num_elements(output) / std::max<int64_t>(hidden, 1));
  if (hidden != contract.hidden_size) {
    refuse_contract(name + ": expected embeddings of " + std::to_string(contract.hidden_size) +
                    " features as " + contract.decoder_name + " takes, got " +
                    std::to_string(hidden));
  }
}

// Samples in, frames (frames, features) out, which audio_encoder takes.
void check_audio_transform(const Contract& contract) {
  const MethodSpec* transform = contract.audio_transform();
  const MethodSpec* encoder = contract.audio_encoder();
  if (transform == nullptr || encoder == nullptr) return;
  if (transform->inputs.size() != 1 || transform->outputs.size() != 1) {
    refuse_contract(transform->name + ": expected one input and one output, got " +
                    std::to_string(transform->inputs.size()) + " and " +
                    std::to_string(transform->outputs.size()));
  }
  const size_t rank = transform->inputs[0].shape.size();
  expect_tensor(*transform, Side::kInput, 0, std::clamp<size_t>(rank, 1, 2), kFloats);
  const Shape& made = transform->outputs[0].shape;
  expect_tensor(*transform, Side::kOutput, 0, std::clamp<size_t>(made.size(), 2, 3), kFloats);
  const int64_t wanted =
      encoder->inputs[static_cast<size_t>(encoder_places(*encoder).values)].shape.back();
  if (made.back() != wanted) {
    refuse_contract(transform->name + ": expected frames of " + std::to_string(wanted) +
                    " features as " + encoder->name + " takes, got " + std::to_string(made.back()));
  }
}

// A text cannot be filled up: nothing would tell the decoder which rows count.
void check_text_encoder(const MethodSpec& encoder) {
  const TensorSpec& ids = expect_tensor(encoder, Side::kInput, 0, 2, kIds);
  if (ids.is_dynamic) return;
  refuse_contract("encoder: input 0: expected token ids of a dynamic length, got the fixed shape " +
                  shape_string(ids.shape));
}

// What an encoder of audio or text gives is what the decoder takes between tokens and position.
void check_encoder_decoder(const Contract& contract) {
  const MethodSpec& encoder = contract.methods.at("encoder");
  const MethodSpec& decoder = contract.decoder();
  if (encoder.inputs.size() != 1)
    refuse_contract("encoder: expected one input, got " + std::to_string(encoder.inputs.size()));
  if (contract.kind == ModelKind::kSeq2Seq)
    check_text_encoder(encoder);
  else
    expect_tensor(encoder, Side::kInput, 0, 3, kFloats);
  expect_tensor(decoder, Side::kInput, 0, 2, kIds);
  if (encoder.outputs.empty() || decoder.inputs.size() != encoder.outputs.size() + 2) {
    refuse_contract("text_decoder: expected tokens, the outputs of encoder (" +
                    std::to_string(encoder.outputs.size()) + ") and a position, got " +
                    std::to_string(decoder.inputs.size()) + " inputs");
  }
  for (size_t i = 0; i < encoder.outputs.size(); ++i) {
    const TensorSpec& given = encoder.outputs[i];
    const TensorSpec& taken = decoder.inputs[i + 1];
    if (given.dtype == taken.dtype && given.dtype != DType::kOther && given.shape == taken.shape)
      continue;
    refuse_contract("text_decoder: input " + std::to_string(i + 1) + ": expected output " +
                    std::to_string(i) + " of encoder, " + dtype_name(given.dtype) + " " +
                    shape_string(given.shape) + ", got " + dtype_name(taken.dtype) + " " +
                    shape_string(taken.shape));
  }
}

void read_position_style(const MethodSpec& decoder, Contract& contract) {
  if (decoder.inputs.size() == 1) {
    if (contract.kind == ModelKind::kMultimodal) {
      refuse_contract(
          decoder.name +
          ": expected embeddings and positions, got one input; without a KV cache a model would "
          "have to be given images and audio again at each step");
    }
    contract.position_style = PositionStyle::kNone;
    return;
  }
  const auto place = static_cast<size_t>(decoder_inputs(decoder).position);
  if (decoder.inputs.size() != (contract.is_joint ? 3 : 2) && !contract.is_encoder_decoder()) {
    refuse_contract(decoder.name +
                    ": expected tokens or embeddings and at most one position input, got " +
                    std::to_string(decoder.inputs.size()) +
                    " inputs (models that take caches or masks as arguments are "
                    "not supported)");
  }
  expect_tensor(decoder, Side::kInput, place, 1, kIds);
  contract.position_style = position_style(decoder);
}

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

// A call of fewer tokens would need padding, which caches and last-row logits take for tokens.
void expect_flexible_length(const MethodSpec& method, size_t place = 0) {
  const TensorSpec& input = method.inputs[place];
  if (input.is_dynamic || input.shape[1] == 1) return;
  refuse_contract(method.name + ": input " + std::to_string(place) +
                  ": expected one token for each call or a dynamic length, got the " +
                  "fixed shape " + shape_string(input.shape));
}

// Logits (…, tokens, vocab_size) of as many tokens as the decoder takes.
bool has_all_logits(const MethodSpec& decoder) {
  const Shape& logits = decoder.outputs[0].shape;
  const int64_t most = decoder.inputs[0].shape[1];
  return most > 1 && logits.size() >= 2 && logits[logits.size() - 2] == most;
}

void read_limits(const MethodSpec& decoder, const ProgramInfo& program,
                 const ContractRequest& request, Contract& contract) {
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

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

bool has_name(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> names_of_decoders(const Contract& contract) {
  if (contract.is_encoder_decoder()) return {"text_decoder"};
  if (contract.kind == ModelKind::kMultimodal) {
    std::vector<std::string> joint = find_joint_decoders(contract);
    if (!joint.empty()) return joint;
  }
  // The usual one is meant also where it does not look like a decoder, and is refused for that.
  const bool is_text = contract.kind == ModelKind::kText;
  const MethodSpec* usual = contract.find(is_text ? "forward" : "text_decoder");
  std::vector<std::string> names;
  if (is_text)
    names = find_decoders(contract);
  else if (!usual->inputs.empty() && usual->inputs[0].shape.size() == 3)
    names = find_decoders(contract, usual->inputs[0].shape[2]);
  if (usual != nullptr && !has_name(names, usual->name)) names.push_back(usual->name);
  return names;
}

// The decoder that is meant where none is named.
std::string usual_decoder(const std::vector<std::string>& names) {
  for (const char* usual :
       {"text_decoder", "forward", "base_forward", "prefill", "decode", "decoder"}) {
    if (has_name(names, usual)) return usual;
  }
  if (names.size() != 1)
    refuse_contract("the program has several decoders: choose one with method=: " + joined(names));
  return names[0];
}

// The first of the constant methods that the program has.
std::optional<int64_t> one_of(const Contract& contract, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto value = one_int(contract, name);
    if (value && *value < 0) {
      refuse_contract(std::string(name) + ": expected a token id of 0 or more, got " +
                      std::to_string(*value));
    }
    if (value) return value;
  }
  return std::nullopt;
}

// Which ids stand for media: what the program says, else what its decoder looks for.
void read_placeholders(const ProgramInfo& program, Contract& contract) {
  const auto image = one_of(contract, {"get_image_token_id", "image_token_id"});
  const auto audio = one_of(contract, {"get_audio_token_id", "audio_token_id"});
  std::set<int64_t> ids;
  if (image) ids.insert(*image);
  if (audio) ids.insert(*audio);
  const ProgramMethod* method = program.find(contract.decoder_name);
  if (ids.empty() && method != nullptr) {
    const auto place = static_cast<size_t>(decoder_inputs(contract.decoder()).tokens);
    for (const int64_t id : compared_ids(*method, place)) {
      if (id >= 0) ids.insert(id);
    }
  }
  const int64_t pad = one_of(contract, {"get_pad_id", "get_pad_token_id"}).value_or(0);
  contract.placeholder_ids.assign(ids.begin(), ids.end());
  contract.image_token_id = image.value_or(ids.empty() ? pad : *ids.begin());
  contract.audio_token_id = audio.value_or(ids.empty() ? pad : *ids.rbegin());
}

void interpret(const ProgramInfo& program, const ContractRequest& request, Contract& contract) {
  const MethodSpec& decoder = contract.decoder();
  const DecoderInputs places = decoder_inputs(decoder);
  contract.is_joint = contract.kind == ModelKind::kMultimodal && places.are_joint();
  if (contract.is_joint) {
    contract.hidden_size = decoder.inputs[static_cast<size_t>(places.embeddings)].shape[2];
    expect_flexible_length(decoder, static_cast<size_t>(places.embeddings));
    check_encoder(contract, contract.image_encoder());
    check_encoder(contract, contract.audio_encoder());
    check_audio_transform(contract);
    read_placeholders(program, contract);
  } else if (contract.kind == ModelKind::kMultimodal) {
    const MethodSpec& embedding = contract.methods.at("token_embedding");
    expect_tensor(embedding, Side::kInput, 0, 2, kIds);
    expect_flexible_length(embedding);
    expect_tensor(decoder, Side::kInput, 0, 3, kFloats);
    contract.hidden_size = decoder.inputs[0].shape[2];
    expect_tensor(embedding, Side::kOutput, 0, 3, kFloats);
    const int64_t embedded = embedding.outputs[0].shape[2];
    if (embedded != contract.hidden_size) {
      refuse_contract("token_embedding: expected " + std::to_string(contract.hidden_size) +
                      " features as text_decoder takes, got " + std::to_string(embedded));
    }
    check_encoder(contract, contract.image_encoder());
    check_encoder(contract, contract.audio_encoder());
    check_audio_transform(contract);
  } else if (contract.is_encoder_decoder()) {
    check_encoder_decoder(contract);
  } else {
    expect_tensor(decoder, Side::kInput, 0, 2, kIds);
  }
  expect_flexible_length(decoder, contract.is_joint ? static_cast<size_t>(places.tokens) : 0);
  const bool is_speech = contract.kind == ModelKind::kSpeech;
  check_logits(decoder, is_speech);
  if (decoder.outputs.size() > 1) contract.num_alignment_heads = decoder.outputs[1].shape[1];
  contract.vocab_size = decoder.outputs[0].shape.back();
  contract.all_logits = has_all_logits(decoder);
  read_position_style(decoder, contract);
  read_limits(decoder, program, request, contract);

  std::set<int64_t> eos;
  for (const char* name : {"get_eos_ids", "get_eos_id"}) {
    for (const int64_t id : int_list(contract, name)) eos.insert(id);
  }
  contract.eos_ids.assign(eos.begin(), eos.end());
  contract.bos_id = one_int(contract, "get_bos_id");
}

Contract read_decoder(const ProgramInfo& program, const Contract& common, const std::string& name,
                      const ContractRequest& request) {
  Contract contract = common;
  contract.decoder_name = name;
  interpret(program, request, contract);
  return contract;
}

// `prefill` and `decode` over the same cache are one decoder.
void pair_up(std::vector<Contract>& contracts) {
  Contract* prefill = nullptr;
  Contract* decode = nullptr;
  for (Contract& contract : contracts) {
    if (!contract.is_state_shared) continue;
    if (contract.decoder_name == "prefill") prefill = &contract;
    if (contract.decoder_name == "decode") decode = &contract;
  }
  if (prefill == nullptr || decode == nullptr) return;
  prefill->step_name = "decode";
  prefill->capacity = std::min(prefill->capacity, decode->capacity);
  *decode = *prefill;
}

}  // namespace

std::vector<Contract> read_contracts(const ProgramInfo& program, const ContractRequest& request) {
  Contract common;
  static_cast<Signatures&>(common) = read_signatures(program);
  common.kind = model_kind(common);
  if (common.kind == ModelKind::kTransducer || common.kind == ModelKind::kOther) {
    std::vector<std::string> names;
    names.reserve(common.methods.size());
    for (const auto& [name, method] : common.methods) names.push_back(name);
    refuse_contract(
        "expected a method forward, or token_embedding and text_decoder, or a decoder of tokens, "
        "positions and embeddings, or encoder and text_decoder; the program has: " +
        joined(names));
  }
  const std::vector<std::string> names = names_of_decoders(common);
  const std::string chosen = request.method.empty() ? usual_decoder(names) : request.method;
  if (!has_name(names, chosen)) {
    throw Error(ErrorCode::kInput, "method: expected one of " + joined(names) + ", got " + chosen);
  }
  std::vector<Contract> contracts = {read_decoder(program, common, chosen, request)};
  for (const std::string& name : names) {
    if (name == chosen) continue;
    try {
      Contract other = read_decoder(program, common, name, request);
      if (other.vocab_size == contracts[0].vocab_size) contracts.push_back(std::move(other));
    } catch (const Error&) {  // NOLINT(bugprone-empty-catch)
      // No decoder that can be driven, or one without the room that is asked for.
    }
  }
  if (!request.kv_cache_dtype.empty() && !contracts[0].outer_cache.is_used()) {
    throw Error(ErrorCode::kInput,
                "kv_cache_dtype: " + chosen +
                    " has its cache in the graph, with a dtype of its own, or none");
  }
  std::vector<std::string> choices;
  choices.reserve(contracts.size());
  for (const Contract& contract : contracts) choices.push_back(contract.decoder_name);
  std::sort(choices.begin(), choices.end());
  pair_up(contracts);
  for (Contract& contract : contracts) contract.choices = choices;
  return contracts;
}

Contract read_contract(const ProgramInfo& program, const ContractRequest& request) {
  return std::move(read_contracts(program, request)[0]);
}

}  // namespace emm
