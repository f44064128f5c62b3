// A model in a process of its own, and how it is asked: what its conversations have in common.
// Whoever calls holds a turn.
#pragma once

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/turns.h"
#include "model/contract.h"
#include "remote/wire.h"

namespace emm::remote {

// A child process and the socket to it; both end with it.
class Process {
 public:
  Process(pid_t id, int socket) : id_(id), socket_(socket) {}
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  int socket() const { return socket_; }
  // How it ended, which it has or is about to.
  std::string end() const;

 private:
  pid_t id_;
  int socket_;
};

class RemoteModel {
 public:
  // The process is one that serve() runs in, with the other end of the socket. Waits until the
  // model is loaded there; throws what failed.
  RemoteModel(std::vector<Contract> contracts, std::unique_ptr<Process> process,
              std::unique_ptr<SharedMemory> memory);

  const std::vector<Contract>& contracts() const { return contracts_; }
  SharedMemory& memory() { return *memory_; }
  TurnQueue& turns() { return turns_; }
  int64_t num_threads() const { return num_threads_; }
  bool is_closed() const { return is_closed_; }

  // Asks, and waits for the answer. Throws what failed there, Error(kProcess) where it has ended.
  Message call(const Message& request, const std::string& text = "");

  // The number of a conversation to be.
  int64_t next_conversation() { return ++last_conversation_; }
  // Nobody needs it any more. From any thread, without a turn: told at once or with the next call.
  void drop(int64_t conversation);

 private:
  Message receive_answer();
  void tell_dropped();
  [[noreturn]] void fail_closed();

  const std::vector<Contract> contracts_;
  std::unique_ptr<Process> process_;
  std::unique_ptr<SharedMemory> memory_;
  TurnQueue turns_;
  bool is_closed_ = false;
  int64_t num_threads_ = 1;
  int64_t last_conversation_ = 0;
  std::mutex drop_mutex_;
  std::vector<int64_t> dropped_;
};

}  // namespace emm::remote
