// Connections that live for one line: connect, send it, read its echo, close; a number of them at once.
// Usage: churn PORT AT_ONCE CONNECTIONS. Prints the connections and the seconds they took.
#include "load.h"

static const char line[] = "a line of a client that leaves at once\n";

static void begin(int epoll, int *sockets, int port, int place) {
  sockets[place] = dial(port);
  watch(epoll, sockets[place], place);
  send_all(sockets[place], line, sizeof line - 1);
}

int main(int argc, char **argv) {
  if (argc != 4) return fprintf(stderr, "usage: churn PORT AT_ONCE CONNECTIONS\n"), 64;
  int port = atoi(argv[1]), at_once = atoi(argv[2]), wanted = atoi(argv[3]), begun = 0, done = 0;
  int epoll = epoll_create1(EPOLL_CLOEXEC), *sockets = calloc(at_once, sizeof *sockets);
  size_t *arrived = calloc(at_once, sizeof *arrived);
  struct epoll_event events[EVENTS_MAX];
  char buffer[256];
  double start = seconds();
  for (; begun < at_once && begun < wanted; begun++) begin(epoll, sockets, port, begun);
  while (done < wanted) {
    int count = wait_for(epoll, events);
    for (int i = 0; i < count; i++) {
      int place = events[i].data.u32;
      arrived[place] += receive(sockets[place], buffer, sizeof buffer);
      if (arrived[place] < sizeof line - 1) continue;
      arrived[place] = 0;
      close(sockets[place]);
      done++;
      if (begun < wanted) begin(epoll, sockets, port, place), begun++;
    }
  }
  printf("%d %.6f\n", done, seconds() - start);
  return 0;
}
