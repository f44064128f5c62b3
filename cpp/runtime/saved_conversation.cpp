#include "runtime/saved_conversation.h"

#include <string>

#include "base/error.h"
#include "runtime/session.h"

namespace emm {
namespace {

void expect(bool is_right, const std::string& message) {
  if (!is_right) throw Error(ErrorCode::kInput, "saved conversation: " + message);
}

}  // namespace

KvPosition check_saved(const SavedConversation& saved, const Contract& contract) {
  const bool is_bounded = !contract.cache.is_unbounded;
  expect(saved.position >= 0 && saved.written >= saved.position && saved.written < INT64_MAX / 2,
         "expected 0 <= position <= written, got " + std::to_string(saved.position) + " and " +
             std::to_string(saved.written));
  expect(!is_bounded || saved.written <= contract.capacity,
         "it has written " + std::to_string(saved.written) + " positions, the model has room for " +
             std::to_string(contract.capacity));
  expect(static_cast<int64_t>(saved.history.size()) == saved.position,
         "expected a token for each of " + std::to_string(saved.position) + " positions, got " +
             std::to_string(saved.history.size()));
  // Without a cache the history is what is read again, and media have no tokens.
  const int64_t least = contract.position_style == PositionStyle::kNone ? 0 : kMediaPosition;
  for (const auto* ids : {&saved.history, &saved.pending_tokens}) {
    for (const int64_t id : *ids) {
      expect(id >= (ids == &saved.history ? least : 0) && id < contract.vocab_size,
             "expected token ids below " + std::to_string(contract.vocab_size) + ", got " +
                 std::to_string(id));
    }
  }
  expect(static_cast<int64_t>(saved.pending_tokens.size()) <= contract.max_chunk,
         "expected at most " + std::to_string(contract.max_chunk) + " tokens to be read, got " +
             std::to_string(saved.pending_tokens.size()));
  const KvPosition position =
      KvPosition(contract.capacity, contract.cache).standing_at(saved.position, saved.written);
  expect(position.is_intact(), "the positions that are in use have been overwritten");
  return position;
}

}  // namespace emm
