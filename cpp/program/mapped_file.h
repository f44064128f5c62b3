// A file's bytes for as long as it lives; of one that stands for a part of another, the part's.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>

#include "program/file_part.h"
#include "program/method_check.h"

namespace emm {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    const FilePart part = find_part(path);
    const int file = open(part.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) refuse_program(part.path + ": " + std::generic_category().message(errno));
    skipped_ = part.offset % static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_ = part.size;
    memory_ = mmap(nullptr, skipped_ + size_, PROT_READ, MAP_PRIVATE, file,
                   static_cast<off_t>(part.offset - skipped_));
    const int reason = errno;
    close(file);
    if (memory_ == MAP_FAILED)
      refuse_program(part.path + ": " + std::generic_category().message(reason));
  }
  ~MappedFile() { munmap(memory_, skipped_ + size_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return static_cast<const uint8_t*>(memory_) + skipped_; }
  size_t size() const { return size_; }

 private:
  void* memory_ = nullptr;
  size_t skipped_ = 0;  // before the part, to the start of its page
  size_t size_ = 0;
};

}  // namespace emm
