// The Executor for a folder of programs that transformers' exporter wrote. The programs keep
// nothing between calls: each conversation has a cache of its own, handed in and taken out by
// pointer where the programs let it. Where the decoder's plan has it (`kept`), it is copied when
// another conversation goes on.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/turns.h"
#include "et/arena.h"
#include "et/et_program.h"
#include "model/executor.h"
#include "model/folder_reader.h"
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
  bool put_off_tokens(const int64_t* ids, int64_t num_tokens, int64_t position,
                      bool has_media) override;
  bool put_off_embeddings(const TensorView& embeddings, int64_t position) override;
  TensorView encode_image(const MediaView& image) override;
  TensorView encode_audio(const MediaView& audio) override;
  void reset_state() override;
  std::unique_ptr<StateSnapshot> save_state(int64_t num_flat_rows) const override;
  void restore_state(const StateSnapshot& snapshot) override;
  void load_state(int64_t num_flat_rows, ByteSpan bytes) override;
  int64_t copied_input_bytes() const override { return copied_input_bytes_; }
  int64_t num_threads() const override { return model_->num_threads; }
  void write_profile() override;
  std::unique_ptr<Executor> another() override;
  std::unique_ptr<Executor> fork(int64_t num_flat_rows) override;
  void go_on_from(Executor& other, int64_t num_flat_rows, int64_t num_used) override;
  std::vector<MemoryUse> memory(int64_t num_flat_rows) const override;
  TurnQueue* turns() override { return &model_->turns; }

 private:
  // A program of the folder, loaded.
  struct Part {
    const FolderCall* call = nullptr;
    std::unique_ptr<EtProgram> program;
    std::vector<std::vector<uint8_t>> inputs;  // what is made for each
  };
  // What a conversation has in the decoder's memory, while it is another's.
  struct Kept {
    std::vector<std::unique_ptr<PlannedMemory>> copies;  // by tensor, of those that are kept
    int64_t num_rows = 0;                                // of flat ones that are in use
  };
  // What conversations have in common.
  struct Model {
    FolderContract folder;
    std::map<std::string, Part> parts;  // by the component's name
    float embedding_scale = 1.0F;       // of rows from the table
    int64_t num_threads = 1;
    TurnQueue turns;
    std::weak_ptr<Kept> resident;  // whose rows lie in the decoder's memory
  };
  // What is asked of a call.
  struct Ask {
    const int64_t* ids = nullptr;
    TensorView media;  // embeddings, pixels, features
    int64_t num_tokens = 0;
    int64_t position = 0;
  };
  // A tensor of the cache: where its content is, and where the next one goes if that is elsewhere.
  struct Memory {
    std::unique_ptr<PlannedMemory> own;
    std::unique_ptr<PlannedMemory> next;
    uint8_t* data = nullptr;
    int64_t rows = 0;  // of one that grows: as many as its content has
  };

  explicit EtFolder(const EtFolder& other);
  bool is_shared() const { return model_.use_count() > 1; }
  // An output that outlasts the next caller's turn, in `copy` where need be.
  TensorView lent(const TensorView& output, std::vector<uint8_t>& copy) const;
  // Between the decoder's memory and a conversation's copies of what is kept there.
  void copy_kept(Kept& kept, bool is_out) const;
  void settle(const std::shared_ptr<Kept>& kept) const;
  void bring_in() const;
  void read_from(const EtFolder& other, int64_t num_flat_rows);

  void place_cache();
  void give_sizes();
  void find_embedding_scale();
  TensorView cache_view(size_t index) const;
  TensorView make_input(Part& part, size_t index, const Ask& ask);
  // Runs a part and returns its wanted output.
  TensorView run(Part& part, const Ask& ask, ErrorCode input_error);
  void bind_cache(Part& part);
  void take_cache(const Part& part, const std::vector<TensorView>& outputs, const Ask& ask);
  // Of a cache that grows, rows behind `position` go.
  void cut_cache(int64_t position);
  // Whether decode cannot begin with an empty cache.
  bool needs_start() const;
  TensorView last_logits(Part& part, const Ask& ask, int64_t num_rows);

  // Embeddings of the conversation so far, which language_model reads from its beginning.
  TensorView read_embeddings(int64_t num_rows);
  TensorView read_hidden(int64_t num_rows);  // (1, 1, hidden_size) of the last position
  bool can_put_off(int64_t position, int64_t num_rows) const;
  DType embedding_dtype() const;
  size_t embedding_bytes() const;  // of a position
  void remember(const TensorView& rows, int64_t position, float scale = 1.0F);
  void remember_tokens(const int64_t* ids, int64_t num_tokens, int64_t position);
  TensorView encode(const char* name, const MediaView& media, const char* what);
  TensorView project(Part& projector, TensorView rows);

  template <typename Visit>
  void for_each_tensor(int64_t num_flat_rows, Visit visit) const;
  void write_state(int64_t num_flat_rows, const uint8_t* bytes);

  std::shared_ptr<Model> model_;
  std::vector<Memory> cache_;
  std::shared_ptr<Kept> kept_ = std::make_shared<Kept>();
  std::vector<uint8_t> embedded_;  // (positions, hidden_size) as language_model takes them
  int64_t num_known_ = 0;          // positions whose embeddings are in it
  int64_t num_read_ = 0;           // positions that are in the cache; what is behind was put off
  std::vector<uint8_t> converted_media_;
  std::vector<uint8_t> converted_rows_;
  // Of the last calls, where the model is shared.
  std::vector<uint8_t> last_logits_;
  std::vector<uint8_t> encoded_rows_;
  int64_t copied_input_bytes_ = 0;
};

}  // namespace emm
