// What a context holds as a string of units of 16 bytes: a token's id, or what stands for the
// content of an image, a clip or embeddings, however many positions these take. Contexts that begin
// with the same units hold the same there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace emm {

constexpr size_t kUnitBytes = 16;

// An image, a clip or embeddings in a context.
struct MediaSpan {
  int64_t position = 0;
  int64_t num_rows = 0;
  std::string content;  // a unit; empty where it is not known
};

std::string token_units(const std::vector<int64_t>& ids);
// Nothing where the content of some positions is not known.
std::optional<std::string> content_units(const std::vector<int64_t>& history,
                                         const std::vector<MediaSpan>& media);

}  // namespace emm
