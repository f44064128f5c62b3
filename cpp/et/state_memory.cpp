#include "et/state_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"

namespace emm {
namespace {

// Null where the system has no such files, or no more of them.
std::shared_ptr<const int> make_file([[maybe_unused]] size_t bytes) {
#ifdef __linux__
  const int file = memfd_create("executorch_mm state", MFD_CLOEXEC);
  if (file < 0) return nullptr;
  if (ftruncate(file, static_cast<off_t>(bytes)) == 0) {
    return {new int(file), [](const int* open) {
              close(*open);
              delete open;
            }};
  }
  close(file);
#endif
  return nullptr;
}

}  // namespace

StateMemory::StateMemory(size_t bytes)
    : bytes_(std::max<size_t>(bytes, 1)), file_(make_file(bytes_)), is_owner_(file_ != nullptr) {
  map(nullptr);
}

StateMemory::StateMemory(size_t bytes, File file) : bytes_(bytes), file_(std::move(file)) {
  map(nullptr);
}

StateMemory::~StateMemory() { munmap(data_, bytes_); }

void StateMemory::map(void* address) {
  const int at = address != nullptr ? MAP_FIXED : 0;
  const int sharing = is_owner_ ? MAP_SHARED : MAP_PRIVATE;
  const int kind = (file_ != nullptr ? 0 : MAP_ANONYMOUS) | MAP_NORESERVE;
  void* const memory = mmap(address, bytes_, PROT_READ | PROT_WRITE, at | sharing | kind,
                            file_ != nullptr ? *file_ : -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorCode::kExecution,
                "the state of a conversation: cannot map " + std::to_string(bytes_) + " bytes");
  }
  data_ = static_cast<uint8_t*>(memory);
}

void StateMemory::stop_owning() {
  if (!is_owner_) return;
  is_owner_ = false;
  map(data_);
}

std::unique_ptr<StateMemory> StateMemory::share() const {
  if (file_ == nullptr) return nullptr;
  return std::unique_ptr<StateMemory>(new StateMemory(bytes_, file_));
}

}  // namespace emm
