// The Executor whose model runs in a process of its own: a crash there is an error here. What is
// promised (the contract) is read from the file here; numbers come back through memory that both
// have mapped, and are copied out of it before anything looks at them.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "model/executor.h"
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

class RemoteExecutor final : public Executor {
 public:
  // The process is one that serve() runs in, with the other end of the socket. Waits until the
  // model is loaded there; throws what failed.
  RemoteExecutor(std::vector<Contract> contracts, std::unique_ptr<Process> process,
                 std::unique_ptr<SharedMemory> memory);

  const Contract& contract() const override { return *current_; }
  void use_method(const std::string& name, int64_t position) override;
  TensorView decode_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) override;
  TensorView decode_rows(const int64_t* ids, int64_t num_tokens, int64_t position,
                         int64_t num_rows) override;
  TensorView decode_embeddings(const TensorView& embeddings, int64_t position,
                               int64_t placeholder_id) override;
  TensorView encode_image(const MediaView& image) override;
  TensorView encode_audio(const MediaView& audio) override;
  void reset_state() override;
  std::unique_ptr<StateSnapshot> save_state(int64_t num_flat_rows) const override;
  void restore_state(const StateSnapshot& snapshot) override;
  void load_state(int64_t num_flat_rows, ByteSpan bytes) override;
  int64_t copied_input_bytes() const override { return copied_input_bytes_; }
  int64_t num_threads() const override { return num_threads_; }
  void write_profile() override;

 private:
  Message receive_answer() const;
  Message call(const Message& request, const std::string& text = "") const;
  Message call(Kind kind, int64_t number = 0) const;
  [[noreturn]] void fail_closed() const;
  // Makes room, and puts arrays where the process looks for them.
  void put(Message& request, const TensorView& first, const TensorView& second) const;
  TensorView logits(const Message& answer, const Shape& wanted);
  TensorView encode(Kind kind, const MethodSpec* encoder, const MediaView& given);
  // What came back, copied, if it is floats.
  TensorView taken(const Message& answer, std::vector<uint8_t>& copy) const;
  int64_t state_bytes(int64_t num_flat_rows) const;

  const std::vector<Contract> contracts_;
  const Contract* current_;
  std::unique_ptr<Process> process_;
  std::unique_ptr<SharedMemory> memory_;
  mutable bool is_closed_ = false;
  mutable int64_t copied_input_bytes_ = 0;
  int64_t num_threads_ = 1;
  std::vector<uint8_t> logits_;
  std::vector<uint8_t> rows_;
};

}  // namespace emm::remote
