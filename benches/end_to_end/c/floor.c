/* floor LISTEN_PORT UPSTREAM_PORT: the floor, a relay that parses nothing.
 *
 * Each client connection gets an upstream connection of its own; whatever is readable on one side is written to the
 * other. Two reads and two writes per small request and one wait for many of them: what a proxy that parses HTTP can
 * come close to, and not undercut. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct side {
    int socket;
    int dead;
    struct side *other;
};

static const int on = 1;
static int events;
static char bytes[65536];

static struct sockaddr_in loopback(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int write_all(int socket, const char *from, long length) {
    while (length) {
        long written = write(socket, from, length);
        if (written < 0) {
            if (errno != EAGAIN) return -1;
            struct pollfd writable = {socket, POLLOUT, 0};
            poll(&writable, 1, 1000);
            continue;
        }
        from += written;
        length -= written;
    }
    return 0;
}

static struct side *watched(int socket) {
    struct side *side = calloc(1, sizeof *side);
    side->socket = socket;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = side};
    epoll_ctl(events, EPOLL_CTL_ADD, socket, &event);
    return side;
}

static void accept_all(int listener, struct sockaddr_in *upstream) {
    int client;
    while ((client = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        int server = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(server, (void *)upstream, sizeof *upstream)) {
            close(server);
            close(client);
            continue;
        }
        fcntl(server, F_SETFL, O_NONBLOCK);
        struct side *a = watched(client), *b = watched(server);
        a->other = b;
        b->other = a;
    }
}

static void relay(struct side *side) {
    if (side->dead) return;
    long length = read(side->socket, bytes, sizeof bytes);
    if (length < 0 && errno == EAGAIN) return;
    if (length <= 0 || write_all(side->other->socket, bytes, length)) {
        /* Not freed: the other side may be among the events of this very turn. */
        close(side->socket);
        close(side->other->socket);
        side->dead = side->other->dead = 1;
    }
}

int main(int count, char **arguments) {
    if (count < 3) return 2;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in here = loopback(arguments[1]), upstream = loopback(arguments[2]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 4096)) {
        perror("bind");
        return 1;
    }
    events = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(events, EPOLL_CTL_ADD, listener, &event);
    static struct epoll_event ready[512];
    for (;;) {
        int n = epoll_wait(events, ready, 512, -1);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.ptr) relay(ready[i].data.ptr);
            else accept_all(listener, &upstream);
        }
    }
}
