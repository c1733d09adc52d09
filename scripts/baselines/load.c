// A load generator for echo servers of lines: every connection keeps a number of lines in flight and sends the next batch when
// the last one has come back. Usage: load PORT CONNECTIONS IN_FLIGHT LINE_BYTES MESSAGES
// Prints the messages echoed and the seconds it took.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, BUFFER_BYTES = 1 << 20 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static int dial(int port) {
  int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(s, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return s;
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: load PORT CONNECTIONS IN_FLIGHT LINE_BYTES MESSAGES\n");
    return 64;
  }
  int connections = atoi(argv[2]), in_flight = atoi(argv[3]), bytes = atoi(argv[4]);
  long wanted = atol(argv[5]), done = 0;
  long batch = (long)in_flight * bytes;
  char *batch_bytes = malloc(batch), *buffer = malloc(BUFFER_BYTES);
  int *sockets = malloc(sizeof(int) * connections);
  long *missing = malloc(sizeof(long) * connections);
  memset(batch_bytes, 'x', batch);
  for (int i = 1; i <= in_flight; i++) batch_bytes[(long)i * bytes - 1] = '\n';
  int epoll = epoll_create1(0);
  for (int i = 0; i < connections; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    sockets[i] = dial(atoi(argv[1]));
    missing[i] = batch;
    epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[i], &event);
  }
  double start = seconds();
  for (int i = 0; i < connections; i++) {
    if (send(sockets[i], batch_bytes, batch, 0) != batch) fail("send");
  }
  struct epoll_event events[EVENTS_MAX];
  while (done < wanted) {
    int count = epoll_wait(epoll, events, EVENTS_MAX, 5000);
    if (count <= 0) fail("no answer");
    for (int e = 0; e < count; e++) {
      int i = events[e].data.u32;
      ssize_t got = recv(sockets[i], buffer, BUFFER_BYTES, 0);
      if (got <= 0) fail("recv");
      missing[i] -= got;
      if (missing[i] > 0) continue;
      if (missing[i] < 0) return fprintf(stderr, "more came back than was sent\n"), 1;
      done += in_flight;
      missing[i] = batch;
      if (send(sockets[i], batch_bytes, batch, 0) != batch) fail("send");
    }
  }
  printf("%ld %.6f\n", done, seconds() - start);
  return 0;
}
