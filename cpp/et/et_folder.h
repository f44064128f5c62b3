// The Executor for a folder of programs that transformers' exporter wrote: what its programs
// (FolderModel) are asked, with the cache and the embeddings of one conversation.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/turns.h"
#include "et/folder_cache.h"
#include "et/folder_embeddings.h"
#include "et/folder_inputs.h"
#include "et/folder_model.h"
#include "et/media_input.h"
#include "model/executor.h"
#include "model/load_options.h"

namespace emm {

class EtFolder final : public Executor {
 public:
  // Loads every part that is needed. Throws Error(kLoad), Error(kContract), or Error(kInput) for an
  // option.
  explicit EtFolder(const LoadOptions& options);

  const Contract& contract() const override { return model_->folder.contract; }
  void use_method(const std::string& name, int64_t position) override;
  TensorView decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) override;
  TensorView decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position, int64_t num_rows,
                         bool is_alone) override;
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
    return copied_input_bytes_ + media_.copied_bytes();
  }
  int64_t num_threads() const override { return model_->num_threads; }
  void write_profile() override;
  std::unique_ptr<Executor> another() override;
  std::unique_ptr<Executor> fork(int64_t num_flat_rows) override;
  void go_on_from(Executor& other, int64_t num_flat_rows, int64_t num_used) override;
  std::vector<MemoryUse> memory(int64_t num_flat_rows) const override;
  TurnQueue* turns() override { return &model_->turns; }

 private:
  using Part = FolderModel::Part;

  explicit EtFolder(const EtFolder& other);
  bool is_shared() const { return model_.use_count() > 1; }
  // An output that outlasts the next caller's turn, in `copy` where need be.
  TensorView lent(const TensorView& output, std::vector<uint8_t>& copy) const;
  void read_from(const EtFolder& other, int64_t num_flat_rows);
  void write_state(int64_t num_flat_rows, const uint8_t* bytes);

  void find_embedding_scale();
  // Runs a part and returns its wanted output.
  TensorView run(Part& part, const FolderAsk& ask, ErrorCode input_error);
  // Whether decode cannot begin with an empty cache.
  bool needs_start() const;
  TensorView last_logits(Part& part, const FolderAsk& ask, int64_t num_rows);

  // Embeddings of the conversation so far, which language_model reads from its beginning.
  TensorView read_embeddings(int64_t num_rows);
  TensorView read_hidden(int64_t num_rows);  // (1, 1, hidden_size) of the last position
  bool can_put_off(int64_t position, int64_t num_rows) const;
  TensorView encode(const std::string& name, const MediaView& media, const std::string& what);
  TensorView project(Part& projector, TensorView rows);

  const std::shared_ptr<FolderModel> model_;
  FolderCache cache_;
  FolderEmbeddings embeddings_;
  int64_t num_read_ = 0;  // positions that are in the cache; what is behind was put off
  MediaInput media_;
  std::vector<uint8_t> converted_rows_;
  // Of the last calls, where the model is shared.
  std::vector<uint8_t> last_logits_;
  std::vector<uint8_t> encoded_rows_;
  int64_t copied_input_bytes_ = 0;
};

}  // namespace emm
