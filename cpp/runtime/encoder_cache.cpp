#include "runtime/encoder_cache.h"

namespace emm {

std::shared_ptr<const EncoderCache::Rows> EncoderCache::find(const std::string& encoder,
                                                             const std::string& content) {
  const std::lock_guard lock(mutex_);
  const auto found = places_.find({encoder, content});
  if (found == places_.end()) {
    ++counts_.num_misses;
    return nullptr;
  }
  ++counts_.num_hits;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->rows;
}

void EncoderCache::add(const std::string& encoder, const std::string& content,
                       const TensorView& rows) {
  Entry entry{{encoder, content}, nullptr, 0};
  entry.bytes = static_cast<int64_t>(rows.size_bytes() + 2 * (encoder.size() + content.size()) +
                                     sizeof(Entry) + sizeof(Rows));
  if (entry.bytes > max_bytes_) return;
  auto kept = std::make_shared<Rows>();
  const auto* const bytes = static_cast<const uint8_t*>(rows.data);
  kept->bytes.assign(bytes, bytes + rows.size_bytes());
  kept->view = {kept->bytes.data(), rows.dtype, rows.shape};
  entry.rows = std::move(kept);

  const std::lock_guard lock(mutex_);
  if (places_.count(entry.key) != 0) return;
  while (counts_.num_bytes + entry.bytes > max_bytes_) drop_last();
  counts_.num_bytes += entry.bytes;
  ++counts_.num_entries;
  entries_.push_front(std::move(entry));
  places_.emplace(entries_.front().key, entries_.begin());
}

void EncoderCache::drop_last() {
  counts_.num_bytes -= entries_.back().bytes;
  --counts_.num_entries;
  places_.erase(entries_.back().key);
  entries_.pop_back();
}

void EncoderCache::clear() {
  const std::lock_guard lock(mutex_);
  while (!entries_.empty()) drop_last();
}

EncoderCache::Counts EncoderCache::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace emm
