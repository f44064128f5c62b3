#include "et/media_input.h"

#include "base/error.h"
#include "model/convert.h"

namespace emm {

TensorView MediaInput::take(const TensorView& values, DType wanted, const std::string& what,
                            bool is_image) {
  if (!all_finite(values))
    throw Error(ErrorCode::kInput, what + ": expected finite values, got NaN or infinity");
  TensorView view = is_image ? convert_image(values, wanted, converted_)
                             : convert(values, wanted, converted_, what);
  if (view.data != values.data) copied_bytes_ += static_cast<int64_t>(values.size_bytes());
  return view;
}

void refuse_media(const std::string& what) {
  throw Error(ErrorCode::kInput,
              what + ": the model has no encoder for it, so it takes no " + what);
}

void refuse_media(const std::string& what, const std::string& encoder, const TensorView& wanted,
                  const TensorView& given) {
  throw Error(ErrorCode::kInput, what + ": " + encoder + " expects " + wanted.describe() +
                                     ", got " + given.describe());
}

}  // namespace emm
