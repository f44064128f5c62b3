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

KvCache::KvCache(const KvCacheShape& shape) : shape_(shape) {
  int64_t num_flat = 0;
  int64_t num_rings = 0;
  for (const KvLayer& layer : shape_.layers)
    slots_.push_back(layer.window > 0 ? num_rings++ : num_flat++);
}

int64_t KvCache::add() {
  clear(next_sequence_);
  return next_sequence_++;
}

int64_t KvCache::add(const KvSequence& from) {
  sequences_[next_sequence_] = from;
  return next_sequence_++;
}

void KvCache::clear(int64_t sequence) {
  KvSequence empty;
  for (const KvLayer& layer : shape_.layers) {
    if (layer.window > 0) empty.rings_.push_back({make_pair_for(layer, shape_.store), 0});
  }
  sequences_[sequence] = std::move(empty);
}

const KvSequence* KvCache::find(int64_t sequence) const {
  const auto found = sequences_.find(sequence);
  return found == sequences_.end() ? nullptr : &found->second;
}

std::vector<int64_t> KvCache::sequences() const {
  std::vector<int64_t> names;
  for (const auto& [name, sequence] : sequences_) names.push_back(name);
  return names;
}

KvSequence KvCache::save(int64_t sequence, int64_t length) const {
  KvSequence saved = sequences_.at(sequence);
  while (!saved.claims_.empty() && saved.length_ > length) {
    KvSequence::Claim& last = saved.claims_.back();
    const int64_t fewer = std::min(last.rows, saved.length_ - length);
    last.rows -= fewer;
    saved.length_ -= fewer;
    if (last.rows == 0) saved.claims_.pop_back();
  }
  saved.length_ = std::min(saved.length_, length);
  return saved;
}

void KvCache::begin_step(std::vector<KvSpan> spans) {
  step_ = std::move(spans);
  placed_.clear();
  is_declared_ = true;
}

std::string KvCache::check(const std::vector<int64_t>& positions) const {
  std::set<int64_t> seen;
  size_t at = 0;
  for (const KvSpan& span : step_) {
    const std::string who = "sequence " + std::to_string(span.sequence);
    const KvSequence* sequence = find(span.sequence);
    if (sequence == nullptr) return who + " does not exist";
    if (!seen.insert(span.sequence).second) return who + " comes twice in a step";
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
    KvSequence& sequence = sequences_.at(span.sequence);
    truncate(sequence, positions[at]);
    extend(sequence, span.num_tokens);
    at += static_cast<size_t>(span.num_tokens);
  }
  placed_ = positions;
  return "";
}

void KvCache::truncate(KvSequence& sequence, int64_t length) {
  int64_t more = sequence.length_ - length;
  while (more > 0 && !sequence.claims_.empty()) {
    KvSequence::Claim& last = sequence.claims_.back();
    const int64_t fewer = std::min(last.rows, more);
    last.rows -= fewer;
    more -= fewer;
    if (last.rows == 0) sequence.claims_.pop_back();
  }
  sequence.length_ = length;
}

std::shared_ptr<KvBlock> KvCache::new_block() const {
  auto block = std::make_shared<KvBlock>();
  for (const KvLayer& layer : shape_.layers) {
    if (layer.window == 0) block->layers.push_back(make_pair_for(layer, shape_.store));
  }
  return block;
}

void KvCache::unite(KvSequence& sequence) {
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
  KvSequence& sequence = sequences_.at(span.sequence);
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

KvCacheScope::KvCacheScope(KvCache* cache) : before_(current_cache) { current_cache = cache; }

KvCacheScope::~KvCacheScope() { current_cache = before_; }

KvCache* KvCacheScope::current() { return current_cache; }

}  // namespace emm::ops
