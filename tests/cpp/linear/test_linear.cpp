#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "linear/kernels.h"
#include "linear/linear.h"
#include "tested_kernels.h"

namespace {

using namespace emm::linear;

// A layer with memory of its own size, so that a read behind it is one behind its allocation.
struct Owned {
  std::vector<uint8_t> weights;
  std::vector<uint8_t> scales;
  std::vector<uint8_t> bias;
  Layer layer;
};

void put_float(std::vector<uint8_t>& to, float value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  to.insert(to.end(), bytes, bytes + sizeof value);
}
void put_bfloat16(std::vector<uint8_t>& to, float value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  to.insert(to.end(), bytes + 2, bytes + 4);
}

enum class Weights { kRandom, kLowest, kHighest };

Owned make_layer(Format format, int64_t inputs, int64_t outputs, int64_t group,
                 std::mt19937& random, Weights kind = Weights::kRandom, float scale = 0.01f,
                 bool has_bias = true) {
  Owned owned;
  Layer& layer = owned.layer;
  layer.format = format;
  layer.inputs = inputs;
  layer.outputs = outputs;
  layer.group = group;
  std::uniform_real_distribution<float> unit(0.5f, 1.5f);
  const auto bytes = static_cast<size_t>(layer.row_bytes() * outputs);
  if (format == Format::kFloat32) {
    for (int64_t i = 0; i < inputs * outputs; ++i) put_float(owned.weights, unit(random) - 1);
  } else {
    for (size_t i = 0; i < bytes; ++i) {
      // In either half of a byte: 0 is -8, 15 is 7.
      const int lowest = is_int4(format) ? 0 : 0x80;
      const int highest = is_int4(format) ? 0xFF : 0x7F;
      owned.weights.push_back(static_cast<uint8_t>(kind == Weights::kRandom   ? random()
                                                   : kind == Weights::kLowest ? lowest
                                                                              : highest));
    }
  }
  for (int64_t i = 0; format != Format::kFloat32 && i < outputs * layer.groups(); ++i) {
    const float value = scale * unit(random);
    if (format == Format::kInt4Groups) {
      put_bfloat16(owned.scales, value);
    } else {
      put_float(owned.scales, value);
    }
  }
  for (int64_t n = 0; has_bias && n < outputs; ++n) put_float(owned.bias, unit(random) - 1);
  layer.weights = owned.weights.data();
  layer.scales = owned.scales.data();
  layer.bias = has_bias ? owned.bias.data() : nullptr;
  return owned;
}

std::vector<float> make_rows(int64_t rows, int64_t inputs, std::mt19937& random, float low = -1,
                             float high = 1) {
  std::uniform_real_distribution<float> values(low, high);
  std::vector<float> x(static_cast<size_t>(rows * inputs));
  for (float& value : x) value = values(random);
  return x;
}

double weight_at(const Layer& layer, int64_t n, int64_t k) {
  const uint8_t* row = layer.row(n);
  if (layer.format == Format::kFloat32) return load_float(row, k);
  if (layer.format == Format::kInt8)
    return static_cast<int8_t>(row[k]) * double{load_float(layer.scales, n)};
  const int half = k % 2 == 0 ? row[k / 2] % 16 : row[k / 2] / 16;
  const double scale = layer.format == Format::kInt4
                           ? load_float(layer.scales, n)
                           : load_bfloat16(layer.scales, n * layer.groups() + k / layer.group);
  return (half - 8) * scale;
}

// What a layer means, in double precision: quantised inputs times quantised weights. Also the sum
// of the magnitudes, against which rounding is measured.
struct Meaning {
  std::vector<double> value;
  std::vector<double> magnitude;
};
Meaning meaning(const Layer& layer, const std::vector<float>& x, int64_t rows) {
  Meaning result;
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = x.data() + i * layer.inputs;
    float low = 0;
    float high = 0;
    for (int64_t k = 0; k < layer.inputs; ++k) {
      low = std::fmin(low, row[k]);
      high = std::fmax(high, row[k]);
    }
    const RowScale scale = choose_scale(low, high);
    for (int64_t n = 0; n < layer.outputs; ++n) {
      double sum = 0;
      double magnitude = 0;
      for (int64_t k = 0; k < layer.inputs; ++k) {
        double input = row[k];
        if (is_quantised(layer.format)) {
          const float steps = std::nearbyint(row[k] * scale.inverse);
          const float q =
              std::fmin(std::fmax(steps + static_cast<float>(scale.zero_point), -128), 127);
          input = (double{q} - scale.zero_point) * scale.scale;
          // XNNPACK and we sum up the zero point apart.
          magnitude += (std::fabs(q) + std::abs(scale.zero_point)) *
                       std::fabs(scale.scale * weight_at(layer, n, k));
        } else {
          magnitude += std::fabs(input * weight_at(layer, n, k));
        }
        sum += input * weight_at(layer, n, k);
      }
      const double bias = layer.bias ? double{load_float(layer.bias, n)} : 0;
      sum += bias;
      magnitude += std::fabs(bias);
      result.value.push_back(std::fmin(std::fmax(sum, layer.low), layer.high));
      result.magnitude.push_back(magnitude);
    }
  }
  return result;
}

void expect_close(const std::vector<float>& got, const Meaning& wanted) {
  REQUIRE(got.size() == wanted.value.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    REQUIRE(std::isfinite(got[i]));
    // Room for 1e-40: scales and outputs may be denormal.
    const double error = std::fabs(got[i] - wanted.value[i]) / (wanted.magnitude[i] + 1e-34);
    worst = std::fmax(worst, error);
  }
  CHECK(worst < 1e-6);
}

const std::vector<Shape> kShapes = {
    {Format::kInt4Groups, 32, 1, 32},
    {Format::kInt4Groups, 96, 5, 32},
    {Format::kInt4Groups, 576, 33, 32},
    {Format::kInt4Groups, 160, 31, 32},
    {Format::kInt4Groups, 192, 17, 64},
    {Format::kInt4Groups, 64, 3, 64},
    {Format::kInt4Groups, 384, 40, 128},
    {Format::kInt4Groups, 512, 16, 256},
    {Format::kInt4, 2, 1, 0},
    {Format::kInt4, 30, 7, 0},
    {Format::kInt4, 66, 33, 0},
    {Format::kInt4, 258, 47, 0},
    {Format::kInt4, 1000, 9, 0},
    {Format::kInt8, 1, 1, 0},
    {Format::kInt8, 15, 3, 0},
    {Format::kInt8, 33, 34, 0},
    {Format::kInt8, 129, 65, 0},
    {Format::kInt8, 768, 20, 0},
    {Format::kFloat32, 1, 1, 0},
    {Format::kFloat32, 7, 18, 0},
    {Format::kFloat32, 65, 33, 0},
    {Format::kFloat32, 300, 5, 0},
};

TEST_CASE("every instruction set computes what the layer means, for any number of rows") {
  for (const Kernels* kernels : tested_kernels()) {
    CAPTURE(std::string(kernels->name));
    std::mt19937 random(7);
    for (const Shape& shape : kShapes) {
      CAPTURE(static_cast<int>(shape.format));
      CAPTURE(shape.inputs);
      CAPTURE(shape.outputs);
      CAPTURE(shape.group);
      const Owned owned =
          make_layer(shape.format, shape.inputs, shape.outputs, shape.group, random);
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 29}) {
        CAPTURE(rows);
        const auto x = make_rows(rows, shape.inputs, random);
        expect_close(run(owned.layer, x, rows, *kernels), meaning(owned.layer, x, rows));
      }
    }
  }
}

TEST_CASE("extreme weights, inputs and zero points stay exact") {
  for (const Kernels* kernels : tested_kernels()) {
    CAPTURE(std::string(kernels->name));
    std::mt19937 random(8);
    for (const Format format : {Format::kInt4Groups, Format::kInt4, Format::kInt8}) {
      for (const Weights kind : {Weights::kLowest, Weights::kHighest}) {
        const Owned owned = make_layer(format, 2048, 18, 128, random, kind);
        // Zero points -128, 127 and about 0; then all inputs the same.
        const std::vector<std::pair<float, float>> ranges = {
            {0, 5}, {-5, 0}, {-1, 1}, {3, 3}, {-3, -3}, {0, 0}, {-1e-30f, 1e30f}};
        for (const auto& [low, high] : ranges) {
          for (const int64_t rows : {1, 7}) {
            const auto x = make_rows(rows, 2048, random, low, high);
            expect_close(run(owned.layer, x, rows, *kernels), meaning(owned.layer, x, rows));
          }
        }
      }
    }
  }
}

// So that a prompt gives the same logits whether it is read at once or continued after a part.
TEST_CASE("a row has the same bits alone and among many") {
  std::mt19937 random(15);
  for (const Kernels* kernels : tested_kernels()) {
    CAPTURE(std::string(kernels->name));
    for (const Shape& shape : kShapes) {
      if (!is_quantised(shape.format)) continue;
      Owned owned = make_layer(shape.format, shape.inputs, shape.outputs, shape.group, random);
      // Between scales of nearly the same size sums are exact, in whatever order.
      if (shape.format == Format::kInt4Groups) {
        for (size_t at = 0; at < owned.scales.size(); at += 2) {
          const float scale = std::ldexp(load_bfloat16(&owned.scales[at], 0), random() % 24);
          std::memcpy(&owned.scales[at], reinterpret_cast<const uint8_t*>(&scale) + 2, 2);
        }
      }
      constexpr int64_t kRows = 13;
      const auto x = make_rows(kRows, shape.inputs, random, -2, 1);
      const auto together = run(owned.layer, x, kRows, *kernels);
      for (int64_t i = 0; i < kRows; ++i) {
        const std::vector<float> row(x.begin() + i * shape.inputs,
                                     x.begin() + (i + 1) * shape.inputs);
        const auto alone = run(owned.layer, row, 1, *kernels);
        CHECK(std::equal(alone.begin(), alone.end(), together.begin() + i * shape.outputs));
      }
    }
  }
}

TEST_CASE("the longest rows that are taken do not overflow 32 bits") {
  for (const Kernels* kernels : tested_kernels()) {
    std::mt19937 random(9);
    for (const Format format : {Format::kInt4, Format::kInt8}) {
      const Owned owned = make_layer(format, kMaxInputs, 2, 0, random, Weights::kLowest, 1e-4f);
      for (const int64_t rows : {1, 5}) {
        for (const float value : {-2.0f, 2.0f}) {
          const std::vector<float> x(static_cast<size_t>(rows * kMaxInputs), value);
          expect_close(run(owned.layer, x, rows, *kernels), meaning(owned.layer, x, rows));
        }
      }
    }
  }
}

TEST_CASE("denormal scales give finite outputs") {
  for (const Kernels* kernels : tested_kernels()) {
    std::mt19937 random(10);
    for (const Format format : {Format::kInt4Groups, Format::kInt4, Format::kInt8}) {
      const Owned owned =
          make_layer(format, 96, 5, 32, random, Weights::kRandom, 1e-39f, /*has_bias=*/false);
      for (const int64_t rows : {1, 9}) {
        const auto x = make_rows(rows, 96, random);
        expect_close(run(owned.layer, x, rows, *kernels), meaning(owned.layer, x, rows));
      }
    }
  }
}

TEST_CASE("inputs that are not finite end in numbers or NaN, not in a crash") {
  for (const Kernels* kernels : tested_kernels()) {
    std::mt19937 random(11);
    for (const Shape& shape : kShapes) {
      const Owned owned =
          make_layer(shape.format, shape.inputs, shape.outputs, shape.group, random);
      for (const float bad : {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f}) {
        for (const int64_t rows : {1, 6}) {
          auto x = make_rows(rows, shape.inputs, random);
          x[x.size() / 2] = bad;
          run(owned.layer, x, rows, *kernels);
        }
      }
    }
  }
}

TEST_CASE("all instruction sets quantise to the same integers") {
  std::mt19937 random(12);
  for (const int64_t inputs : {1, 31, 64, 127, 128, 130, 576, 1000}) {
    for (const float spread : {1e-30f, 1.0f, 3.0f, 1e30f}) {
      const auto x = make_rows(1, inputs, random, -0.3f * spread, spread);
      const auto size = static_cast<size_t>(padded(inputs));
      std::vector<int8_t> wanted(size);
      std::vector<int8_t> plain(size);
      std::vector<int32_t> eights(size / 8);
      std::vector<int32_t> units(size / 32);
      const RowScale scale = kReferenceKernels.quantise(
          x.data(), inputs, 1, plain.data(), {wanted.data(), eights.data(), units.data()});
      for (const Kernels* kernels : tested_kernels()) {
        CAPTURE(std::string(kernels->name));
        for (const int64_t chunk : {int64_t{1}, kernels->row_chunk, kernels->column_chunk}) {
          std::vector<int8_t> got(size, 77);
          std::vector<int32_t> got_eights(size / 8, 77);
          std::vector<int32_t> got_units(size / 32, 77);
          const RowScale row = kernels->quantise(x.data(), inputs, chunk, plain.data(),
                                                 {got.data(), got_eights.data(), got_units.data()});
          CHECK(row.scale == scale.scale);
          CHECK(row.zero_point == scale.zero_point);
          CHECK(row.sum == scale.sum);
          bool same = true;
          for (int64_t k = 0; k < static_cast<int64_t>(size); ++k) {
            const int64_t within = k % chunk;
            const int64_t place =
                chunk == 1 ? k : k - within + within % 2 * (chunk / 2) + within / 2;
            same = same && got[static_cast<size_t>(place)] == wanted[static_cast<size_t>(k)];
          }
          CHECK(same);
          if (chunk > 1 && chunk == kernels->row_chunk) CHECK(got_eights == eights);
          if (chunk == 1 || chunk != kernels->column_chunk) continue;
          for (int32_t& unit : got_units) {
            // AVX2's are two numbers of 16 bits, also where AVX-VNNI uses them.
            if (kernels->quantise == kAvx2Kernels.quantise) unit = int16_t(unit) + (unit >> 16);
          }
          CHECK(got_units == units);
        }
      }
    }
  }
}

TEST_CASE("a range limits the outputs") {
  for (const Kernels* kernels : tested_kernels()) {
    std::mt19937 random(13);
    for (const Shape& shape : kShapes) {
      Owned owned = make_layer(shape.format, shape.inputs, shape.outputs, shape.group, random);
      owned.layer.low = -0.01f;
      owned.layer.high = 0.02f;
      for (const int64_t rows : {1, 7}) {
        const auto x = make_rows(rows, shape.inputs, random);
        const auto got = run(owned.layer, x, rows, *kernels);
        for (const float value : got) CHECK((value >= -0.01f && value <= 0.02f));
        expect_close(got, meaning(owned.layer, x, rows));
      }
    }
  }
}

TEST_CASE("a second run and runs on many threads give the same bits") {
  const TaskRunner threads = {
      3, [](int64_t tasks, int64_t, const std::function<void(int64_t, int64_t)>& body) {
        std::vector<std::thread> workers;
        for (int64_t worker = 0; worker < 3; ++worker) {
          workers.emplace_back([=, &body] {
            for (int64_t task = worker; task < tasks; task += 3) body(task, worker);
          });
        }
        for (std::thread& worker : workers) worker.join();
      }};
  for (const Kernels* kernels : tested_kernels()) {
    std::mt19937 random(14);
    for (const Shape& shape : kShapes) {
      const Owned owned =
          make_layer(shape.format, shape.inputs, shape.outputs * 5, shape.group, random);
      for (const int64_t rows : {1, 40}) {
        const auto x = make_rows(rows, shape.inputs, random);
        const auto wanted = run(owned.layer, x, rows, *kernels);
        CHECK(run(owned.layer, x, rows, *kernels, serial_runner(), 2) == wanted);
        CHECK(run(owned.layer, x, rows, *kernels, threads) == wanted);
      }
    }
  }
}

TEST_CASE("parts share an input or have their own, in any mixture of formats") {
  for (const Kernels* kernels : tested_kernels()) {
    std::mt19937 random(15);
    const Owned a = make_layer(Format::kInt4Groups, 64, 33, 32, random);
    const Owned b = make_layer(Format::kInt8, 64, 7, 0, random);
    const Owned c = make_layer(Format::kFloat32, 32, 9, 0, random);
    const Owned d = make_layer(Format::kInt4, 64, 12, 0, random);
    LinearParts parts({{a.layer, 0}, {b.layer, 0}, {c.layer, 1}, {d.layer, 0}}, *kernels);
    for (const int64_t rows : {3, 0, 10}) {
      const auto x = make_rows(rows, 64, random);
      const auto y = make_rows(2, 32, random);
      std::vector<float> out[4];
      int64_t counts[4] = {rows, rows, 2, rows};
      const Layer* layers[4] = {&a.layer, &b.layer, &c.layer, &d.layer};
      std::vector<float*> outs;
      for (int p = 0; p < 4; ++p) {
        out[p].resize(static_cast<size_t>(counts[p] * layers[p]->outputs));
        outs.push_back(out[p].data());
      }
      REQUIRE(parts.run({x.data(), y.data()}, {rows, 2}, outs, serial_runner()));
      for (int p = 0; p < 4; ++p)
        expect_close(out[p], meaning(*layers[p], p == 2 ? y : x, counts[p]));
    }
  }
}

TEST_CASE("a thread's first run may need no memory: one row of floats") {
  for (const Kernels* kernels : tested_kernels()) {
    std::thread([&] {
      std::mt19937 random(17);
      const Owned owned = make_layer(Format::kFloat32, 30, 7, 0, random);
      const auto x = make_rows(1, 30, random);
      expect_close(run(owned.layer, x, 1, *kernels), meaning(owned.layer, x, 1));
    }).join();
  }
}

TEST_CASE("a thousand rows") {
  for (const Kernels* kernels : tested_kernels()) {
    std::mt19937 random(16);
    const Owned owned = make_layer(Format::kInt4Groups, 64, 8, 32, random);
    const auto x = make_rows(1000, 64, random);
    expect_close(run(owned.layer, x, 1000, *kernels), meaning(owned.layer, x, 1000));
  }
}

}  // namespace
