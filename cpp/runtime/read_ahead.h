// Tokens that the model has read beyond the position because they may come, and its logits after
// each. The rows are the executor's: they hold until its next decoder call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/tensor_view.h"

namespace emm {

class ReadAhead {
 public:
  // `rows`: (tokens, vocab_size).
  void keep(std::vector<int64_t> tokens, const TensorView& rows) {
    tokens_ = std::move(tokens);
    rows_ = rows;
    next_ = 0;
  }
  void clear() { keep({}, {}); }

  bool is_next(int64_t token) const { return next_ < tokens_.size() && tokens_[next_] == token; }
  // The logits (vocab_size) after the next token.
  TensorView take() {
    TensorView row = row_range(rows_, static_cast<int64_t>(next_++), 1);
    row.shape = {row.shape[1]};
    return row;
  }

 private:
  std::vector<int64_t> tokens_;
  TensorView rows_;
  size_t next_ = 0;
};

}  // namespace emm
