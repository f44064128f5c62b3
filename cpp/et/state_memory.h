// The memory that a conversation's state lies in. It starts zeroed, takes room only once touched,
// and can be shared without a copy: on Linux it is a file in memory, which later conversations map
// privately, so that the system copies a page when one of them writes to it. Rows of the file that
// nobody claims any more are given back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace emm {

// Blocks of rows, one behind the other.
struct RowBlocks {
  uint64_t offset = 0;  // of the first
  int64_t outer = 1;
  int64_t rows = 0;  // of each
  int64_t row_bytes = 0;
};

// The pages of a memory that rows of it lie in.
class TouchedPages {
 public:
  // Rows from `first` to `end` of each block.
  void add(const RowBlocks& rows, int64_t first, int64_t end);
  // A page that several rows lie in counts once.
  int64_t bytes() const;

 private:
  std::vector<std::pair<int64_t, int64_t>> ranges_;
};

class StateMemory {
 public:
  // `flat`: the rows in it that somebody may claim from the first on. Throws Error(kExecution)
  // where the system has no more.
  explicit StateMemory(size_t bytes, std::vector<RowBlocks> flat = {});
  ~StateMemory();
  StateMemory(const StateMemory&) = delete;
  StateMemory& operator=(const StateMemory&) = delete;

  uint8_t* data() const { return data_; }
  // Copies bytes to a place in it; quicker than through data() where that was not touched yet, as
  // the system then neither zeroes pages nor stops for each.
  void write(size_t offset, const uint8_t* bytes, size_t size);
  size_t bytes() const { return bytes_; }

  // Writes go to the file, where those who share it see them.
  bool is_owner() const { return is_owner_; }
  bool has_file() const { return file_ != nullptr; }
  const void* file() const { return file_.get(); }
  // Somebody else maps the file.
  bool is_shared() const { return file_.use_count() > 1; }
  // From now on they are seen here alone; of the content the first `num_rows` rows stay.
  void stop_owning(int64_t num_rows);
  // Another memory with the first `num_rows` rows of the file, and what is no rows; nothing where
  // there is none.
  std::unique_ptr<StateMemory> share(int64_t num_rows) const;

 private:
  class File;

  StateMemory(size_t bytes, std::shared_ptr<File> file, int64_t num_rows);
  void map(void* address);

  size_t bytes_;
  std::shared_ptr<File> file_;  // null: anonymous memory
  bool is_owner_ = false;
  int64_t num_claimed_;  // rows of the file
  uint8_t* data_ = nullptr;
};

}  // namespace emm
