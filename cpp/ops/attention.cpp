#include "ops/attention.h"

#include <vector>

#include "ops/attention_exact.h"
#include "ops/isa.h"
#include "ops/kernels.h"
#include "ops/parallel.h"
#include "ops/scratch.h"

namespace emm::ops {
namespace {

// Below this many multiplications (queries x keys x head size, both products) a second thread costs
// more to wake than it saves; and every thread should get at least that much. A direct task waits
// for memory at each of them.
constexpr int64_t kDirectWork = 50'000;
constexpr int64_t kTileWork = 200'000;
// Tiles are made smaller, and then the keys split, until there is about this much to share out.
constexpr int64_t kEnoughTasks = 16;
constexpr int64_t kSplitKeys = 1024;        // of a tile's keys
constexpr int64_t kDirectElements = 32768;  // at most, keys x heads x head size of a direct task
constexpr int64_t kDirectParts = 4;  // split keys come in multiples of this, for an even share

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t round_up(int64_t n, int64_t to) { return divide_up(n, to) * to; }

// How the keys of one run are shared out.
struct KeySplit {
  int64_t size = 0;
  int64_t tasks = 0;
};

// How a span is cut into tasks. It depends on the span alone, never on the number of threads, so
// results do not either.
struct Plan {
  const AttentionSpan* span = nullptr;
  bool direct = false;
  int64_t rows = 0;        // of one key/value head
  int64_t task_heads = 1;  // key/value heads
  int64_t head_tasks = 0;
  int64_t task_rows = 0;
  int64_t row_tasks = 0;
  int64_t most_keys = 0;     // of one task
  int64_t key_multiple = 1;  // split keys come in so many parts, or a multiple of it
  int64_t key_tasks = 0;     // of all runs
  int64_t tasks = 0;
  int64_t first_task = 0;     // among those of all spans
  int64_t first_partial = 0;  // where in the memory for partial results

  const AttentionProblem& problem() const { return span->runs[0]; }

  // Parts of equal size, where there have to be several.
  KeySplit split(int64_t keys) const {
    if (keys <= most_keys) {
      return {keys, 1};
    }
    const int64_t parts = round_up(divide_up(keys, most_keys), key_multiple);
    const int64_t size = round_up(divide_up(keys, parts), 16);
    return {size, divide_up(keys, size)};
  }

  // Floats of one task's partial result.
  int64_t partial_floats() const {
    return task_heads * task_rows * partial_stride(problem().head_size);
  }
  int64_t all_partial_floats() const { return key_tasks > 1 ? tasks * partial_floats() : 0; }

  int64_t scratch_floats(const IsaKernels& kernels) const {
    return direct ? kernels.direct_scratch(problem(), task_heads, task_rows)
                  : kernels.tile_scratch(problem(), task_rows);
  }
};

// `is_alone`: as a call of one token is planned.
Plan make_plan(const AttentionSpan& span, const IsaKernels& kernels, bool is_alone = false) {
  Plan plan;
  plan.span = &span;
  const AttentionProblem& p = plan.problem();
  plan.rows = p.tokens * p.group();
  // The tile sums in another order. Only one token alone is computed directly, or a row would have
  // other bits by how many stand beside it.
  plan.direct = (is_alone || p.tokens == 1) && p.group() <= kernels.direct_rows;
  if (plan.direct) {
    // Heads that lie side by side for each key are read together, which is the order of memory.
    plan.task_heads = p.k.strides.h < p.k.strides.t ? p.kv_heads : 1;
    const int64_t task_tokens = kernels.direct_rows / p.group();
    plan.task_rows = p.tokens < task_tokens ? plan.rows : task_tokens * p.group();
    int64_t most = kDirectElements / (plan.task_heads * p.head_size);
    most = most < 64 ? 64 : most;
    plan.most_keys = most > kernels.direct_keys ? kernels.direct_keys : most;
    plan.key_multiple = kDirectParts;
  } else {
    const int64_t heads = p.batch * p.kv_heads;
    const int64_t share = round_up(divide_up(plan.rows * heads, kEnoughTasks), kernels.panel_rows);
    plan.task_rows = share < kernels.tile_rows ? share : kernels.tile_rows;
    plan.task_rows = plan.task_rows < plan.rows ? plan.task_rows : plan.rows;
    const bool enough = heads * divide_up(plan.rows, plan.task_rows) >= kEnoughTasks;
    plan.most_keys = enough ? INT64_MAX : kSplitKeys;
  }
  plan.head_tasks = divide_up(p.kv_heads, plan.task_heads);
  plan.row_tasks = divide_up(plan.rows, plan.task_rows);
  for (int64_t run = 0; run < span.num_runs; ++run) {
    plan.key_tasks += plan.split(span.runs[run].keys).tasks;
  }
  plan.tasks = p.batch * plan.head_tasks * plan.row_tasks * plan.key_tasks;
  return plan;
}

struct Task {
  const AttentionProblem* run = nullptr;
  AttentionTask task;
  bool is_first = false;  // of those that share their rows
};

// Task `index` of a plan: the heads vary fastest, so that neighbouring tasks read neighbouring
// parts of the cache.
Task make_task(const Plan& plan, int64_t index, float* partials) {
  Task made;
  AttentionTask& task = made.task;
  const int64_t at = index;
  task.kv_head = index % plan.head_tasks * plan.task_heads;
  task.kv_heads = plan.task_heads;
  index /= plan.head_tasks;
  int64_t key_task = index % plan.key_tasks;
  made.is_first = key_task == 0;
  index /= plan.key_tasks;
  const int64_t row_task =
      plan.row_tasks - 1 - index % plan.row_tasks;  // the longest causal rows first
  task.b = index / plan.row_tasks;
  task.row0 = row_task * plan.task_rows;
  task.rows = plan.rows - task.row0 < plan.task_rows ? plan.rows - task.row0 : plan.task_rows;
  made.run = plan.span->runs;
  KeySplit split = plan.split(made.run->keys);
  while (key_task >= split.tasks) {
    key_task -= split.tasks;
    split = plan.split((++made.run)->keys);
  }
  const int64_t keys = made.run->keys;
  task.key0 = key_task * split.size;
  task.key1 = keys - task.key0 < split.size ? keys : task.key0 + split.size;
  if (plan.key_tasks > 1) {
    task.partial = partials + plan.first_partial + at * plan.partial_floats();
  }
  return made;
}

// Rows with a number that is not finite are computed again, without the keys that do not count for
// them.
void repair(const AttentionSpan& span, const AttentionTask& task) {
  const int64_t group = span.runs[0].group();
  for (int64_t kv_head = task.kv_head; kv_head < task.kv_head + task.kv_heads; ++kv_head) {
    for (int64_t r = task.row0; r < task.row0 + task.rows; ++r) {
      attention_row(span, task.b, r / group, kv_head * group + r % group);
    }
  }
}

bool run_plans(Plan* plans, int64_t num_plans, const IsaKernels& kernels) {
  int64_t tasks = 0;
  int64_t parts = 0;
  int64_t floats = 0;
  int64_t direct_work = 0;
  int64_t tile_work = 0;
  for (Plan* plan = plans; plan != plans + num_plans; ++plan) {
    const AttentionProblem& p = plan->problem();
    plan->first_task = tasks;
    plan->first_partial = parts;
    tasks += plan->tasks;
    parts += plan->all_partial_floats();
    const int64_t needed = plan->scratch_floats(kernels);
    floats = needed > floats ? needed : floats;
    int64_t keys = 0;
    for (int64_t run = 0; run < plan->span->num_runs; ++run) {
      keys += plan->span->runs[run].keys;
    }
    (plan->direct ? direct_work : tile_work) +=
        p.batch * p.kv_heads * plan->rows * keys * p.head_size;
  }
  const int64_t worth = direct_work / kDirectWork + tile_work / kTileWork;
  const int64_t threads = threads_for(tasks, worth, 1);
  const int64_t each = round_up(floats, 16);
  float* memory = scratch_memory(threads * each + parts);
  if (memory == nullptr) {
    return false;
  }
  float* partials = memory + threads * each;

  run_tasks(tasks, threads, [&](int64_t index, int64_t worker) {
    const Plan* plan = plans + num_plans - 1;
    while (plan->first_task > index) {
      --plan;
    }
    const Task task = make_task(*plan, index - plan->first_task, partials);
    if (!(plan->direct ? kernels.direct : kernels.tile)(*task.run, task.task,
                                                        memory + worker * each)) {
      repair(*plan->span, task.task);
    }
  });
  for (const Plan* plan = plans; plan != plans + num_plans; ++plan) {
    for (int64_t index = 0; plan->key_tasks > 1 && index < plan->tasks; ++index) {
      const Task task = make_task(*plan, index, partials);
      if (task.is_first && !kernels.merge(plan->problem(), task.task, plan->key_tasks,
                                          plan->head_tasks * plan->partial_floats())) {
        repair(*plan->span, task.task);
      }
    }
  }
  return true;
}

thread_local bool rows_alone = false;

void skip_elements(Matrix& matrix, int64_t elements, Store store) {
  const int64_t size = store == Store::kFloat32 ? 4 : store == Store::kInt8 ? 1 : 2;
  matrix.data = static_cast<const char*>(matrix.data) + elements * size;
}

void skip_keys(Matrix& matrix, int64_t keys, Store store) {
  skip_elements(matrix, keys * matrix.strides.t, store);
  if (matrix.scales != nullptr) {
    matrix.scales += keys * matrix.quant_strides.t;
    matrix.zeros += keys * matrix.quant_strides.t;
  }
}

// A run as token `token` finds it in a call of its own: with the keys that are there by then.
AttentionProblem alone(const AttentionProblem& p, int64_t token) {
  AttentionProblem one = p;
  one.tokens = 1;
  skip_elements(one.q, token * p.q.strides.t, p.q_store);
  if (p.q.scales != nullptr) {
    one.q.scales += token * p.q.quant_strides.t;
    one.q.zeros += token * p.q.quant_strides.t;
  }
  const int64_t out_size = p.out_store == Store::kFloat32 ? 4 : 2;
  one.out = static_cast<char*>(p.out) + token * p.out_strides.t * out_size;
  if (p.mask != nullptr) one.mask += token * p.mask_stride;
  if (p.causal_start == kNotCausal) return one;
  one.causal_start += token;
  const int64_t end = one.causal_start + 1;
  one.keys = end < p.keys ? end : p.keys;
  const int64_t first = p.window > 0 ? end - p.window : 0;
  if (first > 0) {
    skip_keys(one.k, first, p.store);
    skip_keys(one.v, first, p.store);
    one.keys -= first;
    one.causal_start -= first;
  }
  return one;
}

// Spans whose rows come out as in calls of one token each: of single tokens, or of several whose
// keys are shared out in the same way.
struct Alone {
  std::vector<AttentionProblem> runs;
  std::vector<AttentionSpan> spans;
  std::vector<size_t> first_runs;

  void add(const AttentionSpan& span, const IsaKernels& kernels) {
    for (int64_t token = 0; token < span.runs[0].tokens; ++token) {
      const size_t first = runs.size();
      for (int64_t run = 0; run < span.num_runs; ++run) {
        const AttentionProblem one = alone(span.runs[run], token);
        if (one.keys > 0) runs.push_back(one);
      }
      if (token > 0 && join(first, kernels)) continue;
      first_runs.push_back(first);
    }
  }

  // Takes the last token, whose runs begin at `first`, to the one before it.
  bool join(size_t first, const IsaKernels& kernels) {
    const size_t before = first_runs.back();
    const size_t count = runs.size() - first;
    if (first - before != count || runs[before].group() > kernels.direct_rows) return false;
    const AttentionSpan one{&runs[first], static_cast<int64_t>(count)};
    const Plan plan = make_plan(one, kernels, true);
    for (size_t i = 0; i < count; ++i) {
      const AttentionProblem& was = runs[before + i];
      const KeySplit a = plan.split(was.keys);
      const KeySplit b = plan.split(runs[first + i].keys);
      if (was.window > 0 || a.tasks != b.tasks || (a.tasks > 1 && a.size != b.size)) return false;
    }
    for (size_t i = 0; i < count; ++i) {
      ++runs[before + i].tokens;
      runs[before + i].keys = runs[first + i].keys;
    }
    runs.resize(first);
    return true;
  }
};

bool attention_alone(const AttentionSpan* spans, int64_t num_spans, const IsaKernels& kernels) {
  static thread_local Alone single;  // its memory is kept from call to call
  static thread_local std::vector<Plan> plans;
  single.runs.clear();
  single.spans.clear();
  single.first_runs.clear();
  plans.clear();
  for (int64_t i = 0; i < num_spans; ++i) single.add(spans[i], kernels);
  for (size_t i = 0; i < single.first_runs.size(); ++i) {
    const size_t first = single.first_runs[i];
    const size_t end =
        i + 1 < single.first_runs.size() ? single.first_runs[i + 1] : single.runs.size();
    single.spans.push_back({&single.runs[first], static_cast<int64_t>(end - first)});
  }
  for (const AttentionSpan& span : single.spans) plans.push_back(make_plan(span, kernels, true));
  return run_plans(plans.data(), static_cast<int64_t>(plans.size()), kernels);
}

}  // namespace

RowsAlone::RowsAlone(bool is_wanted) : before_(rows_alone) { rows_alone = is_wanted; }
RowsAlone::~RowsAlone() { rows_alone = before_; }

bool attention(const AttentionProblem& p) {
  const IsaKernels& kernels = isa_kernels();
  const AttentionSpan span{&p, 1};
  if (rows_alone && p.tokens > 1) return attention_alone(&span, 1, kernels);
  Plan plan = make_plan(span, kernels);
  return run_plans(&plan, 1, kernels);
}

bool attention(const AttentionSpan* spans, int64_t num_spans) {
  if (num_spans == 0) {
    return true;
  }
  const IsaKernels& kernels = isa_kernels();
  if (rows_alone) return attention_alone(spans, num_spans, kernels);
  static thread_local std::vector<Plan> plans;  // its memory is kept from call to call
  plans.clear();
  for (int64_t i = 0; i < num_spans; ++i) {
    plans.push_back(make_plan(spans[i], kernels));
  }
  return run_plans(plans.data(), num_spans, kernels);
}

}  // namespace emm::ops
