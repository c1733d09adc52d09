// CPU budgets: a count hook that looks at the thread's CPU clock.
//
// A count hook makes every Lua instruction about half as slow again, so it is armed only for runs that are rare: loading a
// script and handing over state in a reload.

#include <time.h>

#include "internal.h"

// Instructions between two looks at the clock: about 1 ms of Lua, and a look costs 0.2 microseconds.
enum { BUDGET_STEP_INSTRUCTIONS = 100000 };
// The same once the budget is spent, for code without line information.
enum { SPENT_STEP_INSTRUCTIONS = 1000 };

static uint64_t thread_cpu_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void budget_hook(lua_State *L, lua_Debug *event) {
  (void)event;
  mp_state *state = mp_state_of(L);
  if (state->budget_deadline == 0) {
    // A coroutine made under a budget inherited the hook and now runs without one.
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  if (thread_cpu_ns() < state->budget_deadline) return;
  state->budget_spent = true;
  mp_budget_inherit(state, L);
  // Level 0 is the script's own function: a hook has no level of its own.
  luaL_where(L, 0);
  lua_pushliteral(L, "budget exceeded");
  lua_concat(L, 2);
  lua_error(L);
}

void mp_budget_inherit(mp_state *state, lua_State *L) {
  if (state->budget_deadline == 0) return;
  if (state->budget_spent) {
    // At every line, so that a pcall in the script cannot swallow the error and go on.
    lua_sethook(L, budget_hook, LUA_MASKLINE | LUA_MASKCOUNT, SPENT_STEP_INSTRUCTIONS);
  } else if (lua_gethook(L) == NULL) {
    lua_sethook(L, budget_hook, LUA_MASKCOUNT, BUDGET_STEP_INSTRUCTIONS);
  }
}

bool mp_budget_arm(mp_state *state, lua_State *L, uint64_t budget_ns) {
  if (budget_ns == 0 || state->budget_deadline != 0) return false;
  state->budget_deadline = thread_cpu_ns() + budget_ns;
  state->budget_spent = false;
  mp_budget_inherit(state, L);
  return true;
}

void mp_budget_disarm(mp_state *state, lua_State *L) {
  state->budget_deadline = 0;
  lua_sethook(L, NULL, 0, 0);
}
