#include "et/et_folder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "et/outputs.h"
#include "model/convert.h"
#include "ops/kernels.h"

namespace emm {
namespace {

struct FolderSnapshot final : StateSnapshot {
  std::weak_ptr<const void> model;
  int64_t num_flat_rows = 0;
  std::vector<uint8_t> bytes;  // as contract().state has it
  size_t size_bytes() const override { return bytes.size(); }
  std::vector<ByteSpan> spans() const override { return {{bytes.data(), bytes.size()}}; }
};

// Which input of an encoder or a projector takes what it is for.
size_t media_input(const FolderModel::Part& part) {
  const auto& inputs = part.call->inputs;
  const auto found = std::find_if(inputs.begin(), inputs.end(),
                                  [](const PartInput& each) { return each.feed == Feed::kMedia; });
  return static_cast<size_t>(found - inputs.begin());
}

}  // namespace

EtFolder::EtFolder(const LoadOptions& options)
    : model_(std::make_shared<FolderModel>(options)), cache_(*model_), embeddings_(*model_) {
  cache_.become_resident();
  if (!model_->folder.embeddings) return;
  find_embedding_scale();
  copied_input_bytes_ = 0;
}

EtFolder::EtFolder(const EtFolder& other)
    : model_(other.model_), cache_(*model_), embeddings_(*model_) {}

std::unique_ptr<Executor> EtFolder::another() {
  return std::unique_ptr<Executor>(new EtFolder(*this));
}

std::unique_ptr<Executor> EtFolder::fork(int64_t num_flat_rows) {
  std::unique_ptr<EtFolder> child(new EtFolder(*this));
  child->read_from(*this, num_flat_rows);
  return child;
}

void EtFolder::go_on_from(Executor& other, int64_t num_flat_rows, int64_t /*num_used*/) {
  const auto* const theirs = dynamic_cast<const EtFolder*>(&other);
  if (theirs == nullptr || theirs->model_ != model_)
    throw Error(ErrorCode::kInput, "expected a conversation with the same model");
  read_from(*theirs, num_flat_rows);
}

std::vector<MemoryUse> EtFolder::memory(int64_t num_flat_rows) const {
  return {{this, contract().state_bytes(num_flat_rows)}};
}

TensorView EtFolder::lent(const TensorView& output, std::vector<uint8_t>& copy) const {
  return is_shared() ? copied(output, copy) : output;
}

// As fork(), for one that has a cache already.
void EtFolder::read_from(const EtFolder& other, int64_t num_flat_rows) {
  cache_.copy(other.cache_, num_flat_rows);
  embeddings_.copy(other.embeddings_, num_flat_rows);
  num_read_ = num_flat_rows;
}

// Some models multiply the rows of their table: what decode does with two tokens tells.
void EtFolder::find_embedding_scale() {
  const std::vector<int64_t> ids = {model_->folder.contract.vocab_size / 2, 1};
  const auto logits_of = [](const TensorView& view) {
    std::vector<uint8_t> buffer;
    const TensorView floats = convert(view, DType::kFloat32, buffer, "logits");
    const auto* values = static_cast<const float*>(floats.data);
    return std::vector<float>(values, values + floats.size());
  };
  const auto root = std::sqrt(static_cast<float>(model_->folder.contract.hidden_size));
  std::vector<float> expected;
  bool is_found = false;
  for (const float scale : {1.0F, root}) {
    model_->embedding_scale = scale;
    if (expected.empty()) {
      // One by one: what takes one token takes two so.
      decode_tokens(ids.data(), 1, 0);
      expected = logits_of(decode_tokens(ids.data() + 1, 1, 1));
      reset_state();
    }
    embeddings_.put_tokens(ids.data(), 2, 0);
    const std::vector<float> logits = logits_of(read_embeddings(2));
    float largest = 0;
    float difference = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      largest = std::max(largest, std::abs(expected[i]));
      difference = std::max(difference, std::abs(expected[i] - logits[i]));
    }
    reset_state();
    is_found = difference <= 0.02F * largest;
    if (is_found) break;
  }
  if (is_found) return;
  model_->folder.embeddings.reset();
  model_->folder.contract.state.pop_back();
}

void EtFolder::write_profile() { model_->parts.at("decode").program->write_profile(); }

void EtFolder::use_method(const std::string& name, int64_t) {
  if (name != "decode")
    throw Error(ErrorCode::kInput, "method: expected one of decode, got " + name);
}

TensorView EtFolder::run(Part& part, const FolderAsk& ask, ErrorCode input_error) {
  const FolderCall& call = *part.call;
  const bool has_cache = !call.cache_outputs.empty();
  const int64_t end = ask.position + ask.num_tokens;
  if (has_cache) cache_.begin_call(part, end);
  const int64_t copied_before = part.program->copied_input_bytes();
  for (size_t i = 0; i < call.inputs.size(); ++i) {
    const PartInput& input = call.inputs[i];
    const bool is_cache = input.feed == Feed::kCache;
    if (is_cache && model_->folder.cache[input.cache].kept) continue;
    part.program->set_input(
        kForward, i,
        is_cache ? cache_.view(input.cache) : make_folder_input(input, ask, part.inputs[i]),
        input_error);
  }
  copied_input_bytes_ += part.program->copied_input_bytes() - copied_before;
  const std::vector<TensorView> outputs = part.program->execute(kForward);
  if (outputs.size() <= call.result || outputs[call.result].dtype == DType::kOther)
    throw Error(ErrorCode::kExecution, call.path + ": the output that is wanted is missing");
  if (has_cache) cache_.end_call(part, outputs, end);
  return outputs[call.result];
}

// The last rows of logits that a part gives, (num_rows, vocab_size).
TensorView EtFolder::last_logits(Part& part, const FolderAsk& ask, int64_t num_rows) {
  TensorView logits = run(part, ask, ErrorCode::kExecution);
  const bool fits = logits.shape.size() == 3 && logits.shape[0] == 1 &&
                    logits.shape[1] >= num_rows &&
                    logits.shape[2] == model_->folder.contract.vocab_size;
  if (!fits)
    throw Error(ErrorCode::kExecution,
                part.call->path + ": expected logits, got " + logits.describe());
  logits.shape.erase(logits.shape.begin());
  return row_range(logits, logits.shape[0] - num_rows, num_rows);
}

TensorView EtFolder::decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) {
  return last_row(decode_rows(ids, num_tokens, position, 1, false));
}

TensorView EtFolder::decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                                 int64_t num_rows, bool is_alone) {
  const ops::RowsAlone scope(is_alone);
  embeddings_.put_tokens(ids, num_tokens, position);
  const int64_t end = position + num_tokens;
  const bool is_put_off = position > num_read_;
  if (is_put_off && num_rows == 1 && embeddings_.num_known() >= end &&
      end <= model_->folder.language_model->max_tokens)
    return lent(read_embeddings(end), last_logits_);
  if (is_put_off) read_hidden(position);
  num_read_ = end;  // once this has succeeded; else the prompt is taken back to where it began
  const int64_t most = model_->folder.contract.max_chunk;
  if (position == 0 && model_->folder.prefill && (num_tokens > most || needs_start()))
    return lent(last_logits(model_->parts.at("prefill"), {ids, {}, num_tokens, 0}, num_rows),
                last_logits_);
  if (position == 0 && needs_start()) return lent(read_embeddings(num_tokens), last_logits_);
  cache_.cut(position);
  TensorView logits;
  for (int64_t done = 0; done < num_tokens; done += most) {
    const int64_t count = std::min(most, num_tokens - done);
    logits =
        last_logits(model_->parts.at("decode"), {ids + done, {}, count, position + done}, num_rows);
  }
  return lent(logits, last_logits_);
}

bool EtFolder::needs_start() const {
  return model_->folder.contract.cache.is_recurrent ||
         std::any_of(model_->folder.cache.begin(), model_->folder.cache.end(),
                     [](const CacheTensor& tensor) { return tensor.grows; });
}

TensorView EtFolder::read_embeddings(int64_t num_rows) {
  return last_logits(model_->parts.at("lm_head"), {nullptr, read_hidden(num_rows), 0, 0}, 1);
}

// language_model knows no cache that is in use: it reads the conversation from its beginning.
TensorView EtFolder::read_hidden(int64_t num_rows) {
  const FolderCall& call = *model_->folder.language_model;
  if (num_rows > call.max_tokens) {
    throw Error(ErrorCode::kInput,
                "prompt: language_model reads images and audio anew with all that is before them, "
                "up to " +
                    std::to_string(call.max_tokens) + " positions, got " +
                    std::to_string(num_rows));
  }
  TensorView hidden =
      run(model_->parts.at("language_model"), {nullptr, embeddings_.rows(num_rows), num_rows, 0},
          ErrorCode::kExecution);
  if (hidden.shape.size() != 3 || hidden.shape[1] < 1)
    throw Error(ErrorCode::kExecution,
                "language_model: expected hidden states, got " + hidden.describe());
  hidden.shape.erase(hidden.shape.begin());
  TensorView last = row_range(hidden, hidden.shape[0] - 1, 1);
  last.shape.insert(last.shape.begin(), 1);
  num_read_ = num_rows;
  return last;
}

bool EtFolder::can_put_off(int64_t position, int64_t num_rows) const {
  const auto& call = model_->folder.language_model;
  return call && position <= embeddings_.num_known() && position + num_rows <= call->max_tokens;
}

// Without media only at the beginning: elsewhere decode has less to read than language_model.
bool EtFolder::put_off_tokens(const int64_t* ids, int64_t num_tokens, int64_t position,
                              bool has_media, int64_t /*limit*/) {
  if (!model_->folder.embeddings || !can_put_off(position, num_tokens)) return false;
  if (!has_media && position > 0 && position <= num_read_) return false;
  embeddings_.put_tokens(ids, num_tokens, position);
  num_read_ = std::min(num_read_, position);
  return true;
}

bool EtFolder::put_off_embeddings(const TensorView& embeddings, int64_t position,
                                  int64_t /*limit*/) {
  if (!can_put_off(position, embeddings.shape[0])) return false;
  embeddings_.put(embeddings, position);
  num_read_ = std::min(num_read_, position);
  return true;
}

TensorView EtFolder::decode_embeddings(const TensorView& embeddings, int64_t position,
                                       int64_t /*placeholder_id*/) {
  if (position > embeddings_.num_known()) {
    throw Error(ErrorCode::kInput,
                "prompt: expected images and audio at the beginning of the conversation: the "
                "folder holds no table of the embeddings of the tokens before them");
  }
  embeddings_.put(embeddings, position);
  return last_row(lent(read_embeddings(embeddings_.num_known()), last_logits_));
}

TensorView EtFolder::encode(const std::string& name, const MediaView& media,
                            const std::string& what) {
  const bool is_image = what == "image";
  if (media.beside.dtype != DType::kOther) {
    throw Error(ErrorCode::kInput,
                what + ": " + name + " takes neither masks nor positions beside the values");
  }
  const auto found = model_->parts.find(name);
  if (found == model_->parts.end()) refuse_media(what);
  Part& encoder = found->second;
  const PartInput& input = encoder.call->inputs[media_input(encoder)];
  TensorView given = media_.take(media.values, input.dtype, what, is_image);
  // Leading dimensions of one may be left out or given.
  while (given.shape.size() < input.shape.size()) given.shape.insert(given.shape.begin(), 1);
  while (given.shape.size() > input.shape.size() && given.shape[0] == 1)
    given.shape.erase(given.shape.begin());
  if (given.shape != input.shape)
    refuse_media(what, name, {nullptr, input.dtype, input.shape}, given);
  TensorView rows = run(encoder, {nullptr, given, 0, 0}, ErrorCode::kInput);
  const bool has_summary = model_->folder.skips_first_feature && is_image;
  if (has_summary && rows.shape.size() == 3 && rows.shape[0] == 1 && rows.shape[1] > 1) {
    rows.shape.erase(rows.shape.begin());
    rows = row_range(rows, 1, rows.shape[0] - 1);
    rows.shape.insert(rows.shape.begin(), 1);
  }
  const auto projector = model_->parts.find(is_image ? "image_projector" : "audio_projector");
  if (projector != model_->parts.end()) rows = project(projector->second, rows);
  const int64_t columns = model_->folder.contract.hidden_size;
  if (rows.shape.empty() || rows.shape.back() != columns)
    throw Error(ErrorCode::kExecution, name + ": expected embeddings of " +
                                           std::to_string(columns) + " features, got " +
                                           rows.describe());
  rows.shape = {rows.size() / columns, columns};
  return rows;
}

// Some projectors take several rows as one.
TensorView EtFolder::project(Part& projector, TensorView rows) {
  const size_t index = media_input(projector);
  const Shape& bound = projector.call->method.inputs[index].shape;
  const int64_t features = bound.back();
  if (rows.shape.size() != bound.size() || rows.shape.back() != features) {
    if (features < 1 || rows.size() % features != 0)
      throw Error(ErrorCode::kExecution, projector.call->path + ": expected rows of " +
                                             std::to_string(features) + " features, got " +
                                             rows.describe());
    rows.shape = {rows.size() / features, features};
    while (rows.shape.size() < bound.size()) rows.shape.insert(rows.shape.begin(), 1);
  }
  rows = convert(rows, projector.call->inputs[index].dtype, converted_rows_, "features");
  return run(projector, {nullptr, rows, 0, 0}, ErrorCode::kExecution);
}

TensorView EtFolder::encode_image(const MediaView& image) {
  return lent(encode("image_encoder", image, "image"), encoded_rows_);
}

TensorView EtFolder::encode_audio(const MediaView& audio) {
  return lent(encode("audio_encoder", audio, "audio"), encoded_rows_);
}

void EtFolder::reset_state() {
  if (!is_shared()) {
    for (auto& [name, part] : model_->parts) part.program->methods().at(kForward).arena->reset();
  }
  cache_.reset(is_shared());
  embeddings_.clear();
  num_read_ = 0;
}

std::unique_ptr<StateSnapshot> EtFolder::save_state(int64_t num_flat_rows) const {
  auto snapshot = std::make_unique<FolderSnapshot>();
  snapshot->model = model_;
  snapshot->num_flat_rows = num_flat_rows;
  cache_.save(num_flat_rows, snapshot->bytes);
  embeddings_.save(num_flat_rows, snapshot->bytes);
  return snapshot;
}

void EtFolder::restore_state(const StateSnapshot& snapshot) {
  const auto* ours = dynamic_cast<const FolderSnapshot*>(&snapshot);
  if (ours == nullptr || ours->model.lock() != model_)
    throw Error(ErrorCode::kInput, "snapshot: it was not made by this model");
  write_state(ours->num_flat_rows, ours->bytes.data());
}

void EtFolder::load_state(int64_t num_flat_rows, ByteSpan bytes) {
  expect_state_bytes(bytes, contract().state_bytes(num_flat_rows), num_flat_rows);
  write_state(num_flat_rows, bytes.data);
}

void EtFolder::write_state(int64_t num_flat_rows, const uint8_t* bytes) {
  const uint8_t* const behind = cache_.load(num_flat_rows, bytes);
  if (num_flat_rows == 0) return;  // only what is not a row was put back
  embeddings_.load(num_flat_rows, behind);
  num_read_ = num_flat_rows;
}

}  // namespace emm
