#include "remote/wire.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/error.h"

namespace emm::remote {
namespace {

#ifdef MSG_NOSIGNAL
constexpr int kNoSignal = MSG_NOSIGNAL;
#else
constexpr int kNoSignal = 0;
#endif

template <typename Call>
void in_full(char* data, size_t size, Call&& call) {
  while (size > 0) {
    const ssize_t moved = call(data, size);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) throw Closed();
    data += moved;
    size -= static_cast<size_t>(moved);
  }
}

}  // namespace

void send(int socket, const Message& message, const std::string& text) {
  Message sent = message;
  sent.text_bytes = static_cast<uint32_t>(std::min(text.size(), kMaxText));
  std::string bytes(sizeof sent + sent.text_bytes, '\0');
  std::memcpy(bytes.data(), &sent, sizeof sent);
  std::memcpy(bytes.data() + sizeof sent, text.data(), sent.text_bytes);
  in_full(bytes.data(), bytes.size(),
          [&](char* data, size_t size) { return ::send(socket, data, size, kNoSignal); });
}

Message receive(int socket, std::string& text) {
  Message message;
  const auto read = [&](char* data, size_t size) { return recv(socket, data, size, 0); };
  in_full(reinterpret_cast<char*>(&message), sizeof message, read);
  if (message.text_bytes > kMaxText) throw Closed();
  text.resize(message.text_bytes);
  in_full(text.data(), text.size(), read);
  return message;
}

Array describe(const TensorView& view) {
  Array array{static_cast<int64_t>(view.dtype), static_cast<int64_t>(view.shape.size()), {}};
  if (view.shape.size() > kMaxRank)
    throw Error(ErrorCode::kInput,
                "array: expected at most 8 dimensions, got " + std::to_string(view.shape.size()));
  std::copy(view.shape.begin(), view.shape.end(), array.dims.begin());
  return array;
}

TensorView view_of(const Array& array, uint8_t* memory, size_t memory_bytes, size_t offset) {
  if (array.rank < 0 || array.rank > static_cast<int64_t>(kMaxRank) || array.dtype < 0 ||
      array.dtype > static_cast<int64_t>(DType::kOther) || offset > memory_bytes)
    throw Closed();
  TensorView view;
  view.dtype = static_cast<DType>(array.dtype);
  uint64_t bytes = dtype_size(view.dtype);
  for (int64_t i = 0; i < array.rank; ++i) {
    const int64_t dim = array.dims[static_cast<size_t>(i)];
    if (dim < 0 || (dim > 0 && bytes > memory_bytes / static_cast<uint64_t>(dim))) throw Closed();
    bytes *= static_cast<uint64_t>(dim);
    view.shape.push_back(dim);
  }
  if (bytes > memory_bytes - offset) throw Closed();
  view.data = memory + offset;
  return view;
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
  if (file_ >= 0) close(file_);
}

void SharedMemory::grow(size_t bytes) {
  if (bytes <= bytes_) return;
  constexpr size_t kStep = size_t{1} << 16;
  bytes = (bytes + kStep - 1) / kStep * kStep;
  if (ftruncate(file_, static_cast<off_t>(bytes)) != 0) {
    throw Error(ErrorCode::kExecution, "shared memory of " + std::to_string(bytes) +
                                           " bytes: " + std::generic_category().message(errno));
  }
  map(bytes);
}

void SharedMemory::map(size_t bytes) {
  if (bytes <= bytes_) return;
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (data == MAP_FAILED) {
    throw Error(ErrorCode::kExecution, "shared memory of " + std::to_string(bytes) +
                                           " bytes: " + std::generic_category().message(errno));
  }
  if (data_ != nullptr) munmap(data_, bytes_);
  data_ = static_cast<uint8_t*>(data);
  bytes_ = bytes;
}

}  // namespace emm::remote
