// The practical limit for a fan-out: plain C, one epoll loop; what one read of the publisher brought goes to every subscriber in
// one send. A client that says "subscribe" is a subscriber. scripts/bench compares moonport with it. Usage: fanout PORT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, BUFFER_BYTES = 65536, SUBSCRIBERS_MAX = 65536 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int subscribers[SUBSCRIBERS_MAX], subscriber_count;

static void leave(int socket) {
  for (int i = 0; i < subscriber_count; i++) {
    if (subscribers[i] == socket) subscribers[i--] = subscribers[--subscriber_count];
  }
  close(socket);
}

int main(int argc, char **argv) {
  static char buffer[BUFFER_BYTES];
  static const char subscribe[] = "subscribe\n";
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) fail("bind");
  if (listen(listener, 4096) != 0) fail("listen");
  socklen_t size = sizeof address;
  getsockname(listener, (struct sockaddr *)&address, &size);
  fprintf(stderr, "listening on 127.0.0.1:%d\n", ntohs(address.sin_port));

  int epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS_MAX];
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  while (1) {
    int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < count; i++) {
      int socket = events[i].data.fd;
      if (socket == listener) {
        int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (client < 0) continue;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        event.data.fd = client;
        epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event);
        continue;
      }
      ssize_t bytes = recv(socket, buffer, sizeof buffer, 0);
      if (bytes <= 0) {
        leave(socket);
      } else if (bytes == sizeof subscribe - 1 && memcmp(buffer, subscribe, bytes) == 0) {
        if (subscriber_count < SUBSCRIBERS_MAX) subscribers[subscriber_count++] = socket;
      } else {
        for (int s = 0; s < subscriber_count; s++) {
          if (send(subscribers[s], buffer, bytes, MSG_NOSIGNAL) != bytes) fail("a subscriber does not keep up");
        }
      }
    }
  }
}
