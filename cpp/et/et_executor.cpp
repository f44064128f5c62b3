#include "et/et_executor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "et/outer_cache_memory.h"
#include "et/thread_choice.h"
#include "et/thread_pool.h"
#include "model/contract_reader.h"
#include "model/convert.h"
#include "program/data_file.h"

namespace emm {
namespace {

// (…, rows, columns) -> (rows, columns), the leading dimensions stacked.
TensorView as_rows(TensorView view) {
  const int64_t columns = view.shape.back();
  view.shape = {columns == 0 ? 0 : view.size() / columns, columns};
  return view;
}

// (1, vocab_size) -> (vocab_size)
TensorView last_row(TensorView rows) {
  rows.shape = {rows.shape[1]};
  return rows;
}

struct EtSnapshot final : StateSnapshot {
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

// Calls visit(where, how many bytes) for each piece of the state that a snapshot holds, in order.
template <typename Visit>
void for_each_piece(const std::vector<StateTensor>& state, const Arena& arena,
                    int64_t num_flat_rows, Visit visit) {
  for (const StateTensor& tensor : state) {
    const bool is_flat = tensor.kind == StateKind::kFlat;
    const int64_t rows = is_flat ? std::min(num_flat_rows, tensor.rows) : tensor.rows;
    uint8_t* block = arena.at(tensor.arena_buffer, tensor.offset);
    for (int64_t i = 0; i < tensor.outer; ++i, block += tensor.rows * tensor.row_bytes)
      visit(block, static_cast<size_t>(rows * tensor.row_bytes));
  }
}

// A model in memory is the program's alone.
LoadOptions without_bytes(LoadOptions options) {
  options.model_bytes = {};
  return options;
}

bool are_same(const std::vector<TensorSpec>& one, const std::vector<TensorSpec>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const TensorSpec& left, const TensorSpec& right) {
                      return left.dtype == right.dtype && left.shape == right.shape;
                    });
}

bool are_same(const std::vector<StateTensor>& one, const std::vector<StateTensor>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const StateTensor& left, const StateTensor& right) {
                      return left.kind == right.kind && left.arena_buffer == right.arena_buffer &&
                             left.offset == right.offset && left.outer == right.outer &&
                             left.rows == right.rows && left.row_bytes == right.row_bytes;
                    });
}

bool are_same(const OuterCache& one, const OuterCache& other) {
  return one.dtype == other.dtype && one.max_write == other.max_write &&
         std::equal(one.layers.begin(), one.layers.end(), other.layers.begin(), other.layers.end(),
                    [](const OuterCache::Layer& left, const OuterCache::Layer& right) {
                      return left.heads == right.heads && left.key_size == right.key_size &&
                             left.value_size == right.value_size && left.window == right.window;
                    });
}

// An adapter decodes what the others have begun: it takes and gives the same, and remembers it in
// the same places.
void expect_same_decoder(const Contract& ours, const Contract& given, const std::string& name) {
  const MethodSpec& one = ours.decoder();
  const MethodSpec& other = given.decoder();
  const bool fits = are_same(one.inputs, other.inputs) && are_same(one.outputs, other.outputs) &&
                    are_same(ours.state, given.state) &&
                    are_same(ours.outer_cache, given.outer_cache) &&
                    ours.capacity == given.capacity && ours.max_chunk == given.max_chunk &&
                    ours.step_name == given.step_name && ours.is_joint == given.is_joint &&
                    ours.kind == given.kind;
  if (fits) return;
  throw Error(ErrorCode::kInput,
              "adapter: " + name + ": expected a program whose " + one.name +
                  " takes, gives and remembers what the loaded one's does, got another");
}

}  // namespace

EtExecutor::EtExecutor(std::unique_ptr<EtProgram> program, const LoadOptions& options)
    : options_(without_bytes(options)),
      program_(std::move(program)),
      decoding_(program_.get()),
      contracts_(read_contracts(program_->take_structure(),
                                {options.method, options.max_context_len, options.kv_cache_dtype})),
      current_(&contracts_[0]),
      outer_cache_(make_outer_cache(contracts_)) {
  if (outer_cache_ != nullptr) sequence_ = outer_cache_->new_sequence();
  load_decoder(options.num_threads);
  const MethodSpec* transform =
      current_->audio_encoder() == nullptr ? nullptr : current_->audio_transform();
  for (const MethodSpec* method :
       {current_->image_encoder(), transform, current_->audio_encoder()}) {
    if (method != nullptr) program_->load_method(*method);
  }
  program_->restart_profile();  // calls that only measured are nobody's
}

void EtExecutor::load_decoder(int64_t num_threads) {
  if (num_threads > 0) return load_decoder_on(num_threads);
  // A pool that a model has fixed stays as it is, even where it is larger than our share.
  const size_t pool_size = std::min(thread_pool_size(), usable_cores());
  ThreadChoice choice = choose_threads(program_->file_bytes(), pool_size);
  // Half a minute of audio in one call is work enough for the pool.
  if (choice == ThreadChoice::kMeasure && current_->kind == ModelKind::kSpeech)
    choice = ThreadChoice::kPool;
  if (choice != ThreadChoice::kPool) load_decoder_on(1);
  if (choice == ThreadChoice::kOne) return;
  const int64_t one_thread_ns = choice == ThreadChoice::kMeasure ? time_turn() : 0;
  load_decoder_on(is_thread_pool_claimed() ? thread_pool_size() : pool_size);
  // What the pool gains must be worth the other cores.
  if (choice == ThreadChoice::kMeasure &&
      0.95 * static_cast<double>(one_thread_ns) <= static_cast<double>(time_turn()))
    load_decoder_on(1);
}

void EtExecutor::load_decoder_on(int64_t num_threads) {
  program_->use_threads(num_threads);
  if (current_->kind == ModelKind::kMultimodal && !current_->is_joint)
    program_->load_method(current_->methods.at("token_embedding"));
  load_current();
}

void EtExecutor::load_current() {
  program_->load_method(current_->decoder());
  if (!current_->step_name.empty())
    program_->load_method(current_->methods.at(current_->step_name));
}

void EtExecutor::use_method(const std::string& name, int64_t position) {
  const auto& names = current_->choices;
  const auto found = std::find(names.begin(), names.end(), name);
  const auto next = std::find_if(contracts_.begin(), contracts_.end(), [&](const Contract& other) {
    return other.decoder_name == name || other.step_name == name;
  });
  if (found == names.end() || next == contracts_.end()) {
    std::string expected;
    for (const std::string& choice : names) expected += (expected.empty() ? "" : ", ") + choice;
    throw Error(ErrorCode::kInput, "method: expected one of " + expected + ", got " + name);
  }
  if (decoding_ != program_.get()) {
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
  const Contract* before = std::exchange(current_, &*next);
  if (program_->methods().count(next->decoder_name) != 0) return;
  try {
    load_current();
  } catch (...) {
    current_ = before;
    throw;
  }
}

void EtExecutor::load_adapter(const std::string& name, const AdapterFiles& files) {
  if (name.empty() || adapters_.count(name) != 0) {
    throw Error(ErrorCode::kInput,
                "adapter: expected a name that is not in use, got '" + name + "'");
  }
  LoadOptions options = options_;
  if (options.model_path.empty() && files.model_path.empty()) {
    throw Error(ErrorCode::kInput,
                "adapter: expected a model that was loaded from a file, got one in memory");
  }
  if (!files.model_path.empty()) options.model_path = files.model_path;
  options.data_paths = beside_adapter(options_.data_paths, files.data_paths);
  if (files.model_path.empty() &&
      options.data_paths.size() == options_.data_paths.size() + files.data_paths.size()) {
    throw Error(ErrorCode::kInput,
                "adapter: " + name +
                    ": expected tensors with the names of loaded ones, got none: "
                    "give the adapter's own program with model_path=");
  }
  options.profile_path.clear();  // it is the first program's
  options.method = current_->decoder_name;
  Adapter adapter;
  adapter.program = std::make_unique<EtProgram>(options);
  adapter.contracts =
      read_contracts(adapter.program->take_structure(),
                     {options.method, options.max_context_len, options.kv_cache_dtype});
  const Contract& contract = adapter.contracts[0];
  expect_same_decoder(*current_, contract, name);
  adapter.program->use_threads(program_->num_threads());
  adapter.program->load_method(contract.decoder());
  if (!contract.step_name.empty())
    adapter.program->load_method(contract.methods.at(contract.step_name));
  adapters_.emplace(name, std::move(adapter));
}

void EtExecutor::use_adapter(const std::string& name, int64_t position) {
  const auto found = adapters_.find(name);
  if (!name.empty() && found == adapters_.end())
    throw Error(ErrorCode::kInput, "adapter: expected a name that was loaded, got " + name);
  EtProgram* next = name.empty() ? program_.get() : found->second.program.get();
  if (next == decoding_) return;
  if (next->methods().count(current_->decoder_name) == 0) {
    throw Error(ErrorCode::kInput,
                "adapter: " + name + " is for another method than " + current_->decoder_name);
  }
  const bool has_cache = current_->position_style != PositionStyle::kNone;
  std::unique_ptr<StateSnapshot> state;
  // A cache outside of the program serves any weights as it is.
  if (position > 0 && has_cache && outer_cache_ == nullptr) state = save_state(position);
  decoding_ = next;
  for (auto& [method_name, method] : decoding_->methods()) {
    const bool is_decoder =
        method_name == current_->decoder_name || method_name == current_->step_name;
    if (is_decoder) method.arena->reset();
  }
  if (state != nullptr) restore_state(*state);
}

void EtExecutor::drop_adapter(const std::string& name) {
  const auto found = adapters_.find(name);
  if (found == adapters_.end())
    throw Error(ErrorCode::kInput, "adapter: expected a name that was loaded, got " + name);
  if (found->second.program.get() == decoding_)
    throw Error(ErrorCode::kInput, "adapter: " + name + " is in use: use another one first");
  converted_input_bytes_ += found->second.program->copied_input_bytes();
  adapters_.erase(found);
}

int64_t EtExecutor::time_turn() {
  constexpr int64_t kPromptTokens = 64;
  constexpr int64_t kAnswerTokens = 64;
  constexpr int64_t kTimedPrompts = 3;
  constexpr int64_t kTimedSteps = 16;
  const std::vector<int64_t> ids(kPromptTokens, 0);
  const int64_t num_tokens =
      std::min({kPromptTokens, current_->max_chunk, std::max<int64_t>(1, current_->capacity / 2)});
  const auto time_call = [&](int64_t count, int64_t position) {
    int64_t elapsed = 0;
    {
      const ScopedTimer timer(elapsed);
      decode_tokens(ids.data(), count, position);
    }
    return elapsed;
  };
  time_call(num_tokens, 0);  // the first call also prepares memory
  int64_t turn_ns = INT64_MAX;
  for (int64_t i = 0; i < kTimedPrompts; ++i) turn_ns = std::min(turn_ns, time_call(num_tokens, 0));
  if (current_->position_style != PositionStyle::kNone) {
    int64_t step_ns = INT64_MAX;
    for (int64_t i = 0; i < kTimedSteps && num_tokens + i < current_->capacity; ++i)
      step_ns = std::min(step_ns, time_call(1, num_tokens + i));
    turn_ns += kAnswerTokens * step_ns;
  }
  reset_state();
  return turn_ns;
}

TensorView EtExecutor::run_embedding(const TensorView& tokens) {
  const DType wanted = current_->methods.at("token_embedding").inputs[0].dtype;
  const TensorView ids = convert(tokens, wanted, converted_ids_, "tokens");
  return program_->run("token_embedding", {ids}, ErrorCode::kExecution)[0];
}

TensorView EtExecutor::run_decoder(const TensorView& tokens, const TensorView& embeddings,
                                   int64_t num_tokens, int64_t position, int64_t num_rows) {
  if (num_tokens == 1) decoding_->large_pages().advise();
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
  const bool is_embedded = current_->kind == ModelKind::kMultimodal && !current_->is_joint;
  inputs[first_place] =
      convert(is_embedded ? embeddings : tokens, wanted(first_place),
              is_embedded ? converted_embeddings_ : converted_ids_, "decoder input");
  std::copy(encoder_outputs_.begin(), encoder_outputs_.end(), inputs.begin() + 1);
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
  if (outer_cache_ != nullptr) outer_cache_->begin_step({{&sequence_, num_tokens}});
  const ops::KvCacheScope scope(outer_cache_.get());
  const TensorView logits = as_rows(decoding_->run(decoder.name, inputs, ErrorCode::kExecution)[0]);
  if (logits.shape[0] < num_rows) {
    throw Error(ErrorCode::kExecution, decoder.name + ": expected logits of " +
                                           std::to_string(num_rows) + " tokens, got " +
                                           std::to_string(logits.shape[0]) + " rows");
  }
  return row_range(logits, logits.shape[0] - num_rows, num_rows);
}

TensorView EtExecutor::decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) {
  return last_row(decode_rows(ids, num_tokens, position, 1));
}

TensorView EtExecutor::decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                                   int64_t num_rows) {
  const TensorView tokens{ids, DType::kInt64, {1, num_tokens}};
  if (current_->kind == ModelKind::kSpeech && encoder_outputs_.empty())
    throw Error(ErrorCode::kInput, "prompt: expected a clip before the first token");
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
  return run_decoder(tokens, embeddings, num_tokens, position, num_rows);
}

TensorView EtExecutor::decode_embeddings(const TensorView& embeddings, int64_t position,
                                         int64_t placeholder_id) {
  TensorView batched = embeddings;
  batched.shape.insert(batched.shape.begin(), 1);
  const int64_t num_rows = embeddings.shape[0];
  placeholders_.assign(static_cast<size_t>(num_rows), placeholder_id);
  return last_row(run_decoder({placeholders_.data(), DType::kInt64, {1, num_rows}}, batched,
                              num_rows, position));
}

std::vector<TensorView> EtExecutor::encode(const MethodSpec* encoder, const char* what,
                                           const MediaView& input) {
  if (encoder == nullptr) {
    throw Error(ErrorCode::kInput,
                std::string(what) + ": the model has no encoder for it, so it takes no " + what);
  }
  const EncoderPlaces places = encoder_places(*encoder);
  if (places.mask >= 0 || places.positions >= 0)
    return program_->run(encoder->name, encoder_call_.inputs(*encoder, input, what),
                         ErrorCode::kInput);
  const TensorView& values = input.values;
  const TensorSpec& wanted = encoder->inputs[0];
  const TensorView given = [&] {
    if (!all_finite(values))
      throw Error(ErrorCode::kInput,
                  std::string(what) + ": expected finite values, got NaN or infinity");
    TensorView view = encoder == current_->image_encoder()
                          ? convert_image(values, wanted.dtype, converted_media_)
                          : convert(values, wanted.dtype, converted_media_, what);
    if (view.data != values.data)
      converted_input_bytes_ += static_cast<int64_t>(values.size_bytes());
    // The batch dimension may be left out or given; the program decides whether there is one.
    if (view.shape.size() + 1 == wanted.shape.size()) view.shape.insert(view.shape.begin(), 1);
    if (view.shape.size() == wanted.shape.size() + 1 && view.shape[0] == 1)
      view.shape.erase(view.shape.begin());
    return view;
  }();
  if (!wanted.may_be(given.shape)) {
    throw Error(ErrorCode::kInput, std::string(what) + ": " + encoder->name + " expects " +
                                       TensorView{nullptr, wanted.dtype, wanted.shape}.describe() +
                                       ", got " + given.describe());
  }
  return program_->run(encoder->name, {given}, ErrorCode::kInput);
}

TensorView EtExecutor::encode_image(const MediaView& image) {
  const MethodSpec* encoder = current_->image_encoder();
  const std::vector<TensorView> outputs = encode(encoder, "image", image);
  return encoder_call_.rows(*encoder, outputs);
}

// (frames, features) of samples (num_samples).
TensorView EtExecutor::transform(const TensorView& samples) {
  const MethodSpec& method = *current_->audio_transform();
  const TensorSpec& wanted = method.inputs[0];
  const int64_t most = wanted.shape.back();
  if (samples.size() < 1 || samples.size() > most) {
    throw Error(ErrorCode::kInput, "audio: " + method.name + " takes 1 to " + std::to_string(most) +
                                       " samples, got " + std::to_string(samples.size()));
  }
  if (!all_finite(samples))
    throw Error(ErrorCode::kInput, "audio: expected finite values, got NaN or infinity");
  TensorView given = convert(samples, wanted.dtype, converted_media_, "audio");
  std::vector<uint8_t> filled;
  const int64_t length = wanted.is_dynamic ? samples.size() : most;
  if (length > samples.size()) {
    filled.assign(static_cast<size_t>(length) * dtype_size(wanted.dtype), 0);
    std::memcpy(filled.data(), given.data, given.size_bytes());
    given.data = filled.data();
  }
  if (given.data != samples.data)
    converted_input_bytes_ += static_cast<int64_t>(samples.size_bytes());
  given.shape.assign(wanted.shape.size(), 1);
  given.shape.back() = length;
  TensorView frames = as_rows(program_->run(method.name, {given}, ErrorCode::kInput)[0]);
  // Silence that was put behind the samples makes frames too.
  frames.shape[0] = (frames.shape[0] * samples.size() + length - 1) / length;
  if (frames.shape[0] < 1)
    throw Error(ErrorCode::kInput, "audio: expected a longer clip, got " +
                                       std::to_string(samples.size()) + " samples");
  return frames;
}

TensorView EtExecutor::encode_audio(const MediaView& audio) {
  const MethodSpec* encoder = current_->audio_encoder();
  const bool is_samples = audio.values.shape.size() == 1 && encoder != nullptr &&
                          current_->audio_transform() != nullptr;
  std::vector<TensorView> outputs =
      encode(encoder, "audio", is_samples ? MediaView{transform(audio.values), {}} : audio);
  if (current_->kind != ModelKind::kSpeech) return encoder_call_.rows(*encoder, outputs);
  encoder_outputs_ = std::move(outputs);
  return {nullptr, encoder_outputs_[0].dtype, {0, 0}};
}

void EtExecutor::reset_state() {
  if (outer_cache_ != nullptr) sequence_ = outer_cache_->new_sequence();
  if (decoding_ != program_.get()) {
    for (auto& [name, method] : decoding_->methods()) method.arena->reset();
  }
  for (auto& [name, method] : program_->methods()) {
    // The encoder outputs lie in the encoder's memory.
    const bool is_heard = current_->kind == ModelKind::kSpeech && name != current_->decoder().name;
    if (!is_heard) method.arena->reset();
  }
}

std::unique_ptr<StateSnapshot> EtExecutor::save_state(int64_t num_flat_rows) const {
  if (current_->state.empty() && outer_cache_ == nullptr &&
      current_->position_style != PositionStyle::kNone) {
    throw Error(ErrorCode::kInput, current_->decoder().name +
                                       ": its state lies where it cannot be copied, in a delegate");
  }
  const Arena& arena = decoder_arena();
  auto snapshot = std::make_unique<EtSnapshot>();
  snapshot->contract = current_;
  snapshot->num_flat_rows = num_flat_rows;
  for_each_piece(current_->state, arena, num_flat_rows, [&](const uint8_t* piece, size_t size) {
    snapshot->bytes.insert(snapshot->bytes.end(), piece, piece + size);
  });
  // Without rows all of it: it costs nothing, and is put back as a whole.
  snapshot->outer_cache = outer_cache_;
  snapshot->sequence = sequence_.fork(num_flat_rows > 0 ? num_flat_rows : sequence_.length());
  return snapshot;
}

void EtExecutor::restore_state(const StateSnapshot& snapshot) {
  const auto* ours = dynamic_cast<const EtSnapshot*>(&snapshot);
  if (ours == nullptr)
    throw Error(ErrorCode::kInput, "snapshot: it was not made by this kind of executor");
  const Arena& arena = decoder_arena();
  if (ours->contract != current_ &&
      !(ours->contract->is_state_shared && current_->is_state_shared)) {
    throw Error(ErrorCode::kInput, "snapshot: it is of the method " + ours->contract->decoder_name +
                                       ", which has a cache of its own: use_method() first");
  }
  if (ours->outer_cache != outer_cache_)
    throw Error(ErrorCode::kInput, "snapshot: it is of another model");
  sequence_ = ours->sequence;
  const uint8_t* from = ours->bytes.data();
  for_each_piece(current_->state, arena, ours->num_flat_rows, [&](uint8_t* piece, size_t size) {
    std::memcpy(piece, from, size);
    from += size;
  });
}

void EtExecutor::load_state(int64_t num_flat_rows, ByteSpan bytes) {
  int64_t expected = 0;
  for (const StateTensor& tensor : current_->state) expected += tensor.bytes_of(num_flat_rows);
  const int64_t outer = outer_cache_ == nullptr ? 0 : outer_cache_->num_bytes(num_flat_rows);
  expected += outer;
  if (static_cast<int64_t>(bytes.size) != expected) {
    throw Error(ErrorCode::kInput, "state: expected " + std::to_string(expected) + " bytes for " +
                                       std::to_string(num_flat_rows) + " positions, got " +
                                       std::to_string(bytes.size));
  }
  const Arena& arena = decoder_arena();
  for_each_piece(current_->state, arena, num_flat_rows, [&](uint8_t* piece, size_t size) {
    std::memcpy(piece, bytes.data, size);
    bytes.data += size;
  });
  if (outer_cache_ != nullptr) sequence_ = outer_cache_->from_bytes(num_flat_rows, bytes.data);
}

}  // namespace emm
