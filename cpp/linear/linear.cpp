#include "linear/linear.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>

namespace emm::linear {
namespace {

constexpr size_t kAlign = 64;
constexpr int64_t kQuantiseRows = 8;         // of a task
constexpr int64_t kQuantiseWork = 32;        // a number takes as long as so many multiplications
constexpr int64_t kRowTaskBytes = 96 << 10;  // of weights, when there are few rows

// Memory of the calling thread, also for what others compute for it. It grows to the largest run so
// far and goes with the thread.
uint8_t* scratch_memory(size_t bytes) {
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<uint8_t, Free> memory;
  thread_local size_t size = 0;
  bytes = std::max(bytes, kAlign);  // null means that there is no memory
  if (bytes > size) {
    memory.reset();
    const size_t rounded = (bytes + bytes / 8 + kAlign - 1) / kAlign * kAlign;
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(kAlign, rounded)));
    size = memory ? rounded : 0;
  }
  return memory.get();
}

// Hands out pieces of memory; without memory it only counts.
class Cutter {
 public:
  explicit Cutter(uint8_t* memory) : memory_(memory) {}
  template <typename T>
  T* take(int64_t count) {
    uint8_t* const at = memory_ ? memory_ + used_ : nullptr;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlign - 1) / kAlign * kAlign;
    return reinterpret_cast<T*>(at);
  }
  size_t used() const { return used_; }

 private:
  uint8_t* memory_;
  size_t used_ = 0;
};

// Outputs of a task when there are few rows: equal shares, as many for each worker.
int64_t row_step(const Layer& layer, int64_t workers) {
  const int64_t tasks = (layer.outputs * layer.row_bytes() / kRowTaskBytes / workers + 1) * workers;
  return ((layer.outputs + tasks - 1) / tasks + 3) / 4 * 4;
}

// One input in one order, and where its parts lie.
struct Prepared {
  size_t input;
  Activations in;
  int8_t* values = nullptr;
  RowScale* scales = nullptr;
  int32_t* offsets8 = nullptr;
  int32_t* offsets32 = nullptr;

  void cut(Cutter& cutter) {
    values = cutter.take<int8_t>(in.rows * in.stride);
    scales = cutter.take<RowScale>(in.rows);
    offsets8 = cutter.take<int32_t>(in.rows * in.stride / 8);
    offsets32 = cutter.take<int32_t>(in.rows * in.stride / 32);
    in.values = values;
    in.scales = scales;
    in.offsets8 = offsets8;
    in.offsets32 = offsets32;
  }
};

// A range of the outputs of a part.
struct Piece {
  size_t part;
  int64_t begin;
  int64_t end;
};

// Lists that a run makes. A thread keeps their memory: a step has a hundred runs.
struct Lists {
  std::vector<Prepared> prepared;  // the inputs, in each order that is wanted
  std::vector<size_t> uses;        // which of them, for each part
  std::vector<Piece> pieces;
};

// Activations that are all 1: their products are the sums of the weights.
struct Ones {
  std::vector<int8_t> values;
  std::vector<int32_t> offsets8;
  std::vector<int32_t> offsets32;
  RowScale scale;
  Activations in;

  // In each order zeros stand behind the inputs: chunks are filled half by half.
  Ones(int64_t inputs, int64_t chunk) {
    const auto stride = static_cast<size_t>(padded(inputs));
    values.resize(stride);
    offsets8.resize(stride / 8);
    offsets32.resize(stride / 32);
    for (int64_t k = 0; k < inputs; ++k) {
      const int64_t within = k % chunk;
      const int64_t place = chunk == 1 ? k : k - within + (within % 2) * (chunk / 2) + within / 2;
      values[static_cast<size_t>(place)] = 1;
      offsets8[static_cast<size_t>(k / 8)] -= 8;
      offsets32[static_cast<size_t>(k / 32)] -= 8;
    }
    scale.sum = static_cast<int32_t>(inputs);
    in.rows = 1;
    in.inputs = inputs;
    in.chunk = chunk;
    in.stride = static_cast<int64_t>(stride);
    in.values = values.data();
    in.scales = &scale;
    in.offsets8 = offsets8.data();
    in.offsets32 = offsets32.data();
  }
};

}  // namespace

TaskRunner serial_runner() {
  return {1, [](int64_t tasks, int64_t, const std::function<void(int64_t, int64_t)>& body) {
            for (int64_t task = 0; task < tasks; ++task) body(task, 0);
          }};
}

LinearParts::LinearParts(std::vector<Part> parts, const Kernels& kernels)
    : parts_(std::move(parts)), kernels_(&kernels) {}

bool LinearParts::run(const std::vector<const float*>& inputs, const std::vector<int64_t>& rows,
                      const std::vector<float*>& outputs, const TaskRunner& runner) try {
  const Kernels& kernels = *kernels_;
  const auto are_few = [&](const Part& part) {
    const bool has_groups = part.layer.format == Format::kInt4Groups;
    return rows[part.input] <= (has_groups ? kernels.most_group_rows : kernels.most_rows);
  };

  thread_local Lists lists;
  std::vector<Prepared>& prepared = lists.prepared;
  std::vector<size_t>& uses = lists.uses;
  std::vector<Piece>& pieces = lists.pieces;
  prepared.clear();
  uses.resize(parts_.size());
  pieces.clear();
  int64_t work = 0;
  int64_t quantise_work = 0;
  int64_t column_scratch = 0;
  for (size_t p = 0; p < parts_.size(); ++p) {
    const Part& part = parts_[p];
    const Layer& layer = part.layer;
    const int64_t count = rows[part.input];
    const bool few = are_few(part);
    int64_t chunk = 0;  // floats
    if (is_quantised(layer.format))
      chunk = !is_int4(layer.format) ? 1 : few ? kernels.row_chunk : kernels.column_chunk;
    const auto found =
        std::find_if(prepared.begin(), prepared.end(), [&](const Prepared& candidate) {
          return candidate.input == part.input && candidate.in.chunk == chunk;
        });
    uses[p] = static_cast<size_t>(found - prepared.begin());
    if (found == prepared.end()) {
      Activations in;
      in.rows = count;
      in.inputs = layer.inputs;
      in.chunk = chunk;
      in.stride = chunk == 0 ? 0 : padded(layer.inputs);
      in.floats = inputs[part.input];
      prepared.push_back({part.input, in});
      if (chunk > 0) quantise_work += count * layer.inputs * kQuantiseWork;
    }
    if (count == 0) continue;
    if (!few) column_scratch = std::max(column_scratch, kernels.column_scratch(layer));
    const int64_t step = few ? row_step(layer, runner.most_workers) : kernels.block;
    for (int64_t begin = 0; begin < layer.outputs; begin += step)
      pieces.push_back({p, begin, std::min(begin + step, layer.outputs)});
    work += count * layer.inputs * layer.outputs;
  }
  std::vector<std::unique_ptr<Ones>> ones;
  if (!has_sums_) {
    ones.resize(parts_.size());
    sums_.resize(parts_.size());
    for (size_t p = 0; p < parts_.size(); ++p) {
      const Layer& layer = parts_[p].layer;
      if (!is_quantised(layer.format)) continue;
      sums_[p].resize(static_cast<size_t>(layer.outputs));
      ones[p] = std::make_unique<Ones>(layer.inputs, is_int4(layer.format) ? kernels.row_chunk : 1);
    }
  }

  column_scratch = (column_scratch + 63) / 64 * 64;
  int64_t most_stride = 0;
  for (const Prepared& item : prepared) most_stride = std::max(most_stride, item.in.stride);
  uint8_t* columns = nullptr;
  int8_t* plain = nullptr;
  const auto cut_all = [&](Cutter& cutter) {
    for (Prepared& item : prepared) {
      if (item.in.chunk > 0) item.cut(cutter);
    }
    columns = cutter.take<uint8_t>(column_scratch * runner.most_workers);
    plain = cutter.take<int8_t>(most_stride * runner.most_workers);
  };
  Cutter counter(nullptr);
  cut_all(counter);
  uint8_t* const memory = scratch_memory(counter.used());
  if (memory == nullptr) return false;
  Cutter cutter(memory);
  cut_all(cutter);

  for (Prepared& item : prepared) {
    if (item.in.chunk == 0) continue;
    const int64_t tasks = (item.in.rows + kQuantiseRows - 1) / kQuantiseRows;
    const auto quantise = [&](int64_t task, int64_t worker) {
      const int64_t end = std::min((task + 1) * kQuantiseRows, item.in.rows);
      for (int64_t i = task * kQuantiseRows; i < end; ++i) {
        item.scales[i] = kernels.quantise(
            item.in.floats + i * item.in.inputs, item.in.inputs, item.in.chunk,
            plain + worker * most_stride,
            {item.values + i * item.in.stride, item.offsets8 + i * item.in.stride / 8,
             item.offsets32 + i * item.in.stride / 32});
      }
    };
    if (tasks == 1) {
      quantise(0, 0);
    } else {
      runner.run(tasks, quantise_work, std::ref(quantise));
    }
  }

  const auto compute = [&](int64_t task, int64_t worker) {
    const Piece& piece = pieces[static_cast<size_t>(task)];
    const Part& part = parts_[piece.part];
    const Activations& in = prepared[uses[piece.part]].in;
    float* const sums = is_quantised(part.layer.format) ? sums_[piece.part].data() : nullptr;
    if (!ones.empty() && ones[piece.part])
      kernels.rows(part.layer, ones[piece.part]->in, nullptr, piece.begin, piece.end, sums);
    if (are_few(part)) {
      kernels.rows(part.layer, in, sums, piece.begin, piece.end, outputs[piece.part]);
    } else {
      kernels.columns(part.layer, in, sums, piece.begin, piece.end,
                      columns + worker * column_scratch, outputs[piece.part]);
    }
  };
  // Referred to, for a std::function has to allocate what is as large as this.
  runner.run(static_cast<int64_t>(pieces.size()), work, std::ref(compute));
  // A part without rows has not been looked at.
  has_sums_ = has_sums_ || std::none_of(rows.begin(), rows.end(), [](int64_t r) { return r == 0; });
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

}  // namespace emm::linear
