// A TransducerExecutor without a model: a script says what the joint network chooses on a frame
// after the symbols read so far. Fails loudly when it is asked for what no model could give.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/error.h"
#include "model/transducer.h"

namespace emm::testing {

class FakeTransducer final : public TransducerExecutor {
 public:
  // Gets the frame, of the last chunk, and the symbols read since the beginning.
  using Rule = std::function<JointChoice(int64_t, const std::vector<int64_t>&)>;

  FakeTransducer(TransducerContract contract, Rule rule)
      : contract_(std::move(contract)), rule_(std::move(rule)) {}

  const TransducerContract& contract() const override { return contract_; }

  std::shared_ptr<TransducerState> new_state() const override { return std::make_shared<State>(); }
  void use(std::shared_ptr<TransducerState> state) override {
    state_ = std::static_pointer_cast<State>(std::move(state));
  }

  // As many columns as samples.
  Features preprocess(const TensorView& samples) override {
    return {{samples.data, samples.dtype, {1, 1, samples.size()}}, samples.size()};
  }

  // As many frames as columns.
  int64_t encode(const Features& features) override {
    ++num_encoded;
    if (fails_to_encode) throw Error(ErrorCode::kInput, "encoder: told to fail");
    state_->num_frames = features.length;
    return features.length;
  }

  void restart() override { state_->symbols.clear(); }
  void read(int64_t token) override {
    if (token == contract_.blank_id) throw std::logic_error("a blank is not read");
    if (fails_to_read) throw Error(ErrorCode::kExecution, "decoder_step: told to fail");
    state_->symbols.push_back(token);
  }

  JointChoice choose(int64_t frame) override {
    if (frame < 0 || frame >= state_->num_frames)
      throw std::logic_error("a frame that does not exist");
    if (before_choice) before_choice();
    looked_at.push_back(frame);
    return rule_(frame, state_->symbols);
  }

  int64_t copied_input_bytes() const override { return 0; }
  int64_t num_threads() const override { return 1; }
  TurnQueue* turns() override { return shared_turns; }

  // Seen and steered by tests.
  std::vector<int64_t> looked_at;       // frames, in order
  std::function<void()> before_choice;  // runs at the start of each choice
  TurnQueue* shared_turns = nullptr;
  int64_t num_encoded = 0;
  bool fails_to_encode = false;
  bool fails_to_read = false;

 private:
  struct State : TransducerState {
    int64_t num_frames = 0;
    std::vector<int64_t> symbols;
  };

  TransducerContract contract_;
  Rule rule_;
  std::shared_ptr<State> state_;
};

}  // namespace emm::testing
