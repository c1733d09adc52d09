// What the C files of the bridge share with each other and with nobody else. Functions marked RAISES may longjmp: call them only
// from C that itself runs inside a protected call.
#ifndef MOONPORT_BRIDGE_INTERNAL_H
#define MOONPORT_BRIDGE_INTERNAL_H

#include <string.h>

#include <lua5.4/lauxlib.h>
#include <lua5.4/lua.h>
#include <lua5.4/lualib.h>

#include "bridge.h"

// Marks a declaration that may raise a Lua error.
#define RAISES

// Marks what runs in a signal handler: the thread sanitizer's own code may be what the signal has interrupted.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANITIZES_THREADS 1
#define IN_SIGNAL __attribute__((disable_sanitizer_instrumentation))
#endif
#endif
#ifndef IN_SIGNAL
#define IN_SIGNAL
#endif

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

// The object that scripts see as `conn`.
typedef struct mp_connection {
  const void *mark;  // tells our userdata from any other by reading two words
  int64_t id;
} mp_connection;

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
// Pushes "file:line: " of the innermost Lua function that runs, as luaL_where gives it; an empty string where there is none.
RAISES void mp_push_place(lua_State *L);

// The setmetatable, coroutine.close and other functions of the standard libraries as scripts may have them.
RAISES void mp_install_sandbox(lua_State *L);

// MARK: Runs (guard.c, watchdog.c)

// The state whose runs the calling thread makes, for the handler of the watchdog's signal.
extern _Thread_local mp_state *mp_bound;
// Makes it `state`.
void mp_bind(mp_state *state);
// Undoes that, so that the state may go to another thread.
void mp_unbind(mp_state *state);
// Makes and ends what the watchdog knows of a state; false without memory.
bool mp_watch_begin(mp_state *state);
void mp_watch_end(mp_state *state);
// Has the watchdog look at once: a budget begins where there was none.
void mp_watch_wake(void);

// Whether the run that goes on is over its budget.
bool mp_run_is_spent(mp_state *state);
// Sets the hook that ends or bounds the run on a Lua thread. Never raises; may be called from a signal handler.
void mp_arm(lua_State *L);
bool mp_is_armed(lua_State *L);
// Whether the hook has ended this dead thread. Its pending variables must not be closed: Lua leaves hooks switched off in a thread
// that a hook has ended, so nothing could end a __close function any more.
bool mp_was_ended(lua_State *thread);
// Sets the budget of the runs that begin from now on.
void mp_run_set_budget(mp_state *state, uint64_t budget_ns, bool is_loading);
// What the run failed for, if the hook has ended it and `status` is what came of that; NULL otherwise.
const char *mp_run_reason(mp_state *state, int status, size_t *count);
// lua_Alloc (manual 4.6) of a state: counts, looks closer above the limits, and can be told to fail for tests.
void *mp_allocate(void *ud, void *block, size_t old_size, size_t new_size);
// Whether so much memory is held that the run may have to be told.
bool mp_memory_is_short(const mp_state *state);
// Collects garbage; whether the run must get an error because that does not suffice. To be called by the hook.
bool mp_memory_fails_run(mp_state *state, lua_State *L);

// Whether the run that goes on has taken more memory than may go unnoticed.
bool mp_run_took_much(const mp_state *state);

// Says that the run is over, or waits. What one that took much has left is garbage, or soon will be, and the collector's next time
// may be far.
static inline void mp_note_growth(mp_state *state) {
  mp_memory *memory = &state->memory;
  if (memory->used > memory->run_start && memory->used - memory->run_start > memory->much) memory->is_swollen = true;
}

// MARK: The C library's allocator (heap.c)

// Sets how much it keeps of what is freed; once is enough.
void mp_heap_prepare(void);
// Gives back to the system what was freed: all of it, where the calling thread had it.
void mp_heap_give_back(void);

// MARK: Outboxes

// Puts a message into the outbox; false where there is none open, or no room.
static inline bool mp_outbox_put(mp_outbox *outbox, const char *base, size_t count, bool frames) {
  size_t suffix = frames ? outbox->suffix_count : 0;
  if (outbox->next == NULL || count + suffix > (size_t)(outbox->end - outbox->next)) return false;
  memcpy(outbox->next, base, count);
  outbox->next += count;
  if (suffix == 1) {
    *outbox->next = outbox->suffix[0];
  } else {
    memcpy(outbox->next, outbox->suffix, suffix);
  }
  outbox->next += suffix;
  outbox->messages++;
  return true;
}

// Tells Swift what was put into the outbox, if it is open.
static inline void mp_outbox_close(mp_state *state) {
  mp_outbox *outbox = &state->outbox;
  if (outbox->next == NULL) return;
  size_t count = (size_t)(outbox->next - outbox->begin);
  outbox->next = NULL;
  outbox->closed(state->context, count, outbox->messages, outbox->taken);
}

// The message to be handed over next; no base where there is none. Asks `next` unless it lies ready.
static inline mp_bytes mp_outbox_take(mp_state *state, mp_bytes (*next)(void *context)) {
  mp_outbox *outbox = &state->outbox;
  if (outbox->next != NULL && outbox->cut != outbox->cut_end) {
    outbox->taken++;
    return (outbox->cut++)->message;
  }
  mp_outbox_close(state);
  return next(state->context);
}

// Says that `L` runs from now on: a new run, or part of the one that goes on. Returns what `mp_leave` needs.
static inline lua_State *mp_enter(mp_state *state, lua_State *L) {
  lua_State *outer = state->running;
  if (outer == NULL) {
    if (mp_bound != state) mp_bind(state);
    state->stack_base = __builtin_frame_address(0);
    state->memory.run_start = state->memory.handler_start = state->memory.used;
    __atomic_store_n(&state->guard.run, state->guard.run + 1, __ATOMIC_RELAXED);
  }
  __atomic_store_n(&state->running, L, __ATOMIC_RELAXED);
  if (outer != NULL && mp_run_is_spent(state)) mp_arm(L);
  return outer;
}

// Says that what `mp_enter` began is over, and so the run unless it was part of another.
static inline void mp_leave(mp_state *state, lua_State *outer) {
  mp_outbox_close(state);
  __atomic_store_n(&state->running, outer, __ATOMIC_RELAXED);
  if (outer == NULL) {
    __atomic_store_n(&state->guard.run, state->guard.run + 1, __ATOMIC_RELAXED);
  } else if (mp_run_is_spent(state)) {
    mp_arm(outer);
  }
}

// Says that the next handler of a batch begins: a run of its own.
static inline void mp_next_run(mp_state *state) {
  state->memory.handler_start = state->memory.used;
  __atomic_store_n(&state->guard.run, state->guard.run + 2, __ATOMIC_RELAXED);
}

// Whether there is too little C stack left for another level of coroutines that resume or close each other. Lua bounds that too, but
// begins to count anew where a coroutine is closed. A quarter of the smallest stack that a thread commonly gets, 2 MiB.
static inline bool mp_stack_is_deep(const mp_state *state) {
  enum { STACK_BYTES_MAX = 1 << 19 };
  const char *here = __builtin_frame_address(0);
  return state->stack_base - here > STACK_BYTES_MAX;
}

#endif
