// The functions of the standard libraries that a script gets in a form that cannot harm the server: they keep `__gc` out of
// metatables, and hands off metatables and functions that the server itself depends on. Which functions a script gets at all is
// decided in the prelude (Environments.lua).
//
// `__gc` is refused because a finalizer runs with hooks switched off, in the middle of whatever allocates: nothing could end an
// endless loop in one.

#include <string.h>

#include "internal.h"

// Raises where the table at `index` has a finalizer.
RAISES static void refuse_finalizer(lua_State *L, int index, const char *name) {
  if (!lua_istable(L, index)) return;
  lua_pushliteral(L, "__gc");
  if (lua_rawget(L, index) != LUA_TNIL) {
    luaL_error(L, "%s: a metatable must not have __gc: nothing could end a finalizer that takes too long; "
                  "use a to-be-closed variable, on_close or on_stop", name);
  }
  lua_pop(L, 1);
}

// setmetatable, as the manual has it (6.1), without finalizers.
static int set_metatable(lua_State *L) {
  int type = lua_type(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return luaL_error(L, "cannot change a protected metatable");
  lua_settop(L, 2);
  refuse_finalizer(L, 2, "setmetatable");
  lua_setmetatable(L, 1);
  return 1;
}

// debug.setmetatable for tables: the metatables of all other types are the server's, or shared by all scripts.
static int debug_set_metatable(lua_State *L) {
  int type = lua_type(L, 2);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
  if (!lua_istable(L, 1)) return luaL_error(L, "debug.setmetatable: only a table's metatable can be changed");
  lua_settop(L, 2);
  refuse_finalizer(L, 2, "debug.setmetatable");
  lua_setmetatable(L, 1);
  return 1;
}

// debug.getmetatable: what `__metatable` hides stays hidden for all types but tables.
static int debug_get_metatable(lua_State *L) {
  luaL_checkany(L, 1);
  if (!lua_istable(L, 1) && luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return 1;
  if (!lua_getmetatable(L, 1)) lua_pushnil(L);
  return 1;
}

// collectgarbage, but for what would stop the collector for everybody.
static int collect_garbage(lua_State *L) {
  const char *option = luaL_optstring(L, 1, "collect");
  if (strcmp(option, "stop") == 0) {
    return luaL_error(L, "collectgarbage: \"stop\" would let the memory of this worker grow for all scripts; "
                         "\"incremental\" and \"generational\" tune the collector");
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

// Whether the function on top of the stack is the server's: its variables are nobody else's. Pops it.
static bool is_own(lua_State *L) {
  lua_Debug frame;
  lua_getinfo(L, ">S", &frame);
  return *frame.what == 'C' || strcmp(frame.source, "=moonport") == 0;
}

// debug.getupvalue, setupvalue and upvalueid: the server's own functions have no upvalues for them. Upvalue: the original.
static int with_function(lua_State *L) {
  if (lua_isfunction(L, 1)) {
    lua_pushvalue(L, 1);
    if (is_own(L)) return lua_pushnil(L), 1;
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

// debug.upvaluejoin, likewise.
static int join_upvalues(lua_State *L) {
  for (int index = 1; index <= 3; index += 2) {
    if (!lua_isfunction(L, index)) continue;
    lua_pushvalue(L, index);
    if (is_own(L)) return luaL_argerror(L, index, "a function of the script expected");
  }
  return with_function(L);
}

// debug.getlocal and setlocal: the server's own functions have no locals for them.
static int with_level(lua_State *L) {
  lua_State *thread = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;
  int level_index = thread == L && !lua_isthread(L, 1) ? 1 : 2;
  lua_Debug frame;
  if (lua_isnumber(L, level_index)) {
    lua_Integer level = lua_tointeger(L, level_index);
    if (level >= 0 && level <= INT_MAX && lua_getstack(thread, (int)level, &frame)) {
      lua_getinfo(thread, "S", &frame);
      if (strcmp(frame.source, "=moonport") == 0) return lua_pushnil(L), 1;
    }
    // The original is one level further in.
    if (thread == L && level >= 0 && level < INT_MAX) {
      lua_pushinteger(L, level + 1);
      lua_replace(L, level_index);
    }
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

// Replaces field `name` of the table on top of the stack by `function`, which gets the original as its upvalue.
RAISES static void replace(lua_State *L, const char *name, lua_CFunction function) {
  lua_getfield(L, -1, name);
  lua_pushcclosure(L, function, 1);
  lua_setfield(L, -2, name);
}

static int refuse_writing(lua_State *L) {
  return luaL_error(L, "this metatable is shared by all scripts of the server: it cannot be changed");
}

// Has getmetatable give something to read from instead of the metatable on top of the stack, which scripts share. Pops it.
RAISES static void protect(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 3);
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, -5) != 0) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, refuse_writing);
  lua_setfield(L, -2, "__newindex");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}

void mp_install_sandbox(lua_State *L) {
  static const char *const of_functions[] = {"getupvalue", "setupvalue", "upvalueid"};
  lua_pushglobaltable(L);
  replace(L, "setmetatable", set_metatable);
  replace(L, "collectgarbage", collect_garbage);
  lua_getfield(L, -1, LUA_DBLIBNAME);
  replace(L, "setmetatable", debug_set_metatable);
  replace(L, "getmetatable", debug_get_metatable);
  for (size_t i = 0; i < sizeof of_functions / sizeof *of_functions; i++) replace(L, of_functions[i], with_function);
  replace(L, "upvaluejoin", join_upvalues);
  replace(L, "getlocal", with_level);
  replace(L, "setlocal", with_level);
  lua_pop(L, 2);
  lua_pushliteral(L, "");
  if (lua_getmetatable(L, -1)) protect(L);
  lua_pop(L, 1);
  if (luaL_getmetatable(L, LUA_FILEHANDLE) == LUA_TTABLE) {
    protect(L);
  } else {
    lua_pop(L, 1);
  }
}
