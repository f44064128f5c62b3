// One conversation with a model: owns the executor, the position in its KV cache, the history and
// the logits of the last position. Several may share what was loaded (another(), fork()); their
// calls of the model then take turns, one decoder or encoder call each. Everything is pulled: the
// caller asks for one step at a time and decides in between whether to go on. Where the model takes
// tokens of several conversations (Executor::decode_batch), the session that has the turn reads
// what others who wait have pending in its call. Whatever goes wrong,
// position and history match what is in the cache.
//
// A session serves one thread at a time; a second one that comes in between gets Error(kBusy). Any
// thread may cancel(), set the priority and look at position, history and pending tokens meanwhile.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "model/executor.h"
#include "model/kv_position.h"
#include "runtime/call_costs.h"
#include "runtime/content_units.h"
#include "runtime/encoder_cache.h"
#include "runtime/input_plan.h"
#include "runtime/inputs.h"
#include "runtime/read_ahead.h"
#include "runtime/request_timings.h"
#include "runtime/saved_conversation.h"
#include "sampling/sampler.h"

namespace emm {

constexpr int64_t kMediaPosition = -1;  // stands in the history where no token id exists

// How likely a token of a text was.
struct ReadToken {
  float logprob = std::numeric_limits<float>::quiet_NaN();  // ln p; NaN where nothing was before it
  bool is_likeliest = false;                                // no other token was likelier
};

class Session {
 public:
  explicit Session(std::unique_ptr<Executor> executor);
  ~Session() { step_aside(); }

  // A conversation of its own with the same weights, at its beginning; and one that has read what
  // this one has, and goes on independently. Throws Error(kInput) where the model holds one only.
  std::unique_ptr<Session> another();
  // Without logits at hand there, where they are not kept.
  std::unique_ptr<Session> fork(bool keeps_logits = true);
  // Goes on as a fork of another session of the model does, what is pending included; or as one
  // that is taken back to `position`, from where nothing is pending, and logits are at hand where
  // the other stands there. What was read here is forgotten. Throws Error(kInput), and then has
  // changed nothing, where the other's state does not go back there, or is one of another method
  // or other weights.
  void go_on_from(Session& other, std::optional<int64_t> position = std::nullopt);
  // What the conversation keeps in memory, alone or with others; waits for a call under way.
  std::vector<MemoryUse> memory() const;
  // What the context holds (content_units.h); nothing where some of it is not known, or was read by
  // other weights or another method than go on now.
  std::optional<std::string> units() const;
  // The images, clips and embeddings in the context.
  std::vector<MediaSpan> media() const;
  // The lowest position, other than 0, that rewind() takes; more than position() where none is.
  int64_t lowest_rewind() const;
  // Positions that were ever written since the last reset; a rewind gives none of them back.
  int64_t written() const;
  // A number for the decoder's weights in use, of all that were loaded for the model.
  int64_t weights() const { return weights_; }
  int64_t weights_number(const std::string& adapter) const;
  // What encoders make of inputs whose content is known is kept from now on, by all siblings that
  // are made from here on too.
  void keep_encoded(std::shared_ptr<EncoderCache> cache);

  // Of the sessions that wait for the model the one with the lowest goes first.
  void set_priority(int64_t priority) { priority_ = priority; }
  int64_t priority() const { return priority_; }
  // Its steps share no call with another's from now on: what alignment() tells is of a call alone.
  void read_alone(bool is_alone) { reads_alone_ = is_alone; }
  // A call reads at most so many positions of a prompt, so that others wait no longer for theirs.
  void limit_chunks(int64_t num_positions);

  const Contract& contract() const { return executor_->contract(); }
  int64_t position() const;
  int64_t num_threads() const { return executor_->num_threads(); }
  int64_t copied_input_bytes() const { return executor_->copied_input_bytes(); }
  std::vector<int64_t> pending_tokens() const;
  std::vector<int64_t> history() const;
  const RequestTimings& timings() const { return timings_; }
  // Of the model's calls; who makes them says how long they took.
  const std::shared_ptr<CallCosts>& costs() const { return costs_; }

  // Starts the clocks and forgets an earlier request's cancellation.
  void begin_request();
  // Counts and durations of an answer start again; those of the prompt stay.
  void begin_answer();
  // From any thread: the running request ends before its next chunk, encoder call or token, and at
  // once where it waits for its turn.
  void cancel();
  bool is_cancelled() const { return *is_cancelled_; }
  // What cancels `other` cancels this one too; before either is used by several threads.
  void share_cancel(const Session& other) { is_cancelled_ = other.is_cancelled_; }

  // Plans a prompt, preceded by the last turn's final tokens that the model has not read yet.
  // Throws before anything has changed when the prompt is wrong or does not fit.
  void begin_prefill(std::vector<Input> inputs);
  // Of such a prompt, with what is pending; none where an encoder has to run first.
  std::optional<int64_t> count_positions(std::vector<Input> inputs) const;
  // One encoder or decoder call, or none where it was cancelled before its turn or the deadline (of
  // now_ns()) came first. Returns false once the prompt is in the cache. After an exception the
  // session stands where it stood before begin_prefill().
  bool step_prefill(int64_t deadline_ns = kNever);
  // Drops the rest of the prompt and goes back to where begin_prefill() started.
  void abort_prefill();
  bool is_prefilling() const { return !chunks_.empty(); }
  int64_t prefill_done() const { return position_.used() - checkpoint_.position.used(); }
  int64_t prefill_total() const { return prefill_total_; }
  // What the next step_prefill() does; nothing when no prompt is being read.
  std::optional<Chunk::Kind> next_chunk() const;

  // Logits for the next token are at hand: something was prefilled since the last reset.
  bool can_generate() const { return has_logits_ || !pending_tokens_.empty(); }
  // True when the next token cannot be computed because the last ones find no room in the cache.
  bool is_full() const {
    return position_.available() < static_cast<int64_t>(pending_tokens_.size());
  }
  // ln p of each of these tokens coming next, in the model's own distribution. Throws Error(kInput)
  // when nothing was read since the last sampled token.
  std::vector<float> logprobs(const std::vector<int64_t>& ids) const;
  // Reads the first of these tokens, as many as one call of the model takes, and says of each what
  // the model gave it before it was read. What is pending is read first. Throws before anything has
  // changed where there is no room for all of them; gives nothing where it was cancelled before its
  // turn or the deadline came first.
  std::vector<ReadToken> read_scored(const std::vector<int64_t>& ids, int64_t deadline_ns = kNever);
  // How much the last token that was read looks at each frame of the clip, (heads, frames) row by
  // row. Throws Error(kInput) where the model does not tell.
  std::vector<float> alignment() const;
  // Feeds the pending tokens, if any, and samples the next one, which is then pending. Tokens that
  // may come next are fed along as far as there is room: if they come, their logits are there
  // already, and if not, nothing has happened. Where contract().all_logits. Nothing where it was
  // cancelled before its turn or the deadline came first.
  std::optional<int32_t> step(Sampler& sampler, const SampleHooks& hooks = {},
                              const std::vector<int64_t>& guesses = {},
                              int64_t deadline_ns = kNever);
  // Feeds the pending tokens, if any, and ranks what may follow an answer of so many tokens; see
  // Sampler::rank(), whose result it returns. Nothing is pending then. Nothing where it was
  // cancelled before its turn or the deadline came first.
  std::optional<double> rank(Sampler& sampler, int64_t num_tokens, int64_t deadline_ns = kNever);
  // Whether the next step calls the model.
  bool needs_call() const;
  // Steps of others need not wait for the next one of this session: there is none for now.
  void step_aside();
  // The same for several sessions that share a model whose contract has max_batch_tokens > 1: what
  // all of them have pending is read in one call. Returns a token of each. Throws before anything
  // has changed where one is busy or full, or they are no batch (Executor::decode_batch); where the
  // call itself fails, every session stands where it stood.
  static std::vector<int32_t> step_together(const std::vector<Session*>& sessions,
                                            const std::vector<Sampler*>& samplers);
  // Takes `token` for the next one without asking the model, which reads such tokens together: a
  // decoder call is made only when they are as many as one takes.
  // False where it was cancelled before its turn or the deadline came first.
  bool append(int32_t token, int64_t deadline_ns = kNever);

  // Back to the state after loading.
  void reset();
  // Forgets the positions from `position` on, so that the next prompt continues there. Throws
  // Error(kInput) where the model's state cannot go back that far.
  void rewind(int64_t position);

  // Another of the contract's decoders goes on, where it finds what the one before has left: what
  // was read stays as that one read it. Throws Error(kInput), and then has changed nothing.
  void use_method(const std::string& name);

  // Other weights for the decoder; see Executor. What was read stays as the weights before have
  // read it.
  void load_adapter(const std::string& name, const AdapterFiles& files);
  void use_adapter(const std::string& name);
  void drop_adapter(const std::string& name);

  // What has read the context.
  struct Reader {
    std::string decoder;
    int64_t weights = 0;
    bool is_mixed = false;  // others have read a part of it
  };
  struct Snapshot {
    std::unique_ptr<StateSnapshot> state;
    KvPosition position;
    std::vector<int64_t> history;
    std::vector<int64_t> pending_tokens;
    std::vector<float> logits;  // empty where none were at hand
    std::vector<MediaSpan> media;
    Reader reader;
  };
  std::shared_ptr<const Snapshot> save() const;
  void restore(const Snapshot& snapshot);
  // Goes on with a conversation of another process. Throws Error(kInput), and then has changed
  // nothing, when this model cannot have had it.
  void load(const SavedConversation& saved);

  // Ends the profile that was asked for when the model was loaded and writes its file.
  void write_profile();

 private:
  struct Step;  // what is pending, for a call of its own or of another session
  struct Checkpoint {
    KvPosition position;
    size_t history_size = 0;
    std::vector<int64_t> pending_tokens;
    // Of rings and recurrences, where lowering the position might not bring back what was there;
    // taken with the first call.
    bool needs_state = false;
    std::unique_ptr<StateSnapshot> state;
  };

  Session(std::unique_ptr<Executor> executor, const Session& other);

  std::unique_lock<std::mutex> enter() const;
  Turn take_turn() const { return Turn(executor_->turns(), priority_); }
  // For what may be given up.
  Turn await_turn(int64_t deadline_ns) const {
    return Turn(executor_->turns(), priority_, {is_cancelled_.get(), deadline_ns});
  }
  int64_t chunk_limit() const;
  // Puts what is pending in front.
  InputPlan plan_behind_pending(std::vector<Input>& inputs, int64_t available) const;
  int64_t max_chunk() const;
  void expect_idle() const;
  void expect_intact() const;
  void expect_prompt() const;
  void run_chunk(const Chunk& chunk);
  bool put_off(const Chunk& chunk);
  TensorView embeddings_of(const Chunk& chunk) const;
  void advance_media(const Chunk& chunk);
  void encode(const Chunk& chunk);
  // Of num_tokens ids and as many guesses as follow them: the logits after the last id and after
  // each guess. `is_alone`: see Executor::decode_rows().
  TensorView decode_ids(const int64_t* ids, int64_t num_tokens, int64_t num_guesses = 0,
                        Step* own = nullptr, bool is_alone = false);
  // The decoder call of whoever has the turn, which takes steps of others along where the model
  // allows it.
  TensorView decode_in_company(const BatchPart& part, Step* own);
  // What is pending, in a turn of its own or in another's.
  bool read_in_company(int64_t deadline_ns);
  ReadToken score(const float* logits, int64_t id) const;
  void keep_logits(const TensorView& logits);
  void own_logits();
  std::vector<float> copied_logits() const;  // empty where none are at hand
  void adopt_logits(std::vector<float> logits);
  void own_outputs();
  void back_to_checkpoint();
  void advance(const int64_t* ids, int64_t num_positions);
  bool read_pending(int64_t deadline_ns, const std::vector<int64_t>& guesses = {});
  void take_guessed();
  int64_t room_for_guesses() const;
  void add_pending(int32_t token);
  void clear_pending();
  void cut_history(size_t size);
  bool is_read_by_this() const;
  TensorView run_encoder(const Input& input);

  std::unique_ptr<Executor> executor_;
  KvPosition position_;
  Checkpoint checkpoint_;
  std::vector<int64_t> history_;         // (position): token ids, kMediaPosition for media rows
  std::vector<int64_t> pending_tokens_;  // of the answer, but not in the cache yet
  std::vector<MediaSpan> media_;         // in the history, in order
  Reader reader_;
  int64_t weights_ = 0;  // the decoder's in use, by number
  // float32 (vocab_size) after the last position: the executor's, or own_logits_ once converted or
  // once the executor is about to overwrite its own.
  TensorView logits_;
  std::vector<float> own_logits_;
  bool has_logits_ = false;
  ReadAhead ahead_;  // empty whenever the state is not what decode_ids() has left

  std::vector<Input> prompt_;  // of the prefill under way
  std::deque<Chunk> chunks_;   // what is left of it
  TensorView encoded_;         // (rows, hidden_size) of the last encoder call
  std::shared_ptr<const EncoderCache::Rows> cached_;  // where it lies, if it was made before
  std::shared_ptr<EncoderCache> encoder_cache_;       // null where nothing is kept
  int64_t prefill_total_ = 0;

  std::shared_ptr<CallCosts> costs_ = std::make_shared<CallCosts>();
  RequestTimings timings_;
  std::shared_ptr<std::atomic<bool>> is_cancelled_ = std::make_shared<std::atomic<bool>>(false);
  std::atomic<int64_t> priority_{0};
  bool reads_alone_ = false;
  const std::shared_ptr<Regular> regular_ = std::make_shared<Regular>();
  int64_t chunk_limit_ = std::numeric_limits<int64_t>::max();  // positions
  mutable std::mutex mutex_;
  // Of position_, history_ and pending_tokens_: held while they change, which only happens under
  // mutex_ too, and never during a call of the model.
  mutable std::mutex books_;
};

}  // namespace emm
