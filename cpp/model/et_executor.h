// The Executor that runs a .pte with ExecuTorch. Owns the module, the arenas its methods live in
// and the buffers of outputs that the program does not plan.
#pragma once

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/arena.h"
#include "model/executor.h"
#include "model/large_pages.h"
#include "model/load_options.h"

namespace emm {

class EtExecutor final : public Executor {
 public:
  // Loads every method. Throws Error(kLoad) or Error(kContract).
  explicit EtExecutor(const LoadOptions& options);

  const Contract& contract() const override { return contract_; }
  TensorView decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) override;
  TensorView decode_embeddings(const TensorView& embeddings, int64_t position) override;
  TensorView encode_image(const TensorView& image) override;
  TensorView encode_audio(const TensorView& audio) override;
  void reset_state() override;
  std::unique_ptr<StateSnapshot> save_state() const override;
  void restore_state(const StateSnapshot& snapshot) override;
  int64_t copied_input_bytes() const override { return copied_input_bytes_; }
  int64_t num_threads() const override { return num_threads_; }

 private:
  struct LoadedMethod {
    const MethodSpec* spec;
    std::unique_ptr<Arena> arena;
    std::vector<std::vector<uint8_t>> output_buffers;  // one per unplanned output
  };

  // num_threads 0: chosen from the model's size, and by running it where that does not decide.
  void load_decoder(int64_t num_threads, size_t file_bytes);
  void load_decoder_on(int64_t num_threads);
  // Nanoseconds of a short prompt and answer.
  int64_t time_turn();
  void load_method(const MethodSpec& spec);
  TensorView run(const std::string& method, const std::vector<TensorView>& inputs,
                 ErrorCode input_error);
  TensorView run_decoder(const TensorView& first, int64_t num_tokens, int64_t position);
  TensorView encode(const std::string& method, const char* what, const TensorView& input);

  std::map<std::string, LoadedMethod>
      methods_;  // outlives module_, whose methods point into the arenas
  std::unique_ptr<executorch::extension::Module> module_;
  Contract contract_;
  int64_t num_threads_ = 1;
  LargePages large_pages_;
  std::vector<int64_t> positions_;  // the position input: (1) or (num_tokens)
  std::vector<uint8_t> converted_;  // an encoder input in the encoder's dtype
  int64_t copied_input_bytes_ = 0;
};

}  // namespace emm
