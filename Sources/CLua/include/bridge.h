// The bridge between Swift and one lua_State: plain values in, plain values out.
//
// Lua raises errors with longjmp, which must never cross a Swift frame. So everything in Lua's API that can raise is called
// in the C files of this target, inside a protected call, and Swift sees only the functions below. None of them raises: each
// either cannot fail, or reports failure as a value. Functions that Swift offers to scripts are described by `mp_function`;
// the trampoline reads and checks their arguments, calls Swift, and after Swift has returned pushes, yields or raises.
//
// This target knows nothing of sockets, codecs or workers.
#ifndef MOONPORT_BRIDGE_H
#define MOONPORT_BRIDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua5.4/lua.h>

#include "blocks.h"

// MARK: Values

// What an `mp_value` holds.
enum {
  MP_NIL = 0,
  MP_BOOLEAN = 1,    // `integer` is 0 or 1
  MP_INTEGER = 2,    // `integer`
  MP_NUMBER = 3,     // `number`
  MP_BYTES = 4,      // `base` and `integer` bytes; owned by whoever made the value
  MP_HANDLE = 5,     // a connection object; `integer` is its id
  MP_REFERENCE = 6,  // a registry reference in `index` (luaL_ref); as an argument the receiver owns it
  MP_STACK = 7,      // a value left on the Lua stack at `index`: its type is in `integer`
  MP_LIST = 8,       // result only: `base` points to `integer` mp_values, pushed as a sequence
  MP_GIVEN = 9,      // as MP_REFERENCE, and the bridge gives the reference back once the value is pushed
  MP_PLAIN = 10,     // a packed plain value: `base` and `integer` bytes; as an argument valid until the function returns or calls Lua
  MP_PLAIN_LIST = 11,  // a packed list of plain values; as a result all of them, in order, and only as the last result
  MP_DICTIONARY = 12,  // a shared dictionary: its address in `integer`; as a result with its name, `index` bytes at `base`
};

// One plain value on its way between Swift and Lua.
typedef struct mp_value {
  int32_t kind;
  int32_t index;
  int64_t integer;
  double number;
  const char *base;
} mp_value;

// Bytes that stay where they are until Lua has copied them; `base` is NULL for none at all, not for an empty string.
typedef struct mp_bytes {
  const char *base;
  size_t count;
} mp_bytes;

// MARK: Functions offered to scripts

// Bounds of packed plain data. Bytes of one value or list: a quarter of what may wait in a mailbox. Tables in tables: more than data
// that people write has, and little on the C stack. Values of one list: as many as a Lua stack takes beside what else is on it.
enum { MP_PLAIN_BYTES_MAX = 16 << 20, MP_PLAIN_DEPTH_MAX = 100, MP_PLAIN_VALUES_MAX = 10000 };

// The most declared arguments of one function, and the most results: the longest signature in use has 16.
enum { MP_ARGUMENTS_MAX = 20, MP_RESULTS_MAX = 4 };

// What the trampoline does once Swift has returned.
enum {
  MP_RETURN = 0,  // push `results`
  MP_WAIT = 1,    // suspend the calling coroutine until `mp_resume_waiting`
  MP_RAISE = 2,   // raise results[0] (bytes) as an error with the script's position
  MP_TYPE = 3,    // raise an argument error: argument results[0].integer should have been what results[1] says
  MP_ENCODE = 4,  // call the function results[0] with results[1] and the message, then Swift again with `encoded` set
};

// One call from a script, valid while the function runs.
typedef struct mp_call {
  lua_State *thread;
  int32_t outcome;
  int32_t argument_count;  // arguments the script gave
  int32_t variadic_first;  // stack index of the first variadic argument, when the signature ends in '*'
  int32_t encoded;         // stack index of the string that MP_ENCODE made, 0 before
  int32_t result_count;
  mp_value arguments[MP_ARGUMENTS_MAX];
  mp_value results[MP_RESULTS_MAX];
} mp_call;

// The longest suffix of an outbox, in bytes.
enum { MP_SUFFIX_MAX = 24 };

// A message that was cut off a connection's bytes ahead of its time.
typedef struct mp_cut {
  mp_bytes message;
  size_t end;  // what comes behind it, from the beginning of those bytes
} mp_cut;

// Room at the end of a connection's send queue that methods with a direct way fill without asking Swift, and the messages to be
// handed over meanwhile. Swift opens it for the connection whose messages are handled, and is told what was put into it and taken
// before it is asked for anything else and when the run ends: until then nothing but answering these messages happens.
typedef struct mp_outbox {
  char *next;  // where the next message goes; NULL while it is closed
  char *begin, *end;
  uint32_t messages;              // how many lie between `begin` and `next`
  uint8_t suffix_count;           // bytes that `suffix` holds
  char suffix[MP_SUFFIX_MAX];     // what goes behind each message of a method that frames
  const mp_cut *cut, *cut_end;    // what is handed over next
  size_t taken;                   // how many were
  // Tells Swift what was put in, in bytes and messages, and how many messages were taken.
  void (*closed)(void *context, size_t count, uint32_t messages, size_t taken);
} mp_outbox;

// A function that Swift offers to scripts.
//
// `signature` has one letter per argument: c connection, s string (numbers convert), i integer, n number, b boolean, f function
// (arrives as a reference that the receiver owns), h shared dictionary, d destination (a connection or its id), a anything (strings, numbers and booleans arrive as such, the rest as
// MP_STACK), p plain data (strings, numbers and booleans arrive as such, tables as MP_PLAIN); a '?' behind a letter makes it optional (absent or nil arrives as MP_NIL); a final '*' repeats the last letter
// without limit: 's', or 'm' for messages of any type of which numbers become strings (`mp_call_bytes` reads them), 'p' for
// plain data, all of which arrives as one MP_PLAIN_LIST, or 'r' for the same where the arguments are some function's results.
typedef struct mp_function {
  const char *name;       // "connection:send" and "shared:get" become methods, any other name a field of the native table
  const char *signature;
  bool takes_functions;   // the signature has an 'f'
  bool takes_plain;       // the signature has a 'p' or an 'r'
  bool waits;             // may suspend; calling it where a coroutine cannot yield raises before Swift is asked
  void (*body)(void *context, mp_call *call);
  // The way of nearly every call of a method with one string, without reading arguments by signature: true when that is all there
  // was to do, and the script gets `true`; false has `body` called, which decides everything else. It may open `outbox` for the
  // calls that follow, unless that is NULL: the connection is not the one whose messages are handled. NULL where there is none.
  bool (*direct)(void *context, int64_t id, const char *base, size_t count, mp_outbox *outbox);
  bool frames;            // what the direct way sends gets the outbox's suffix
} mp_function;

// The i-th variadic string of a call (0-based), or NULL when it is no string. Never raises: the trampoline has made numbers
// strings already.
const char *mp_call_bytes(const mp_call *call, int32_t i, size_t *count);
// Memory of the state for results of a call: `count` bytes, aligned for mp_values, valid until the next use. NULL when there is none.
void *mp_call_room(const mp_call *call, size_t count);
// What MP_ENCODE made, or NULL before.
const char *mp_call_encoded(const mp_call *call, size_t *count);

// MARK: A state

// Allocation bookkeeping of one state, in bytes.
typedef struct mp_memory {
  size_t used;
  size_t notice;       // above it an allocation is looked at; SIZE_MAX = never
  size_t soft;         // above it a run that takes much gets an error, unless a collection helps; 0 = none
  size_t settled;      // what was held after the last collection because of it
  size_t run_start;    // what was held when the run began
  size_t handler_start;  // and when the last handler of a batch began, which is a run of its own for the limits
  size_t much;         // what a run may take before the state counts as swollen; SIZE_MAX = anything
  size_t limit;        // an allocation that would pass it is refused; 0 = none
  uint64_t exhausted;  // how often a script got the error of the soft limit
  uint64_t refused;    // how often an allocation was refused
  bool wants_collection;  // one of both has happened since `mp_recover_memory`
  bool is_swollen;     // much was held since `mp_collect`, or still is: what is freed should go back to the system
  int64_t fail_after;  // for tests: the allocation that many requests from now fails, and all behind it; < 0 = off
  mp_blocks blocks;
} mp_memory;

// The run of Lua code that goes on, and what is over its bounds. A run lasts from where Swift starts or resumes Lua until Lua waits,
// returns or fails; what it starts itself is part of it. Fields that two threads touch are accessed atomically.
typedef struct mp_guard {
  uint64_t run;          // counts the beginnings and ends of runs, so it is odd during one; the watchdog reads it
  uint64_t budget_ns;    // CPU time of one run, 0 = no bound; the watchdog reads it
  uint64_t over;         // the run that is over its budget; the watchdog writes it
  uint64_t asked;        // the run whose place the watchdog asks for
  uint64_t ended_run;    // the last run that the hook has ended
  uint64_t ended_count;  // how many it has ended
  uint64_t reason_run;   // the run that `reason` is of
  char *reason;          // what a run that the hook has ended failed for, with a traceback
  size_t reason_count;
  bool is_loading;       // which option the budget was given by
  bool has_reason;       // the run that has just failed did so for `reason`
} mp_guard;

struct mp_watch;

// The buffer that plain data is packed into, and the tables that were met on the way.
typedef struct mp_plain {
  char *base;
  size_t count;     // bytes
  size_t capacity;  // bytes
  const void **seen;     // a hash set, at most half full
  size_t seen_count;     // tables
  size_t seen_capacity;  // places, a power of two
} mp_plain;

// One lua_State with what the bridge keeps beside it; the bridge finds it from any thread of the state by lua_getextraspace.
typedef struct mp_state {
  lua_State *main;
  void *context;             // handed to every mp_function
  mp_memory memory;
  int32_t methods;               // reference of the table of connection methods
  int32_t natives;               // reference of the table of native functions
  int32_t metatable;             // reference of the metatable of connection objects
  int32_t dictionary_methods;    // reference of the table of methods of shared dictionaries
  int32_t dictionary_metatable;  // reference of their metatable
  mp_guard guard;
  struct mp_watch *watch;        // what the watchdog knows of it
  lua_State *running;            // the Lua thread that runs at this moment; NULL between runs
  mp_outbox outbox;
  const void *handled;           // the connection object whose messages are handled at this moment; NULL at other times
  const char *stack_base;        // where the run's C stack begins
  int32_t unyieldable;           // coroutines that run at this moment and were resumed from where nothing can wait
  mp_plain plain;                // where plain data is packed
  char *room;                    // see mp_call_room
  size_t room_bytes;
  mp_call wake;                  // what the coroutine being resumed by mp_resume_waiting gets
} mp_state;

// Opens a state with the standard libraries. NULL when memory does not suffice.
mp_state *mp_open(void *context, size_t memory_limit);
// Closes the state; runs pending finalizers.
void mp_close(mp_state *state);
// Adds the functions. The array and its strings must outlive the state. False when memory does not suffice.
bool mp_register(mp_state *state, const mp_function *functions, int32_t count);

// Sets both limits in bytes, 0 for none. Above `soft` a run that takes much gets an error, in the middle between both every run that
// takes anything; above `hard` allocations are refused.
void mp_set_memory_limits(mp_state *state, size_t soft, size_t hard);
// Collects garbage if memory has run out since the last time, so that the next run has room; true when it had. `mp_collect` should
// follow, when what else goes with a failed run has gone. Not to be called during a run.
bool mp_recover_memory(mp_state *state);
// Whether more than half of what the soft limit allows for is in use.
bool mp_is_full(const mp_state *state);

// MARK: Budgets and the watchdog

// What the watchdog reports.
enum {
  MP_STUCK = 1,       // a run is over its budget, or blocked for seconds, and does not come back to Lua code
  MP_FREED = 2,       // a run that was reported has ended
  MP_PAST_LIMIT = 3,  // a run that was reported is past the stuck limit
};

// A report: `place` is "file:line" of the script, or empty; `elapsed_ns` is how long the run goes on. Called on the watchdog's
// thread, which holds its lock: it must neither wait nor call this interface.
typedef void (*mp_report)(void *context, int32_t event, const char *place, uint64_t elapsed_ns);

// Sets the CPU time that a run may take (0 = no bound), and what becomes of one that cannot be ended: it is reported (NULL = to
// nobody), and once more when it has been stuck for `stuck_limit_ns` (0 = never).
void mp_guard_runs(mp_state *state, uint64_t budget_ns, uint64_t stuck_limit_ns, mp_report report, void *context);
// Ends the present run, and all later ones until `mp_guard_runs`, as if they were over their budget. For any thread.
void mp_end_runs(mp_state *state);

// MARK: Protected calls on the main thread

// What a protected call left: values on the main stack, which `mp_discard` drops.
typedef struct mp_outcome {
  int32_t status;  // LUA_OK or an error code; on error `results[0]` is the message with its traceback
  int32_t base;    // the main stack's height before the call
  int32_t count;
  mp_value results[MP_RESULTS_MAX];
} mp_outcome;

// A function by its reference, and the arguments it is started with.
typedef struct mp_start {
  int32_t function;
  int32_t count;
  mp_value arguments[6];
} mp_start;

// Messages that a handler is called with one after the other on the same thread, which saves ending and starting it: when it has
// returned without having waited, `next` is asked for another one; no base ends the run.
typedef struct mp_messages {
  int32_t function;  // reference of the handler
  int32_t object;    // reference of the connection object, its first argument
  mp_bytes first;
  mp_bytes (*next)(void *context);
} mp_messages;

// Calls a function under protection, with a traceback on error. `budget_ns` of thread CPU time end it with the error "budget
// exceeded"; 0 is the state's own budget. Inside a run that goes on, that run's budget holds.
void mp_protected_call(mp_state *state, const mp_start *start, uint64_t budget_ns, mp_outcome *outcome);
// Compiles one part of the prelude and calls it with the prelude's table, the native table and the methods' table. `*table` is a
// reference to the first, made where it is LUA_NOREF; parts find there what earlier ones have put into it.
void mp_run_prelude(mp_state *state, int32_t *table, const char *source, size_t count, const char *name,
                    mp_outcome *outcome);
// The function in field `name` of a referenced table as a new reference; LUA_NOREF when there is none or memory is short.
int32_t mp_field_reference(mp_state *state, int32_t table, const char *name);
// Drops what an outcome left on the main stack; outcomes are discarded in the reverse order of their calls.
void mp_discard(mp_state *state, const mp_outcome *outcome);
// Keeps the i-th result of an outcome, of whatever type, as a reference; LUA_NOREF when memory is short.
int32_t mp_keep(mp_state *state, const mp_outcome *outcome, int32_t i);
// A string as a reference; LUA_NOREF when memory is short.
int32_t mp_string_reference(mp_state *state, const char *base, size_t count);
// Gives a reference back. Harmless for LUA_NOREF and LUA_REFNIL.
void mp_unreference(mp_state *state, int32_t reference);
// A full collection. If the state is swollen, what is free goes back to the system.
void mp_collect(mp_state *state);
// Gives what is free already back to the system: the blocks that the state keeps for reuse, and what the C library keeps.
void mp_give_back(mp_state *state);

// MARK: Coroutines

// A new Lua thread anchored in the registry. NULL when memory does not suffice.
lua_State *mp_thread_new(mp_state *state, int32_t *reference);
// Starts a function on an idle thread. Returns LUA_OK, LUA_YIELD or an error code.
int32_t mp_thread_start(mp_state *state, lua_State *thread, mp_start *start);
// Starts a handler of messages on an idle thread. Returns as above.
int32_t mp_thread_start_messages(mp_state *state, lua_State *thread, const mp_messages *messages);
// Resumes a thread that waits; `state->wake` says what the waiting call returns or raises.
int32_t mp_thread_resume(mp_state *state, lua_State *thread);
// True when the suspended thread waits on a function of ours; false when the script yielded by itself.
bool mp_thread_waits(lua_State *thread);
// After LUA_OK: true when the function returned `false` as its first value.
bool mp_thread_returned_false(lua_State *thread);
// Makes a finished thread ready for the next start.
void mp_thread_clear(lua_State *thread);
// After an error: the message with a traceback of `thread`, in outcome->results[0], on the main stack until mp_discard.
void mp_thread_describe(mp_state *state, lua_State *thread, mp_outcome *outcome);
// Ends a thread that failed or waits: closes its pending variables and gives its reference back.
void mp_thread_end(mp_state *state, lua_State *thread, int32_t reference);

// MARK: Connection objects

// Makes the object that scripts see as `conn` and anchors it. LUA_NOREF when memory does not suffice.
int32_t mp_connection_new(mp_state *state, int64_t id, const char *peer, size_t peer_count, const char *address,
                          size_t address_count);

#endif
