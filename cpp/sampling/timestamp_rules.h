// Whisper's grammar of timestamps. The tokens from `first` on are times, in steps of 0.02 s. Texts
// stand between two of them: an answer begins with a time, a time that ends a text is followed by
// one that begins the next or by the end, and times do not fall.
#pragma once

#include <cstdint>

namespace emm {

struct TimestampRules {
  int32_t first = -1;        // -1: no rules
  int32_t end = 0;           // the end token; texts are made of the tokens below it
  int32_t max_initial = -1;  // steps that the first time may be from the beginning; -1: any
};

// Forbids what may not follow the answer so far. Where times together are likelier than each token
// of a text, a time must come.
void apply_timestamp_rules(float* row, int64_t vocab_size, const int64_t* answer,
                           int64_t num_tokens, const TimestampRules& rules);

}  // namespace emm
