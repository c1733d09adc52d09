// The watchdog: one thread of the process that looks, some times a second, whether the same run of Lua code still goes on in some
// state, and only then at the CPU clock of the thread that makes it. A run over its budget is interrupted by a signal, whose handler
// runs on the thread in question and sets the hook there (guard.c). A run that the hook does not reach is stuck in a C function:
// it is reported, with the line of the script that called it.
//
// States come and go on their own threads; the list of them is locked. A state's run number, its budget and the run that is over
// are the only data both threads touch, all atomically.

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

#ifdef SANITIZES_THREADS
#include <dlfcn.h>
#endif

// The signal that interrupts a thread: ignored by default, and used by sockets only for descriptors that ask for it (F_SETOWN).
enum { INTERRUPT = SIGURG };

static const uint64_t millisecond = 1000000;
static const uint64_t never = UINT64_MAX;

// Looks per budget: a run is found over its budget at most a quarter of it too late.
enum { LOOKS_PER_BUDGET = 4 };
// Bounds of the time between two looks: more often costs wake-ups, and a look late by more is felt by a person.
static const uint64_t look_min_ns = 5 * millisecond, look_max_ns = 250 * millisecond;
// Between two signals to a run that is over its budget.
static const uint64_t signal_ns = 10 * millisecond;
// A run that does not end for so long after its first signal is stuck; Lua code ends in microseconds.
static const uint64_t stuck_ns = 100 * millisecond;
// A run that uses no CPU time for so long is stuck too: it waits in a system call. Not before is it interrupted, for the sake of
// C libraries that do not expect that.
static const uint64_t blocked_ns = 5000 * millisecond;

// What the watchdog knows of a state.
typedef struct mp_watch {
  struct mp_watch *next;
  mp_state *state;
  // Who makes the state's runs.
  pthread_t thread;
  clockid_t clock;
  bool is_bound;
  // What to do about a run that cannot be ended.
  uint64_t stuck_limit_ns;
  mp_report report;
  void *context;
  // The run that the last look found, and its CPU time and the clock when it was first and last seen.
  uint64_t run, first_cpu, last_cpu, first_seen, last_seen, pause;
  // How long it has been stuck, and what was reported of it.
  uint64_t stuck_for;
  bool is_reported, is_past_limit;
  // The script's line, and the run it is of: the signal's handler writes the line, then the run. The run in which the handler
  // has set the hook is its own.
  uint64_t place_run, armed_run;
  char place[LUA_IDSIZE + 24];
} mp_watch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static mp_watch *first = NULL;

_Thread_local mp_state *mp_bound = NULL;

// MARK: The signal's handler

// Writes the line of the innermost Lua function of `L`. Allocates nothing. Called while a C function runs that was called from
// there: since the hook was set no Lua instruction has run, so that the frames lie still.
IN_SIGNAL static void note_place(mp_watch *watch, lua_State *L, uint64_t run) {
  lua_Debug frame;
  for (int level = 0; level < 64 && lua_getstack(L, level, &frame); level++) {
    lua_getinfo(L, "Sl", &frame);
    if (frame.currentline <= 0) continue;
    char digits[16], *text = watch->place;
    int count = 0;
    for (const char *c = frame.short_src; *c != '\0' && text < watch->place + LUA_IDSIZE; c++) *text++ = *c;
    *text++ = ':';
    for (int line = frame.currentline; line > 0; line /= 10) digits[count++] = (char)('0' + line % 10);
    while (count > 0) *text++ = digits[--count];
    *text = '\0';
    __atomic_store_n(&watch->place_run, run, __ATOMIC_RELEASE);
    return;
  }
}

IN_SIGNAL static void interrupted(int signal) {
  (void)signal;
  int before = errno;
  mp_state *state = mp_bound;
  lua_State *L = state == NULL ? NULL : state->running;
  uint64_t run = L == NULL ? 0 : state->guard.run;
  if (L != NULL && (mp_run_is_spent(state) || __atomic_load_n(&state->guard.asked, __ATOMIC_RELAXED) == run)) {
    mp_watch *watch = state->watch;
    if (!mp_is_armed(L) || watch->armed_run != run) {
      mp_arm(L);
      watch->armed_run = run;
    } else if (__atomic_load_n(&watch->place_run, __ATOMIC_RELAXED) != run) {
      note_place(watch, L, run);
    }
  }
  errno = before;
}

static void install_handler(void) {
  struct sigaction action = {.sa_handler = interrupted, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
#ifdef SANITIZES_THREADS
  // The sanitizer delivers signals only when the thread calls the C library, which an endless loop in Lua never does. So the
  // handler is entered past it.
  int (*set)(int, const struct sigaction *, struct sigaction *) = dlsym(dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), "sigaction");
  set(INTERRUPT, &action, NULL);
#else
  sigaction(INTERRUPT, &action, NULL);
#endif
}

// MARK: Looking

static uint64_t nanoseconds(clockid_t clock) {
  struct timespec time = {0, 0};
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t between(uint64_t low, uint64_t value, uint64_t high) {
  return value < low ? low : value > high ? high : value;
}

// Begins to watch another run, or none.
static void begin(mp_watch *watch, uint64_t run, uint64_t now) {
  if (watch->is_reported && watch->report != NULL) {
    watch->report(watch->context, MP_FREED, watch->place, now - watch->first_seen);
  }
  watch->run = run;
  watch->is_reported = watch->is_past_limit = false;
  watch->stuck_for = 0;
  if (run % 2 == 0) return;
  watch->first_cpu = watch->last_cpu = nanoseconds(watch->clock);
  watch->first_seen = watch->last_seen = now;
}

// Reports a run that has been stuck long enough. Its place is waited for: on a busy machine the thread comes late to the signal.
static void report(mp_watch *watch, bool is_over, uint64_t now) {
  uint64_t threshold = is_over ? stuck_ns : blocked_ns;
  bool is_known = __atomic_load_n(&watch->place_run, __ATOMIC_ACQUIRE) == watch->run;
  const char *place = is_known ? watch->place : "";
  if (watch->report == NULL) return;
  uint64_t patience = is_known ? 0 : blocked_ns;
  if (!watch->is_reported && watch->stuck_for >= threshold + patience) {
    watch->is_reported = true;
    watch->report(watch->context, MP_STUCK, place, now - watch->first_seen);
  }
  if (watch->is_past_limit || watch->stuck_limit_ns == 0 || watch->stuck_for < watch->stuck_limit_ns + patience) return;
  watch->is_past_limit = true;
  watch->report(watch->context, MP_PAST_LIMIT, place, now - watch->first_seen);
}

// Looks at one state; returns the nanoseconds until it has to be looked at again.
static uint64_t look(mp_watch *watch, uint64_t now) {
  mp_state *state = watch->state;
  uint64_t budget = __atomic_load_n(&state->guard.budget_ns, __ATOMIC_RELAXED);
  if (!watch->is_bound || budget == 0) return never;
  uint64_t pause = between(look_min_ns, budget / LOOKS_PER_BUDGET, look_max_ns);
  uint64_t run = __atomic_load_n(&state->guard.run, __ATOMIC_RELAXED);
  if (run % 2 == 0 || run != watch->run) {
    if (run != watch->run) begin(watch, run, now);
    return watch->pause = pause;
  }
  uint64_t cpu = nanoseconds(watch->clock);
  uint64_t used = cpu - watch->first_cpu;
  // A process that was stopped, or a machine that slept, is not stuck.
  uint64_t elapsed = now - watch->last_seen < 2 * watch->pause ? now - watch->last_seen : 2 * watch->pause;
  bool is_over = used >= budget, is_blocked = (cpu - watch->last_cpu) * 10 < elapsed;
  if (is_over || is_blocked) watch->stuck_for += elapsed;
  watch->last_cpu = cpu;
  watch->last_seen = now;
  if (is_over) __atomic_store_n(&state->guard.over, run, __ATOMIC_RELAXED);
  bool asks = !is_over && watch->stuck_for >= blocked_ns && !watch->is_reported;
  if (asks) __atomic_store_n(&state->guard.asked, run, __ATOMIC_RELAXED);
  if (is_over || asks) pthread_kill(watch->thread, INTERRUPT);
  report(watch, is_over, now);
  if (!is_over) pause = between(millisecond, budget - used, pause);
  if ((is_over || asks) && !watch->is_reported) pause = signal_ns;
  return watch->pause = pause;
}

static void *watch_all(void *unused) {
  pthread_setname_np(pthread_self(), "watchdog");
  pthread_mutex_lock(&lock);
  while (true) {
    uint64_t now = nanoseconds(CLOCK_MONOTONIC), pause = never;
    for (mp_watch *watch = first; watch != NULL; watch = watch->next) {
      uint64_t own = look(watch, now);
      if (own < pause) pause = own;
    }
    if (pause == never) {
      pthread_cond_wait(&changed, &lock);
    } else {
      uint64_t until = now + pause;
      struct timespec time = {.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};
      pthread_cond_timedwait(&changed, &lock, &time);
    }
  }
  return unused;
}

// MARK: States

static void start(void) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&changed, &attributes);
  pthread_condattr_destroy(&attributes);
  install_handler();
  // The process's signals are other threads' to take.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  if (pthread_create(&thread, NULL, watch_all, NULL) == 0) pthread_detach(thread);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void mp_watch_wake(void) {
  pthread_mutex_lock(&lock);
  pthread_cond_signal(&changed);
  pthread_mutex_unlock(&lock);
}

bool mp_watch_begin(mp_state *state) {
  mp_watch *watch = calloc(1, sizeof *watch);
  if (watch == NULL) return false;
  pthread_once(&once, start);
  watch->state = state;
  state->watch = watch;
  pthread_mutex_lock(&lock);
  watch->next = first;
  first = watch;
  pthread_mutex_unlock(&lock);
  return true;
}

void mp_watch_end(mp_state *state) {
  mp_watch *watch = state->watch;
  if (watch == NULL) return;
  if (mp_bound == state) mp_bound = NULL;
  pthread_mutex_lock(&lock);
  mp_watch **link = &first;
  while (*link != watch) link = &(*link)->next;
  *link = watch->next;
  pthread_mutex_unlock(&lock);
  state->watch = NULL;
  free(watch);
}

void mp_bind(mp_state *state) {
  sigset_t interrupt;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, INTERRUPT);
  pthread_sigmask(SIG_UNBLOCK, &interrupt, NULL);
  pthread_mutex_lock(&lock);
  state->watch->thread = pthread_self();
  state->watch->is_bound = pthread_getcpuclockid(pthread_self(), &state->watch->clock) == 0;
  pthread_cond_signal(&changed);
  pthread_mutex_unlock(&lock);
  mp_bound = state;
}

void mp_unbind(mp_state *state) {
  if (state->running != NULL) return;
  pthread_mutex_lock(&lock);
  state->watch->is_bound = false;
  pthread_mutex_unlock(&lock);
  if (mp_bound == state) mp_bound = NULL;
}

void mp_end_runs(mp_state *state) {
  // The shortest budget there is: the watchdog interrupts the run as often as it takes.
  pthread_mutex_lock(&lock);
  __atomic_store_n(&state->guard.budget_ns, 1, __ATOMIC_RELAXED);
  pthread_cond_signal(&changed);
  pthread_mutex_unlock(&lock);
}

void mp_guard_runs(mp_state *state, uint64_t budget_ns, uint64_t stuck_limit_ns, mp_report report, void *context) {
  pthread_mutex_lock(&lock);
  mp_run_set_budget(state, budget_ns, false);
  state->watch->stuck_limit_ns = stuck_limit_ns;
  state->watch->report = report;
  state->watch->context = context;
  pthread_cond_signal(&changed);
  pthread_mutex_unlock(&lock);
}
