#include "model/contract_reader.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "model/context_limits.h"
#include "model/contract_checks.h"
#include "model/encoder_checks.h"
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
    check_media_encoders(contract);
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
    check_media_encoders(contract);
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
  read_context_limits(program, request, contract);

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
