// What the load programs share: connecting to a port of this machine, time, and giving up with a reason.
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, BUFFER_BYTES = 1 << 18, ANSWER_MILLISECONDS = 10000 };

static inline void fail(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static inline double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

// A connected, blocking socket.
static inline int dial(int port) {
  int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (s < 0) fail("socket");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(s, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return s;
}

static inline void send_all(int s, const void *bytes, size_t count) {
  const char *next = bytes;
  while (count > 0) {
    ssize_t sent = send(s, next, count, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) fail("send");
    next += sent;
    count -= sent;
  }
}

// What is there to read, 0 when that is nothing yet.
static inline ssize_t receive(int s, char *buffer, size_t room) {
  ssize_t got = recv(s, buffer, room, MSG_DONTWAIT);
  if (got > 0) return got;
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (got == 0) errno = ECONNRESET;
  fail("recv");
  return 0;
}

static inline void watch(int epoll, int s, unsigned number) {
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, s, &event) != 0) fail("epoll_ctl");
}

// Waits for answers, but not for ever.
static inline int wait_for(int epoll, struct epoll_event *events) {
  int count = epoll_wait(epoll, events, EVENTS_MAX, ANSWER_MILLISECONDS);
  if (count == 0) errno = ETIMEDOUT;
  if (count == 0 || (count < 0 && errno != EINTR)) fail("no answer");
  return count < 0 ? 0 : count;
}

static inline void allow_descriptors(int count) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= (rlim_t)count) return;
  limit.rlim_cur = count;
  if (limit.rlim_max < limit.rlim_cur || setrlimit(RLIMIT_NOFILE, &limit) != 0) fail("too few descriptors allowed");
}

#endif
