// Plain data: values packed into bytes that any other state can unpack. What may leave a state is nil, booleans, integers,
// floats, strings, and tables of them that form a tree; anything else is refused with the path to it.
// Nothing here runs Lua code: tables are read raw.

#include <stdio.h>
#include <string.h>

#include "internal.h"
#include "plain.h"

// Bytes of a packed table before its first value: its tag and two counts.
enum { TABLE_HEAD_BYTES = 9 };
// The longest varint of 64 bits.
enum { VARINT_BYTES_MAX = 10 };
// As much of the buffer, and of the set of seen tables, is kept for the next call: enough for a usual message, and little beside a state.
enum { KEPT_BYTES = 64 << 10, KEPT_TABLES = 1 << 10 };

// MARK: Memory

// Changes a block of the state's own memory, which its limit counts; NULL when that is refused.
static void *reallocate(lua_State *L, void *block, size_t old_bytes, size_t new_bytes) {
  void *ud = NULL;
  lua_Alloc allocate = lua_getallocf(L, &ud);
  return allocate(ud, block, block == NULL ? 0 : old_bytes, new_bytes);
}

static void drop_seen(lua_State *L, mp_plain *plain) {
  reallocate(L, (void *)plain->seen, plain->seen_capacity * sizeof *plain->seen, 0);
  plain->seen = NULL;
  plain->seen_count = plain->seen_capacity = 0;
}

static void drop_bytes(lua_State *L, mp_plain *plain) {
  reallocate(L, plain->base, plain->capacity, 0);
  plain->base = NULL;
  plain->count = plain->capacity = 0;
}

void mp_plain_begin(lua_State *L) { mp_state_of(L)->plain.count = 0; }

void mp_plain_end(lua_State *L) {
  mp_plain *plain = &mp_state_of(L)->plain;
  if (plain->capacity > KEPT_BYTES) drop_bytes(L, plain);
  if (plain->seen_capacity > KEPT_TABLES) drop_seen(L, plain);
}

void mp_plain_close(lua_State *L) {
  mp_plain *plain = &mp_state_of(L)->plain;
  drop_bytes(L, plain);
  drop_seen(L, plain);
}

// MARK: Packing

// One value being packed. Its tables lie on the Lua stack: `bottom` is the outermost, and each further level has the key that
// leads to its table and the table above that.
typedef struct packing {
  lua_State *L;
  mp_plain *plain;
  int bottom;
  int depth;            // tables that are open
  const char *problem;  // why the value at the present place cannot be packed
} packing;

static const char no_memory[] = "not enough memory";

static bool refuse(packing *p, const char *problem) {
  p->problem = problem;
  return false;
}

// Makes room for `count` bytes more.
static bool reserve(packing *p, size_t count) {
  mp_plain *plain = p->plain;
  if (count <= plain->capacity - plain->count) return true;
  if (count > MP_PLAIN_BYTES_MAX || plain->count + count > MP_PLAIN_BYTES_MAX) {
    return refuse(p, "more than 16 MiB of plain data");
  }
  size_t capacity = plain->capacity == 0 ? 256 : plain->capacity;
  while (capacity < plain->count + count) capacity *= 2;
  char *base = reallocate(p->L, plain->base, plain->capacity, capacity);
  if (base == NULL) return refuse(p, no_memory);
  plain->base = base;
  plain->capacity = capacity;
  return true;
}

static void put_varint(mp_plain *plain, uint64_t number) {
  for (; number >= 0x80; number >>= 7) plain->base[plain->count++] = (char)(number | 0x80);
  plain->base[plain->count++] = (char)number;
}

static bool put_tag(packing *p, int tag) {
  if (!reserve(p, 1)) return false;
  p->plain->base[p->plain->count++] = (char)tag;
  return true;
}

static bool put_integer(packing *p, lua_Integer number) {
  if (!reserve(p, 1 + VARINT_BYTES_MAX)) return false;
  p->plain->base[p->plain->count++] = TAG_INTEGER;
  put_varint(p->plain, ((uint64_t)number << 1) ^ (number < 0 ? ~(uint64_t)0 : 0));
  return true;
}

static bool put_number(packing *p, lua_Number number) {
  if (!reserve(p, 1 + sizeof number)) return false;
  p->plain->base[p->plain->count++] = TAG_NUMBER;
  memcpy(p->plain->base + p->plain->count, &number, sizeof number);
  p->plain->count += sizeof number;
  return true;
}

static bool put_string(packing *p, const char *base, size_t count) {
  if (count > MP_PLAIN_BYTES_MAX) return refuse(p, "more than 16 MiB of plain data");
  if (!reserve(p, 1 + VARINT_BYTES_MAX + count)) return false;
  p->plain->base[p->plain->count++] = TAG_STRING;
  put_varint(p->plain, count);
  memcpy(p->plain->base + p->plain->count, base, count);
  p->plain->count += count;
  return true;
}

static size_t slot_of(const mp_plain *plain, const void *table) {
  uint64_t hash = (uint64_t)(uintptr_t)table * 0x9e3779b97f4a7c15u;
  size_t slot = (size_t)(hash >> 32) & (plain->seen_capacity - 1);
  while (plain->seen[slot] != NULL && plain->seen[slot] != table) slot = (slot + 1) & (plain->seen_capacity - 1);
  return slot;
}

// Doubles the set of seen tables, which is kept at most half full.
static bool grow_seen(packing *p) {
  mp_plain *plain = p->plain;
  const void **old = plain->seen;
  size_t old_capacity = plain->seen_capacity, capacity = old_capacity == 0 ? 16 : 2 * old_capacity;
  const void **grown = reallocate(p->L, NULL, 0, capacity * sizeof *grown);
  if (grown == NULL) return refuse(p, no_memory);
  memset((void *)grown, 0, capacity * sizeof *grown);
  plain->seen = grown;
  plain->seen_capacity = capacity;
  for (size_t i = 0; i < old_capacity; i++) {
    if (old[i] != NULL) grown[slot_of(plain, old[i])] = old[i];
  }
  reallocate(p->L, (void *)old, old_capacity * sizeof *old, 0);
  return true;
}

// Remembers the table on top of the stack; refuses it when it was there before.
static bool see(packing *p) {
  mp_plain *plain = p->plain;
  const void *table = lua_topointer(p->L, -1);
  if (2 * plain->seen_count >= plain->seen_capacity && !grow_seen(p)) return false;
  size_t slot = slot_of(plain, table);
  if (plain->seen[slot] == table) {
    for (int level = 0; level < p->depth; level++) {
      if (lua_topointer(p->L, p->bottom + 2 * level) == table) return refuse(p, "a cycle cannot be plain data");
    }
    return refuse(p, "a table that occurs twice cannot be plain data");
  }
  plain->seen[slot] = table;
  plain->seen_count++;
  return true;
}

static const char *problem_of_type(lua_State *L, int index) {
  switch (lua_type(L, index)) {
    case LUA_TFUNCTION: return "a function cannot be plain data";
    case LUA_TTHREAD: return "a coroutine cannot be plain data";
    case LUA_TTABLE: return "a table as a key cannot be plain data";
    default:
      if (mp_test_connection(L, index) != 0) return "a connection cannot be plain data (its id can)";
      return "a userdata cannot be plain data";
  }
}

RAISES static bool pack_table(packing *p);

// Packs the value on top of the stack and leaves it there. False with the problem, and the way to it on the stack.
RAISES static bool pack(packing *p) {
  lua_State *L = p->L;
  size_t count = 0;
  switch (lua_type(L, -1)) {
    case LUA_TNIL: return put_tag(p, TAG_NIL);
    case LUA_TBOOLEAN: return put_tag(p, lua_toboolean(L, -1) ? TAG_TRUE : TAG_FALSE);
    case LUA_TNUMBER:
      if (lua_isinteger(L, -1)) return put_integer(p, lua_tointeger(L, -1));
      return put_number(p, lua_tonumber(L, -1));
    case LUA_TSTRING: {
      const char *base = lua_tolstring(L, -1, &count);
      return put_string(p, base, count);
    }
    case LUA_TTABLE: return pack_table(p);
    default: return refuse(p, problem_of_type(L, -1));
  }
}

// Packs the key below the top of the stack.
RAISES static bool pack_key(packing *p) {
  int type = lua_type(p->L, -2);
  if (type != LUA_TBOOLEAN && type != LUA_TNUMBER && type != LUA_TSTRING) {
    // The way leads to the table that has such a key.
    p->depth--;
    return refuse(p, type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TTHREAD
                         ? problem_of_type(p->L, -2) : "a userdata as a key cannot be plain data");
  }
  lua_pushvalue(p->L, -2);
  bool packed = pack(p);
  lua_pop(p->L, 1);
  return packed;
}

RAISES static bool pack_table(packing *p) {
  lua_State *L = p->L;
  if (p->depth == MP_PLAIN_DEPTH_MAX) return refuse(p, "tables more than 100 deep cannot be plain data");
  luaL_checkstack(L, 4, no_memory);
  if (lua_getmetatable(L, -1)) {
    lua_pop(L, 1);
    return refuse(p, "a table with a metatable cannot be plain data");
  }
  if (!see(p) || !reserve(p, TABLE_HEAD_BYTES)) return false;
  size_t head = p->plain->count;
  uint32_t counts[2] = {0, 0};
  bool in_sequence = true;
  p->plain->count += TABLE_HEAD_BYTES;
  p->depth++;
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    in_sequence = in_sequence && lua_isinteger(L, -2) && lua_tointeger(L, -2) == (lua_Integer)counts[0] + 1;
    counts[in_sequence ? 0 : 1]++;
    if ((!in_sequence && !pack_key(p)) || !pack(p)) return false;
    lua_pop(L, 1);
  }
  p->depth--;
  p->plain->base[head] = TAG_TABLE;
  memcpy(p->plain->base + head + 1, counts, sizeof counts);
  return true;
}

// MARK: The way to what is refused

// A text of bounded length; what does not fit is left out.
typedef struct way {
  char text[400];
  size_t count;
} way;

static void add(way *w, const char *text) {
  size_t count = strlen(text), room = sizeof w->text - 1 - w->count;
  if (count > room) count = room;
  memcpy(w->text + w->count, text, count);
  w->count += count;
  w->text[w->count] = '\0';
}

static bool is_name(const char *text, size_t count) {
  if (count == 0 || count > 40 || (text[0] >= '0' && text[0] <= '9')) return false;
  for (size_t i = 0; i < count; i++) {
    char c = text[i];
    if (c != '_' && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z')) return false;
  }
  return true;
}

// Adds one step: `.name`, `[3]` or `["a b"]`, strings cut and unprintable bytes replaced.
static void add_key(way *w, lua_State *L, int index) {
  char text[64];
  size_t count = 0;
  if (lua_type(L, index) == LUA_TSTRING) {
    const char *key = lua_tolstring(L, index, &count);
    if (is_name(key, count)) {
      if (w->count > 0) add(w, ".");
      add(w, key);
      return;
    }
    size_t kept = count < 40 ? count : 40;
    for (size_t i = 0; i < kept; i++) text[i] = key[i] >= ' ' && key[i] < 0x7f ? key[i] : '?';
    text[kept] = '\0';
    add(w, "[\"");
    add(w, text);
    add(w, kept < count ? "...\"]" : "\"]");
    return;
  }
  if (lua_type(L, index) == LUA_TBOOLEAN)
    snprintf(text, sizeof text, "[%s]", lua_toboolean(L, index) ? "true" : "false");
  else if (lua_isinteger(L, index))
    snprintf(text, sizeof text, "[%lld]", (long long)lua_tointeger(L, index));
  else
    snprintf(text, sizeof text, "[%.14g]", lua_tonumber(L, index));
  add(w, text);
}

// Replaces what packing left on the stack by a message such as `players[3].conn: a function cannot be plain data`.
RAISES static const char *explain(packing *p) {
  lua_State *L = p->L;
  way w = {.count = 0};
  // Of a way that is too long the end matters most.
  int first = p->depth > 8 ? p->depth - 8 : 0;
  if (first > 0) add(&w, "...");
  for (int level = first; level < p->depth; level++) add_key(&w, L, p->bottom + 2 * level + 1);
  lua_settop(L, p->bottom - 1);
  mp_plain_end(L);
  return w.count == 0 ? lua_pushstring(L, p->problem) : lua_pushfstring(L, "%s: %s", w.text, p->problem);
}

// Packs the value at `index` behind what is in the buffer.
RAISES static bool pack_at(packing *p, int index) {
  luaL_checkstack(p->L, 4, no_memory);
  p->depth = 0;
  p->bottom = lua_gettop(p->L) + 1;
  lua_pushvalue(p->L, index);
  if (!pack(p)) return false;
  lua_pop(p->L, 1);
  return true;
}

static void forget_seen(mp_plain *plain) {
  if (plain->seen_count > 0) memset((void *)plain->seen, 0, plain->seen_capacity * sizeof *plain->seen);
  plain->seen_count = 0;
}

const char *mp_pack(lua_State *L, int index, mp_value *value) {
  mp_plain *plain = &mp_state_of(L)->plain;
  packing p = {.L = L, .plain = plain};
  size_t start = plain->count;
  forget_seen(plain);
  if (!pack_at(&p, index)) return explain(&p);
  // The buffer may move yet: mp_pack_settle turns the offset into an address.
  *value = (mp_value){.kind = MP_PLAIN, .index = (int32_t)start, .integer = (int64_t)(plain->count - start)};
  return NULL;
}

const char *mp_pack_list(lua_State *L, int first, int count, mp_value *value, int *culprit) {
  mp_plain *plain = &mp_state_of(L)->plain;
  packing p = {.L = L, .plain = plain, .bottom = lua_gettop(L) + 1};
  size_t start = plain->count;
  *culprit = first;
  if (count > MP_PLAIN_VALUES_MAX) {
    p.problem = "more than 10000 values of plain data";
    return explain(&p);
  }
  forget_seen(plain);
  if (!reserve(&p, VARINT_BYTES_MAX)) return explain(&p);
  put_varint(plain, (uint64_t)count);
  for (; *culprit < first + count; ++*culprit) {
    if (!pack_at(&p, *culprit)) return explain(&p);
  }
  *value = (mp_value){.kind = MP_PLAIN_LIST, .index = (int32_t)start, .integer = (int64_t)(plain->count - start)};
  return NULL;
}

void mp_pack_settle(lua_State *L, mp_value *value) {
  if (value->kind == MP_PLAIN || value->kind == MP_PLAIN_LIST) value->base = mp_state_of(L)->plain.base + value->index;
}
