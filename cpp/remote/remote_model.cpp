#include "remote/remote_model.h"

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

Error error_of(const Message& failed, const std::string& text) {
  const auto code = failed.numbers[0];
  if (code == static_cast<int64_t>(ErrorCode::kCapacity))
    return Error::capacity(text, failed.numbers[1], failed.numbers[2]);
  const bool is_known = code >= 0 && code <= static_cast<int64_t>(ErrorCode::kBusy);
  return {is_known ? static_cast<ErrorCode>(code) : ErrorCode::kExecution, text};
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

RemoteModel::RemoteModel(std::vector<Contract> contracts, std::unique_ptr<Process> process,
                         std::unique_ptr<SharedMemory> memory)
    : contracts_(std::move(contracts)), process_(std::move(process)), memory_(std::move(memory)) {
  num_threads_ = std::max<int64_t>(1, receive_answer().numbers[0]);
}

void RemoteModel::fail_closed() {
  if (!std::exchange(is_closed_, true)) shutdown(process_->socket(), SHUT_RDWR);
  throw Error(ErrorCode::kProcess,
              "the model's process " + process_->end() +
                  "; nothing is left of the conversation: load the model anew");
}

Message RemoteModel::receive_answer() {
  std::string text;
  Message answer;
  try {
    answer = receive(process_->socket(), text);
  } catch (const Closed&) {
    fail_closed();
  }
  if (answer.kind == Kind::kFailed) throw error_of(answer, text);
  return answer;
}

Message RemoteModel::call(const Message& request, const std::string& text) {
  if (is_closed_) fail_closed();
  Message sent = request;
  sent.memory_bytes = memory_->bytes();
  try {
    tell_dropped();
    send(process_->socket(), sent, text);
  } catch (const Closed&) {
    fail_closed();
  }
  return receive_answer();
}

void RemoteModel::tell_dropped() {
  std::vector<int64_t> dropped;
  {
    const std::lock_guard lock(drop_mutex_);
    dropped.swap(dropped_);
  }
  for (const int64_t conversation : dropped) {
    Message message;
    message.kind = Kind::kDrop;
    message.conversation = conversation;
    message.memory_bytes = memory_->bytes();
    send(process_->socket(), message, "");
  }
}

void RemoteModel::drop(int64_t conversation) {
  {
    const std::lock_guard lock(drop_mutex_);
    dropped_.push_back(conversation);
  }
  if (!turns_.try_enter()) return;
  try {
    if (!is_closed_) tell_dropped();
  } catch (const Closed&) {  // the next call says so
  }
  turns_.leave();
}

}  // namespace emm::remote
