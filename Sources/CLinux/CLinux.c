#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
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
