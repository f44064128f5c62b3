// What a .pte promises: its methods, their shapes and limits, and how it wants to be driven. Plain
// data, filled once at load and never changed; the readers beside it are the only writers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

enum class ModelKind {
  kText,        // forward(tokens[, position]) -> logits
  kMultimodal,  // a decoder that takes embeddings, and encoders that make them
  kSpeech,      // encoder, and text_decoder(tokens, all of the encoder's outputs, position)
  kSeq2Seq,     // the same with an encoder of token ids: text in, text out
  kTransducer,  // encoder, decoder_step and joint: TransducerContract
  kOther,       // nothing that writes text
};

// What the decoder's second input wants for num_tokens tokens at position p.
enum class PositionStyle {
  kNone,   // no such input: the program has no KV cache and re-reads the whole sequence
  kStart,  // int64 (1): p
  kRange,  // int64 (num_tokens): p, p + 1, ...
};

struct TensorSpec {
  DType dtype = DType::kOther;
  Shape shape;  // upper bounds where a dimension is dynamic
  bool is_planned =
      false;  // inputs: ExecuTorch copies them into its arena; otherwise used in place
  bool is_dynamic = false;

  // False for a shape that no call can have: too large, empty or of another rank.
  bool may_be(const Shape& given) const {
    bool fits = given.size() == shape.size() && num_elements(given) > 0;
    for (size_t i = 0; fits && i < given.size(); ++i) fits = given[i] <= shape[i];
    return fits;
  }
};

struct MethodSpec {
  std::string name;
  std::vector<TensorSpec> inputs;  // dtype kOther and no shape where a value is not a tensor
  std::vector<TensorSpec> outputs;
  std::vector<int64_t> arena_bytes;  // planned buffers
  std::vector<std::string> backends;
};

// How a buffer that survives a call is written, which decides how an earlier content comes back.
enum class StateKind {
  kFlat,   // a row for each position: what lies beyond the position is never read
  kRing,   // rows are used again, those of old positions are gone
  kWhole,  // rewritten by each call: convolutions, recurrences
};

// Where one such buffer lies in the method's planned memory: `outer` blocks of `rows` rows.
struct StateTensor {
  StateKind kind = StateKind::kWhole;
  size_t arena_buffer = 0;
  uint64_t offset = 0;
  int64_t outer = 1;
  int64_t rows = 1;
  int64_t row_bytes = 0;
  bool has_initial_value = false;  // else it starts zeroed
  DType dtype = DType::kOther;     // kOther, too, where methods take it for different ones

  // Of a copy that leaves out what flat caches have beyond so many rows.
  int64_t bytes_of(int64_t num_flat_rows) const {
    return outer * (kind == StateKind::kFlat ? std::min(num_flat_rows, rows) : rows) * row_bytes;
  }
  uint64_t bytes() const { return static_cast<uint64_t>(outer * rows * row_bytes); }
};

// What a decoder's state allows besides going on at the position where it stands.
struct CacheLimits {
  int64_t ring_rows = 0;  // of the smallest ring; 0 when there is none
  int64_t ring_window =
      0;  // positions that a call may write, or a rewind take back, in a full ring
  bool is_recurrent = false;
  bool is_unbounded = false;  // positions may grow for ever; the capacity holds for one request
  int64_t flat_rows = 0;      // of the smallest flat cache; 0 when there is none
};

// A key/value cache that the runner brings, because the program has none in its graph
// (kvcache::update_and_attend). Any number of conversations has a place in it.
struct OuterCache {
  struct Layer {
    int64_t heads = 0;  // 0: no call names this layer
    int64_t key_size = 0;
    int64_t value_size = 0;
    int64_t window = 0;  // positions that a token looks at; 0: all
  };
  std::vector<Layer> layers;
  DType dtype = DType::kFloat32;  // of its rows
  int64_t max_write = 1;  // tokens in a call, and positions that a rewind takes back at least

  bool is_used() const { return !layers.empty(); }
  // Rows that a saved conversation of so many positions has of a layer.
  int64_t saved_rows(const Layer& layer, int64_t num_positions) const {
    return layer.window > 0 ? std::min(num_positions, layer.window + max_write - 1) : num_positions;
  }
};

using MetadataValue =
    std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>>;

// Which input of a decoder is what; -1 where it has none of the kind.
struct DecoderInputs {
  int tokens = -1;
  int embeddings = -1;
  int position = -1;

  // Tokens at positions of text, embeddings at those of media: such a decoder embeds tokens itself.
  bool are_joint() const { return tokens >= 0 && embeddings >= 0; }
};

// By dtype and rank: ids (1, n), floats (1, n, hidden) of as many rows, ids (n) or (1) behind them.
DecoderInputs decoder_inputs(const MethodSpec& decoder);

// Which input of an encoder is what, and which output.
struct EncoderPlaces {
  int values = 0;      // pixels, patches (1, patches, features) or features of audio
  int mask = -1;       // (1, frames): which are no padding
  int positions = -1;  // ids (1, patches, 2): column and row, -1 for padding
  int rows = 0;
  int rows_mask = -1;  // (1, rows): which count
};
// By rank: values and rows have the most dimensions.
EncoderPlaces encoder_places(const MethodSpec& encoder);

inline PositionStyle position_style(const MethodSpec& decoder) {
  const int place = decoder_inputs(decoder).position;
  if (place < 0) return PositionStyle::kNone;
  const Shape& positions = decoder.inputs[static_cast<size_t>(place)].shape;
  return !positions.empty() && positions[0] > 1 ? PositionStyle::kRange : PositionStyle::kStart;
}

// What programs of any kind say about themselves.
struct Signatures {
  std::map<std::string, MethodSpec> methods;      // those with inputs, by name
  std::map<std::string, MetadataValue> metadata;  // constant methods, by name

  const MethodSpec* find(const std::string& name) const {
    const auto found = methods.find(name);
    return found == methods.end() ? nullptr : &found->second;
  }
};

struct Contract : Signatures {
  ModelKind kind = ModelKind::kText;
  std::string decoder_name = "forward";
  // What reads a single token, where a method of its own does: `decode` beside `prefill`.
  std::string step_name;
  std::vector<std::string> choices;  // decoders of the program, by name
  // What the decoder remembers is where the others that say so have theirs: a conversation may go
  // on with any of these.
  bool is_state_shared = false;
  // A delegate may keep the addresses of the state: it is copied to and fro when another
  // conversation goes on. Else the methods are pointed to each conversation's own.
  bool is_state_copied = false;
  int64_t capacity = 0;            // positions the KV cache holds
  std::vector<StateTensor> state;  // of the decoder
  CacheLimits cache;
  OuterCache outer_cache;
  // Tokens of one call that may belong to several conversations: see Executor::decode_batch. 1
  // where the program takes one conversation at a time.
  int64_t max_batch_tokens = 1;
  int64_t max_chunk = 0;    // tokens that one decoder call takes at most
  bool all_logits = false;  // of each token of a call, not of the last one alone
  // Whether a token's logits have the same bits however many tokens the call reads, as far as
  // attention goes: ours sees to that where the call says so, see Executor::decode_rows().
  bool has_own_attention = false;
  // Speech: heads of which a call tells how much its last token looks at each frame, (1, heads,
  // frames) behind the logits; 0 where it does not.
  int64_t num_alignment_heads = 0;
  // The same where something else than the decoder reads them; 0 where nothing does:
  int64_t first_chunk = 0;      // tokens at position 0
  int64_t embedding_chunk = 0;  // rows of embeddings
  PositionStyle position_style = PositionStyle::kStart;
  std::vector<int64_t> eos_ids;  // get_eos_ids and get_eos_id together
  std::optional<int64_t> bos_id;
  int64_t vocab_size = 0;   // last dimension of the logits
  int64_t hidden_size = 0;  // of the embeddings; 0 for text models
  bool is_joint = false;    // the decoder takes tokens and embeddings side by side
  // Ids at which it reads the embeddings, ascending: those of get_image_token_id and
  // get_audio_token_id, else those that its instructions compare the tokens with.
  std::vector<int64_t> placeholder_ids;
  int64_t image_token_id = 0;
  int64_t audio_token_id = 0;

  // Of a snapshot of so many positions; an outer cache has more.
  int64_t state_bytes(int64_t num_flat_rows) const {
    int64_t bytes = 0;
    for (const StateTensor& tensor : state) bytes += tensor.bytes_of(num_flat_rows);
    return bytes;
  }

  int64_t embeddings_at_once() const { return embedding_chunk > 0 ? embedding_chunk : max_chunk; }

  const MethodSpec& decoder() const { return methods.at(decoder_name); }
  // The method for a call of so many tokens.
  const MethodSpec& decoder_of(int64_t num_tokens) const {
    return num_tokens == 1 && !step_name.empty() ? methods.at(step_name) : decoder();
  }
  const MethodSpec* image_encoder() const {
    const MethodSpec* encoder = find("vision_encoder");
    return encoder != nullptr ? encoder : find("image_encoder");
  }
  // The decoder looks at all that the encoder made, at each call.
  bool is_encoder_decoder() const {
    return kind == ModelKind::kSpeech || kind == ModelKind::kSeq2Seq;
  }
  const MethodSpec* audio_encoder() const {
    if (kind == ModelKind::kSeq2Seq) return nullptr;
    return find(kind == ModelKind::kSpeech ? "encoder" : "audio_encoder");
  }
  // Of token ids.
  const MethodSpec* text_encoder() const {
    return kind == ModelKind::kSeq2Seq ? find("encoder") : nullptr;
  }
  // Makes features of samples.
  const MethodSpec* audio_transform() const { return find("speech_transform"); }
};

}  // namespace emm
