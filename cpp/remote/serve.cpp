#include "remote/serve.h"

#include <cstring>
#include <exception>

#include "base/error.h"
#include "remote/wire.h"

namespace emm::remote {
namespace {

class Server {
 public:
  Server(Executor& executor, int socket, int memory)
      : executor_(executor), socket_(socket), memory_(memory) {}

  void run() {
    Message ready;
    ready.kind = Kind::kReady;
    ready.numbers[0] = executor_.num_threads();
    send(socket_, ready, "");
    for (;;) {
      std::string text;
      const Message request = receive(socket_, text);
      memory_.map(static_cast<size_t>(request.memory_bytes));
      answer(request, text);
    }
  }

 private:
  void answer(const Message& request, const std::string& text) {
    try {
      Message done = perform(request, text);
      done.kind = Kind::kDone;
      done.numbers[0] = executor_.copied_input_bytes();
      send(socket_, done, "");
    } catch (const Error& error) {
      refuse(socket_, error);
    } catch (const std::exception& error) {
      refuse(socket_, Error(ErrorCode::kExecution, error.what()));
    }
  }

  Message perform(const Message& request, const std::string& text) {
    const auto& [a, b, c, d] = request.numbers;
    switch (request.kind) {
      case Kind::kUseMethod:
        executor_.use_method(text, a);
        return {};
      case Kind::kDecodeTokens:
        return give(executor_.decode_tokens(static_cast<const int64_t*>(first(request).data),
                                            first(request).size(), a));
      case Kind::kDecodeRows:
        return give(executor_.decode_rows(static_cast<const int64_t*>(first(request).data),
                                          first(request).size(), a, b));
      case Kind::kDecodeEmbeddings:
        return give(executor_.decode_embeddings(first(request), a, b));
      case Kind::kEncodeImage:
        return give(executor_.encode_image({first(request), second(request)}));
      case Kind::kEncodeAudio:
        return give(executor_.encode_audio({first(request), second(request)}));
      case Kind::kReset:
        executor_.reset_state();
        return {};
      case Kind::kSave:
        return save(a);
      case Kind::kLoad:
        executor_.load_state(a, {memory_.data(), static_cast<size_t>(b)});
        return {};
      case Kind::kWriteProfile:
        executor_.write_profile();
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

  Message save(int64_t num_flat_rows) {
    const auto snapshot = executor_.save_state(num_flat_rows);
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

  Executor& executor_;
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

void serve(Executor& executor, int socket, int memory) {
  try {
    Server(executor, socket, memory).run();
  } catch (const Closed&) {  // the end
  }
}

}  // namespace emm::remote
