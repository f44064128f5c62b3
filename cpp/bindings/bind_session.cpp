#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/fork.h"
#include "et/et_executor.h"
#include "et/et_folder.h"
#include "et/et_speech.h"
#include "runtime/session.h"
#include "runtime/transducer_decoder.h"

namespace emm::bindings {
namespace {

// What runs while a model is loaded belongs to loading.
template <typename Load>
auto loading(const LoadOptions& options, Load&& load) {
  try {
    return load(options);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kExecution) throw;
    throw Error(ErrorCode::kLoad, options.model_path + ": " + error.what());
  }
}

std::shared_ptr<Session> to_session(std::unique_ptr<Executor> executor) {
  return kept_in_children(std::make_unique<Session>(std::move(executor)));
}

std::shared_ptr<Session> load(const LoadOptions& options) {
  return loading(options, [](const LoadOptions& given) {
    if (!given.folder.parts.empty()) return to_session(std::make_unique<EtFolder>(given));
    return to_session(std::make_unique<EtExecutor>(given));
  });
}

std::variant<std::shared_ptr<Session>, std::shared_ptr<TransducerDecoder>> load_speech_model(
    const LoadOptions& options) {
  SpeechExecutor executor = loading(options, load_speech);
  if (auto* transducer = std::get_if<std::unique_ptr<TransducerExecutor>>(&executor))
    return kept_in_children(std::make_unique<TransducerDecoder>(std::move(*transducer)));
  return to_session(std::get<std::unique_ptr<Executor>>(std::move(executor)));
}

void load_adapter(Session& session, const std::string& name, const FsPath& model_path,
                  const std::vector<FsPath>& data_paths) {
  AdapterFiles files{model_path.native(), {}};
  for (const FsPath& path : data_paths) files.data_paths.push_back(path.native());
  const ReleaseGil released;
  session.load_adapter(name, files);
}

std::optional<std::string> prefill_phase(const Session& session) {
  const auto kind = session.next_chunk();
  if (!kind) return std::nullopt;
  if (*kind == Chunk::Kind::kEncodeImage) return "encode_image";
  if (*kind == Chunk::Kind::kEncodeAudio) return "encode_audio";
  if (*kind == Chunk::Kind::kEncodeText) return "encode_text";
  return "prefill";
}

std::vector<Input> inputs_of(const std::vector<PreparedInput>& parts) {
  std::vector<Input> inputs;
  inputs.reserve(parts.size());
  for (const PreparedInput& part : parts) inputs.push_back(part.input);
  return inputs;
}

std::optional<int64_t> count_positions(const Session& session,
                                       const std::vector<PreparedInput>& parts) {
  return session.count_positions(inputs_of(parts));
}

void begin_prefill(Session& session, const std::vector<PreparedInput>& parts) {
  std::vector<Input> inputs = inputs_of(parts);
  const ReleaseGil released;  // a turn may have to be waited for
  session.begin_prefill(std::move(inputs));
}

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ReadOnlyBytes = nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>;
using ReadOnlyLogits = nb::ndarray<nb::numpy, const float, nb::ndim<1>>;

std::vector<ReadOnlyBytes> state_of(nb::handle_t<Session::Snapshot> self) {
  std::vector<ReadOnlyBytes> pieces;
  for (const ByteSpan& span : nb::cast<const Session::Snapshot&>(self).state->spans())
    pieces.push_back(ReadOnlyBytes(span.data, {span.size}, self));
  return pieces;
}

std::optional<ReadOnlyLogits> logits_of(nb::handle_t<Session::Snapshot> self) {
  const auto& snapshot = nb::cast<const Session::Snapshot&>(self);
  if (snapshot.logits.empty()) return std::nullopt;
  return ReadOnlyLogits(snapshot.logits.data(), {snapshot.logits.size()}, self);
}

std::vector<float> logprobs(const Session& session, const TokenIds& ids) {
  const std::vector<int64_t> wanted = ids;
  const ReleaseGil release;
  return session.logprobs(wanted);
}

std::vector<std::pair<float, bool>> read_scored(Session& session, const TokenIds& ids,
                                                int64_t deadline_ns) {
  const std::vector<int64_t> given = ids;
  const ReleaseGil release;
  std::vector<std::pair<float, bool>> scores;
  for (const ReadToken& token : session.read_scored(given, deadline_ns))
    scores.emplace_back(token.logprob, token.is_likeliest);
  return scores;
}

void load_conversation(Session& session, int64_t position, int64_t written, const TokenIds& history,
                       const TokenIds& pending_tokens, const Bytes& state,
                       const std::optional<Logits>& logits) {
  SavedConversation saved{position, written,      history,     pending_tokens,
                          nullptr,  state.data(), state.size()};
  if (logits) {
    if (static_cast<int64_t>(logits->size()) != session.contract().vocab_size) {
      throw Error(ErrorCode::kInput, "logits: expected " +
                                         std::to_string(session.contract().vocab_size) + ", got " +
                                         std::to_string(logits->size()));
    }
    saved.logits = logits->data();
  }
  const ReleaseGil release;
  session.load(saved);
}

void bind_snapshot(nb::module_& module) {
  nb::class_<Session::Snapshot>(module, "Snapshot", "A saved conversation.")
      .def_prop_ro("position",
                   [](const Session::Snapshot& snapshot) { return snapshot.position.used(); })
      .def_prop_ro(
          "written", [](const Session::Snapshot& snapshot) { return snapshot.position.written(); },
          "Positions that had been written, of which a rewind may have given back some.")
      .def_ro("history", &Session::Snapshot::history)
      .def_ro("pending_tokens", &Session::Snapshot::pending_tokens)
      .def_prop_ro("logits", logits_of, "float32 (vocab_size) after the last position, if any.")
      .def_prop_ro(
          "state", state_of,
          "The decoder's state in pieces of bytes, laid out as Contract.state_layout says.")
      .def_prop_ro(
          "nbytes",
          [](const Session::Snapshot& snapshot) {
            const size_t tokens = snapshot.history.size() + snapshot.pending_tokens.size();
            const size_t state = snapshot.state == nullptr ? 0 : snapshot.state->size_bytes();
            return state + tokens * sizeof(int64_t) + snapshot.logits.size() * sizeof(float);
          },
          "Bytes of the copied state, the history and the logits.");
}

std::vector<std::pair<uintptr_t, int64_t>> memory_of(const Session& session) {
  std::vector<std::pair<uintptr_t, int64_t>> uses;
  const ReleaseGil released;  // a call may have to be waited for
  for (const MemoryUse& use : session.memory())
    uses.emplace_back(reinterpret_cast<uintptr_t>(use.place), use.bytes);
  return uses;
}

using OwnedFloats = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

OwnedFloats alignment(const Session& session) {
  const auto heads = static_cast<size_t>(session.contract().num_alignment_heads);
  auto* kept = new std::vector<float>(session.alignment());
  const nb::capsule owner(
      kept, [](void* pointer) noexcept { delete static_cast<std::vector<float>*>(pointer); });
  return OwnedFloats(kept->data(), {heads, kept->size() / heads}, owner);
}

std::shared_ptr<Session> another(Session& session) { return kept_in_children(session.another()); }

std::shared_ptr<Session> fork(Session& session, bool keeps_logits) {
  return kept_in_children(session.fork(keeps_logits));
}

std::optional<nb::bytes> units_of(const Session& session) {
  const std::optional<std::string> units = session.units();
  if (!units) return std::nullopt;
  return nb::bytes(units->data(), units->size());
}

std::vector<std::pair<int64_t, int64_t>> media_of(const Session& session) {
  std::vector<std::pair<int64_t, int64_t>> spans;
  for (const MediaSpan& span : session.media()) spans.emplace_back(span.position, span.num_rows);
  return spans;
}

using EncoderCounts = std::tuple<int64_t, int64_t, int64_t, int64_t>;

EncoderCounts counts_of(const EncoderCache& cache) {
  const EncoderCache::Counts counts = cache.counts();
  return {counts.num_entries, counts.num_bytes, counts.num_hits, counts.num_misses};
}

void bind_encoder_cache(nb::module_& module) {
  nb::class_<EncoderCache>(module, "EncoderCache",
                           "What encoders made of media whose content is known.")
      .def(nb::init<int64_t>(), "max_bytes"_a)
      .def_prop_ro("max_bytes", &EncoderCache::max_bytes)
      .def_prop_ro("counts", counts_of,
                   "Entries, bytes, and how often something was found and not found.")
      .def("clear", &EncoderCache::clear, WithoutGil(), "Forgets what is kept.");
}

void bind_caches(nb::class_<Session>& session) {
  session
      .def(
          "go_on_from", &Session::go_on_from, "other"_a, "position"_a.none() = nb::none(),
          WithoutGil(),
          "Goes on as a fork of another session of the model does, with what is pending; or as\n"
          "one that is taken back to `position`, with nothing pending. Raises before anything has\n"
          "changed where the method or the weights are others, or the other's state does not go\n"
          "back there.")
      .def_prop_ro("memory", memory_of,
                   "What the conversation keeps in memory: (place, bytes) of each part; what\n"
                   "several keep at one place is there once.")
      .def_prop_ro(
          "units", units_of,
          "16 bytes for each token in the context and for each image, clip or block of\n"
          "embeddings; None where the content of one is not known, or where other weights\n"
          "or another method have read a part.")
      .def_prop_ro("media", media_of,
                   "(position, rows) of each image, clip or block of embeddings in the context.")
      .def_prop_ro("lowest_rewind", &Session::lowest_rewind,
                   "The lowest position, other than 0, that rewind() takes; more than `position`\n"
                   "where none is.")
      .def_prop_ro("written", &Session::written,
                   "Positions that were written since the last reset, of which rewinds may have\n"
                   "given back some.")
      .def_prop_ro("weights", &Session::weights,
                   "A number for the decoder's weights in use, of all ever loaded for the model.")
      .def("weights_number", &Session::weights_number, "adapter"_a, WithoutGil(),
           "The same of an adapter.")
      .def("keep_encoded", &Session::keep_encoded, "cache"_a,
           "What encoders make of inputs whose content is known is kept from now on, by all\n"
           "siblings that are made from here on too.");
}

void bind_timings(nb::module_& module) {
  nb::class_<RequestTimings>(module, "RequestTimings",
                             "What one request cost; times in nanoseconds.")
      .def_ro("start_ns", &RequestTimings::start_ns)
      .def_ro("prompt_read_ns", &RequestTimings::prompt_read_ns)
      .def_ro("first_token_ns", &RequestTimings::first_token_ns)
      .def_ro("encode_image_ns", &RequestTimings::encode_image_ns)
      .def_ro("encode_audio_ns", &RequestTimings::encode_audio_ns)
      .def_ro("prefill_ns", &RequestTimings::prefill_ns)
      .def_ro("decode_ns", &RequestTimings::decode_ns)
      .def_ro("sample_ns", &RequestTimings::sample_ns)
      .def_ro("copied_input_bytes", &RequestTimings::copied_input_bytes)
      .def_ro("num_prompt_positions", &RequestTimings::num_prompt_positions)
      .def_ro("num_prompt_calls", &RequestTimings::num_prompt_calls)
      .def_ro("num_encoder_hits", &RequestTimings::num_encoder_hits)
      .def_ro("num_decode_steps", &RequestTimings::num_decode_steps)
      .def_ro("num_shared_steps", &RequestTimings::num_shared_steps)
      .def_ro("num_generated_tokens", &RequestTimings::num_generated_tokens)
      .def_ro("num_forced_tokens", &RequestTimings::num_forced_tokens)
      .def_ro("num_drafted_tokens", &RequestTimings::num_drafted_tokens)
      .def_ro("num_accepted_tokens", &RequestTimings::num_accepted_tokens);
}

void bind_state(nb::class_<Session>& session) {
  session.def_prop_ro("contract", &Session::contract, nb::rv_policy::reference_internal)
      .def_prop_ro("position", &Session::position, "Positions of the context in use.")
      .def_prop_ro("history", &Session::history,
                   "Token ids in the context, -1 for positions that came from media or embeddings.")
      .def_prop_ro("pending_tokens", &Session::pending_tokens,
                   "Of the last answer, but not in the context yet.")
      .def_prop_ro("num_threads", &Session::num_threads)
      .def_prop_ro("copied_input_bytes", &Session::copied_input_bytes,
                   "Bytes of inputs of all calls so far that had to be copied.")
      .def_prop_ro("timings", &Session::timings, nb::rv_policy::copy)
      .def_prop_ro("can_generate", &Session::can_generate);
}

}  // namespace

void bind_session(nb::module_& module) {
  bind_timings(module);
  bind_encoder_cache(module);
  bind_snapshot(module);
  nb::class_<Session> session(module, "Session",
                              "One conversation with a model. Serves one thread at a time.");
  session.def_static("load", load, "options"_a, WithoutGil(), "Loads every method of the program.")
      .def("begin_request", &Session::begin_request,
           "Starts the clocks and forgets an earlier cancel().")
      .def("begin_answer", &Session::begin_answer,
           "Counts and durations of an answer start again; those of the prompt stay.")
      .def("cancel", &Session::cancel,
           "Ends the running request before its next step, and its wait for a turn; from any "
           "thread.")
      .def("share_cancel", &Session::share_cancel, "other"_a,
           "What cancels another session cancels this one too; before threads use either.")
      .def_prop_ro("is_cancelled", &Session::is_cancelled)
      .def("count_positions", count_positions, "parts"_a,
           "Positions of a prompt, or None where an encoder has to run first.")
      .def("begin_prefill", begin_prefill, "parts"_a,
           "Plans a prompt; raises before anything has changed.")
      .def("step_prefill", &Session::step_prefill, "deadline_ns"_a = kNever, WithoutGil(),
           "One encoder or decoder call; False when done. None, but True, where the session was\n"
           "cancelled before its turn or the deadline of now_ns() came first.")
      .def("abort_prefill", &Session::abort_prefill, WithoutGil(),
           "Goes back to where begin_prefill() started.")
      .def_prop_ro("prefill_done", &Session::prefill_done, "Positions of the prompt read so far.")
      .def_prop_ro("prefill_total", &Session::prefill_total,
                   "Positions of the prompt, as far as known.")
      .def_prop_ro(
          "prefill_phase", prefill_phase,
          "What the next step_prefill() does: 'encode_image', 'encode_audio' or 'prefill'; "
          "None when no prompt is being read.")
      .def("logprobs", logprobs, "ids"_a,
           "ln p of each of these tokens coming next, after a prompt has been read.")
      .def(
          "read_scored", read_scored, "ids"_a, "deadline_ns"_a = kNever,
          "Reads the first of these tokens, as many as one call of the model takes. For each: ln p "
          "(NaN\nwhere nothing was before it), and whether no other was likelier.")
      .def_prop_ro("alignment", alignment, nb::rv_policy::move,
                   "float32 (heads, frames): how much the last token that was read looks at each "
                   "frame of the clip.")
      .def("read_alone", &Session::read_alone, "is_alone"_a,
           "Whether its steps share no call with another's, of which `alignment` tells nothing.")
      .def("reset", &Session::reset, WithoutGil(), "Back to the state after loading.")
      .def("use_method", &Session::use_method, "name"_a, WithoutGil(),
           "Another decoder of the program goes on, where they share their cache.")
      .def("load_adapter", load_adapter, "name"_a, "model_path"_a, "data_paths"_a,
           "Loads other weights for the decoder; model_path '' stands for the loaded program.")
      .def("use_adapter", &Session::use_adapter, "name"_a, WithoutGil(),
           "Decodes with other weights from now on; '' goes back to those loaded first.")
      .def("drop_adapter", &Session::drop_adapter, "name"_a, WithoutGil(), "Frees other weights.")
      .def("rewind", &Session::rewind, "position"_a, WithoutGil(),
           "Forgets the positions from `position` on.")
      .def("save", &Session::save, WithoutGil(), "Copies the whole state.")
      .def("restore", &Session::restore, "snapshot"_a, WithoutGil(), "Returns to a saved state.")
      .def("load_conversation", load_conversation, "position"_a, "written"_a, "history"_a,
           "pending_tokens"_a, "state"_a.noconvert(), "logits"_a.noconvert() = nb::none(),
           "Goes on with a conversation that another session saved; raises before anything has\n"
           "changed where this model cannot have had it.")
      .def("another", another, WithoutGil(),
           "A conversation of its own with the same weights, at its beginning.")
      .def("fork", fork, "keeps_logits"_a = true, WithoutGil(),
           "A conversation that has read what this one has, and goes on independently; without\n"
           "logits at hand, where they are not kept.")
      .def_static("step_together", &Session::step_together, "sessions"_a, "samplers"_a,
                  WithoutGil(),
                  "Samples the next token of each of several sessions over one model, after one "
                  "call of it for all that they have pending; needs "
                  "Contract.max_batch_tokens > 1.")
      .def("rank", &Session::rank, "sampler"_a, "num_tokens"_a, "deadline_ns"_a = kNever,
           WithoutGil(),
           "Reads what is pending; what may follow an answer of so many tokens is then in the\n"
           "sampler's top_logprobs. Returns what is added to turn these into ln p in the model's "
           "own\n"
           "distribution; None where it was cancelled before its turn or the deadline came first.")
      .def("append", &Session::append, "token"_a, "deadline_ns"_a = kNever, WithoutGil(),
           "Takes a token for the next one; the model reads it later.")
      .def("limit_chunks", &Session::limit_chunks, "num_positions"_a,
           "A call reads at most so many positions of a prompt.")
      .def_prop_rw("priority", &Session::priority, &Session::set_priority,
                   "Of the sessions that wait for the model the one with the lowest goes first.")
      .def("write_profile", &Session::write_profile, WithoutGil(),
           "Ends the profile that LoadOptions asked for, if it did, and writes its file.");
  bind_caches(session);
  bind_state(session);
  module.def("load_speech", load_speech_model, "options"_a, WithoutGil(),
             "Loads a speech model, a transducer as a TransducerDecoder.");
}

}  // namespace emm::bindings
