// What Swift's Glibc module lacks of Linux's C library: epoll, eventfd, timerfd, signalfd, accept4, the name of a
// thread, addresses as plain bytes, and a hint to the processor. Only thin calls: this header decides nothing and keeps no state.
#ifndef CLINUX_H
#define CLINUX_H

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>

// Event bits of epoll_ctl(2) as plain constants; Swift sees the system's own as a mixture of enum and macro.
static const uint32_t clinux_readable = EPOLLIN;
static const uint32_t clinux_writable = EPOLLOUT;
static const uint32_t clinux_broken = EPOLLERR | EPOLLHUP;
static const uint32_t clinux_read_end = EPOLLRDHUP;
static const uint32_t clinux_edge = EPOLLET;
static const uint32_t clinux_exclusive = EPOLLEXCLUSIVE;

/// epoll_create1(2) with EPOLL_CLOEXEC.
int clinux_epoll_create(void);

/// epoll_ctl(2); `operation` is EPOLL_CTL_ADD, _MOD or _DEL, `key` is what the event carries back.
static inline int clinux_epoll_change(int epoll, int operation, int descriptor, uint32_t events, uint64_t key) {
  struct epoll_event event = {.events = events, .data = {.u64 = key}};
  return epoll_ctl(epoll, operation, descriptor, &event);
}

/// epoll_wait(2) in nanoseconds; negative means for ever. Uses epoll_pwait2(2) where libc and kernel have it, and
/// otherwise rounds up to milliseconds, so that it never wakes before the time is up.
int clinux_epoll_wait(int epoll, struct epoll_event *events, int events_max, int64_t nanoseconds);

/// The event bits of entry `index` that epoll_wait filled in.
static inline uint32_t clinux_event_bits(const struct epoll_event *events, int index) { return events[index].events; }

/// The key of entry `index` that epoll_wait filled in.
static inline uint64_t clinux_event_key(const struct epoll_event *events, int index) { return events[index].data.u64; }

/// eventfd(2), counter 0, EFD_NONBLOCK | EFD_CLOEXEC.
int clinux_eventfd(void);

/// pipe2(2) with O_NONBLOCK | O_CLOEXEC.
int clinux_pipe(int *read_end, int *write_end);

/// splice(2) with SPLICE_F_MOVE | SPLICE_F_NONBLOCK, between a pipe and a non-blocking socket.
ssize_t clinux_splice(int source, int target, size_t bytes_max);

/// accept4(2) with SOCK_NONBLOCK | SOCK_CLOEXEC; the peer's address is not asked for.
int clinux_accept(int listener);

/// socket(2), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC.
int clinux_stream_socket(int family);

/// recv(2) with MSG_DONTWAIT, so that a descriptor that was left blocking cannot stop the thread.
static inline ssize_t clinux_receive(int descriptor, void *buffer, size_t bytes) {
  return recv(descriptor, buffer, bytes, MSG_DONTWAIT);
}

/// send(2) with MSG_DONTWAIT | MSG_NOSIGNAL.
static inline ssize_t clinux_send(int descriptor, const void *buffer, size_t bytes) {
  return send(descriptor, buffer, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/// sendmsg(2) of `count` pieces with MSG_DONTWAIT | MSG_NOSIGNAL.
static inline ssize_t clinux_send_vector(int descriptor, const struct iovec *pieces, size_t count) {
  struct msghdr message = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = count};
  return sendmsg(descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/// The user and group ids of `name`, by getpwnam_r(3): 0, ENOENT when there is no such user, or another error number.
int clinux_find_user(const char *name, uid_t *user, gid_t *group);

/// Takes on the groups of `name` for good, in all threads: initgroups(3), setresgid(2). 0, or -1 and errno.
int clinux_join_groups(const char *name, gid_t group);

/// Changes the effective user alone, in all threads: setresuid(2). 0, or -1 and errno.
int clinux_act_as(uid_t user);

/// Makes `user` the real, effective and saved user of all threads: setresuid(2). 0, or -1 and errno.
int clinux_become(uid_t user);

/// Whether this thread could be root again: its user or group ids, or its capabilities, allow it. It tries.
int clinux_can_regain_root(void);

/// Lets the process read its own /proc/self again after its user has changed: PR_SET_DUMPABLE of prctl(2).
void clinux_allow_own_inspection(void);

/// pthread_setname_np(3) of the calling thread; longer names are cut to the kernel's 15 bytes.
void clinux_name_thread(const char *name);

/// Has the processor fetch the cache line of `address`, soon to be changed, while it does other things; any address will do.
static inline void clinux_prefetch(const void *address) { __builtin_prefetch(address, 1); }

/// prctl(2), PR_SET_TIMERSLACK of 1 ns: waits of the calling thread end when their time is up and not up to 50 us later.
void clinux_wake_exactly(void);

#endif
