/* The floor of `meter bench`: what a request costs that is answered without looking at it. One thread, one epoll, one
 * constant answer for each request; whoever asks waits for the answer before asking again, as wrk does. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 256

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 43\r\n\r\n"
    "{\"user_id\":\"u000000000000\",\"credits\":12345}";

static int listening(int port) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(sock, (struct sockaddr *)&here, sizeof here) || listen(sock, 1024)) {
        perror("floor");
        exit(1);
    }
    return sock;
}

static void watch(int poll, int sock) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = sock};
    epoll_ctl(poll, EPOLL_CTL_ADD, sock, &wanted);
}

static void take(int poll, int server) {
    int on = 1, sock;
    while ((sock = accept4(server, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(poll, sock);
    }
}

static void answer(int sock) {
    char request[65536];
    if (read(sock, request, sizeof request) <= 0 || write(sock, ANSWER, sizeof ANSWER - 1) < 0) close(sock);
}

int main(int count, char **arguments) {
    struct epoll_event ready[EVENTS_MAX];
    int poll = epoll_create1(0), server = listening(count > 1 ? atoi(arguments[1]) : 0);
    watch(poll, server);
    for (;;) {
        int found = epoll_wait(poll, ready, EVENTS_MAX, -1);
        for (int n = 0; n < found; n++) {
            if (ready[n].data.fd == server) take(poll, server);
            else answer(ready[n].data.fd);
        }
    }
}
