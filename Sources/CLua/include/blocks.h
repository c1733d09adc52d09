// The free blocks that the allocator of one state keeps for reuse; see blocks.c. Knows nothing of Lua.
#ifndef MOONPORT_BLOCKS_H
#define MOONPORT_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define MP_KEEPS_BLOCKS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MP_KEEPS_BLOCKS 0
#endif
#endif
#ifndef MP_KEEPS_BLOCKS
#define MP_KEEPS_BLOCKS 1
#endif

// Sizes that are kept: up to 520 bytes, which is a chat line with its header, and every object but large tables and stacks.
enum { MP_BLOCK_CLASSES = 33 };

// Lists of free blocks by size. All zero is empty.
typedef struct mp_blocks {
  void *free[MP_BLOCK_CLASSES];
  size_t kept_bytes;  // of all sizes together
} mp_blocks;

// Free blocks of all sizes that are kept, in bytes: more than the strings that one cycle of the collector frees while clients echo
// lines. The bound is one for all sizes, so that a script that uses many has its share soon and not after hours.
enum { MP_BLOCK_KEPT_BYTES_MAX = 512 * 1024 };

static inline size_t mp_block_class(size_t size) { return (size + 7) / 16; }
static inline size_t mp_block_size(size_t class) { return class * 16 + 8; }
static inline bool mp_block_is_small(size_t size) { return MP_KEEPS_BLOCKS && mp_block_class(size) < MP_BLOCK_CLASSES; }

// A block of `size` bytes, or NULL as malloc(3). The sizes passed below are those the block was asked for with.
static inline void *mp_block_new(mp_blocks *blocks, size_t size) {
  if (!mp_block_is_small(size)) return malloc(size);
  size_t class = mp_block_class(size);
  void *block = blocks->free[class];
  if (block == NULL) return malloc(mp_block_size(class));
  memcpy(&blocks->free[class], block, sizeof(void *));
  blocks->kept_bytes -= mp_block_size(class);
  return block;
}

// Gives a block back. NULL is harmless.
static inline void mp_block_free(mp_blocks *blocks, void *block, size_t size) {
  size_t class = mp_block_class(size);
  if (block == NULL || !mp_block_is_small(size) || blocks->kept_bytes >= MP_BLOCK_KEPT_BYTES_MAX) {
    free(block);
    return;
  }
  memcpy(block, &blocks->free[class], sizeof(void *));
  blocks->free[class] = block;
  blocks->kept_bytes += mp_block_size(class);
}

// A block of another size with the same content as far as it fits; NULL leaves the old one as it was.
void *mp_block_resize(mp_blocks *blocks, void *block, size_t old_size, size_t new_size);
// Gives all kept blocks back to malloc.
void mp_blocks_release(mp_blocks *blocks);

#endif
