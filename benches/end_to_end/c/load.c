/* load PORT CONNECTIONS RATE SECONDS REQUEST_FILE UPSTREAM_PORT [ADDRESSES]: HTTP/1.1 clients and upstream in one.
 *
 * Sends the request of the file over keep-alive connections to the proxy at 127.0.0.1:PORT and serves what the proxy
 * forwards, in one epoll loop on one core: the least work per request next to the proxy's own.
 *   RATE 0       closed loop: each connection sends again as soon as it has its answer
 *   RATE n       n requests per second, whatever the answers do; latency counts from the moment a request was due, so
 *                that a stall is felt by everyone who would have come (no coordinated omission)
 *   RATE -1      one request on each connection, 64 at a time; then says "ready" and holds the connections open until
 *                standard input ends
 * CONNECTIONS 0 serves the upstream only, until killed. ADDRESSES (1) is how many loopback addresses it listens on.
 * Prints one line of name=value: latencies in microseconds, the first tenth of the time left out of them. */
#define _GNU_SOURCE
#include "upstream.h"
#include <signal.h>
#include <time.h>

typedef unsigned long long nanos;

struct client {
    enum kind kind;
    int socket;
    int dead;
    int busy;
    nanos due;
    long body; /* of the answer, still to come; -1 while the head is not there */
    long length;
    char bytes[16384];
};

enum { SMALLEST = 5, STEPS = 1 << SMALLEST, BUCKETS = 4096, STALLED = 1000000000 };

static unsigned buckets[BUCKETS];
static nanos slowest, measured, total, errors;
static char request[65536], sink[262144];
static long request_length;
static struct sockaddr_in proxy;
/* Idle connections, first in first out: at a fixed rate all of them take part. */
static struct client **idle;
static int capacity, first, waiting;

static nanos now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* Log-linear buckets of tenths of a microsecond: 32 steps per power of two, within 3 %. */
static void measure(nanos took) {
    nanos tenths = took / 100;
    int bucket = tenths;
    if (tenths >= 2 * STEPS) {
        int shift = 63 - __builtin_clzll(tenths) - SMALLEST;
        bucket = (shift << SMALLEST) + (tenths >> shift);
        if (bucket >= BUCKETS) bucket = BUCKETS - 1;
    }
    buckets[bucket]++;
    measured++;
    if (took > slowest) slowest = took;
}

static double quantile(double share) {
    nanos rank = measured * share, seen = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        seen += buckets[bucket];
        if (seen <= rank) continue;
        if (bucket < 2 * STEPS) return bucket * 0.1;
        int shift = (bucket >> SMALLEST) - 1;
        return (double)((nanos)((bucket & (STEPS - 1)) | STEPS) << shift) * 0.1;
    }
    return slowest / 1e3;
}

static void park(struct client *client) {
    client->busy = 0;
    idle[(first + waiting++) % capacity] = client;
}

static void failed(struct client *client) {
    errors++;
    client->dead = 1;
    client->busy = 0;
    epoll_ctl(events, EPOLL_CTL_DEL, client->socket, 0);
}

static void ask(struct client *client, nanos due) {
    client->due = due;
    client->length = 0;
    client->body = -1;
    client->busy = 1;
    /* A request fits any socket buffer of an idle connection. */
    if (send(client->socket, request, request_length, MSG_NOSIGNAL) != request_length) failed(client);
}

static void open_client(void) {
    struct client *client = calloc(1, sizeof *client);
    client->kind = CLIENT;
    client->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client->socket, (void *)&proxy, sizeof proxy)) {
        perror("connect");
        exit(1);
    }
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(client->socket, client, EPOLLIN, EPOLL_CTL_ADD);
    park(client);
}

/* Reads of an answer what is there; true when it is whole. */
static int answered(struct client *client) {
    if (client->body >= 0) {
        long length = recv(client->socket, sink, sizeof sink, 0);
        if (length <= 0) return failed(client), 0;
        client->body -= length;
        return client->body <= 0;
    }
    long room = sizeof client->bytes - 1 - client->length;
    long length = recv(client->socket, client->bytes + client->length, room, 0);
    if (length <= 0 || !client->busy) return failed(client), 0;
    client->length += length;
    client->bytes[client->length] = 0;
    char *end = strstr(client->bytes, "\r\n\r\n");
    if (!end) {
        if (length == room) failed(client);
        return 0;
    }
    *end = 0;
    char *expected = strcasestr(client->bytes, "\ncontent-length:");
    if (!expected) return failed(client), 0;
    if (strncmp(client->bytes + 9, "200", 3)) errors++;
    client->body = atol(expected + 16) - (client->length - (end + 4 - client->bytes));
    return client->body <= 0;
}

/* Serves one turn of events; `done` is called with each client that has its answer. */
static void turn(long wait, void (*done)(struct client *)) {
    static struct epoll_event ready[256];
    struct timespec timeout = {wait / 1000000000, wait % 1000000000};
    int n = epoll_pwait2(events, ready, 256, &timeout, 0);
    for (int i = 0; i < n; i++) {
        enum kind *kind = ready[i].data.ptr;
        if (*kind == LISTENER) upstream_accept(ready[i].data.ptr);
        else if (*kind == SERVED) upstream_event(ready[i].data.ptr, ready[i].events);
        else if (answered(ready[i].data.ptr)) done(ready[i].data.ptr);
    }
}

static nanos warm_until;

static void finished(struct client *client) {
    nanos time = now();
    total++;
    if (client->due > warm_until) measure(time - client->due);
}

static void finished_closed(struct client *client) {
    finished(client);
    ask(client, now());
}

static void finished_open(struct client *client) {
    finished(client);
    park(client);
}

static struct client *next_idle(void) {
    struct client *client = idle[first];
    first = (first + 1) % capacity;
    waiting--;
    return client;
}

static void run(double rate, double seconds) {
    nanos begin = now(), period = rate > 0 ? 1e9 / rate : 0, due = begin + period, end = begin + seconds * 1e9;
    warm_until = begin + (end - begin) / 10;
    struct client *all[capacity];
    memcpy(all, idle, sizeof all);
    if (!period)
        while (waiting) ask(next_idle(), begin);
    for (nanos time = begin; time < end; time = now()) {
        for (; period && waiting && due <= time; due += period) ask(next_idle(), due);
        nanos limit = period && waiting ? due : time + 100000000;
        turn(limit > time ? limit - time : 0, period ? finished_open : finished_closed);
    }
    nanos over = now();
    for (int i = 0; i < capacity; i++) errors += all[i]->busy && over - all[i]->due > STALLED;
    printf("requests=%llu rate=%.1f p50=%.1f p99=%.1f p999=%.1f max=%.1f errors=%llu\n", total,
           total / ((over - begin) / 1e9), quantile(.5), quantile(.99), quantile(.999), slowest / 1e3, errors);
}

static int under_way;

static void held(struct client *client) {
    client->busy = 0;
    total++;
    under_way--;
}

static void hold(int connections) {
    nanos progress = now();
    for (int opened = 0; opened < connections || under_way > 0;) {
        for (; opened < connections && under_way < 64; opened++, under_way++) {
            open_client();
            ask(next_idle(), now());
        }
        nanos before = total;
        turn(100000000, held);
        if (total > before) progress = now();
        if (errors || now() - progress > 5ull * STALLED) {
            fprintf(stderr, "stopped at %llu of %d connections\n", total, connections);
            exit(1);
        }
    }
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {
    }
}

int main(int count, char **arguments) {
    if (count < 7) return 2;
    signal(SIGPIPE, SIG_IGN);
    int connections = atoi(arguments[2]);
    double rate = atof(arguments[3]);
    FILE *file = fopen(arguments[5], "r");
    if (!file) return perror(arguments[5]), 1;
    request_length = fread(request, 1, sizeof request, file);
    proxy = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1]))};
    proxy.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    events = epoll_create1(0);
    upstream_open(atoi(arguments[6]), count > 7 ? atoi(arguments[7]) : 1);
    capacity = connections;
    idle = calloc(connections ? connections : 1, sizeof *idle);
    if (rate < 0) {
        hold(connections);
        return 0;
    }
    if (!connections)
        for (;;) turn(1000000000, 0);
    for (int i = 0; i < connections; i++) open_client();
    run(rate, atof(arguments[4]));
    return errors > 0 ? 3 : 0;
}
