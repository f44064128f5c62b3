// What one request cost. All times in nanoseconds of the monotonic clock.
#pragma once

#include <cstdint>

namespace emm {

struct RequestTimings {
  int64_t start_ns = 0;        // when the request began
  int64_t prompt_read_ns = 0;  // from there to the end of the prompt; 0 before it
  int64_t first_token_ns = 0;  // from there to the first sampled token; 0 before it
  int64_t encode_image_ns = 0;
  int64_t encode_audio_ns = 0;
  int64_t prefill_ns = 0;  // decoder calls over the prompt
  int64_t decode_ns = 0;   // decoder calls over tokens of the answer
  int64_t sample_ns = 0;
  int64_t copied_input_bytes = 0;  // of image and audio data, on the way to an encoder
  int64_t num_prompt_positions = 0;
  int64_t num_prompt_calls = 0;  // decoder calls over the prompt
  int64_t num_encoder_hits = 0;  // images and clips that were encoded before
  int64_t num_decode_steps = 0;
  int64_t num_shared_steps = 0;      // those of them in a call with other sessions
  int64_t num_generated_tokens = 0;  // the end token included
  int64_t num_drafted_tokens = 0;    // read ahead, because they might come
  int64_t num_accepted_tokens = 0;   // those of them that came
  int64_t num_forced_tokens = 0;     // those of them that were not sampled, see Session::append()
};

}  // namespace emm
