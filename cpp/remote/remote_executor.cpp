#include "remote/remote_executor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace emm::remote {
namespace {

struct RemoteSnapshot final : StateSnapshot {
  const Contract* contract = nullptr;
  int64_t num_flat_rows = 0;
  std::weak_ptr<const RemoteModel> model;
  std::vector<uint8_t> bytes;
  size_t size_bytes() const override { return bytes.size(); }
  std::vector<ByteSpan> spans() const override { return {{bytes.data(), bytes.size()}}; }
};

bool is_float(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat16 || dtype == DType::kBFloat16 ||
         dtype == DType::kFloat64;
}

}  // namespace

RemoteExecutor::RemoteExecutor(std::shared_ptr<RemoteModel> model)
    : model_(std::move(model)), current_(&model_->contracts().at(0)) {}

RemoteExecutor::RemoteExecutor(const RemoteExecutor& other, int64_t conversation)
    : model_(other.model_), current_(other.current_), conversation_(conversation) {}

RemoteExecutor::~RemoteExecutor() {
  if (model_.use_count() > 1) model_->drop(conversation_);
}

std::unique_ptr<Executor> RemoteExecutor::another() {
  Message request;
  request.kind = Kind::kAnother;
  request.numbers[0] = model_->next_conversation();
  call(request);
  return std::unique_ptr<Executor>(new RemoteExecutor(*this, request.numbers[0]));
}

std::unique_ptr<Executor> RemoteExecutor::fork(int64_t num_flat_rows) {
  Message request;
  request.kind = Kind::kFork;
  request.numbers = {model_->next_conversation(), num_flat_rows, 0, 0};
  call(request);
  return std::unique_ptr<Executor>(new RemoteExecutor(*this, request.numbers[0]));
}

void RemoteExecutor::go_on_from(Executor& other, int64_t num_flat_rows, int64_t num_used) {
  const auto* const theirs = dynamic_cast<const RemoteExecutor*>(&other);
  if (theirs == nullptr || theirs->model_ != model_)
    throw Error(ErrorCode::kInput, "expected a conversation with the same model");
  Message request;
  request.kind = Kind::kGoOnFrom;
  request.numbers = {theirs->conversation_, num_flat_rows, num_used, 0};
  call(request);
}

std::vector<MemoryUse> RemoteExecutor::memory(int64_t num_flat_rows) const {
  return {{this, current_->state_bytes(num_flat_rows)}};
}

Message RemoteExecutor::call(Message request, const std::string& text) const {
  request.conversation = conversation_;
  const Message answer = model_->call(request, text);
  copied_input_bytes_ = std::max<int64_t>(copied_input_bytes_, answer.numbers[0]);
  return answer;
}

Message RemoteExecutor::call(Kind kind, int64_t number) const {
  Message request;
  request.kind = kind;
  request.numbers[0] = number;
  return call(request);
}

void RemoteExecutor::put(Message& request, const TensorView& first,
                         const TensorView& second) const {
  request.first = describe(first);
  request.second = describe(second);
  const size_t offset = aligned(first.size_bytes());
  const size_t second_bytes = second.data == nullptr ? 0 : second.size_bytes();
  model_->memory().grow(std::max<size_t>(1, offset + second_bytes));
  if (first.size_bytes() > 0) std::memcpy(model_->memory().data(), first.data, first.size_bytes());
  if (second_bytes > 0) std::memcpy(model_->memory().data() + offset, second.data, second_bytes);
}

TensorView RemoteExecutor::taken(const Message& answer, std::vector<uint8_t>& copy) const {
  TensorView view;
  try {
    view = view_of(answer.first, model_->memory().data(), model_->memory().bytes(), 0);
    if (!is_float(view.dtype)) throw Closed();
  } catch (const Closed&) {
    throw Error(ErrorCode::kExecution, "the model's process gave back something else than floats");
  }
  const auto* bytes = static_cast<const uint8_t*>(view.data);
  copy.assign(bytes, bytes + view.size_bytes());
  view.data = copy.data();
  return view;
}

TensorView RemoteExecutor::logits(const Message& answer, const Shape& wanted) {
  const TensorView view = taken(answer, logits_);
  if (view.shape != wanted) {
    throw Error(ErrorCode::kExecution,
                "logits: expected " + shape_string(wanted) + ", got " + shape_string(view.shape));
  }
  return view;
}

void RemoteExecutor::use_method(const std::string& name, int64_t position) {
  Message request;
  request.kind = Kind::kUseMethod;
  request.numbers[0] = position;
  call(request, name);
  for (const Contract& contract : model_->contracts()) {
    if (contract.decoder_name == name || contract.step_name == name) current_ = &contract;
  }
}

TensorView RemoteExecutor::decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) {
  Message request;
  request.kind = Kind::kDecodeTokens;
  request.numbers[0] = position;
  put(request, {ids, DType::kInt64, {num_tokens}}, {});
  model_->memory().grow(static_cast<size_t>(current_->vocab_size) * sizeof(double));
  return logits(call(request), {current_->vocab_size});
}

TensorView RemoteExecutor::decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                                       int64_t num_rows, bool is_alone) {
  Message request;
  request.kind = Kind::kDecodeRows;
  request.numbers[0] = position;
  request.numbers[1] = num_rows;
  request.numbers[2] = is_alone ? 1 : 0;
  put(request, {ids, DType::kInt64, {num_tokens}}, {});
  model_->memory().grow(static_cast<size_t>(num_rows * current_->vocab_size) * sizeof(double));
  return logits(call(request), {num_rows, current_->vocab_size});
}

TensorView RemoteExecutor::decode_embeddings(const TensorView& embeddings, int64_t position,
                                             int64_t placeholder_id) {
  Message request;
  request.kind = Kind::kDecodeEmbeddings;
  request.numbers[0] = position;
  request.numbers[1] = placeholder_id;
  put(request, embeddings, {});
  model_->memory().grow(static_cast<size_t>(current_->vocab_size) * sizeof(double));
  return logits(call(request), {current_->vocab_size});
}

TensorView RemoteExecutor::encode(Kind kind, const MethodSpec* encoder, const MediaView& given) {
  Message request;
  request.kind = kind;
  put(request, given.values, given.beside);
  if (encoder != nullptr) {
    for (const TensorSpec& output : encoder->outputs)
      model_->memory().grow(static_cast<size_t>(num_elements(output.shape)) * sizeof(double));
  }
  const Message answer = call(request);
  // An encoder-decoder keeps what it made.
  if (answer.first.rank == 2 && answer.first.dims[0] == 0)
    return {nullptr, DType::kFloat32, {0, 0}};
  const TensorView rows = taken(answer, rows_);
  if (rows.shape.size() != 2 || rows.shape[1] != current_->hidden_size) {
    throw Error(ErrorCode::kExecution, "encoder: expected rows of " +
                                           std::to_string(current_->hidden_size) + ", got " +
                                           shape_string(rows.shape));
  }
  return rows;
}

TensorView RemoteExecutor::encode_image(const MediaView& image) {
  return encode(Kind::kEncodeImage, current_->image_encoder(), image);
}

TensorView RemoteExecutor::encode_audio(const MediaView& audio) {
  const MethodSpec* text = current_->text_encoder();
  return encode(Kind::kEncodeAudio, text != nullptr ? text : current_->audio_encoder(), audio);
}

void RemoteExecutor::reset_state() { call(Kind::kReset); }

std::unique_ptr<StateSnapshot> RemoteExecutor::save_state(int64_t num_flat_rows) const {
  const auto expected = static_cast<size_t>(current_->state_bytes(num_flat_rows));
  model_->memory().grow(std::max<size_t>(1, expected));
  const Message answer = call(Kind::kSave, num_flat_rows);
  if (answer.numbers[1] != static_cast<int64_t>(expected)) {
    throw Error(ErrorCode::kExecution, "state: expected " + std::to_string(expected) +
                                           " bytes, got " + std::to_string(answer.numbers[1]));
  }
  auto snapshot = std::make_unique<RemoteSnapshot>();
  snapshot->model = model_;
  snapshot->contract = current_;
  snapshot->num_flat_rows = num_flat_rows;
  snapshot->bytes.assign(model_->memory().data(), model_->memory().data() + expected);
  return snapshot;
}

void RemoteExecutor::restore_state(const StateSnapshot& snapshot) {
  const auto* ours = dynamic_cast<const RemoteSnapshot*>(&snapshot);
  if (ours == nullptr || ours->model.lock() != model_)
    throw Error(ErrorCode::kInput, "snapshot: it was not made by this model");
  if (ours->contract != current_ &&
      !(ours->contract->is_state_shared && current_->is_state_shared)) {
    throw Error(ErrorCode::kInput, "snapshot: it is of the method " + ours->contract->decoder_name +
                                       ", which has a cache of its own: use_method() first");
  }
  load_state(ours->num_flat_rows, {ours->bytes.data(), ours->bytes.size()});
}

void RemoteExecutor::load_state(int64_t num_flat_rows, ByteSpan bytes) {
  model_->memory().grow(std::max<size_t>(1, bytes.size));
  if (bytes.size > 0) std::memcpy(model_->memory().data(), bytes.data, bytes.size);
  Message request;
  request.kind = Kind::kLoad;
  request.numbers[0] = num_flat_rows;
  request.numbers[1] = static_cast<int64_t>(bytes.size);
  call(request);
}

void RemoteExecutor::write_profile() {
  if (!model_->is_closed()) call(Kind::kWriteProfile);
}

}  // namespace emm::remote
