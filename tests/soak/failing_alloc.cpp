// Preloaded: lets one allocation of the package's own libraries fail, the k-th after it is armed.
// Others, such as Python's, are left alone: who asks is told by the address that it returns to.
#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace {

struct Range {
  uintptr_t begin, end;
};
Range ranges[64];
std::atomic<int> num_ranges{0};
std::atomic<long> countdown{0};  // 0: not armed
std::atomic<long> calls{0};
std::atomic<size_t> least{0};

int add_range(dl_phdr_info* info, size_t, void*) {
  const bool ours = std::strstr(info->dlpi_name, "_core.") != nullptr ||
                    std::strstr(info->dlpi_name, "libemm_") != nullptr;
  for (int i = 0; ours && i < info->dlpi_phnum; ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0 || num_ranges >= 64) continue;
    const uintptr_t begin = info->dlpi_addr + part.p_vaddr;
    ranges[num_ranges++] = {begin, begin + part.p_memsz};
  }
  return 0;
}

bool fails(void* caller, size_t size) {
  if (countdown.load(std::memory_order_relaxed) == 0 || size < least) return false;
  const auto address = reinterpret_cast<uintptr_t>(caller);
  for (int i = 0; i < num_ranges; ++i) {
    if (address < ranges[i].begin || address >= ranges[i].end) continue;
    ++calls;
    return countdown.load() > 0 && --countdown == 0;
  }
  return false;
}

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

void* plain(size_t size) {
  static auto* const function = real<void*(size_t)>("malloc");
  return function(size);
}

}  // namespace

extern "C" {
// k > 0: the k-th of at least so many bytes fails; -1: none does, but they are counted; 0: nothing.
void emm_fail_at(long k, long least_bytes) {
  least = static_cast<size_t>(least_bytes);
  num_ranges = 0;
  dl_iterate_phdr(add_range, nullptr);
  calls = 0;
  countdown = k;
}
long emm_calls() { return calls; }

void* malloc(size_t size) {
  if (fails(__builtin_return_address(0), size)) {
    errno = ENOMEM;
    return nullptr;
  }
  return plain(size);
}
int posix_memalign(void** result, size_t alignment, size_t size) {
  static auto* const function = real<int(void**, size_t, size_t)>("posix_memalign");
  return fails(__builtin_return_address(0), size) ? ENOMEM : function(result, alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  static auto* const function = real<void*(size_t, size_t)>("aligned_alloc");
  return fails(__builtin_return_address(0), size) ? nullptr : function(alignment, size);
}
}

void* operator new(size_t size) {
  void* result = fails(__builtin_return_address(0), size) ? nullptr : plain(size > 0 ? size : 1);
  if (result == nullptr) throw std::bad_alloc();
  return result;
}
void* operator new[](size_t size) {
  void* result = fails(__builtin_return_address(0), size) ? nullptr : plain(size > 0 ? size : 1);
  if (result == nullptr) throw std::bad_alloc();
  return result;
}
