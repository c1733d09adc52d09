// Unpacking of plain data: from the bytes that plain.c describes to values on a Lua stack. Damaged bytes are an error like any other:
// nothing is read beyond their end, and no more memory is asked for than bytes of their number can fill.

#include <math.h>
#include <string.h>

#include "internal.h"
#include "plain.h"

// Packed bytes being read.
typedef struct unpacking {
  lua_State *L;
  const unsigned char *at, *end;
  int depth;  // tables that are open
} unpacking;

static const char no_memory[] = "not enough memory";

RAISES static void damaged(unpacking *u) { luaL_error(u->L, "damaged plain data"); }

static size_t rest(const unpacking *u) { return (size_t)(u->end - u->at); }

RAISES static uint64_t take_varint(unpacking *u) {
  uint64_t number = 0;
  for (int shift = 0; shift < 64 && u->at < u->end; shift += 7) {
    unsigned char byte = *u->at++;
    number |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return number;
  }
  damaged(u);
  return 0;
}

RAISES static void unpack(unpacking *u);

// Pushes a table whose tag has been read.
RAISES static void unpack_table(unpacking *u) {
  uint32_t counts[2];
  if (rest(u) < sizeof counts || u->depth == MP_PLAIN_DEPTH_MAX) damaged(u);
  memcpy(counts, u->at, sizeof counts);
  u->at += sizeof counts;
  // Each value has a byte at least.
  if ((uint64_t)counts[0] + 2 * (uint64_t)counts[1] > rest(u)) damaged(u);
  luaL_checkstack(u->L, 4, no_memory);
  lua_createtable(u->L, (int)counts[0], (int)counts[1]);
  u->depth++;
  for (uint32_t i = 0; i < counts[0]; i++) {
    unpack(u);
    lua_rawseti(u->L, -2, (lua_Integer)i + 1);
  }
  for (uint32_t i = 0; i < counts[1]; i++) {
    unpack(u);
    int type = lua_type(u->L, -1);
    bool is_key = type == LUA_TSTRING || type == LUA_TBOOLEAN || (type == LUA_TNUMBER && !isnan(lua_tonumber(u->L, -1)));
    if (!is_key) damaged(u);
    unpack(u);
    lua_rawset(u->L, -3);
  }
  u->depth--;
}

// Pushes the next value.
RAISES static void unpack(unpacking *u) {
  lua_State *L = u->L;
  uint64_t bits = 0;
  double number = 0;
  if (rest(u) == 0) damaged(u);
  switch (*u->at++) {
    case TAG_NIL: lua_pushnil(L); return;
    case TAG_FALSE: lua_pushboolean(L, 0); return;
    case TAG_TRUE: lua_pushboolean(L, 1); return;
    case TAG_INTEGER:
      bits = take_varint(u);
      lua_pushinteger(L, (lua_Integer)((bits >> 1) ^ (0 - (bits & 1))));
      return;
    case TAG_NUMBER:
      if (rest(u) < sizeof number) damaged(u);
      memcpy(&number, u->at, sizeof number);
      u->at += sizeof number;
      lua_pushnumber(L, number);
      return;
    case TAG_STRING:
      bits = take_varint(u);
      if (bits > rest(u)) damaged(u);
      lua_pushlstring(L, (const char *)u->at, (size_t)bits);
      u->at += bits;
      return;
    case TAG_TABLE: unpack_table(u); return;
    default: damaged(u);
  }
}

void mp_unpack(lua_State *L, const char *base, size_t count) {
  unpacking u = {.L = L, .at = (const unsigned char *)base, .end = (const unsigned char *)base + count};
  unpack(&u);
  if (rest(&u) != 0) damaged(&u);
}

void mp_unpack_list(lua_State *L, const char *base, size_t count) {
  unpacking u = {.L = L, .at = (const unsigned char *)base, .end = (const unsigned char *)base + count};
  uint64_t values = take_varint(&u);
  if (values > rest(&u) || values > MP_PLAIN_VALUES_MAX) damaged(&u);
  luaL_checkstack(L, (int)values + 4, no_memory);
  for (uint64_t i = 0; i < values; i++) unpack(&u);
  if (rest(&u) != 0) damaged(&u);
}
