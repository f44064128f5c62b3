// The cache of one conversation with an export folder. The programs keep nothing between calls:
// each tensor is in memory of the conversation's own, handed in and taken out by pointer where the
// programs let it. What the decoder's plan has (`kept`) is copied when another conversation goes
// on.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/tensor_view.h"
#include "et/folder_model.h"

namespace emm {

class FolderCache {
 public:
  // Empty; the model must outlive it.
  explicit FolderCache(FolderModel& model);

  // What is in the decoder's memory from now on.
  void become_resident() { model_.resident = kept_; }

  // A tensor as the next call of a part takes it.
  TensorView view(size_t index) const;

  // Around a call of a part that has the cache, after which there are `end` positions: before its
  // inputs are set, and with its outputs.
  void begin_call(FolderModel::Part& part, int64_t end);
  void end_call(const FolderModel::Part& part, const std::vector<TensorView>& outputs, int64_t end);

  // Of tensors that grow, rows behind `position` go.
  void cut(int64_t position);
  // Nothing was read. What others of a shared model have in the decoder's memory stays.
  void reset(bool is_shared);

  // What a fork of another has at its beginning, of flat tensors the first num_flat_rows rows.
  void copy(const FolderCache& other, int64_t num_flat_rows);
  // Appends the state, as the contract has it, to `bytes`.
  void save(int64_t num_flat_rows, std::vector<uint8_t>& bytes) const;
  // Takes it from there and returns what lies behind it. Without rows only what has none is taken.
  const uint8_t* load(int64_t num_flat_rows, const uint8_t* bytes);

 private:
  // A tensor: where its content is, and where the next one goes if that is elsewhere.
  struct Memory {
    std::unique_ptr<PlannedMemory> own;
    std::unique_ptr<PlannedMemory> next;
    uint8_t* data = nullptr;
    int64_t rows = 0;  // of one that grows: as many as its content has
  };

  // Between the decoder's memory and a conversation's copies of what is kept there.
  void copy_kept(KeptCache& kept, bool is_out) const;
  void bring_in() const;
  template <typename Visit>
  void for_each_tensor(int64_t num_flat_rows, Visit visit) const;

  FolderModel& model_;
  std::vector<Memory> tensors_;
  std::shared_ptr<KeptCache> kept_ = std::make_shared<KeptCache>();
};

}  // namespace emm
