// Small blocks kept for reuse. Every message is a new Lua string, so the allocator of a state gives and takes the same few sizes
// all the time; a list of free blocks for each size is several times cheaper than the C library's allocator.
//
// Taking and giving back a small block is in blocks.h, since it happens with every message. Sizes follow glibc's: a chunk of malloc
// holds 16 k + 8 bytes, so nothing is lost by rounding up to that. What is kept is bounded, everything beyond goes back to malloc. The
// address sanitizer has to see each block end, so nothing is kept under it.

#include "blocks.h"

void *mp_block_resize(mp_blocks *blocks, void *block, size_t old_size, size_t new_size) {
  bool was_small = mp_block_is_small(old_size), is_small = mp_block_is_small(new_size);
  if (!was_small && !is_small) return realloc(block, new_size);
  if (was_small && is_small && mp_block_class(old_size) == mp_block_class(new_size)) return block;
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
  }
  blocks->kept_bytes = 0;
}
