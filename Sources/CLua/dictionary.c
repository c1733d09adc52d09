// The object that scripts see as a shared dictionary: an address with methods, and the name. What lies there is Swift's, which sees
// to it that it outlives the state.

#include "internal.h"

// Marks our userdata, so that a method can tell it from any other by reading two words.
static const char dictionary_mark;

typedef struct dictionary {
  const void *mark;
  void *address;
} dictionary;

static dictionary *test(lua_State *L, int index) {
  dictionary *found = lua_touserdata(L, index);  // NULL for what is no userdata; the length of a light one is 0
  if (found == NULL || lua_rawlen(L, index) != sizeof(dictionary)) return NULL;
  return found->mark == &dictionary_mark ? found : NULL;
}

static const char type_name[] = "shared dictionary";

void *mp_check_dictionary(lua_State *L, int index) {
  dictionary *found = test(L, index);
  if (found == NULL) luaL_typeerror(L, index, type_name);
  return found->address;
}

static int describe_dictionary(lua_State *L) {
  mp_check_dictionary(L, 1);
  lua_getiuservalue(L, 1, 1);
  lua_pushfstring(L, "%s (%s)", type_name, lua_tostring(L, -1));
  return 1;
}

static int assign_dictionary(lua_State *L) {
  return luaL_error(L, "cannot set '%s' on a shared dictionary; use its method set", luaL_tolstring(L, 2, NULL));
}

void mp_install_dictionaries(lua_State *L, mp_state *state) {
  lua_newtable(L);
  lua_pushvalue(L, -1);
  state->dictionary_methods = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_createtable(L, 0, 5);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, assign_dictionary);
  lua_setfield(L, -2, "__newindex");
  lua_pushcfunction(L, describe_dictionary);
  lua_setfield(L, -2, "__tostring");
  lua_pushstring(L, type_name);
  lua_setfield(L, -2, "__name");
  lua_pushstring(L, type_name);
  lua_setfield(L, -2, "__metatable");
  state->dictionary_metatable = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pop(L, 1);
}

void mp_push_dictionary(lua_State *L, const mp_value *value) {
  dictionary *made = lua_newuserdatauv(L, sizeof *made, 1);
  made->mark = &dictionary_mark;
  made->address = (void *)(intptr_t)value->integer;
  lua_rawgeti(L, LUA_REGISTRYINDEX, mp_state_of(L)->dictionary_metatable);
  lua_setmetatable(L, -2);
  lua_pushlstring(L, value->base, (size_t)value->index);
  lua_setiuservalue(L, -2, 1);
}
