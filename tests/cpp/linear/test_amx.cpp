// AMX's kernels on emulated tiles.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "emulated_amx.h"
#include "linear/amx.h"
#include "linear/linear.h"
#include "tested_kernels.h"

namespace emm::linear {
namespace {

void columns(const Layer& layer, const Activations& in, const float* sums, int64_t begin,
             int64_t end, uint8_t* scratch, float* out) {
  if (!is_quantised(layer.format))
    return kReferenceKernels.columns(layer, in, sums, begin, end, scratch, out);
  EmulatedColumns::run(layer, in, sums, begin, end, scratch, out);
}

int64_t column_scratch(const Layer& layer) {
  return is_quantised(layer.format) ? EmulatedColumns::scratch(layer) : 0;
}

RowScale quantise(const float* x, int64_t inputs, int64_t chunk, int8_t* plain,
                  const RowTarget& target) {
  return kReferenceKernels.quantise(x, inputs, chunk, plain, target);
}

void rows(const Layer& layer, const Activations& in, const float* sums, int64_t begin, int64_t end,
          float* out) {
  kReferenceKernels.rows(layer, in, sums, begin, end, out);
}

}  // namespace

const Kernels kEmulatedAmxKernels = {"emulated amx",
                                     1,
                                     EmulatedColumns::kChunk,
                                     0,
                                     0,
                                     EmulatedColumns::kBlock,
                                     quantise,
                                     rows,
                                     columns,
                                     column_scratch,
                                     &kPlainLoops};

const std::vector<const Kernels*>& tested_kernels() {
  static const std::vector<const Kernels*> tested = [] {
    std::vector<const Kernels*> all = usable_kernels();
    all.push_back(&kEmulatedAmxKernels);
    const char* wanted = std::getenv("EMM_TEST_AMX");
    if (wanted == nullptr || std::strcmp(wanted, "1") != 0) return all;
    REQUIRE(has_amx());
    const AmxAnswer answer = ask_for_amx();
    CHECK_MESSAGE(answer.problem == nullptr, answer.problem);
    all.push_back(answer.kernels);
    return all;
  }();
  return tested;
}

namespace {

const Shape kCases[] = {
    {Format::kInt4Groups, 32, 1, 32},    {Format::kInt4Groups, 96, 17, 32},
    {Format::kInt4Groups, 384, 33, 128}, {Format::kInt4Groups, 192, 40, 64},
    {Format::kInt4Groups, 384, 16, 128}, {Format::kInt8, 1, 3, 0},
    {Format::kInt8, 129, 65, 0},         {Format::kInt8, 768, 20, 0},
    {Format::kInt4, 258, 47, 0},
};

// One output, with exact sums of integers and the order of roundings that all kernels are to have.
float wanted(const Layer& layer, const float* x, int64_t n) {
  float low = 0;
  float high = 0;
  for (int64_t k = 0; k < layer.inputs; ++k) {
    low = std::fmin(low, x[k]);
    high = std::fmax(high, x[k]);
  }
  const RowScale row = choose_scale(low, high);
  const bool has_groups = layer.format == Format::kInt4Groups;
  const int64_t group = has_groups ? layer.group : layer.inputs;
  const auto dot = [&](int64_t g, bool of_ones) {
    int64_t sum = 0;
    for (int64_t k = g * group; k < (g + 1) * group; ++k) {
      const uint8_t byte = layer.row(n)[is_int4(layer.format) ? k / 2 : k];
      const int weight = layer.format == Format::kInt8 ? static_cast<int8_t>(byte)
                         : k % 2 == 0                  ? byte % 16 - 8
                                                       : byte / 16 - 8;
      const double q = std::nearbyint(x[k] * row.inverse) + row.zero_point;
      sum += weight * (of_ones ? 1 : static_cast<int64_t>(std::fmin(std::fmax(q, -128), 127)));
    }
    return sum;
  };
  const float bias = layer.bias ? load_float(layer.bias, n) : 0.0f;
  float y = 0;
  if (has_groups) {
    const auto scale = [&](int64_t g) {
      return load_bfloat16(layer.scales, n * layer.groups() + g);
    };
    float sums = 0;
    for (int64_t g = 0; g < layer.groups(); ++g)
      sums += static_cast<float>(dot(g, true)) * scale(g);
    y = -static_cast<float>(row.zero_point) * sums;
    for (int64_t g = 0; g < layer.groups(); ++g)
      y = std::fma(static_cast<float>(dot(g, false)), scale(g), y);
    const volatile float product = y * row.scale;  // rounded
    y = product + bias;
  } else {
    const auto exact = static_cast<float>(dot(0, false) - row.zero_point * dot(0, true));
    y = std::fma(exact * row.scale, load_float(layer.scales, n), bias);
  }
  return std::fmin(std::fmax(y, layer.low), layer.high);
}

struct Data {
  std::vector<uint8_t> weights;
  std::vector<float> wide;
  std::vector<uint16_t> narrow;
  std::vector<float> bias;
  Layer layer;
};

Data make(const Shape& shape, std::mt19937& random) {
  Data data;
  Layer& layer = data.layer;
  layer.format = shape.format;
  layer.inputs = shape.inputs;
  layer.outputs = shape.outputs;
  layer.group = shape.group;
  data.weights.resize(static_cast<size_t>(layer.row_bytes() * shape.outputs));
  for (uint8_t& byte : data.weights) byte = static_cast<uint8_t>(random());
  std::uniform_real_distribution<float> unit(0.5f, 1.5f);
  for (int64_t n = 0; n < shape.outputs * layer.groups(); ++n) {
    data.wide.push_back(unit(random) / 100);
    // 2^-15 to 2^8: the order of a row's sums shows.
    data.narrow.push_back(static_cast<uint16_t>(0x3800 + random() % 0xC00));
  }
  for (int64_t n = 0; n < shape.outputs; ++n) data.bias.push_back(unit(random) - 1);
  layer.weights = data.weights.data();
  layer.scales = shape.group > 0 ? reinterpret_cast<const uint8_t*>(data.narrow.data())
                                 : reinterpret_cast<const uint8_t*>(data.wide.data());
  layer.bias = reinterpret_cast<const uint8_t*>(data.bias.data());
  layer.high = 1000;
  return data;
}

TEST_CASE("tiles give the bits that exact sums and the agreed roundings give") {
  std::mt19937 random(21);
  std::uniform_real_distribution<float> values(-1, 2);
  for (const Shape& shape : kCases) {
    CAPTURE(static_cast<int>(shape.format));
    CAPTURE(shape.inputs);
    CAPTURE(shape.group);
    const Data data = make(shape, random);
    for (const int64_t count : {1, 15, 16, 17, 32, 33, 49}) {
      CAPTURE(count);
      std::vector<float> x(static_cast<size_t>(count * shape.inputs));
      for (float& value : x) value = values(random);
      for (const Kernels* kernels : tested_kernels()) {
        const std::string name = kernels->name;
        CAPTURE(name);
        // The others add in another order.
        if (name != "avx512vnni" && name != "amx" && name != "emulated amx") continue;
        const auto got = run(data.layer, x, count, *kernels);
        int differ = 0;
        for (int64_t i = 0; i < count; ++i) {
          for (int64_t n = 0; n < shape.outputs; ++n) {
            const float value = wanted(data.layer, x.data() + i * shape.inputs, n);
            differ += got[static_cast<size_t>(i * shape.outputs + n)] != value ? 1 : 0;
          }
        }
        CHECK(differ == 0);
      }
    }
  }
}

TEST_CASE("a thread keeps no tiles behind a call") {
  std::mt19937 random(22);
  for (const Shape& shape : kCases) {
    const Data data = make(shape, random);
    const std::vector<float> x(static_cast<size_t>(33 * shape.inputs), 0.5f);
    const int before = EmulatedTiles::num_configured();
    run(data.layer, x, 33, kEmulatedAmxKernels);
    CHECK(EmulatedTiles::num_configured() > before);
    CHECK(!EmulatedTiles::is_configured());
  }
}

TEST_CASE("the emulation refuses what a processor refuses") {
  TileConfig config;
  CHECK_THROWS_AS(EmulatedTiles::zero<0>(), std::logic_error);
  config.rows[0] = 17;
  config.row_bytes[0] = 64;
  CHECK_THROWS_AS(EmulatedTiles::configure(config), std::logic_error);
  config.rows[0] = 16;
  config.rows[1] = 16;
  config.row_bytes[1] = 64;
  config.rows[2] = 8;
  config.row_bytes[2] = 64;
  EmulatedTiles::configure(config);
  CHECK_THROWS_AS((EmulatedTiles::multiply<0, 1, 2>()), std::logic_error);
  CHECK_THROWS_AS(EmulatedTiles::zero<3>(), std::logic_error);
  EmulatedTiles::release();
}

TEST_CASE("AMX is never chosen unasked") {
  for (const Kernels* kernels : usable_kernels()) CHECK(std::string(kernels->name) != "amx");
  CHECK(kernels_on_request().empty() == !has_amx());
  if (!has_amx()) CHECK(find_kernels("amx") == nullptr);
}

}  // namespace
}  // namespace emm::linear
