#include "et/et_executor.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "et/outputs.h"
#include "et/thread_choice.h"
#include "et/thread_pool.h"
#include "model/convert.h"
#include "ops/kernels.h"

namespace emm {
namespace {

struct EtSnapshot final : StateSnapshot {
  std::weak_ptr<const EtModel> model;
  const Contract* contract = nullptr;
  int64_t num_flat_rows = 0;
  std::vector<uint8_t> bytes;
  std::shared_ptr<const ops::KvCache> outer_cache;  // whose sequence it is
  ops::KvSequence sequence;
  mutable std::vector<uint8_t> sequence_bytes;  // for a file
  size_t size_bytes() const override {
    return bytes.size() + static_cast<size_t>(sequence.bytes());
  }
  std::vector<ByteSpan> spans() const override {
    if (outer_cache != nullptr && sequence_bytes.empty())
      sequence_bytes = outer_cache->to_bytes(sequence);
    return {{bytes.data(), bytes.size()}, {sequence_bytes.data(), sequence_bytes.size()}};
  }
};

}  // namespace

EtExecutor::EtExecutor(std::unique_ptr<EtProgram> program, const LoadOptions& options)
    : model_(std::make_shared<EtModel>(std::move(program), options)),
      current_(&model_->contracts()[0]),
      state_(model_->new_state()),
      decoding_(model_->decoding("")) {
  if (model_->outer_cache() != nullptr) sequence_ = model_->outer_cache()->new_sequence();
  load_decoder(options.num_threads);
  const MethodSpec* transform =
      current_->audio_encoder() == nullptr ? nullptr : current_->audio_transform();
  for (const MethodSpec* method : {current_->image_encoder(), transform, current_->audio_encoder(),
                                   current_->text_encoder()}) {
    if (method != nullptr) model_->program().load_method(*method);
  }
  model_->program().restart_profile();  // calls that only measured are nobody's
  copied_input_bytes_ = 0;
}

EtExecutor::EtExecutor(const EtExecutor& other, std::shared_ptr<EtState> state)
    : model_(other.model_),
      current_(other.current_),
      state_(std::move(state)),
      decoding_(other.decoding_) {
  if (model_->outer_cache() != nullptr) sequence_ = model_->outer_cache()->new_sequence();
}

void EtExecutor::expect_state() const {
  if (!current_->state.empty() || model_->outer_cache() != nullptr ||
      current_->position_style == PositionStyle::kNone)
    return;
  throw Error(ErrorCode::kInput, current_->decoder().name +
                                     ": its state lies where it cannot be copied, in a delegate");
}

void EtExecutor::prepare_sharing() {
  expect_state();
  if (!is_shared() && encoder_outputs_ != nullptr) encoder_outputs_->keep();
}

void EtExecutor::EncoderOutputs::keep() {
  copies.resize(views.size());
  for (size_t i = 0; i < views.size(); ++i) views[i] = copied(views[i], copies[i]);
}

std::unique_ptr<Executor> EtExecutor::another() {
  prepare_sharing();
  return std::unique_ptr<Executor>(new EtExecutor(*this, model_->new_state()));
}

std::unique_ptr<Executor> EtExecutor::fork(int64_t num_flat_rows) {
  prepare_sharing();
  model_->settle(state_);
  std::unique_ptr<EtExecutor> child(
      new EtExecutor(*this, state_->fork(*current_, num_flat_rows, num_flat_rows)));
  child->encoder_outputs_ = encoder_outputs_;
  child->sequence_ = sequence_.fork(num_flat_rows);
  return child;
}

void EtExecutor::go_on_from(Executor& other, int64_t num_flat_rows, int64_t num_used) {
  auto* const theirs = dynamic_cast<EtExecutor*>(&other);
  if (theirs == nullptr || theirs->model_ != model_ || theirs->current_ != current_ ||
      theirs->decoding_ != decoding_) {
    throw Error(ErrorCode::kInput,
                "expected a conversation with the same model, method and adapter, got another");
  }
  theirs->expect_state();
  waiting_.clear();
  model_->settle(theirs->state_);
  ops::KvSequence sequence = theirs->sequence_.fork(num_flat_rows);
  state_ = theirs->state_->fork(*current_, num_flat_rows, num_used);
  sequence_ = std::move(sequence);
  encoder_outputs_ = theirs->encoder_outputs_;
}

std::vector<MemoryUse> EtExecutor::memory(int64_t num_flat_rows) const {
  std::vector<MemoryUse> uses = state_->memory(*current_, num_flat_rows);
  for (const auto& [place, bytes] : sequence_.memory()) uses.push_back({place, bytes});
  return uses;
}

TensorView EtExecutor::kept(const TensorView& output, std::vector<uint8_t>& copy) const {
  return is_shared() ? copied(output, copy) : output;
}

void EtExecutor::load_decoder(int64_t num_threads) {
  if (num_threads > 0) return load_decoder_on(num_threads);
  // A pool that a model has fixed stays as it is, even where it is larger than our share.
  const size_t pool_size = std::min(thread_pool_size(), usable_cores());
  ThreadChoice choice = choose_threads(model_->program().file_bytes(), pool_size);
  // Half a minute of audio, or a whole text, in one call is work enough for the pool.
  if (choice == ThreadChoice::kMeasure && current_->is_encoder_decoder())
    choice = ThreadChoice::kPool;
  if (choice != ThreadChoice::kPool) load_decoder_on(1);
  if (choice == ThreadChoice::kOne) return;
  const int64_t one_thread_ns = choice == ThreadChoice::kMeasure ? time_turn(*this) : 0;
  load_decoder_on(is_thread_pool_claimed() ? thread_pool_size() : pool_size);
  // What the pool gains must be worth the other cores.
  if (choice == ThreadChoice::kMeasure &&
      0.95 * static_cast<double>(one_thread_ns) <= static_cast<double>(time_turn(*this)))
    load_decoder_on(1);
}

void EtExecutor::load_decoder_on(int64_t num_threads) {
  model_->program().use_threads(num_threads);
  if (is_embedded()) model_->program().load_method(current_->methods.at("token_embedding"));
  model_->load_decoder(*current_);
}

void EtExecutor::use_method(const std::string& name, int64_t position) {
  const auto& names = current_->choices;
  const auto found = std::find(names.begin(), names.end(), name);
  const std::vector<Contract>& contracts = model_->contracts();
  const auto next = std::find_if(contracts.begin(), contracts.end(), [&](const Contract& other) {
    return other.decoder_name == name || other.step_name == name;
  });
  if (found == names.end() || next == contracts.end()) {
    std::string expected;
    for (const std::string& choice : names) expected += (expected.empty() ? "" : ", ") + choice;
    throw Error(ErrorCode::kInput, "method: expected one of " + expected + ", got " + name);
  }
  if (decoding_ != model_->decoding("")) {
    throw Error(ErrorCode::kInput,
                "method: an adapter is in use, which has one decoder: go back to none first");
  }
  const bool has_no_cache = current_->position_style == PositionStyle::kNone &&
                            next->position_style == PositionStyle::kNone;
  const bool is_same = current_->decoder_name == next->decoder_name;
  const bool is_shared = current_->is_state_shared && next->is_state_shared;
  if (position > 0 && !is_same && !is_shared && !has_no_cache) {
    throw Error(ErrorCode::kInput, "method: " + name + " has a cache of its own, without the " +
                                       std::to_string(position) +
                                       " positions of this conversation: reset() first");
  }
  if (position > next->capacity) {
    throw Error(ErrorCode::kInput, "method: " + name + " has room for " +
                                       std::to_string(next->capacity) + " positions, " +
                                       std::to_string(position) + " are in use");
  }
  const auto& loaded = model_->program().methods();
  if (loaded.count(next->decoder_name) == 0) model_->load_decoder(*next);
  current_ = &*next;
}

void EtExecutor::load_adapter(const std::string& name, const AdapterFiles& files) {
  model_->load_adapter(name, files, *current_);
}

// The state lies in the same places for all weights.
void EtExecutor::use_adapter(const std::string& name, int64_t position) {
  std::shared_ptr<EtModel::Decoding> next = model_->decoding(name);
  if (position > 0 && next != decoding_) expect_state();
  if (next->program->methods().count(current_->decoder_name) == 0) {
    throw Error(ErrorCode::kInput,
                "adapter: " + name + " is for another method than " + current_->decoder_name);
  }
  decoding_ = std::move(next);
}

void EtExecutor::drop_adapter(const std::string& name) { model_->drop_adapter(name); }

TensorView EtExecutor::run_embedding(const TensorView& tokens) {
  const DType wanted = current_->methods.at("token_embedding").inputs[0].dtype;
  const TensorView ids = convert(tokens, wanted, converted_ids_, "tokens");
  return model_->program().run("token_embedding", {ids}, ErrorCode::kExecution,
                               copied_input_bytes_)[0];
}

TensorView EtExecutor::run_decoder(const TensorView& tokens, const TensorView& embeddings,
                                   int64_t num_tokens, int64_t position, int64_t num_rows) {
  if (num_tokens == 1) decoding_->program->large_pages().advise();
  const MethodSpec& decoder = current_->decoder_of(num_tokens);
  const DecoderInputs places = decoder_inputs(decoder);
  const auto wanted = [&](size_t place) { return decoder.inputs[place].dtype; };
  std::vector<TensorView> inputs(decoder.inputs.size());
  size_t first_place = 0;
  if (current_->is_joint) {
    const auto place = static_cast<size_t>(places.embeddings);
    inputs[place] = convert(embeddings, wanted(place), converted_embeddings_, "decoder input");
    first_place = static_cast<size_t>(places.tokens);
  }
  inputs[first_place] =
      convert(is_embedded() ? embeddings : tokens, wanted(first_place),
              is_embedded() ? converted_embeddings_ : converted_ids_, "decoder input");
  if (encoder_outputs_ != nullptr)
    std::copy(encoder_outputs_->views.begin(), encoder_outputs_->views.end(), inputs.begin() + 1);
  const PositionStyle style = position_style(decoder);
  if (style != PositionStyle::kNone) {
    const bool is_range = style == PositionStyle::kRange;
    positions_.resize(is_range ? static_cast<size_t>(num_tokens) : 1);
    for (size_t i = 0; i < positions_.size(); ++i)
      positions_[i] = position + static_cast<int64_t>(i);
    const TensorView positions{
        positions_.data(), DType::kInt64, {static_cast<int64_t>(positions_.size())}};
    const auto place = static_cast<size_t>(places.position);
    inputs[place] = convert(positions, wanted(place), converted_positions_, "positions");
  }
  ops::KvCache* const outer_cache = model_->outer_cache();
  if (outer_cache != nullptr) outer_cache->begin_step({{&sequence_, num_tokens}});
  const ops::KvCacheScope scope(outer_cache);
  EtProgram& program = *decoding_->program;
  const int64_t before = program.copied_input_bytes();
  const std::vector<TensorView> outputs =
      model_->run_decoder(*decoding_, *current_, decoder, state_, inputs, num_tokens, position);
  const TensorView logits = as_rows(outputs[0]);
  if (current_->num_alignment_heads > 0) alignment_ = copied(as_rows(outputs[1]), alignment_bytes_);
  copied_input_bytes_ += program.copied_input_bytes() - before;
  if (logits.shape[0] < num_rows) {
    throw Error(ErrorCode::kExecution, decoder.name + ": expected logits of " +
                                           std::to_string(num_rows) + " tokens, got " +
                                           std::to_string(logits.shape[0]) + " rows");
  }
  return kept(row_range(logits, logits.shape[0] - num_rows, num_rows), last_logits_);
}

TensorView EtExecutor::decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) {
  return last_row(decode_rows(ids, num_tokens, position, 1, false));
}

TensorView EtExecutor::decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                                   int64_t num_rows, bool is_alone) {
  const TensorView tokens{ids, DType::kInt64, {1, num_tokens}};
  if (current_->is_encoder_decoder() && encoder_outputs_ == nullptr) {
    const bool is_speech = current_->kind == ModelKind::kSpeech;
    throw Error(ErrorCode::kInput, std::string("prompt: expected a ") +
                                       (is_speech ? "clip" : "source text") +
                                       " before the first token");
  }
  TensorView embeddings;
  if (current_->is_joint) {
    const MethodSpec& decoder = current_->decoder_of(num_tokens);
    const DType dtype =
        decoder.inputs[static_cast<size_t>(decoder_inputs(decoder).embeddings)].dtype;
    embeddings = {nullptr, dtype, {1, num_tokens, current_->hidden_size}};
    if (no_embeddings_.size() < embeddings.size_bytes())
      no_embeddings_.resize(embeddings.size_bytes());
    embeddings.data = no_embeddings_.data();
  } else if (current_->kind == ModelKind::kMultimodal) {
    embeddings = run_embedding(tokens);
  }
  const ops::RowsAlone scope(is_alone);
  return run_with_waiting(tokens, embeddings, num_tokens, position, num_rows);
}

TensorView EtExecutor::run_with_waiting(const TensorView& tokens, const TensorView& embeddings,
                                        int64_t num_tokens, int64_t position, int64_t num_rows) {
  const int64_t waiting = waiting_.before(position);
  if (waiting == 0) {
    waiting_.clear();  // what waits elsewhere was of a prompt that was taken back
    return run_decoder(tokens, embeddings, num_tokens, position, num_rows);
  }
  TensorView rows = embeddings;
  rows.shape.erase(rows.shape.begin());
  const DType dtype = current_->decoder().inputs[0].dtype;
  if (waiting_.add(rows, dtype, position, waiting_.limit())) {
    const int64_t all = waiting + num_tokens;
    return run_decoder(tokens, waiting_.take(), all, position - waiting, num_rows);
  }
  run_decoder(tokens, waiting_.take(), waiting, position - waiting);
  return run_decoder(tokens, embeddings, num_tokens, position, num_rows);
}

bool EtExecutor::put_off_tokens(const int64_t* ids, int64_t num_tokens, int64_t position,
                                bool has_media, int64_t limit) {
  limit = std::min(limit, current_->embeddings_at_once());
  // Pieces of a text alone are as long as a call may be.
  if (!has_media || !is_embedded() || waiting_.before(position) + num_tokens > limit) return false;
  TensorView rows = run_embedding({ids, DType::kInt64, {1, num_tokens}});
  rows.shape.erase(rows.shape.begin());
  return put_off_embeddings(rows, position, limit);
}

bool EtExecutor::put_off_embeddings(const TensorView& embeddings, int64_t position, int64_t limit) {
  limit = std::min(limit, current_->embeddings_at_once());
  return is_embedded() &&
         waiting_.add(embeddings, current_->decoder().inputs[0].dtype, position, limit);
}

TensorView EtExecutor::decode_embeddings(const TensorView& embeddings, int64_t position,
                                         int64_t placeholder_id) {
  TensorView batched = embeddings;
  batched.shape.insert(batched.shape.begin(), 1);
  const int64_t num_rows = embeddings.shape[0];
  placeholders_.assign(static_cast<size_t>(num_rows), placeholder_id);
  return last_row(run_with_waiting({placeholders_.data(), DType::kInt64, {1, num_rows}}, batched,
                                   num_rows, position));
}

TensorView EtExecutor::encode_image(const MediaView& image) {
  const MethodSpec* encoder = current_->image_encoder();
  const std::vector<TensorView> outputs = encoder_.run(model_->program(), encoder, "image", image);
  return kept(encoder_.rows(*encoder, outputs), encoded_rows_);
}

TensorView EtExecutor::encode_audio(const MediaView& audio) {
  const bool is_text = current_->text_encoder() != nullptr;
  const MethodSpec* encoder = is_text ? current_->text_encoder() : current_->audio_encoder();
  const bool is_samples = audio.values.shape.size() == 1 && encoder != nullptr &&
                          current_->audio_transform() != nullptr;
  EtProgram& program = model_->program();
  const MediaView given =
      is_samples
          ? MediaView{encoder_.transform(program, *current_->audio_transform(), audio.values), {}}
          : audio;
  std::vector<TensorView> outputs =
      encoder_.run(program, encoder, is_text ? "source" : "audio", given);
  if (!current_->is_encoder_decoder()) return kept(encoder_.rows(*encoder, outputs), encoded_rows_);
  // Forks keep what they look at; else the memory is used again.
  if (encoder_outputs_.use_count() != 1) encoder_outputs_ = std::make_shared<EncoderOutputs>();
  encoder_outputs_->views = std::move(outputs);
  if (is_shared()) encoder_outputs_->keep();
  return {nullptr, encoder_outputs_->views[0].dtype, {0, 0}};
}

void EtExecutor::reset_state() {
  waiting_.clear();
  if (model_->outer_cache() != nullptr) sequence_ = model_->outer_cache()->new_sequence();
  state_->reset();
  model_->forget(state_);
  if (is_shared()) return;
  // Gives back what the calls have touched.
  if (decoding_ != model_->decoding("")) {
    for (auto& [name, method] : decoding_->program->methods()) method.arena->reset();
  }
  for (auto& [name, method] : model_->program().methods()) {
    // The encoder outputs lie in the encoder's memory.
    const bool is_lent = current_->is_encoder_decoder() && name != current_->decoder().name;
    if (!is_lent) method.arena->reset();
  }
}

std::unique_ptr<StateSnapshot> EtExecutor::save_state(int64_t num_flat_rows) const {
  expect_state();
  model_->settle(state_);
  auto snapshot = std::make_unique<EtSnapshot>();
  snapshot->model = model_;
  snapshot->contract = current_;
  snapshot->num_flat_rows = num_flat_rows;
  for_each_piece(current_->state, 0, num_flat_rows, [&](size_t i, size_t offset, size_t size) {
    const uint8_t* const piece = state_->at(*current_, i) + offset;
    snapshot->bytes.insert(snapshot->bytes.end(), piece, piece + size);
  });
  // Without rows all of it: it costs nothing, and is put back as a whole.
  snapshot->outer_cache = model_->outer_cache_owner();
  snapshot->sequence = sequence_.fork(num_flat_rows > 0 ? num_flat_rows : sequence_.length());
  return snapshot;
}

void EtExecutor::restore_state(const StateSnapshot& snapshot) {
  const auto* ours = dynamic_cast<const EtSnapshot*>(&snapshot);
  if (ours == nullptr || ours->model.lock() != model_)
    throw Error(ErrorCode::kInput, "snapshot: expected one of this model, got another's");
  if (ours->contract != current_ &&
      !(ours->contract->is_state_shared && current_->is_state_shared)) {
    throw Error(ErrorCode::kInput, "snapshot: it is of the method " + ours->contract->decoder_name +
                                       ", which has a cache of its own: use_method() first");
  }
  sequence_ = ours->sequence;
  write_state(*ours->contract, ours->num_flat_rows, ours->bytes.data());
}

void EtExecutor::write_state(const Contract& contract, int64_t num_flat_rows,
                             const uint8_t* bytes) {
  waiting_.clear();
  model_->settle(state_);
  model_->forget(state_);
  if (num_flat_rows > 0) state_->num_used_rows = num_flat_rows;
  state_->begin_write(contract, num_flat_rows > 0 ? 0 : INT64_MAX);
  for_each_piece(contract.state, 0, num_flat_rows, [&](size_t i, size_t offset, size_t size) {
    state_->write(contract, i, offset, bytes, size);
    bytes += size;
  });
}

void EtExecutor::load_state(int64_t num_flat_rows, ByteSpan bytes) {
  const int64_t outer =
      model_->outer_cache() == nullptr ? 0 : model_->outer_cache()->num_bytes(num_flat_rows);
  const int64_t expected = current_->state_bytes(num_flat_rows) + outer;
  expect_state_bytes(bytes, expected, num_flat_rows);
  write_state(*current_, num_flat_rows, bytes.data);
  if (outer > 0)
    sequence_ = model_->outer_cache()->from_bytes(num_flat_rows, bytes.data + (expected - outer));
  else if (model_->outer_cache() != nullptr)
    sequence_ = model_->outer_cache()->new_sequence();
}

}  // namespace emm
