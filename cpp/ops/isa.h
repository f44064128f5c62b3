// The functions that are compiled once per instruction set, and the choice among them.
#pragma once

#include "ops/attention.h"

namespace emm::ops {

// The query rows that share one key/value head are numbered token * group + head in group. A task
// is a range of them with a range of keys; tasks are independent.
struct AttentionTask {
  int64_t b = 0;
  int64_t kv_head = 0;
  int64_t kv_heads = 1;  // more than one only for direct tasks
  int64_t row0 = 0;
  int64_t rows = 0;
  int64_t key0 = 0;
  int64_t key1 = 0;
  // Where the unfinished result goes when other tasks handle other keys of the same rows: for each
  // row (head by head) its highest score, the sum of its weights, and head_size weighted values.
  // Null: the task writes the output itself.
  float* partial = nullptr;
};

// One key/value head of the gated delta rule; all matrices are dense. The state is [keys, values].
struct GatedDeltaHead {
  const float* q;      // [group][tokens, keys]
  const float* k;      // [tokens, keys]
  const float* v;      // [tokens, values]
  const float* decay;  // [tokens, keys], or [tokens]
  const float* beta;   // [tokens]
  const float* state_in;
  float* state_out;
  float* out;  // [group][tokens, values]
  int64_t group;
  int64_t tokens;
  int64_t keys;
  int64_t values;
  bool scalar_decay;
};

struct IsaKernels {
  const char* name;
  // A token's rows, up to this many, are computed straight from the cache (decoding); more tokens
  // and rows go through tiles (prefill).
  int64_t direct_rows;
  // Most rows of one tile, and the rows that pass over the keys together.
  int64_t tile_rows;
  int64_t panel_rows;
  // The most keys of a direct task.
  int64_t direct_keys;
  // Scratch memory of one task, in floats: of a direct one with so many heads and rows of each, or
  // of a tile.
  int64_t (*direct_scratch)(const AttentionProblem& problem, int64_t kv_heads, int64_t rows);
  int64_t (*tile_scratch)(const AttentionProblem& problem, int64_t rows);
  // Both return whether every number they produced is finite.
  bool (*direct)(const AttentionProblem& problem, const AttentionTask& task, float* scratch);
  bool (*tile)(const AttentionProblem& problem, const AttentionTask& task, float* scratch);
  // Puts `parts` partial results of one task's rows together, `distance` floats apart (the first at
  // task.partial), and writes the output.
  bool (*merge)(const AttentionProblem& problem, const AttentionTask& task, int64_t parts,
                int64_t distance);

  // Columns of the gated delta rule's state that are computed together, and the computation of
  // those from `column` on, all tokens of them. `scratch` has room for keys x columns floats.
  int64_t delta_columns;
  void (*gated_delta)(const GatedDeltaHead& head, int64_t column, float* scratch);

  // The Walsh-Hadamard transform (a matrix of 1 and -1) of 2^k floats in place, times `factor`.
  void (*hadamard)(float* x, int64_t size, float factor);
};

// Floats between the rows of a partial result.
inline int64_t partial_stride(int64_t head_size) { return head_size + 2; }

extern const IsaKernels kBaselineKernels;
#if defined(__x86_64__)
extern const IsaKernels kAvx2Kernels;
extern const IsaKernels kAvx512Kernels;
#endif

// The best set that the processor and the operating system support, or the forced one.
const IsaKernels& isa_kernels();

// For tests: chooses a set by name ("" for the best). Returns false for one that this machine
// lacks.
bool force_isa(const char* name);

}  // namespace emm::ops
