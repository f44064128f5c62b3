#include <memory>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "runtime/generation.h"

namespace emm::bindings {
namespace {

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
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return std::nullopt;
}

void make_generation(Generation* self, std::shared_ptr<Session> session, int64_t max_new_tokens,
                     std::vector<int64_t> eos_ids, float temperature, int32_t top_k, float top_p,
                     uint64_t seed) {
  new (self) Generation(std::move(session),
                        {{temperature, top_k, top_p, seed}, max_new_tokens, std::move(eos_ids)});
}

}  // namespace

void bind_generation(nb::module_& module) {
  nb::class_<Generation>(module, "Generation", "One answer, token by token.")
      .def("__init__", make_generation, "session"_a, nb::kw_only(), "max_new_tokens"_a, "eos_ids"_a,
           "temperature"_a, "top_k"_a, "top_p"_a, "seed"_a,
           "max_new_tokens -1: until the context is full.")
      .def("next", &Generation::next, nb::call_guard<nb::gil_scoped_release>(),
           "The next token id, or None when the answer is complete; an end token is not returned.")
      .def_prop_ro("finish_reason", finish_reason,
                   "None, 'stop', 'length', 'capacity' or 'cancelled'.");
}

}  // namespace emm::bindings
