#include "runtime/session.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/exclusive.h"
#include "sampling/logits_row.h"

namespace emm {

Session::Session(std::unique_ptr<Executor> executor)
    : executor_(std::move(executor)),
      position_(executor_->contract().capacity, executor_->contract().cache),
      checkpoint_{position_, 0, {}, false, nullptr} {}

Session::Session(std::unique_ptr<Executor> executor, const Session& other)
    : Session(std::move(executor)) {
  priority_ = other.priority_.load();
  chunk_limit_ = other.chunk_limit_;
  weights_ = other.weights_;
  encoder_cache_ = other.encoder_cache_;
  costs_ = other.costs_;
}

void Session::limit_chunks(int64_t num_positions) {
  const auto lock = enter();
  chunk_limit_ = std::max<int64_t>(1, num_positions);
}

// Without a KV cache each chunk reads all that came before it again.
int64_t Session::chunk_limit() const {
  const bool has_cache = contract().position_style != PositionStyle::kNone;
  return has_cache ? chunk_limit_ : std::numeric_limits<int64_t>::max();
}

int64_t Session::max_chunk() const { return std::min(contract().max_chunk, chunk_limit()); }

std::unique_lock<std::mutex> Session::enter() const {
  return lock_or_refuse(mutex_, "the session");
}

void Session::expect_idle() const {
  if (is_prefilling())
    throw Error(ErrorCode::kBusy, "a prompt is being read: finish or abort it first");
}

void Session::expect_intact() const {
  if (position_.is_intact()) return;
  throw Error(ErrorCode::kExecution,
              "the model's state was lost when a call failed: reset() or restore() a snapshot");
}

int64_t Session::position() const {
  const std::lock_guard books(books_);
  return position_.used();
}

std::vector<int64_t> Session::pending_tokens() const {
  const std::lock_guard books(books_);
  return pending_tokens_;
}

std::vector<int64_t> Session::history() const {
  const std::lock_guard books(books_);
  return history_;
}

std::optional<Chunk::Kind> Session::next_chunk() const {
  if (chunks_.empty()) return std::nullopt;
  return chunks_.front().kind;
}

// The cache holds these tokens now, or as many rows of media where there are no ids.
void Session::advance(const int64_t* ids, int64_t num_positions) {
  const std::lock_guard books(books_);
  if (position_.used() == 0) {
    reader_ = {contract().decoder_name, weights_, false};
  } else if (!is_read_by_this()) {
    reader_.is_mixed = true;
  }
  position_.advance(num_positions);
  if (ids != nullptr)
    history_.insert(history_.end(), ids, ids + num_positions);
  else
    history_.resize(history_.size() + static_cast<size_t>(num_positions), kMediaPosition);
}

// With the books locked. Of media that end behind it nothing is known any more.
void Session::cut_history(size_t size) {
  history_.resize(size);
  while (!media_.empty() &&
         media_.back().position + media_.back().num_rows > static_cast<int64_t>(size))
    media_.pop_back();
}

void Session::clear_pending() {
  const std::lock_guard books(books_);
  pending_tokens_.clear();
}

void Session::cancel() {
  *is_cancelled_ = true;
  if (TurnQueue* const turns = executor_->turns()) turns->look();
}

void Session::begin_request() {
  const auto lock = enter();
  *is_cancelled_ = false;
  timings_ = {};
  timings_.start_ns = now_ns();
}

void Session::begin_answer() {
  const auto lock = enter();
  timings_.first_token_ns = timings_.decode_ns = timings_.sample_ns = 0;
  timings_.num_decode_steps = timings_.num_shared_steps = 0;
  timings_.num_generated_tokens = timings_.num_forced_tokens = 0;
  timings_.num_drafted_tokens = timings_.num_accepted_tokens = 0;
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
  const bool is_short = has_media || position + chunk.num_rows < chunk_limit();
  if (chunks_.empty() || !is_short) return false;
  const bool is_tokens = chunk.kind == Chunk::Kind::kTokens;
  const int64_t* const ids =
      is_tokens ? std::get<TokenInput>(prompt_[chunk.input]).ids.data() + chunk.first_row : nullptr;
  const bool is_put_off = is_tokens
                              ? executor_->put_off_tokens(ids, chunk.num_rows, position, has_media)
                              : executor_->put_off_embeddings(embeddings_of(chunk), position);
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

TensorView Session::decode_ids(const int64_t* ids, int64_t num_tokens, int64_t num_guesses,
                               Step* own, bool is_alone) {
  ahead_.clear();
  expect_intact();
  position_.begin_write(num_tokens + num_guesses);
  int64_t num_read = num_tokens + num_guesses;
  int64_t position = position_.used();
  std::vector<int64_t> all;
  const int64_t* read = ids;
  if (contract().position_style == PositionStyle::kNone) {
    // Without a KV cache the model reads the whole conversation again.
    all = history_;
    all.insert(all.end(), ids, ids + num_read);
    read = all.data();
    num_read = static_cast<int64_t>(all.size());
    position = 0;
  }
  const TensorView logits =
      num_guesses == 0
          ? decode_in_company({executor_.get(), read, num_read, position}, own)
          : executor_->decode_rows(read, num_read, position, num_guesses + 1, is_alone);
  advance(ids, num_tokens);
  return logits;
}

void Session::keep_logits(const TensorView& logits) {
  logits_ = {as_float32(logits, own_logits_), DType::kFloat32, logits.shape};
  has_logits_ = true;
}

void Session::own_logits() {
  const auto* values = static_cast<const float*>(logits_.data);
  if (values == own_logits_.data()) return;
  own_logits_.assign(values, values + logits_.size());
  logits_.data = own_logits_.data();
}

// What the executor has lent will be anybody's.
void Session::own_outputs() {
  if (has_logits_) own_logits();
  ahead_.clear();
}

std::vector<float> Session::logprobs(const std::vector<int64_t>& ids) const {
  const auto lock = enter();
  expect_idle();
  if (!has_logits_ || !pending_tokens_.empty())
    throw Error(ErrorCode::kInput, "logprobs: expected a prompt that was read just before");
  const auto* logits = static_cast<const float*>(logits_.data);
  const double total = log_sum_exp(logits, logits_.size());
  std::vector<float> found;
  for (const int64_t id : ids) {
    check_token_id("logprobs", id, logits_.size());
    found.push_back(static_cast<float>(static_cast<double>(logits[id]) - total));
  }
  return found;
}

std::vector<ReadToken> Session::read_scored(const std::vector<int64_t>& ids, int64_t deadline_ns) {
  const auto lock = enter();
  expect_idle();
  for (const int64_t id : ids) check_token_id("ids", id, contract().vocab_size);
  const auto num_given = static_cast<int64_t>(ids.size());
  check_capacity(static_cast<int64_t>(pending_tokens_.size()) + num_given, position_.available(),
                 contract().capacity);
  if (num_given == 0 || !read_pending(deadline_ns)) return {};
  const int64_t num_read = contract().all_logits ? std::min(num_given, max_chunk()) : 1;
  std::vector<ReadToken> scores(1);
  if (has_logits_) scores[0] = score(static_cast<const float*>(logits_.data), ids[0]);

  const Turn turn = await_turn(deadline_ns);
  if (!turn.has_come()) return {};
  const ScopedTimer timer(timings_.prefill_ns);
  if (num_read == 1) {
    keep_logits(decode_ids(ids.data(), 1));
  } else {
    const TensorView rows = decode_ids(ids.data(), 1, num_read - 1);
    std::vector<float> converted;
    for (int64_t row = 0; row + 1 < num_read; ++row)
      scores.push_back(
          score(as_float32(row_range(rows, row, 1), converted), ids[static_cast<size_t>(row) + 1]));
    advance(ids.data() + 1, num_read - 1);
    TensorView last = row_range(rows, num_read - 1, 1);
    last.shape = {last.shape[1]};
    keep_logits(last);
  }
  timings_.num_prompt_positions += num_read;
  return scores;
}

ReadToken Session::score(const float* logits, int64_t id) const {
  const int64_t size = contract().vocab_size;
  const double total = log_sum_exp(logits, size);
  const int32_t likeliest = argmax(logits, size);
  return {static_cast<float>(static_cast<double>(logits[id]) - total),
          likeliest >= 0 && logits[id] >= logits[likeliest]};
}

std::vector<float> Session::alignment() const {
  const auto lock = enter();
  const TensorView view = executor_->alignment();
  if (view.data == nullptr)
    throw Error(ErrorCode::kInput, "alignment: the model does not tell what it looks at");
  std::vector<float> converted;
  const float* values = as_float32(view, converted);
  return {values, values + view.size()};
}

void Session::expect_prompt() const {
  if (can_generate()) return;
  throw Error(ErrorCode::kInput, "prompt: expected at least one token, image or clip, got none");
}

// Those of the pending tokens that were guessed have been read.
void Session::take_guessed() {
  size_t count = 0;
  while (count < pending_tokens_.size() && ahead_.is_next(pending_tokens_[count])) {
    keep_logits(ahead_.take());
    ++count;
  }
  if (count == 0) return;
  timings_.num_accepted_tokens += static_cast<int64_t>(count);
  advance(pending_tokens_.data(), static_cast<int64_t>(count));
  const std::lock_guard books(books_);
  pending_tokens_.erase(pending_tokens_.begin(),
                        pending_tokens_.begin() + static_cast<std::ptrdiff_t>(count));
}

// So many may be read and forgotten again.
int64_t Session::room_for_guesses() const {
  const auto num_pending = static_cast<int64_t>(pending_tokens_.size());
  int64_t room = std::min(contract().max_chunk, position_.available()) - num_pending;
  while (room > 0 && !position_.stays_open(num_pending + room)) --room;
  return contract().all_logits ? std::max<int64_t>(room, 0) : 0;
}

// False where it was cancelled before its turn or the deadline came first.
bool Session::read_pending(int64_t deadline_ns, const std::vector<int64_t>& guesses) {
  take_guessed();
  const auto num_tokens = static_cast<int64_t>(pending_tokens_.size());
  if (num_tokens == 0) return true;
  check_capacity(num_tokens, position_.available(), contract().capacity);
  // Several that are pending are read in one call without guesses, and so are they with them.
  const int64_t num_guesses =
      guesses.empty() || num_tokens > 1
          ? 0
          : std::min<int64_t>(static_cast<int64_t>(guesses.size()), room_for_guesses());
  if (num_guesses == 0) {
    if (!read_in_company(deadline_ns)) return false;
  } else {
    const Turn turn = await_turn(deadline_ns);
    if (!turn.has_come()) return false;
    const ScopedTimer timer(timings_.decode_ns);
    const std::vector<int64_t> guessed(guesses.begin(), guesses.begin() + num_guesses);
    std::vector<int64_t> ids = pending_tokens_;
    ids.insert(ids.end(), guessed.begin(), guessed.end());
    // Without a cache a call of one token reads all others, too.
    const bool is_alone = contract().position_style != PositionStyle::kNone;
    const TensorView rows = decode_ids(ids.data(), num_tokens, num_guesses, nullptr, is_alone);
    ahead_.keep(guessed, row_range(rows, 1, num_guesses));
    TensorView first = row_range(rows, 0, 1);
    first.shape = {first.shape[1]};
    keep_logits(first);
  }
  clear_pending();
  ++timings_.num_decode_steps;
  timings_.num_drafted_tokens += num_guesses;
  return true;
}

bool Session::needs_call() const {
  const std::lock_guard books(books_);
  return pending_tokens_.size() > 1 ||
         (pending_tokens_.size() == 1 && !ahead_.is_next(pending_tokens_[0]));
}

void Session::add_pending(int32_t token) {
  if (timings_.num_generated_tokens++ == 0) timings_.first_token_ns = now_ns() - timings_.start_ns;
  const std::lock_guard books(books_);
  pending_tokens_.push_back(token);
}

bool Session::append(int32_t token, int64_t deadline_ns) {
  const auto lock = enter();
  expect_idle();
  expect_prompt();
  const bool is_enough = static_cast<int64_t>(pending_tokens_.size()) >= max_chunk();
  if (is_enough && !read_pending(deadline_ns)) return false;
  ++timings_.num_forced_tokens;
  add_pending(token);
  return true;
}

std::optional<int32_t> Session::step(Sampler& sampler, const SampleHooks& hooks,
                                     const std::vector<int64_t>& guesses, int64_t deadline_ns) {
  const auto lock = enter();
  expect_idle();
  expect_prompt();
  if (!read_pending(deadline_ns, guesses)) return std::nullopt;
  int32_t token = 0;
  {
    const ScopedTimer timer(timings_.sample_ns);
    token =
        sampler.sample(static_cast<const float*>(logits_.data), logits_.size(), history_, hooks);
  }
  add_pending(token);
  return token;
}

std::optional<double> Session::rank(Sampler& sampler, int64_t num_tokens, int64_t deadline_ns) {
  const auto lock = enter();
  expect_idle();
  expect_prompt();
  if (!read_pending(deadline_ns)) return std::nullopt;
  const ScopedTimer timer(timings_.sample_ns);
  return sampler.rank(static_cast<const float*>(logits_.data), logits_.size(), history_,
                      static_cast<size_t>(std::max<int64_t>(num_tokens, 0)));
}

void Session::reset() {
  const auto lock = enter();
  chunks_.clear();
  prompt_.clear();
  checkpoint_.state.reset();
  {
    const Turn turn(executor_->turns(), kBeforeOthers);  // for a moment
    executor_->reset_state();
  }
  ahead_.clear();
  has_logits_ = false;
  const std::lock_guard books(books_);
  position_.reset();
  cut_history(0);
  pending_tokens_.clear();
}

void Session::rewind(int64_t position) {
  const auto lock = enter();
  expect_idle();
  const int64_t lowest = position_.lowest_rewind();
  if (position < 0 || position > position_.used() || (position > 0 && position < lowest)) {
    std::string expected = lowest == 0 ? "" : "0";
    if (lowest <= position_.used()) {
      expected += (lowest == 0 ? "a position in " : " or a position in ") + std::to_string(lowest) +
                  ".." + std::to_string(position_.used());
    }
    if (lowest > 0) expected += " (the model keeps no other state; save() does)";
    throw Error(ErrorCode::kInput,
                "rewind: expected " + expected + ", got " + std::to_string(position));
  }
  if (position == 0) {
    const Turn turn = take_turn();
    executor_->reset_state();
  }
  ahead_.clear();
  has_logits_ = false;
  const std::lock_guard books(books_);
  if (position == 0)
    position_.reset();
  else
    position_.rewind(position);
  cut_history(static_cast<size_t>(position));
  pending_tokens_.clear();
}

void Session::use_method(const std::string& name) {
  const auto lock = enter();
  expect_idle();
  {
    const Turn turn = take_turn();
    executor_->use_method(name, position_.used());
  }
  ahead_.clear();
  has_logits_ = false;  // they are the other's
  const std::lock_guard books(books_);
  position_ = position_.under(contract().capacity, contract().cache);
}

void Session::load_adapter(const std::string& name, const AdapterFiles& files) {
  const auto lock = enter();
  expect_idle();
  {
    const Turn turn = take_turn();
    executor_->load_adapter(name, files);
  }
}

void Session::use_adapter(const std::string& name) {
  const auto lock = enter();
  expect_idle();
  expect_intact();
  {
    const Turn turn = take_turn();
    executor_->use_adapter(name, position_.used());
    const std::lock_guard books(books_);
    weights_ = executor_->weights_number(name);
  }
  ahead_.clear();
  has_logits_ = false;  // they are the other's
}

void Session::drop_adapter(const std::string& name) {
  const auto lock = enter();
  expect_idle();
  {
    const Turn turn = take_turn();
    executor_->drop_adapter(name);
  }
}

std::shared_ptr<const Session::Snapshot> Session::save() const {
  const auto lock = enter();
  expect_idle();
  expect_intact();
  auto snapshot =
      std::make_shared<Snapshot>(Snapshot{nullptr, position_, history_, {}, {}, false, {}, {}});
  {
    const Turn turn = take_turn();
    snapshot->state = executor_->save_state(position_.used());
  }
  snapshot->pending_tokens = pending_tokens_;
  snapshot->media = media_;
  snapshot->reader = reader_;
  snapshot->has_logits = has_logits_;
  if (has_logits_) {
    const auto* values = static_cast<const float*>(logits_.data);
    snapshot->logits.assign(values, values + logits_.size());
  }
  return snapshot;
}

void Session::restore(const Snapshot& snapshot) {
  const auto lock = enter();
  expect_idle();
  {
    const Turn turn = take_turn();
    executor_->restore_state(*snapshot.state);
  }
  ahead_.clear();
  {
    const std::lock_guard books(books_);
    position_ = snapshot.position.under(contract().capacity, contract().cache);
    history_ = snapshot.history;
    media_ = snapshot.media;
    reader_ = snapshot.reader;
    pending_tokens_ = snapshot.pending_tokens;
  }
  has_logits_ = snapshot.has_logits;
  own_logits_ = snapshot.logits;
  logits_ = {own_logits_.data(), DType::kFloat32, {static_cast<int64_t>(own_logits_.size())}};
}

void Session::load(const SavedConversation& saved) {
  const auto lock = enter();
  expect_idle();
  const KvPosition position = check_saved(saved, contract());
  std::vector<int64_t> history = saved.history;
  std::vector<int64_t> pending = saved.pending_tokens;
  std::vector<float> logits;
  if (saved.logits != nullptr) logits.assign(saved.logits, saved.logits + contract().vocab_size);
  {
    const Turn turn = take_turn();
    executor_->load_state(saved.position, {saved.state, saved.state_bytes});
  }
  ahead_.clear();
  has_logits_ = saved.logits != nullptr;
  own_logits_ = std::move(logits);
  logits_ = {own_logits_.data(), DType::kFloat32, {static_cast<int64_t>(own_logits_.size())}};
  const std::lock_guard books(books_);
  position_ = position;
  history_ = std::move(history);
  media_.clear();
  reader_.is_mixed = true;  // by whatever a file may hold
  pending_tokens_ = std::move(pending);
}

void Session::write_profile() {
  const auto lock = enter();
  const Turn turn = take_turn();
  executor_->write_profile();
}

}  // namespace emm
