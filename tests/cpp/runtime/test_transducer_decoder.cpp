// Greedy decoding of transducers, on the fake executor.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "runtime/transducer_decoder.h"
#include "testing/fake_transducer.h"

using namespace emm;
using emm::testing::FakeTransducer;

namespace {

constexpr int64_t kBlank = 9;

using Symbols = std::vector<std::tuple<int64_t, int64_t, int64_t>>;  // token, frame, duration

TransducerContract contract_with(std::vector<int64_t> durations, int64_t max_symbols = 10) {
  TransducerContract contract;
  contract.blank_id = kBlank;
  contract.durations = std::move(durations);
  contract.max_symbols_per_step = max_symbols;
  contract.max_samples = 100;
  return contract;
}

struct Decoding {
  Decoding(TransducerContract contract, FakeTransducer::Rule rule) {
    auto executor = std::make_unique<FakeTransducer>(std::move(contract), std::move(rule));
    fake = executor.get();
    decoder = std::make_unique<TransducerDecoder>(std::move(executor));
  }

  void begin(int64_t num_frames) {
    samples.assign(static_cast<size_t>(num_frames), 0.0f);
    decoder->begin_request();
    decoder->begin_samples({samples.data(), DType::kFloat32, {num_frames}});
  }

  Symbols rest() {
    Symbols symbols;
    while (const auto symbol = decoder->next())
      symbols.emplace_back(symbol->token, symbol->frame, symbol->duration);
    return symbols;
  }

  Symbols all(int64_t num_frames) {
    begin(num_frames);
    return rest();
  }

  FakeTransducer* fake;  // owned by the decoder
  std::unique_ptr<TransducerDecoder> decoder;
  std::vector<float> samples;
};

// Two symbols on each even frame, counted up.
JointChoice two_on_even_frames(int64_t frame, const std::vector<int64_t>& read) {
  const auto due = static_cast<size_t>(2 * (frame / 2 + 1));
  if (frame % 2 == 0 && read.size() < due) return {static_cast<int64_t>(read.size()), 0};
  return {kBlank, 0};
}

}  // namespace

TEST_CASE("RNN-T: symbols stay on their frame until a blank leads away") {
  Decoding decoding(contract_with({}), two_on_even_frames);
  CHECK(decoding.all(5) ==
        Symbols{{0, 0, 1}, {1, 0, 1}, {2, 2, 1}, {3, 2, 1}, {4, 4, 1}, {5, 4, 1}});
  CHECK(decoding.fake->looked_at == std::vector<int64_t>{0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 4});
}

TEST_CASE("TDT: symbols and blanks lead as many frames on as the duration says") {
  // Index 0, 1, 2, 3: 0, 1, 2, 5 frames.
  const std::vector<JointChoice> script = {{1, 2}, {kBlank, 1}, {2, 0}, {3, 3}, {4, 1}};
  size_t step = 0;
  Decoding decoding(contract_with({0, 1, 2, 5}),
                    [&](int64_t, const std::vector<int64_t>&) { return script.at(step++); });
  CHECK(decoding.all(9) == Symbols{{1, 0, 2}, {2, 3, 0}, {3, 3, 5}, {4, 8, 1}});
  CHECK(decoding.fake->looked_at == std::vector<int64_t>{0, 2, 3, 3, 8});
}

TEST_CASE("TDT: a blank of no duration still leads one frame on") {
  Decoding decoding(contract_with({0, 3}),
                    [](int64_t, const std::vector<int64_t>&) { return JointChoice{kBlank, 0}; });
  CHECK(decoding.all(3).empty());
  CHECK(decoding.fake->looked_at == std::vector<int64_t>{0, 1, 2});
}

TEST_CASE("as many symbols on one frame as the contract allows, then the next frame") {
  const auto babble = [](int64_t, const std::vector<int64_t>& read) {
    return JointChoice{static_cast<int64_t>(read.size()), 0};
  };
  SUBCASE("RNN-T") {
    Decoding decoding(contract_with({}, 2), babble);
    CHECK(decoding.all(2) == Symbols{{0, 0, 1}, {1, 0, 1}, {2, 1, 1}, {3, 1, 1}});
  }
  SUBCASE("TDT") {
    Decoding decoding(contract_with({0, 1}, 2), babble);
    CHECK(decoding.all(2) == Symbols{{0, 0, 0}, {1, 0, 0}, {2, 1, 0}, {3, 1, 0}});
  }
  SUBCASE("a symbol with a duration starts the count anew") {
    // On frame 0 one symbol without a duration and one with, on frame 1 two without.
    Decoding decoding(contract_with({0, 1}, 2), [](int64_t, const std::vector<int64_t>& read) {
      return JointChoice{static_cast<int64_t>(read.size()), read.size() == 1 ? 1 : 0};
    });
    CHECK(decoding.all(2) == Symbols{{0, 0, 0}, {1, 0, 1}, {2, 1, 0}, {3, 1, 0}});
  }
}

TEST_CASE("a clip of no frames has no symbols") {
  Decoding decoding(contract_with({}), two_on_even_frames);
  CHECK(decoding.all(0).empty());
  CHECK(decoding.fake->looked_at.empty());
}

TEST_CASE("the encoder runs once for each clip, and a clip knows nothing of the one before") {
  Decoding decoding(contract_with({}), two_on_even_frames);
  const Symbols first = decoding.all(5);
  CHECK(decoding.all(5) == first);
  CHECK(decoding.fake->num_encoded == 2);
  CHECK(decoding.decoder->timings().num_generated_tokens == 6);
  CHECK(decoding.decoder->timings().num_decode_steps == 11);
  CHECK(decoding.decoder->timings().num_prompt_positions == 5);
}

TEST_CASE("cancel ends a clip before the next call of the model; the next clip is whole") {
  Decoding decoding(contract_with({}), two_on_even_frames);
  const Symbols whole = decoding.all(5);
  decoding.begin(5);
  CHECK(decoding.decoder->next().has_value());
  const size_t num_looks = decoding.fake->looked_at.size();
  decoding.decoder->cancel();
  CHECK_FALSE(decoding.decoder->next().has_value());
  CHECK(decoding.fake->looked_at.size() == num_looks);
  CHECK(decoding.decoder->is_cancelled());
  CHECK(decoding.all(5) == whole);
  CHECK_FALSE(decoding.decoder->is_cancelled());
}

TEST_CASE("cancel is heard among blanks too") {
  Decoding decoding(contract_with({}),
                    [](int64_t, const std::vector<int64_t>&) { return JointChoice{kBlank, 0}; });
  decoding.fake->before_choice = [&] { decoding.decoder->cancel(); };
  CHECK(decoding.all(50).empty());
  CHECK(decoding.fake->looked_at.size() == 1);
}

TEST_CASE("cancelled before it begins, a clip is not encoded") {
  Decoding decoding(contract_with({}), two_on_even_frames);
  decoding.decoder->begin_request();
  decoding.decoder->cancel();
  const float sample = 0.0f;
  decoding.decoder->begin_samples({&sample, DType::kFloat32, {1}});
  CHECK(decoding.rest().empty());
  CHECK(decoding.fake->num_encoded == 0);
}

TEST_CASE("after an error the clip is over and the next one is whole") {
  Decoding decoding(contract_with({}), two_on_even_frames);
  const Symbols whole = decoding.all(5);
  SUBCASE("in the predictor") {
    decoding.begin(5);
    decoding.fake->fails_to_read = true;
    CHECK_THROWS_WITH_AS(decoding.decoder->next(), "decoder_step: told to fail", Error);
    decoding.fake->fails_to_read = false;
  }
  SUBCASE("in the encoder") {
    decoding.begin(5);
    decoding.fake->fails_to_encode = true;
    CHECK_THROWS_AS(decoding.begin(5), Error);
    decoding.fake->fails_to_encode = false;
  }
  CHECK_FALSE(decoding.decoder->next().has_value());
  CHECK(decoding.all(5) == whole);
}

TEST_CASE("choices that make no sense are errors") {
  const auto error_of = [](JointChoice choice) {
    Decoding decoding(contract_with({0, 1}),
                      [=](int64_t, const std::vector<int64_t>&) { return choice; });
    try {
      decoding.all(1);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kExecution);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(error_of({1, 2}) == "joint: expected a duration index below 2, got 2");
  CHECK(error_of({kBlank, -1}) == "joint: expected a duration index below 2, got -1");
  CHECK(error_of({-3, 0}) == "joint: expected a token, got -3");
}

TEST_CASE("another thread's call is refused while the model runs") {
  Decoding decoding(contract_with({}), two_on_even_frames);
  decoding.begin(1);
  std::string refused;
  decoding.fake->before_choice = [&] {
    std::thread([&] {
      try {
        decoding.decoder->begin_request();
      } catch (const Error& error) {
        if (error.code() == ErrorCode::kBusy) refused = error.what();
      }
    }).join();
  };
  CHECK(decoding.rest().size() == 2);
  CHECK(refused == "the model is in use by another thread");
}

TEST_CASE("a wait for the turn ends by cancel() and by its deadline, and others go on") {
  const auto rule = [](int64_t frame, const std::vector<int64_t>&) {
    return JointChoice{frame % 2 == 0 ? frame : kBlank, 1};
  };
  Decoding d(contract_with({0, 1}), rule);
  TurnQueue turns;
  d.fake->shared_turns = &turns;
  d.begin(8);
  turns.enter(0);
  CHECK_FALSE(d.decoder->next(/*deadline_ns=*/1));
  std::optional<Symbol> symbol;
  std::thread waiting([&] { symbol = d.decoder->next(); });
  while (turns.num_waiting() == 0) std::this_thread::yield();
  d.decoder->cancel();
  waiting.join();
  CHECK_FALSE(symbol);
  turns.leave();
  d.begin(8);
  CHECK(d.decoder->next());
}

namespace {

// Hears chunks of so many frames.
struct Streaming : Decoding {
  explicit Streaming(TransducerContract contract, FakeTransducer::Rule rule)
      : Decoding(chunked(std::move(contract)), std::move(rule)) {
    decoder->begin_request();
  }

  static TransducerContract chunked(TransducerContract contract) {
    contract.num_bins = 1;
    contract.max_columns = contract.chunk_columns = 4;
    return contract;
  }

  bool hear(int64_t num_frames, int64_t deadline_ns = kNever) {
    samples.assign(4, 0.0f);
    return decoder->hear({{samples.data(), DType::kFloat32, {1, 1, 4}}, num_frames}, deadline_ns);
  }
};

}  // namespace

TEST_CASE("a stream's frames are counted on from chunk to chunk, and the predictor reads on") {
  Streaming decoding(contract_with({}), [](int64_t frame, const std::vector<int64_t>& read) {
    // On the second frame of each chunk, as many symbols as were read so far.
    if (frame == 1 && read.size() < 3) return JointChoice{static_cast<int64_t>(read.size()), 0};
    return JointChoice{kBlank, 0};
  });
  const auto stream = decoding.decoder->new_stream();
  decoding.decoder->resume(stream);
  REQUIRE(decoding.hear(4));
  CHECK(decoding.rest() == Symbols{{0, 1, 1}, {1, 1, 1}, {2, 1, 1}});
  REQUIRE(decoding.hear(4));
  CHECK(decoding.rest().empty());  // three were read already
  CHECK(stream->num_frames == 8);
  CHECK(decoding.fake->num_encoded == 2);
}

TEST_CASE("a duration leads beyond the end of a chunk, into the next ones") {
  // Index 1 stands for 6 frames.
  Streaming decoding(contract_with({0, 6}), [](int64_t, const std::vector<int64_t>& read) {
    return JointChoice{static_cast<int64_t>(read.size()), 1};
  });
  decoding.decoder->resume(decoding.decoder->new_stream());
  Symbols symbols;
  for (int i = 0; i < 4; ++i) {
    REQUIRE(decoding.hear(4));
    for (const auto& symbol : decoding.rest()) symbols.push_back(symbol);
  }
  CHECK(symbols == Symbols{{0, 0, 6}, {1, 6, 6}, {2, 12, 6}});
  CHECK(decoding.fake->looked_at == std::vector<int64_t>{0, 2, 0});
}

TEST_CASE("streams of one decoder know nothing of each other, and a request leaves them alone") {
  Streaming decoding(contract_with({}), [](int64_t frame, const std::vector<int64_t>& read) {
    return frame == 0 && read.size() < 2 ? JointChoice{static_cast<int64_t>(read.size()), 0}
                                         : JointChoice{kBlank, 0};
  });
  const auto one = decoding.decoder->new_stream();
  const auto other = decoding.decoder->new_stream();
  decoding.decoder->resume(one);
  REQUIRE(decoding.hear(4));
  CHECK(decoding.rest().size() == 2);
  decoding.decoder->begin_request();
  decoding.decoder->resume(other);
  REQUIRE(decoding.hear(2));
  CHECK(decoding.rest().size() == 2);
  decoding.decoder->begin_request();
  decoding.decoder->resume(one);
  REQUIRE(decoding.hear(4));
  CHECK(decoding.rest().empty());
  CHECK(one->num_frames == 8);
  CHECK(other->num_frames == 2);
}

TEST_CASE("a chunk is not heard after cancel() and beyond the deadline, and may be heard later") {
  Streaming decoding(contract_with({}), two_on_even_frames);
  const auto stream = decoding.decoder->new_stream();
  decoding.decoder->resume(stream);
  decoding.decoder->cancel();
  CHECK(!decoding.hear(4));
  CHECK(!decoding.decoder->features({decoding.samples.data(), DType::kFloat32, {4}}, kNever));
  decoding.decoder->begin_request();
  decoding.decoder->resume(stream);
  CHECK(decoding.hear(4));
  CHECK(stream->num_frames == 4);
  CHECK(
      decoding.decoder->features({decoding.samples.data(), DType::kFloat32, {4}}, kNever)->size() ==
      4);
}

TEST_CASE("clips and streams are refused by the wrong encoder") {
  Decoding whole(contract_with({}), two_on_even_frames);
  CHECK_THROWS_WITH(whole.decoder->new_stream(),
                    "audio: expected an encoder that takes chunks, got one that takes whole clips");
  Streaming chunks(contract_with({}), two_on_even_frames);
  CHECK_THROWS_WITH(
      chunks.begin(4),
      "audio: expected the chunks of a stream, as the encoder takes them, got a clip");
}
