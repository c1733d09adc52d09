// Counts a process's heap allocations in a file that others may map: a library to preload (LD_PRELOAD), for a test and for scripts/bench.
// COUNT_FILE names the file, of 16 bytes: the allocations that C code of the program asked for, which in moonport is Lua's allocator, and
// all others, which are Swift's. Who asked is told by the program's symbols: Swift's begin with "$s", and Swift's objects are allocated by
// its library. What is freed is not counted.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct counts {
  atomic_ullong c, swift;
};

struct function {
  uintptr_t start, end;
};

static struct counts unmapped;
static struct counts *counts = &unmapped;
// The program's functions that are not Swift's, by address.
static struct function *functions;
static size_t function_count;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static int by_start(const void *left, const void *right) {
  uintptr_t a = ((const struct function *)left)->start, b = ((const struct function *)right)->start;
  return a < b ? -1 : a > b;
}

// The first object is the program.
static int take_base(struct dl_phdr_info *information, size_t size, void *base) {
  (void)size;
  *(uintptr_t *)base = information->dlpi_addr;
  return 1;
}

// Collects the functions of the symbol table in `image`, the program's file.
static void take_symbols(const char *image, uintptr_t base) {
  const Elf64_Ehdr *header = (const Elf64_Ehdr *)image;
  const Elf64_Shdr *sections = (const Elf64_Shdr *)(image + header->e_shoff);
  for (int i = 0; i < header->e_shnum; i++) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const Elf64_Sym *symbols = (const Elf64_Sym *)(image + sections[i].sh_offset);
    const char *names = image + sections[sections[i].sh_link].sh_offset;
    size_t count = sections[i].sh_size / sizeof *symbols, kept = 0;
    struct function *found = __libc_malloc(count * sizeof *found);
    for (size_t s = 0; s < count; s++) {
      const char *name = names + symbols[s].st_name;
      if (ELF64_ST_TYPE(symbols[s].st_info) != STT_FUNC || symbols[s].st_size == 0) continue;
      if (name[0] == '$' && name[1] == 's') continue;
      uintptr_t start = base + symbols[s].st_value;
      found[kept++] = (struct function){start, start + symbols[s].st_size};
    }
    qsort(found, kept, sizeof *found, by_start);
    // Only now: sorting allocates.
    functions = found;
    function_count = kept;
    return;
  }
}

static void find_functions(void) {
  uintptr_t base = 0;
  struct stat status;
  dl_iterate_phdr(take_base, &base);
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  if (fstat(file, &status) == 0) {
    char *image = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (image != MAP_FAILED) {
      take_symbols(image, base);
      munmap(image, status.st_size);
    }
  }
  close(file);
}

__attribute__((constructor)) static void map_counts(void) {
  const char *path = getenv("COUNT_FILE");
  find_functions();
  int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (file < 0) return;
  if (ftruncate(file, sizeof *counts) == 0) {
    void *memory = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) counts = memory;
  }
  close(file);
}

static int is_c(uintptr_t address) {
  size_t low = 0, high = function_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (functions[middle].end <= address) low = middle + 1; else high = middle;
  }
  return low < function_count && functions[low].start <= address;
}

static void count(void *caller) {
  atomic_fetch_add_explicit(is_c((uintptr_t)caller) ? &counts->c : &counts->swift, 1, memory_order_relaxed);
}

void *malloc(size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_malloc(bytes);
}

void *calloc(size_t number, size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_calloc(number, bytes);
}

void *realloc(void *block, size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_realloc(block, bytes);
}

void *memalign(size_t alignment, size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **result, size_t alignment, size_t bytes) {
  count(__builtin_return_address(0));
  void *block = __libc_memalign(alignment, bytes);
  if (block == NULL) return ENOMEM;
  *result = block;
  return 0;
}
