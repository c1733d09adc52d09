// Both ends of a proxied connection: a client that goes through the proxy and the server behind it. Each sends a number of
// bytes to the other at once, ends its side, and compares every byte that comes. Usage: relay UPSTREAM_PORT PROXY_PORT BYTES
// Waits for the proxy to listen; prints the seconds that it took until both had everything, the ends included.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// The bytes repeat after a prime number of them, so that a lost, doubled or moved block shows.
enum { PATTERN_BYTES = 1048573, PIECE_BYTES = 262144, ATTEMPTS_MAX = 500 };
static unsigned char pattern[PATTERN_BYTES + PIECE_BYTES];
static long bytes;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static int serve(int port) {
  int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in address = loopback(port);
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(s, (struct sockaddr *)&address, sizeof address) != 0 || listen(s, 64) != 0) fail("listen");
  return s;
}

static int dial(int port) {
  struct sockaddr_in address = loopback(port);
  for (int attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&address, sizeof address) == 0) return s;
    close(s);
    usleep(10000);
  }
  fail("connect");
  return -1;
}

// Sends and receives on one socket until both directions have ended. `shift` tells the two streams apart.
static void exchange(int s, long send_shift, long receive_shift) {
  static __thread unsigned char buffer[PIECE_BYTES];
  long sent = 0, got = 0;
  for (int ended = 0; !ended || sent <= bytes;) {
    struct pollfd polled = {.fd = s, .events = (ended ? 0 : POLLIN) | (sent <= bytes ? POLLOUT : 0)};
    if (poll(&polled, 1, 30000) <= 0) fail("nothing moves");
    if (polled.revents & POLLOUT) {
      long piece = bytes - sent < PIECE_BYTES ? bytes - sent : PIECE_BYTES;
      if (piece > 0) {
        ssize_t n = send(s, pattern + (sent + send_shift) % PATTERN_BYTES, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) fail("send");
        if (n > 0) sent += n;
      }
      if (sent == bytes) {
        shutdown(s, SHUT_WR);
        sent++;
      }
    }
    if (polled.revents & (POLLIN | POLLHUP | POLLERR)) {
      ssize_t n = recv(s, buffer, PIECE_BYTES, MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN) fail("recv");
      if (n == 0) ended = 1;
      if (n > 0) {
        if (memcmp(buffer, pattern + (got + receive_shift) % PATTERN_BYTES, n) != 0) {
          fprintf(stderr, "other bytes than were sent, within %zd of position %ld\n", n, got);
          exit(1);
        }
        got += n;
      }
    }
  }
  if (got != bytes) {
    fprintf(stderr, "%ld bytes arrived, not %ld\n", got, bytes);
    exit(1);
  }
}

static void *upstream(void *listener) {
  int s = accept(*(int *)listener, NULL, NULL);
  if (s < 0) fail("accept");
  exchange(s, 17, 0);
  close(s);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: relay UPSTREAM_PORT PROXY_PORT BYTES\n");
    return 64;
  }
  bytes = atol(argv[3]);
  srandom(1);
  for (int i = 0; i < PATTERN_BYTES; i++) pattern[i] = random() >> 8;
  memcpy(pattern + PATTERN_BYTES, pattern, PIECE_BYTES);
  int listener = serve(atoi(argv[1]));
  int s = dial(atoi(argv[2]));
  pthread_t thread;
  double start = seconds();
  pthread_create(&thread, NULL, upstream, &listener);
  exchange(s, 0, 17);
  pthread_join(thread, NULL);
  printf("%.6f\n", seconds() - start);
  return 0;
}
