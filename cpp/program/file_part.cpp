#include "program/file_part.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <system_error>

#include "program/method_check.h"

namespace emm {
namespace {

constexpr std::string_view kMagic = "EMM-PART 1\n";
constexpr size_t kMostBytes = 8192;

// Reads a number and what follows it.
template <typename Number>
bool take(const char*& at, const char* end, Number& number, char separator) {
  const auto [next, error] = std::from_chars(at, end, number);
  if (error != std::errc{} || next == end || *next != separator) return false;
  at = next + 1;
  return true;
}

}  // namespace

FilePart find_part(const std::string& path) {
  // O_NONBLOCK: opening a pipe would wait for a writer.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) refuse_program(path + ": " + std::generic_category().message(errno));
  struct stat facts{};
  const bool is_file = fstat(file, &facts) == 0 && S_ISREG(facts.st_mode);
  const auto size = is_file ? static_cast<size_t>(facts.st_size) : 0;
  std::array<char, kMostBytes + 1> text{};
  const ssize_t count = size > 0 && size <= kMostBytes ? read(file, text.data(), kMostBytes) : 0;
  close(file);
  if (!is_file) refuse_program(path + ": expected a file");
  if (size == 0) refuse_program(path + ": the file is empty");
  if (count < static_cast<ssize_t>(kMagic.size()) ||
      std::string_view(text.data(), kMagic.size()) != kMagic) {
    return {path, 0, size, true};
  }
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t inode = 0;
  uint64_t whole = 0;
  int64_t changed = 0;
  const char* at = text.data() + kMagic.size();
  const char* const end = text.data() + count;
  const bool is_read = take(at, end, offset, ' ') && take(at, end, bytes, ' ') &&
                       take(at, end, inode, ' ') && take(at, end, whole, ' ') &&
                       take(at, end, changed, '\n');
  if (!is_read || bytes == 0 || !is_inside(offset, bytes, whole))
    refuse_program(path + ": it names no part of a file");
  FilePart part{at, offset, bytes, false};
  struct stat there{};
  if (stat(part.path.c_str(), &there) != 0)
    refuse_program(part.path + ": " + std::generic_category().message(errno));
  if (!S_ISREG(there.st_mode) || static_cast<uint64_t>(there.st_size) != whole ||
      static_cast<uint64_t>(there.st_ino) != inode || there.st_mtime != changed) {
    refuse_program(part.path + ": the file has changed since it was opened");
  }
  return part;
}

}  // namespace emm
