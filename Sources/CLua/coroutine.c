// Coroutines: the threads that handlers run on, and coroutine.resume and coroutine.wrap for scripts.
//
// A function of ours that waits yields a mark. In a coroutine that the script made itself, that yield arrives at the script's own
// resume; the versions here recognise it, wait in their turn, and go on in the inner coroutine once the outer one is woken. So
// waiting works at any depth, and the script's own yields stay its own.

#include "internal.h"

// MARK: Threads for handlers

typedef struct creation {
  lua_State *thread;
  int32_t reference;
} creation;

static int new_body(lua_State *L) {
  creation *c = lua_touserdata(L, 1);
  c->thread = lua_newthread(L);
  c->reference = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

lua_State *mp_thread_new(mp_state *state, int32_t *reference) {
  creation c = {NULL, LUA_NOREF};
  lua_State *L = state->main;
  lua_pushcfunction(L, new_body);
  lua_pushlightuserdata(L, &c);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    lua_pop(L, 1);
    return NULL;
  }
  *reference = c.reference;
  return c.thread;
}

static int start_done(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  return lua_gettop(L);
}

// The calls of a handler for one message after the other. The function and the object lie at the bottom of the stack; each call takes
// copies of them and the message behind. After a wait the run goes on in start_done: what `messages` points to, which lives on the
// stack of whoever started, is gone by then.
static int messages_body(lua_State *L) {
  enum { MESSAGES = 1, FUNCTION = 2, OBJECT = 3 };
  const mp_messages *messages = lua_touserdata(L, MESSAGES);
  mp_state *state = mp_state_of(L);
  mp_bytes (*next)(void *) = messages->next;
  mp_bytes message = messages->first;
  lua_rawgeti(L, LUA_REGISTRYINDEX, messages->function);
  lua_rawgeti(L, LUA_REGISTRYINDEX, messages->object);
  state->handled = lua_touserdata(L, OBJECT);
  while (true) {
    lua_pushvalue(L, FUNCTION);
    lua_pushvalue(L, OBJECT);
    lua_pushlstring(L, message.base, message.count);
    lua_callk(L, 2, 0, 0, start_done);
    message = mp_outbox_take(state, next);
    if (message.base == NULL) return 0;
    mp_next_run(state);
  }
}

// The body of every other thread of ours: it pushes what can raise, which Swift must not, inside the thread's own protection.
static int start_body(lua_State *L) {
  const mp_start *start = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, start->function);
  for (int32_t i = 0; i < start->count; i++) mp_push(L, &start->arguments[i]);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, start_done);
  return lua_gettop(L);
}

// Resumes a handler's thread. Of what it yields only our mark stays on its stack.
static int32_t run(mp_state *state, lua_State *thread, int arguments) {
  int results = 0;
  lua_State *outer = mp_enter(state, thread);
  int status = lua_resume(thread, state->main, arguments, &results);
  state->handled = NULL;
  if (status > LUA_YIELD) {
    size_t count = 0;
    state->guard.has_reason = mp_run_reason(state, status, &count) != NULL;
  }
  mp_note_growth(state);
  mp_leave(state, outer);
  if (status == LUA_YIELD && !mp_thread_waits(thread)) lua_pop(thread, results);
  return status;
}

int32_t mp_thread_start(mp_state *state, lua_State *thread, mp_start *start) {
  lua_pushcfunction(thread, start_body);
  lua_pushlightuserdata(thread, start);
  return run(state, thread, 1);
}

int32_t mp_thread_start_messages(mp_state *state, lua_State *thread, const mp_messages *messages) {
  lua_pushcfunction(thread, messages_body);
  lua_pushlightuserdata(thread, (void *)messages);
  return run(state, thread, 1);
}

int32_t mp_thread_resume(mp_state *state, lua_State *thread) {
  // Only the mark goes: below it lies what the waiting C function needs.
  if (mp_thread_waits(thread)) lua_pop(thread, 1);
  return run(state, thread, 0);
}

bool mp_thread_returned_false(lua_State *thread) {
  return lua_gettop(thread) > 0 && lua_isboolean(thread, 1) && !lua_toboolean(thread, 1);
}

void mp_thread_clear(lua_State *thread) {
  if (lua_gettop(thread) > 0) lua_settop(thread, 0);
}

typedef struct description {
  lua_State *thread;
} description;

static int describe_body(lua_State *L) {
  const description *d = lua_touserdata(L, 1);
  luaL_checkstack(L, 4, NULL);
  if (lua_gettop(d->thread) > 0 && lua_checkstack(d->thread, 1)) {
    lua_pushvalue(d->thread, -1);
    lua_xmove(d->thread, L, 1);
  } else {
    lua_pushliteral(L, "not enough memory");
  }
  // The address of a table says nothing to who reads the log.
  bool has_text = lua_isstring(L, 2) || luaL_getmetafield(L, 2, "__tostring") != LUA_TNIL;
  const char *message = has_text ? luaL_tolstring(L, 2, NULL)
                                 : lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 2));
  luaL_traceback(L, d->thread, message, 0);
  return 1;
}

void mp_thread_describe(mp_state *state, lua_State *thread, mp_outcome *outcome) {
  static const char fallback[] = "not enough memory";
  description d = {thread};
  lua_State *L = state->main;
  size_t count = 0;
  outcome->count = 1;
  outcome->status = LUA_ERRRUN;
  outcome->base = lua_gettop(L);
  if (state->guard.has_reason) {
    state->guard.has_reason = false;
    outcome->results[0] =
        (mp_value){.kind = MP_BYTES, .integer = (int64_t)state->guard.reason_count, .base = state->guard.reason};
    return;
  }
  lua_pushcfunction(L, describe_body);
  lua_pushlightuserdata(L, &d);
  lua_State *outer = mp_enter(state, L);
  int status = lua_pcall(L, 1, 1, 0);
  const char *reason = mp_run_reason(state, status, &count);
  mp_leave(state, outer);
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &count) : NULL;
  if (status != LUA_OK && lua_type(thread, -1) == LUA_TSTRING) {
    // No memory for the traceback: the bare message is better than none.
    text = lua_tolstring(thread, -1, &count);
  }
  if (reason != NULL) {
    text = reason;
    count = state->guard.reason_count;
  } else if (text == NULL) {
    text = fallback;
    count = sizeof fallback - 1;
  }
  outcome->results[0] = (mp_value){.kind = MP_BYTES, .integer = (int64_t)count, .base = text};
}

// Closes the pending variables of a thread that is suspended or has failed; returns what lua_resetthread does.
static int reset(mp_state *state, lua_State *thread) {
  lua_State *outer = mp_enter(state, thread);
  int status = lua_resetthread(thread);
  mp_leave(state, outer);
  return status;
}

void mp_thread_end(mp_state *state, lua_State *thread, int32_t reference) {
  if (!mp_was_ended(thread)) {
    reset(state, thread);
    lua_settop(thread, 0);
  }
  mp_unreference(state, reference);
}

// MARK: coroutine.resume and coroutine.wrap

enum { FAILED = -1, WAITS = -2 };

// Resumes `co` with what it already has on its stack; returns the number of values it left there, FAILED with the error
// on its stack, or WAITS.
static int step(lua_State *L, lua_State *co, int arguments) {
  mp_state *state = mp_state_of(L);
  int count = 0;
  int blocked = lua_isyieldable(L) ? 0 : 1;
  state->unyieldable += blocked;
  lua_State *outer = mp_enter(state, co);
  int status = lua_resume(co, L, arguments, &count);
  mp_leave(state, outer);
  state->unyieldable -= blocked;
  if (status == LUA_YIELD && count == 1 && mp_thread_waits(co)) return WAITS;
  return status == LUA_OK || status == LUA_YIELD ? count : FAILED;
}

static const char dead[] = "cannot resume dead coroutine";
static const char not_suspended[] = "cannot resume non-suspended coroutine";

// Whether lua_resume would begin or go on with `co`: asked first, since lua_resume makes the message that it cannot outside of
// all protection, where a refused allocation would end the process.
static bool can_resume(lua_State *co) {
  lua_Debug frame;
  if (lua_status(co) == LUA_YIELD) return true;
  return lua_status(co) == LUA_OK && lua_getstack(co, 0, &frame) == 0 && lua_gettop(co) > 0;
}

static const char too_deep[] = "C stack overflow";

// Moves the script's arguments over and resumes. An error message goes on L's stack where `co` cannot take any.
static int begin(lua_State *L, lua_State *co, int arguments) {
  if (lua_status(co) == LUA_YIELD && mp_thread_waits(co)) {
    lua_pushliteral(L, "cannot resume a coroutine that waits");
    return FAILED;
  }
  if (!can_resume(co)) {
    lua_Debug frame;
    lua_pushstring(L, lua_status(co) == LUA_OK && lua_getstack(co, 0, &frame) != 0 ? not_suspended : dead);
    return FAILED;
  }
  if (mp_stack_is_deep(mp_state_of(L))) {
    lua_pushstring(L, too_deep);
    return FAILED;
  }
  if (!lua_checkstack(co, arguments)) {
    lua_pushliteral(L, "too many arguments to resume");
    return FAILED;
  }
  lua_xmove(L, co, arguments);
  int result = step(L, co, arguments);
  if (result == FAILED) lua_xmove(co, L, 1);
  return result;
}

// Goes on in `co` after the wait of it that reached us is over.
static int go_on(lua_State *L, lua_State *co) {
  if (lua_status(co) != LUA_YIELD) {
    lua_pushstring(L, dead);
    return FAILED;
  }
  lua_pop(co, 1);
  int result = step(L, co, 0);
  if (result == FAILED) lua_xmove(co, L, 1);
  return result;
}

RAISES static int take_results(lua_State *L, lua_State *co, int count) {
  if (!lua_checkstack(L, count + 1)) {
    lua_pop(co, count);
    return luaL_error(L, "too many results to resume");
  }
  lua_xmove(co, L, count);
  return count;
}

// Suspends the resuming coroutine because the inner one waits.
RAISES static int wait_in_turn(lua_State *L, lua_State *co, lua_KFunction next) {
  if (!lua_isyieldable(L)) return luaL_error(L, "a coroutine cannot wait here: it was resumed where nothing can wait");
  lua_pushvalue(co, -1);
  lua_xmove(co, L, 1);
  return lua_yieldk(L, 1, 0, next);
}

static int resume_woken(lua_State *L, int status, lua_KContext context);

RAISES static int resume_finish(lua_State *L, lua_State *co, int result) {
  if (result == WAITS) return wait_in_turn(L, co, resume_woken);
  if (result == FAILED) {
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
  }
  lua_pushboolean(L, 1);
  return 1 + take_results(L, co, result);
}

static int resume_woken(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  lua_State *co = lua_tothread(L, 1);
  return resume_finish(L, co, go_on(L, co));
}

static int resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co != NULL, 1, "coroutine");
  return resume_finish(L, co, begin(L, co, lua_gettop(L) - 1));
}

static int wrap_woken(lua_State *L, int status, lua_KContext context);

RAISES static int wrap_finish(lua_State *L, lua_State *co, int result) {
  if (result == WAITS) return wait_in_turn(L, co, wrap_woken);
  if (result != FAILED) return take_results(L, co, result);
  int status = lua_status(co);
  mp_state *state = mp_state_of(L);
  if (status != LUA_OK && status != LUA_YIELD && !mp_was_ended(co) && !mp_stack_is_deep(state)) {
    // Closes the variables the dead coroutine left; an error in that takes the place of the first one.
    if (reset(state, co) != LUA_OK && lua_gettop(co) > 0) {
      lua_pop(L, 1);
      lua_xmove(co, L, 1);
    }
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int wrap_woken(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  return wrap_finish(L, co, go_on(L, co));
}

static int wrap_call(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  return wrap_finish(L, co, begin(L, co, lua_gettop(L)));
}

static int wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, wrap_call, 1);
  return 1;
}

// coroutine.close, which also runs code of the coroutine: its __close functions.
static int close_coroutine(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  luaL_argexpected(L, co != NULL, 1, "coroutine");
  lua_Debug frame;
  int status = lua_status(co);
  if (L == co) return luaL_error(L, "cannot close a running coroutine");
  if (status == LUA_OK && lua_getstack(co, 0, &frame) != 0) return luaL_error(L, "cannot close a normal coroutine");
  mp_state *state = mp_state_of(L);
  bool was_ended = mp_was_ended(co);
  if (!was_ended && mp_stack_is_deep(state)) return luaL_error(L, too_deep);
  if (!was_ended && reset(state, co) == LUA_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushboolean(L, 0);
  if (lua_gettop(co) == 0 || !lua_checkstack(co, 1)) return 1;
  lua_pushvalue(co, -1);
  lua_xmove(co, L, 1);
  return 2;
}

void mp_install_coroutines(lua_State *L) {
  static const luaL_Reg functions[] = {{"resume", resume}, {"wrap", wrap}, {"close", close_coroutine}, {NULL, NULL}};
  lua_getglobal(L, LUA_COLIBNAME);
  luaL_setfuncs(L, functions, 0);
  lua_pop(L, 1);
}
