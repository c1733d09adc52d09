// Small blocks kept for reuse. Every message is a new Lua string, so the allocator of a state gives and takes the same few sizes
// all the time; a list of free blocks for each size is several times cheaper than the C library's allocator.
//
// Sizes follow glibc's: a chunk of malloc holds 16 k + 8 bytes, so nothing is lost by rounding up to that. What is kept is bounded,
// everything beyond goes back to malloc. The address sanitizer has to see each block end, so nothing is kept under it.

#include "blocks.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define KEEPS_BLOCKS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS_BLOCKS 0
#endif
#endif
#ifndef KEEPS_BLOCKS
#define KEEPS_BLOCKS 1
#endif

// Free blocks of one size that are kept, in bytes: about the strings that one cycle of the collector frees while clients echo
// lines. With all sizes at their bound that is 8 MB for a state, until a full collection gives them back.
enum { KEPT_BYTES_MAX = 256 * 1024 };

static size_t class_of(size_t size) { return (size + 7) / 16; }
static size_t size_of(size_t class) { return class * 16 + 8; }
static bool is_small(size_t size) { return KEEPS_BLOCKS && class_of(size) < MP_BLOCK_CLASSES; }

void *mp_block_new(mp_blocks *blocks, size_t size) {
  if (!is_small(size)) return malloc(size);
  size_t class = class_of(size);
  void *block = blocks->free[class];
  if (block == NULL) return malloc(size_of(class));
  memcpy(&blocks->free[class], block, sizeof(void *));
  blocks->kept_bytes[class] -= (uint32_t)size_of(class);
  return block;
}

void mp_block_free(mp_blocks *blocks, void *block, size_t size) {
  size_t class = class_of(size);
  if (block == NULL || !is_small(size) || blocks->kept_bytes[class] >= KEPT_BYTES_MAX) {
    free(block);
    return;
  }
  memcpy(block, &blocks->free[class], sizeof(void *));
  blocks->free[class] = block;
  blocks->kept_bytes[class] += (uint32_t)size_of(class);
}

void *mp_block_resize(mp_blocks *blocks, void *block, size_t old_size, size_t new_size) {
  if (!is_small(old_size) && !is_small(new_size)) return realloc(block, new_size);
  if (is_small(old_size) && is_small(new_size) && class_of(old_size) == class_of(new_size)) return block;
  void *moved = mp_block_new(blocks, new_size);
  if (moved == NULL) return NULL;
  memcpy(moved, block, old_size < new_size ? old_size : new_size);
  mp_block_free(blocks, block, old_size);
  return moved;
}

void mp_blocks_release(mp_blocks *blocks) {
  for (size_t class = 0; class < MP_BLOCK_CLASSES; class++) {
    void *block = blocks->free[class];
    while (block != NULL) {
      void *next;
      memcpy(&next, block, sizeof next);
      free(block);
      block = next;
    }
    blocks->free[class] = NULL;
    blocks->kept_bytes[class] = 0;
  }
}
