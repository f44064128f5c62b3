#include "program/op_signatures.h"

#include <algorithm>
#include <iterator>

namespace emm {
namespace {

struct Entry {
  std::string_view name;
  std::string_view signature;
};

constexpr Entry kEntries[] = {
#include "program/op_signatures.inc"
};

}  // namespace

std::optional<OpSignature> op_signature(std::string_view name) {
  const auto* entry = std::lower_bound(
      std::begin(kEntries), std::end(kEntries), name,
      [](const Entry& candidate, std::string_view wanted) { return candidate.name < wanted; });
  if (entry == std::end(kEntries) || entry->name != name) return std::nullopt;
  const size_t colon = entry->signature.find(':');
  return OpSignature{entry->name, entry->signature.substr(0, colon),
                     entry->signature.substr(colon + 1)};
}

}  // namespace emm
