#include <nanobind/stl/pair.h>

#include <memory>
#include <vector>

#include "bindings/bindings.h"
#include "sampling/sampler.h"

namespace emm::bindings {
namespace {

using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Probabilities = nb::ndarray<nb::numpy, double, nb::ndim<1>>;

void set_logit_bias(SamplingOptions& options,
                    const nb::typed<nb::list, std::pair<int32_t, float>>& biases) {
  options.logit_bias.clear();
  for (const nb::handle bias : biases)
    options.logit_bias.push_back(nb::cast<std::pair<int32_t, float>>(bias));
}

int32_t sample(Sampler& sampler, const Logits& logits, const TokenIds& history) {
  return sampler.sample(logits.data(), static_cast<int64_t>(logits.size()), history);
}

Probabilities probabilities(Sampler& sampler, const Logits& logits, const TokenIds& history) {
  auto values = std::make_unique<double[]>(logits.size());
  sampler.distribution(logits.data(), static_cast<int64_t>(logits.size()), history, {},
                       values.get());
  double* data = values.release();
  nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<double*>(pointer); });
  return {data, {logits.size()}, owner};
}

void bind_options(nb::module_& module) {
  nb::class_<TimestampRules>(module, "TimestampRules", "Whisper's grammar of timestamps.")
      .def(nb::new_([](int32_t first, int32_t end, int32_t max_initial) {
             return TimestampRules{first, end, max_initial};
           }),
           "first"_a, "end"_a, "max_initial"_a = -1,
           "The token of the time 0, the end token, and steps that the first time may be from 0.");
  nb::class_<SamplingOptions>(module, "SamplingOptions",
                              "How the next token is chosen; everything is off at first.")
      .def(nb::init<>())
      .def_rw("temperature", &SamplingOptions::temperature)
      .def_rw("top_k", &SamplingOptions::top_k)
      .def_rw("top_p", &SamplingOptions::top_p)
      .def_rw("min_p", &SamplingOptions::min_p)
      .def_rw("typical_p", &SamplingOptions::typical_p)
      .def_rw("repetition_penalty", &SamplingOptions::repetition_penalty)
      .def_rw("frequency_penalty", &SamplingOptions::frequency_penalty)
      .def_rw("presence_penalty", &SamplingOptions::presence_penalty)
      .def_rw("no_repeat_ngram_size", &SamplingOptions::no_repeat_ngram_size)
      .def_prop_rw(
          "logit_bias", [](const SamplingOptions& options) { return options.logit_bias; },
          set_logit_bias)
      .def_prop_rw("suppress_tokens", get_ids<&SamplingOptions::suppress_tokens>,
                   set_ids<&SamplingOptions::suppress_tokens>)
      .def_prop_rw("forced_tokens", get_ids<&SamplingOptions::forced_tokens>,
                   set_ids<&SamplingOptions::forced_tokens>)
      .def_prop_rw("end_tokens", get_ids<&SamplingOptions::end_tokens>,
                   set_ids<&SamplingOptions::end_tokens>)
      .def_rw("min_new_tokens", &SamplingOptions::min_new_tokens)
      .def_rw("num_logprobs", &SamplingOptions::num_logprobs)
      .def_rw("seed", &SamplingOptions::seed)
      .def_prop_rw("begin_suppress_tokens", get_ids<&SamplingOptions::begin_suppress_tokens>,
                   set_ids<&SamplingOptions::begin_suppress_tokens>)
      .def_rw("timestamps", &SamplingOptions::timestamps)
      .def_rw("has_edited_logprobs", &SamplingOptions::has_edited_logprobs);
}

}  // namespace

void bind_sampling(nb::module_& module) {
  bind_options(module);
  nb::class_<Sampler>(module, "Sampler", "Chooses the tokens of one answer from rows of logits.")
      .def(nb::init<const SamplingOptions&>(), "options"_a)
      .def("sample", sample, nb::arg("logits").noconvert(), "history"_a,
           "The next token, given logits (vocab_size) and the token ids before them.")
      .def_prop_ro("top_logprobs", &Sampler::top_logprobs, nb::rv_policy::copy,
                   "What the last Session.rank() found, falling.")
      .def("probabilities", probabilities, nb::arg("logits").noconvert(), "history"_a,
           "What sample() would draw from.");
}

}  // namespace emm::bindings
