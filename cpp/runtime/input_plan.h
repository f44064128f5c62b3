// Turns a prompt into decoder calls before any of them runs, so that a prompt which does not fit is
// refused while nothing has changed yet.
#pragma once

#include <cstdint>
#include <vector>

#include "model/contract.h"
#include "runtime/inputs.h"

namespace emm {

// One unit of work: an encoder call, or a decoder call over rows of one input.
struct Chunk {
  enum class Kind { kTokens, kEmbeddings, kEncodeImage, kEncodeAudio, kEncodeText };
  Kind kind;
  size_t input;       // index into the prompt
  int64_t first_row;  // of that input
  int64_t
      num_rows;  // decoder positions it adds; encoder calls: expected rows, 0 if not known before
};

struct InputPlan {
  std::vector<Chunk> chunks;
  int64_t num_positions = 0;  // a lower bound when some encoder's output size is not known before
  bool is_exact = true;
};

// Calls of at most `chunk_limit` positions. Throws Error(kInput) for inputs the model does not take
// and Error(kCapacity) when more than `available` positions are needed.
InputPlan make_input_plan(const std::vector<Input>& inputs, const Contract& contract,
                          int64_t available, int64_t chunk_limit);

// Decoder calls for so many rows; the first one may take more than the others. Where the bound
// allows more than two, none but an only call takes a single row.
std::vector<Chunk> split_rows(Chunk::Kind kind, size_t input, int64_t num_rows, int64_t max_chunk,
                              int64_t first_chunk = 0);

void check_capacity(int64_t needed, int64_t available, int64_t capacity);

}  // namespace emm
