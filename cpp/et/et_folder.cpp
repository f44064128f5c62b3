#include "et/et_folder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/error.h"
#include "et/thread_pool.h"
#include "model/convert.h"
#include "ops/kernels.h"

namespace emm {
namespace {

const char* const kForward = "forward";

struct FolderSnapshot final : StateSnapshot {
  std::weak_ptr<const void> model;
  int64_t num_flat_rows = 0;
  std::vector<uint8_t> bytes;  // as contract().state has it
  size_t size_bytes() const override { return bytes.size(); }
  std::vector<ByteSpan> spans() const override { return {{bytes.data(), bytes.size()}}; }
};

// (1, heads, rows, features): blocks of rows, one for each head.
struct Rows {
  int64_t heads = 1;
  size_t row_bytes = 0;
};

Rows rows_of(const CacheTensor& tensor) {
  const size_t element = dtype_size(tensor.dtype);
  if (tensor.kind != StateKind::kFlat)
    return {1, static_cast<size_t>(num_elements(tensor.shape)) * element};
  return {tensor.shape[1], static_cast<size_t>(tensor.shape[3]) * element};
}

// Copies the first num_rows rows of each block between memories with different numbers of rows.
void copy_rows(const Rows& rows, const uint8_t* from, int64_t from_rows, uint8_t* to,
               int64_t to_rows, int64_t num_rows) {
  const size_t bytes = static_cast<size_t>(num_rows) * rows.row_bytes;
  if (bytes == 0) return;  // there may be no memory yet
  for (int64_t head = 0; head < rows.heads; ++head) {
    std::memmove(to + static_cast<size_t>(head * to_rows) * rows.row_bytes,
                 from + static_cast<size_t>(head * from_rows) * rows.row_bytes, bytes);
  }
}

template <typename Element>
void fill(std::vector<uint8_t>& buffer, int64_t count, int64_t first, int64_t step) {
  buffer.resize(static_cast<size_t>(count) * sizeof(Element));
  auto* elements = reinterpret_cast<Element*>(buffer.data());
  for (int64_t i = 0; i < count; ++i) elements[i] = static_cast<Element>(first + i * step);
}

void fill(DType dtype, std::vector<uint8_t>& buffer, int64_t count, int64_t first, int64_t step) {
  if (dtype == DType::kInt64) return fill<int64_t>(buffer, count, first, step);
  if (dtype == DType::kInt32) return fill<int32_t>(buffer, count, first, step);
  if (dtype == DType::kBool || dtype == DType::kUInt8)
    return fill<uint8_t>(buffer, count, first, step);
  if (dtype == DType::kFloat32) return fill<float>(buffer, count, first, step);
  // Zero is zero in every type.
  if (first != 0 || step != 0)
    throw Error(ErrorCode::kExecution, std::string("cannot count in ") + dtype_name(dtype));
  buffer.assign(static_cast<size_t>(count) * dtype_size(dtype), 0);
}

}  // namespace

EtFolder::EtFolder(const LoadOptions& options) : model_(std::make_shared<Model>()) {
  if (!options.data_paths.empty())
    throw Error(ErrorCode::kInput, "data_path: an export folder keeps no weights elsewhere");
  if (!options.kv_cache_dtype.empty()) {
    throw Error(ErrorCode::kInput,
                "kv_cache_dtype: an export folder's programs take the cache as they were exported");
  }
  if (!options.method.empty() && options.method != "decode")
    throw Error(ErrorCode::kInput, "method: expected one of decode, got " + options.method);
  std::vector<std::unique_ptr<EtProgram>> programs;
  std::vector<ProgramInfo> structures;
  size_t file_bytes = 0;
  for (const FolderPart& part : options.folder.parts) {
    LoadOptions one = options;
    one.folder = {};
    one.model_path = part.path;
    if (part.name != "decode") one.profile_path.clear();
    programs.push_back(std::make_unique<EtProgram>(one));
    structures.push_back(programs.back()->take_structure());
    file_bytes += programs.back()->file_bytes();
  }
  model_->folder = read_folder(options.folder, structures, options.max_context_len);
  model_->num_threads =
      options.num_threads > 0 ? options.num_threads : untried_num_threads(file_bytes);

  const std::vector<std::pair<const char*, const FolderCall*>> calls = {
      {"decode", &model_->folder.decode},
      {"prefill", model_->folder.prefill ? &*model_->folder.prefill : nullptr},
      {"language_model", model_->folder.language_model ? &*model_->folder.language_model : nullptr},
      {"lm_head", model_->folder.lm_head ? &*model_->folder.lm_head : nullptr},
      {"image_encoder", model_->folder.image_encoder ? &*model_->folder.image_encoder : nullptr},
      {"audio_encoder", model_->folder.audio_encoder ? &*model_->folder.audio_encoder : nullptr},
      {"image_projector",
       model_->folder.image_projector ? &*model_->folder.image_projector : nullptr},
      {"audio_projector",
       model_->folder.audio_projector ? &*model_->folder.audio_projector : nullptr}};
  for (const auto& [name, call] : calls) {
    if (call == nullptr) continue;
    const auto& all = options.folder.parts;
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const FolderPart& one) { return one.path == call->path; });
    const auto index = static_cast<size_t>(found - all.begin());
    if (programs[index] == nullptr)
      throw Error(ErrorCode::kContract, call->path + ": expected a file for each component");
    Part& part = model_->parts[name];
    part.call = call;
    part.program = std::move(programs[index]);
    part.program->use_threads(model_->num_threads);
    part.program->load_method(call->method);
    part.inputs.resize(call->inputs.size());
  }
  place_cache();
  give_sizes();
  model_->resident = kept_;
  for (const CacheTensor& tensor : model_->folder.cache)
    model_->folder.contract.is_state_copied |= tensor.kept.has_value();
  if (model_->folder.embeddings) find_embedding_scale();
  copied_input_bytes_ = 0;
}

EtFolder::EtFolder(const EtFolder& other) : model_(other.model_) { place_cache(); }

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
  int64_t bytes = 0;
  for (const StateTensor& tensor : contract().state) bytes += tensor.bytes_of(num_flat_rows);
  return {{this, bytes}};
}

TensorView EtFolder::lent(const TensorView& output, std::vector<uint8_t>& copy) const {
  if (!is_shared() || output.data == copy.data()) return output;
  const auto* bytes = static_cast<const uint8_t*>(output.data);
  copy.assign(bytes, bytes + output.size_bytes());
  return {copy.data(), output.dtype, output.shape};
}

void EtFolder::copy_kept(Kept& kept, bool is_out) const {
  kept.copies.resize(cache_.size());
  for (size_t i = 0; i < cache_.size(); ++i) {
    const CacheTensor& tensor = model_->folder.cache[i];
    if (!tensor.kept) continue;
    auto& copy = kept.copies[i];
    if (copy == nullptr)
      copy = std::make_unique<PlannedMemory>(static_cast<int64_t>(tensor.memory_bytes));
    const bool is_flat = tensor.kind == StateKind::kFlat;
    const int64_t there = is_flat ? cache_[i].rows : 1;
    uint8_t* const apart = copy->bytes().data();
    copy_rows(rows_of(tensor), is_out ? cache_[i].data : apart, there,
              is_out ? apart : cache_[i].data, there, is_flat ? std::min(kept.num_rows, there) : 1);
  }
}

void EtFolder::settle(const std::shared_ptr<Kept>& kept) const {
  if (model_->resident.lock() == kept) copy_kept(*kept, true);
}

void EtFolder::bring_in() const {
  const std::shared_ptr<Kept> before = model_->resident.lock();
  if (before == kept_) return;
  if (before != nullptr) copy_kept(*before, true);
  copy_kept(*kept_, false);
  model_->resident = kept_;
}

// As fork(), for one that has a cache already.
void EtFolder::read_from(const EtFolder& other, int64_t num_flat_rows) {
  settle(other.kept_);
  auto kept = std::make_shared<Kept>();
  kept->num_rows = num_flat_rows;
  kept->copies.resize(cache_.size());
  for (size_t i = 0; i < cache_.size(); ++i) {
    const CacheTensor& tensor = model_->folder.cache[i];
    const bool is_flat = tensor.kind == StateKind::kFlat;
    const Memory& theirs = other.cache_[i];
    if (tensor.grows) cache_[i].rows = num_flat_rows;
    const int64_t there = is_flat ? theirs.rows : 1;
    const uint8_t* from = theirs.data;
    uint8_t* to = cache_[i].data;
    if (tensor.kept) {
      kept->copies[i] = std::make_unique<PlannedMemory>(static_cast<int64_t>(tensor.memory_bytes));
      to = kept->copies[i]->bytes().data();
      if (i >= other.kept_->copies.size() || other.kept_->copies[i] == nullptr) continue;
      from = other.kept_->copies[i]->bytes().data();
    }
    copy_rows(rows_of(tensor), from, there, to, is_flat ? cache_[i].rows : 1,
              is_flat ? std::min(num_flat_rows, there) : 1);
  }
  kept_ = std::move(kept);
  const size_t known = std::min(
      other.embedded_.size(),
      model_->folder.language_model ? static_cast<size_t>(num_flat_rows) * embedding_bytes() : 0);
  embedded_.assign(other.embedded_.begin(),
                   other.embedded_.begin() + static_cast<std::ptrdiff_t>(known));
  num_known_ = std::min(other.num_known_, num_flat_rows);
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
    remember_tokens(ids.data(), 2, 0);
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

void EtFolder::place_cache() {
  const Part& decode = model_->parts.at("decode");
  cache_.resize(model_->folder.cache.size());
  for (size_t i = 0; i < cache_.size(); ++i) {
    const CacheTensor& tensor = model_->folder.cache[i];
    Memory& memory = cache_[i];
    memory.rows = tensor.grows ? 0 : tensor.rows();
    if (tensor.kept) {
      const Arena& arena = *decode.program->methods().at(kForward).arena;
      memory.data = arena.at(tensor.arena_buffer, *tensor.kept);
    } else {
      memory.own = std::make_unique<PlannedMemory>(static_cast<int64_t>(tensor.memory_bytes));
      memory.data = memory.own->bytes().data();
    }
    if (!tensor.is_in_place)
      memory.next = std::make_unique<PlannedMemory>(static_cast<int64_t>(tensor.memory_bytes));
  }
}

// What stays in the decoder's own memory is given its size once.
void EtFolder::give_sizes() {
  const Part& decode = model_->parts.at("decode");
  for (size_t i = 0; i < model_->folder.decode.inputs.size(); ++i) {
    const PartInput& input = model_->folder.decode.inputs[i];
    if (input.feed != Feed::kCache || !model_->folder.cache[input.cache].kept) continue;
    TensorView zeros = cache_view(input.cache);
    const std::vector<uint8_t> nothing(zeros.size_bytes(), 0);
    zeros.data = nothing.data();
    decode.program->set_input(kForward, i, zeros, ErrorCode::kLoad);
  }
}

void EtFolder::write_profile() { model_->parts.at("decode").program->write_profile(); }

void EtFolder::use_method(const std::string& name, int64_t) {
  if (name != "decode")
    throw Error(ErrorCode::kInput, "method: expected one of decode, got " + name);
}

TensorView EtFolder::cache_view(size_t index) const {
  const CacheTensor& tensor = model_->folder.cache[index];
  TensorView view{cache_[index].data, tensor.dtype, tensor.shape};
  if (tensor.kind == StateKind::kFlat) view.shape[2] = cache_[index].rows;
  return view;
}

TensorView EtFolder::make_input(Part& part, size_t index, const Ask& ask) {
  const PartInput& input = part.call->inputs[index];
  std::vector<uint8_t>& buffer = part.inputs[index];
  const int64_t end = ask.position + ask.num_tokens;
  TensorView view{nullptr, input.dtype, {}};
  switch (input.feed) {
    case Feed::kNone:
      return {};
    case Feed::kCache:
      return cache_view(input.cache);
    case Feed::kMedia:
    case Feed::kEmbeddings:
      return ask.media;
    case Feed::kIds:
      return convert({ask.ids, DType::kInt64, {1, ask.num_tokens}}, input.dtype, buffer, "tokens");
    case Feed::kTypes:
      view.shape = {1, ask.num_tokens};
      fill(input.dtype, buffer, view.size(), 0, 0);
      break;
    case Feed::kZeros:
    case Feed::kOnes:
      view.shape = input.shape;
      fill(input.dtype, buffer, view.size(), input.feed == Feed::kOnes ? 1 : 0, 0);
      break;
    case Feed::kLength:
      view.shape = input.shape;
      fill(DType::kInt64, buffer, 1, ask.position, 0);
      break;
    case Feed::kPositions:
      view.shape = input.shape;
      view.shape.back() = ask.num_tokens;
      fill(input.dtype, buffer, ask.num_tokens, ask.position, 1);
      // The axes of an image's positions are all the same for text.
      for (int64_t axis = 1; axis < view.size() / ask.num_tokens; ++axis) {
        const std::vector<uint8_t> first(
            buffer.begin(),
            buffer.begin() + ask.num_tokens * static_cast<int64_t>(dtype_size(input.dtype)));
        buffer.insert(buffer.end(), first.begin(), first.end());
      }
      break;
    case Feed::kFlags: {
      const int64_t keys = input.keys > 0 ? input.keys : end;
      view.shape = {1, keys};
      fill(input.dtype, buffer, keys, 1, 0);
      const size_t used = static_cast<size_t>(std::min(end, keys)) * dtype_size(input.dtype);
      std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(used), buffer.end(), uint8_t{0});
      break;
    }
    case Feed::kMask: {
      const int64_t keys = input.keys > 0 ? input.keys : end;
      view.shape = {1, 1, ask.num_tokens, keys};
      buffer.assign(static_cast<size_t>(view.size()), 0);
      for (int64_t token = 0; token < ask.num_tokens; ++token) {
        const int64_t seen = std::min(keys, ask.position + token + 1);
        std::memset(buffer.data() + token * keys, 1, static_cast<size_t>(seen));
      }
      break;
    }
  }
  view.data = buffer.data();
  return view;
}

// Lets the cache come out where it is to be, if the program leaves that to us.
void EtFolder::bind_cache(Part& part) {
  const bool is_decode = part.call == &model_->folder.decode;
  for (size_t i = 0; i < cache_.size(); ++i) {
    const auto output = part.call->cache_outputs[i];
    if (!output || (is_decode && model_->folder.cache[i].is_in_place)) continue;
    const TensorSpec& spec = part.call->method.outputs[*output];
    const TensorView target{is_decode ? cache_[i].next->bytes().data() : cache_[i].data, spec.dtype,
                            spec.shape};
    if (!spec.is_planned && target.size_bytes() <= model_->folder.cache[i].memory_bytes)
      part.program->set_output(kForward, *output, target);
  }
}

TensorView EtFolder::run(Part& part, const Ask& ask, ErrorCode input_error) {
  const bool has_cache = !part.call->cache_outputs.empty();
  if (has_cache) {
    bring_in();
    kept_->num_rows = ask.position + ask.num_tokens;
  }
  const int64_t copied_before = part.program->copied_input_bytes();
  for (size_t i = 0; i < part.call->inputs.size(); ++i) {
    const PartInput& input = part.call->inputs[i];
    if (input.feed == Feed::kCache && model_->folder.cache[input.cache].kept) continue;
    part.program->set_input(kForward, i, make_input(part, i, ask), input_error);
  }
  if (has_cache) bind_cache(part);
  copied_input_bytes_ += part.program->copied_input_bytes() - copied_before;
  const std::vector<TensorView> outputs = part.program->execute(kForward);
  if (outputs.size() <= part.call->result || outputs[part.call->result].dtype == DType::kOther)
    throw Error(ErrorCode::kExecution, part.call->path + ": the output that is wanted is missing");
  if (has_cache) take_cache(part, outputs, ask);
  return outputs[part.call->result];
}

void EtFolder::take_cache(const Part& part, const std::vector<TensorView>& outputs,
                          const Ask& ask) {
  const bool is_decode = part.call == &model_->folder.decode;
  for (size_t i = 0; i < cache_.size(); ++i) {
    const CacheTensor& tensor = model_->folder.cache[i];
    Memory& memory = cache_[i];
    if (is_decode && tensor.is_in_place && (!tensor.is_planned || tensor.kept)) continue;
    const TensorView& given = outputs[*part.call->cache_outputs[i]];
    Shape expected = tensor.shape;
    if (tensor.grows) expected[2] = ask.position + ask.num_tokens;
    if (given.dtype != tensor.dtype || given.shape != expected ||
        given.size_bytes() > tensor.memory_bytes) {
      throw Error(ErrorCode::kExecution,
                  part.call->path + ": expected a cache " +
                      TensorView{nullptr, tensor.dtype, expected}.describe() + ", got " +
                      given.describe());
    }
    if (tensor.kind == StateKind::kFlat) memory.rows = expected[2];
    if (memory.next && given.data == memory.next->bytes().data()) {
      std::swap(memory.own, memory.next);
      memory.data = memory.own->bytes().data();
    } else if (given.data != memory.data) {
      std::memcpy(memory.data, given.data, given.size_bytes());
    }
  }
}

void EtFolder::cut_cache(int64_t position) {
  for (size_t i = 0; i < cache_.size(); ++i) {
    if (!model_->folder.cache[i].grows || cache_[i].rows <= position) continue;
    copy_rows(rows_of(model_->folder.cache[i]), cache_[i].data, cache_[i].rows, cache_[i].data,
              position, position);
    cache_[i].rows = position;
  }
}

// The last rows of logits that a part gives, (num_rows, vocab_size).
TensorView EtFolder::last_logits(Part& part, const Ask& ask, int64_t num_rows) {
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
  TensorView logits = decode_rows(ids, num_tokens, position, 1, false);
  logits.shape.erase(logits.shape.begin());
  return logits;
}

TensorView EtFolder::decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                                 int64_t num_rows, bool is_alone) {
  const ops::RowsAlone scope(is_alone);
  remember_tokens(ids, num_tokens, position);
  const int64_t end = position + num_tokens;
  const bool is_put_off = position > num_read_;
  if (is_put_off && num_rows == 1 && num_known_ >= end &&
      end <= model_->folder.language_model->max_tokens)
    return lent(read_embeddings(end), last_logits_);
  if (is_put_off) read_hidden(position);
  num_read_ = end;  // once this has succeeded; else the prompt is taken back to where it began
  const int64_t most = model_->folder.contract.max_chunk;
  if (position == 0 && model_->folder.prefill && (num_tokens > most || needs_start()))
    return lent(last_logits(model_->parts.at("prefill"), {ids, {}, num_tokens, 0}, num_rows),
                last_logits_);
  if (position == 0 && needs_start()) return lent(read_embeddings(num_tokens), last_logits_);
  cut_cache(position);
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
  const DType dtype = embedding_dtype();
  const TensorView rows{
      embedded_.data(), dtype, {1, num_rows, model_->folder.contract.hidden_size}};
  TensorView hidden =
      run(model_->parts.at("language_model"), {nullptr, rows, num_rows, 0}, ErrorCode::kExecution);
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
  return call && position <= num_known_ && position + num_rows <= call->max_tokens;
}

// Without media only at the beginning: elsewhere decode has less to read than language_model.
bool EtFolder::put_off_tokens(const int64_t* ids, int64_t num_tokens, int64_t position,
                              bool has_media) {
  if (!model_->folder.embeddings || !can_put_off(position, num_tokens)) return false;
  if (!has_media && position > 0 && position <= num_read_) return false;
  remember_tokens(ids, num_tokens, position);
  num_read_ = std::min(num_read_, position);
  return true;
}

bool EtFolder::put_off_embeddings(const TensorView& embeddings, int64_t position) {
  if (!can_put_off(position, embeddings.shape[0])) return false;
  remember(embeddings, position);
  num_known_ = position + embeddings.shape[0];
  num_read_ = std::min(num_read_, position);
  return true;
}

DType EtFolder::embedding_dtype() const {
  for (const PartInput& input : model_->folder.language_model->inputs) {
    if (input.feed == Feed::kEmbeddings) return input.dtype;
  }
  return DType::kFloat32;
}

void EtFolder::remember(const TensorView& rows, int64_t position, float scale) {
  std::vector<float> scaled;
  TensorView given = rows;
  if (scale != 1.0F) {
    const TensorView floats = convert(rows, DType::kFloat32, converted_rows_, "embeddings");
    const auto* values = static_cast<const float*>(floats.data);
    scaled.assign(values, values + floats.size());
    for (float& value : scaled) value *= scale;
    given = {scaled.data(), DType::kFloat32, rows.shape};
  }
  const TensorView wanted = convert(given, embedding_dtype(), converted_rows_, "embeddings");
  const size_t row_bytes =
      static_cast<size_t>(model_->folder.contract.hidden_size) * dtype_size(wanted.dtype);
  const size_t begin = static_cast<size_t>(position) * row_bytes;
  embedded_.resize(begin + wanted.size_bytes());
  std::memcpy(embedded_.data() + begin, wanted.data, wanted.size_bytes());
}

void EtFolder::remember_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) {
  if (!model_->folder.language_model) return;
  const auto columns = model_->folder.contract.hidden_size;
  if (!model_->folder.embeddings) {
    // Unknown rows, which nothing may read.
    num_known_ = std::min(num_known_, position);
    return;
  }
  const EmbeddingTable& table = *model_->folder.embeddings;
  const size_t row_bytes = static_cast<size_t>(columns) * dtype_size(table.dtype);
  std::vector<uint8_t> rows(static_cast<size_t>(num_tokens) * row_bytes);
  std::ifstream file(model_->folder.decode.path, std::ios::binary);
  for (int64_t i = 0; i < num_tokens; ++i) {
    if (ids[i] < 0 || ids[i] >= table.rows)
      throw Error(ErrorCode::kInput, "tokens: expected ids below " + std::to_string(table.rows) +
                                         ", got " + std::to_string(ids[i]));
    file.seekg(
        static_cast<std::streamoff>(table.offset + static_cast<uint64_t>(ids[i]) * row_bytes));
    file.read(reinterpret_cast<char*>(rows.data()) + static_cast<size_t>(i) * row_bytes,
              static_cast<std::streamsize>(row_bytes));
  }
  if (!file)
    throw Error(ErrorCode::kExecution,
                model_->folder.decode.path + ": reading its embeddings failed");
  remember({rows.data(), table.dtype, {num_tokens, columns}}, position, model_->embedding_scale);
  num_known_ = position + num_tokens;
}

TensorView EtFolder::decode_embeddings(const TensorView& embeddings, int64_t position,
                                       int64_t /*placeholder_id*/) {
  if (position > num_known_) {
    throw Error(ErrorCode::kInput,
                "prompt: expected images and audio at the beginning of the conversation: the "
                "folder holds no table of the embeddings of the tokens before them");
  }
  remember(embeddings, position);
  num_known_ = position + embeddings.shape[0];
  TensorView logits = lent(read_embeddings(num_known_), last_logits_);
  logits.shape.erase(logits.shape.begin());
  return logits;
}

TensorView EtFolder::encode(const char* name, const MediaView& given_media, const char* what) {
  const TensorView& media = given_media.values;
  if (given_media.beside.dtype != DType::kOther) {
    throw Error(ErrorCode::kInput, std::string(what) + ": " + name +
                                       " takes neither masks nor positions beside the values");
  }
  const auto found = model_->parts.find(name);
  if (found == model_->parts.end()) {
    throw Error(ErrorCode::kInput,
                std::string(what) + ": the model has no encoder for it, so it takes no " + what);
  }
  Part& encoder = found->second;
  const auto input = std::find_if(encoder.call->inputs.begin(), encoder.call->inputs.end(),
                                  [](const PartInput& each) { return each.feed == Feed::kMedia; });
  if (!all_finite(media))
    throw Error(ErrorCode::kInput,
                std::string(what) + ": expected finite values, got NaN or infinity");
  TensorView given = what == std::string("image")
                         ? convert_image(media, input->dtype, converted_media_)
                         : convert(media, input->dtype, converted_media_, what);
  if (given.data != media.data) copied_input_bytes_ += static_cast<int64_t>(media.size_bytes());
  // Leading dimensions of one may be left out or given.
  while (given.shape.size() < input->shape.size()) given.shape.insert(given.shape.begin(), 1);
  while (given.shape.size() > input->shape.size() && given.shape[0] == 1)
    given.shape.erase(given.shape.begin());
  if (given.shape != input->shape) {
    throw Error(ErrorCode::kInput, std::string(what) + ": " + name + " expects " +
                                       TensorView{nullptr, input->dtype, input->shape}.describe() +
                                       ", got " + given.describe());
  }
  TensorView rows = run(encoder, {nullptr, given, 0, 0}, ErrorCode::kInput);
  const bool has_summary = model_->folder.skips_first_feature && what == std::string("image");
  if (has_summary && rows.shape.size() == 3 && rows.shape[0] == 1 && rows.shape[1] > 1) {
    rows.shape.erase(rows.shape.begin());
    rows = row_range(rows, 1, rows.shape[0] - 1);
    rows.shape.insert(rows.shape.begin(), 1);
  }
  const auto projector =
      model_->parts.find(what == std::string("image") ? "image_projector" : "audio_projector");
  if (projector != model_->parts.end()) rows = project(projector->second, rows);
  const int64_t columns = model_->folder.contract.hidden_size;
  if (rows.shape.empty() || rows.shape.back() != columns)
    throw Error(ErrorCode::kExecution, std::string(name) + ": expected embeddings of " +
                                           std::to_string(columns) + " features, got " +
                                           rows.describe());
  rows.shape = {rows.size() / columns, columns};
  return rows;
}

// Some projectors take several rows as one.
TensorView EtFolder::project(Part& projector, TensorView rows) {
  const auto input = std::find_if(projector.call->inputs.begin(), projector.call->inputs.end(),
                                  [](const PartInput& each) { return each.feed == Feed::kMedia; });
  const size_t index = static_cast<size_t>(input - projector.call->inputs.begin());
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
  rows = convert(rows, input->dtype, converted_rows_, "features");
  return run(projector, {nullptr, rows, 0, 0}, ErrorCode::kExecution);
}

TensorView EtFolder::encode_image(const MediaView& image) {
  return lent(encode("image_encoder", image, "image"), encoded_rows_);
}

TensorView EtFolder::encode_audio(const MediaView& audio) {
  return lent(encode("audio_encoder", audio, "audio"), encoded_rows_);
}

void EtFolder::reset_state() {
  if (is_shared()) {
    // What another has in the decoder's memory stays.
    kept_ = std::make_shared<Kept>();
  } else {
    for (auto& [name, part] : model_->parts) part.program->methods().at(kForward).arena->reset();
    kept_->copies.clear();
    kept_->num_rows = 0;
    model_->resident = kept_;
  }
  for (size_t i = 0; i < cache_.size(); ++i) {
    if (cache_[i].own) cache_[i].own->reset();
    if (model_->folder.cache[i].grows) cache_[i].rows = 0;
  }
  embedded_.clear();
  num_known_ = num_read_ = 0;
}

// Calls visit(memory, rows in it, rows to copy, how they lie) for each tensor of the state.
template <typename Visit>
void EtFolder::for_each_tensor(int64_t num_flat_rows, Visit visit) const {
  for (size_t i = 0; i < cache_.size(); ++i) {
    const CacheTensor& tensor = model_->folder.cache[i];
    const bool is_flat = tensor.kind == StateKind::kFlat;
    const int64_t there = !is_flat       ? 1
                          : tensor.grows ? std::max(cache_[i].rows, num_flat_rows)
                                         : cache_[i].rows;
    visit(cache_[i].data, there, is_flat ? std::min(num_flat_rows, there) : 1, rows_of(tensor));
  }
}

std::unique_ptr<StateSnapshot> EtFolder::save_state(int64_t num_flat_rows) const {
  bring_in();
  auto snapshot = std::make_unique<FolderSnapshot>();
  snapshot->model = model_;
  snapshot->num_flat_rows = num_flat_rows;
  std::vector<uint8_t>& bytes = snapshot->bytes;
  for_each_tensor(num_flat_rows,
                  [&](const uint8_t* data, int64_t there, int64_t kept, const Rows& rows) {
                    const size_t begin = bytes.size();
                    bytes.resize(begin + static_cast<size_t>(kept * rows.heads) * rows.row_bytes);
                    copy_rows(rows, data, there, bytes.data() + begin, kept, kept);
                  });
  if (model_->folder.embeddings) {
    const size_t size = static_cast<size_t>(num_flat_rows) * embedding_bytes();
    const size_t begin = bytes.size();
    bytes.resize(begin + size);  // of rows that were never embedded: zeros
    std::copy_n(embedded_.begin(), std::min(size, embedded_.size()), bytes.data() + begin);
  }
  return snapshot;
}

void EtFolder::restore_state(const StateSnapshot& snapshot) {
  const auto* ours = dynamic_cast<const FolderSnapshot*>(&snapshot);
  if (ours == nullptr || ours->model.lock() != model_)
    throw Error(ErrorCode::kInput, "snapshot: it was not made by this model");
  write_state(ours->num_flat_rows, ours->bytes.data());
}

void EtFolder::load_state(int64_t num_flat_rows, ByteSpan bytes) {
  int64_t expected = 0;
  for (const StateTensor& tensor : model_->folder.contract.state)
    expected += tensor.bytes_of(num_flat_rows);
  if (static_cast<int64_t>(bytes.size) != expected) {
    throw Error(ErrorCode::kInput, "state: expected " + std::to_string(expected) + " bytes for " +
                                       std::to_string(num_flat_rows) + " positions, got " +
                                       std::to_string(bytes.size));
  }
  write_state(num_flat_rows, bytes.data);
}

void EtFolder::write_state(int64_t num_flat_rows, const uint8_t* bytes) {
  bring_in();
  const bool has_rows = num_flat_rows > 0;  // else what is not a row alone is put back
  if (has_rows) kept_->num_rows = num_flat_rows;
  for (size_t i = 0; i < cache_.size(); ++i) {
    if (has_rows && model_->folder.cache[i].grows) cache_[i].rows = num_flat_rows;
  }
  for_each_tensor(num_flat_rows, [&](uint8_t* data, int64_t there, int64_t kept, const Rows& rows) {
    copy_rows(rows, bytes, kept, data, there, kept);
    bytes += static_cast<size_t>(kept * rows.heads) * rows.row_bytes;
  });
  if (!has_rows) return;
  num_known_ = 0;
  num_read_ = num_flat_rows;
  if (!model_->folder.embeddings) return;
  embedded_.assign(bytes, bytes + static_cast<size_t>(num_flat_rows) * embedding_bytes());
  num_known_ = num_flat_rows;
}

size_t EtFolder::embedding_bytes() const {
  return static_cast<size_t>(model_->folder.contract.hidden_size) * dtype_size(embedding_dtype());
}

}  // namespace emm
