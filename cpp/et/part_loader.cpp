#include "et/part_loader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace emm {
namespace {

using executorch::runtime::DataLoader;
using executorch::runtime::Error;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::Result;

size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

size_t bytes_into_page(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % page_bytes();
}

void unmap(void* /*context*/, void* data, size_t size) {
  const size_t skipped = bytes_into_page(data);
  munmap(static_cast<uint8_t*>(data) - skipped, skipped + size);
}

class PartLoader final : public DataLoader {
 public:
  PartLoader(FilePart part, LoadMode mode, int file)
      : part_(std::move(part)), mode_(mode), file_(file) {}
  ~PartLoader() override { close(file_); }
  PartLoader(const PartLoader&) = delete;
  PartLoader& operator=(const PartLoader&) = delete;

  Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo& info) const override {
    if (!has(offset, size)) return Error::InvalidArgument;
    if (size == 0) return FreeableBuffer(nullptr, 0, nullptr);
    if (mode_ == LoadMode::kFile) {
      // Not malloc(), which keeps the room of what is freed.
      void* memory =
          mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) return Error::MemoryAllocationFailed;
      FreeableBuffer buffer(memory, size, unmap);
      const Error error = load_into(offset, size, info, memory);
      if (error != Error::Ok) return error;
      return buffer;
    }
    const size_t at = part_.offset + offset;
    const size_t skipped = at % page_bytes();
    void* memory = mmap(nullptr, skipped + size, PROT_READ, MAP_PRIVATE, file_,
                        static_cast<off_t>(at - skipped));
    if (memory == MAP_FAILED) return Error::AccessFailed;
    if (mode_ == LoadMode::kMmapMlock) (void)mlock(memory, skipped + size);
    return FreeableBuffer(static_cast<uint8_t*>(memory) + skipped, size, unmap);
  }
  Error load_into(size_t offset, size_t size, const SegmentInfo& /*info*/,
                  void* buffer) const override {
    if (!has(offset, size)) return Error::InvalidArgument;
    auto* target = static_cast<uint8_t*>(buffer);
    for (size_t done = 0; done < size;) {
      const ssize_t count = pread(file_, target + done, size - done,
                                  static_cast<off_t>(part_.offset + offset + done));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return Error::AccessFailed;
      done += static_cast<size_t>(count);
    }
    return Error::Ok;
  }
  Result<size_t> size() const override { return part_.size; }

 private:
  bool has(size_t offset, size_t size) const {
    return offset <= part_.size && size <= part_.size - offset;
  }

  FilePart part_;
  LoadMode mode_;
  int file_;
};

}  // namespace

std::unique_ptr<DataLoader> load_part(FilePart part, LoadMode mode) {
  const int file = open(part.path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    throw emm::Error(ErrorCode::kLoad, part.path + ": " + std::generic_category().message(errno));
  }
  return std::make_unique<PartLoader>(std::move(part), mode, file);
}

}  // namespace emm
