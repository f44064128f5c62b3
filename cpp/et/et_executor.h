// The Executor that runs a .pte with ExecuTorch.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "et/et_encoder.h"
#include "et/et_model.h"
#include "et/et_program.h"
#include "et/waiting_rows.h"
#include "model/executor.h"
#include "model/load_options.h"
#include "ops/kv_cache.h"

namespace emm {

class EtExecutor final : public Executor {
 public:
  // Loads every method. Throws Error(kLoad), Error(kContract), or Error(kInput) for an option.
  EtExecutor(std::unique_ptr<EtProgram> program, const LoadOptions& options);
  explicit EtExecutor(const LoadOptions& options)
      : EtExecutor(std::make_unique<EtProgram>(options), options) {}

  const Contract& contract() const override { return *current_; }
  void use_method(const std::string& name, int64_t position) override;
  void load_adapter(const std::string& name, const AdapterFiles& files) override;
  void use_adapter(const std::string& name, int64_t position) override;
  void drop_adapter(const std::string& name) override;
  TensorView decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) override;
  TensorView decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position, int64_t num_rows,
                         bool is_alone) override;
  std::vector<TensorView> decode_batch(const std::vector<BatchPart>& parts) override;
  bool goes_with(const Executor& other) const override;
  TensorView alignment() const override { return alignment_; }
  TensorView decode_embeddings(const TensorView& embeddings, int64_t position,
                               int64_t placeholder_id) override;
  bool put_off_tokens(const int64_t* ids, int64_t num_tokens, int64_t position, bool has_media,
                      int64_t limit) override;
  bool put_off_embeddings(const TensorView& embeddings, int64_t position, int64_t limit) override;
  TensorView encode_image(const MediaView& image) override;
  TensorView encode_audio(const MediaView& audio) override;
  void reset_state() override;
  std::unique_ptr<StateSnapshot> save_state(int64_t num_flat_rows) const override;
  void restore_state(const StateSnapshot& snapshot) override;
  void load_state(int64_t num_flat_rows, ByteSpan bytes) override;
  int64_t copied_input_bytes() const override {
    return copied_input_bytes_ + encoder_.copied_bytes();
  }
  int64_t num_threads() const override { return model_->program().num_threads(); }
  std::unique_ptr<Executor> another() override;
  std::unique_ptr<Executor> fork(int64_t num_flat_rows) override;
  void go_on_from(Executor& other, int64_t num_flat_rows, int64_t num_used) override;
  std::vector<MemoryUse> memory(int64_t num_flat_rows) const override;
  int64_t weights_number(const std::string& adapter) const override {
    return model_->decoding(adapter)->number;
  }
  TurnQueue* turns() override { return &model_->turns(); }
  void write_profile() override { model_->program().write_profile(); }

 private:
  // What the encoder of an encoder-decoder made of the last clip or source text.
  struct EncoderOutputs {
    std::vector<TensorView> views;
    std::vector<std::vector<uint8_t>> copies;  // of them, once the model is shared
    std::vector<ops::KvSource> sources;        // the same for a call with others
    void keep();                               // in memory of its own
  };

  EtExecutor(const EtExecutor& other, std::shared_ptr<EtState> state);
  void expect_state() const;
  // The executors of the parts, all of this model. Throws Error(kInput) for what is no batch.
  std::vector<EtExecutor*> check_batch(const std::vector<BatchPart>& parts) const;
  // As it lies in a snapshot.
  void write_state(const Contract& contract, int64_t num_flat_rows, const uint8_t* bytes);
  // Outputs are anybody's once the turn is over. Only a sibling makes siblings, so that one that
  // has none stays alone until it makes one.
  bool is_shared() const { return model_.use_count() > 1; }
  // Before there are siblings, or more of them.
  void prepare_sharing();
  // An output that outlasts the next caller's turn, in `copy` where need be.
  TensorView kept(const TensorView& output, std::vector<uint8_t>& copy) const;
  // num_threads 0: chosen from the model's size, and by running it where that does not decide.
  void load_decoder(int64_t num_threads);
  void load_decoder_on(int64_t num_threads);
  TensorView run_embedding(const TensorView& tokens);
  // Of tokens and embeddings what the decoder takes. Returns the last num_rows rows of the logits.
  TensorView run_decoder(const TensorView& tokens, const TensorView& embeddings, int64_t num_tokens,
                         int64_t position, int64_t num_rows = 1);
  // The decoder takes embeddings alone.
  bool is_embedded() const {
    return current_->kind == ModelKind::kMultimodal && !current_->is_joint;
  }
  // The same with the rows that wait for these.
  TensorView run_with_waiting(const TensorView& tokens, const TensorView& embeddings,
                              int64_t num_tokens, int64_t position, int64_t num_rows = 1);
  // What the tokens of this conversation look at in a call with others.
  const std::vector<ops::KvSource>& sources();

  std::shared_ptr<EtModel> model_;
  const Contract* current_;  // of the model's
  std::shared_ptr<EtState> state_;
  std::shared_ptr<EtModel::Decoding> decoding_;      // the weights in use
  ops::KvSequence sequence_;                         // of the model's outer cache
  std::shared_ptr<EncoderOutputs> encoder_outputs_;  // of an encoder-decoder
  std::vector<uint8_t> last_logits_;                 // copies, where the model is shared
  TensorView alignment_;
  std::vector<uint8_t> alignment_bytes_;
  std::vector<uint8_t> encoded_rows_;
  std::vector<int64_t> positions_;  // the position input: (1) or (num_tokens)
  // Inputs in the dtype that the method wants, where the caller's is another.
  std::vector<uint8_t> converted_ids_;
  std::vector<uint8_t> converted_embeddings_;
  std::vector<uint8_t> converted_positions_;
  std::vector<uint8_t> no_embeddings_;  // zeros
  WaitingRows waiting_;                 // of a prompt that is being read
  std::vector<int64_t> placeholders_;
  EtEncoder encoder_;
  int64_t copied_input_bytes_ = 0;
};

}  // namespace emm
