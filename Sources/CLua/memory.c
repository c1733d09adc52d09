// A state's memory: its allocator, which counts, the two limits that it is held to, and giving back what was freed.

#include <stdlib.h>
#include <string.h>

#include "internal.h"

bool mp_memory_is_short(const mp_state *state) {
  return state->memory.soft != 0 && state->memory.used > state->memory.notice;
}

// What a collection has to free, or a script to take, before the next one because of the soft limit: collections of a full state
// take long, so they must not follow each other.
static size_t memory_step(const mp_memory *memory) { return memory->soft / 16; }

// What a run may take above the soft limit: those that take little go on where one that takes much has filled the state.
static size_t modest(const mp_memory *memory) { return memory->soft / 64; }

bool mp_run_took_much(const mp_state *state) {
  return state->memory.used > state->memory.handler_start + modest(&state->memory);
}

// Above it no run may take anything. Between it and the hard limit is room for what a table or a string takes that doubles, so that
// refusals, which lead through the parts of Lua that are used least, stay rare.
static size_t memory_ceiling(const mp_memory *memory) {
  return memory->limit > memory->soft ? memory->soft + (memory->limit - memory->soft) / 2 : memory->soft;
}

// Decides after a collection when to look again; true when the state is still full.
static bool settle(mp_memory *memory) {
  size_t next = memory->used + memory_step(memory), ceiling = memory_ceiling(memory);
  memory->settled = memory->used;
  bool is_full = next > memory->soft;
  memory->notice = !is_full ? memory->soft : next < ceiling ? next : ceiling;
  return is_full;
}

bool mp_memory_fails_run(mp_state *state, lua_State *L) {
  mp_memory *memory = &state->memory;
  if (memory->used > memory->settled + memory_step(memory) / 4) lua_gc(L, LUA_GCCOLLECT);
  memory->is_swollen = true;
  if (!settle(memory)) return false;
  bool takes_much = mp_run_took_much(state);
  // What such a run has taken becomes garbage with it.
  if (takes_much) memory->wants_collection = true;
  return takes_much || memory->used + memory_step(memory) > memory_ceiling(memory);
}

// Looks at an allocation that would bring the state's memory to `total`, above one of its limits: false when it must be refused.
static bool is_granted(mp_state *state, size_t total) {
  mp_memory *memory = &state->memory;
  if (memory->limit != 0 && total > memory->limit) {
    memory->refused++;
    memory->wants_collection = true;
    return false;
  }
  if (state->running != NULL) mp_arm(state->running);
  return true;
}

// What an allocation comes to that is not the usual one: it may be refused, and it may grow or shrink a block.
static void *allocate_watched(mp_state *state, void *block, size_t held, size_t new_size) {
  mp_memory *memory = &state->memory;
  if (new_size > held) {
    if (memory->fail_after >= 0 && memory->fail_after-- == 0) {
      memory->fail_after = 0;
      memory->refused++;
      return NULL;
    }
    size_t total = memory->used - held + new_size;
    if (total > memory->notice && !is_granted(state, total)) return NULL;
  }
  void *result = block == NULL ? mp_block_new(&memory->blocks, new_size)
                               : mp_block_resize(&memory->blocks, block, held, new_size);
  if (result == NULL) {
    memory->refused++;
    memory->wants_collection = true;
    return NULL;
  }
  memory->used = memory->used - held + new_size;
  return result;
}

void *mp_allocate(void *ud, void *block, size_t old_size, size_t new_size) {
  mp_state *state = ud;
  mp_memory *memory = &state->memory;
  if (block == NULL) {
    if (new_size == 0) return NULL;
    if (memory->used + new_size > memory->notice || memory->fail_after >= 0) {
      return allocate_watched(state, NULL, 0, new_size);
    }
    void *result = mp_block_new(&memory->blocks, new_size);
    if (result == NULL) return allocate_watched(state, NULL, 0, new_size);
    memory->used += new_size;
    return result;
  }
  if (new_size > 0) return allocate_watched(state, block, old_size, new_size);
  memory->used -= old_size;
  mp_block_free(&memory->blocks, block, old_size);
  return NULL;
}

void mp_set_memory_limits(mp_state *state, size_t soft, size_t hard) {
  mp_memory *memory = &state->memory;
  memory->soft = soft;
  memory->limit = hard;
  memory->much = soft != 0 ? memory_step(memory) : SIZE_MAX;
  memory->notice = SIZE_MAX;
  if (soft != 0) memory->notice = soft;
  if (hard != 0 && hard < memory->notice) memory->notice = hard;
}

bool mp_recover_memory(mp_state *state) {
  if (!state->memory.wants_collection) return false;
  mp_memory *memory = &state->memory;
  memory->wants_collection = false;
  memory->is_swollen = true;
  lua_gc(state->main, LUA_GCCOLLECT);
  if (memory->soft != 0) settle(memory);
  return true;
}

bool mp_is_full(const mp_state *state) {
  return state->memory.soft != 0 && state->memory.used > state->memory.soft / 2;
}

// Each collection halves Lua's table of strings once where that is too large, so it is repeated while that helps; more than this
// often it cannot: the table has no more halves.
enum { COLLECTIONS_MAX = 48 };

// Lets go of what a state keeps for its next use.
static void release_kept(mp_state *state) {
  mp_blocks_release(&state->memory.blocks);
  free(state->room);
  state->room = NULL;
  state->room_bytes = 0;
}

void mp_give_back(mp_state *state) {
  release_kept(state);
  mp_heap_give_back();
}

void mp_collect(mp_state *state) {
  mp_memory *memory = &state->memory;
  size_t before;
  int count = 0;
  do {
    before = memory->used;
    lua_gc(state->main, LUA_GCCOLLECT);
  } while (memory->used < before - before / 8 && ++count < COLLECTIONS_MAX);
  release_kept(state);
  memory->wants_collection = false;
  if (!memory->is_swollen) return;
  if (memory->soft != 0) settle(memory);
  memory->is_swollen = mp_is_full(state);
  mp_heap_give_back();
}
