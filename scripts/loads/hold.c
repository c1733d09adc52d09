// Idle connections: each sends one line, reads its echo, and stays until standard input ends.
// Usage: hold PORT CONNECTIONS. Prints "held" when all have their echo.
#include "load.h"

#include <sys/time.h>

int main(int argc, char **argv) {
  if (argc != 3) return fprintf(stderr, "usage: hold PORT CONNECTIONS\n"), 64;
  int port = atoi(argv[1]), connections = atoi(argv[2]);
  static const char line[] = "hello\n";
  char buffer[64];
  allow_descriptors(connections + 32);
  int *sockets = calloc(connections, sizeof *sockets);
  struct timeval patience = {.tv_sec = ANSWER_MILLISECONDS / 1000};
  for (int i = 0; i < connections; i++) {
    sockets[i] = dial(port);
    setsockopt(sockets[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    send_all(sockets[i], line, sizeof line - 1);
  }
  for (int i = 0; i < connections; i++) {
    for (size_t got = 0; got < sizeof line - 1;) {
      ssize_t count = recv(sockets[i], buffer, sizeof buffer, 0);
      if (count <= 0) fail("recv");
      got += count;
    }
  }
  printf("held\n");
  fflush(stdout);
  while (read(0, buffer, sizeof buffer) > 0) {}
  return 0;
}
