#include "remote/serve.h"

#include <cstring>
#include <exception>
#include <map>
#include <utility>

#include "base/error.h"
#include "remote/wire.h"

namespace emm::remote {
namespace {

class Server {
 public:
  Server(std::unique_ptr<Executor> executor, int socket, int memory)
      : socket_(socket), memory_(memory) {
    conversations_[0] = std::move(executor);
  }

  void run() {
    Message ready;
    ready.kind = Kind::kReady;
    ready.numbers[0] = conversation(0).num_threads();
    send(socket_, ready, "");
    for (;;) {
      std::string text;
      const Message request = receive(socket_, text);
      memory_.map(static_cast<size_t>(request.memory_bytes));
      if (request.kind == Kind::kDrop)
        conversations_.erase(request.conversation);
      else
        answer(request, text);
    }
  }

 private:
  void answer(const Message& request, const std::string& text) {
    try {
      Message done = perform(request, text);
      done.kind = Kind::kDone;
      done.numbers[0] = conversation(request.conversation).copied_input_bytes();
      send(socket_, done, "");
    } catch (const Error& error) {
      refuse(socket_, error);
    } catch (const std::exception& error) {
      refuse(socket_, Error(ErrorCode::kExecution, error.what()));
    }
  }

  Executor& conversation(int64_t number) {
    const auto found = conversations_.find(number);
    if (found == conversations_.end()) throw Closed();
    return *found->second;
  }

  Message perform(const Message& request, const std::string& text) {
    const auto& [a, b, c, d] = request.numbers;
    Executor& executor = conversation(request.conversation);
    switch (request.kind) {
      case Kind::kAnother:
        conversations_[a] = executor.another();
        return {};
      case Kind::kFork:
        conversations_[a] = executor.fork(b);
        return {};
      case Kind::kGoOnFrom:
        executor.go_on_from(conversation(a), b, c);
        return {};
      case Kind::kUseMethod:
        executor.use_method(text, a);
        return {};
      case Kind::kDecodeTokens:
        return give(executor.decode_tokens(static_cast<const int64_t*>(first(request).data),
                                           first(request).size(), a));
      case Kind::kDecodeRows:
        return give(executor.decode_rows(static_cast<const int64_t*>(first(request).data),
                                         first(request).size(), a, b, c != 0));
      case Kind::kDecodeEmbeddings:
        return give(executor.decode_embeddings(first(request), a, b));
      case Kind::kEncodeImage:
        return give(executor.encode_image({first(request), second(request)}));
      case Kind::kEncodeAudio:
        return give(executor.encode_audio({first(request), second(request)}));
      case Kind::kReset:
        executor.reset_state();
        return {};
      case Kind::kSave:
        return save(executor, a);
      case Kind::kLoad:
        executor.load_state(a, {memory_.data(), static_cast<size_t>(b)});
        return {};
      case Kind::kWriteProfile:
        executor.write_profile();
        return {};
      default:
        throw Closed();
    }
  }

  TensorView first(const Message& request) const {
    return view_of(request.first, memory_.data(), memory_.bytes(), 0);
  }
  TensorView second(const Message& request) const {
    if (request.second.dtype == static_cast<int64_t>(DType::kOther)) return {};
    return view_of(request.second, memory_.data(), memory_.bytes(),
                   aligned(first(request).size_bytes()));
  }

  Message give(const TensorView& output) {
    const size_t bytes = output.data == nullptr ? 0 : output.size_bytes();
    put(output.data, bytes, 0);
    Message done;
    done.first = describe(output);
    return done;
  }

  Message save(Executor& executor, int64_t num_flat_rows) {
    const auto snapshot = executor.save_state(num_flat_rows);
    size_t offset = 0;
    for (const ByteSpan& span : snapshot->spans()) {
      put(span.data, span.size, offset);
      offset += span.size;
    }
    Message done;
    done.numbers[1] = static_cast<int64_t>(offset);
    return done;
  }

  void put(const void* data, size_t bytes, size_t offset) {
    if (bytes > memory_.bytes() - offset) {
      throw Error(ErrorCode::kExecution, "the model gave " + std::to_string(offset + bytes) +
                                             " bytes, its contract says at most " +
                                             std::to_string(memory_.bytes()));
    }
    if (bytes > 0) std::memcpy(memory_.data() + offset, data, bytes);
  }

  std::map<int64_t, std::unique_ptr<Executor>> conversations_;
  int socket_;
  SharedMemory memory_;
};

}  // namespace

void refuse(int socket, const Error& error) {
  Message failed;
  failed.kind = Kind::kFailed;
  failed.numbers = {static_cast<int64_t>(error.code()), error.needed(), error.available(), 0};
  send(socket, failed, error.what());
}

void serve(std::unique_ptr<Executor> executor, int socket, int memory) {
  try {
    Server(std::move(executor), socket, memory).run();
  } catch (const Closed&) {  // the end
  }
}

}  // namespace emm::remote
