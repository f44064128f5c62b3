#include "ops/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/dtype.h"

namespace emm::ops {
namespace {

float element(const void* from, Store store, int64_t at) {
  switch (store) {
    case Store::kFloat16:
      return float16_to_float(static_cast<const uint16_t*>(from)[at]);
    case Store::kBFloat16:
      return bfloat16_to_float(static_cast<const uint16_t*>(from)[at]);
    default:
      return static_cast<const float*>(from)[at];
  }
}

// The row's range, with 0 in it so that 0 is kept exactly, is spread over the 256 numbers. A row
// that is not finite has no range: it becomes NaN, as it would in floats.
void quantize(const void* from, Store store, int64_t count, int64_t size, int8_t* to, float* scale,
              int8_t* zero) {
  float low = 0;
  float high = 0;
  bool is_finite = true;
  for (int64_t i = 0; i < count; ++i) {
    const float x = element(from, store, i);
    low = std::min(low, x);
    high = std::max(high, x);
    is_finite = is_finite && std::isfinite(x);
  }
  *scale = is_finite ? std::max((high - low) / 255.0f, 1e-20f) : NAN;
  if (!std::isfinite(*scale)) {
    *scale = NAN;
    *zero = 0;
    std::memset(to, 1, static_cast<size_t>(size));
    return;
  }
  const auto clamp = [](float x) { return std::min(std::max(x, -128.0f), 127.0f); };
  const float offset = clamp(std::nearbyint(-128.0f - low / *scale));
  *zero = static_cast<int8_t>(offset);
  for (int64_t i = 0; i < count; ++i) {
    to[i] = static_cast<int8_t>(clamp(std::nearbyint(element(from, store, i) / *scale) + offset));
  }
  std::memset(to + count, *zero, static_cast<size_t>(size - count));
}

}  // namespace

KvRows::KvRows(const KvRows& other) : KvRows(other.heads_, other.size_, other.store_) {
  reserve(other.rows_);
  copy(other, 0, 0, other.rows_);
}

void KvRows::Free::operator()(void* memory) const { std::free(memory); }

int64_t KvRows::element_bytes() const {
  return store_ == Store::kFloat32 ? 4 : store_ == Store::kInt8 ? 1 : 2;
}

int64_t KvRows::row_bytes() const {
  const int64_t quantization = store_ == Store::kInt8 ? heads_ * 5 : 0;
  return elements() * element_bytes() + quantization;
}

template <class T>
void KvRows::grow(Memory<T>& memory, int64_t count) {
  if (count == 0) return;  // a layer that nothing calls
  // realloc() moves large blocks without a copy where the system can.
  void* grown = std::realloc(memory.get(), static_cast<size_t>(count) * sizeof(T));
  if (grown == nullptr) throw std::bad_alloc();
  static_cast<void>(memory.release());
  memory.reset(static_cast<T*>(grown));
}

void KvRows::reserve(int64_t rows) {
  if (rows <= rows_) return;
  grow(data_, rows * elements() * element_bytes());
  if (store_ == Store::kInt8) {
    grow(scales_, rows * heads_);
    grow(zeros_, rows * heads_);
  }
  rows_ = rows;
}

void KvRows::write(int64_t row, int64_t head, const void* elements, Store from, int64_t count) {
  if (heads_ * size_ == 0) return;
  const int64_t at = row * heads_ + head;
  unsigned char* to = data_.get() + at * size_ * element_bytes();
  if (store_ == Store::kInt8) {
    quantize(elements, from, count, size_, reinterpret_cast<int8_t*>(to), &scales_[at],
             &zeros_[at]);
    return;
  }
  if (from == store_) {
    std::memcpy(to, elements, static_cast<size_t>(count * element_bytes()));
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const float x = element(elements, from, i);
      if (store_ == Store::kFloat32) {
        reinterpret_cast<float*>(to)[i] = x;
      } else {
        reinterpret_cast<uint16_t*>(to)[i] =
            store_ == Store::kFloat16 ? float_to_float16(x) : float_to_bfloat16(x);
      }
    }
  }
  std::memset(to + count * element_bytes(), 0,
              static_cast<size_t>((size_ - count) * element_bytes()));
}

void KvRows::copy(const KvRows& from, int64_t from_row, int64_t row, int64_t count) {
  if (count * elements() == 0) return;  // there is no memory, and memcpy() takes no null pointer
  const int64_t bytes = elements() * element_bytes();
  std::memcpy(data_.get() + row * bytes, from.data_.get() + from_row * bytes,
              static_cast<size_t>(count * bytes));
  if (store_ != Store::kInt8) return;
  std::memcpy(&scales_[row * heads_], &from.scales_[from_row * heads_],
              static_cast<size_t>(count * heads_) * sizeof(float));
  std::memcpy(&zeros_[row * heads_], &from.zeros_[from_row * heads_],
              static_cast<size_t>(count * heads_));
}

void KvRows::move_to_front(int64_t row, int64_t count) {
  if (row * count * elements() == 0) return;
  const int64_t bytes = elements() * element_bytes();
  std::memmove(data_.get(), data_.get() + row * bytes, static_cast<size_t>(count * bytes));
  if (store_ != Store::kInt8) return;
  std::memmove(scales_.get(), &scales_[row * heads_],
               static_cast<size_t>(count * heads_) * sizeof(float));
  std::memmove(zeros_.get(), &zeros_[row * heads_], static_cast<size_t>(count * heads_));
}

void KvRows::fill_with_zeros(int64_t count) {
  if (count * elements() == 0) return;
  std::memset(data_.get(), 0, static_cast<size_t>(count * elements() * element_bytes()));
  if (store_ != Store::kInt8) return;
  std::memset(scales_.get(), 0, static_cast<size_t>(count * heads_) * sizeof(float));
  std::memset(zeros_.get(), 0, static_cast<size_t>(count * heads_));
}

int64_t KvRows::elements_to(uint8_t* to, int64_t row, int64_t count) const {
  if (count * elements() == 0) return 0;
  const int64_t bytes = elements() * element_bytes();
  std::memcpy(to, data_.get() + row * bytes, static_cast<size_t>(count * bytes));
  return count * bytes;
}

int64_t KvRows::scales_to(uint8_t* to, int64_t row, int64_t count) const {
  if (store_ != Store::kInt8 || count * heads_ == 0) return 0;
  const int64_t number = count * heads_;
  std::memcpy(to, &scales_[row * heads_], static_cast<size_t>(number) * sizeof(float));
  std::memcpy(to + number * 4, &zeros_[row * heads_], static_cast<size_t>(number));
  return number * 5;
}

int64_t KvRows::elements_from(const uint8_t* from, int64_t count) {
  const int64_t bytes = count * elements() * element_bytes();
  if (bytes == 0) return 0;
  std::memcpy(data_.get(), from, static_cast<size_t>(bytes));
  return bytes;
}

int64_t KvRows::scales_from(const uint8_t* from, int64_t count) {
  if (store_ != Store::kInt8 || count * heads_ == 0) return 0;
  const int64_t number = count * heads_;
  std::memcpy(scales_.get(), from, static_cast<size_t>(number) * sizeof(float));
  std::memcpy(zeros_.get(), from + number * 4, static_cast<size_t>(number));
  return number * 5;
}

Matrix KvRows::matrix(int64_t row) const {
  Matrix matrix;
  matrix.data = data_.get() + row * elements() * element_bytes();
  matrix.strides = {0, elements(), size_};
  if (store_ == Store::kInt8) {
    matrix.scales = &scales_[row * heads_];
    matrix.zeros = &zeros_[row * heads_];
    matrix.quant_strides = {0, heads_, 1};
  }
  return matrix;
}

}  // namespace emm::ops
