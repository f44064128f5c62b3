// An Executor without a model: logits follow a rule over the tokens it has been fed, so that
// planning, prefill, generation and error paths are tested without a .pte. It keeps its own picture
// of the cache and fails loudly when a session's positions do not fit it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
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

// A speech contract: clips (8, 10), which take no positions.
inline Contract fake_speech_contract() {
  Contract contract = fake_contract();
  contract.kind = ModelKind::kSpeech;
  contract.hidden_size = 0;
  const TensorSpec encoder_output{DType::kFloat32, {1, 5, 2}};
  const TensorSpec ids{DType::kInt64, {1, contract.max_chunk}};
  contract.methods = {
      {"encoder",
       {"encoder", {{DType::kFloat32, {1, 8, 10}}}, {encoder_output, encoder_output}, {}, {}}},
      {"text_decoder",
       {"text_decoder",
        {ids, encoder_output, encoder_output, {DType::kInt64, {1}}},
        {{DType::kFloat32, {1, 16}}},
        {},
        {}}}};
  return contract;
}

// A text-to-text contract: sources of up to 12 tokens, which take no positions.
inline Contract fake_seq2seq_contract() {
  Contract contract = fake_speech_contract();
  contract.kind = ModelKind::kSeq2Seq;
  contract.methods.at("encoder").inputs = {{DType::kInt64, {1, 12}, false, true}};
  return contract;
}

// What a decoder remembers, in each of the ways that contract().cache may name.
struct Memory {
  std::vector<int64_t> cache;                           // flat: what was read below the position
  std::map<int64_t, std::pair<int64_t, int64_t>> ring;  // row: position and id
  int64_t summary = 0;                                  // recurrent
};

// A rule that never says the same after the same: no guess is right for long.
inline int64_t without_repeats(const std::vector<int64_t>& cache) {
  uint64_t known = cache.size() * 0x9E3779B97F4A7C15ull;  // SplitMix64
  known = (known ^ (known >> 30)) * 0xBF58476D1CE4E5B9ull;
  known = (known ^ (known >> 27)) * 0x94D049BB133111EBull;
  known ^= known >> 31;
  return static_cast<int64_t>(known % 14) + 2;
}

class FakeExecutor : public Executor, public Memory {
 public:
  // What the next token is, given everything in the cache (-1 for rows that are no tokens).
  using Rule = std::function<int64_t(const std::vector<int64_t>&)>;

  explicit FakeExecutor(Contract contract, Rule rule = count_up)
      : contract_(std::move(contract)),
        rule_(std::move(rule)),
        model_(std::make_shared<Model>()),
        logits_(static_cast<size_t>(contract_.vocab_size)) {
    model_->lent_logits = logits_;
  }

  // The last token plus one, modulo 10, plus 2: never the end token.
  static int64_t count_up(const std::vector<int64_t>& cache) {
    return (cache.back() + 1 + 8) % 10 + 2;
  }

  const Contract& contract() const override { return contract_; }
  void use_method(const std::string&, int64_t) override {}

  TensorView decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) override {
    return decode(std::vector<int64_t>(ids, ids + num_tokens), position);
  }

  TensorView decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position, int64_t num_rows,
                         bool /*is_alone*/) override {
    if (!contract_.all_logits) throw std::logic_error("logits that the model does not give");
    TensorView rows = decode(std::vector<int64_t>(ids, ids + num_tokens), position, num_rows);
    rows.shape = {num_rows, contract_.vocab_size};
    return rows;
  }

  bool goes_with(const Executor& other) const override {
    const auto* const theirs = dynamic_cast<const FakeExecutor*>(&other);
    return contract_.max_batch_tokens > 1 && theirs != nullptr && theirs->model_ == model_;
  }

  // As a call of each, but that any of them may spoil it for all.
  std::vector<TensorView> decode_batch(const std::vector<BatchPart>& parts) override {
    std::vector<FakeExecutor*> members;
    int64_t num_tokens = 0;
    for (const BatchPart& part : parts) {
      members.push_back(dynamic_cast<FakeExecutor*>(part.conversation));
      if (members.back() == nullptr || !goes_with(*members.back()))
        throw std::logic_error("a batch of several models");
      num_tokens += part.num_tokens;
    }
    if (num_tokens > contract_.max_batch_tokens)
      throw std::logic_error("a batch that is too large");
    model_->batch_sizes.push_back(static_cast<int64_t>(parts.size()));
    for (const FakeExecutor* member : members) {
      if (member->spoils_batches) throw Error(ErrorCode::kExecution, "text_decoder: told to fail");
    }
    std::vector<TensorView> rows;
    for (size_t i = 0; i < parts.size(); ++i) {
      const BatchPart& part = parts[i];
      const TensorView row = members[i]->decode_tokens(part.ids, part.num_tokens, part.position);
      members[i]->logits_.assign(static_cast<const float*>(row.data),
                                 static_cast<const float*>(row.data) + row.size());
      rows.push_back({members[i]->logits_.data(), row.dtype, row.shape});
    }
    return rows;
  }
  // Conversations in each call that several shared; for who has a turn, or when all is over.
  const std::vector<int64_t>& batch_sizes() const { return model_->batch_sizes; }

  TensorView decode_embeddings(const TensorView& embeddings, int64_t position,
                               int64_t placeholder_id) override {
    placeholder_ids.push_back(placeholder_id);
    last_embeddings = embeddings.data;
    return decode(std::vector<int64_t>(static_cast<size_t>(embeddings.shape[0]), -1), position);
  }

  TensorView encode_image(const MediaView& image) override {
    return encode("vision_encoder", image.values, num_image_rows);
  }
  TensorView encode_audio(const MediaView& audio) override {
    if (contract_.is_encoder_decoder()) {
      encoder_inputs.push_back(audio.values.data);
      return {nullptr, DType::kFloat32, {0, 0}};
    }
    return encode("audio_encoder", audio.values, std::nullopt);
  }

  void reset_state() override { *static_cast<Memory*>(this) = {}; }

  struct Saved final : StateSnapshot {
    Memory memory;
    int64_t num_flat_rows = 0;
    // Of the flat cache alone, on which most tests look.
    size_t size_bytes() const override { return memory.cache.size() * sizeof(int64_t); }
    // Rows, then the ring's rows with position and token, then the summary.
    std::vector<ByteSpan> spans() const override {
      const auto span = [](const std::vector<int64_t>& values) {
        return ByteSpan{reinterpret_cast<const uint8_t*>(values.data()),
                        values.size() * sizeof(int64_t)};
      };
      rest = {memory.summary};
      for (const auto& [row, held] : memory.ring)
        rest.insert(rest.end(), {row, held.first, held.second});
      ByteSpan rows = span(memory.cache);
      rows.size = static_cast<size_t>(num_flat_rows) * sizeof(int64_t);
      return {rows, span(rest)};
    }
    mutable std::vector<int64_t> rest;
  };
  std::unique_ptr<StateSnapshot> save_state(int64_t num_flat_rows) const override {
    auto saved = std::make_unique<Saved>();
    saved->memory = *this;
    saved->num_flat_rows = num_flat_rows;
    ++num_saved;
    return saved;
  }
  void restore_state(const StateSnapshot& snapshot) override {
    const auto& saved = dynamic_cast<const Saved&>(snapshot);
    ring = saved.memory.ring;
    summary = saved.memory.summary;
    const auto* rows = saved.memory.cache.data();
    if (saved.num_flat_rows > 0) cache.assign(rows, rows + saved.num_flat_rows);
  }

  void load_state(int64_t num_flat_rows, ByteSpan bytes) override {
    std::vector<int64_t> values(bytes.size / sizeof(int64_t));
    std::memcpy(values.data(), bytes.data, values.size() * sizeof(int64_t));
    const size_t rows = static_cast<size_t>(num_flat_rows);
    if (values.size() < rows + 1 || (values.size() - rows) % 3 != 1)
      throw Error(ErrorCode::kInput, "state: of another size");
    cache.assign(values.data(), values.data() + rows);
    summary = values[rows];
    ring.clear();
    for (size_t i = rows + 1; i < values.size(); i += 3)
      ring[values[i]] = {values[i + 1], values[i + 2]};
  }

  int64_t copied_input_bytes() const override { return 0; }
  int64_t num_threads() const override { return 1; }

  std::unique_ptr<Executor> another() override { return sibling(); }
  std::unique_ptr<Executor> fork(int64_t num_flat_rows) override {
    auto child = sibling();
    *static_cast<Memory*>(child.get()) = *this;
    child->cache.resize(
        static_cast<size_t>(std::min<int64_t>(num_flat_rows, static_cast<int64_t>(cache.size()))));
    return child;
  }
  void go_on_from(Executor& other, int64_t num_flat_rows, int64_t /*num_used*/) override {
    auto& theirs = dynamic_cast<FakeExecutor&>(other);
    if (theirs.model_ != model_) throw Error(ErrorCode::kInput, "expected the same model");
    *static_cast<Memory*>(this) = theirs;
    cache.resize(static_cast<size_t>(num_flat_rows));
  }
  TurnQueue* turns() override { return &model_->turns; }

  // Seen and steered by tests.
  std::vector<int64_t> call_sizes;  // positions of each decoder call
  std::vector<const void*> encoder_inputs;
  const void* last_embeddings = nullptr;
  std::vector<int64_t> placeholder_ids;   // of each call with embeddings
  std::optional<int64_t> num_image_rows;  // rows an image really gives, if other than declared
  int64_t fail_at_call = -1;              // this decoder call throws instead
  bool spoils_batches = false;            // every call throws that others share
  std::function<void()> before_call;      // runs at the start of each decoder call
  mutable int64_t num_saved = 0;          // snapshots made

 private:
  // What siblings have in common.
  struct Model {
    TurnQueue turns;
    std::atomic<int> num_calling{0};
    bool is_shared = false;
    std::vector<int64_t> batch_sizes;
    std::vector<float> lent_logits;  // as a method's own output: of the last call, anybody's
  };

  std::unique_ptr<FakeExecutor> sibling() {
    model_->is_shared = true;
    auto made = std::make_unique<FakeExecutor>(contract_, rule_);
    made->model_ = model_;
    made->before_call = before_call;
    return made;
  }

  TensorView decode(const std::vector<int64_t>& ids, int64_t position, int64_t num_rows = 1) {
    if (model_->num_calling++ != 0) throw std::logic_error("a call without a turn");
    const std::shared_ptr<void> until_return(nullptr, [this](void*) { --model_->num_calling; });
    if (before_call) before_call();
    const int64_t num_tokens = static_cast<int64_t>(ids.size());
    if (num_tokens < 1 || num_tokens > contract_.max_chunk)
      throw std::logic_error("a call of a forbidden size");
    if (!contract_.cache.is_unbounded && position + num_tokens > contract_.capacity)
      throw std::logic_error("a call beyond the cache");
    if (position > static_cast<int64_t>(cache.size()))
      throw std::logic_error("a call that leaves a gap in the cache");
    if (static_cast<int64_t>(call_sizes.size()) == fail_at_call) {
      fail_at_call = -1;
      remember({ids.begin(), ids.begin() + (num_tokens + 1) / 2}, position);
      throw Error(ErrorCode::kExecution, "text_decoder: told to fail");
    }
    call_sizes.push_back(num_tokens);
    remember(ids, position);
    std::vector<float>& logits = model_->lent_logits;
    logits.assign(static_cast<size_t>(num_rows * contract_.vocab_size), 0.0f);
    for (int64_t row = 0; row < num_rows; ++row) {
      const int64_t token = next_token(position + num_tokens - num_rows + row + 1);
      logits[static_cast<size_t>(row * contract_.vocab_size + token)] = 10.0f;
    }
    if (model_->is_shared) logits_ = logits;
    return {model_->is_shared ? logits_.data() : logits.data(),
            DType::kFloat32,
            {contract_.vocab_size}};
  }

  void remember(const std::vector<int64_t>& ids, int64_t position) {
    cache.resize(static_cast<size_t>(position));
    cache.insert(cache.end(), ids.begin(), ids.end());
    for (const int64_t id : ids) {
      summary = (summary * 31 + id + 7) % 1009;
      if (contract_.cache.ring_rows > 0)
        ring[position % contract_.cache.ring_rows] = {position, id};
      ++position;
    }
  }

  // By the rule from a flat cache. Else from what a ring or a recurrence still knows, so that a
  // state that is not the one of its position gives another answer.
  int64_t next_token(int64_t end) const {
    int64_t known = contract_.cache.is_recurrent ? summary : 0;
    if (contract_.cache.ring_rows > 0) {
      for (int64_t p = std::max<int64_t>(0, end - contract_.cache.ring_window); p < end; ++p) {
        const auto& [position, id] = ring.at(p % contract_.cache.ring_rows);
        known = (known * 31 + (position == p ? id : 500) + 7) % 1009;
      }
    } else if (!contract_.cache.is_recurrent) {
      return rule_({cache.begin(), cache.begin() + end});
    }
    return known % 10 + 2;
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
  std::shared_ptr<Model> model_;
  std::vector<float> logits_;
  std::vector<float> rows_;
};

}  // namespace emm::testing
