// The TransducerExecutor that runs a .pte with ExecuTorch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "et/et_program.h"
#include "model/load_options.h"
#include "model/transducer.h"

namespace emm {

class EtTransducer final : public TransducerExecutor {
 public:
  // Loads every method; num_threads as in LoadOptions. Throws Error(kLoad) or Error(kContract).
  EtTransducer(std::unique_ptr<EtProgram> program, int64_t num_threads);

  const TransducerContract& contract() const override { return model_->contract; }
  std::shared_ptr<TransducerState> new_state() const override;
  void use(std::shared_ptr<TransducerState> state) override;
  Features preprocess(const TensorView& samples) override;
  int64_t encode(const Features& features) override;
  void restart() override;
  void read(int64_t token) override;
  JointChoice choose(int64_t frame) override;
  int64_t copied_input_bytes() const override { return copied_bytes_; }
  int64_t num_threads() const override { return model_->program->num_threads(); }
  void write_profile() override { model_->program->write_profile(); }
  TurnQueue* turns() override { return &model_->turns; }
  std::unique_ptr<TransducerExecutor> another() override {
    return std::unique_ptr<TransducerExecutor>(new EtTransducer(model_));
  }

 private:
  // What is loaded once for all that share it.
  struct Model {
    explicit Model(std::unique_ptr<EtProgram> opened);

    TransducerContract contract;  // outlives program, which refers to its methods
    std::unique_ptr<EtProgram> program;
    TurnQueue turns;
    std::vector<std::vector<uint8_t>> caches;  // as a stream begins, see State
  };

  explicit EtTransducer(std::shared_ptr<Model> model) : model_(std::move(model)) {}

  // Where the encoder keeps one of its buffers.
  uint8_t* buffer(size_t index) const;

  // Inputs in the method's dtypes, where theirs are others.
  std::vector<TensorView> run(const std::string& method, std::vector<TensorView> inputs,
                              ErrorCode input_error);
  std::vector<TensorView> run_on_clip(const std::string& method, const TensorView& clip,
                                      int64_t length);

  // A copy of what a method gave, which the next call overwrites.
  struct Kept {
    std::vector<uint8_t> bytes;
    TensorView view;

    void keep(const TensorView& given);
  };

  struct State : TransducerState {
    const Model* model = nullptr;  // that made it
    Kept frames;                   // the encoder's, (1, num_frames, size)
    // What it gets back with the next chunk: inputs behind the length, or its buffers.
    std::vector<std::vector<uint8_t>> caches;
    std::vector<uint8_t> hidden;
    std::vector<uint8_t> cell;
    Kept prediction;
  };

  std::shared_ptr<Model> model_;
  std::map<std::string, std::vector<std::vector<uint8_t>>> converted_;
  int64_t copied_bytes_ = 0;
  std::shared_ptr<State> state_;
};

}  // namespace emm
