// The free blocks that the allocator of one state keeps for reuse; see blocks.c. Knows nothing of Lua.
#ifndef MOONPORT_BLOCKS_H
#define MOONPORT_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Sizes that are kept: up to 520 bytes, which is a chat line with its header, and every object but large tables and stacks.
enum { MP_BLOCK_CLASSES = 33 };

// Lists of free blocks by size. All zero is empty.
typedef struct mp_blocks {
  void *free[MP_BLOCK_CLASSES];
  uint32_t kept_bytes[MP_BLOCK_CLASSES];
} mp_blocks;

// A block of `size` bytes, or NULL as malloc(3). The sizes passed below are those the block was asked for with.
void *mp_block_new(mp_blocks *blocks, size_t size);
// Gives a block back. NULL is harmless.
void mp_block_free(mp_blocks *blocks, void *block, size_t size);
// A block of another size with the same content as far as it fits; NULL leaves the old one as it was.
void *mp_block_resize(mp_blocks *blocks, void *block, size_t old_size, size_t new_size);
// Gives all kept blocks back to malloc.
void mp_blocks_release(mp_blocks *blocks);

#endif
