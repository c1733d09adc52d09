// What the C library's allocator keeps of memory that was freed, and how it is made to give that back to the system.
//
// Every worker's thread has an arena of its own (malloc(3), M_ARENA_MAX), whose free end goes back only when it is longer than a
// threshold; malloc_trim(3) leaves that end alone but for the first thread's. The threshold grows by itself with the largest block
// that was ever freed, to 64 MB, so that after one script that took much the arena of its worker would stay as large for good. Here
// both thresholds are fixed: large enough that messages of usual sizes never cost system calls, and lowered for a moment when
// memory has to go back.

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include "internal.h"

// Blocks from here on are the system's own mappings, gone when they are freed: more than most messages have, and less than the
// tables and strings that fill a state.
enum { MAPPED_BYTES_MIN = 4 << 20 };
// The free end of an arena that is usually kept, by glibc's own rule twice the above.
enum { KEPT_BYTES_MAX = 2 * MAPPED_BYTES_MIN };
// The same while memory is given back, in one page or more.
enum { TRIMMED_BYTES_MAX = 4096 };
// Freeing a block of this size, or one next to it, has glibc look at its arena's end (FASTBIN_CONSOLIDATION_THRESHOLD).
enum { CONSOLIDATING_BYTES = 1 << 17 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
// One at a time sets the threshold down and up again.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void prepare(void) {
  mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
  mallopt(M_TRIM_THRESHOLD, KEPT_BYTES_MAX);
}

void mp_heap_prepare(void) { pthread_once(&once, prepare); }

void mp_heap_give_back(void) {
  pthread_mutex_lock(&lock);
  malloc_trim(0);
  mallopt(M_TRIM_THRESHOLD, TRIMMED_BYTES_MAX);
  // Not optimized away: what the block is for is its end.
  void *volatile block = malloc(CONSOLIDATING_BYTES);
  free(block);
  mallopt(M_TRIM_THRESHOLD, KEPT_BYTES_MAX);
  pthread_mutex_unlock(&lock);
}
