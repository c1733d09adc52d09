#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

int clinux_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

int clinux_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

int clinux_pipe(int *read_end, int *write_end) {
  int ends[2];
  if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) return -1;
  *read_end = ends[0];
  *write_end = ends[1];
  return 0;
}

ssize_t clinux_splice(int source, int target, size_t bytes_max) {
  return splice(source, NULL, target, NULL, bytes_max, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

int clinux_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }

int clinux_stream_socket(int family) { return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }

static int wait_in_milliseconds(int epoll, struct epoll_event *events, int events_max, int64_t nanoseconds) {
  int64_t milliseconds = nanoseconds / 1000000 + (nanoseconds % 1000000 != 0);
  return epoll_wait(epoll, events, events_max, milliseconds > INT_MAX ? INT_MAX : (int)milliseconds);
}

int clinux_epoll_wait(int epoll, struct epoll_event *events, int events_max, int64_t nanoseconds) {
  if (nanoseconds <= 0) return epoll_wait(epoll, events, events_max, nanoseconds < 0 ? -1 : 0);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
  // Kernels before 5.11 and some container filters refuse the call; that answer is asked for once.
  static atomic_int refused = 0;
  if (!atomic_load_explicit(&refused, memory_order_relaxed)) {
    struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int count = epoll_pwait2(epoll, events, events_max, &time, NULL);
    if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
    atomic_store_explicit(&refused, 1, memory_order_relaxed);
  }
#endif
  return wait_in_milliseconds(epoll, events, events_max, nanoseconds);
}

void clinux_name_thread(const char *name) {
  char cut[16];  // TASK_COMM_LEN with its final zero
  strncpy(cut, name, sizeof cut - 1);
  cut[sizeof cut - 1] = 0;
  pthread_setname_np(pthread_self(), cut);
}

void clinux_wake_exactly(void) { prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); }

int clinux_find_user(const char *name, uid_t *user, gid_t *group) {
  // Entries are short lines; a directory service may give longer ones.
  for (size_t bytes = 1024; bytes <= 1 << 20; bytes *= 4) {
    char *buffer = malloc(bytes);
    if (!buffer) return ENOMEM;
    struct passwd entry, *found = NULL;
    int error = getpwnam_r(name, &entry, buffer, bytes, &found);
    if (found) {
      *user = entry.pw_uid;
      *group = entry.pw_gid;
    }
    free(buffer);
    if (error != ERANGE) return found ? 0 : error ? error : ENOENT;
  }
  return ERANGE;
}

// The wrappers of libc, and not the system calls, which would change one thread only.

int clinux_join_groups(const char *name, gid_t group) {
  return initgroups(name, group) == 0 ? setresgid(group, group, group) : -1;
}

int clinux_act_as(uid_t user) { return setresuid((uid_t)-1, user, (uid_t)-1); }

int clinux_become(uid_t user) { return setresuid(user, user, user); }

int clinux_can_regain_root(void) {
  uid_t real, effective, saved;
  if (getresuid(&real, &effective, &saved) != 0 || real == 0 || effective == 0 || saved == 0) return 1;
  if (setresuid((uid_t)-1, 0, (uid_t)-1) == 0 || setuid(0) == 0) return 1;
  FILE *status = fopen("/proc/thread-self/status", "re");
  // Without /proc only the ids can be looked at.
  if (!status) return 0;
  char line[256];
  unsigned long long bits, all = 0;
  while (fgets(line, sizeof line, status)) {
    if (sscanf(line, "CapPrm: %llx", &bits) == 1 || sscanf(line, "CapEff: %llx", &bits) == 1) all |= bits;
  }
  fclose(status);
  return all != 0;
}

void clinux_allow_own_inspection(void) { prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); }
