#include <doctest/doctest.h>

#include <string>

#include "base/utf8.h"

using emm::is_utf8;

// The borders of each length as the Unicode standard has them (table 3-7).
TEST_CASE("whole characters of every length are UTF-8") {
  for (const char* text : {"", "forward", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80",
                           "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80",
                           "\xF4\x8F\xBF\xBF", "caf\xC3\xA9 \xF0\x9F\x99\x82"})
    CHECK(is_utf8(text));
}

TEST_CASE("parts of characters, overlong ones, surrogates and what is beyond are none") {
  for (const char* text :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2z", "\xE0\x9F\xBF", "\xE2\x82",
        "\xE2\x82z", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x99",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF", "aten\xFF"})
    CHECK_FALSE(is_utf8(text));
}
