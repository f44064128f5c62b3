// A plain C interface to the operators, for the tests and benchmarks in Python (ctypes). It builds
// the stack that the runtime would build, calls the boxed kernel, and hands back the error code and
// the log lines of the call. It can also call upstream's kernels, from an ExecuTorch that the same
// process has loaded, in the same way.

#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/portable_type/tensor_impl.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include "ops/isa.h"
#include "ops/kernels.h"
#include "ops/kv_cache.h"
#include "ops/scratch.h"

// The SDK exports the pool but ships no header for it.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using executorch::aten::DimOrderType;
using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::StridesType;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;
using executorch::aten::TensorShapeDynamism;
using executorch::runtime::EValue;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::OpFunction;
using executorch::runtime::Result;
using executorch::runtime::Span;
using executorch::runtime::TensorMeta;

constexpr int kNoSuchOperator = -1;

thread_local std::string captured_log;

void capture(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t,
             const char* message, size_t) {
  captured_log += static_cast<char>(level);
  captured_log += ' ';
  captured_log += message;
  captured_log += '\n';
}

void start() {
  // A model loaded in between takes the log lines for itself.
  if (executorch::runtime::get_pal_impl()->emit_log_message == capture) return;
  executorch::runtime::register_pal(executorch::runtime::PalImpl::create(capture, __FILE__));
  executorch::runtime::runtime_init();
}

// Upstream's registry and pool, where emm_ops_load_upstream found them.
using Lookup = Result<OpFunction> (*)(const char*, Span<const TensorMeta>);
Lookup upstream_lookup = nullptr;
void* upstream_threadpool = nullptr;

OpFunction find(const char* name, bool upstream) {
  if (upstream) {
    if (upstream_lookup == nullptr) {
      return nullptr;
    }
    const Result<OpFunction> found = upstream_lookup(name, {});
    return found.ok() ? *found : nullptr;
  }
  for (const auto& kernel : emm::ops::llm_kernels()) {
    if (std::strcmp(kernel.name_, name) == 0) {
      return kernel.op_;
    }
  }
  return nullptr;
}

}  // namespace

extern "C" {

// One argument. kind: 0 None, 1 int, 2 double, 3 bool, 4 tensor. For a tensor, sizes are written
// back after the call, dim_order may be null (contiguous), and dynamic != 0 lets the kernel shrink
// it.
struct EmmOpsValue {
  int32_t kind;
  int32_t dtype;
  int64_t integer;
  double number;
  int64_t rank;
  int64_t* sizes;
  const uint8_t* dim_order;
  void* data;
  int64_t dynamic;
};

}  // extern "C"

namespace {

// Owns what the EValues point to. The deque keeps addresses.
class CallStack {
 public:
  CallStack(EmmOpsValue* values, size_t count) : values_(values) {
    for (size_t i = 0; i < count; ++i) {
      add(values[i]);
    }
    for (EValue& value : evalues_) {
      pointers_.push_back(&value);
    }
  }

  Span<EValue*> span() { return {pointers_.data(), pointers_.size()}; }

  void write_back_sizes() {
    for (size_t i = 0; i < evalues_.size(); ++i) {
      if (evalues_[i].isTensor()) {
        for (int64_t d = 0; d < values_[i].rank; ++d) {
          values_[i].sizes[d] = evalues_[i].toTensor().size(d);
        }
      }
    }
  }

 private:
  struct TensorParts {
    std::vector<SizesType> sizes;
    std::vector<DimOrderType> order;
    std::vector<StridesType> strides;
  };

  void add(const EmmOpsValue& value) {
    switch (value.kind) {
      case 1:
        evalues_.emplace_back(value.integer);
        return;
      case 2:
        evalues_.emplace_back(value.number);
        return;
      case 3:
        evalues_.emplace_back(value.integer != 0);
        return;
      case 4:
        break;
      default:
        evalues_.emplace_back();
        return;
    }
    TensorParts& parts = parts_.emplace_back();
    const auto rank = static_cast<size_t>(value.rank);
    parts.sizes.assign(value.sizes, value.sizes + rank);
    parts.strides.resize(rank);
    for (size_t d = 0; d < rank; ++d) {
      parts.order.push_back(value.dim_order == nullptr ? static_cast<DimOrderType>(d)
                                                       : value.dim_order[d]);
    }
    StridesType stride = 1;
    for (size_t d = rank; d-- > 0;) {
      parts.strides[parts.order[d]] = stride;
      stride *= parts.sizes[parts.order[d]] > 0 ? parts.sizes[parts.order[d]] : 1;
    }
    TensorImpl& impl = impls_.emplace_back(
        static_cast<ScalarType>(value.dtype), value.rank, parts.sizes.data(), value.data,
        parts.order.data(), parts.strides.data(),
        value.dynamic != 0 ? TensorShapeDynamism::DYNAMIC_BOUND : TensorShapeDynamism::STATIC);
    evalues_.emplace_back(Tensor(&impl));
  }

  EmmOpsValue* values_;
  std::deque<TensorParts> parts_;
  std::deque<TensorImpl> impls_;
  std::deque<EValue> evalues_;
  std::vector<EValue*> pointers_;
};

}  // namespace

#define EMM_EXPORT extern "C" __attribute__((visibility("default")))

// Calls one operator. Returns the runtime's error code (0: success), or -1 where there is no such
// operator; writes the log lines ("E text" for errors) into `log`.
EMM_EXPORT int emm_ops_call(const char* name, EmmOpsValue* values, size_t count, int upstream,
                            char* log, size_t log_size) {
  start();
  const OpFunction op = find(name, upstream != 0);
  if (op == nullptr) {
    return kNoSuchOperator;
  }
  captured_log.clear();
  CallStack stack(values, count);
  executorch::extension::MallocMemoryAllocator temporary;
  KernelRuntimeContext context(nullptr, &temporary);
  op(context, stack.span());
  stack.write_back_sizes();
  if (log_size > 0) {
    std::strncpy(log, captured_log.c_str(), log_size - 1);
    log[log_size - 1] = '\0';
  }
  return static_cast<int>(context.failure_state());
}

// Times `repeats` calls, one by one, in nanoseconds. Call i takes argument set i % sets of `values`
// (sets x count), so that a large cache can be rotated through as a model with many layers would.
// Stops at the first failing call.
EMM_EXPORT int emm_ops_time(const char* name, EmmOpsValue* values, size_t count, size_t sets,
                            int upstream, size_t repeats, int64_t* nanoseconds) {
  start();
  const OpFunction op = find(name, upstream != 0);
  if (op == nullptr) {
    return kNoSuchOperator;
  }
  std::deque<CallStack> stacks;
  for (size_t i = 0; i < sets; ++i) {
    stacks.emplace_back(values + i * count, count);
  }
  executorch::extension::MallocMemoryAllocator temporary;
  for (size_t i = 0; i < repeats; ++i) {
    KernelRuntimeContext context(nullptr, &temporary);
    const Span<EValue*> span = stacks[i % sets].span();
    const auto before = std::chrono::steady_clock::now();
    op(context, span);
    const auto after = std::chrono::steady_clock::now();
    temporary.reset();
    nanoseconds[i] = std::chrono::duration_cast<std::chrono::nanoseconds>(after - before).count();
    if (context.failure_state() != executorch::runtime::Error::Ok) {
      return static_cast<int>(context.failure_state());
    }
  }
  return 0;
}

// Finds upstream's operators and thread pool in libraries that the process has already loaded
// (their paths). Returns 0 on success.
EMM_EXPORT int emm_ops_load_upstream(const char* runtime_library, const char* threadpool_library) {
  void* runtime = dlopen(runtime_library, RTLD_NOW | RTLD_NOLOAD);
  upstream_threadpool = dlopen(threadpool_library, RTLD_NOW | RTLD_NOLOAD);
  if (runtime == nullptr || upstream_threadpool == nullptr) {
    return 1;
  }
  upstream_lookup = reinterpret_cast<Lookup>(dlsym(
      runtime,
      "_ZN10executorch7runtime29get_op_function_from_registryEPKcNS0_4SpanIKNS0_10TensorMetaEEE"));
  return upstream_lookup == nullptr ? 2 : 0;
}

// Sets the size of the thread pool, ours or upstream's. Only while no call is running.
EMM_EXPORT int emm_ops_set_threads(unsigned count, int upstream) {
  using executorch::extension::threadpool::ThreadPool;
  start();
  if (upstream == 0) {
    return executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(count) ? 0
                                                                                                : 1;
  }
  if (upstream_threadpool == nullptr) {
    return 1;
  }
  using Get = ThreadPool* (*)();
  using Reset = bool (*)(ThreadPool*, uint32_t);
  const auto get = reinterpret_cast<Get>(
      dlsym(upstream_threadpool, "_ZN10executorch9extension10threadpool14get_threadpoolEv"));
  const auto reset = reinterpret_cast<Reset>(
      dlsym(upstream_threadpool,
            "_ZN10executorch9extension10threadpool10ThreadPool24_unsafe_reset_threadpoolEj"));
  return get != nullptr && reset != nullptr && reset(get(), count) ? 0 : 1;
}

namespace {

struct NumberedCache {
  emm::ops::KvCache cache;
  std::map<int64_t, emm::ops::KvSequence> sequences;
  int64_t next;
};

std::unique_ptr<emm::ops::KvCacheScope> kv_scope;

}  // namespace

// A cache for kvcache::update_and_attend, which the calls of this thread find once it is used.
// `layers`: heads, key size, value size and window of each; `store` as emm::ops::Store counts.
EMM_EXPORT NumberedCache* emm_ops_kv_new(const int64_t* layers, size_t num_layers, int64_t capacity,
                                         int64_t max_write, int store) {
  emm::ops::KvCacheShape shape;
  for (size_t i = 0; i < num_layers; ++i) {
    const int64_t* layer = layers + 4 * i;
    shape.layers.push_back({layer[0], layer[1], layer[2], layer[3]});
  }
  shape.capacity = capacity;
  shape.max_write = max_write;
  shape.store = static_cast<emm::ops::Store>(store);
  return new NumberedCache{emm::ops::KvCache(shape), {}, 0};
}

EMM_EXPORT void emm_ops_kv_use(NumberedCache* cache) {
  kv_scope.reset();
  if (cache != nullptr) kv_scope = std::make_unique<emm::ops::KvCacheScope>(&cache->cache);
}
EMM_EXPORT void emm_ops_kv_delete(NumberedCache* cache) { delete cache; }
EMM_EXPORT int64_t emm_ops_kv_add(NumberedCache* cache) {
  cache->sequences.emplace(cache->next, cache->cache.new_sequence());
  return cache->next++;
}
EMM_EXPORT int64_t emm_ops_kv_fork(NumberedCache* cache, int64_t sequence, int64_t length) {
  cache->sequences.emplace(cache->next, cache->sequences.at(sequence).fork(length));
  return cache->next++;
}
EMM_EXPORT void emm_ops_kv_remove(NumberedCache* cache, int64_t sequence) {
  cache->sequences.erase(sequence);
}
EMM_EXPORT int64_t emm_ops_kv_length(NumberedCache* cache, int64_t sequence) {
  return cache->sequences.at(sequence).length();
}
EMM_EXPORT int64_t emm_ops_kv_bytes(NumberedCache* cache, int64_t sequence) {
  return cache->sequences.at(sequence).bytes();
}
// `spans`: sequence and number of tokens of each.
EMM_EXPORT void emm_ops_kv_begin_step(NumberedCache* cache, const int64_t* spans,
                                      size_t num_spans) {
  std::vector<emm::ops::KvSpan> step;
  for (size_t i = 0; i < num_spans; ++i)
    step.push_back({&cache->sequences.at(spans[2 * i]), spans[2 * i + 1]});
  cache->cache.begin_step(std::move(step));
}

EMM_EXPORT const char* emm_ops_isa() { return emm::ops::instruction_set(); }

// Chooses the instruction set by name ("" for the best). Returns 0 where this machine has it.
EMM_EXPORT int emm_ops_force_isa(const char* name) { return emm::ops::force_isa(name) ? 0 : 1; }

// How often the scratch memory of the calling thread grew since it started.
EMM_EXPORT int64_t emm_ops_scratch_growths() { return emm::ops::scratch_growths(); }
