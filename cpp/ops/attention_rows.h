// Reading query and cache rows as floats and writing output rows, for the attention kernels of one
// instruction set.
#pragma once

#include "ops/attention_vec.h"
#include "ops/isa.h"

namespace emm::ops {
namespace {

// The keys [first, end) that a query token may attend to, as far as positions decide.
inline int64_t first_key(const AttentionProblem& p, int64_t token) {
  const bool is_limited = p.causal_start != kNotCausal && p.window > 0;
  const int64_t first = is_limited ? p.causal_start + token - p.window + 1 : 0;
  return first > 0 ? first : 0;
}
inline int64_t end_key(const AttentionProblem& p, int64_t token) {
  return p.causal_start == kNotCausal ? p.keys : least(p.keys, p.causal_start + token + 1);
}

// The rows [*, head] of one batch entry of a matrix: row t is at data + t * stride.
template <class L>
struct Rows {
  const typename L::T* data;
  int64_t stride;
  const float* scales;
  const int8_t* zeros;
  int64_t quant_stride;

  Rows(const Matrix& m, int64_t b, int64_t head)
      : data(static_cast<const typename L::T*>(m.data) + b * m.strides.b + head * m.strides.h),
        stride(m.strides.t),
        scales(m.scales),
        zeros(m.zeros),
        quant_stride(m.quant_strides.t) {
    if (zeros != nullptr) {
      const int64_t at = b * m.quant_strides.b + head * m.quant_strides.h;
      scales += at;
      zeros += at;
    }
  }
  const typename L::T* row(int64_t t) const { return data + t * stride; }
  float zero(int64_t t) const {
    return zeros == nullptr ? 0.0f : static_cast<float>(zeros[t * quant_stride]);
  }
  float scale(int64_t t) const { return zeros == nullptr ? 1.0f : scales[t * quant_stride]; }
};

// One row as floats times a factor; the target has room for whole vectors, zeros fill the last one.
template <class L>
inline void read_row(const typename L::T* row, int64_t size, float zero, float factor, float* to) {
  int64_t d = 0;
  for (; d + kLanes <= size; d += kLanes) {
    store(to + d, L::load(row + d, zero) * factor);
  }
  if (d < size) {
    store(to + d, vf{});
    for (int64_t i = 0; d + i < size; ++i) {
      to[d + i] = load_tail<L>(row + d, size - d, zero)[i] * factor;
    }
  }
}

template <class L>
inline void read_queries_as(const AttentionProblem& p, const AttentionTask& t, float* to,
                            int64_t stride) {
  const int64_t group = p.group();
  for (int64_t r = 0; r < t.rows; ++r) {
    const int64_t token = (t.row0 + r) / group;
    const Rows<L> rows(p.q, t.b, t.kv_head * group + (t.row0 + r) % group);
    read_row<L>(rows.row(token), p.head_size, rows.zero(token), p.scale * rows.scale(token),
                to + r * stride);
  }
}

// The query rows of a task, scaled, `stride` floats apart.
inline void read_queries(const AttentionProblem& p, const AttentionTask& t, float* to,
                         int64_t stride) {
  switch (p.q_store) {
    case Store::kFloat16:
      return read_queries_as<F16>(p, t, to, stride);
    case Store::kBFloat16:
      return read_queries_as<BF16>(p, t, to, stride);
    case Store::kInt8:
      return read_queries_as<I8>(p, t, to, stride);
    default:
      return read_queries_as<F32>(p, t, to, stride);
  }
}

// Round to nearest even, in the low 16 bits of each lane; NaN stays NaN, overflow becomes infinity.
inline vu to_bfloat16(vf v) {
  const vu bits = (vu)v;
  const vu rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return v != v ? (bits >> 16) | 0x40u : rounded;
}

inline vu to_float16(vf v) {
  const vu bits = (vu)v;
  const vu sign = (bits >> 16) & 0x8000u;
  const vu magnitude = bits & 0x7FFFFFFFu;
  // Below 2^-14 the float adder does the rounding at bit 2^-24.
  const vu small = (vu)((vf)magnitude + 0.5f) - 0x3F000000u;
  const vu normal = (magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  const vu finite = magnitude < 0x38800000u ? small : normal;
  const vu large = magnitude > 0x7F800000u ? vu{} + 0x7E00u : vu{} + 0x7C00u;
  return sign | (magnitude >= 0x477FF000u ? large : finite);
}

// Writes one vector of an output row, or the first `count` elements of it.
inline void store_vector(const AttentionProblem& p, int64_t at, vf v, int64_t count) {
  if (p.out_store == Store::kFloat32) {
    float* to = static_cast<float*>(p.out) + at;
    if (count == kLanes) {
      store(to, v);
    } else {
      __builtin_memcpy(to, &v, tail_bytes<float>(count));
    }
    return;
  }
  const vu wide = p.out_store == Store::kFloat16 ? to_float16(v) : to_bfloat16(v);
  const vu16 half = __builtin_convertvector(wide, vu16);
  uint16_t* to = static_cast<uint16_t*>(p.out) + at;
  if (count == kLanes) {
    __builtin_memcpy(to, &half, sizeof half);
  } else {
    __builtin_memcpy(to, &half, tail_bytes<uint16_t>(count));
  }
}

// Writes values * factor as one output row; returns whether all of it is finite.
inline bool store_row(const AttentionProblem& p, int64_t b, int64_t token, int64_t head,
                      const float* values, float factor) {
  const int64_t at = b * p.out_strides.b + token * p.out_strides.t + head * p.out_strides.h;
  const int64_t whole = p.head_size / kLanes * kLanes;
  vf probe = {};  // infinity - infinity and NaN - NaN are NaN, everything else is 0
  for (int64_t d = 0; d < whole; d += kLanes) {
    const vf v = load(values + d) * factor;
    probe += v - v;
    store_vector(p, at + d, v, kLanes);
  }
  if (whole < p.head_size) {
    const vf v = load_tail<F32>(values + whole, p.head_size - whole, 0) * factor;
    probe += v - v;
    store_vector(p, at + whole, v, p.head_size - whole);
  }
  return sum_lanes(probe) == 0;
}

// Row `r` of the task's head number `head` is finished: into the partial result, or as output.
inline bool finish_row(const AttentionProblem& p, const AttentionTask& t, int64_t head, int64_t r,
                       const float* values, float highest, float sum) {
  const int64_t group = p.group();
  const int64_t row = t.row0 + r;
  if (t.partial != nullptr) {
    float* to = t.partial + (head * t.rows + r) * partial_stride(p.head_size);
    to[0] = highest;
    to[1] = sum;
    __builtin_memcpy(to + 2, values, static_cast<uint64_t>(p.head_size) * 4);
    return true;  // judged when the parts are put together
  }
  return store_row(p, t.b, row / group, (t.kv_head + head) * group + row % group, values,
                   sum == 0 ? 0.0f : 1 / sum);
}

// Puts the parts of a task's rows together, in place in the first part, and writes the output.
bool merge(const AttentionProblem& p, const AttentionTask& t, int64_t parts, int64_t distance) {
  const int64_t group = p.group();
  const int64_t stride = partial_stride(p.head_size);
  bool finite = true;
  for (int64_t at = 0; at < t.kv_heads * t.rows; ++at) {
    float* first = t.partial + at * stride;
    float highest = -kInf;
    for (int64_t part = 0; part < parts; ++part) {
      const float h = first[part * distance];
      highest = h > highest ? h : highest;
    }
    const float base = highest == -kInf ? 0 : highest;
    float sum = 0;
    for (int64_t part = 0; part < parts; ++part) {
      const float* from = first + part * distance;
      const float weight = exp_nonpositive(splat(from[0] - base))[0];
      sum += weight * from[1];
      for (int64_t d = 2; d < stride; ++d) {
        first[d] = part == 0 ? weight * from[d] : first[d] + weight * from[d];
      }
    }
    const int64_t row = t.row0 + at % t.rows;
    const int64_t head = (t.kv_head + at / t.rows) * group + row % group;
    finite = store_row(p, t.b, row / group, head, first + 2, sum == 0 ? 0.0f : 1 / sum) && finite;
  }
  return finite;
}

}  // namespace
}  // namespace emm::ops
