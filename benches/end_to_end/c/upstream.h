/* The upstream: answers by the first letter of the path, with as little work as possible.
 *
 * /s 128 bytes, /h twelve headers and 128 bytes, /b 64 KiB, /p reads a body and answers 128 bytes. One epoll loop
 * owned by whoever includes this. Requests come from a proxy under test, so they are taken as well formed; a head
 * longer than the buffer closes the connection. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 32768, BIG = 65536 };

/* What an epoll event points to. */
enum kind { LISTENER, SERVED, CLIENT };

struct served {
    enum kind kind;
    int socket;
    long length;       /* bytes in the buffer */
    long body;         /* of a request body still to come */
    int chunked;       /* reading a chunked body */
    const char *rest;  /* of an answer that did not fit */
    long rest_length;
    char bytes[BUFFER];
};

static const int on = 1;
static int events;
static char *small, *headers, *big;
static long small_length, headers_length, big_length;

static const char HEADERS[] =
    "HTTP/1.1 200 OK\r\nServer: up\r\nDate: Mon, 23 Nov 2026 02:38:53 GMT\r\n"
    "Content-Type: application/json; charset=utf-8\r\nContent-Length: 128\r\n"
    "Cache-Control: private, max-age=0, must-revalidate\r\nETag: W/\"5e1-8sRvQ1Hq0cM0l1dZ3o3B8bXz0aE\"\r\n"
    "Vary: Accept-Encoding, Origin\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n"
    "X-Content-Type-Options: nosniff\r\nX-Frame-Options: SAMEORIGIN\r\n"
    "X-Request-Id: 7b0c1d3e-1f0a-4b6c-9d5e-2f6a7b8c9d0e\r\n"
    "Set-Cookie: session=8f14e45fceea167a5a36dedd4bea2543; Path=/; HttpOnly; Secure; SameSite=Lax\r\n\r\n";

static char *message(const char *head, long body, long *length) {
    long begin = strlen(head);
    char *whole = malloc(begin + body);
    memcpy(whole, head, begin);
    memset(whole + begin, 'x', body);
    *length = begin + body;
    return whole;
}

static void watch(int socket, void *owner, unsigned what, int how) {
    struct epoll_event event = {.events = what, .data.ptr = owner};
    epoll_ctl(events, how, socket, &event);
}

/* Listens on `addresses` addresses from 127.0.0.1 on; the kind of each is LISTENER. */
static void upstream_open(int port, int addresses) {
    const char *plain = "HTTP/1.1 200 OK\r\nServer: up\r\nContent-Type: text/plain\r\nContent-Length: ";
    char head[256];
    snprintf(head, sizeof head, "%s128\r\n\r\n", plain);
    small = message(head, 128, &small_length);
    headers = message(HEADERS, 128, &headers_length);
    snprintf(head, sizeof head, "%s%d\r\n\r\n", plain, BIG);
    big = message(head, BIG, &big_length);
    for (int i = 0; i < addresses; i++) {
        struct served *listener = calloc(1, sizeof *listener);
        listener->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(listener->socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + i);
        if (bind(listener->socket, (void *)&address, sizeof address) || listen(listener->socket, 4096)) {
            perror("bind");
            exit(1);
        }
        watch(listener->socket, listener, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void upstream_accept(struct served *listener) {
    int socket;
    while ((socket = accept4(listener->socket, 0, 0, SOCK_NONBLOCK)) >= 0) {
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct served *served = calloc(1, sizeof *served);
        served->kind = SERVED;
        served->socket = socket;
        watch(socket, served, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* 1: all written; 0: the socket is full, and watched for room; -1: broken. */
static int drain(struct served *served) {
    while (served->rest_length) {
        long written = send(served->socket, served->rest, served->rest_length, MSG_NOSIGNAL);
        if (written < 0) {
            if (errno != EAGAIN) return -1;
            watch(served->socket, served, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return 0;
        }
        served->rest += written;
        served->rest_length -= written;
    }
    return 1;
}

static int answer(struct served *served, char letter) {
    served->rest = letter == 'h' ? headers : letter == 'b' ? big : small;
    served->rest_length = letter == 'h' ? headers_length : letter == 'b' ? big_length : small_length;
    return drain(served);
}

static void consume(struct served *served, long length) {
    served->length -= length;
    if (served->length) memmove(served->bytes, served->bytes + length, served->length);
}

/* The end of the head in the buffer, or null. */
static char *head_end(struct served *served) {
    char *last = served->bytes + served->length - 4;
    if (served->length > 4 && served->bytes[0] == 'G' && !memcmp(last, "\r\n\r\n", 4)) return last;
    return memmem(served->bytes, served->length, "\r\n\r\n", 4);
}

/* Answers every whole request in the buffer; -1 if the connection is to be closed. */
static int serve(struct served *served) {
    while (!served->rest_length && served->length) {
        if (served->chunked) {
            char *end = memmem(served->bytes, served->length, "0\r\n\r\n", 5);
            if (!end) {
                if (served->length > 8) consume(served, served->length - 4);
                return 0;
            }
            consume(served, end + 5 - served->bytes);
            served->chunked = 0;
            if (answer(served, 'p') < 0) return -1;
            continue;
        }
        if (served->body) {
            long here = served->body < served->length ? served->body : served->length;
            served->body -= here;
            consume(served, here);
            if (!served->body && answer(served, 'p') < 0) return -1;
            continue;
        }
        char *end = head_end(served);
        if (!end) return served->length == BUFFER ? -1 : 0;
        long head = end + 4 - served->bytes;
        char *path = memchr(served->bytes, '/', head);
        char letter = path ? path[1] : 's';
        if (served->bytes[0] == 'P') {
            *end = 0;
            char *length = strcasestr(served->bytes, "\ncontent-length:");
            if (length) served->body = atol(length + 16);
            else served->chunked = strcasestr(served->bytes, "chunked") != NULL;
        }
        consume(served, head);
        if (!served->body && !served->chunked && answer(served, letter) < 0) return -1;
    }
    return 0;
}

static void upstream_event(struct served *served, unsigned what) {
    if (what & EPOLLOUT) {
        int drained = drain(served);
        if (drained < 0) goto gone;
        if (drained) {
            watch(served->socket, served, EPOLLIN, EPOLL_CTL_MOD);
            if (serve(served) < 0) goto gone;
        }
    }
    if (what & (EPOLLIN | EPOLLHUP | EPOLLERR) && served->length < BUFFER) {
        long length = recv(served->socket, served->bytes + served->length, BUFFER - served->length, 0);
        if (length < 0 && errno == EAGAIN) return;
        if (length <= 0) goto gone;
        served->length += length;
        if (serve(served) < 0) goto gone;
    }
    return;
gone:
    close(served->socket);
    free(served);
}
