// Runs of Lua code and their bounds: where a run begins and ends, and the hook that ends one that is over its CPU budget or
// raises once the state's memory is over its soft limit.
//
// A hook makes every Lua instruction slower, so none is set while nobody is over a bound. The watchdog (watchdog.c) finds a run
// over its budget and interrupts its thread by a signal; the allocator (state.c) finds memory short; either sets the hook on the
// Lua thread that runs at this moment, which the state knows because everything that switches Lua threads says so here.
//
// The hook raises "not enough memory": of all errors the only one for which Lua calls no message handler, and so no code of the
// script's, and here not even an endless loop in one. What the error really was is kept beside the state and put in its place where
// the run ends. A run over its budget has it raised again at every further instruction and call, so that no pcall, coroutine,
// __close or other function of the script can go on.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

// The longest description of an error with its traceback that is kept: Lua's tracebacks have at most 22 levels.
enum { REASON_BYTES_MAX = 8192 };
// Every instruction of Lua code, and every call, so that C functions that call each other do not get round it.
enum { HOOK_MASK = LUA_MASKCALL | LUA_MASKCOUNT };

IN_SIGNAL bool mp_run_is_spent(mp_state *state) {
  return __atomic_load_n(&state->guard.over, __ATOMIC_RELAXED) == state->guard.run && state->guard.run % 2 == 1;
}

RAISES void mp_push_place(lua_State *L) {
  lua_Debug frame;
  for (int level = 0; lua_getstack(L, level, &frame); level++) {
    lua_getinfo(L, "Sl", &frame);
    if (frame.currentline > 0) {
      lua_pushfstring(L, "%s:%d: ", frame.short_src, frame.currentline);
      return;
    }
  }
  lua_pushliteral(L, "");
}

// Keeps what the run that is about to fail has failed for; without memory for it the bare text.
static void keep_reason(mp_state *state, const char *text, size_t count) {
  mp_guard *guard = &state->guard;
  free(guard->reason);
  guard->reason_run = guard->run;
  guard->reason_count = count < REASON_BYTES_MAX ? count : REASON_BYTES_MAX;
  guard->reason = malloc(guard->reason_count);
  if (guard->reason == NULL) guard->reason_count = 0;
  if (guard->reason != NULL) memcpy(guard->reason, text, guard->reason_count);
}

// Keeps `message` with the place and the traceback of L as the reason.
RAISES static void fail_run(mp_state *state, lua_State *L, const char *message, size_t count) {
  keep_reason(state, message, count);
  mp_push_place(L);
  lua_pushlstring(L, message, count);
  lua_concat(L, 2);
  luaL_traceback(L, L, lua_tostring(L, -1), 0);
  const char *text = lua_tolstring(L, -1, &count);
  keep_reason(state, text, count);
}

// Describes the end of a run that is over its budget, the first time that the hook comes to it.
RAISES static void describe_spent(mp_state *state, lua_State *L) {
  mp_guard *guard = &state->guard;
  if (guard->ended_run == guard->run) return;
  guard->ended_run = guard->run;
  guard->ended_count++;
  // What it has taken is garbage with it, and the collector's next time may be far.
  if (state->memory.soft != 0 && mp_run_took_much(state)) state->memory.is_swollen = true;
  char message[128];
  double seconds = (double)__atomic_load_n(&guard->budget_ns, __ATOMIC_RELAXED) / 1e9;
  int count = snprintf(message, sizeof message, "budget exceeded: ran for %.3g s of CPU time without waiting; see --%s-budget",
                       seconds, guard->is_loading ? "load" : "handler");
  fail_run(state, L, message, (size_t)count);
}

static void raise_memory_error(lua_State *L) {
  lua_pushliteral(L, "not enough memory");
  lua_error(L);
}

static void guard_hook(lua_State *L, lua_Debug *event);

// The hook of a Lua thread in which a run has been ended: the same, and the mark by which `mp_was_ended` knows it.
static void ended_hook(lua_State *L, lua_Debug *event) { guard_hook(L, event); }

static void guard_hook(lua_State *L, lua_Debug *event) {
  (void)event;
  mp_state *state = mp_state_of(L);
  if (mp_run_is_spent(state)) {
    lua_sethook(L, ended_hook, HOOK_MASK, 1);
    describe_spent(state, L);
    raise_memory_error(L);
    return;
  }
  // Set for a run that has ended, or for memory. Unset first: a pcall in the script may catch the error and go on in order.
  lua_sethook(L, NULL, 0, 0);
  if (!mp_memory_is_short(state)) return;
  if (!mp_memory_fails_run(state, L)) return;
  state->memory.exhausted++;
  static const char message[] = "not enough memory: this worker's scripts are at the --memory-limit";
  fail_run(state, L, message, sizeof message - 1);
  raise_memory_error(L);
}

IN_SIGNAL void mp_arm(lua_State *L) {
  if (!mp_is_armed(L)) lua_sethook(L, guard_hook, HOOK_MASK, 1);
}

IN_SIGNAL bool mp_is_armed(lua_State *L) {
  lua_Hook hook = lua_gethook(L);
  return hook == guard_hook || hook == ended_hook;
}

bool mp_was_ended(lua_State *thread) {
  int status = lua_status(thread);
  return status != LUA_OK && status != LUA_YIELD && lua_gethook(thread) == ended_hook;
}

void mp_run_set_budget(mp_state *state, uint64_t budget_ns, bool is_loading) {
  __atomic_store_n(&state->guard.budget_ns, budget_ns, __ATOMIC_RELAXED);
  state->guard.is_loading = is_loading;
}

const char *mp_run_reason(mp_state *state, int status, size_t *count) {
  mp_guard *guard = &state->guard;
  if (status != LUA_ERRMEM || guard->reason == NULL || guard->reason_run != guard->run) return NULL;
  *count = guard->reason_count;
  return guard->reason;
}
