// Pairs of clients, one sending what the other gets: 16 lines of 64 bytes at once, the next when they have arrived.
// Usage: pairs PORT PAIRS same|other SECONDS: both clients of a pair on the same worker of moonport, or on two.
// Prints the messages and the seconds they took. The server (scripts/bench.d/send.lua) tells each client its id and worker.
#include "load.h"

enum { IN_FLIGHT = 16, LINE_BYTES = 64 };

struct client {
  int socket;
  long long id;
  int worker, taken;
};

int main(int argc, char **argv) {
  if (argc != 5) return fprintf(stderr, "usage: pairs PORT PAIRS same|other SECONDS\n"), 64;
  unsigned port = atoi(argv[1]), pairs = atoi(argv[2]), same = argv[3][0] == 's';
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  // Twice as many as are needed, so that partners are found wherever the server puts them.
  unsigned connections = pairs * 4;
  struct client *clients = calloc(connections, sizeof *clients);
  char buffer[BUFFER_BYTES], window[IN_FLIGHT * LINE_BYTES];
  for (unsigned i = 0; i < connections; i++) {
    clients[i].socket = dial(port);
    ssize_t got = recv(clients[i].socket, buffer, sizeof buffer - 1, 0);
    if (got <= 0) fail("recv");
    buffer[got] = 0;
    if (sscanf(buffer, "%lld %d", &clients[i].id, &clients[i].worker) != 2) fail("the server's greeting");
  }
  unsigned *sources = calloc(pairs, sizeof *sources), *sinks = calloc(pairs, sizeof *sinks), found = 0;
  for (unsigned i = 0; i < connections && found < pairs; i++) {
    for (unsigned j = i + 1; j < connections && !clients[i].taken; j++) {
      if (clients[j].taken || (clients[i].worker == clients[j].worker) != same) continue;
      clients[i].taken = clients[j].taken = 1;
      sources[found] = i;
      sinks[found] = j;
      int count = snprintf(buffer, sizeof buffer, "%lld\n", clients[j].id);
      send_all(clients[i].socket, buffer, count);
      watch(epoll, clients[j].socket, found++);
    }
  }
  if (found < pairs) return fprintf(stderr, "load: not enough clients on the right workers\n"), 1;
  memset(window, 'x', sizeof window);
  for (int i = 1; i <= IN_FLIGHT; i++) window[i * LINE_BYTES - 1] = '\n';
  long *missing = calloc(pairs, sizeof *missing), done = 0;
  double start = seconds(), end = start + atof(argv[4]);
  for (unsigned i = 0; i < pairs; i++) {
    missing[i] = sizeof window;
    send_all(clients[sources[i]].socket, window, sizeof window);
  }
  struct epoll_event events[EVENTS_MAX];
  while (seconds() < end) {
    int count = wait_for(epoll, events);
    for (int e = 0; e < count; e++) {
      int i = events[e].data.u32;
      missing[i] -= receive(clients[sinks[i]].socket, buffer, sizeof buffer);
      if (missing[i] > 0) continue;
      done += IN_FLIGHT;
      missing[i] = sizeof window;
      send_all(clients[sources[i]].socket, window, sizeof window);
    }
  }
  printf("%ld %.6f\n", done, seconds() - start);
  return 0;
}
