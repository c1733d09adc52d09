// The trampoline: from a script's call to a Swift function and back.

#include <stdlib.h>
#include <string.h>

#include "internal.h"

// Any other value that may stand where 'a' is declared.
static void read_any(lua_State *L, int index, mp_value *value) {
  size_t count = 0;
  switch (lua_type(L, index)) {
    case LUA_TNONE:
    case LUA_TNIL: value->kind = MP_NIL; return;
    case LUA_TBOOLEAN:
      value->kind = MP_BOOLEAN;
      value->integer = lua_toboolean(L, index);
      return;
    case LUA_TNUMBER:
      value->kind = lua_isinteger(L, index) ? MP_INTEGER : MP_NUMBER;
      value->integer = lua_isinteger(L, index) ? lua_tointeger(L, index) : 0;
      value->number = lua_tonumber(L, index);
      return;
    case LUA_TSTRING:
      value->kind = MP_BYTES;
      value->base = lua_tolstring(L, index, &count);
      value->integer = (int64_t)count;
      return;
    default: break;
  }
  int64_t id = mp_test_connection(L, index);
  value->kind = id != 0 ? MP_HANDLE : MP_STACK;
  value->index = index;
  value->integer = id != 0 ? id : lua_type(L, index);
}

// Reads one plain value. Only a table is packed, and whatever is refused.
RAISES static void read_plain(lua_State *L, int index, mp_value *value) {
  luaL_checkany(L, index);
  int type = lua_type(L, index);
  if (type == LUA_TNIL || type == LUA_TBOOLEAN || type == LUA_TNUMBER || type == LUA_TSTRING) {
    read_any(L, index, value);
    return;
  }
  const char *problem = mp_pack(L, index, value);
  if (problem != NULL) luaL_argerror(L, index, problem);
}

// Packs the arguments from `index` on. Letter 'r': they are the results of some function.
RAISES static void read_plain_list(lua_State *L, char letter, int index, int count, mp_value *value) {
  int culprit = index;
  const char *problem = mp_pack_list(L, index, count, value, &culprit);
  if (problem == NULL) return;
  if (letter == 'r') luaL_error(L, "bad result #%d (%s)", culprit - index + 1, problem);
  luaL_argerror(L, culprit, problem);
}

// Reads one argument of the declared letter, or raises an argument error that names function, argument and line.
RAISES static void read_argument(lua_State *L, char letter, int index, mp_value *value) {
  size_t count = 0;
  switch (letter) {
    case 'c':
      value->kind = MP_HANDLE;
      value->integer = mp_check_connection(L, index);
      break;
    case 's':
      value->kind = MP_BYTES;
      value->base = luaL_checklstring(L, index, &count);
      value->integer = (int64_t)count;
      break;
    case 'i':
      value->kind = MP_INTEGER;
      value->integer = luaL_checkinteger(L, index);
      break;
    case 'n':
      value->kind = MP_NUMBER;
      value->number = luaL_checknumber(L, index);
      break;
    case 'b':
      luaL_checktype(L, index, LUA_TBOOLEAN);
      value->kind = MP_BOOLEAN;
      value->integer = lua_toboolean(L, index);
      break;
    case 'd':
      value->integer = mp_test_connection(L, index);
      value->kind = value->integer != 0 ? MP_HANDLE : MP_INTEGER;
      if (value->kind == MP_HANDLE) break;
      int is_integer = 0;
      value->integer = lua_tointegerx(L, index, &is_integer);
      if (!is_integer) luaL_typeerror(L, index, "connection or id");
      break;
    case 'f': luaL_checktype(L, index, LUA_TFUNCTION); break;  // referenced once nothing else can raise
    case 'p': read_plain(L, index, value); break;
    case 'h':
      value->kind = MP_DICTIONARY;
      value->integer = (int64_t)(intptr_t)mp_check_dictionary(L, index);
      break;
    default: read_any(L, index, value); break;
  }
}

// Reads the arguments from `index` on, which are one or more.
RAISES static void read_variadic(lua_State *L, char letter, int index, mp_call *call) {
  mp_value *value = &call->arguments[index - 1];
  call->variadic_first = index;
  if (call->argument_count == index && lua_type(L, index) == LUA_TSTRING) {
    // One string is what nearly every message is.
    size_t count = 0;
    value->kind = MP_BYTES;
    value->base = lua_tolstring(L, index, &count);
    value->integer = (int64_t)count;
    return;
  }
  luaL_checkany(L, index);
  for (int i = index; i <= call->argument_count; i++) {
    if (letter == 's' || lua_type(L, i) == LUA_TNUMBER) luaL_checklstring(L, i, NULL);
  }
  read_any(L, index, value);
}

RAISES static void read_arguments(lua_State *L, const mp_function *function, mp_call *call) {
  const char *s = function->signature;
  int index = 1;
  call->variadic_first = 0;
  if (function->takes_plain) mp_plain_begin(L);
  for (; *s != '\0'; s++, index++) {
    mp_value *value = &call->arguments[index - 1];
    if (s[1] == '*') {
      if (*s == 'p' || *s == 'r') {
        int count = call->argument_count - index + 1;
        call->variadic_first = index;
        read_plain_list(L, *s, index, count > 0 ? count : 0, value);
        index++;
      } else {
        read_variadic(L, *s, index, call);
      }
      break;
    }
    bool optional = s[1] == '?';
    if (optional && lua_isnoneornil(L, index))
      value->kind = MP_NIL;
    else
      read_argument(L, *s, index, value);
    if (optional) s++;
  }
  if (!function->takes_plain) return;
  for (int i = 0; i < index - 1; i++) mp_pack_settle(L, &call->arguments[i]);
}

// A function that references are made for, under protection.
typedef struct referencing {
  const mp_function *function;
  mp_call *call;
  int32_t made;
  int32_t references[MP_ARGUMENTS_MAX];
} referencing;

// Called with a light userdata and the call's arguments.
static int reference_body(lua_State *L) {
  referencing *r = lua_touserdata(L, 1);
  const char *s = r->function->signature;
  for (int index = 1; *s != '\0'; s++, index++) {
    if (*s == 'f' && lua_isfunction(L, index + 1)) {
      lua_pushvalue(L, index + 1);
      int32_t reference = luaL_ref(L, LUA_REGISTRYINDEX);
      r->call->arguments[index - 1].kind = MP_REFERENCE;
      r->call->arguments[index - 1].index = reference;
      r->references[r->made++] = reference;
    }
    if (s[1] == '?' || s[1] == '*') s++;
  }
  return 0;
}

// Makes the references of function arguments: all of them, or none and an error. To be called once nothing else can raise any
// more before Swift gets them.
RAISES static void make_references(lua_State *L, const mp_function *function, mp_call *call) {
  referencing r = {.function = function, .call = call, .made = 0};
  luaL_checkstack(L, call->argument_count + 2, "too many arguments");
  lua_pushcfunction(L, reference_body);
  lua_pushlightuserdata(L, &r);
  for (int32_t i = 1; i <= call->argument_count; i++) lua_pushvalue(L, i);
  if (lua_pcall(L, call->argument_count + 1, 0, 0) == LUA_OK) return;
  for (int32_t i = 0; i < r.made; i++) luaL_unref(L, LUA_REGISTRYINDEX, r.references[i]);
  lua_error(L);
}

const char *mp_call_bytes(const mp_call *call, int32_t i, size_t *count) {
  int index = call->variadic_first + i;
  return lua_type(call->thread, index) == LUA_TSTRING ? lua_tolstring(call->thread, index, count) : NULL;
}

// More than this is given back before the next use.
enum { ROOM_KEPT_BYTES = 1 << 20 };

void *mp_call_room(const mp_call *call, size_t count) {
  mp_state *state = mp_state_of(call->thread);
  if (count > state->room_bytes || state->room_bytes > ROOM_KEPT_BYTES) {
    free(state->room);
    state->room_bytes = count < 4096 ? 4096 : count;
    state->room = malloc(state->room_bytes);
    if (state->room == NULL) state->room_bytes = 0;
  }
  return state->room;
}

const char *mp_call_encoded(const mp_call *call, size_t *count) {
  return call->encoded == 0 ? NULL : lua_tolstring(call->thread, call->encoded, count);
}

void mp_push(lua_State *L, const mp_value *value) {
  switch (value->kind) {
    case MP_BOOLEAN: lua_pushboolean(L, (int)value->integer); break;
    case MP_INTEGER: lua_pushinteger(L, value->integer); break;
    case MP_NUMBER: lua_pushnumber(L, value->number); break;
    case MP_BYTES: lua_pushlstring(L, value->base, (size_t)value->integer); break;
    case MP_REFERENCE: lua_rawgeti(L, LUA_REGISTRYINDEX, value->index); break;
    case MP_GIVEN:
      lua_rawgeti(L, LUA_REGISTRYINDEX, value->index);
      luaL_unref(L, LUA_REGISTRYINDEX, value->index);
      break;
    case MP_STACK: lua_pushvalue(L, value->index); break;
    case MP_PLAIN: mp_unpack(L, value->base, (size_t)value->integer); break;
    case MP_DICTIONARY: mp_push_dictionary(L, value); break;
    case MP_PLAIN_LIST: mp_unpack_list(L, value->base, (size_t)value->integer); break;
    case MP_LIST: {
      const mp_value *items = (const mp_value *)value->base;
      luaL_checkstack(L, 3, "a nested list");
      lua_createtable(L, (int)value->integer, 0);
      for (int64_t i = 0; i < value->integer; i++) {
        mp_push(L, &items[i]);
        lua_rawseti(L, -2, i + 1);
      }
      break;
    }
    default: lua_pushnil(L); break;
  }
}

// As luaL_where for the line of the script: functions of the prelude between it and us are passed over.
RAISES static void push_where(lua_State *L) {
  lua_Debug frame;
  for (int level = 1; lua_getstack(L, level, &frame); level++) {
    lua_getinfo(L, "Sl", &frame);
    if (strcmp(frame.source, "=moonport") == 0) continue;
    if (frame.currentline <= 0) break;
    lua_pushfstring(L, "%s:%d: ", frame.short_src, frame.currentline);
    return;
  }
  lua_pushliteral(L, "");
}

// Does what Swift decided. Runs after the Swift frame has returned, so that it may raise.
RAISES static int finish(lua_State *L, const mp_call *call) {
  if (call->outcome == MP_WAIT) return mp_wait(L);
  if (call->outcome == MP_RAISE) {
    push_where(L);
    mp_push(L, &call->results[0]);
    lua_concat(L, 2);
    return lua_error(L);
  }
  if (call->outcome == MP_TYPE) return luaL_typeerror(L, (int)call->results[0].integer, call->results[1].base);
  int below = lua_gettop(L);
  for (int32_t i = 0; i < call->result_count; i++) mp_push(L, &call->results[i]);
  return lua_gettop(L) - below;
}

// Makes bytes of a message of any type by the script's own function, then asks Swift again.
RAISES static void encode(lua_State *L, const mp_function *function, mp_call *call) {
  if (call->argument_count != call->variadic_first) luaL_error(L, "a codec written in Lua sends one message at a time");
  lua_rawgeti(L, LUA_REGISTRYINDEX, call->results[0].index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, call->results[1].index);
  lua_pushvalue(L, call->variadic_first);
  lua_call(L, 2, 1);
  luaL_checktype(L, -1, LUA_TSTRING);
  call->encoded = lua_gettop(L);
  call->outcome = MP_RETURN;
  // That function may have answered, too.
  mp_outbox_close(mp_state_of(L));
  function->body(mp_state_of(L)->context, call);
}

static int trampoline(lua_State *L) {
  const mp_function *function = lua_touserdata(L, lua_upvalueindex(1));
  mp_call call;
  // A finalizer of a C library may run whenever something allocates: also while Swift has Lua make a string. The server is in no
  // state to be asked anything then.
  if (L != mp_state_of(L)->running) {
    return luaL_error(L, "%s cannot be called here: in a finalizer, or on a thread that a C library runs", function->name);
  }
  mp_outbox_close(mp_state_of(L));
  call.thread = L;
  call.outcome = MP_RETURN;
  call.result_count = 0;
  call.encoded = 0;
  call.argument_count = lua_gettop(L);
  read_arguments(L, function, &call);
  if (function->waits && (!lua_isyieldable(L) || mp_state_of(L)->unyieldable > 0)) {
    push_where(L);
    lua_pushfstring(L, "%s cannot wait here: a script cannot wait while it loads, nor inside a function that C calls "
                       "(such as a table.sort comparison)", function->name);
    lua_concat(L, 2);
    return lua_error(L);
  }
  if (function->takes_functions) make_references(L, function, &call);
  function->body(mp_state_of(L)->context, &call);
  if (function->takes_plain) mp_plain_end(L);
  if (call.outcome == MP_ENCODE) encode(L, function, &call);
  return finish(L, &call);
}

// A method with a direct way, called as nearly always: with a connection and a string. Whatever else it is called with, and
// whatever the direct way does not do, is the trampoline's; a number, too, which a codec in Lua must get as it is.
static inline int call_directly(lua_State *L, bool frames) {
  mp_state *state = mp_state_of(L);
  if (lua_gettop(L) == 2 && L == state->running && lua_type(L, 2) == LUA_TSTRING) {
    size_t count = 0;
    const char *base = lua_tolstring(L, 2, &count);
    const mp_connection *object = lua_touserdata(L, 1);
    mp_outbox *outbox = object != NULL && object == state->handled ? &state->outbox : NULL;
    if (outbox != NULL && mp_outbox_put(outbox, base, count, frames)) return lua_pushboolean(L, true), 1;
    mp_outbox_close(state);
    const mp_function *function = lua_touserdata(L, lua_upvalueindex(1));
    int64_t id = outbox != NULL ? object->id : mp_test_connection(L, 1);
    if (id != 0 && function->direct(state->context, id, base, count, outbox)) return lua_pushboolean(L, true), 1;
  }
  return trampoline(L);
}

static int send_directly(lua_State *L) { return call_directly(L, true); }
static int write_directly(lua_State *L) { return call_directly(L, false); }

static lua_CFunction entry_of(const mp_function *function) {
  if (function->direct == NULL) return trampoline;
  return function->frames ? send_directly : write_directly;
}

// Continuation of every wait: `wake` says what the waiting call returns or raises.
static int woken(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  return finish(L, &mp_state_of(L)->wake);
}

// The value that tells a wait from a yield of the script's own.
static const char wait_mark;

int mp_wait(lua_State *L) {
  lua_pushlightuserdata(L, (void *)&wait_mark);
  return lua_yieldk(L, 1, 0, woken);
}

bool mp_thread_waits(lua_State *thread) {
  return lua_gettop(thread) > 0 && lua_touserdata(thread, -1) == &wait_mark;
}

typedef struct registration {
  mp_state *state;
  const mp_function *functions;
  int32_t count;
} registration;

// Moves `name` behind `prefix`, if it begins with that.
static bool skip_prefix(const char **name, const char *prefix) {
  size_t count = strlen(prefix);
  if (strncmp(*name, prefix, count) != 0) return false;
  *name += count;
  return true;
}

static int register_body(lua_State *L) {
  const registration *r = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->state->natives);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->state->methods);
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->state->dictionary_methods);
  for (int32_t i = 0; i < r->count; i++) {
    const mp_function *function = &r->functions[i];
    const char *name = function->name;
    int table = 2;
    if (skip_prefix(&name, "connection:")) table = 3;
    if (skip_prefix(&name, "shared:")) table = 4;
    lua_pushlightuserdata(L, (void *)function);
    lua_pushcclosure(L, entry_of(function), 1);
    lua_setfield(L, table, name);
  }
  return 0;
}

bool mp_register(mp_state *state, const mp_function *functions, int32_t count) {
  registration r = {state, functions, count};
  lua_State *L = state->main;
  lua_pushcfunction(L, register_body);
  lua_pushlightuserdata(L, &r);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK) return true;
  lua_pop(L, 1);
  return false;
}
