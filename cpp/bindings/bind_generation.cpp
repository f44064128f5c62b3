#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "bindings/bindings.h"
#include "runtime/generation.h"

namespace emm::bindings {
namespace {

using Mask = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Processors = nb::typed<nb::tuple, nb::callable, nb::ellipsis>;
using Row = nb::ndarray<nb::numpy, float, nb::ndim<1>, nb::c_contig>;

std::optional<std::string> finish_reason(const Generation& generation) {
  switch (generation.finish_reason()) {
    case FinishReason::kNone:
      return std::nullopt;
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCapacity:
      return "capacity";
    case FinishReason::kTimeout:
      return "timeout";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return std::nullopt;
}

// Calls each processor with the token ids so far and the logits. The array is a view of the
// sampler's own row: it holds a reference to the generation, so that an array kept beyond the call
// still has memory behind it.
void run_processors(const Processors& processors, nb::handle generation, float* row,
                    int64_t vocab_size, const std::vector<int64_t>& history) {
  const HoldGil gil;
  const nb::object logits = nb::cast(Row(row, {static_cast<size_t>(vocab_size)}, generation));
  const nb::object tokens = nb::cast(history);
  for (size_t i = 0; i < processors.size(); ++i) {
    const nb::object result = call_python(processors[i], tokens, logits);
    if (result.is_none() || result.is(logits)) continue;
    throw Error(ErrorCode::kInput,
                "logits_processors: expected number " + std::to_string(i) +
                    " to change the logits in place and return None, got " +
                    nb::cast<std::string>(nb::str(result.type().attr("__name__"))));
  }
}

std::optional<int32_t> next(nb::handle_t<Generation> self, const Processors& processors,
                            const std::optional<Mask>& allowed,
                            const std::optional<nb::callable>& check) {
  auto& generation = nb::cast<Generation&>(self);
  SampleHooks hooks;
  if (processors.size() > 0) {
    hooks.edit = [&](float* row, int64_t vocab_size, const std::vector<int64_t>& history) {
      run_processors(processors, self, row, vocab_size, history);
    };
  }
  if (allowed) {
    const int64_t needed = (generation.vocab_size() + 31) / 32;
    if (static_cast<int64_t>(allowed->size()) < needed) {
      throw Error(ErrorCode::kInput, "allowed: expected " + std::to_string(needed) +
                                         " words of 32 tokens, got " +
                                         std::to_string(allowed->size()));
    }
    hooks.allowed = allowed->data();
  }
  CheckGuesses check_guesses;
  if (check) {
    check_guesses = [&](const std::vector<int64_t>& guesses) {
      const HoldGil gil;
      return nb::cast<size_t>(call_python(*check, nb::cast(guesses)));
    };
  }
  const ReleaseGil release;
  return generation.next(hooks, check_guesses);
}

void bind_options(nb::module_& module) {
  nb::class_<GenerationOptions>(module, "GenerationOptions",
                                "When an answer ends and how its tokens are chosen; -1: no limit.")
      .def(nb::init<>())
      .def_rw("sampling", &GenerationOptions::sampling)
      .def_rw("max_new_tokens", &GenerationOptions::max_new_tokens)
      .def_rw("max_positions", &GenerationOptions::max_positions)
      .def_rw("timeout_ns", &GenerationOptions::timeout_ns)
      .def_prop_rw("eos_ids", get_ids<&GenerationOptions::eos_ids>,
                   set_ids<&GenerationOptions::eos_ids>)
      .def_prop_rw("stop_token_ids", get_ids<&GenerationOptions::stop_token_ids>,
                   set_ids<&GenerationOptions::stop_token_ids>)
      .def_rw("include_stop", &GenerationOptions::include_stop)
      .def_rw("num_lookup_tokens", &GenerationOptions::num_lookup_tokens)
      .def_rw("num_assistant_tokens", &GenerationOptions::num_assistant_tokens);
}

void bind_records(nb::module_& module) {
  nb::class_<Candidate>(module, "TokenLogprob", "A token and the logarithm of its probability.")
      .def_ro("token", &Candidate::token)
      .def_ro("logprob", &Candidate::value);
  nb::class_<TokenRecord>(module, "TokenRecord", "A token of an answer.")
      .def_ro("token", &TokenRecord::token)
      .def_ro("time_ns", &TokenRecord::time_ns, "Since the request began.")
      .def_ro("logprob", &TokenRecord::logprob, "0 where no logprobs were asked for.")
      .def_ro("top_logprobs", &TokenRecord::top_logprobs, "The likeliest tokens, falling.");
}

}  // namespace

void bind_generation(nb::module_& module) {
  bind_options(module);
  bind_records(module);
  module.def("now_ns", now_ns, "The monotonic clock that all times are taken from.");
  nb::class_<DraftCredit>(module, "DraftCredit", "What a draft model may lose in all answers.")
      .def(nb::init<>());
  nb::class_<Drafter>(module, "Drafter", "A smaller model that guesses how an answer goes on.")
      .def(nb::init<std::shared_ptr<Session>, double, bool, std::shared_ptr<DraftCredit>>(),
           "session"_a, "cost"_a, "is_estimate"_a, "credit"_a,
           "`cost`: of one of its calls, in calls of the model that answers; an estimate holds "
           "until both are measured. `credit`: of all drafters of a load.")
      .def_prop_ro("session", &Drafter::session, nb::rv_policy::reference_internal,
                   "What it has read.");
  nb::class_<Generation>(module, "Generation", "One answer, token by token.")
      .def(nb::init<std::shared_ptr<Session>, GenerationOptions, std::shared_ptr<Drafter>>(),
           "session"_a, "options"_a, "drafter"_a.none() = nb::none())
      .def("next", next, "processors"_a = Processors(nb::tuple()),
           "allowed"_a.noconvert() = nb::none(), "check"_a = nb::none(),
           "The next token id, or None when the answer is complete; an end token is not returned.\n"
           "Processors change the logits in place; `allowed` has a bit for each token; `check` "
           "gets\n"
           "tokens that may come and returns how many of them can.")
      .def("next_forced", &Generation::next_forced, "token"_a, WithoutGil(),
           "The same where the next token can only be `token`: the model reads it later.")
      .def_prop_ro("finish_reason", finish_reason,
                   "None, 'stop', 'length', 'capacity', 'timeout' or 'cancelled'.")
      .def_prop_ro("draft_ns", &Generation::draft_ns, "Time spent on guesses of a drafter.")
      .def_prop_ro("step_ns", &Generation::step_ns,
                   "A call of the model for one token, as it was measured; 0 where it was not.")
      .def_prop_ro("stop_token", &Generation::stop_token, "The token that ended the answer.")
      .def_prop_ro("records", &Generation::records, nb::rv_policy::copy,
                   "All tokens so far, one that ended the answer included.");
}

}  // namespace emm::bindings
