// Keys or values of one layer, a row for each position: [row][head][size], as the attention kernels
// read them.
#pragma once

#include <cstdint>
#include <memory>

#include "ops/attention.h"

namespace emm::ops {

class KvRows {
 public:
  KvRows(int64_t heads, int64_t size, Store store) : heads_(heads), size_(size), store_(store) {}
  KvRows(const KvRows& other);
  KvRows(KvRows&&) = default;
  KvRows& operator=(const KvRows& other) { return *this = KvRows(other); }
  KvRows& operator=(KvRows&&) = default;
  ~KvRows() = default;

  int64_t rows() const { return rows_; }
  int64_t row_bytes() const;

  // Room for at least so many rows; keeps what is there. Throws std::bad_alloc.
  void reserve(int64_t rows);

  // Writes one head of a row from `count` <= size elements; zeros follow them.
  void write(int64_t row, int64_t head, const void* elements, Store from, int64_t count);

  // Copies `count` rows of another of the same shape.
  void copy(const KvRows& from, int64_t from_row, int64_t row, int64_t count);
  // Moves `count` rows from `row` to the front.
  void move_to_front(int64_t row, int64_t count);

  // The first `count` rows become zeros.
  void fill_with_zeros(int64_t count);

  // Copies `count` rows' elements, and what quantised ones are scaled with, to or from dense
  // memory. They return how many bytes that was.
  int64_t elements_to(uint8_t* to, int64_t row, int64_t count) const;
  int64_t scales_to(uint8_t* to, int64_t row, int64_t count) const;
  int64_t elements_from(const uint8_t* from, int64_t count);
  int64_t scales_from(const uint8_t* from, int64_t count);

  // As the kernels take it, from a row on.
  Matrix matrix(int64_t row) const;

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  template <class T>
  using Memory = std::unique_ptr<T[], Free>;
  template <class T>
  static void grow(Memory<T>& memory, int64_t count);

  int64_t elements() const { return heads_ * size_; }
  int64_t element_bytes() const;

  int64_t heads_;
  int64_t size_;  // of a head
  Store store_;
  int64_t rows_ = 0;  // that there is room for
  Memory<unsigned char> data_;
  // kInt8: of each [row][head].
  Memory<float> scales_;
  Memory<int8_t> zeros_;
};

}  // namespace emm::ops
