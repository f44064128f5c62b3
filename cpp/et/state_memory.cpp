#include "et/state_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#ifdef __linux__
#include <fcntl.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"

namespace emm {
namespace {

constexpr int64_t kAll = std::numeric_limits<int64_t>::max();

int64_t page_size() {
  static const int64_t size = sysconf(_SC_PAGESIZE);
  return size;
}

// Calls visit(first byte, end) for rows from `first` to `end` of each block.
template <typename Visit>
void for_each_block(const std::vector<RowBlocks>& blocks, int64_t first, int64_t end, Visit visit) {
  for (const RowBlocks& rows : blocks) {
    const int64_t from = std::min(first, rows.rows);
    const int64_t to = std::min(end, rows.rows);
    for (int64_t block = 0; from < to && block < rows.outer; ++block) {
      const int64_t start = static_cast<int64_t>(rows.offset) + block * rows.rows * rows.row_bytes;
      visit(start + from * rows.row_bytes, start + to * rows.row_bytes);
    }
  }
}

}  // namespace

void TouchedPages::add(const RowBlocks& rows, int64_t first, int64_t end) {
  for_each_block({rows}, first, end, [&](int64_t from, int64_t to) {
    ranges_.emplace_back(from / page_size(), (to + page_size() - 1) / page_size());
  });
}

int64_t TouchedPages::bytes() const {
  std::vector<std::pair<int64_t, int64_t>> sorted = ranges_;
  std::sort(sorted.begin(), sorted.end());
  int64_t num_pages = 0;
  int64_t counted = 0;  // up to here
  for (const auto& [from, to] : sorted) {
    num_pages += std::max<int64_t>(0, to - std::max(from, counted));
    counted = std::max(counted, to);
  }
  return num_pages * page_size();
}

class StateMemory::File {
 public:
  File(int file, std::vector<RowBlocks> flat) : file_(file), flat_(std::move(flat)) {}
  ~File() { close(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Null where the system has no such files, or no more of them.
  static std::shared_ptr<File> make([[maybe_unused]] size_t bytes,
                                    [[maybe_unused]] std::vector<RowBlocks> flat) {
#ifdef __linux__
    const int file = memfd_create("executorch_mm state", MFD_CLOEXEC);
    if (file < 0) return nullptr;
    if (ftruncate(file, static_cast<off_t>(bytes)) == 0)
      return std::make_shared<File>(file, std::move(flat));
    close(file);
#endif
    return nullptr;
  }

  int get() const { return file_; }

  void claim(int64_t num_rows) {
    const std::lock_guard lock(mutex_);
    claims_.insert(num_rows);
  }

  void unclaim(int64_t num_rows) {
    const std::lock_guard lock(mutex_);
    claims_.erase(claims_.find(num_rows));
    const int64_t rest = claims_.empty() ? 0 : *claims_.rbegin();
    if (rest < num_rows && !claims_.empty()) give_back(rest, num_rows);
  }

 private:
  void give_back([[maybe_unused]] int64_t first, [[maybe_unused]] int64_t end) const {
#ifdef __linux__
    for_each_block(flat_, first, end, [&](int64_t from, int64_t to) {
      from = (from + page_size() - 1) / page_size() * page_size();
      to = to / page_size() * page_size();
      if (from < to) fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, to - from);
    });
#endif
  }

  const int file_;
  const std::vector<RowBlocks> flat_;
  std::mutex mutex_;
  std::multiset<int64_t> claims_;  // rows, of each who maps it
};

StateMemory::StateMemory(size_t bytes, std::vector<RowBlocks> flat)
    : bytes_(std::max<size_t>(bytes, 1)),
      file_(File::make(bytes_, std::move(flat))),
      is_owner_(file_ != nullptr),
      num_claimed_(kAll) {
  map(nullptr);
  if (file_ != nullptr) file_->claim(num_claimed_);
}

StateMemory::StateMemory(size_t bytes, std::shared_ptr<File> file, int64_t num_rows)
    : bytes_(bytes), file_(std::move(file)), num_claimed_(num_rows) {
  map(nullptr);
  file_->claim(num_claimed_);
}

StateMemory::~StateMemory() {
  munmap(data_, bytes_);
  if (file_ != nullptr) file_->unclaim(num_claimed_);
}

void StateMemory::map(void* address) {
  const int at = address != nullptr ? MAP_FIXED : 0;
  const int sharing = is_owner_ ? MAP_SHARED : MAP_PRIVATE;
  const int kind = (file_ != nullptr ? 0 : MAP_ANONYMOUS) | MAP_NORESERVE;
  void* const memory = mmap(address, bytes_, PROT_READ | PROT_WRITE, at | sharing | kind,
                            file_ != nullptr ? file_->get() : -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorCode::kExecution,
                "the state of a conversation: cannot map " + std::to_string(bytes_) + " bytes");
  }
  data_ = static_cast<uint8_t*>(memory);
}

void StateMemory::write(size_t offset, const uint8_t* bytes, size_t size) {
#ifdef __linux__
  const auto least = static_cast<size_t>(page_size());
  while (is_owner_ && size >= least) {
    const ssize_t count = pwrite(file_->get(), bytes, size, static_cast<off_t>(offset));
    if (count <= 0) break;
    offset += static_cast<size_t>(count);
    bytes += count;
    size -= static_cast<size_t>(count);
  }
#endif
  if (size > 0) std::memcpy(data_ + offset, bytes, size);
}

void StateMemory::stop_owning(int64_t num_rows) {
  if (!is_owner_) return;
  is_owner_ = false;
  map(data_);
  file_->claim(num_rows);
  file_->unclaim(std::exchange(num_claimed_, num_rows));
}

std::unique_ptr<StateMemory> StateMemory::share(int64_t num_rows) const {
  if (file_ == nullptr) return nullptr;
  return std::unique_ptr<StateMemory>(new StateMemory(bytes_, file_, num_rows));
}

}  // namespace emm
