#include <nanobind/stl/map.h>
#include <nanobind/stl/variant.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/fork.h"
#include "runtime/transducer_decoder.h"

namespace emm::bindings {
namespace {

void begin_samples(TransducerDecoder& decoder, const Array& samples, int64_t deadline_ns) {
  const TensorView view = to_view(samples);
  const ReleaseGil released;
  decoder.begin_samples(view, deadline_ns);
}

void begin_features(TransducerDecoder& decoder, const Array& columns, int64_t length,
                    int64_t deadline_ns) {
  const TensorView view = to_view(columns);
  const ReleaseGil released;
  decoder.begin_features({view, length}, deadline_ns);
}

std::optional<FloatArray> features(TransducerDecoder& decoder, const Array& samples,
                                   int64_t deadline_ns) {
  const TensorView view = to_view(samples);
  std::optional<std::vector<float>> made;
  {
    const ReleaseGil released;
    made = decoder.features(view, deadline_ns);
  }
  if (!made) return std::nullopt;
  const int64_t num_bins = decoder.contract().num_bins;
  const Shape shape = {1, num_bins, static_cast<int64_t>(made->size()) / num_bins};
  return to_array(std::move(*made), shape);
}

bool hear(TransducerDecoder& decoder, const Array& columns, int64_t length, int64_t deadline_ns) {
  const TensorView view = to_view(columns);
  const ReleaseGil released;
  return decoder.hear({view, length}, deadline_ns);
}

std::shared_ptr<TransducerDecoder> another(TransducerDecoder& decoder) {
  return kept_in_children(decoder.another());
}

}  // namespace

void bind_transducer(nb::module_& module) {
  nb::class_<TransducerContract>(module, "TransducerContract",
                                 "What the .pte of a transducer promises.")
      .def_ro("methods", &TransducerContract::methods, "Methods with inputs, by name.")
      .def_ro("metadata", &TransducerContract::metadata, "Values of the constant methods, by name.")
      .def_ro("blank_id", &TransducerContract::blank_id)
      .def_ro("durations", &TransducerContract::durations,
              "Frames by duration index; empty for RNN-T.")
      .def_ro("max_symbols_per_step", &TransducerContract::max_symbols_per_step)
      .def_ro("sample_rate", &TransducerContract::sample_rate)
      .def_ro("num_bins", &TransducerContract::num_bins, "Rows of features.")
      .def_ro("max_columns", &TransducerContract::max_columns,
              "Columns of features that the encoder takes.")
      .def_ro("max_samples", &TransducerContract::max_samples,
              "Samples that the preprocessor takes; 0 without one.")
      .def_ro("window_stride", &TransducerContract::window_stride,
              "Seconds from one column of features to the next.")
      .def_prop_ro("frame_seconds", &TransducerContract::frame_seconds,
                   "From one frame of the encoder to the next.")
      .def_prop_ro("has_preprocessor", &TransducerContract::has_preprocessor)
      .def_ro("chunk_columns", &TransducerContract::chunk_columns,
              "Columns that the frames of a chunk stand for; 0 of an encoder of whole clips.")
      .def_ro("history", &TransducerContract::history,
              "Columns before those that a chunk begins with; zeros at the beginning of a stream.")
      .def_prop_ro("takes_chunks", &TransducerContract::takes_chunks);
  nb::class_<Symbol>(module, "Symbol", "A symbol that a transducer emitted.")
      .def_ro("token", &Symbol::token)
      .def_ro("frame", &Symbol::frame, "Of the encoder, from 0.")
      .def_ro("duration", &Symbol::duration,
              "Frames that the model gives it, perhaps none; always 1 for RNN-T.");
  nb::class_<TransducerStream>(module, "TransducerStream", "How far a stream has been heard.")
      .def_ro("num_frames", &TransducerStream::num_frames, "So far.");
  nb::class_<TransducerDecoder>(module, "TransducerDecoder",
                                "Speech to symbols with a transducer. Serves one thread at a time.")
      .def_prop_ro("contract", &TransducerDecoder::contract, nb::rv_policy::reference_internal)
      .def_prop_ro("num_threads", &TransducerDecoder::num_threads)
      .def_prop_ro("timings", &TransducerDecoder::timings, nb::rv_policy::copy)
      .def_prop_ro("num_frames", &TransducerDecoder::num_frames, "Of the clip.")
      .def_prop_ro("is_cancelled", &TransducerDecoder::is_cancelled)
      .def("begin_request", &TransducerDecoder::begin_request,
           "Starts the clocks and forgets the clip before and its cancellation.")
      .def(
          "begin_samples", begin_samples, "samples"_a, "deadline_ns"_a = kNever,
          "Runs preprocessor and encoder over floats (num_samples); nothing where the deadline of\n"
          "now_ns() comes before its turn.")
      .def("begin_features", begin_features, "columns"_a, "length"_a, "deadline_ns"_a = kNever,
           "Runs the encoder over floats (1, num_bins, num_columns), `length` of which are no "
           "padding.")
      .def("new_stream", &TransducerDecoder::new_stream, "For an encoder that takes chunks.")
      .def("resume", &TransducerDecoder::resume, "stream"_a,
           "After begin_request(): hear() and next() go on with a stream of this decoder.")
      .def(
          "features", features, "samples"_a, "deadline_ns"_a = kNever,
          "Floats (1, num_bins, columns) of floats (num_samples), without padding; None where the\n"
          "deadline or cancel() comes before its turn.")
      .def("hear", hear, "columns"_a, "length"_a, "deadline_ns"_a = kNever,
           "Runs the encoder over a stream's next max_columns, `length` of which are no padding;\n"
           "False where it was not heard, as in features().")
      .def("next", &TransducerDecoder::next, "deadline_ns"_a = kNever, WithoutGil(),
           "The next symbol; None at the end of the clip, after cancel(), after an error, and\n"
           "where the deadline comes before its turn.")
      .def("cancel", &TransducerDecoder::cancel,
           "Ends the running request before its next call of the model, and its wait for a turn;\n"
           "from any thread.")
      .def("another", another, WithoutGil(), "For other clips, with the same weights.")
      .def_prop_rw("priority", &TransducerDecoder::priority, &TransducerDecoder::set_priority,
                   "Of those that wait for the model the one with the lowest goes first.")
      .def("write_profile", &TransducerDecoder::write_profile, WithoutGil(), "As in Session.");
}

}  // namespace emm::bindings
