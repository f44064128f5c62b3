// What contexts hold by name, and what encoders made of media by that name.
#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/content_units.h"
#include "runtime/encoder_cache.h"
#include "testing/fake_session.h"

using namespace emm;
using namespace emm::testing;

namespace {

const std::string kCat(16, 'c');
const std::string kDog(16, 'd');

ImageInput image_of(const std::string& content) {
  ImageInput input = image();
  input.content = content;
  return input;
}

std::string units(const std::vector<int64_t>& ids) { return token_units(ids); }

// float32 (1, size), all of one value.
struct SomeRows {
  SomeRows(int64_t size, float value) : values(static_cast<size_t>(size), value) {}
  TensorView view() const {
    return {values.data(), DType::kFloat32, {1, static_cast<int64_t>(values.size())}};
  }
  std::vector<float> values;
};

}  // namespace

TEST_CASE("a token is its id and sixteen bytes long, an image is its content") {
  CHECK(units({1, 258}) == std::string("\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                       "\2\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                                       32));
  CHECK(content_units({5, -1, -1, 6}, {{1, 2, kCat}}) == units({5}) + kCat + units({6}));
  CHECK(content_units({-1, -1, -1}, {{0, 1, kCat}, {1, 2, kDog}}) == kCat + kDog);
  CHECK(content_units({5, -1, -1, 6}, {{1, 2, ""}}) == std::nullopt);
  CHECK(content_units({5, -1, -1, 6}, {}) == std::nullopt);
  CHECK(content_units({5, -1, -1, 6}, {{1, 1, kCat}}) == std::nullopt);
}

TEST_CASE("a session knows what it has read, whatever it forgets and goes back to") {
  FakeSession f;
  CHECK(f.session->units() == "");
  f.prefill({TokenInput{{5, 6}}, image_of(kCat), TokenInput{{7}}, image_of(kDog)});
  const std::string all = units({5, 6}) + kCat + units({7}) + kDog;
  CHECK(f.session->units() == all);
  const auto saved = f.session->save();
  const auto fork = f.session->fork();
  f.session->rewind(7);
  CHECK(f.session->units() == units({5, 6}) + kCat + units({7}));
  f.prefill({image_of(kCat)});
  CHECK(f.session->units() == units({5, 6}) + kCat + units({7}) + kCat);
  f.session->rewind(4);  // two of the image's four rows
  CHECK(f.session->units() == std::nullopt);
  f.session->rewind(2);
  CHECK(f.session->units() == units({5, 6}));
  f.session->restore(*saved);
  CHECK(f.session->units() == all);
  f.session->reset();
  CHECK(f.session->units() == "");
  CHECK(fork->units() == all);
  f.session->go_on_from(*fork, 7);
  CHECK(f.session->units() == units({5, 6}) + kCat + units({7}));
  CHECK(f.session->media().size() == 1);

  f.session->begin_prefill({TokenInput{{8}}, image_of(kDog), TokenInput{{9}}});
  f.session->step_prefill();
  f.session->step_prefill();
  f.session->step_prefill();
  f.session->abort_prefill();
  CHECK(f.session->units() == units({5, 6}) + kCat + units({7}));
  f.prefill({image()});  // nobody knows what it holds
  CHECK(f.session->units() == std::nullopt);
}

TEST_CASE("the same content is encoded once for all conversations, whatever stands before it") {
  FakeSession f;
  const auto cache = std::make_shared<EncoderCache>(1 << 20);
  f.session->keep_encoded(cache);
  f.prefill({TokenInput{{5, 6}}, image_of(kCat)});
  CHECK(f.fake->encoder_inputs.size() == 1);
  const auto* const rows = f.fake->last_embeddings;
  f.session->reset();
  f.prefill({TokenInput{{9}}, image_of(kCat)});
  CHECK(f.fake->encoder_inputs.size() == 1);
  CHECK(f.session->timings().num_encoder_hits == 1);
  CHECK(f.fake->last_embeddings != rows);  // a copy that nobody writes to
  CHECK(static_cast<const float*>(f.fake->last_embeddings)[0] == 0.5f);
  f.prefill({image_of(kDog), image()});
  CHECK(f.fake->encoder_inputs.size() == 3);

  const std::shared_ptr<Session> other = f.session->another();
  other->begin_prefill({image_of(kDog)});
  while (other->step_prefill()) {
  }
  CHECK(other->timings().num_encoder_hits == 1);
  const EncoderCache::Counts counts = cache->counts();
  CHECK(counts.num_entries == 2);
  CHECK(counts.num_hits == 2);
  CHECK(counts.num_misses == 2);
  CHECK(counts.num_bytes > 2 * 4 * 2 * 4);
}

TEST_CASE("what was not asked for longest goes first, and nothing that is too large comes in") {
  EncoderCache cache(2500);
  const SomeRows one(200, 1), two(200, 2), three(200, 3), large(800, 4);
  cache.add("vision", "1", one.view());
  cache.add("vision", "2", two.view());
  CHECK_FALSE(!!cache.find("audio", "1"));
  const auto held = cache.find("vision", "1");
  REQUIRE(static_cast<bool>(held));
  cache.add("vision", "3", three.view());  // in place of 2
  CHECK_FALSE(!!cache.find("vision", "2"));
  cache.add("vision", "4", large.view());
  CHECK_FALSE(!!cache.find("vision", "4"));
  REQUIRE(static_cast<bool>(cache.find("vision", "3")));
  const TensorView rows = cache.find("vision", "3")->view;
  CHECK(rows.shape == Shape{1, 200});
  CHECK(static_cast<const float*>(rows.data)[199] == 3);
  CHECK(cache.counts().num_bytes <= 2500);
  cache.clear();
  CHECK(cache.counts().num_entries == 0);
  CHECK(cache.counts().num_bytes == 0);
  CHECK(static_cast<const float*>(held->view.data)[0] == 1);  // whoever holds it goes on
}
