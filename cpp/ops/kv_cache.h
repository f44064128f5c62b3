// The key/value cache of programs that have none in the graph (kvcache::update_and_attend): ours,
// for any number of sequences. A sequence is a value that belongs to whoever drives it; its copy is
// a fork.
//
// Layers that look at everything keep their rows in blocks. A row, once claimed by a sequence,
// never changes while another sequence or a saved one claims it too: a fork copies nothing, and the
// one that first writes something else at a shared position goes on in a block of its own. Layers
// with a window keep the last rows only, which a fork copies.
//
// Not thread safe: its executor serialises the calls. Sequences may be destroyed on any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/attention.h"
#include "ops/kv_rows.h"

namespace emm::ops {

struct KvLayer {
  int64_t heads = 0;  // 0: the program has no such layer
  int64_t key_size = 0;
  int64_t value_size = 0;
  int64_t window = 0;  // positions that a token looks at, its own among them; 0: all

  // The kernels want keys and values of one size: the smaller get zeros.
  int64_t size() const { return key_size > value_size ? key_size : value_size; }
};

struct KvCacheShape {
  std::vector<KvLayer> layers;
  int64_t capacity = 0;   // positions of one sequence
  int64_t max_write = 1;  // tokens of one sequence in one step; a rewind may take back as many
  Store store = Store::kFloat32;
};

// What layers keep, keys and values.
struct KvPair {
  KvRows keys, values;

  // That there is room for.
  int64_t rows() const { return keys.rows() < values.rows() ? keys.rows() : values.rows(); }
  void reserve(int64_t rows);
  void fill_with_zeros(int64_t count);
  int64_t row_bytes() const { return keys.row_bytes() + values.row_bytes(); }
};

struct KvBlock {
  std::vector<KvPair> layers;  // of those without a window
  int64_t rows = 0;            // that there is room for
  int64_t used = 0;            // that somebody claims, or has claimed
  void reserve(int64_t wanted);
};

class KvSequence {
 public:
  int64_t length() const { return length_; }
  // Another that begins with the same positions, `length` at most.
  KvSequence fork(int64_t length) const;
  // Forgets the positions from `length` on.
  void truncate(int64_t length);
  // Of rows that it claims, also where others do so too.
  int64_t bytes() const;
  // What it keeps in memory: where, which is the same for all who share it, and how many bytes.
  std::vector<std::pair<const void*, int64_t>> memory() const;

 private:
  friend class KvCache;
  struct Claim {
    std::shared_ptr<KvBlock> block;
    int64_t rows;  // the first ones of the block
  };
  struct Ring {
    KvPair pair;
    int64_t base = 0;  // position of the first row
  };
  std::vector<Claim> claims_;  // for positions 0, 1, ... in order
  std::vector<Ring> rings_;    // of layers with a window
  int64_t length_ = 0;
};

// What a sequence looks at beside its own positions: an output of an encoder, rows of it.
struct KvSource {
  const void* data = nullptr;
  int64_t rows = 0;
};

// Some tokens of a step, one after the other.
struct KvSpan {
  KvSequence* sequence = nullptr;
  int64_t num_tokens = 0;
  // Of a step of several sequences, each with its own, all in the same order; outlasts the step.
  const std::vector<KvSource>* sources = nullptr;
};

// Rows that follow each other: [row, row + count) holds the positions from `position` on.
struct KvRun {
  KvPair* pair = nullptr;
  int64_t row = 0;
  int64_t count = 0;
  int64_t position = 0;
};

class KvCache {
 public:
  // Throws std::bad_alloc; the shape has been checked.
  explicit KvCache(const KvCacheShape& shape);

  const KvCacheShape& shape() const { return shape_; }

  KvSequence new_sequence() const;

  // A sequence as bytes, whose number follows from its length: for each layer its keys and its
  // values, then, in int8, their scales and zero points. A ring gives the rows that a rewind may
  // need, zeros where it has fewer. from_bytes() throws std::bad_alloc.
  int64_t num_bytes(int64_t length) const;
  std::vector<uint8_t> to_bytes(const KvSequence& sequence) const;
  KvSequence from_bytes(int64_t length, const uint8_t* bytes) const;

  // Whose tokens the next call of the program brings.
  // The sequences, of this cache's shape, stay where they are until the call is over.
  void begin_step(std::vector<KvSpan> spans);
  const std::vector<KvSpan>& step() const { return step_; }

  // Makes room for the step: called for each layer, it does something for the first. A sequence
  // goes on at the first of its positions; those from there on are forgotten. Returns what is wrong
  // with the step, and then has changed nothing; empty where all is well. Throws std::bad_alloc.
  std::string place(const std::vector<int64_t>& positions);

  // Where a layer keeps the positions that the tokens of a placed span look at, in order; the last
  // ones are the span's own.
  void runs(int64_t layer, const KvSpan& span, std::vector<KvRun>* runs);

 private:
  std::string check(const std::vector<int64_t>& positions) const;
  void extend(KvSequence& sequence, int64_t num_tokens);
  void unite(KvSequence& sequence) const;
  int64_t saved_rows(const KvLayer& layer, int64_t length) const;
  int64_t ring_rows(const KvLayer& layer) const { return layer.window + shape_.max_write - 1; }
  std::shared_ptr<KvBlock> new_block() const;

  KvCacheShape shape_;
  std::vector<int64_t> slots_;  // of each layer: where among the block's layers, or the rings
  std::vector<KvSpan> step_;
  std::vector<int64_t> placed_;  // positions of the step, once it is placed
  bool is_declared_ = false;
};

// The cache that the kernels find while the calling thread runs a program.
class KvCacheScope {
 public:
  explicit KvCacheScope(KvCache* cache);
  ~KvCacheScope();
  KvCacheScope(const KvCacheScope&) = delete;
  KvCacheScope& operator=(const KvCacheScope&) = delete;

  static KvCache* current();

 private:
  KvCache* before_;
};

}  // namespace emm::ops
