// The Executor that runs a .pte with ExecuTorch.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "et/et_program.h"
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
  TensorView decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                         int64_t num_rows) override;
  TensorView decode_embeddings(const TensorView& embeddings, int64_t position,
                               int64_t placeholder_id) override;
  TensorView encode_image(const MediaView& image) override;
  TensorView encode_audio(const MediaView& audio) override;
  void reset_state() override;
  std::unique_ptr<StateSnapshot> save_state(int64_t num_flat_rows) const override;
  void restore_state(const StateSnapshot& snapshot) override;
  void load_state(int64_t num_flat_rows, ByteSpan bytes) override;
  int64_t copied_input_bytes() const override {
    int64_t bytes = converted_input_bytes_ + encoder_call_.copied_bytes();
    for (const auto& [name, adapter] : adapters_) bytes += adapter.program->copied_input_bytes();
    return bytes + program_->copied_input_bytes();
  }
  int64_t num_threads() const override { return program_->num_threads(); }
  void write_profile() override { program_->write_profile(); }

 private:
  // num_threads 0: chosen from the model's size, and by running it where that does not decide.
  void load_decoder(int64_t num_threads);
  void load_decoder_on(int64_t num_threads);
  // Nanoseconds of a short prompt and answer.
  int64_t time_turn();
  // Loads what the decoder in use consists of.
  void load_current();
  TensorView run_embedding(const TensorView& tokens);
  // Of tokens and embeddings what the decoder takes. Returns the last num_rows rows of the logits.
  TensorView run_decoder(const TensorView& tokens, const TensorView& embeddings, int64_t num_tokens,
                         int64_t position, int64_t num_rows = 1);
  std::vector<TensorView> encode(const MethodSpec* encoder, const char* what,
                                 const MediaView& input);
  TensorView transform(const TensorView& samples);

  // A program with other weights, and what it promises.
  struct Adapter {
    std::vector<Contract> contracts;  // outlive the program, which refers to their methods
    std::unique_ptr<EtProgram> program;
  };
  const Arena& decoder_arena() const {
    return *decoding_->methods().at(current_->decoder().name).arena;
  }

  const LoadOptions options_;
  std::unique_ptr<EtProgram> program_;
  std::map<std::string, Adapter> adapters_;
  EtProgram* decoding_;                    // program_, or that of the adapter in use
  const std::vector<Contract> contracts_;  // one for each decoder
  const Contract* current_;
  std::shared_ptr<ops::KvCache> outer_cache_;  // null where the program has its own
  ops::KvSequence sequence_;                   // of it, this conversation's
  std::vector<TensorView> encoder_outputs_;    // speech: of the last clip
  std::vector<int64_t> positions_;             // the position input: (1) or (num_tokens)
  // Inputs in the dtype that the method wants, where the caller's is another.
  std::vector<uint8_t> converted_media_;
  std::vector<uint8_t> converted_ids_;
  std::vector<uint8_t> converted_embeddings_;
  std::vector<uint8_t> converted_positions_;
  std::vector<uint8_t> no_embeddings_;  // zeros
  std::vector<int64_t> placeholders_;
  EncoderCall encoder_call_;
  int64_t converted_input_bytes_ = 0;
};

}  // namespace emm
