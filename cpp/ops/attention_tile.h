// Attention for many query rows (prefill): flash attention over blocks of keys, with the rows as
// vector lanes. Scores, weights and the running output are kept transposed ([key or column][row]),
// so keys and values are only ever broadcast from where they lie, no matrix has to be transposed
// but the queries (once) and the output (once), and softmax needs no sums across lanes.
#pragma once

#include <type_traits>

#include "ops/attention_rows.h"

namespace emm::ops {
namespace {

constexpr int64_t kPanelVectors = 2;
constexpr int64_t kPanel = kPanelVectors * kLanes;  // rows that pass over a block of keys together
#if defined(__AVX512F__)
constexpr int64_t kStep = 8;    // keys, or columns, whose sums are in registers together
constexpr int64_t kPanels = 4;  // of a tile
#elif defined(__AVX2__)
constexpr int64_t kStep = 6;
constexpr int64_t kPanels = 6;
#elif defined(__aarch64__)
constexpr int64_t kStep = 8;
constexpr int64_t kPanels = 12;
#else
constexpr int64_t kStep = 4;
constexpr int64_t kPanels = 12;
#endif
constexpr int64_t kTileRows = kPanels * kPanel;
constexpr int64_t kBlock = 96;  // keys of a block; a multiple of every kStep

// The rows of a tile in panels of kPanel.
struct Tile {
  float* q;        // [panel][head_size][kPanel]
  float* out;      // like q
  float* highest;  // [row]
  float* sum;      // [row]
  float* scores;   // [kBlock][kPanel], for one panel at a time
  float* mask;     // like scores
  float* keys;     // [kBlock][padded head size]; null where they are used in place
  float* values;   // like keys
  float* staging;  // [kPanel][padded head size]: rows on their way in and out
};

inline int64_t tile_row_floats(int64_t head_size) { return round_up(head_size, kLanes); }

// Whether keys and values are used where they lie. Floats are, unless their rows are a multiple of
// 1 KiB apart with other heads between them: those share few sets of the first-level cache and push
// each other out of it.
inline bool is_in_place(const AttentionProblem& p) {
  const auto lie_well = [&](const Matrix& m) {
    return m.strides.t % 256 != 0 || m.strides.t <= p.head_size;
  };
  return p.store == Store::kFloat32 && lie_well(p.k) && lie_well(p.v);
}

int64_t tile_scratch(const AttentionProblem& p, int64_t rows) {
  const int64_t lanes = round_up(rows, kPanel);
  const int64_t blocks = is_in_place(p) ? 0 : 2 * kBlock;
  return 2 * lanes * p.head_size + 2 * lanes + 2 * kBlock * kPanel +
         tile_row_floats(p.head_size) * (blocks + kPanel);
}

// scores[j][lane] = k[j] . q[lane] for the `count` keys; `k` rows are `stride` floats apart.
inline void tile_scores(const float* k, int64_t stride, int64_t count, int64_t head_size,
                        const float* q, float* scores) {
  for (int64_t j = 0; j < count; j += kStep) {
    const float* rows[kStep];
    EMM_UNROLL for (int i = 0; i < kStep; ++i) { rows[i] = k + least(j + i, count - 1) * stride; }
    vf sums[kStep][kPanelVectors] = {};
    for (int64_t d = 0; d < head_size; ++d) {
      vf qv[kPanelVectors];
      EMM_UNROLL for (int n = 0; n < kPanelVectors; ++n) {
        qv[n] = load(q + d * kPanel + n * kLanes);
      }
      EMM_UNROLL for (int i = 0; i < kStep; ++i) {
        const vf kv = splat(rows[i][d]);
        EMM_UNROLL for (int n = 0; n < kPanelVectors; ++n) { sums[i][n] += kv * qv[n]; }
      }
    }
    EMM_UNROLL for (int i = 0; i < kStep; ++i) {
      EMM_UNROLL for (int n = 0; n < kPanelVectors; ++n) {
        store(scores + (j + i) * kPanel + n * kLanes, sums[i][n]);
      }
    }
  }
}

// out[d][lane] = out[d][lane] * fade[lane] + sum over j of v[j][d] * weights[j][lane], for kCount
// columns.
template <int kCount>
inline void tile_columns(const float* v, int64_t stride, int64_t count, const float* weights,
                         const vf* fade, float* out) {
  vf sums[kCount][kPanelVectors] = {};
  for (int64_t j = 0; j < count; ++j) {
    vf wv[kPanelVectors];
    EMM_UNROLL for (int n = 0; n < kPanelVectors; ++n) {
      wv[n] = load(weights + j * kPanel + n * kLanes);
    }
    const float* row = v + j * stride;
    EMM_UNROLL for (int i = 0; i < kCount; ++i) {
      const vf value = splat(row[i]);
      EMM_UNROLL for (int n = 0; n < kPanelVectors; ++n) { sums[i][n] += value * wv[n]; }
    }
  }
  EMM_UNROLL for (int i = 0; i < kCount; ++i) {
    EMM_UNROLL for (int n = 0; n < kPanelVectors; ++n) {
      float* to = out + i * kPanel + n * kLanes;
      store(to, load(to) * fade[n] + sums[i][n]);
    }
  }
}

inline void tile_values(const float* v, int64_t stride, int64_t count, int64_t head_size,
                        const float* weights, const vf* fade, float* out) {
  int64_t d = 0;
  for (; d + kStep <= head_size; d += kStep) {
    tile_columns<kStep>(v + d, stride, count, weights, fade, out + d * kPanel);
  }
  for (; d < head_size; ++d) {
    tile_columns<1>(v + d, stride, count, weights, fade, out + d * kPanel);
  }
}

// Turns a panel's scores into weights relative to the new highest score of each row, updates
// highest and sum, and gives the factor by which what the rows have so far fades.
inline void tile_weights(int64_t count, float* scores, float* highest, float* sum, vf* fade) {
  EMM_UNROLL for (int n = 0; n < kPanelVectors; ++n) {
    float* s = scores + n * kLanes;
    const vf before = load(highest + n * kLanes);
    vf most = before;
    for (int64_t j = 0; j < count; ++j) {
      most = max(most, load(s + j * kPanel));
    }
    const vf base = safe_max(most);
    vf total = {};
    for (int64_t j = 0; j < count; ++j) {
      const vf weight = exp_nonpositive(load(s + j * kPanel) - base);
      store(s + j * kPanel, weight);
      total += weight;
    }
    fade[n] = exp_nonpositive(before - base);
    store(highest + n * kLanes, most);
    store(sum + n * kLanes, load(sum + n * kLanes) * fade[n] + total);
  }
}

// What the mask does to the block [key0, key0 + count) of a task's rows.
enum class MaskKind { kNothing, kSome, kAllExcluded };

inline MaskKind mask_kind(const AttentionProblem& p, int64_t token0, int64_t token1, int64_t key0,
                          int64_t count) {
  bool nothing = true;
  bool excluded = true;
  for (int64_t token = token0; token < token1 && (nothing || excluded); ++token) {
    const float* row = p.mask + token * p.mask_stride + key0;
    vi zero = vi{} - 1;
    vi out = vi{} - 1;
    int64_t j = 0;
    for (; j + kLanes <= count; j += kLanes) {
      const vf m = load(row + j);
      zero &= (vi)(m == 0.0f);
      out &= (vi)(m == -kInf);
    }
    for (int i = 0; i < kLanes; ++i) {
      nothing = nothing && zero[i] != 0;
      excluded = excluded && out[i] != 0;
    }
    for (; j < count; ++j) {
      nothing = nothing && row[j] == 0;
      excluded = excluded && row[j] == -kInf;
    }
  }
  return nothing ? MaskKind::kNothing : excluded ? MaskKind::kAllExcluded : MaskKind::kSome;
}

// Adds the mask to a panel's scores; the panel's first row is `row0` of the head's rows, `rows` of
// its lanes are real.
inline void add_mask(const AttentionProblem& p, int64_t row0, int64_t rows, int64_t key0,
                     int64_t count, float* mask, float* scores) {
  const int64_t group = p.group();
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    const int64_t token = (row0 + least(lane, rows - 1)) / group;
    const float* row = p.mask + token * p.mask_stride + key0;
    for (int64_t j = 0; j < count; ++j) {
      mask[j * kPanel + lane] = row[j];
    }
  }
  for (int64_t i = 0; i < count * kPanel; i += kLanes) {
    const vf m = load(mask + i);
    store(scores + i, m == -kInf ? m : load(scores + i) + m);
  }
}

// Excludes from a panel's scores the keys past each row's own token, and those before its window.
inline void limit_causally(const AttentionProblem& p, int64_t row0, int64_t key0, int64_t count,
                           float* scores) {
  const int32_t window = static_cast<int32_t>(p.window > 0 ? least(p.window, 1 << 30) : 1 << 30);
  EMM_UNROLL for (int n = 0; n < kPanelVectors; ++n) {
    vi limit;
    for (int i = 0; i < kLanes; ++i) {
      limit[i] = static_cast<int32_t>(p.causal_start + (row0 + n * kLanes + i) / p.group() - key0);
    }
    for (int64_t j = 0; j < count; ++j) {
      float* s = scores + j * kPanel + n * kLanes;
      const vi at = vi{} + static_cast<int32_t>(j);
      store(s, (limit < at) | (at <= limit - window) ? splat(-kInf) : load(s));
    }
  }
}

// A block of keys or values as floats: in place without a buffer.
struct Block {
  const float* data;
  int64_t stride;
};

template <class L>
inline Block float_block(const Rows<L>& rows, int64_t key0, int64_t count, int64_t head_size,
                         float* buffer) {
  if constexpr (std::is_same_v<L, F32>) {
    if (buffer == nullptr) return {rows.row(key0), rows.stride};
  }
  const int64_t stride = tile_row_floats(head_size);
  for (int64_t j = 0; j < count; ++j) {
    read_row<L>(rows.row(key0 + j), head_size, rows.zero(key0 + j), rows.scale(key0 + j),
                buffer + j * stride);
  }
  return {buffer, stride};
}

// The queries of the task as panels; lanes without a row get zeros.
inline void fill_panels(const AttentionProblem& p, const AttentionTask& t, const Tile& tile) {
  const int64_t stride = tile_row_floats(p.head_size);
  for (int64_t first = 0; first < t.rows; first += kPanel) {
    AttentionTask part = t;
    part.row0 = t.row0 + first;
    part.rows = least(kPanel, t.rows - first);
    read_queries(p, part, tile.staging, stride);
    float* q = tile.q + first * p.head_size;
    float* out = tile.out + first * p.head_size;
    for (int64_t i = 0; i < p.head_size * kPanel; i += kLanes) {
      store(out + i, vf{});
      if (part.rows < kPanel) {
        store(q + i, vf{});
      }
    }
    transpose(tile.staging, stride, part.rows, p.head_size, q, kPanel);
    for (int64_t lane = 0; lane < kPanel; lane += kLanes) {
      store(tile.highest + first + lane, splat(-kInf));
      store(tile.sum + first + lane, vf{});
    }
  }
}

// Scores and weights of one panel for one block of keys; the weights replace the scores. Returns
// whether the panel has anything to do with the block.
inline bool panel_weights(const AttentionProblem& p, const AttentionTask& t, const Tile& tile,
                          int64_t first, int64_t key0, int64_t count, MaskKind mask, const Block& k,
                          vf* fade) {
  const int64_t row0 = t.row0 + first;
  const int64_t rows = least(kPanel, t.rows - first);
  const int64_t last_token = (row0 + rows - 1) / p.group();
  const int64_t first_token = row0 / p.group();
  if (key0 >= end_key(p, last_token) || key0 + count <= first_key(p, first_token)) {
    return false;
  }
  tile_scores(k.data, k.stride, count, p.head_size, tile.q + first * p.head_size, tile.scores);
  if (mask == MaskKind::kSome) {
    add_mask(p, row0, rows, key0, count, tile.mask, tile.scores);
  }
  if (key0 + count > end_key(p, first_token) || key0 < first_key(p, last_token)) {
    limit_causally(p, row0, key0, count, tile.scores);
  }
  tile_weights(count, tile.scores, tile.highest + first, tile.sum + first, fade);
  return true;
}

template <class L>
bool tile_rows(const AttentionProblem& p, const AttentionTask& t, float* scratch) {
  const int64_t lanes = round_up(t.rows, kPanel);
  const int64_t row_floats = tile_row_floats(p.head_size);
  Tile tile;
  tile.q = scratch;
  tile.out = tile.q + lanes * p.head_size;
  tile.highest = tile.out + lanes * p.head_size;
  tile.sum = tile.highest + lanes;
  tile.scores = tile.sum + lanes;
  tile.mask = tile.scores + kBlock * kPanel;
  tile.staging = tile.mask + kBlock * kPanel;
  const bool in_place = is_in_place(p);
  tile.keys = in_place ? nullptr : tile.staging + kPanel * row_floats;
  tile.values = in_place ? nullptr : tile.keys + kBlock * row_floats;
  fill_panels(p, t, tile);

  const Rows<L> k(p.k, t.b, t.kv_head);
  const Rows<L> v(p.v, t.b, t.kv_head);
  const int64_t token0 = t.row0 / p.group();
  const int64_t token1 = (t.row0 + t.rows - 1) / p.group() + 1;
  const int64_t end = least(t.key1, end_key(p, token1 - 1));
  const int64_t begin = first_key(p, token0) > t.key0 ? first_key(p, token0) : t.key0;
  for (int64_t key0 = begin; key0 < end; key0 += kBlock) {
    const int64_t count = least(kBlock, end - key0);
    const MaskKind mask =
        p.mask == nullptr ? MaskKind::kNothing : mask_kind(p, token0, token1, key0, count);
    if (mask == MaskKind::kAllExcluded) {
      continue;
    }
    const Block k_block = float_block(k, key0, count, p.head_size, tile.keys);
    const Block v_block = float_block(v, key0, count, p.head_size, tile.values);
    for (int64_t first = 0; first < t.rows; first += kPanel) {
      vf fade[kPanelVectors];
      if (panel_weights(p, t, tile, first, key0, count, mask, k_block, fade)) {
        tile_values(v_block.data, v_block.stride, count, p.head_size, tile.scores, fade,
                    tile.out + first * p.head_size);
      }
    }
  }

  bool finite = true;
  for (int64_t first = 0; first < t.rows; first += kPanel) {
    const int64_t rows = least(kPanel, t.rows - first);
    transpose(tile.out + first * p.head_size, kPanel, p.head_size, kPanel, tile.staging,
              row_floats);
    for (int64_t r = 0; r < rows; ++r) {
      finite = finish_row(p, t, 0, first + r, tile.staging + r * row_floats,
                          tile.highest[first + r], tile.sum[first + r]) &&
               finite;
    }
  }
  return finite;
}

// At most kTileRows rows; any number of keys.
bool tile(const AttentionProblem& p, const AttentionTask& t, float* scratch) {
  switch (p.store) {
    case Store::kFloat16:
      return tile_rows<F16>(p, t, scratch);
    case Store::kBFloat16:
      return tile_rows<BF16>(p, t, scratch);
    case Store::kInt8:
      return tile_rows<I8>(p, t, scratch);
    default:
      return tile_rows<F32>(p, t, scratch);
  }
}

}  // namespace
}  // namespace emm::ops
