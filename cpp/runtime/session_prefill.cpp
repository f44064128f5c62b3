// How a session reads a prompt: planned as a whole, read chunk by chunk, and taken back where that
// fails or is given up.
#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "runtime/session.h"

namespace emm {

std::optional<Chunk::Kind> Session::next_chunk() const {
  if (chunks_.empty()) return std::nullopt;
  return chunks_.front().kind;
}

InputPlan Session::plan_behind_pending(std::vector<Input>& inputs, int64_t available) const {
  if (!pending_tokens_.empty()) inputs.insert(inputs.begin(), TokenInput{pending_tokens_});
  return make_input_plan(inputs, contract(), available, chunk_limit());
}

std::optional<int64_t> Session::count_positions(std::vector<Input> inputs) const {
  const auto lock = enter();
  const InputPlan plan = plan_behind_pending(inputs, std::numeric_limits<int64_t>::max());
  if (!plan.is_exact) return std::nullopt;
  return plan.num_positions;
}

void Session::begin_prefill(std::vector<Input> inputs) {
  const auto lock = enter();
  expect_idle();
  expect_intact();
  const InputPlan plan = plan_behind_pending(inputs, position_.available());
  ahead_.clear();

  // An aborted prompt leaves the logits of before.
  if (has_logits_ && pending_tokens_.empty()) own_logits();
  const bool stays_open =
      position_.stays_open(plan.is_exact ? plan.num_positions : contract().capacity);
  checkpoint_ = {position_, history_.size(), pending_tokens_, !stays_open, nullptr};
  clear_pending();
  prompt_ = std::move(inputs);
  chunks_.assign(plan.chunks.begin(), plan.chunks.end());
  prefill_total_ = plan.num_positions;
}

bool Session::step_prefill(int64_t deadline_ns) {
  const auto lock = enter();
  if (!is_prefilling()) return false;
  try {
    const Turn turn = await_turn(deadline_ns);
    if (!turn.has_come()) return true;
    if (checkpoint_.needs_state && checkpoint_.state == nullptr)
      checkpoint_.state = executor_->save_state(0);
    const Chunk chunk = chunks_.front();
    chunks_.pop_front();
    run_chunk(chunk);
  } catch (...) {
    back_to_checkpoint();
    throw;
  }
  if (is_prefilling()) return true;
  timings_.num_prompt_positions += prefill_done();
  checkpoint_.state.reset();
  timings_.prompt_read_ns = now_ns() - timings_.start_ns;
  prompt_.clear();
  return false;
}

void Session::abort_prefill() {
  const auto lock = enter();
  if (is_prefilling()) back_to_checkpoint();
}

void Session::back_to_checkpoint() {
  const bool has_state = checkpoint_.state != nullptr;
  std::optional<Turn> turn;
  if (has_state) {
    turn.emplace(executor_->turns(), kBeforeOthers);  // the request is over
    executor_->restore_state(*checkpoint_.state);
  }
  checkpoint_.state.reset();
  chunks_.clear();
  prompt_
      .clear();  // its owners may wait for a lock of their own, and so not under that of the books
  const std::lock_guard books(books_);
  if (has_state) {
    position_ = checkpoint_.position;
  } else {
    position_.rewind(checkpoint_.position.used());
  }
  cut_history(checkpoint_.history_size);
  pending_tokens_ = checkpoint_.pending_tokens;
}

void Session::run_chunk(const Chunk& chunk) {
  if (chunk.kind == Chunk::Kind::kEncodeText) {
    const ScopedTimer timer(timings_.prefill_ns);
    const std::vector<int64_t>& ids = std::get<SourceInput>(prompt_[chunk.input]).ids;
    executor_->encode_audio({{ids.data(), DType::kInt64, {static_cast<int64_t>(ids.size())}}, {}});
    return;
  }
  if (chunk.kind == Chunk::Kind::kEncodeImage || chunk.kind == Chunk::Kind::kEncodeAudio)
    return encode(chunk);
  TensorView logits;
  {
    const ScopedTimer timer(timings_.prefill_ns);
    if (put_off(chunk)) return;
    ++timings_.num_prompt_calls;
    if (chunk.kind == Chunk::Kind::kTokens) {
      logits = decode_ids(std::get<TokenInput>(prompt_[chunk.input]).ids.data() + chunk.first_row,
                          chunk.num_rows);
    } else {
      position_.begin_write(chunk.num_rows);
      logits = executor_->decode_embeddings(embeddings_of(chunk), position_.used(),
                                            placeholder_id(prompt_[chunk.input], contract()));
      advance_media(chunk);
    }
  }
  if (chunks_.empty()) keep_logits(logits);
}

TensorView Session::embeddings_of(const Chunk& chunk) const {
  const auto* given = std::get_if<EmbeddingInput>(&prompt_[chunk.input]);
  return row_range(given != nullptr ? given->rows : encoded_, chunk.first_row, chunk.num_rows);
}

void Session::advance_media(const Chunk& chunk) {
  advance(nullptr, chunk.num_rows);
  const std::lock_guard books(books_);
  if (chunk.first_row == 0)
    media_.push_back({position_.used() - chunk.num_rows, 0, content_of(prompt_[chunk.input])});
  media_.back().num_rows += chunk.num_rows;
}

// Whether what comes next in the prompt reads this along.
bool Session::put_off(const Chunk& chunk) {
  const bool has_media = std::any_of(prompt_.begin(), prompt_.end(), [](const Input& input) {
    return !std::holds_alternative<TokenInput>(input);
  });
  const int64_t position = position_.used();
  const int64_t limit = chunk_limit();
  const bool is_short = has_media || position + chunk.num_rows < limit;
  if (chunks_.empty() || !is_short) return false;
  const bool is_tokens = chunk.kind == Chunk::Kind::kTokens;
  const int64_t* const ids =
      is_tokens ? std::get<TokenInput>(prompt_[chunk.input]).ids.data() + chunk.first_row : nullptr;
  const bool is_put_off =
      is_tokens ? executor_->put_off_tokens(ids, chunk.num_rows, position, has_media, limit)
                : executor_->put_off_embeddings(embeddings_of(chunk), position, limit);
  if (!is_put_off) return false;
  position_.begin_write(chunk.num_rows);
  if (is_tokens) {
    advance(ids, chunk.num_rows);
  } else {
    advance_media(chunk);
  }
  return true;
}

void Session::encode(const Chunk& chunk) {
  const bool is_image = chunk.kind == Chunk::Kind::kEncodeImage;
  {
    const ScopedTimer timer(is_image ? timings_.encode_image_ns : timings_.encode_audio_ns);
    encoded_ = run_encoder(prompt_[chunk.input]);
  }
  const int64_t num_rows = encoded_.shape[0];
  prefill_total_ += num_rows - chunk.num_rows;
  check_capacity(prefill_total_, checkpoint_.position.available(), contract().capacity);
  const std::vector<Chunk> rows =
      split_rows(Chunk::Kind::kEmbeddings, chunk.input, num_rows,
                 std::min(contract().embeddings_at_once(), chunk_limit()));
  chunks_.insert(chunks_.begin(), rows.begin(), rows.end());
  if (chunks_.empty())
    throw Error(ErrorCode::kExecution, "the encoder returned no rows for the last input");
}

TensorView Session::run_encoder(const Input& input) {
  const auto* const image = std::get_if<ImageInput>(&input);
  const MethodSpec* const encoder =
      image != nullptr ? contract().image_encoder() : contract().audio_encoder();
  const std::string& content = content_of(input);
  // A speech model's decoder looks at what its executor keeps.
  const bool is_kept = encoder_cache_ != nullptr && !content.empty() && encoder != nullptr &&
                       contract().kind != ModelKind::kSpeech;
  cached_ = is_kept ? encoder_cache_->find(encoder->name, content) : nullptr;
  if (cached_ != nullptr) {
    ++timings_.num_encoder_hits;
    return cached_->view;
  }
  const int64_t copied_before = executor_->copied_input_bytes();
  TensorView rows;
  if (image != nullptr) {
    rows = executor_->encode_image({image->pixels, image->positions});
  } else {
    const auto& audio = std::get<AudioInput>(input);
    rows = executor_->encode_audio({audio.features, audio.mask});
  }
  timings_.copied_input_bytes += executor_->copied_input_bytes() - copied_before;
  if (is_kept) encoder_cache_->add(encoder->name, content, rows);
  return rows;
}

}  // namespace emm
