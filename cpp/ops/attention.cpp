#include "ops/attention.h"

#include "ops/attention_exact.h"
#include "ops/isa.h"
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

// How a problem is cut into tasks. It depends on the problem alone, never on the number of threads,
// so results do not either.
struct Plan {
  bool direct = false;
  int64_t rows = 0;        // of one key/value head
  int64_t task_heads = 1;  // key/value heads
  int64_t head_tasks = 0;
  int64_t task_rows = 0;
  int64_t row_tasks = 0;
  int64_t task_keys = 0;
  int64_t key_tasks = 0;
  int64_t tasks = 0;
};

int64_t round_up(int64_t n, int64_t to) { return divide_up(n, to) * to; }

// Parts of equal size, where there have to be several.
void split_keys(const AttentionProblem& p, int64_t most, int64_t multiple, Plan* plan) {
  plan->task_keys = p.keys;
  plan->key_tasks = 1;
  if (p.keys > most) {
    const int64_t parts = round_up(divide_up(p.keys, most), multiple);
    plan->task_keys = round_up(divide_up(p.keys, parts), 16);
    plan->key_tasks = divide_up(p.keys, plan->task_keys);
  }
}

Plan make_plan(const AttentionProblem& p, const IsaKernels& kernels) {
  Plan plan;
  plan.rows = p.tokens * p.group();
  plan.direct = plan.rows <= kernels.direct_rows;
  if (plan.direct) {
    // Heads that lie side by side for each key are read together, which is the order of memory.
    plan.task_heads = p.k.strides.h < p.k.strides.t ? p.kv_heads : 1;
    plan.task_rows = plan.rows;
    int64_t most = kDirectElements / (plan.task_heads * p.head_size);
    most = most < 64 ? 64 : most;
    most = most > kernels.direct_keys ? kernels.direct_keys : most;
    split_keys(p, most, kDirectParts, &plan);
  } else {
    const int64_t heads = p.batch * p.kv_heads;
    const int64_t share = round_up(divide_up(plan.rows * heads, kEnoughTasks), kernels.panel_rows);
    plan.task_rows = share < kernels.tile_rows ? share : kernels.tile_rows;
    plan.task_rows = plan.task_rows < plan.rows ? plan.task_rows : plan.rows;
    const bool enough = heads * divide_up(plan.rows, plan.task_rows) >= kEnoughTasks;
    split_keys(p, enough ? p.keys : kSplitKeys, 1, &plan);
  }
  plan.head_tasks = divide_up(p.kv_heads, plan.task_heads);
  plan.row_tasks = divide_up(plan.rows, plan.task_rows);
  plan.tasks = p.batch * plan.head_tasks * plan.row_tasks * plan.key_tasks;
  return plan;
}

// Floats of one task's partial result.
int64_t partial_floats(const AttentionProblem& p, const Plan& plan) {
  return plan.task_heads * plan.task_rows * partial_stride(p.head_size);
}

// Task `index`: the heads vary fastest, so that neighbouring tasks read neighbouring parts of the
// cache.
AttentionTask make_task(const AttentionProblem& p, const Plan& plan, int64_t index,
                        float* partials) {
  AttentionTask task;
  const int64_t at = index;
  task.kv_head = index % plan.head_tasks * plan.task_heads;
  task.kv_heads = plan.task_heads;
  index /= plan.head_tasks;
  const int64_t key_task = index % plan.key_tasks;
  index /= plan.key_tasks;
  const int64_t row_task =
      plan.row_tasks - 1 - index % plan.row_tasks;  // the longest causal rows first
  task.b = index / plan.row_tasks;
  task.row0 = row_task * plan.task_rows;
  task.rows = plan.rows - task.row0 < plan.task_rows ? plan.rows - task.row0 : plan.task_rows;
  task.key0 = key_task * plan.task_keys;
  task.key1 = p.keys - task.key0 < plan.task_keys ? p.keys : task.key0 + plan.task_keys;
  if (plan.key_tasks > 1) {
    task.partial = partials + at * partial_floats(p, plan);
  }
  return task;
}

// Rows with a number that is not finite are computed again, without the keys that do not count for
// them.
void repair(const AttentionProblem& p, const AttentionTask& task) {
  const int64_t group = p.group();
  for (int64_t kv_head = task.kv_head; kv_head < task.kv_head + task.kv_heads; ++kv_head) {
    for (int64_t r = task.row0; r < task.row0 + task.rows; ++r) {
      attention_row(p, task.b, r / group, kv_head * group + r % group);
    }
  }
}

}  // namespace

bool attention(const AttentionProblem& p) {
  const IsaKernels& kernels = isa_kernels();
  const Plan plan = make_plan(p, kernels);
  const int64_t work = p.batch * p.kv_heads * plan.rows * p.keys * p.head_size;
  const int64_t threads = threads_for(plan.tasks, work, plan.direct ? kDirectWork : kTileWork);
  const int64_t floats = plan.direct ? kernels.direct_scratch(p, plan.task_heads, plan.task_rows)
                                     : kernels.tile_scratch(p, plan.task_rows);
  const int64_t each = divide_up(floats, 16) * 16;
  const int64_t parts = plan.key_tasks > 1 ? plan.tasks * partial_floats(p, plan) : 0;
  float* memory = scratch_memory(threads * each + parts);
  if (memory == nullptr) {
    return false;
  }
  float* partials = memory + threads * each;

  run_tasks(plan.tasks, threads, [&](int64_t index, int64_t worker) {
    const AttentionTask task = make_task(p, plan, index, partials);
    if (!(plan.direct ? kernels.direct : kernels.tile)(p, task, memory + worker * each)) {
      repair(p, task);
    }
  });
  if (plan.key_tasks > 1) {
    for (int64_t index = 0; index < plan.tasks; ++index) {
      const AttentionTask task = make_task(p, plan, index, partials);
      if (task.key0 == 0 &&
          !kernels.merge(p, task, plan.key_tasks, plan.head_tasks * partial_floats(p, plan))) {
        repair(p, task);
      }
    }
  }
  return true;
}

}  // namespace emm::ops
