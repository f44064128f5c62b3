// Runs the encoders of a program: an image, a clip or the ids of a text in, what the method gives
// out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_view.h"
#include "et/et_program.h"
#include "et/media_input.h"
#include "model/contract.h"
#include "model/encoder_call.h"

namespace emm {

class EtEncoder {
 public:
  // The outputs, valid until the method's next run. Throws Error(kInput), starting with `what`; for
  // an encoder that is null, too.
  std::vector<TensorView> run(EtProgram& program, const MethodSpec* encoder,
                              const std::string& what, const MediaView& input);
  // Of these the rows that count, (rows, hidden_size).
  TensorView rows(const MethodSpec& encoder, const std::vector<TensorView>& outputs) {
    return call_.rows(encoder, outputs);
  }

  // (frames, features) of samples (num_samples), which a method of the program makes.
  TensorView transform(EtProgram& program, const MethodSpec& method, const TensorView& samples);

  // Bytes of inputs that were copied so far.
  int64_t copied_bytes() const {
    return copied_bytes_ + call_.copied_bytes() + media_.copied_bytes();
  }

 private:
  EncoderCall call_;
  MediaInput media_;
  int64_t copied_bytes_ = 0;
};

}  // namespace emm
