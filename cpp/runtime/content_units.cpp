#include "runtime/content_units.h"

#include <cstring>

namespace emm {
namespace {

// The other half tells ids from content, by which it is never zero but for one in 2^64.
void add_token(std::string& units, int64_t id) {
  char unit[kUnitBytes] = {};
  std::memcpy(unit, &id, sizeof id);
  units.append(unit, kUnitBytes);
}

}  // namespace

std::string token_units(const std::vector<int64_t>& ids) {
  std::string units;
  units.reserve(ids.size() * kUnitBytes);
  for (const int64_t id : ids) add_token(units, id);
  return units;
}

std::optional<std::string> content_units(const std::vector<int64_t>& history,
                                         const std::vector<MediaSpan>& media) {
  std::string units;
  units.reserve(history.size() * kUnitBytes);
  auto next = media.begin();
  const auto length = static_cast<int64_t>(history.size());
  for (int64_t position = 0; position < length;) {
    if (next != media.end() && next->position == position) {
      if (next->content.size() != kUnitBytes || next->num_rows < 1) return std::nullopt;
      units += next->content;
      position += next->num_rows;
      ++next;
      continue;
    }
    const int64_t id = history[static_cast<size_t>(position)];
    if (id < 0) return std::nullopt;
    add_token(units, id);
    ++position;
  }
  return units;
}

}  // namespace emm
