// Opening and closing a state, and protected calls on its main thread.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

// An error outside every protected call: a broken invariant of the bridge itself.
static int panic(lua_State *L) {
  const char *message = lua_tostring(L, -1);
  fprintf(stderr, "moonport: error outside a protected call: %s\n", message == NULL ? "(no message)" : message);
  abort();
}

// Lua makes some of its messages outside of every protected call (lua_resume for what it refuses, lua_resetthread and lua_resume
// for an error in an error handler), where a refused allocation would end the process. A short string that exists already is
// not allocated again.
RAISES static void keep_messages(lua_State *L) {
  static const char *const messages[] = {
      "C stack overflow", "cannot resume dead coroutine", "cannot resume non-suspended coroutine", "error in error handling",
  };
  for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
    lua_pushstring(L, messages[i]);
    luaL_ref(L, LUA_REGISTRYINDEX);
  }
}

static int open_body(lua_State *L) {
  mp_state *state = lua_touserdata(L, 1);
  luaL_openlibs(L);
  keep_messages(L);
  mp_install_connections(L, state);
  mp_install_dictionaries(L, state);
  mp_install_coroutines(L);
  mp_install_sandbox(L);
  lua_newtable(L);
  state->natives = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

mp_state *mp_open(void *context, size_t memory_limit) {
  mp_heap_prepare();
  mp_state *state = calloc(1, sizeof *state);
  if (state == NULL) return NULL;
  state->context = context;
  mp_set_memory_limits(state, 0, memory_limit);
  state->memory.fail_after = -1;
  state->methods = state->natives = state->metatable = LUA_NOREF;
  lua_State *L = mp_watch_begin(state) ? lua_newstate(mp_allocate, state) : NULL;
  if (L == NULL) {
    mp_watch_end(state);
    mp_blocks_release(&state->memory.blocks);
    free(state);
    return NULL;
  }
  state->main = L;
  *(mp_state **)lua_getextraspace(L) = state;
  lua_atpanic(L, panic);
  lua_pushcfunction(L, open_body);
  lua_pushlightuserdata(L, state);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    mp_close(state);
    return NULL;
  }
  return state;
}

void mp_close(mp_state *state) {
  mp_plain_close(state->main);
  lua_close(state->main);
  mp_watch_end(state);
  free(state->guard.reason);
  mp_blocks_release(&state->memory.blocks);
  free(state->room);
  free(state);
}

int mp_traceback(lua_State *L) {
  if (lua_type(L, 1) != LUA_TSTRING) {
    // `error` puts the place before strings only, and the address of a table says nothing.
    mp_push_place(L);
    if (lua_type(L, 1) == LUA_TNUMBER || luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL) {
      luaL_tolstring(L, 1, NULL);
    } else {
      lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
    }
    lua_replace(L, 1);
    lua_settop(L, 2);
    lua_insert(L, 1);
    lua_concat(L, 2);
  }
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

// Pushes the function and its arguments and calls it; runs under lua_pcall.
static int call_body(lua_State *L) {
  const mp_start *start = lua_touserdata(L, 1);
  lua_settop(L, 0);
  luaL_checkstack(L, start->count + 1, "too many arguments");
  lua_rawgeti(L, LUA_REGISTRYINDEX, start->function);
  for (int32_t i = 0; i < start->count; i++) mp_push(L, &start->arguments[i]);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

// Describes the value at `index` without conversion, so that nothing can raise.
static void describe(lua_State *L, int index, mp_value *value) {
  size_t count = 0;
  value->index = index;
  switch (lua_type(L, index)) {
    case LUA_TNIL: value->kind = MP_NIL; break;
    case LUA_TBOOLEAN:
      value->kind = MP_BOOLEAN;
      value->integer = lua_toboolean(L, index);
      break;
    case LUA_TNUMBER:
      value->kind = lua_isinteger(L, index) ? MP_INTEGER : MP_NUMBER;
      value->integer = lua_tointeger(L, index);
      value->number = lua_tonumber(L, index);
      break;
    case LUA_TSTRING:
      value->kind = MP_BYTES;
      value->base = lua_tolstring(L, index, &count);
      value->integer = (int64_t)count;
      break;
    default:
      value->kind = MP_STACK;
      value->integer = lua_type(L, index);
  }
}

// Fills the outcome from what lua_pcall left above `base`.
static void take_outcome(lua_State *L, int base, int status, mp_outcome *outcome) {
  int count = lua_gettop(L) > base ? lua_gettop(L) - base : 0;
  outcome->status = status;
  outcome->base = base - 1;
  outcome->count = count < MP_RESULTS_MAX ? count : MP_RESULTS_MAX;
  for (int32_t i = 0; i < outcome->count; i++) describe(L, base + 1 + i, &outcome->results[i]);
  if (status != LUA_OK && (outcome->count == 0 || outcome->results[0].kind != MP_BYTES)) {
    static const char text[] = "not enough memory";
    outcome->count = 1;
    outcome->results[0] = (mp_value){.kind = MP_BYTES, .integer = sizeof text - 1, .base = text};
  }
}

// Runs `body` with one light userdata under protection, keeping its results on the main stack.
static void run_protected(mp_state *state, lua_CFunction body, const void *argument, mp_outcome *outcome) {
  lua_State *L = state->main;
  int base = lua_gettop(L) + 1;
  if (!lua_checkstack(L, 8)) {
    take_outcome(L, base, LUA_ERRMEM, outcome);
    return;
  }
  lua_pushcfunction(L, mp_traceback);
  lua_pushcfunction(L, body);
  lua_pushlightuserdata(L, (void *)argument);
  lua_State *outer = mp_enter(state, L);
  int status = lua_pcall(L, 1, LUA_MULTRET, base);
  size_t count = 0;
  const char *reason = mp_run_reason(state, status, &count);
  mp_note_growth(state);
  mp_leave(state, outer);
  take_outcome(L, base, status, outcome);
  if (reason != NULL) outcome->results[0] = (mp_value){.kind = MP_BYTES, .integer = (int64_t)count, .base = reason};
}

void mp_protected_call(mp_state *state, const mp_start *start, uint64_t budget_ns, mp_outcome *outcome) {
  uint64_t own_ns = __atomic_load_n(&state->guard.budget_ns, __ATOMIC_RELAXED);
  bool has_own = budget_ns != 0 && state->running == NULL;
  if (has_own) {
    mp_run_set_budget(state, budget_ns, true);
    if (own_ns == 0) mp_watch_wake();
  }
  run_protected(state, call_body, start, outcome);
  if (has_own) mp_run_set_budget(state, own_ns, false);
}

typedef struct prelude {
  mp_state *state;
  int32_t *table;
  const char *source;
  size_t count;
  const char *name;
} prelude;

static int prelude_body(lua_State *L) {
  const prelude *p = lua_touserdata(L, 1);
  if (*p->table == LUA_NOREF) {
    lua_newtable(L);
    *p->table = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  if (luaL_loadbuffer(L, p->source, p->count, p->name) != LUA_OK) return lua_error(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, *p->table);
  lua_rawgeti(L, LUA_REGISTRYINDEX, p->state->natives);
  lua_rawgeti(L, LUA_REGISTRYINDEX, p->state->methods);
  lua_call(L, 3, 0);
  return 0;
}

void mp_run_prelude(mp_state *state, int32_t *table, const char *source, size_t count, const char *name,
                    mp_outcome *outcome) {
  prelude p = {state, table, source, count, name};
  run_protected(state, prelude_body, &p, outcome);
  // The state's runs may be another thread's from now on.
  mp_unbind(state);
}

typedef struct field {
  int32_t table;
  const char *name;
} field;

static int field_body(lua_State *L) {
  const field *f = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, f->table);
  lua_getfield(L, -1, f->name);
  lua_pushinteger(L, lua_isfunction(L, -1) ? luaL_ref(L, LUA_REGISTRYINDEX) : LUA_NOREF);
  return 1;
}

int32_t mp_field_reference(mp_state *state, int32_t table, const char *name) {
  field f = {table, name};
  mp_outcome outcome;
  run_protected(state, field_body, &f, &outcome);
  int32_t reference = outcome.status == LUA_OK ? (int32_t)outcome.results[0].integer : LUA_NOREF;
  mp_discard(state, &outcome);
  return reference;
}

void mp_discard(mp_state *state, const mp_outcome *outcome) { lua_settop(state->main, outcome->base); }

static int keep_body(lua_State *L) {
  lua_settop(L, 1);
  lua_pushinteger(L, luaL_ref(L, LUA_REGISTRYINDEX));
  return 1;
}

int32_t mp_keep(mp_state *state, const mp_outcome *outcome, int32_t i) {
  lua_State *L = state->main;
  if (i >= outcome->count || !lua_checkstack(L, 4)) return LUA_NOREF;
  int index = outcome->results[i].index;
  lua_pushcfunction(L, keep_body);
  lua_pushvalue(L, index);
  int32_t reference = lua_pcall(L, 1, 1, 0) == LUA_OK ? (int32_t)lua_tointeger(L, -1) : LUA_NOREF;
  lua_pop(L, 1);
  return reference;
}

typedef struct text {
  const char *base;
  size_t count;
} text;

static int string_body(lua_State *L) {
  const text *t = lua_touserdata(L, 1);
  lua_pushlstring(L, t->base, t->count);
  lua_pushinteger(L, luaL_ref(L, LUA_REGISTRYINDEX));
  return 1;
}

int32_t mp_string_reference(mp_state *state, const char *base, size_t count) {
  text t = {base, count};
  mp_outcome outcome;
  run_protected(state, string_body, &t, &outcome);
  int32_t reference = outcome.status == LUA_OK ? (int32_t)outcome.results[0].integer : LUA_NOREF;
  mp_discard(state, &outcome);
  return reference;
}

void mp_unreference(mp_state *state, int32_t reference) { luaL_unref(state->main, LUA_REGISTRYINDEX, reference); }
