// Attention for a few query rows (decoding): keys and values are read straight from the cache, each
// row of it once for all query heads that share it, and in the order in which they lie there: all
// heads of some keys, then the next keys. Vectors run along the head for both products.
#pragma once

#include "ops/attention_rows.h"

namespace emm::ops {
namespace {

constexpr int64_t kDirectRows = 8;    // of one key/value head
constexpr int64_t kDirectKeys = 512;  // of one task
constexpr int64_t kScoreKeys = 4;     // dot products side by side
constexpr int64_t kValueKeys = 64;    // values of one head before it is the next head's turn
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int64_t kRowsAtOnce = 4;
#elif defined(__AVX2__)
constexpr int64_t kRowsAtOnce = 3;
#else
constexpr int64_t kRowsAtOnce = 2;
#endif
// Rows of the cache are asked for in advance, for the second-level cache: the first one has too few
// lines in flight to hide the latency of main memory. So many keys of a task before they are
// needed, its values with its keys, and the next task's keys with the values: memory is read all
// the time, however long a product takes.
constexpr int64_t kReadAhead = 8;

// The floats of a row, in whole vectors.
inline int64_t padded(int64_t head_size) { return round_up(head_size, kLanes); }

// What a direct task works on. Rows are numbered head by head: (head - first head) * rows of a head
// + row.
struct Direct {
  int64_t heads;
  int64_t rows;  // of one head
  int64_t keys;
  int64_t stride;         // between rows of q and out
  int64_t scores_stride;  // between rows of scores
  float* q;
  float* out;
  float* scores;   // later weights
  float* scales;   // [keys], for int8
  float* highest;  // of each row's scores
  float* sums;     // of each row's weights
};

template <int kValue>
struct Count {
  static constexpr int value = kValue;
};

int64_t direct_scratch(const AttentionProblem& p, int64_t heads, int64_t rows) {
  return heads * rows * (2 * padded(p.head_size) + kDirectKeys + kLanes + 2) + kDirectKeys;
}

template <class T>
inline void read_ahead(const T* row, int64_t size) {
  for (int64_t d = 0; d < size; d += 64 / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(row + d, 0, 2);
  }
}

// scores[r][j] = q[r] . k[key0 + j] for up to kScoreKeys keys from `key` on, for kCount rows.
template <class L, int kCount>
inline void score_keys(const AttentionProblem& p, const Rows<L>& k, int64_t key, int64_t key1,
                       const float* q, int64_t q_stride, float* scores, int64_t scores_stride) {
  constexpr int kSumRows = kLanes / 4;  // rows that one sum_all() finishes
  constexpr int kSums = (kCount + kSumRows - 1) / kSumRows;
  const int64_t whole = p.head_size / kLanes * kLanes;
  const int64_t tail = p.head_size - whole;
  const typename L::T* rows[kScoreKeys];
  float zeros[kScoreKeys];
  EMM_UNROLL for (int i = 0; i < kScoreKeys; ++i) {
    const int64_t at =
        least(key + i, key1 - 1);  // past the end the last key again; nobody looks at its score
    rows[i] = k.row(at);
    zeros[i] = k.zero(at);
  }
  vf sums[kSums * kSumRows][4] = {};
  for (int64_t d = 0; d < whole; d += kLanes) {
    EMM_UNROLL for (int i = 0; i < kScoreKeys; ++i) {
      const vf kv = in_register(L::load(rows[i] + d, zeros[i]));
      EMM_UNROLL for (int r = 0; r < kCount; ++r) { sums[r][i] += load(q + r * q_stride + d) * kv; }
    }
  }
  if (tail > 0) {
    EMM_UNROLL for (int i = 0; i < kScoreKeys; ++i) {
      const vf kv = load_tail<L>(rows[i] + whole, tail, zeros[i]);
      EMM_UNROLL for (int r = 0; r < kCount; ++r) {
        sums[r][i] += load(q + r * q_stride + whole) * kv;
      }
    }
  }
  EMM_UNROLL for (int s = 0; s < kSums; ++s) {
    const vf all = sum_all(&sums[s * kSumRows]);
    EMM_UNROLL for (int r = 0; r < kSumRows; ++r) {
      if (s * kSumRows + r < kCount) {
        __builtin_memcpy(scores + (s * kSumRows + r) * scores_stride,
                         reinterpret_cast<const char*>(&all) + r * 16, 16);
      }
    }
  }
}

// Rows to ask for while others are used: so many further on, and none behind the last.
template <class L>
struct Ahead {
  Rows<L> rows;
  int64_t by;
  int64_t last;

  const typename L::T* row(int64_t key) const { return rows.row(least(key + by, last)); }
};

// out[r] += sum over keys of weights[r][key - key0] * v[key], for kCount rows and kVectors vectors
// of the head that start at column d. The last vector may reach past the head; `tail` then says how
// much of it there is (0: all).
template <class L, int kCount, int kVectors>
inline void add_values(const Rows<L>& v, const Ahead<L>& ahead, int64_t key0, int64_t key1,
                       int64_t d, int64_t tail, const float* weights, int64_t weights_stride,
                       float* out, int64_t out_stride) {
  vf sums[kCount][kVectors];
  EMM_UNROLL for (int r = 0; r < kCount; ++r) {
    EMM_UNROLL for (int n = 0; n < kVectors; ++n) {
      sums[r][n] = load(out + r * out_stride + d + n * kLanes);
    }
  }
  for (int64_t key = key0; key < key1; ++key) {
    const typename L::T* row = v.row(key) + d;
    const float zero = v.zero(key);
    read_ahead(ahead.row(key) + d, kVectors * kLanes);
    EMM_UNROLL for (int n = 0; n < kVectors; ++n) {
      const vf value =
          in_register(tail > 0 && n == kVectors - 1 ? load_tail<L>(row + n * kLanes, tail, zero)
                                                    : L::load(row + n * kLanes, zero));
      EMM_UNROLL for (int r = 0; r < kCount; ++r) {
        sums[r][n] += weights[r * weights_stride + key] * value;
      }
    }
  }
  EMM_UNROLL for (int r = 0; r < kCount; ++r) {
    EMM_UNROLL for (int n = 0; n < kVectors; ++n) {
      store(out + r * out_stride + d + n * kLanes, sums[r][n]);
    }
  }
}

template <class L, int kCount>
inline void value_keys(const AttentionProblem& p, const Rows<L>& v, const Ahead<L>& ahead,
                       int64_t key0, int64_t key1, const float* weights, int64_t weights_stride,
                       float* out, int64_t out_stride) {
  const int64_t whole = p.head_size / kLanes * kLanes;
  int64_t d = 0;
  for (; d + 4 * kLanes <= whole; d += 4 * kLanes) {
    add_values<L, kCount, 4>(v, ahead, key0, key1, d, 0, weights, weights_stride, out, out_stride);
  }
  for (; d < whole; d += kLanes) {
    add_values<L, kCount, 1>(v, ahead, key0, key1, d, 0, weights, weights_stride, out, out_stride);
  }
  if (d < p.head_size) {
    add_values<L, kCount, 1>(v, ahead, key0, key1, d, p.head_size - d, weights, weights_stride, out,
                             out_stride);
  }
}

// Calls body(Count<n>, first) for the rows of a head in groups of nearly equal size.
template <class Body>
inline void for_row_groups(int64_t rows, const Body& body) {
  const int64_t groups = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
  const int64_t at_once = (rows + groups - 1) / groups;
  for (int64_t first = 0; first < rows; first += at_once) {
    switch (least(at_once, rows - first)) {
      case 1:
        body(Count<1>{}, first);
        break;
      case 2:
        body(Count<2>{}, first);
        break;
      case 3:
        body(Count<3>{}, first);
        break;
      default:
        body(Count<4>{}, first);
    }
  }
}

template <class L>
inline void all_scores(const AttentionProblem& p, const AttentionTask& t, const Direct& w) {
  for (int64_t key = t.key0; key < t.key1; key += kScoreKeys) {
    for (int64_t head = 0; head < w.heads; ++head) {
      const Rows<L> k(p.k, t.b, t.kv_head + head);
      const Rows<L> v(p.v, t.b, t.kv_head + head);
      for (int64_t i = key + kReadAhead; i < least(key + kReadAhead + kScoreKeys, t.key1); ++i) {
        read_ahead(k.row(i), p.head_size);
      }
      for (int64_t i = key; i < least(key + kScoreKeys, t.key1); ++i) {
        read_ahead(v.row(i), p.head_size);
      }
      for_row_groups(w.rows, [&](auto count, int64_t first) {
        const int64_t row = head * w.rows + first;
        score_keys<L, count.value>(p, k, key, t.key1, w.q + row * w.stride, w.stride,
                                   w.scores + row * w.scores_stride + (key - t.key0),
                                   w.scores_stride);
      });
    }
  }
}

template <class L>
inline void all_values(const AttentionProblem& p, const AttentionTask& t, const Direct& w) {
  for (int64_t key = t.key0; key < t.key1; key += kValueKeys) {
    const int64_t end = least(key + kValueKeys, t.key1);
    for (int64_t head = 0; head < w.heads; ++head) {
      const Rows<L> v(p.v, t.b, t.kv_head + head);
      const Ahead<L> ahead = t.key1 < p.keys ? Ahead<L>{Rows<L>(p.k, t.b, t.kv_head + head),
                                                        t.key1 - t.key0, p.keys - 1}
                                             : Ahead<L>{v, kReadAhead, end - 1};
      for_row_groups(w.rows, [&](auto count, int64_t first) {
        const int64_t row = head * w.rows + first;
        value_keys<L, count.value>(p, v, ahead, key, end, w.scores + row * w.scores_stride - t.key0,
                                   w.scores_stride, w.out + row * w.stride, w.stride);
      });
    }
  }
}

// Applies mask and causal limit to one row of scores (`count` of them, then room up to a whole
// vector) and turns it into weights relative to the highest score.
inline void weights_of_row(const AttentionProblem& p, int64_t token, int64_t key0, int64_t count,
                           float* scores, float* highest, float* total) {
  if (p.mask != nullptr) {
    const float* mask = p.mask + token * p.mask_stride + key0;
    for (int64_t j = 0; j < count; ++j) {
      scores[j] = mask[j] == -kInf ? -kInf : scores[j] + mask[j];
    }
  }
  const int64_t allowed = least(count, end_key(p, token) - key0);
  const int64_t first = least(count, first_key(p, token) - key0);
  for (int64_t j = 0; j < first; ++j) {
    scores[j] = -kInf;
  }
  const int64_t end = round_up(count, kLanes);
  for (int64_t j = allowed < 0 ? 0 : allowed; j < end; ++j) {
    scores[j] = -kInf;
  }
  vf most = splat(-kInf);
  for (int64_t j = 0; j < end; j += kLanes) {
    most = max(most, load(scores + j));
  }
  *highest = max_lanes(most);
  const vf base = safe_max(splat(*highest));
  vf sum = {};
  for (int64_t j = 0; j < end; j += kLanes) {
    const vf weight = exp_nonpositive(load(scores + j) - base);
    store(scores + j, weight);
    sum += weight;
  }
  *total = sum_lanes(sum);
}

template <class L>
inline void scale_scores(const AttentionTask& t, const Direct& w, int64_t head,
                         const Rows<L>& from) {
  if (from.zeros == nullptr) {
    return;
  }
  for (int64_t j = 0; j < w.keys; ++j) {
    w.scales[j] = from.scale(t.key0 + j);
  }
  for (int64_t r = head * w.rows; r < (head + 1) * w.rows; ++r) {
    for (int64_t j = 0; j < w.keys; ++j) {
      w.scores[r * w.scores_stride + j] *= w.scales[j];
    }
  }
}

template <class L>
bool direct_rows(const AttentionProblem& p, const AttentionTask& t, float* scratch) {
  Direct w;
  w.heads = t.kv_heads;
  w.rows = t.rows;
  w.keys = t.key1 - t.key0;
  w.stride = padded(p.head_size);
  w.scores_stride = kDirectKeys + kLanes;
  const int64_t all_rows = w.heads * w.rows;
  w.q = scratch;
  w.out = w.q + all_rows * w.stride;
  w.scores = w.out + all_rows * w.stride;
  w.scales = w.scores + all_rows * w.scores_stride;
  w.highest = w.scales + kDirectKeys;
  w.sums = w.highest + all_rows;
  for (int64_t head = 0; head < w.heads; ++head) {
    AttentionTask part = t;
    part.kv_head += head;
    read_queries(p, part, w.q + head * w.rows * w.stride, w.stride);
  }
  all_scores<L>(p, t, w);
  bool finite = true;
  for (int64_t head = 0; head < w.heads; ++head) {
    scale_scores(t, w, head, Rows<L>(p.k, t.b, t.kv_head + head));
    for (int64_t r = 0; r < w.rows; ++r) {
      const int64_t row = head * w.rows + r;
      float* values = w.out + row * w.stride;
      weights_of_row(p, (t.row0 + r) / p.group(), t.key0, w.keys, w.scores + row * w.scores_stride,
                     &w.highest[row], &w.sums[row]);
      for (int64_t d = 0; d < w.stride; d += kLanes) {
        store(values + d, vf{});
      }
    }
    scale_scores(t, w, head, Rows<L>(p.v, t.b, t.kv_head + head));
  }
  all_values<L>(p, t, w);
  for (int64_t head = 0; head < w.heads; ++head) {
    for (int64_t r = 0; r < w.rows; ++r) {
      const int64_t row = head * w.rows + r;
      finite =
          finish_row(p, t, head, r, w.out + row * w.stride, w.highest[row], w.sums[row]) && finite;
    }
  }
  return finite;
}

// At most kDirectRows rows and kDirectKeys keys.
bool direct(const AttentionProblem& p, const AttentionTask& t, float* scratch) {
  switch (p.store) {
    case Store::kFloat16:
      return direct_rows<F16>(p, t, scratch);
    case Store::kBFloat16:
      return direct_rows<BF16>(p, t, scratch);
    case Store::kInt8:
      return direct_rows<I8>(p, t, scratch);
    default:
      return direct_rows<F32>(p, t, scratch);
  }
}

}  // namespace
}  // namespace emm::ops
