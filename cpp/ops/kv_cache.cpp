#include "ops/kv_cache.h"

#include <algorithm>
#include <set>
#include <utility>

namespace emm::ops {
namespace {

constexpr int64_t kFirstRows = 64;  // of a block; then it doubles
constexpr size_t kMostClaims = 8;   // then they become one, so that runs stay long

thread_local KvCache* current_cache = nullptr;

KvPair make_pair_for(const KvLayer& layer, Store store) {
  return {KvRows(layer.heads, layer.size(), store), KvRows(layer.heads, layer.size(), store)};
}

void copy(const KvPair& from, int64_t from_row, KvPair& to, int64_t row, int64_t count) {
  to.keys.copy(from.keys, from_row, row, count);
  to.values.copy(from.values, from_row, row, count);
}

// Room for `rows`, and for more where more will come.
int64_t grown(int64_t now, int64_t rows, int64_t most) {
  return std::max(rows, std::min(most, std::max(2 * now, kFirstRows)));
}

}  // namespace

void KvPair::reserve(int64_t rows) {
  keys.reserve(rows);
  values.reserve(rows);
}

void KvPair::fill_with_zeros(int64_t count) {
  keys.fill_with_zeros(count);
  values.fill_with_zeros(count);
}

void KvBlock::reserve(int64_t wanted) {
  for (KvPair& pair : layers) pair.reserve(wanted);
  rows = wanted;
}

int64_t KvSequence::bytes() const {
  int64_t bytes = 0;
  for (const Claim& claim : claims_) {
    for (const KvPair& pair : claim.block->layers) bytes += claim.rows * pair.row_bytes();
  }
  for (const Ring& ring : rings_)
    bytes += std::max<int64_t>(length_ - ring.base, 0) * ring.pair.row_bytes();
  return bytes;
}

std::vector<std::pair<const void*, int64_t>> KvSequence::memory() const {
  std::vector<std::pair<const void*, int64_t>> kept;
  for (const Claim& claim : claims_) {
    int64_t bytes = 0;
    for (const KvPair& pair : claim.block->layers) bytes += pair.rows() * pair.row_bytes();
    kept.emplace_back(claim.block.get(), bytes);
  }
  int64_t bytes = 0;
  for (const Ring& ring : rings_) bytes += ring.pair.rows() * ring.pair.row_bytes();
  if (bytes > 0) kept.emplace_back(rings_.data(), bytes);
  return kept;
}

KvSequence KvSequence::fork(int64_t length) const {
  KvSequence fork = *this;
  fork.truncate(length);
  return fork;
}

void KvSequence::truncate(int64_t length) {
  int64_t more = length_ - length;
  if (more <= 0) return;
  length_ = length;
  while (more > 0 && !claims_.empty()) {
    Claim& last = claims_.back();
    const int64_t fewer = std::min(last.rows, more);
    last.rows -= fewer;
    more -= fewer;
    if (last.rows == 0) claims_.pop_back();
  }
}

KvCache::KvCache(const KvCacheShape& shape) : shape_(shape) {
  int64_t num_flat = 0;
  int64_t num_rings = 0;
  for (const KvLayer& layer : shape_.layers)
    slots_.push_back(layer.window > 0 ? num_rings++ : num_flat++);
}

KvSequence KvCache::new_sequence() const {
  KvSequence empty;
  for (const KvLayer& layer : shape_.layers) {
    if (layer.window > 0) empty.rings_.push_back({make_pair_for(layer, shape_.store), 0});
  }
  return empty;
}

void KvCache::begin_step(std::vector<KvSpan> spans) {
  step_ = std::move(spans);
  placed_.clear();
  is_declared_ = true;
}

std::string KvCache::check(const std::vector<int64_t>& positions) const {
  std::set<const KvSequence*> seen;
  size_t at = 0;
  for (const KvSpan& span : step_) {
    const KvSequence* sequence = span.sequence;
    const std::string who = "sequence " + std::to_string(seen.size());
    if (!seen.insert(sequence).second) return "a sequence comes twice in a step";
    if (span.num_tokens < 1 || at + static_cast<size_t>(span.num_tokens) > positions.size())
      return "expected positions for all tokens of the step, got " +
             std::to_string(positions.size());
    const int64_t first = positions[at];
    const int64_t length = sequence->length_;
    if (first < 0 || first > length) {
      return who + ": expected a position in 0.." + std::to_string(length) + ", got " +
             std::to_string(first);
    }
    if (span.num_tokens > shape_.capacity - first) {
      return who + ": expected at most " + std::to_string(shape_.capacity) + " positions, got " +
             std::to_string(span.num_tokens) + " from " + std::to_string(first) + " on";
    }
    for (int64_t i = 0; i < span.num_tokens; ++i) {
      const int64_t position = positions[at++];
      if (position != first + i) {
        return who + ": expected position " + std::to_string(first + i) + " after " +
               std::to_string(first + i - 1) + ", got " + std::to_string(position);
      }
    }
    size_t slot = 0;
    for (const KvLayer& layer : shape_.layers) {
      if (layer.window == 0) continue;
      const int64_t needed = std::max<int64_t>(0, first - layer.window + 1);
      const int64_t base = sequence->rings_[slot++].base;
      if (base > needed) {
        return who + ": expected a position from " + std::to_string(base + layer.window - 1) +
               " on, where a window of " + std::to_string(layer.window) + " is still there, got " +
               std::to_string(first);
      }
    }
  }
  if (at != positions.size()) {
    return "expected " + std::to_string(at) + " tokens in this step, got " +
           std::to_string(positions.size());
  }
  return "";
}

std::string KvCache::place(const std::vector<int64_t>& positions) {
  if (!is_declared_) return "no step was begun";
  if (!placed_.empty())
    return placed_ == positions ? "" : "expected the positions of the layers before";
  std::string wrong = check(positions);
  if (!wrong.empty() || positions.empty()) return wrong;
  size_t at = 0;
  for (const KvSpan& span : step_) {
    span.sequence->truncate(positions[at]);
    extend(*span.sequence, span.num_tokens);
    at += static_cast<size_t>(span.num_tokens);
  }
  placed_ = positions;
  return "";
}

std::shared_ptr<KvBlock> KvCache::new_block() const {
  auto block = std::make_shared<KvBlock>();
  for (const KvLayer& layer : shape_.layers) {
    if (layer.window == 0) block->layers.push_back(make_pair_for(layer, shape_.store));
  }
  return block;
}

void KvCache::unite(KvSequence& sequence) const {
  auto block = new_block();
  block->reserve(grown(0, sequence.length_, shape_.capacity));
  int64_t row = 0;
  for (const KvSequence::Claim& claim : sequence.claims_) {
    for (size_t i = 0; i < block->layers.size(); ++i)
      copy(claim.block->layers[i], 0, block->layers[i], row, claim.rows);
    row += claim.rows;
  }
  block->used = row;
  sequence.claims_ = {{std::move(block), row}};
}

void KvCache::extend(KvSequence& sequence, int64_t num_tokens) {
  auto& claims = sequence.claims_;
  if (claims.size() > kMostClaims) unite(sequence);
  // Rows behind its own may be somebody else's, unless nobody else has the block.
  const bool is_free = !claims.empty() && (claims.back().rows == claims.back().block->used ||
                                           claims.back().block.use_count() == 1);
  if (!is_free) claims.push_back({new_block(), 0});
  KvSequence::Claim& last = claims.back();
  const int64_t before = sequence.length_ - last.rows;  // positions in other blocks
  const int64_t rows = last.rows + num_tokens;
  if (rows > last.block->rows)
    last.block->reserve(grown(last.block->rows, rows, shape_.capacity - before));
  size_t slot = 0;
  for (const KvLayer& layer : shape_.layers) {
    if (layer.window == 0) continue;
    KvSequence::Ring& ring = sequence.rings_[slot++];
    const int64_t held = sequence.length_ - ring.base;
    const int64_t most = ring_rows(layer);
    // Twice as many rows as are needed, so that they rarely move.
    if (held + num_tokens > std::max(2 * most, ring.pair.rows())) {
      const int64_t kept = std::min(held, std::max(layer.window - 1, most - num_tokens));
      ring.pair.keys.move_to_front(held - kept, kept);
      ring.pair.values.move_to_front(held - kept, kept);
      ring.base += held - kept;
    }
    const int64_t needed = sequence.length_ - ring.base + num_tokens;
    if (needed > ring.pair.rows()) ring.pair.reserve(grown(ring.pair.rows(), needed, 2 * most));
  }
  last.rows = last.block->used = rows;
  sequence.length_ += num_tokens;
}

void KvCache::runs(int64_t layer, const KvSpan& span, std::vector<KvRun>* runs) {
  runs->clear();
  KvSequence& sequence = *span.sequence;
  const int64_t window = shape_.layers[static_cast<size_t>(layer)].window;
  const auto slot = static_cast<size_t>(slots_[static_cast<size_t>(layer)]);
  if (window > 0) {
    KvSequence::Ring& ring = sequence.rings_[slot];
    const int64_t first = std::max(ring.base, sequence.length_ - span.num_tokens - window + 1);
    runs->push_back({&ring.pair, first - ring.base, sequence.length_ - first, first});
    return;
  }
  int64_t position = 0;
  for (const KvSequence::Claim& claim : sequence.claims_) {
    if (claim.rows > 0) runs->push_back({&claim.block->layers[slot], 0, claim.rows, position});
    position += claim.rows;
  }
}

int64_t KvCache::saved_rows(const KvLayer& layer, int64_t length) const {
  return layer.window > 0 ? std::min(length, ring_rows(layer)) : length;
}

int64_t KvCache::num_bytes(int64_t length) const {
  int64_t bytes = 0;
  for (const KvLayer& layer : shape_.layers)
    bytes += saved_rows(layer, length) * make_pair_for(layer, shape_.store).row_bytes();
  return bytes;
}

std::vector<uint8_t> KvCache::to_bytes(const KvSequence& given) const {
  KvSequence sequence = given;
  if (sequence.claims_.size() > 1) unite(sequence);
  std::vector<uint8_t> bytes(static_cast<size_t>(num_bytes(sequence.length_)));
  uint8_t* to = bytes.data();
  for (size_t i = 0; i < shape_.layers.size(); ++i) {
    const KvLayer& layer = shape_.layers[i];
    const auto slot = static_cast<size_t>(slots_[i]);
    const int64_t count = saved_rows(layer, sequence.length_);
    if (count == 0) continue;
    KvPair* pair = nullptr;
    int64_t row = 0;
    if (layer.window > 0) {
      KvSequence::Ring& ring = sequence.rings_[slot];
      row = sequence.length_ - count - ring.base;
      if (row < 0) {
        // What is gone lies before what is there.
        KvPair longer = make_pair_for(layer, shape_.store);
        longer.reserve(count);
        longer.fill_with_zeros(-row);
        copy(ring.pair, 0, longer, -row, count + row);
        ring.pair = std::move(longer);
        row = 0;
      }
      pair = &ring.pair;
    } else {
      pair = &sequence.claims_[0].block->layers[slot];
    }
    to += pair->keys.elements_to(to, row, count);
    to += pair->values.elements_to(to, row, count);
    to += pair->keys.scales_to(to, row, count);
    to += pair->values.scales_to(to, row, count);
  }
  return bytes;
}

KvSequence KvCache::from_bytes(int64_t length, const uint8_t* from) const {
  KvSequence sequence = new_sequence();
  if (length == 0) return sequence;
  sequence.length_ = length;
  sequence.claims_ = {{new_block(), length}};
  KvBlock& block = *sequence.claims_[0].block;
  block.reserve(length);
  block.used = length;
  for (size_t i = 0; i < shape_.layers.size(); ++i) {
    const KvLayer& layer = shape_.layers[i];
    const auto slot = static_cast<size_t>(slots_[i]);
    const int64_t count = saved_rows(layer, length);
    KvPair& pair = layer.window > 0 ? sequence.rings_[slot].pair : block.layers[slot];
    pair.reserve(count);
    if (layer.window > 0) sequence.rings_[slot].base = length - count;
    from += pair.keys.elements_from(from, count);
    from += pair.values.elements_from(from, count);
    from += pair.keys.scales_from(from, count);
    from += pair.values.scales_from(from, count);
  }
  return sequence;
}

KvCacheScope::KvCacheScope(KvCache* cache) : before_(current_cache) { current_cache = cache; }

KvCacheScope::~KvCacheScope() { current_cache = before_; }

KvCache* KvCacheScope::current() { return current_cache; }

}  // namespace emm::ops
