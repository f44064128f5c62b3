// The tensor side of a model, free of ExecuTorch's types so that all logic above it runs on a
// scripted fake. An executor holds one conversation's KV cache; it knows positions only as
// arguments. Several may share what was loaded: another() and fork() make them. Not thread safe:
// its session serialises the calls, in turns where there are turns. Logits stay valid until the
// next decode_* call, encoder outputs until the next encode_* call; what the executor gave out
// before it had a sibling, until the sibling's first call.
//
// The decoder of an encoder-decoder (speech, text to text) looks at the last clip or source text at
// each call, instead of reading rows of it: there encode_audio(), which gets the ids of a text,
// keeps what it made of it, whatever is forgotten or restored later, and returns no rows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/tensor_view.h"
#include "base/turns.h"
#include "model/contract.h"
#include "model/encoder_call.h"

namespace emm {

struct ByteSpan {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

// Throws Error(kInput) where they are not as many as a snapshot of so many positions has.
inline void expect_state_bytes(ByteSpan bytes, int64_t expected, int64_t num_positions) {
  if (static_cast<int64_t>(bytes.size) == expected) return;
  throw Error(ErrorCode::kInput, "state: expected " + std::to_string(expected) + " bytes for " +
                                     std::to_string(num_positions) + " positions, got " +
                                     std::to_string(bytes.size));
}

class Executor;

struct AdapterFiles {
  std::string model_path;  // empty: the program that was loaded
  std::vector<std::string> data_paths;
};

// A copy of everything a decoder remembers between calls.
class StateSnapshot {
 public:
  virtual ~StateSnapshot() = default;
  virtual size_t size_bytes() const = 0;
  // Its bytes in pieces, for a file: the buffers of contract().state in their order, of flat caches
  // only the rows that were saved.
  virtual std::vector<ByteSpan> spans() const = 0;
};

// Memory that a conversation keeps, alone or with others.
struct MemoryUse {
  const void* place = nullptr;  // what is kept at one place by several is there once
  int64_t bytes = 0;
};

// Tokens of one conversation in a call that several share.
struct BatchPart {
  Executor* conversation = nullptr;  // the one that is called, or another() or a fork() of it
  const int64_t* ids = nullptr;
  int64_t num_tokens = 0;
  int64_t position = 0;
};

class Executor {
 public:
  virtual ~Executor() = default;

  // Of the decoder in use; one that is read stays where it is for the executor's life.
  virtual const Contract& contract() const = 0;

  // Another of contract().choices decodes from now on. With `position` positions in use it must
  // find what the one before has left. Throws Error(kInput) or Error(kLoad), and then has changed
  // nothing.
  virtual void use_method(const std::string& name, int64_t position) = 0;

  // Other weights for the decoder, kept under `name` beside those that were loaded: data files in
  // place of those with the same names of tensors, or another program with files of its own that
  // computes in the same shapes. Throws Error(kInput) or Error(kLoad), and then has changed
  // nothing.
  virtual void load_adapter(const std::string& name, const AdapterFiles& files) {
    (void)name;
    (void)files;
    throw Error(ErrorCode::kInput, "adapter: this model takes none");
  }
  // The weights of `name` decode from now on, "" for those that were loaded first. What was read
  // stays as the weights before have read it. Throws Error(kInput), and then has changed nothing.
  virtual void use_adapter(const std::string& name, int64_t position) {
    (void)position;
    if (!name.empty()) throw Error(ErrorCode::kInput, "adapter: this model has none, got " + name);
  }
  // Frees weights that are not in use. Throws Error(kInput).
  virtual void drop_adapter(const std::string& name) {
    throw Error(ErrorCode::kInput, "adapter: this model has none, got " + name);
  }

  // Runs num_tokens <= contract().max_chunk ids at `position`. Returns the last row of logits,
  // (vocab_size).
  virtual TensorView decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) = 0;

  // The same with the last num_rows rows, (num_rows, vocab_size): one for each of the last tokens.
  // Where contract().all_logits. `is_alone`: each token as in a call of its own, bit for bit as far
  // as that is for us to say, for a little more time.
  virtual TensorView decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                                 int64_t num_rows, bool is_alone) = 0;

  // decode_tokens() of several conversations in one call of the program: true batches, whose
  // weights are read once. The contract, where contract().max_batch_tokens > 1: the tokens lie one
  // after the other on one axis, ids (1, n) and positions (n) in, logits (1, n, vocab_size) out,
  // and a cache outside of the program keeps the conversations apart (kvcache::update_and_attend).
  // Each part comes from another conversation; all together have max_batch_tokens tokens at most,
  // of one for a step to a chunk of a prompt. Returns the last row of each part, (vocab_size),
  // valid until its conversation decodes again. Throws Error(kInput), and then has changed nothing,
  // for parts that are no batch; Error(kExecution) as decode_tokens() does, after which each
  // conversation may be decoded again from its position. Whoever calls has the turn for all of
  // them.
  virtual std::vector<TensorView> decode_batch(const std::vector<BatchPart>& parts);
  // Whether both may be parts of such a call as they stand; with itself: whether it may be one.
  virtual bool goes_with(const Executor& /*other*/) const { return false; }

  // How much the last token of the last of these calls looks at each frame of the clip, (heads,
  // frames), where contract().num_alignment_heads > 0; nothing where it is not known here.
  virtual TensorView alignment() const { return {}; }

  // The same as decode_tokens() for (num_tokens, hidden_size) embeddings, at positions where a
  // joint decoder is told `placeholder_id`. Multimodal models only.
  virtual TensorView decode_embeddings(const TensorView& embeddings, int64_t position,
                                       int64_t placeholder_id) = 0;

  // Part of a prompt that more of the same prompt follows: what comes next reads it along, where a
  // call reads more at once so. False where it has to be read now, and then nothing has happened.
  // `has_media`: images, clips or embeddings are in the prompt. A call that could as well be
  // several is to read at most `limit` positions.
  virtual bool put_off_tokens(const int64_t* /*ids*/, int64_t /*num_tokens*/, int64_t /*position*/,
                              bool /*has_media*/, int64_t /*limit*/) {
    return false;
  }
  virtual bool put_off_embeddings(const TensorView& /*embeddings*/, int64_t /*position*/,
                                  int64_t /*limit*/) {
    return false;
  }

  // One image or clip, with or without the batch dimension. Returns (num_tokens, hidden_size), rows
  // of several tiles one below the other, without those that the encoder says do not count. Samples
  // (num_samples) are a clip where the program makes features of them.
  virtual TensorView encode_image(const MediaView& image) = 0;
  virtual TensorView encode_audio(const MediaView& audio) = 0;

  // Forgets everything: the state is what it was after loading.
  virtual void reset_state() = 0;

  // A copy of the decoder's state, of flat caches only the first num_flat_rows rows.
  virtual std::unique_ptr<StateSnapshot> save_state(int64_t num_flat_rows) const = 0;
  virtual void restore_state(const StateSnapshot& snapshot) = 0;
  // The same from the bytes of a snapshot of so many rows. Throws Error(kInput), and then has
  // changed nothing, where that takes another number of bytes.
  virtual void load_state(int64_t num_flat_rows, ByteSpan bytes) = 0;

  // Bytes of caller data that had to be copied on the way to an encoder or decoder so far, because
  // of a dtype conversion or because the program plans that input in its arena.
  virtual int64_t copied_input_bytes() const = 0;

  virtual int64_t num_threads() const = 0;

  // For another conversation with the same weights, at its beginning. Throws Error(kInput) where
  // the model holds one only.
  virtual std::unique_ptr<Executor> another() { refuse_sibling(); }
  // For another conversation that has read the same, of flat caches the first num_flat_rows rows.
  virtual std::unique_ptr<Executor> fork(int64_t /*num_flat_rows*/) { refuse_sibling(); }
  // This conversation is from now on as a fork of another is, which has num_used positions. Throws
  // Error(kInput), and then has changed nothing, where the other is not one of the same model,
  // method and weights.
  virtual void go_on_from(Executor& /*other*/, int64_t /*num_flat_rows*/, int64_t /*num_used*/) {
    refuse_sibling();
  }
  // What the state of so many positions keeps.
  virtual std::vector<MemoryUse> memory(int64_t /*num_flat_rows*/) const { return {}; }
  // A number for an adapter, "" for the first weights, of all that were ever loaded for the model.
  virtual int64_t weights_number(const std::string& /*adapter*/) const { return 0; }
  // Who calls next, of all that share the model: decode_*, encode_*, use_method and what concerns
  // the state are for whoever has a turn. Null where nobody shares it.
  virtual TurnQueue* turns() { return nullptr; }

  // Ends the profile that was asked for when the model was loaded and writes its file.
  virtual void write_profile() {}

 private:
  [[noreturn]] static void refuse_sibling() {
    throw Error(ErrorCode::kInput,
                "the model holds one conversation where it runs: load it again for another");
  }
};

inline std::vector<TensorView> Executor::decode_batch(const std::vector<BatchPart>&) {
  throw Error(ErrorCode::kInput,
              "batch: " + contract().decoder_name + " takes one conversation at a time");
}

}  // namespace emm
