#include "runtime/input_plan.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace emm {
namespace {

std::string input_name(size_t index, const char* kind) {
  return "input " + std::to_string(index) + " (" + kind + ")";
}

void check_ids(const std::vector<int64_t>& ids, size_t index, int64_t vocab_size) {
  for (const int64_t id : ids) {
    if (id >= 0 && id < vocab_size) continue;
    throw Error(ErrorCode::kInput, input_name(index, "tokens") + ": expected token ids in 0.." +
                                       std::to_string(vocab_size - 1) + ", got " +
                                       std::to_string(id));
  }
}

// Rows the encoder will return, 0 when that depends on a dynamic size.
int64_t expected_rows(const MethodSpec& encoder, const TensorView& given) {
  if (encoder_places(encoder).rows_mask >= 0 || encoder.inputs.size() > 1) return 0;
  const TensorSpec& wanted = encoder.inputs[0];
  if (num_elements(wanted.shape) != given.size()) return 0;
  const Shape& output = encoder.outputs[0].shape;
  return num_elements(output) / std::max<int64_t>(output.back(), 1);
}

Chunk plan_encoder(const Contract& contract, size_t index, const TensorView& given, bool is_image) {
  const char* kind = is_image ? "image" : "audio";
  const MethodSpec* encoder = is_image ? contract.image_encoder() : contract.audio_encoder();
  if (encoder == nullptr) {
    throw Error(ErrorCode::kInput, input_name(index, kind) + ": the model has no " +
                                       (is_image ? "vision_encoder" : "audio_encoder") +
                                       " and takes no " + kind);
  }
  const bool is_speech = contract.kind == ModelKind::kSpeech;  // which reads no rows
  return {is_image ? Chunk::Kind::kEncodeImage : Chunk::Kind::kEncodeAudio, index, 0,
          is_speech ? 0 : expected_rows(*encoder, given)};
}

Chunk plan_source(const Contract& contract, size_t index, const SourceInput& source) {
  const MethodSpec* encoder = contract.text_encoder();
  if (encoder == nullptr) {
    throw Error(ErrorCode::kInput,
                input_name(index, "source") + ": the model has no encoder of token ids");
  }
  const auto num_tokens = static_cast<int64_t>(source.ids.size());
  const int64_t most = encoder->inputs[0].shape[1];
  if (num_tokens < 1)
    throw Error(ErrorCode::kInput, input_name(index, "source") + ": expected a token, got none");
  if (num_tokens > most) {
    throw Error::capacity("the text has " + std::to_string(num_tokens) + " tokens, " +
                              encoder->name + " takes at most " + std::to_string(most),
                          num_tokens, most);
  }
  check_ids(source.ids, index, contract.vocab_size);
  return {Chunk::Kind::kEncodeText, index, 0, 0};
}

void check_embeddings(const Contract& contract, size_t index, const TensorView& rows) {
  if (contract.kind != ModelKind::kMultimodal) {
    throw Error(ErrorCode::kInput,
                input_name(index, "embeddings") + ": a text-only model takes token ids");
  }
  const bool is_float = rows.dtype == DType::kFloat16 || rows.dtype == DType::kBFloat16 ||
                        rows.dtype == DType::kFloat32 || rows.dtype == DType::kFloat64;
  if (rows.shape.size() != 2 || rows.shape[1] != contract.hidden_size || !is_float) {
    throw Error(ErrorCode::kInput, input_name(index, "embeddings") + ": expected floats (tokens, " +
                                       std::to_string(contract.hidden_size) + "), got " +
                                       rows.describe());
  }
}

// What is encoded in the middle would change what the tokens before it were said about.
void check_encoded_prompt(const std::vector<Input>& inputs, const Contract& contract,
                          int64_t available) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool is_clip = std::holds_alternative<AudioInput>(inputs[i]);
    if (!is_clip && !std::holds_alternative<SourceInput>(inputs[i])) continue;
    const bool has_tokens = inputs.size() > 1;
    if (i == 0 && has_tokens && available == contract.capacity) continue;
    throw Error(ErrorCode::kInput, input_name(i, is_clip ? "audio" : "source") + ": expected a " +
                                       (is_clip ? "clip" : "source text") +
                                       " at the beginning of the context, with tokens after it");
  }
}

}  // namespace

int64_t placeholder_id(const Input& input, const Contract& contract) {
  const auto* audio = std::get_if<AudioInput>(&input);
  const auto* image = std::get_if<ImageInput>(&input);
  const int64_t wanted = audio != nullptr   ? audio->placeholder_id
                         : image != nullptr ? image->placeholder_id
                                            : -1;
  const auto& known = contract.placeholder_ids;
  // Embeddings at another id would not be read.
  const bool is_read = known.empty() || std::count(known.begin(), known.end(), wanted) != 0;
  if (wanted >= 0 && is_read) return wanted;
  return audio != nullptr ? contract.audio_token_id : contract.image_token_id;
}

const std::string& content_of(const Input& input) {
  if (const auto* const image = std::get_if<ImageInput>(&input)) return image->content;
  if (const auto* const audio = std::get_if<AudioInput>(&input)) return audio->content;
  return std::get<EmbeddingInput>(input).content;
}

void check_capacity(int64_t needed, int64_t available, int64_t capacity) {
  if (needed <= available) return;
  throw Error::capacity("the prompt needs " + std::to_string(needed) + " positions, " +
                            std::to_string(available) + " of " + std::to_string(capacity) +
                            " are free (reset() frees all)",
                        needed, available);
}

std::vector<Chunk> split_rows(Chunk::Kind kind, size_t input, int64_t num_rows, int64_t max_chunk,
                              int64_t first_chunk) {
  std::vector<Chunk> chunks;
  int64_t size = std::max(first_chunk, max_chunk);
  for (int64_t first = 0; first < num_rows; first += chunks.back().num_rows, size = max_chunk) {
    const int64_t left = num_rows - first;
    // Attention over one token sums in another order than over several: none is left alone.
    const bool leaves_one = left == size + 1 && size > 2 && max_chunk > 1;
    chunks.push_back({kind, input, first, leaves_one ? size - 1 : std::min(size, left)});
  }
  return chunks;
}

InputPlan make_input_plan(const std::vector<Input>& inputs, const Contract& contract,
                          int64_t available, int64_t chunk_limit) {
  InputPlan plan;
  const auto add_rows = [&](Chunk::Kind kind, size_t index, int64_t num_rows) {
    const bool is_start =
        available == contract.capacity && plan.num_positions == 0 && plan.is_exact;
    const std::vector<Chunk> chunks =
        kind == Chunk::Kind::kEmbeddings
            ? split_rows(kind, index, num_rows,
                         std::min(contract.embeddings_at_once(), chunk_limit))
            : split_rows(kind, index, num_rows, std::min(contract.max_chunk, chunk_limit),
                         is_start ? contract.first_chunk : 0);
    plan.chunks.insert(plan.chunks.end(), chunks.begin(), chunks.end());
    plan.num_positions += num_rows;
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (const auto* tokens = std::get_if<TokenInput>(&inputs[i])) {
      check_ids(tokens->ids, i, contract.vocab_size);
      add_rows(Chunk::Kind::kTokens, i, static_cast<int64_t>(tokens->ids.size()));
    } else if (const auto* embeddings = std::get_if<EmbeddingInput>(&inputs[i])) {
      check_embeddings(contract, i, embeddings->rows);
      add_rows(Chunk::Kind::kEmbeddings, i, embeddings->rows.shape[0]);
    } else if (const auto* source = std::get_if<SourceInput>(&inputs[i])) {
      plan.chunks.push_back(plan_source(contract, i, *source));
    } else {
      const auto* image = std::get_if<ImageInput>(&inputs[i]);
      const TensorView& given =
          image != nullptr ? image->pixels : std::get<AudioInput>(inputs[i]).features;
      plan.chunks.push_back(plan_encoder(contract, i, given, image != nullptr));
      plan.num_positions += plan.chunks.back().num_rows;
      plan.is_exact =
          plan.is_exact && (contract.is_encoder_decoder() || plan.chunks.back().num_rows > 0);
    }
  }
  if (contract.is_encoder_decoder()) check_encoded_prompt(inputs, contract, available);
  if (plan.chunks.empty())
    throw Error(ErrorCode::kInput, "prompt: expected at least one token, image or clip, got none");
  check_capacity(plan.num_positions, available, contract.capacity);
  return plan;
}

}  // namespace emm
