// A reader of FlatBuffers (https://flatbuffers.dev/internals/) that trusts nothing: every offset is
// checked before it is followed, and a bad one throws Error(kLoad) that names where it stood. The
// SDK ships no generated headers, and its own reader only runs inside ExecuTorch.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace emm {

// The bytes, and the path of fields that is being read, for messages.
class FlatBuffer {
 public:
  FlatBuffer(const uint8_t* data, size_t size, std::string what)
      : data_(data), size_(size), what_(std::move(what)) {}

  size_t size() const { return size_; }

  template <typename T>
  T scalar(size_t offset) const {
    static_assert(std::is_arithmetic_v<T>);
    expect_range(offset, sizeof(T));
    if constexpr (std::is_same_v<T, bool>) {
      return data_[offset] != 0;
    } else {
      T value;
      std::memcpy(&value, data_ + offset, sizeof value);
      return value;
    }
  }

  const uint8_t* bytes(size_t offset, size_t count) const {
    expect_range(offset, count);
    return data_ + offset;
  }

  // Offset `offset` holds a distance to something that lies behind it.
  size_t follow(size_t offset) const {
    const uint32_t distance = scalar<uint32_t>(offset);
    if (distance == 0) fail("an offset of 0");
    expect_range(offset, static_cast<size_t>(distance) + sizeof(uint32_t));
    return offset + distance;
  }

  [[noreturn]] void fail(const std::string& problem) const {
    std::string where = what_;
    for (const Step& step : path_) {
      where += std::string(".") + step.field;
      if (step.index >= 0) where += "[" + std::to_string(step.index) + "]";
    }
    throw Error(ErrorCode::kLoad, where + ": " + problem);
  }

  // Names the field that is read while it lives.
  class Scope {
   public:
    Scope(FlatBuffer& buffer, const char* field, int64_t index = -1) : buffer_(buffer) {
      if (buffer.path_.size() > kMaxDepth) buffer.fail("nested too deeply");
      buffer.path_.push_back({field, index});
    }
    ~Scope() { buffer_.path_.pop_back(); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    FlatBuffer& buffer_;
  };

 private:
  static constexpr size_t kMaxDepth = 32;
  struct Step {
    const char* field;
    int64_t index;
  };

  void expect_range(size_t offset, size_t count) const {
    if (offset > size_ || count > size_ - offset) {
      fail("expected " + std::to_string(count) + " bytes at offset " + std::to_string(offset) +
           ", the data ends at " + std::to_string(size_));
    }
  }

  const uint8_t* data_;
  size_t size_;
  std::string what_;
  std::vector<Step> path_;
};

// A table: `slot` counts the schema's fields from 0, a union takes two (type, value).
class FlatTable {
 public:
  FlatTable(FlatBuffer& buffer, size_t offset) : buffer_(&buffer), offset_(offset) {
    const int64_t vtable =
        static_cast<int64_t>(offset) - static_cast<int64_t>(buffer.scalar<int32_t>(offset));
    if (vtable < 0) buffer.fail("its vtable lies before the data");
    vtable_ = static_cast<size_t>(vtable);
    vtable_bytes_ = buffer.scalar<uint16_t>(vtable_);
    if (vtable_bytes_ < 4 || vtable_bytes_ % 2 != 0) buffer.fail("a vtable of impossible size");
    buffer.bytes(vtable_, vtable_bytes_);
    buffer.bytes(offset, buffer.scalar<uint16_t>(vtable_ + 2));
  }

  FlatBuffer& buffer() const { return *buffer_; }
  bool has(int slot) const { return field(slot) != 0; }

  // Where a field lies; 0: nowhere.
  size_t position(int slot) const { return field(slot); }

  template <typename T>
  T scalar(int slot, T absent = T{}) const {
    const size_t at = field(slot);
    return at == 0 ? absent : buffer_->scalar<T>(at);
  }

  FlatTable table(int slot) const { return {*buffer_, target(slot)}; }

  std::string_view text(int slot) const {
    if (!has(slot)) return {};
    const size_t at = target(slot);
    const uint32_t length = buffer_->scalar<uint32_t>(at);
    const char* chars = reinterpret_cast<const char*>(buffer_->bytes(at + 4, size_t{length} + 1));
    if (chars[length] != '\0') buffer_->fail("a string without its closing zero");
    const std::string_view found(chars, length);
    if (!is_utf8(found)) buffer_->fail("a string that is no UTF-8");
    return found;
  }

  // A vector of scalars; empty where it is absent.
  template <typename T, typename To = T>
  std::vector<To> scalars(int slot) const {
    std::vector<To> values;
    if (!has(slot)) return values;
    const auto [at, count] = vector(slot, sizeof(T));
    values.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      values.push_back(static_cast<To>(buffer_->scalar<T>(at + i * sizeof(T))));
    }
    return values;
  }

  struct Bytes {
    size_t offset = 0;
    size_t size = 0;
  };
  // Where a vector of bytes lies.
  Bytes bytes(int slot) const {
    if (!has(slot)) return {};
    const auto [at, count] = vector(slot, 1);
    return {at, count};
  }

  size_t count(int slot) const { return has(slot) ? vector(slot, 4).second : 0; }

  // Calls read(table) for each element of a vector of tables; `name` is for messages.
  template <typename Read>
  void each(int slot, const char* name, Read&& read) const {
    if (!has(slot)) return;
    const auto [at, count] = [&] {
      FlatBuffer::Scope scope(*buffer_, name);
      return vector(slot, sizeof(uint32_t));
    }();
    for (size_t i = 0; i < count; ++i) {
      FlatBuffer::Scope scope(*buffer_, name, static_cast<int64_t>(i));
      read(FlatTable(*buffer_, buffer_->follow(at + i * sizeof(uint32_t))));
    }
  }

 private:
  size_t field(int slot) const {
    const size_t entry = 4 + 2 * static_cast<size_t>(slot);
    if (entry + 2 > vtable_bytes_) return 0;
    const uint16_t distance = buffer_->scalar<uint16_t>(vtable_ + entry);
    return distance == 0 ? 0 : offset_ + distance;
  }
  size_t target(int slot) const {
    const size_t at = field(slot);
    if (at == 0) buffer_->fail("field " + std::to_string(slot) + " is missing");
    return buffer_->follow(at);
  }
  std::pair<size_t, size_t> vector(int slot, size_t element_bytes) const {
    const size_t at = target(slot);
    const size_t count = buffer_->scalar<uint32_t>(at);
    buffer_->bytes(at + 4, count * element_bytes);
    return {at + 4, count};
  }

  FlatBuffer* buffer_;
  size_t offset_;
  size_t vtable_ = 0;
  size_t vtable_bytes_ = 0;
};

}  // namespace emm
