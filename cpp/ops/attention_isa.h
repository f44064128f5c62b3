// What the driver (attention.cpp) asks of the kernels that are compiled once per instruction set.
#pragma once

#include "ops/attention.h"

namespace emm::ops {

// The query rows that share one key/value head are numbered token * group + head in group. A task is a range of them
// with a range of keys; tasks are independent.
struct AttentionTask {
  int64_t b = 0;
  int64_t kv_head = 0;
  int64_t kv_heads = 1;  // more than one only for direct tasks
  int64_t row0 = 0;
  int64_t rows = 0;
  int64_t key0 = 0;
  int64_t key1 = 0;
  // Where the unfinished result goes when other tasks handle other keys of the same rows: for each row (head by head)
  // its highest score, the sum of its weights, and head_size weighted values. Null: the task writes the output itself.
  float* partial = nullptr;
};

struct AttentionIsa {
  const char* name;
  // Up to this many rows are computed straight from the cache (decoding); more go through tiles (prefill).
  int64_t direct_rows;
  // Rows of one tile; a multiple of the rows that one pass over the keys serves.
  int64_t tile_rows;
  // The most keys of a direct task.
  int64_t direct_keys;
  // Scratch memory of one task, in floats: of a direct one with so many heads and rows of each, or of a tile.
  int64_t (*direct_scratch)(const AttentionProblem& problem, int64_t kv_heads, int64_t rows);
  int64_t (*tile_scratch)(const AttentionProblem& problem, int64_t rows);
  // Both return whether every number they produced is finite.
  bool (*direct)(const AttentionProblem& problem, const AttentionTask& task, float* scratch);
  bool (*tile)(const AttentionProblem& problem, const AttentionTask& task, float* scratch);
  // Puts `parts` partial results of one task's rows together, `distance` floats apart (the first at task.partial), and
  // writes the output.
  bool (*merge)(const AttentionProblem& problem, const AttentionTask& task, int64_t parts, int64_t distance);
};

// Floats between the rows of a partial result.
inline int64_t partial_stride(int64_t head_size) { return head_size + 2; }

extern const AttentionIsa kAttentionBaseline;
#if defined(__x86_64__)
extern const AttentionIsa kAttentionAvx2;
extern const AttentionIsa kAttentionAvx512;
#endif

}  // namespace emm::ops
