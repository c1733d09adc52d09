// A publisher and many subscribers: up to 16 publishes are on their way at once, one being over when all subscribers have it.
// Usage: fanout line|redis|nats PORT SUBSCRIBERS SECONDS. Prints the deliveries and the seconds they took.
//
// line: a subscriber says "subscribe", a publisher any other line. redis, nats: PUBLISH and PUB to one channel.
#include "load.h"

enum { OUTSTANDING_MAX = 16, PAYLOAD_BYTES = 64, PINGS_SECONDS = 3 };

struct protocol {
  const char *name, *greeting, *subscribe, *publish_head, *deliver_head, *tail;
};

static const struct protocol protocols[] = {
    {"line", "", "subscribe\n", "", "", "\n"},
    {"redis", "", "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n", "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$64\r\n",
     "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$64\r\n", "\r\n"},
    {"nats", "CONNECT {\"verbose\":false}\r\n", "SUB c 1\r\n", "PUB c 64\r\n", "MSG c 1 64\r\n", "\r\n"},
};

static char buffer[BUFFER_BYTES];
static struct epoll_event events[EVENTS_MAX];

// Drops what greetings and confirmations come, until nothing has come for a while; NATS also asks for a sign of life once.
static void settle(int epoll, const int *sockets, double quiet) {
  double until = seconds() + quiet;
  while (seconds() < until) {
    int count = epoll_wait(epoll, events, EVENTS_MAX, 100);
    for (int i = 0; i < count; i++) {
      ssize_t got = receive(sockets[events[i].data.u32], buffer, sizeof buffer);
      if (memmem(buffer, got, "PING\r\n", 6)) send_all(sockets[events[i].data.u32], "PONG\r\n", 6);
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 5) return fprintf(stderr, "usage: fanout line|redis|nats PORT SUBSCRIBERS SECONDS\n"), 64;
  const struct protocol *protocol = &protocols[argv[1][0] == 'l' ? 0 : argv[1][0] == 'r' ? 1 : 2];
  int port = atoi(argv[2]), subscribers = atoi(argv[3]);
  int epoll = epoll_create1(EPOLL_CLOEXEC), *sockets = calloc(subscribers + 1, sizeof *sockets);
  allow_descriptors(subscribers + 32);
  // The last one is the publisher.
  for (int i = 0; i <= subscribers; i++) {
    sockets[i] = dial(port);
    send_all(sockets[i], protocol->greeting, strlen(protocol->greeting));
    if (i < subscribers) send_all(sockets[i], protocol->subscribe, strlen(protocol->subscribe));
    watch(epoll, sockets[i], i);
  }
  settle(epoll, sockets, protocol->name[0] == 'n' ? PINGS_SECONDS : 0.5);

  char payload[PAYLOAD_BYTES + 1], message[256], window[OUTSTANDING_MAX * 256];
  memset(payload, 'x', PAYLOAD_BYTES);
  payload[PAYLOAD_BYTES] = 0;
  size_t bytes = snprintf(message, sizeof message, "%s%s%s", protocol->publish_head, payload, protocol->tail);
  for (int i = 0; i < OUTSTANDING_MAX; i++) memcpy(window + i * bytes, message, bytes);
  long delivery = strlen(protocol->deliver_head) + PAYLOAD_BYTES + strlen(protocol->tail);
  long published = 0, received = 0;
  double start = seconds(), end = start + atof(argv[4]);
  while (seconds() < end) {
    long outstanding = published - received / delivery / subscribers;
    if (outstanding < OUTSTANDING_MAX) {
      send_all(sockets[subscribers], window, (OUTSTANDING_MAX - outstanding) * bytes);
      published += OUTSTANDING_MAX - outstanding;
    }
    int count = wait_for(epoll, events);
    for (int i = 0; i < count; i++) {
      int number = events[i].data.u32;
      ssize_t got = receive(sockets[number], buffer, sizeof buffer);
      if (number < subscribers) received += got;
    }
  }
  double took = seconds() - start;
  // The rest: nothing may be missing.
  while (received < published * subscribers * delivery) {
    int count = wait_for(epoll, events);
    for (int i = 0; i < count; i++) {
      int number = events[i].data.u32;
      ssize_t got = receive(sockets[number], buffer, sizeof buffer);
      if (number < subscribers) received += got;
    }
  }
  if (received % delivery != 0) return fprintf(stderr, "load: other bytes came than deliveries\n"), 1;
  printf("%ld %.6f\n", received / delivery, took);
  return 0;
}
