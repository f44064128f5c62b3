// Whether bytes are UTF-8, as files are to have their names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace emm {

// No overlong forms, no surrogates, nothing above U+10FFFF.
inline bool is_utf8(std::string_view text) {
  size_t at = 0;
  const auto byte = [&](size_t index) { return static_cast<uint8_t>(text[index]); };
  while (at < text.size()) {
    const uint8_t first = byte(at);
    const size_t length = first < 0x80   ? 1
                          : first < 0xC2 ? 0
                          : first < 0xE0 ? 2
                          : first < 0xF0 ? 3
                          : first < 0xF5 ? 4
                                         : 0;
    if (length == 0 || length > text.size() - at) return false;
    for (size_t i = 1; i < length; ++i) {
      if ((byte(at + i) & 0xC0) != 0x80) return false;
    }
    if (length > 2) {
      const uint8_t second = byte(at + 1);
      const bool is_overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
      const bool is_beyond = (first == 0xED && second > 0x9F) || (first == 0xF4 && second > 0x8F);
      if (is_overlong || is_beyond) return false;
    }
    at += length;
  }
  return true;
}

}  // namespace emm
