#include "base/error.h"
#include "bindings/bindings.h"
#include "image/resample.h"

namespace emm::bindings {
namespace {

using Pixels = nb::ndarray<const uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using OutPixels = nb::ndarray<uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using First = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Weights = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

ResampleAxis to_axis(const First& first, const Weights& weights, size_t size, const char* name) {
  if (first.size() != size || weights.shape(0) != size)
    throw Error(ErrorCode::kInput,
                std::string("resample: expected as many ") + name + " in out as weights");
  return {first.data(), weights.data(), static_cast<int64_t>(size),
          static_cast<int64_t>(weights.shape(1))};
}

}  // namespace

void bind_image(nb::module_& module) {
  module.attr("RESAMPLE_BITS") = kResampleBits;
  module.def(
      "resample",
      [](const Pixels& pixels, const First& column_first, const Weights& column_weights,
         const First& row_first, const Weights& row_weights, const OutPixels& out) {
        const RgbImage source{pixels.data(), static_cast<int64_t>(pixels.shape(0)),
                              static_cast<int64_t>(pixels.shape(1))};
        const ResampleAxis columns = to_axis(column_first, column_weights, out.shape(1), "columns");
        const ResampleAxis rows = to_axis(row_first, row_weights, out.shape(0), "rows");
        const ReleaseGil release;
        resample(source, columns, rows, out.data());
      },
      nb::arg("pixels").noconvert(), nb::arg("column_first").noconvert(),
      nb::arg("column_weights").noconvert(), nb::arg("row_first").noconvert(),
      nb::arg("row_weights").noconvert(), nb::arg("out").noconvert(),
      "Resizes RGB bytes (height, width, 3) into `out`; each column and row of it is a weighted "
      "sum "
      "of neighbours.");
}

}  // namespace emm::bindings
