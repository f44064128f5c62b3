#include "et/folder_embeddings.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>

#include "base/error.h"
#include "model/convert.h"

namespace emm {

DType FolderEmbeddings::dtype() const {
  for (const PartInput& input : model_.folder.language_model->inputs) {
    if (input.feed == Feed::kEmbeddings) return input.dtype;
  }
  return DType::kFloat32;
}

size_t FolderEmbeddings::bytes_of(int64_t num_rows) const {
  return static_cast<size_t>(num_rows * model_.folder.contract.hidden_size) * dtype_size(dtype());
}

TensorView FolderEmbeddings::rows(int64_t num_rows) const {
  return {bytes_.data(), dtype(), {1, num_rows, model_.folder.contract.hidden_size}};
}

void FolderEmbeddings::write(const TensorView& rows, int64_t position, float scale) {
  std::vector<float> scaled;
  TensorView given = rows;
  if (scale != 1.0F) {
    const TensorView floats = convert(rows, DType::kFloat32, converted_, "embeddings");
    const auto* values = static_cast<const float*>(floats.data);
    scaled.assign(values, values + floats.size());
    for (float& value : scaled) value *= scale;
    given = {scaled.data(), DType::kFloat32, rows.shape};
  }
  const TensorView wanted = convert(given, dtype(), converted_, "embeddings");
  const size_t begin = bytes_of(position);
  bytes_.resize(begin + wanted.size_bytes());
  std::memcpy(bytes_.data() + begin, wanted.data, wanted.size_bytes());
  num_known_ = position + rows.shape[0];
}

void FolderEmbeddings::put(const TensorView& rows, int64_t position) { write(rows, position, 1); }

void FolderEmbeddings::put_tokens(const int64_t* ids, int64_t num_tokens, int64_t position) {
  const FolderContract& folder = model_.folder;
  if (!folder.language_model) return;
  if (!folder.embeddings) {
    // Unknown rows, which nothing may read.
    num_known_ = std::min(num_known_, position);
    return;
  }
  const EmbeddingTable& table = *folder.embeddings;
  const int64_t columns = folder.contract.hidden_size;
  const size_t row_bytes = static_cast<size_t>(columns) * dtype_size(table.dtype);
  std::vector<uint8_t> rows(static_cast<size_t>(num_tokens) * row_bytes);
  std::ifstream file(folder.decode.path, std::ios::binary);
  for (int64_t i = 0; i < num_tokens; ++i) {
    if (ids[i] < 0 || ids[i] >= table.rows)
      throw Error(ErrorCode::kInput, "tokens: expected ids below " + std::to_string(table.rows) +
                                         ", got " + std::to_string(ids[i]));
    file.seekg(
        static_cast<std::streamoff>(table.offset + static_cast<uint64_t>(ids[i]) * row_bytes));
    file.read(reinterpret_cast<char*>(rows.data()) + static_cast<size_t>(i) * row_bytes,
              static_cast<std::streamsize>(row_bytes));
  }
  if (!file)
    throw Error(ErrorCode::kExecution, folder.decode.path + ": reading its embeddings failed");
  write({rows.data(), table.dtype, {num_tokens, columns}}, position, model_.embedding_scale);
}

void FolderEmbeddings::clear() {
  bytes_.clear();
  num_known_ = 0;
}

void FolderEmbeddings::copy(const FolderEmbeddings& other, int64_t num_rows) {
  const size_t known =
      std::min(other.bytes_.size(), model_.folder.language_model ? bytes_of(num_rows) : 0);
  bytes_.assign(other.bytes_.begin(), other.bytes_.begin() + static_cast<std::ptrdiff_t>(known));
  num_known_ = std::min(other.num_known_, num_rows);
}

void FolderEmbeddings::save(int64_t num_rows, std::vector<uint8_t>& bytes) const {
  if (!model_.folder.embeddings) return;
  const size_t size = bytes_of(num_rows);
  const size_t begin = bytes.size();
  bytes.resize(begin + size);  // of rows that were never embedded: zeros
  std::copy_n(bytes_.begin(), std::min(size, bytes_.size()), bytes.data() + begin);
}

void FolderEmbeddings::load(int64_t num_rows, const uint8_t* bytes) {
  num_known_ = 0;
  if (!model_.folder.embeddings) return;
  bytes_.assign(bytes, bytes + bytes_of(num_rows));
  num_known_ = num_rows;
}

}  // namespace emm
