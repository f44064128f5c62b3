#include "et/folder_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace emm {
namespace {

// (1, heads, rows, features): blocks of rows, one for each head.
struct Rows {
  int64_t heads = 1;
  size_t row_bytes = 0;
};

Rows rows_of(const CacheTensor& tensor) {
  const size_t element = dtype_size(tensor.dtype);
  if (tensor.kind != StateKind::kFlat)
    return {1, static_cast<size_t>(num_elements(tensor.shape)) * element};
  return {tensor.shape[1], static_cast<size_t>(tensor.shape[3]) * element};
}

// Copies the first num_rows rows of each block between memories with different numbers of rows.
void copy_rows(const Rows& rows, const uint8_t* from, int64_t from_rows, uint8_t* to,
               int64_t to_rows, int64_t num_rows) {
  const size_t bytes = static_cast<size_t>(num_rows) * rows.row_bytes;
  if (bytes == 0) return;  // there may be no memory yet
  for (int64_t head = 0; head < rows.heads; ++head) {
    std::memmove(to + static_cast<size_t>(head * to_rows) * rows.row_bytes,
                 from + static_cast<size_t>(head * from_rows) * rows.row_bytes, bytes);
  }
}

std::unique_ptr<PlannedMemory> memory_of(const CacheTensor& tensor) {
  return std::make_unique<PlannedMemory>(static_cast<int64_t>(tensor.memory_bytes));
}

}  // namespace

FolderCache::FolderCache(FolderModel& model) : model_(model) {
  const FolderModel::Part& decode = model.parts.at("decode");
  tensors_.resize(model.folder.cache.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const CacheTensor& tensor = model.folder.cache[i];
    Memory& memory = tensors_[i];
    memory.rows = tensor.grows ? 0 : tensor.rows();
    if (tensor.kept) {
      const Arena& arena = *decode.program->methods().at(kForward).arena;
      memory.data = arena.at(tensor.arena_buffer, *tensor.kept);
    } else {
      memory.own = memory_of(tensor);
      memory.data = memory.own->bytes().data();
    }
    if (!tensor.is_in_place) memory.next = memory_of(tensor);
  }
}

TensorView FolderCache::view(size_t index) const {
  const CacheTensor& tensor = model_.folder.cache[index];
  TensorView view{tensors_[index].data, tensor.dtype, tensor.shape};
  if (tensor.kind == StateKind::kFlat) view.shape[2] = tensors_[index].rows;
  return view;
}

void FolderCache::copy_kept(KeptCache& kept, bool is_out) const {
  kept.copies.resize(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const CacheTensor& tensor = model_.folder.cache[i];
    if (!tensor.kept) continue;
    auto& copy = kept.copies[i];
    if (copy == nullptr) copy = memory_of(tensor);
    const bool is_flat = tensor.kind == StateKind::kFlat;
    const int64_t there = is_flat ? tensors_[i].rows : 1;
    uint8_t* const apart = copy->bytes().data();
    copy_rows(rows_of(tensor), is_out ? tensors_[i].data : apart, there,
              is_out ? apart : tensors_[i].data, there,
              is_flat ? std::min(kept.num_rows, there) : 1);
  }
}

void FolderCache::bring_in() const {
  const std::shared_ptr<KeptCache> before = model_.resident.lock();
  if (before == kept_) return;
  if (before != nullptr) copy_kept(*before, true);
  copy_kept(*kept_, false);
  model_.resident = kept_;
}

void FolderCache::begin_call(FolderModel::Part& part, int64_t end) {
  bring_in();
  kept_->num_rows = end;
  // Lets the cache come out where it is to be, if the program leaves that to us.
  const bool is_decode = part.call == &model_.folder.decode;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const auto output = part.call->cache_outputs[i];
    if (!output || (is_decode && model_.folder.cache[i].is_in_place)) continue;
    const TensorSpec& spec = part.call->method.outputs[*output];
    const TensorView target{is_decode ? tensors_[i].next->bytes().data() : tensors_[i].data,
                            spec.dtype, spec.shape};
    if (!spec.is_planned && target.size_bytes() <= model_.folder.cache[i].memory_bytes)
      part.program->set_output(kForward, *output, target);
  }
}

void FolderCache::end_call(const FolderModel::Part& part, const std::vector<TensorView>& outputs,
                           int64_t end) {
  const bool is_decode = part.call == &model_.folder.decode;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const CacheTensor& tensor = model_.folder.cache[i];
    Memory& memory = tensors_[i];
    if (is_decode && tensor.is_in_place && (!tensor.is_planned || tensor.kept)) continue;
    const TensorView& given = outputs[*part.call->cache_outputs[i]];
    Shape expected = tensor.shape;
    if (tensor.grows) expected[2] = end;
    if (given.dtype != tensor.dtype || given.shape != expected ||
        given.size_bytes() > tensor.memory_bytes) {
      throw Error(ErrorCode::kExecution,
                  part.call->path + ": expected a cache " +
                      TensorView{nullptr, tensor.dtype, expected}.describe() + ", got " +
                      given.describe());
    }
    if (tensor.kind == StateKind::kFlat) memory.rows = expected[2];
    if (memory.next && given.data == memory.next->bytes().data()) {
      std::swap(memory.own, memory.next);
      memory.data = memory.own->bytes().data();
    } else if (given.data != memory.data) {
      std::memcpy(memory.data, given.data, given.size_bytes());
    }
  }
}

void FolderCache::cut(int64_t position) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!model_.folder.cache[i].grows || tensors_[i].rows <= position) continue;
    copy_rows(rows_of(model_.folder.cache[i]), tensors_[i].data, tensors_[i].rows, tensors_[i].data,
              position, position);
    tensors_[i].rows = position;
  }
}

void FolderCache::reset(bool is_shared) {
  if (is_shared) {
    kept_ = std::make_shared<KeptCache>();
  } else {
    kept_->copies.clear();
    kept_->num_rows = 0;
    model_.resident = kept_;
  }
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].own) tensors_[i].own->reset();
    if (model_.folder.cache[i].grows) tensors_[i].rows = 0;
  }
}

void FolderCache::copy(const FolderCache& other, int64_t num_flat_rows) {
  if (model_.resident.lock() == other.kept_) copy_kept(*other.kept_, true);
  auto kept = std::make_shared<KeptCache>();
  kept->num_rows = num_flat_rows;
  kept->copies.resize(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const CacheTensor& tensor = model_.folder.cache[i];
    const bool is_flat = tensor.kind == StateKind::kFlat;
    const Memory& theirs = other.tensors_[i];
    if (tensor.grows) tensors_[i].rows = num_flat_rows;
    const int64_t there = is_flat ? theirs.rows : 1;
    const uint8_t* from = theirs.data;
    uint8_t* to = tensors_[i].data;
    if (tensor.kept) {
      kept->copies[i] = memory_of(tensor);
      to = kept->copies[i]->bytes().data();
      if (i >= other.kept_->copies.size() || other.kept_->copies[i] == nullptr) continue;
      from = other.kept_->copies[i]->bytes().data();
    }
    copy_rows(rows_of(tensor), from, there, to, is_flat ? tensors_[i].rows : 1,
              is_flat ? std::min(num_flat_rows, there) : 1);
  }
  kept_ = std::move(kept);
}

// Calls visit(memory, rows in it, rows to copy, how they lie) for each tensor of the state.
template <typename Visit>
void FolderCache::for_each_tensor(int64_t num_flat_rows, Visit visit) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const CacheTensor& tensor = model_.folder.cache[i];
    const bool is_flat = tensor.kind == StateKind::kFlat;
    const int64_t there = !is_flat       ? 1
                          : tensor.grows ? std::max(tensors_[i].rows, num_flat_rows)
                                         : tensors_[i].rows;
    visit(tensors_[i].data, there, is_flat ? std::min(num_flat_rows, there) : 1, rows_of(tensor));
  }
}

void FolderCache::save(int64_t num_flat_rows, std::vector<uint8_t>& bytes) const {
  bring_in();
  for_each_tensor(num_flat_rows,
                  [&](const uint8_t* data, int64_t there, int64_t kept, const Rows& rows) {
                    const size_t begin = bytes.size();
                    bytes.resize(begin + static_cast<size_t>(kept * rows.heads) * rows.row_bytes);
                    copy_rows(rows, data, there, bytes.data() + begin, kept, kept);
                  });
}

const uint8_t* FolderCache::load(int64_t num_flat_rows, const uint8_t* bytes) {
  bring_in();
  if (num_flat_rows > 0) {
    kept_->num_rows = num_flat_rows;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (model_.folder.cache[i].grows) tensors_[i].rows = num_flat_rows;
    }
  }
  for_each_tensor(num_flat_rows, [&](uint8_t* data, int64_t there, int64_t kept, const Rows& rows) {
    copy_rows(rows, bytes, kept, data, there, kept);
    bytes += static_cast<size_t>(kept * rows.heads) * rows.row_bytes;
  });
  return bytes;
}

}  // namespace emm
