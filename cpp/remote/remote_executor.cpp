#include "remote/remote_executor.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace emm::remote {
namespace {

struct RemoteSnapshot final : StateSnapshot {
  const Contract* contract = nullptr;
  int64_t num_flat_rows = 0;
  std::vector<uint8_t> bytes;
  size_t size_bytes() const override { return bytes.size(); }
  std::vector<ByteSpan> spans() const override { return {{bytes.data(), bytes.size()}}; }
};

Error error_of(const Message& failed, const std::string& text) {
  const auto code = failed.numbers[0];
  if (code == static_cast<int64_t>(ErrorCode::kCapacity))
    return Error::capacity(text, failed.numbers[1], failed.numbers[2]);
  const bool is_known = code >= 0 && code <= static_cast<int64_t>(ErrorCode::kBusy);
  return {is_known ? static_cast<ErrorCode>(code) : ErrorCode::kExecution, text};
}

bool is_float(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat16 || dtype == DType::kBFloat16 ||
         dtype == DType::kFloat64;
}

}  // namespace

Process::~Process() {
  close(socket_);
  kill(id_, SIGKILL);
  while (waitpid(id_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::string Process::end() const {
  siginfo_t facts{};
  int result = 0;
  do {
    result = waitid(P_PID, static_cast<id_t>(id_), &facts, WEXITED | WNOWAIT);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return "has ended";
  if (facts.si_code == CLD_EXITED) return "ended with exit code " + std::to_string(facts.si_status);
  return "was ended by signal " + std::to_string(facts.si_status) + " (" +
         strsignal(facts.si_status) + ")";
}

RemoteExecutor::RemoteExecutor(std::vector<Contract> contracts, std::unique_ptr<Process> process,
                               std::unique_ptr<SharedMemory> memory)
    : contracts_(std::move(contracts)),
      current_(&contracts_.at(0)),
      process_(std::move(process)),
      memory_(std::move(memory)) {
  num_threads_ = std::max<int64_t>(1, receive_answer().numbers[0]);
  copied_input_bytes_ = 0;
}

void RemoteExecutor::fail_closed() const {
  if (!std::exchange(is_closed_, true)) shutdown(process_->socket(), SHUT_RDWR);
  throw Error(ErrorCode::kProcess,
              "the model's process " + process_->end() +
                  "; nothing is left of the conversation: load the model anew");
}

Message RemoteExecutor::receive_answer() const {
  std::string text;
  Message answer;
  try {
    answer = receive(process_->socket(), text);
  } catch (const Closed&) {
    fail_closed();
  }
  if (answer.kind == Kind::kFailed) throw error_of(answer, text);
  copied_input_bytes_ = std::max<int64_t>(copied_input_bytes_, answer.numbers[0]);
  return answer;
}

Message RemoteExecutor::call(const Message& request, const std::string& text) const {
  if (is_closed_) fail_closed();
  Message sent = request;
  sent.memory_bytes = memory_->bytes();
  try {
    send(process_->socket(), sent, text);
  } catch (const Closed&) {
    fail_closed();
  }
  return receive_answer();
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
  memory_->grow(std::max<size_t>(1, offset + second_bytes));
  if (first.size_bytes() > 0) std::memcpy(memory_->data(), first.data, first.size_bytes());
  if (second_bytes > 0) std::memcpy(memory_->data() + offset, second.data, second_bytes);
}

TensorView RemoteExecutor::taken(const Message& answer, std::vector<uint8_t>& copy) const {
  TensorView view;
  try {
    view = view_of(answer.first, memory_->data(), memory_->bytes(), 0);
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
  for (const Contract& contract : contracts_) {
    if (contract.decoder_name == name || contract.step_name == name) current_ = &contract;
  }
}

TensorView RemoteExecutor::decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) {
  Message request;
  request.kind = Kind::kDecodeTokens;
  request.numbers[0] = position;
  put(request, {ids, DType::kInt64, {num_tokens}}, {});
  memory_->grow(static_cast<size_t>(current_->vocab_size) * sizeof(double));
  return logits(call(request), {current_->vocab_size});
}

TensorView RemoteExecutor::decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                                       int64_t num_rows) {
  Message request;
  request.kind = Kind::kDecodeRows;
  request.numbers[0] = position;
  request.numbers[1] = num_rows;
  put(request, {ids, DType::kInt64, {num_tokens}}, {});
  memory_->grow(static_cast<size_t>(num_rows * current_->vocab_size) * sizeof(double));
  return logits(call(request), {num_rows, current_->vocab_size});
}

TensorView RemoteExecutor::decode_embeddings(const TensorView& embeddings, int64_t position,
                                             int64_t placeholder_id) {
  Message request;
  request.kind = Kind::kDecodeEmbeddings;
  request.numbers[0] = position;
  request.numbers[1] = placeholder_id;
  put(request, embeddings, {});
  memory_->grow(static_cast<size_t>(current_->vocab_size) * sizeof(double));
  return logits(call(request), {current_->vocab_size});
}

TensorView RemoteExecutor::encode(Kind kind, const MethodSpec* encoder, const MediaView& given) {
  Message request;
  request.kind = kind;
  put(request, given.values, given.beside);
  if (encoder != nullptr) {
    for (const TensorSpec& output : encoder->outputs)
      memory_->grow(static_cast<size_t>(num_elements(output.shape)) * sizeof(double));
  }
  const Message answer = call(request);
  if (answer.first.rank == 2 && answer.first.dims[0] == 0)  // a speech model keeps what it heard
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
  return encode(Kind::kEncodeAudio, current_->audio_encoder(), audio);
}

void RemoteExecutor::reset_state() { call(Kind::kReset); }

int64_t RemoteExecutor::state_bytes(int64_t num_flat_rows) const {
  int64_t bytes = 0;
  for (const StateTensor& tensor : current_->state) bytes += tensor.bytes_of(num_flat_rows);
  return bytes;
}

std::unique_ptr<StateSnapshot> RemoteExecutor::save_state(int64_t num_flat_rows) const {
  const auto expected = static_cast<size_t>(state_bytes(num_flat_rows));
  memory_->grow(std::max<size_t>(1, expected));
  const Message answer = call(Kind::kSave, num_flat_rows);
  if (answer.numbers[1] != static_cast<int64_t>(expected)) {
    throw Error(ErrorCode::kExecution, "state: expected " + std::to_string(expected) +
                                           " bytes, got " + std::to_string(answer.numbers[1]));
  }
  auto snapshot = std::make_unique<RemoteSnapshot>();
  snapshot->contract = current_;
  snapshot->num_flat_rows = num_flat_rows;
  snapshot->bytes.assign(memory_->data(), memory_->data() + expected);
  return snapshot;
}

void RemoteExecutor::restore_state(const StateSnapshot& snapshot) {
  const auto* ours = dynamic_cast<const RemoteSnapshot*>(&snapshot);
  if (ours == nullptr)
    throw Error(ErrorCode::kInput, "snapshot: it was not made by this kind of executor");
  if (ours->contract != current_ &&
      !(ours->contract->is_state_shared && current_->is_state_shared)) {
    throw Error(ErrorCode::kInput, "snapshot: it is of the method " + ours->contract->decoder_name +
                                       ", which has a cache of its own: use_method() first");
  }
  load_state(ours->num_flat_rows, {ours->bytes.data(), ours->bytes.size()});
}

void RemoteExecutor::load_state(int64_t num_flat_rows, ByteSpan bytes) {
  memory_->grow(std::max<size_t>(1, bytes.size));
  if (bytes.size > 0) std::memcpy(memory_->data(), bytes.data, bytes.size);
  Message request;
  request.kind = Kind::kLoad;
  request.numbers[0] = num_flat_rows;
  request.numbers[1] = static_cast<int64_t>(bytes.size);
  call(request);
}

void RemoteExecutor::write_profile() {
  if (!is_closed_) call(Kind::kWriteProfile);
}

}  // namespace emm::remote
