// The memory that a conversation's state lies in. It starts zeroed, takes room only once touched,
// and can be shared without a copy: on Linux it is a file in memory, which later conversations map
// privately, so that the system copies a page when one of them writes to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace emm {

class StateMemory {
 public:
  // Throws Error(kExecution) where the system has no more.
  explicit StateMemory(size_t bytes);
  ~StateMemory();
  StateMemory(const StateMemory&) = delete;
  StateMemory& operator=(const StateMemory&) = delete;

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

  // Writes go to the file, where those who share it see them.
  bool is_owner() const { return is_owner_; }
  bool has_file() const { return file_ != nullptr; }
  // Somebody else maps the file.
  bool is_shared() const { return file_.use_count() > 1; }
  // From now on they are seen here alone; the content stays.
  void stop_owning();
  // Another memory with the content of the file; nothing where there is none.
  std::unique_ptr<StateMemory> share() const;

 private:
  using File = std::shared_ptr<const int>;

  StateMemory(size_t bytes, File file);
  void map(void* address);

  size_t bytes_;
  File file_;  // null: anonymous memory
  bool is_owner_ = false;
  uint8_t* data_ = nullptr;
};

}  // namespace emm
