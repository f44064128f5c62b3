// The Executor whose model runs in a process of its own: a crash there is an error here. What is
// promised (the contract) is read from the file here; numbers come back through memory that both
// have mapped, and are copied out of it before anything looks at them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/executor.h"
#include "remote/remote_model.h"
#include "remote/wire.h"

namespace emm::remote {

class RemoteExecutor final : public Executor {
 public:
  // The first conversation with a model.
  explicit RemoteExecutor(std::shared_ptr<RemoteModel> model);
  ~RemoteExecutor() override;
  RemoteExecutor(const RemoteExecutor&) = delete;
  RemoteExecutor& operator=(const RemoteExecutor&) = delete;

  const Contract& contract() const override { return *current_; }
  void use_method(const std::string& name, int64_t position) override;
  TensorView decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) override;
  TensorView decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position, int64_t num_rows,
                         bool is_alone) override;
  TensorView decode_embeddings(const TensorView& embeddings, int64_t position,
                               int64_t placeholder_id) override;
  TensorView encode_image(const MediaView& image) override;
  TensorView encode_audio(const MediaView& audio) override;
  void reset_state() override;
  std::unique_ptr<StateSnapshot> save_state(int64_t num_flat_rows) const override;
  void restore_state(const StateSnapshot& snapshot) override;
  void load_state(int64_t num_flat_rows, ByteSpan bytes) override;
  int64_t copied_input_bytes() const override { return copied_input_bytes_; }
  int64_t num_threads() const override { return model_->num_threads(); }
  std::unique_ptr<Executor> another() override;
  std::unique_ptr<Executor> fork(int64_t num_flat_rows) override;
  void go_on_from(Executor& other, int64_t num_flat_rows, int64_t num_used) override;
  std::vector<MemoryUse> memory(int64_t num_flat_rows) const override;
  TurnQueue* turns() override { return &model_->turns(); }
  void write_profile() override;

 private:
  RemoteExecutor(const RemoteExecutor& other, int64_t conversation);
  Message call(Message request, const std::string& text = "") const;
  Message call(Kind kind, int64_t number = 0) const;
  // Makes room, and puts arrays where the process looks for them.
  void put(Message& request, const TensorView& first, const TensorView& second) const;
  TensorView logits(const Message& answer, const Shape& wanted);
  TensorView encode(Kind kind, const MethodSpec* encoder, const MediaView& given);
  // What came back, copied, if it is floats.
  TensorView taken(const Message& answer, std::vector<uint8_t>& copy) const;

  std::shared_ptr<RemoteModel> model_;
  const Contract* current_;
  int64_t conversation_ = 0;  // its number there
  mutable int64_t copied_input_bytes_ = 0;
  std::vector<uint8_t> logits_;
  std::vector<uint8_t> rows_;
};

}  // namespace emm::remote
