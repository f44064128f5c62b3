// What a model's process and its caller say to each other: messages of one size over a socket,
// arrays in memory that both have mapped. The caller trusts nothing that comes back: sizes are held
// against the memory's, and no message makes it read or write elsewhere.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/tensor_view.h"

namespace emm::remote {

enum class Kind : uint32_t {
  kReady = 1,  // the model is loaded: number of threads
  kDone,       // the answer to any request
  kFailed,     // error code, positions needed and free; the text says why
  kAnother,    // number of a new conversation
  kFork,       // the same, rows of flat caches
  kGoOnFrom,   // another conversation, rows of flat caches, positions in use
  kDrop,       // has no answer
  kUseMethod,  // position; the text is its name
  kDecodeTokens,
  kDecodeRows,
  kDecodeEmbeddings,
  kEncodeImage,
  kEncodeAudio,
  kReset,
  kSave,
  kLoad,
  kWriteProfile,
};

constexpr size_t kMaxRank = 8;
constexpr size_t kAlignment = 64;  // of the second array in the memory

// An array that lies in the memory.
struct Array {
  int64_t dtype = 0;
  int64_t rank = 0;
  std::array<int64_t, kMaxRank> dims{};
};

struct Message {
  Kind kind = Kind::kDone;
  uint32_t text_bytes = 0;
  int64_t conversation = 0;   // that it is about; the first one is 0
  uint64_t memory_bytes = 0;  // as the caller has made it
  std::array<int64_t, 4> numbers{};
  Array first;
  Array second;
};
constexpr size_t kMaxText = 1 << 16;

// One end of the socket. Both throw Closed when there is nobody at the other.
struct Closed {};
void send(int socket, const Message& message, const std::string& text);
Message receive(int socket, std::string& text);

Array describe(const TensorView& view);
// The array at `offset` of a memory, where it has to lie inside; throws Closed for any other.
TensorView view_of(const Array& array, uint8_t* memory, size_t memory_bytes, size_t offset);
inline size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Memory that two processes have mapped.
class SharedMemory {
 public:
  explicit SharedMemory(int file) : file_(file) {}
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // The caller makes it so large; it never shrinks. Throws Error(kExecution).
  void grow(size_t bytes);
  // The model's process maps what the caller has made.
  void map(size_t bytes);

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  int file_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace emm::remote
