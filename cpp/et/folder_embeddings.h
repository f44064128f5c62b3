// The embeddings of a conversation so far, of tokens and media, as an export folder's
// language_model takes them: it reads a conversation from its beginning.
#pragma once

#include <cstdint>
#include <vector>

#include "base/tensor_view.h"
#include "et/folder_model.h"

namespace emm {

class FolderEmbeddings {
 public:
  // Of no position; the model must outlive it.
  explicit FolderEmbeddings(const FolderModel& model) : model_(model) {}

  // Positions from the beginning on whose embeddings are there.
  int64_t num_known() const { return num_known_; }
  // (1, num_rows, hidden_size)
  TensorView rows(int64_t num_rows) const;

  // Embeddings from `position` on. Those of tokens are read from the model's table; without one
  // nothing is known from there on.
  void put(const TensorView& rows, int64_t position);
  void put_tokens(const int64_t* ids, int64_t num_tokens, int64_t position);

  void clear();
  // The first num_rows positions of another conversation.
  void copy(const FolderEmbeddings& other, int64_t num_rows);
  // Appends the first num_rows positions to `bytes`, or takes so many from there.
  void save(int64_t num_rows, std::vector<uint8_t>& bytes) const;
  void load(int64_t num_rows, const uint8_t* bytes);

 private:
  DType dtype() const;
  size_t bytes_of(int64_t num_rows) const;
  void write(const TensorView& rows, int64_t position, float scale);

  const FolderModel& model_;
  std::vector<uint8_t> bytes_;  // (positions, hidden_size)
  int64_t num_known_ = 0;
  std::vector<uint8_t> converted_;
};

}  // namespace emm
