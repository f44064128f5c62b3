#include "model/folder_reader.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.h"
#include "model/contract_checks.h"
#include "model/folder_cache_reader.h"
#include "model/folder_part.h"
#include "model/value_uses.h"

namespace emm {
namespace {

class Reader {
 public:
  Reader(const ExportFolder& folder, const std::vector<ProgramInfo>& programs) : folder_(folder) {
    for (size_t i = 0; i < folder.parts.size(); ++i)
      parts_.emplace(folder.parts[i].name, read_part(folder.parts[i], programs[i]));
    programs_ = &programs;
  }

  FolderContract read(int64_t max_context_len) {
    const NamedPart& decode = required("decode");
    found_.decode = read_call(decode, true);
    found_.decode.result = expect_result(decode, "logits", 3);
    if (found_.decode.max_tokens < 1 || decode.find_input("input_ids") == std::nullopt)
      refuse_contract("decode: expected an input input_ids");
    found_.contract.has_own_attention = has_own_attention(decode.program);
    found_.cache = read_cache(parts_, folder_.max_cache_len, found_.decode);
    found_.decode.cache_outputs = cache_outputs(decode, found_.cache);
    expect_complete(decode, found_.decode, true);
    if (const NamedPart* prefill = find("prefill")) {
      found_.prefill = read_start(*prefill, "logits");
      if (prefill->find_input("input_ids") == std::nullopt)
        refuse_contract("prefill: expected an input input_ids");
    }
    if (find("language_model") != nullptr) read_multimodal();
    read_contract(max_context_len);
    return std::move(found_);
  }

 private:
  const NamedPart* find(const std::string& name) const { return find_named(parts_, name); }
  const NamedPart& required(const std::string& name) const {
    if (const NamedPart* part = find(name)) return *part;
    refuse_contract("expected a component " + name + " in the folder");
  }

  // Masks have a column for each key.
  void expect_complete(const NamedPart& part, FolderCall& call, bool is_decode) const {
    for (size_t i = 0; i < call.inputs.size(); ++i) {
      PartInput& input = call.inputs[i];
      if (input.feed == Feed::kCache && !is_decode)
        part.refuse_input(i, "a part that begins with an empty cache");
      if (input.feed != Feed::kMask && input.feed != Feed::kFlags) continue;
      const Shape traced = part.traced_shape(i);
      const int64_t bound = input.shape.back();
      std::set<int64_t> rows;
      for (const CacheTensor& tensor : found_.cache) {
        if (tensor.kind == StateKind::kFlat && !tensor.grows) rows.insert(tensor.rows());
      }
      const bool is_recorded = !part.names.shapes[i].empty();
      if (is_recorded && rows.count(traced.back()) != 0)
        input.keys = traced.back();
      else if (!is_recorded && rows.size() == 1)
        input.keys = *rows.begin();
      if (input.keys > bound)
        part.refuse_input(i, "a mask with room for " + std::to_string(input.keys) + " keys");
    }
  }

  FolderCall read_start(const NamedPart& part, const std::string& result) const {
    FolderCall call = read_call(part, true);
    call.result = expect_result(part, result, 3);
    call.cache_outputs = cache_outputs(part, found_.cache);
    expect_complete(part, call, false);
    for (size_t i = 0; i < found_.cache.size(); ++i) {
      if (!call.cache_outputs[i])
        refuse_contract(part.names.name + ": expected an output " + found_.cache[i].name +
                        ", which decode takes, export.json's out_spec has none");
    }
    return call;
  }

  void read_multimodal() {
    const NamedPart& model = required("language_model");
    const NamedPart& head = required("lm_head");
    found_.language_model = read_start(model, "last_hidden_state");
    const TensorSpec& embeds = model.spec.inputs[required_input(model, "inputs_embeds", 3)];
    found_.lm_head = read_call(head, false);
    found_.lm_head->result = expect_result(head, "logits", 3);
    const int64_t hidden = model.spec.outputs[found_.language_model->result].shape.back();
    expect_media(head, *found_.lm_head, 3, hidden);
    found_.contract.hidden_size = embeds.shape[2];
    const NamedPart& decode = required("decode");
    const size_t index = static_cast<size_t>(folder_.find("decode") - folder_.parts.data());
    const int32_t ids = decode.program.inputs[required_input(decode, "input_ids", 2)];
    found_.embeddings = find_embeddings((*programs_)[index], decode.program, ids);
    if (found_.embeddings && found_.embeddings->columns != found_.contract.hidden_size)
      found_.embeddings.reset();
    read_encoder("image_encoder", folder_.image_features,
                 {"multi_modal_projector", "connector", "embed_vision"}, found_.image_encoder,
                 found_.image_projector);
    read_encoder("audio_encoder", "last_hidden_state", {"multi_modal_projector", "embed_audio"},
                 found_.audio_encoder, found_.audio_projector);
    found_.skips_first_feature = folder_.skips_first_feature;
  }

  static size_t required_input(const NamedPart& part, const std::string& name, size_t rank) {
    const std::optional<size_t> found = part.find_input(name);
    if (!found) refuse_contract(part.names.name + ": expected an input " + name);
    if (part.spec.inputs[*found].shape.size() != rank)
      part.refuse_input(*found, "rank " + std::to_string(rank));
    return *found;
  }

  void expect_media(const NamedPart& part, const FolderCall& call, size_t rank,
                    int64_t features) const {
    for (size_t i = 0; i < call.inputs.size(); ++i) {
      const PartInput& input = call.inputs[i];
      if (input.feed != Feed::kMedia) continue;
      const Shape& bound = part.spec.inputs[i].shape;
      if (bound.size() != rank || bound.back() != features)
        part.refuse_input(i, "floats (1, rows, " + std::to_string(features) + ")");
    }
  }

  // What comes out is rows of embeddings.
  void expect_rows(const NamedPart& part, const FolderCall& call) const {
    const TensorSpec& rows = part.spec.outputs[call.result];
    if (rows.shape.size() >= 2 && rows.shape.back() == found_.contract.hidden_size) return;
    refuse_contract(part.names.name + ": expected embeddings of " +
                    std::to_string(found_.contract.hidden_size) +
                    " features as language_model takes, got " + dtype_name(rows.dtype) + " " +
                    shape_string(rows.shape));
  }

  void read_encoder(const std::string& name, const std::string& result,
                    const std::vector<const char*>& projectors, std::optional<FolderCall>& call,
                    std::optional<FolderCall>& projection) {
    const NamedPart* part = find(name);
    if (part == nullptr) return;
    call = read_call(*part, false);
    call->result = expect_result(*part, result, 0);
    for (const char* projector : projectors) {
      const NamedPart* found = find(projector);
      if (found == nullptr || projection) continue;
      projection = read_call(*found, false);
      projection->result = expect_result(*found, "last_hidden_state", 0);
      expect_rows(*found, *projection);
    }
    if (!projection) expect_rows(*part, *call);
    // As the session sees it: one input, and rows for the language model.
    MethodSpec& seen = found_.contract.methods[name == "image_encoder" ? "vision_encoder" : name];
    seen = call->method;
    seen.name = name;
    seen.inputs.clear();
    for (size_t i = 0; i < call->inputs.size(); ++i) {
      if (call->inputs[i].feed != Feed::kMedia) continue;
      seen.inputs.push_back(call->method.inputs[i]);
      seen.inputs.back().shape = call->inputs[i].shape;
      seen.inputs.back().is_dynamic = false;
    }
    // How many rows there will be only running it tells.
    TensorSpec rows = call->method.outputs[call->result];
    rows.shape = {1, 0, found_.contract.hidden_size};
    seen.outputs = {rows};
  }

  void read_contract(int64_t max_context_len) {
    Contract& contract = found_.contract;
    contract.kind = found_.language_model ? ModelKind::kMultimodal : ModelKind::kText;
    contract.decoder_name = "decode";
    contract.choices = {"decode"};
    contract.position_style = PositionStyle::kStart;
    contract.eos_ids = folder_.eos_ids;
    const FolderCall* start = found_.prefill          ? &*found_.prefill
                              : found_.language_model ? &*found_.language_model
                                                      : nullptr;
    bool is_growing = false;
    int64_t capacity = folder_.max_cache_len;
    const auto at_most = [&](int64_t positions) {
      capacity = capacity > 0 ? std::min(capacity, positions) : positions;
    };
    for (const CacheTensor& tensor : found_.cache) {
      if (tensor.kind != StateKind::kFlat) {
        contract.cache.is_recurrent = true;
        continue;
      }
      is_growing = is_growing || tensor.grows;
      // The last call still takes what the one before has left.
      at_most(tensor.rows() + (tensor.grows ? 1 : 0));
      const auto rows = tensor.rows();
      contract.cache.flat_rows =
          contract.cache.flat_rows > 0 ? std::min(contract.cache.flat_rows, rows) : rows;
    }
    read_state();
    for (const PartInput& input : found_.decode.inputs) {
      const bool is_masking = input.feed == Feed::kMask || input.feed == Feed::kFlags;
      if (is_masking && input.keys == 0) at_most(input.shape.back());
    }
    if (capacity < 1) refuse_contract("decode: expected a cache with room for a position");
    if (start == nullptr && (is_growing || contract.cache.is_recurrent))
      refuse_contract("expected a component prefill: decode begins with a cache that it makes");
    if (max_context_len > capacity) {
      throw Error(ErrorCode::kInput,
                  "max_context_len: expected at most " + std::to_string(capacity) +
                      ", which decode has room for, got " + std::to_string(max_context_len));
    }
    contract.capacity = max_context_len > 0 ? max_context_len : capacity;
    contract.max_chunk = std::min(found_.decode.max_tokens, contract.capacity);
    contract.all_logits = contract.max_chunk > 1;
    const int64_t first = start == nullptr ? 0 : std::min(start->max_tokens, contract.capacity);
    // What begins with an empty cache reads more at once, or is all there is for the beginning.
    const bool needs_start = is_growing || contract.cache.is_recurrent;
    if (found_.prefill && !needs_start && contract.max_chunk > 1) found_.prefill.reset();
    if (found_.prefill) contract.first_chunk = first;
    if (found_.language_model) contract.embedding_chunk = first;
    contract.vocab_size = found_.decode.method.outputs[found_.decode.result].shape.back();
    if (found_.lm_head) {
      const int64_t given = found_.lm_head->method.outputs[found_.lm_head->result].shape.back();
      if (given != contract.vocab_size) {
        refuse_contract("lm_head: expected logits of " + std::to_string(contract.vocab_size) +
                        " tokens as decode gives, got " + std::to_string(given));
      }
    }
    for (const auto& [name, part] : parts_) {
      if (name == "image_encoder" || name == "audio_encoder") continue;
      contract.methods.emplace(name, part.spec);
      contract.methods.at(name).name = name;
    }
  }

  // What a snapshot consists of.
  void read_state() {
    for (const CacheTensor& tensor : found_.cache) {
      StateTensor& state = found_.contract.state.emplace_back();
      const auto element = static_cast<int64_t>(dtype_size(tensor.dtype));
      state.kind = tensor.kind;
      state.dtype = tensor.dtype;
      const bool is_flat = tensor.kind == StateKind::kFlat;
      state.outer = is_flat ? tensor.shape[1] : 1;
      state.rows = is_flat ? tensor.rows() + (tensor.grows ? 1 : 0) : 1;
      state.row_bytes = element * (is_flat ? tensor.shape[3] : num_elements(tensor.shape));
    }
    if (!found_.embeddings) return;
    const NamedPart& model = required("language_model");
    const DType dtype = model.spec.inputs[required_input(model, "inputs_embeds", 3)].dtype;
    StateTensor& rows = found_.contract.state.emplace_back();
    rows.kind = StateKind::kFlat;
    rows.dtype = dtype;
    rows.rows = int64_t{1} << 31;
    rows.row_bytes = found_.contract.hidden_size * static_cast<int64_t>(dtype_size(dtype));
  }

  const ExportFolder& folder_;
  const std::vector<ProgramInfo>* programs_ = nullptr;
  NamedParts parts_;
  FolderContract found_;
};

}  // namespace

int64_t FolderContract::copied_step_bytes() const {
  int64_t bytes = 0;
  for (size_t i = 0; i < decode.inputs.size(); ++i) {
    const PartInput& input = decode.inputs[i];
    if (!decode.method.inputs[i].is_planned || input.feed == Feed::kNone) continue;
    Shape shape = input.shape;
    const int64_t keys = input.keys > 0 ? input.keys : contract.capacity;
    switch (input.feed) {
      case Feed::kCache:
        if (cache[input.cache].kept) continue;
        shape = cache[input.cache].shape;
        break;
      case Feed::kMask:
        shape = {1, 1, 1, keys};
        break;
      case Feed::kFlags:
        shape = {1, keys};
        break;
      case Feed::kIds:
      case Feed::kTypes:
        shape = {1, 1};
        break;
      case Feed::kPositions:
        shape.back() = 1;
        break;
      default:
        break;
    }
    bytes += num_elements(shape) * static_cast<int64_t>(dtype_size(input.dtype));
  }
  return bytes;
}

FolderContract read_folder(const ExportFolder& folder, const std::vector<ProgramInfo>& programs,
                           int64_t max_context_len) {
  return Reader(folder, programs).read(max_context_len);
}

}  // namespace emm
