// What encoders have made, kept for the conversations of many threads.
#include <doctest/doctest.h>

#include <array>
#include <numeric>
#include <utility>

#include "at_once.h"
#include "runtime/encoder_cache.h"
#ifdef __linux__
#include "remote_model.h"
#endif

using namespace emm;
using namespace emm::threads;

namespace {

constexpr int kNumImages = 4;

class Images {
 public:
  explicit Images(const Contract& contract) {
    shape_ = contract.image_encoder()->inputs[0].shape;
    std::mt19937 chance(7);
    std::uniform_real_distribution<float> value(0, 1);
    for (std::vector<float>& pixels : pixels_) {
      pixels.resize(static_cast<size_t>(num_elements(shape_)));
      for (float& pixel : pixels) pixel = value(chance);
    }
  }
  // `is_known`: a cache may keep what the encoder makes of it.
  std::vector<Input> prompt(int number, bool is_known) const {
    ImageInput image{{pixels_[static_cast<size_t>(number)].data(), DType::kFloat32, shape_}, {}};
    if (is_known) image.content = std::string(16, static_cast<char>('a' + number));
    return {TokenInput{{5, 9}}, image, TokenInput{{33, 17}}};
  }

 private:
  Shape shape_;
  std::array<std::vector<float>, kNumImages> pixels_;
};

// Of each token to come next, to the last bit: tiny models answer alike to most images.
std::vector<float> after(Session& session, std::vector<Input> prompt) {
  session.reset();
  prefill(session, std::move(prompt));
  std::vector<int64_t> ids(static_cast<size_t>(session.contract().vocab_size));
  std::iota(ids.begin(), ids.end(), 0);
  return session.logprobs(ids);
}

// With room for less than all: entries come and go.
void expect_as_without(Session& model, const LoadOptions& options) {
  const std::shared_ptr<Session> plain = load(options);
  const Images images(plain->contract());
  std::vector<std::vector<float>> wanted;
  for (int number = 0; number < kNumImages; ++number)
    wanted.push_back(after(*plain, images.prompt(number, false)));
  REQUIRE(wanted[0] != wanted[1]);

  const auto one = std::make_shared<EncoderCache>(int64_t{1} << 20);
  model.keep_encoded(one);
  prefill(model, images.prompt(0, true));
  const auto cache = std::make_shared<EncoderCache>(one->counts().num_bytes * 5 / 2);
  REQUIRE(cache->max_bytes() > 0);
  model.keep_encoded(cache);
  std::vector<std::shared_ptr<Session>> sessions;
  for (int i = 0; i < kNumThreads; ++i) sessions.push_back(model.another());
  std::atomic<int> num_wrong{0};
  const int num_thrown = at_once([&](int thread) {
    std::mt19937 chance(static_cast<unsigned>(thread));
    const std::shared_ptr<Session>& session = sessions[static_cast<size_t>(thread)];
    for (int round = 0; round < 20; ++round) {
      const int number = static_cast<int>(chance() % kNumImages);
      const std::vector<float> found = after(*session, images.prompt(number, true));
      num_wrong += found != wanted[static_cast<size_t>(number)];
      answer(session, 3);
      if (cache->counts().num_bytes > cache->max_bytes()) ++num_wrong;
      if (thread == 0 && round % 8 == 7) cache->clear();
    }
  });
  CHECK(num_thrown == 0);
  CHECK(num_wrong == 0);
  const EncoderCache::Counts counts = cache->counts();
  CHECK(counts.num_hits > 0);
  CHECK(counts.num_misses > kNumImages);
  CHECK(counts.num_hits + counts.num_misses == int64_t{kNumThreads} * 20);
}

}  // namespace

TEST_CASE("images that were encoded for others are answered as those that are encoded anew") {
  for (const char* const name : {"multimodal/llava.pte", "multimodal/gemma3_custom.pte"}) {
    CAPTURE(name);
    expect_as_without(*load(options_of(name)), options_of(name));
  }
}

TEST_CASE("the same over a folder") { expect_as_without(*load(llava_folder()), llava_folder()); }

#ifdef __linux__
TEST_CASE("the same with a model in another process") {
  const LoadOptions options = options_of("multimodal/llava.pte");
  expect_as_without(*load_remote(options).session, options);
}
#endif
