// A file's bytes for as long as it lives.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>

#include "program/method_check.h"

namespace emm {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    // O_NONBLOCK: opening a pipe would wait for a writer.
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) refuse_program(path + ": " + std::generic_category().message(errno));
    struct stat facts{};
    const bool is_file = fstat(file, &facts) == 0 && S_ISREG(facts.st_mode);
    size_ = is_file ? static_cast<size_t>(facts.st_size) : 0;
    if (size_ > 0) memory_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    const int reason = errno;
    close(file);
    if (!is_file) refuse_program(path + ": expected a file");
    if (size_ == 0) refuse_program(path + ": the file is empty");
    if (memory_ == MAP_FAILED)
      refuse_program(path + ": " + std::generic_category().message(reason));
  }
  ~MappedFile() { munmap(memory_, size_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return static_cast<const uint8_t*>(memory_); }
  size_t size() const { return size_; }

 private:
  void* memory_ = nullptr;
  size_t size_ = 0;
};

}  // namespace emm
