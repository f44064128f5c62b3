#include "sampling/timestamp_rules.h"

#include <algorithm>
#include <cmath>

#include "sampling/logits_row.h"

namespace emm {

void apply_timestamp_rules(float* row, int64_t vocab_size, const int64_t* answer,
                           int64_t num_tokens, const TimestampRules& rules) {
  const int64_t first = std::min<int64_t>(rules.first, vocab_size);
  const auto forbid = [&](int64_t begin, int64_t end) {
    begin = std::min(begin, vocab_size);
    std::fill(row + begin, row + std::clamp(end, begin, vocab_size), -INFINITY);
  };
  const auto is_time = [&](int64_t index) { return answer[index] >= first; };
  if (num_tokens == 0) {
    forbid(0, first);
    if (rules.max_initial >= 0) forbid(first + rules.max_initial + 1, vocab_size);
    return;
  }
  const bool ends_in_time = is_time(num_tokens - 1);
  const bool begins_text = ends_in_time && (num_tokens < 2 || is_time(num_tokens - 2));
  if (begins_text) return forbid(first, vocab_size);
  if (ends_in_time) forbid(0, rules.end);
  int64_t last = num_tokens - 1;
  while (last >= 0 && !is_time(last)) --last;
  // The next text may begin where this one ended, but a text must not end where it began.
  if (last >= 0) forbid(first, answer[last] + (ends_in_time ? 0 : 1));

  const int32_t likeliest_text = argmax(row, first);
  const double times = log_sum_exp(row + first, vocab_size - first);
  const bool is_time_likelier =
      likeliest_text < 0 || times > static_cast<double>(row[likeliest_text]);
  if (is_time_likelier && std::isfinite(times)) forbid(0, first);
}

}  // namespace emm
