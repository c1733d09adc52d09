// A library to preload into the server under test, which makes its system calls go wrong in the ways that a kernel may, but
// seldom does. MOONPORT_FAULTS says how, in items between commas:
//
//   bytes=N             reads and writes of sockets, pipes, files and terminals move at most N bytes at a time
//   until=M             ... but only the first M bytes of each descriptor (default: all)
//   CALL:ERROR:K        every K-th CALL (accept4, recv, send, sendmsg, epoll_wait) fails with ERROR and is not made
//
// Used by scripts/torture and scripts/test --only bytes; the tests compile it themselves:
//   gcc -shared -fPIC -O2 -o faults.so scripts/faults.c
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RULES_MAX = 32, DESCRIPTORS_MAX = 65536 };

static struct rule {
  char call[16];
  int error;
  unsigned long every;
  atomic_ulong count;
} rules[RULES_MAX];
static int rule_count;
static size_t bytes_max;
static size_t bytes_until = (size_t)-1;
static atomic_size_t moved[DESCRIPTORS_MAX];

static const struct {
  const char *name;
  int number;
} errors[] = {{"EINTR", EINTR},   {"EAGAIN", EAGAIN}, {"ECONNABORTED", ECONNABORTED}, {"EPROTO", EPROTO},
              {"ENOBUFS", ENOBUFS}, {"ENOMEM", ENOMEM}, {"EMFILE", EMFILE},             {"ECONNRESET", ECONNRESET}};

static int error_number(const char *name) {
  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    if (strcmp(errors[i].name, name) == 0) return errors[i].number;
  }
  fprintf(stderr, "faults: unknown error %s\n", name);
  abort();
}

static void add_item(const char *item) {
  char call[16], error[16];
  unsigned long every;
  if (sscanf(item, "bytes=%zu", &bytes_max) == 1 || sscanf(item, "until=%zu", &bytes_until) == 1) return;
  if (sscanf(item, "%15[a-z0-9_]:%15[A-Z]:%lu", call, error, &every) != 3 || every == 0 || rule_count == RULES_MAX) {
    fprintf(stderr, "faults: cannot read %s\n", item);
    abort();
  }
  struct rule *rule = &rules[rule_count++];
  strcpy(rule->call, call);
  rule->error = error_number(error);
  rule->every = every;
}

__attribute__((constructor)) static void begin(void) {
  const char *text = getenv("MOONPORT_FAULTS");
  char copy[1024], *rest = NULL;
  if (!text) return;
  snprintf(copy, sizeof copy, "%s", text);
  for (char *item = strtok_r(copy, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) add_item(item);
}

// Whether this call is one that fails; errno is set then.
static int fails(const char *call) {
  for (int i = 0; i < rule_count; i++) {
    if (strcmp(rules[i].call, call) == 0 && (atomic_fetch_add(&rules[i].count, 1) + 1) % rules[i].every == 0) {
      errno = rules[i].error;
      return 1;
    }
  }
  return 0;
}

// How many of `bytes` this call may move: an eventfd, for one, takes whole numbers only.
static size_t allowed(int descriptor, size_t bytes, int is_socket) {
  struct stat facts;
  if (bytes_max == 0 || bytes <= bytes_max || descriptor < 0 || descriptor >= DESCRIPTORS_MAX) return bytes;
  if (atomic_load(&moved[descriptor]) >= bytes_until) return bytes;
  if (!is_socket) {
    if (fstat(descriptor, &facts) != 0) return bytes;
    if (!S_ISREG(facts.st_mode) && !S_ISFIFO(facts.st_mode) && !S_ISCHR(facts.st_mode) && !S_ISSOCK(facts.st_mode)) return bytes;
  }
  return bytes_max;
}

// Of several pieces the part that may be moved; 0 when all may.
static int first_part(int descriptor, const struct iovec *pieces, size_t count, int is_socket, struct iovec *part) {
  size_t some = allowed(descriptor, (size_t)-1, is_socket);
  if (some == (size_t)-1) return 0;
  for (size_t i = 0; i < count; i++) {
    if (pieces[i].iov_len == 0) continue;
    *part = (struct iovec){pieces[i].iov_base, pieces[i].iov_len < some ? pieces[i].iov_len : some};
    return 1;
  }
  return 0;
}

static ssize_t done(int descriptor, ssize_t count) {
  if (count > 0 && descriptor >= 0 && descriptor < DESCRIPTORS_MAX) atomic_fetch_add(&moved[descriptor], (size_t)count);
  return count;
}

#define REAL(name, result, ...)                                    \
  static result (*real)(__VA_ARGS__);                              \
  if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int accept4(int listener, struct sockaddr *address, socklen_t *length, int flags) {
  REAL("accept4", int, int, struct sockaddr *, socklen_t *, int);
  return fails("accept4") ? -1 : real(listener, address, length, flags);
}

ssize_t recv(int descriptor, void *buffer, size_t bytes, int flags) {
  REAL("recv", ssize_t, int, void *, size_t, int);
  if (fails("recv")) return -1;
  return done(descriptor, real(descriptor, buffer, allowed(descriptor, bytes, 1), flags));
}

ssize_t send(int descriptor, const void *buffer, size_t bytes, int flags) {
  REAL("send", ssize_t, int, const void *, size_t, int);
  if (fails("send")) return -1;
  return done(descriptor, real(descriptor, buffer, allowed(descriptor, bytes, 1), flags));
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
  REAL("sendmsg", ssize_t, int, const struct msghdr *, int);
  if (fails("sendmsg")) return -1;
  struct iovec piece;
  if (first_part(descriptor, message->msg_iov, message->msg_iovlen, 1, &piece)) {
    struct msghdr part = {.msg_iov = &piece, .msg_iovlen = 1};
    return done(descriptor, real(descriptor, &part, flags));
  }
  return done(descriptor, real(descriptor, message, flags));
}

ssize_t read(int descriptor, void *buffer, size_t bytes) {
  REAL("read", ssize_t, int, void *, size_t);
  return done(descriptor, real(descriptor, buffer, allowed(descriptor, bytes, 0)));
}

ssize_t write(int descriptor, const void *buffer, size_t bytes) {
  REAL("write", ssize_t, int, const void *, size_t);
  return done(descriptor, real(descriptor, buffer, allowed(descriptor, bytes, 0)));
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
  REAL("writev", ssize_t, int, const struct iovec *, int);
  struct iovec piece;
  if (first_part(descriptor, pieces, (size_t)count, 0, &piece)) return done(descriptor, real(descriptor, &piece, 1));
  return done(descriptor, real(descriptor, pieces, count));
}

ssize_t splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t bytes, unsigned flags) {
  REAL("splice", ssize_t, int, off_t *, int, off_t *, size_t, unsigned);
  return done(from, real(from, from_offset, to, to_offset, allowed(from, bytes, 1), flags));
}

int epoll_wait(int epoll, struct epoll_event *events, int events_max, int milliseconds) {
  REAL("epoll_wait", int, int, struct epoll_event *, int, int);
  return fails("epoll_wait") ? -1 : real(epoll, events, events_max, milliseconds);
}

int epoll_pwait2(int epoll, struct epoll_event *events, int events_max, const struct timespec *time, const sigset_t *mask) {
  REAL("epoll_pwait2", int, int, struct epoll_event *, int, const struct timespec *, const sigset_t *);
  return fails("epoll_wait") ? -1 : real(epoll, events, events_max, time, mask);
}

int close(int descriptor) {
  REAL("close", int, int);
  if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX) atomic_store(&moved[descriptor], 0);
  return real(descriptor);
}
