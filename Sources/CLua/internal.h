// What the C files of the bridge share with each other and with nobody else. Functions marked RAISES may longjmp: call them only
// from C that itself runs inside a protected call.
#ifndef MOONPORT_BRIDGE_INTERNAL_H
#define MOONPORT_BRIDGE_INTERNAL_H

#include <lua5.4/lauxlib.h>
#include <lua5.4/lua.h>
#include <lua5.4/lualib.h>

#include "bridge.h"

// Marks a declaration that may raise a Lua error.
#define RAISES

// The bridge's record of the state that `L` belongs to.
static inline mp_state *mp_state_of(lua_State *L) { return *(mp_state **)lua_getextraspace(L); }

// Pushes one plain value; of MP_PLAIN_LIST all that it has, in order.
RAISES void mp_push(lua_State *L, const mp_value *value);

// Packing into the state's buffer: begin, any number of values, settle each, use them, end.
void mp_plain_begin(lua_State *L);
// Gives back what is larger than usual. The packed bytes are gone.
void mp_plain_end(lua_State *L);
// Gives back all of it, before the state is closed.
void mp_plain_close(lua_State *L);
// Packs the value at `index` as MP_PLAIN. NULL, or the message why not, which lies on top of the stack.
RAISES const char *mp_pack(lua_State *L, int index, mp_value *value);
// Packs `count` values from `first` on as MP_PLAIN_LIST; where one is refused, `culprit` has its index.
RAISES const char *mp_pack_list(lua_State *L, int first, int count, mp_value *value, int *culprit);
// Gives a packed value its address, once nothing more is packed.
void mp_pack_settle(lua_State *L, mp_value *value);
// Pushes what packed bytes say, or raises where they are damaged.
RAISES void mp_unpack(lua_State *L, const char *base, size_t count);
RAISES void mp_unpack_list(lua_State *L, const char *base, size_t count);

// The connection object at `index`, or an argument error.
RAISES int64_t mp_check_connection(lua_State *L, int index);
// Its id, or 0 when the value is no connection object. Never raises.
int64_t mp_test_connection(lua_State *L, int index);
// The address behind the shared dictionary at `index`, or an argument error.
RAISES void *mp_check_dictionary(lua_State *L, int index);
// Pushes a new object for the shared dictionary of an MP_DICTIONARY.
RAISES void mp_push_dictionary(lua_State *L, const mp_value *value);
// Makes the metatable and the method table of shared dictionaries.
RAISES void mp_install_dictionaries(lua_State *L, mp_state *state);

// Makes the metatable and the method table of connection objects.
RAISES void mp_install_connections(lua_State *L, mp_state *state);

// Replaces coroutine.resume and coroutine.wrap by versions that let waits pass through.
RAISES void mp_install_coroutines(lua_State *L);
// Suspends `L` until it is woken; to be returned from a C function.
RAISES int mp_wait(lua_State *L);

// Message handler for lua_pcall: the message with a traceback.
RAISES int mp_traceback(lua_State *L);

// Arms the budget of the protected call that is about to run on `L`; false when there is none, or when the call is made inside
// another one whose budget goes on.
bool mp_budget_arm(mp_state *state, lua_State *L, uint64_t budget_ns);
// Ends the budget that was armed.
void mp_budget_disarm(mp_state *state, lua_State *L);
// Has a running budget count in `L` too, which is about to run or to go on; harmless without one. Never raises.
void mp_budget_inherit(mp_state *state, lua_State *L);

#endif
