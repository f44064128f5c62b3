// The TransducerExecutor that runs a .pte with ExecuTorch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
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

  const TransducerContract& contract() const override { return contract_; }
  Features preprocess(const TensorView& samples) override;
  int64_t encode(const Features& features) override;
  void restart() override;
  void read(int64_t token) override;
  JointChoice choose(int64_t frame) override;
  int64_t copied_input_bytes() const override {
    return converted_clip_bytes_ + program_->copied_input_bytes();
  }
  int64_t num_threads() const override { return program_->num_threads(); }
  void write_profile() override { program_->write_profile(); }

 private:
  // Inputs in the method's dtypes, where theirs are others.
  std::vector<TensorView> run(const std::string& method, std::vector<TensorView> inputs,
                              ErrorCode input_error);
  std::vector<TensorView> run_on_clip(const std::string& method, const TensorView& clip,
                                      int64_t length);

  TransducerContract contract_;  // outlives program_, which refers to its methods
  std::unique_ptr<EtProgram> program_;
  std::map<std::string, std::vector<std::vector<uint8_t>>> converted_;
  int64_t converted_clip_bytes_ = 0;

  TensorView frames_;  // the encoder's, (1, num_frames, size)
  // The predictor's state. decoder_step writes the next one where it may still have to read this
  // one, so it is copied, once for each symbol; prediction_ is used where decoder_step left it.
  std::vector<uint8_t> hidden_;
  std::vector<uint8_t> cell_;
  TensorView prediction_;
};

}  // namespace emm
