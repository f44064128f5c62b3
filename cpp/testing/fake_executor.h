// An Executor without a model: logits follow a rule over the tokens it has been fed, so that
// planning, prefill, generation and error paths are tested without a .pte. It keeps its own picture
// of the cache and fails loudly when a session's positions do not fit it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "model/executor.h"

namespace emm::testing {

// A multimodal contract: images (3, 4, 4) -> num_image_rows rows, audio (8, 10) -> 2 rows.
inline Contract fake_contract(int64_t capacity = 32, int64_t max_chunk = 8,
                              int64_t num_image_rows = 4) {
  Contract contract;
  contract.kind = ModelKind::kMultimodal;
  contract.capacity = capacity;
  contract.max_chunk = max_chunk;
  contract.vocab_size = 16;
  contract.hidden_size = 2;
  contract.eos_ids = {1};
  const auto method = [](const std::string& name, TensorSpec in, TensorSpec out) {
    return MethodSpec{name, {std::move(in)}, {std::move(out)}, {}, {}};
  };
  contract.methods["token_embedding"] = method("token_embedding", {DType::kInt64, {1, max_chunk}},
                                               {DType::kFloat32, {1, max_chunk, 2}});
  contract.methods["text_decoder"] =
      method("text_decoder", {DType::kFloat32, {1, max_chunk, 2}}, {DType::kFloat32, {1, 16}});
  contract.methods["vision_encoder"] = method("vision_encoder", {DType::kFloat32, {1, 3, 4, 4}},
                                              {DType::kFloat32, {1, num_image_rows, 2}});
  contract.methods["audio_encoder"] =
      method("audio_encoder", {DType::kFloat32, {1, 8, 10}}, {DType::kFloat32, {1, 2, 2}});
  return contract;
}

class FakeExecutor : public Executor {
 public:
  // What the next token is, given everything in the cache (-1 for rows that are no tokens).
  using Rule = std::function<int64_t(const std::vector<int64_t>&)>;

  explicit FakeExecutor(Contract contract, Rule rule = count_up)
      : contract_(std::move(contract)),
        rule_(std::move(rule)),
        logits_(static_cast<size_t>(contract_.vocab_size)) {}

  // The last token plus one, modulo 10, plus 2: never the end token.
  static int64_t count_up(const std::vector<int64_t>& cache) {
    return (cache.back() + 1 + 8) % 10 + 2;
  }

  const Contract& contract() const override { return contract_; }

  TensorView decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) override {
    return decode(std::vector<int64_t>(ids, ids + num_tokens), position);
  }

  TensorView decode_embeddings(const TensorView& embeddings, int64_t position) override {
    last_embeddings = embeddings.data;
    return decode(std::vector<int64_t>(static_cast<size_t>(embeddings.shape[0]), -1), position);
  }

  TensorView encode_image(const TensorView& image) override {
    return encode("vision_encoder", image, num_image_rows);
  }
  TensorView encode_audio(const TensorView& audio) override {
    return encode("audio_encoder", audio, std::nullopt);
  }

  void reset_state() override { cache.clear(); }

  struct Saved final : StateSnapshot {
    std::vector<int64_t> cache;
    size_t size_bytes() const override { return cache.size() * sizeof(int64_t); }
  };
  std::unique_ptr<StateSnapshot> save_state() const override {
    auto saved = std::make_unique<Saved>();
    saved->cache = cache;
    return saved;
  }
  void restore_state(const StateSnapshot& snapshot) override {
    cache = dynamic_cast<const Saved&>(snapshot).cache;
  }

  int64_t copied_input_bytes() const override { return 0; }
  int64_t num_threads() const override { return 1; }

  // Seen and steered by tests.
  std::vector<int64_t> cache;       // what a flat KV cache would hold below the position
  std::vector<int64_t> call_sizes;  // positions of each decoder call
  std::vector<const void*> encoder_inputs;
  const void* last_embeddings = nullptr;
  std::optional<int64_t> num_image_rows;  // rows a picture really gives, if other than declared
  int64_t fail_at_call = -1;              // this decoder call throws instead
  std::function<void()> before_call;      // runs at the start of each decoder call

 private:
  TensorView decode(const std::vector<int64_t>& ids, int64_t position) {
    if (before_call) before_call();
    const int64_t num_tokens = static_cast<int64_t>(ids.size());
    if (num_tokens < 1 || num_tokens > contract_.max_chunk)
      throw std::logic_error("a call of a forbidden size");
    if (position + num_tokens > contract_.capacity)
      throw std::logic_error("a call beyond the cache");
    if (position > static_cast<int64_t>(cache.size()))
      throw std::logic_error("a call that leaves a gap in the cache");
    if (static_cast<int64_t>(call_sizes.size()) == fail_at_call) {
      fail_at_call = -1;
      throw Error(ErrorCode::kExecution, "text_decoder: told to fail");
    }
    call_sizes.push_back(num_tokens);
    cache.resize(static_cast<size_t>(position));
    cache.insert(cache.end(), ids.begin(), ids.end());
    logits_.assign(logits_.size(), 0.0f);
    logits_[static_cast<size_t>(rule_(cache))] = 10.0f;
    return {logits_.data(), DType::kFloat32, {contract_.vocab_size}};
  }

  TensorView encode(const std::string& method, const TensorView& input,
                    std::optional<int64_t> num_rows) {
    encoder_inputs.push_back(input.data);
    const Shape& declared = contract_.methods.at(method).outputs[0].shape;
    const int64_t rows = num_rows.value_or(declared[1]);
    rows_.assign(static_cast<size_t>(rows * declared[2]), 0.5f);
    return {rows_.data(), DType::kFloat32, {rows, declared[2]}};
  }

  Contract contract_;
  Rule rule_;
  std::vector<float> logits_;
  std::vector<float> rows_;
};

}  // namespace emm::testing
