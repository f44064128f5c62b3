// A conversation as plain values, such as a file keeps it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/contract.h"
#include "model/kv_position.h"

namespace emm {

struct SavedConversation {
  int64_t position = 0;                 // in use
  int64_t written = 0;                  // of KvPosition
  std::vector<int64_t> history;         // (position)
  std::vector<int64_t> pending_tokens;  // of the answer, not read yet
  const float* logits = nullptr;        // (vocab_size) after the last position; null where none are
  const uint8_t* state = nullptr;       // as StateSnapshot::spans() give it
  size_t state_bytes = 0;
};

// Throws Error(kInput) for one that no session over such a model can have been in.
KvPosition check_saved(const SavedConversation& saved, const Contract& contract);

}  // namespace emm
