// The object that scripts see as `conn`: an id with methods, the peer's and the local address, and the script's own table `ctx`.
// Whether the connection still exists is Swift's to know; the object outlives it harmlessly.

#include <string.h>

#include "internal.h"

// What the mark of our userdata points to.
static const char connection_mark;

// User values of the object.
enum { CTX = 1, PEER = 2, ADDRESS = 3, USER_VALUES = 3 };

static mp_connection *test(lua_State *L, int index) {
  mp_connection *object = lua_touserdata(L, index);  // NULL for what is no userdata; the length of a light one is 0
  if (object == NULL || lua_rawlen(L, index) != sizeof(mp_connection)) return NULL;
  return object->mark == &connection_mark ? object : NULL;
}

int64_t mp_test_connection(lua_State *L, int index) {
  mp_connection *object = test(L, index);
  return object == NULL ? 0 : object->id;
}

int64_t mp_check_connection(lua_State *L, int index) {
  mp_connection *object = test(L, index);
  if (object == NULL) luaL_typeerror(L, index, "connection");
  return object->id;
}

// conn.ctx: made on first use.
RAISES static int push_ctx(lua_State *L) {
  if (lua_getiuservalue(L, 1, CTX) == LUA_TNIL) {
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, CTX);
  }
  return 1;
}

// The members that are no methods. The table of methods has a light userdata with the member's number in their place, so that one
// look-up finds either.
enum { MEMBER_CTX = 1, MEMBER_ID, MEMBER_PEER, MEMBER_ADDRESS };

static int index_connection(lua_State *L) {
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TLIGHTUSERDATA) return 1;
  mp_connection *object = test(L, 1);
  if (object == NULL) return lua_pushnil(L), 1;
  switch ((intptr_t)lua_touserdata(L, -1)) {
    case MEMBER_CTX: return push_ctx(L);
    case MEMBER_ID: return lua_pushinteger(L, object->id), 1;
    case MEMBER_PEER: return lua_getiuservalue(L, 1, PEER), 1;
    default: return lua_getiuservalue(L, 1, ADDRESS), 1;
  }
}

static int assign_connection(lua_State *L) {
  mp_check_connection(L, 1);
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2);
  if (strcmp(key, "ctx") != 0) {
    return luaL_error(L, "cannot set '%s' on a connection; keep the script's own data in conn.ctx", key);
  }
  if (!lua_istable(L, 3)) return luaL_error(L, "conn.ctx must be a table, not %s", luaL_typename(L, 3));
  lua_settop(L, 3);
  lua_setiuservalue(L, 1, CTX);
  return 0;
}

static int describe_connection(lua_State *L) {
  mp_connection *object = test(L, 1);
  if (object == NULL) return luaL_typeerror(L, 1, "connection");
  lua_getiuservalue(L, 1, PEER);
  const char *peer = lua_tostring(L, -1);
  lua_pushfstring(L, "connection %I (%s)", (LUAI_UACINT)object->id, peer == NULL ? "?" : peer);
  return 1;
}

void mp_install_connections(lua_State *L, mp_state *state) {
  static const char *const members[] = {[MEMBER_CTX] = "ctx", [MEMBER_ID] = "id", [MEMBER_PEER] = "peer",
                                        [MEMBER_ADDRESS] = "address"};
  lua_newtable(L);
  for (intptr_t i = MEMBER_CTX; i <= MEMBER_ADDRESS; i++) {
    lua_pushlightuserdata(L, (void *)i);
    lua_setfield(L, -2, members[i]);
  }
  lua_pushvalue(L, -1);
  state->methods = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_createtable(L, 0, 5);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, index_connection, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, assign_connection);
  lua_setfield(L, -2, "__newindex");
  lua_pushcfunction(L, describe_connection);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "connection");
  lua_setfield(L, -2, "__name");
  lua_pushliteral(L, "connection");
  lua_setfield(L, -2, "__metatable");
  state->metatable = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pop(L, 1);
}

typedef struct opening {
  mp_state *state;
  int64_t id;
  const char *peer, *address;
  size_t peer_count, address_count;
} opening;

static int new_body(lua_State *L) {
  const opening *o = lua_touserdata(L, 1);
  mp_connection *object = lua_newuserdatauv(L, sizeof *object, USER_VALUES);
  object->mark = &connection_mark;
  object->id = o->id;
  lua_rawgeti(L, LUA_REGISTRYINDEX, o->state->metatable);
  lua_setmetatable(L, -2);
  lua_pushlstring(L, o->peer, o->peer_count);
  lua_setiuservalue(L, -2, PEER);
  lua_pushlstring(L, o->address, o->address_count);
  lua_setiuservalue(L, -2, ADDRESS);
  lua_pushinteger(L, luaL_ref(L, LUA_REGISTRYINDEX));
  return 1;
}

int32_t mp_connection_new(mp_state *state, int64_t id, const char *peer, size_t peer_count, const char *address,
                          size_t address_count) {
  opening o = {state, id, peer, address, peer_count, address_count};
  lua_State *L = state->main;
  lua_pushcfunction(L, new_body);
  lua_pushlightuserdata(L, &o);
  int32_t reference = lua_pcall(L, 1, 1, 0) == LUA_OK ? (int32_t)lua_tointeger(L, -1) : LUA_NOREF;
  lua_pop(L, 1);
  return reference;
}
