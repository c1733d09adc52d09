// Counts a process's heap allocations in a file that others may map: a library to preload (LD_PRELOAD), for a test and for
// scripts/bench. COUNT_FILE names the file, of 16 bytes: calls of realloc(3), which in moonport is Lua's allocator alone, and
// calls of all other functions that allocate, which are Swift's and the C library's. Only what has counted is in there: neither
// bytes nor what was freed.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct counts {
  atomic_ullong lua, other;
};

static struct counts unmapped;
static struct counts *counts = &unmapped;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static void count(atomic_ullong *counter) { atomic_fetch_add_explicit(counter, 1, memory_order_relaxed); }

__attribute__((constructor)) static void map_counts(void) {
  const char *path = getenv("COUNT_FILE");
  int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (file < 0) return;
  if (ftruncate(file, sizeof *counts) == 0) {
    void *memory = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) counts = memory;
  }
  close(file);
}

void *malloc(size_t bytes) {
  count(&counts->other);
  return __libc_malloc(bytes);
}

void *calloc(size_t number, size_t bytes) {
  count(&counts->other);
  return __libc_calloc(number, bytes);
}

void *realloc(void *block, size_t bytes) {
  count(&counts->lua);
  return __libc_realloc(block, bytes);
}

void *memalign(size_t alignment, size_t bytes) {
  count(&counts->other);
  return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void **result, size_t alignment, size_t bytes) {
  void *block = memalign(alignment, bytes);
  if (block == NULL) return ENOMEM;
  *result = block;
  return 0;
}
