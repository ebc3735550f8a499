/* A peer that breaks every rule, in a process of its own so that it can be put out without harm to others:
 *
 *     attacker MODE SOCKET SEED COUNT GOLDEN_DIR
 *
 *   malformed  COUNT messages from many connections: mutated golden ones, random bytes, wrong frames
 *   lists      asks for the list of jobs for COUNT ms, reads the answers
 *   mute       the same, and never reads
 *   zmtp       COUNT connections that speak ZMTP badly, on a raw socket
 *   giant      COUNT frames that are too large, or never end
 *   idle       COUNT connections that say nothing, some after a greeting, until the other side ends them
 *   uploads    COUNT documents begun and never finished, then holds on for a second
 *   posing     says hello with the instance and leases of others, COUNT times
 *
 * Prints how many of them left. It ends with 0 when it could begin, whatever was done to it then. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/host.h"
#include "proto/frame.h"

#define GOLDEN_MOST 128
#define SOCKETS     32

struct golden {
    struct pm_buf files[GOLDEN_MOST]; /* [u32 size][bytes] of each frame */
    size_t count;
};

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void load_golden(const char *dir, struct golden *g)
{
    for (uint32_t type = 1; type < 64 && g->count < GOLDEN_MOST; type++) {
        if (!pm_msg_schema(type))
            continue;
        char *path = pm_xprintf("%s/%s.bin", dir, pm_msg_name(type));
        if (!pm_fs_read(path, 1 << 20, &g->files[g->count], NULL))
            g->count++;
        free(path);
    }
}

static void *open_dealer(void *zmq, const char *path)
{
    void *s = zmq_socket(zmq, ZMQ_DEALER);
    char *endpoint = pm_xprintf("ipc://%s", path);
    if (!s || pm_socket_options(s, ZMQ_DEALER, NULL) || zmq_connect(s, endpoint))
        exit(1);
    free(endpoint);
    return s;
}

static bool wait_for(void *socket, short events, int ms)
{
    zmq_pollitem_t item = {.socket = socket, .events = events};
    return zmq_poll(&item, 1, ms) > 0;
}

/* ---- malformed ---- */

static bool send_frames(void *s, const struct golden *g, uint64_t *random)
{
    uint64_t r = next_random(random);
    const struct pm_buf *file = &g->files[r % g->count];
    unsigned how = (unsigned)(r >> 32) % 8, surplus = (unsigned)(r >> 40) % 6;
    size_t at = 0;
    uint8_t noise[64];
    if (how == 0) { /* anything at all */
        size_t size = (size_t)(r >> 48) % sizeof noise;
        for (size_t i = 0; i < size; i++)
            noise[i] = (uint8_t)next_random(random);
        return zmq_send(s, noise, size, ZMQ_DONTWAIT) >= 0;
    }
    while (at + 4 <= file->size) {
        uint32_t size;
        memcpy(&size, file->data + at, 4);
        at += 4;
        if (size > file->size - at)
            break;
        uint8_t *copy = pm_xalloc(size + 1u);
        memcpy(copy, file->data + at, size);
        at += size;
        for (unsigned i = 0; i < how && size; i++)
            copy[next_random(random) % size] ^= (uint8_t)(1u << (next_random(random) % 8));
        if (how == 7 && size)
            size = (uint32_t)(next_random(random) % size);
        bool has_more = at + 4 <= file->size || (how == 6 && surplus);
        int rc = zmq_send(s, copy, size, ZMQ_DONTWAIT | (has_more ? ZMQ_SNDMORE : 0));
        free(copy);
        if (rc < 0 && at == 4 + size)
            return false;
    }
    for (unsigned i = 0; how == 6 && i < surplus; i++)
        (void)zmq_send(s, noise, i, ZMQ_DONTWAIT | (i + 1 < surplus ? ZMQ_SNDMORE : 0));
    return true;
}

static unsigned attack_malformed(const char *path, uint64_t random, unsigned count, const struct golden *g)
{
    void *zmq = zmq_ctx_new(), *sockets[SOCKETS];
    unsigned sent = 0, failed = 0;
    for (int i = 0; i < SOCKETS; i++)
        sockets[i] = open_dealer(zmq, path);
    (void)wait_for(sockets[SOCKETS - 1], ZMQ_POLLOUT, 2000);
    while (sent < count && failed < 4 * SOCKETS) {
        bool did = send_frames(sockets[next_random(&random) % SOCKETS], g, &random);
        sent += did;
        failed = did ? 0 : failed + 1;
        if (!did)
            (void)poll(NULL, 0, 1);
    }
    (void)poll(NULL, 0, 50); /* LINGER is 0 */
    for (int i = 0; i < SOCKETS; i++)
        zmq_close(sockets[i]);
    zmq_ctx_term(zmq);
    return sent;
}

/* ---- requests without end ---- */

static void say_hello(void *s, enum pm_role role, const char *name, uint64_t instance, struct pm_held *held,
                      uint32_t held_count)
{
    const char *readers[] = {"fast"};
    char *host = pm_host_id();
    struct pm_msg_hello hello = {.role = role,
                                 .proto_min = PM_PROTO_MIN,
                                 .proto_max = PM_PROTO_MAX,
                                 .name = name,
                                 .version = "",
                                 .host = host,
                                 .client = name,
                                 .instance = instance,
                                 .credit = 0, /* work would be given to it, as to any process of this user */
                                 .readers = readers,
                                 .reader_count = role == PM_ROLE_WORKER,
                                 .held = held,
                                 .held_count = held_count};
    struct pm_header h = {.proto = PM_PROTO_MIN, .type = PM_MSG_HELLO, .seq = 1};
    if (wait_for(s, ZMQ_POLLOUT, 2000))
        (void)pm_message_send(s, NULL, 0, &h, &hello, NULL, 0, NULL);
    free(host);
}

static unsigned attack_lists(const char *path, unsigned ms, bool reads)
{
    void *zmq = zmq_ctx_new(), *s = open_dealer(zmq, path);
    unsigned sent = 0;
    char answer[64];
    struct pm_msg_list q = {.ref = 1, .batch = "", .limit = 1000};
    say_hello(s, PM_ROLE_CLIENT, "lister", 1, NULL, 0);
    for (int64_t until = pm_clock_us() + (int64_t)ms * 1000; pm_clock_us() < until;) {
        struct pm_header h = {.proto = PM_PROTO_MAX, .type = PM_MSG_LIST, .seq = ++q.ref & 0xffffffffu};
        if (!pm_message_send(s, NULL, 0, &h, &q, NULL, 0, NULL))
            sent++;
        else
            (void)wait_for(s, reads ? ZMQ_POLLOUT | ZMQ_POLLIN : ZMQ_POLLOUT, 5);
        while (reads && zmq_recv(s, answer, sizeof answer, ZMQ_DONTWAIT) >= 0) {
        }
    }
    zmq_close(s);
    zmq_ctx_term(zmq);
    return sent;
}

static unsigned attack_uploads(const char *path, unsigned count)
{
    void *zmq = zmq_ctx_new();
    unsigned sent = 0;
    void *s = open_dealer(zmq, path);
    say_hello(s, PM_ROLE_CLIENT, "uploader", 2, NULL, 0);
    for (unsigned i = 0; i < count; i++) {
        struct pm_msg_blob_put put = {.ref = i + 1, .upload = i + 1, .raw_bytes = 4};
        struct pm_header h = {.proto = PM_PROTO_MAX, .type = PM_MSG_BLOB_PUT, .seq = i + 2};
        static const uint8_t block[] = {0x40, 'a', 'b', 'c', 'd'}; /* LZ4: four literals */
        if (wait_for(s, ZMQ_POLLOUT, 100) &&
            !pm_message_send(s, NULL, 0, &h, &put, block, sizeof block, NULL))
            sent++;
    }
    (void)poll(NULL, 0, 1000);
    zmq_close(s);
    zmq_ctx_term(zmq);
    return sent;
}

static unsigned attack_posing(const char *path, uint64_t random, unsigned count)
{
    void *zmq = zmq_ctx_new();
    unsigned sent = 0;
    for (unsigned i = 0; i < count; i++) {
        void *s = open_dealer(zmq, path);
        struct pm_held held[8];
        for (int k = 0; k < 8; k++) /* leases that others may hold */
            held[k] = (struct pm_held){next_random(&random) >> (k * 8), 1, 1};
        say_hello(s, PM_ROLE_WORKER, "worker", next_random(&random), held, 8);
        for (int k = 0; k < 8; k++) { /* and their ends */
            struct pm_msg_result result = {.task = held[k].task,
                                           .epoch = 1,
                                           .attempt = 1,
                                           .error_code = "",
                                           .error_text = "",
                                           .record = "",
                                           .sheet = "",
                                           .blob = "",
                                           .fingerprint = ""};
            struct pm_header h = {.proto = PM_PROTO_MAX, .type = PM_MSG_RESULT, .seq = (uint32_t)k + 2};
            sent += !pm_message_send(s, NULL, 0, &h, &result, NULL, 0, NULL);
        }
        (void)wait_for(s, ZMQ_POLLIN, 20);
        zmq_close(s);
    }
    zmq_ctx_term(zmq);
    return sent;
}

/* ---- raw sockets ---- */

static int raw_connect(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || strlen(path) >= sizeof a.sun_path)
        return -1;
    memcpy(a.sun_path, path, strlen(path));
    for (int i = 0; i < 2000; i++) { /* EAGAIN: the queue of those who wait to be accepted is full */
        if (!connect(fd, (struct sockaddr *)&a, sizeof a))
            return fd;
        if (errno != EAGAIN)
            break;
        (void)poll(NULL, 0, 1);
    }
    close(fd);
    return -1;
}

static bool raw_send(int fd, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    for (int i = 0; bytes && i < 1000; i++) {
        ssize_t n = send(fd, p, bytes, MSG_NOSIGNAL);
        if (n > 0) {
            p += n;
            bytes -= (size_t)n;
        } else if (errno == EAGAIN) {
            (void)poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 5);
        } else {
            return false;
        }
    }
    return !bytes;
}

static const uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1, 'N', 'U', 'L', 'L'};

/* The greeting and READY of ZMTP 3.1 with the NULL mechanism. */
static void raw_greet(int fd)
{
    static const uint8_t ready[] = "\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06"
                                   "DEALER\x08Identity\x00\x00\x00\x00";
    (void)raw_send(fd, greeting, sizeof greeting);
    (void)poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 200);
    (void)raw_send(fd, ready, sizeof ready - 1);
    (void)poll(NULL, 0, 5);
}

static unsigned attack_zmtp(const char *path, uint64_t random, unsigned count)
{
    unsigned done = 0;
    uint8_t noise[512];
    for (unsigned i = 0; i < count; i++) {
        int fd = raw_connect(path);
        if (fd < 0)
            continue;
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)next_random(&random);
        size_t size = next_random(&random) % sizeof noise;
        switch (i % 6) {
        case 0: /* no greeting at all */
            (void)raw_send(fd, noise, size);
            break;
        case 1: /* half of one */
            (void)raw_send(fd, "\xff\0\0\0\0\0\0\0\1\x7f\3", next_random(&random) % 11);
            break;
        case 2: /* a good greeting, then noise instead of READY */
            (void)raw_send(fd, greeting, sizeof greeting);
            (void)raw_send(fd, noise, size);
            break;
        case 3: /* all good, then noise */
            raw_greet(fd);
            (void)raw_send(fd, noise, size);
            break;
        case 4: /* READY again and again, and commands that nobody knows */
            raw_greet(fd);
            for (int k = 0; k < 20; k++)
                (void)raw_send(fd, "\x04\x06\x05HELLO\x04\x06\x05READY\x04\x01\x00", 19);
            break;
        default: /* pings that nobody reads the answers of */
            raw_greet(fd);
            for (int k = 0; k < 500; k++)
                if (!raw_send(fd, "\x04\x07\x04PING\x00\x01", 9))
                    break;
        }
        done++;
        close(fd);
    }
    return done;
}

static unsigned attack_giant(const char *path, unsigned count)
{
    unsigned done = 0;
    static uint8_t zeros[65536];
    for (unsigned i = 0; i < count; i++) {
        int fd = raw_connect(path);
        if (fd < 0)
            continue;
        raw_greet(fd);
        if (i % 3 == 0) { /* announces 2^63 bytes */
            (void)raw_send(fd, "\x02\x7f\xff\xff\xff\xff\xff\xff\xff", 9);
            (void)raw_send(fd, zeros, sizeof zeros);
        } else if (i % 3 == 1) { /* 4 MB and one byte */
            (void)raw_send(fd, "\x02\0\0\0\0\0\x40\0\1", 9);
            for (int k = 0; k < 65 && raw_send(fd, zeros, sizeof zeros); k++) {
            }
        } else { /* a message of frames that never ends */
            for (int k = 0; k < 100; k++)
                if (!raw_send(fd, "\x03\0\0\0\0\0\1\0\0", 9) || !raw_send(fd, zeros, sizeof zeros))
                    break;
        }
        done++;
        close(fd);
    }
    return done;
}

static unsigned attack_idle(const char *path, unsigned count)
{
    int *fds = pm_xalloc((count + 1) * sizeof *fds);
    unsigned open = 0;
    for (unsigned i = 0; i < count; i++) {
        fds[open] = raw_connect(path);
        if (fds[open] >= 0 && i % 50 == 0)
            raw_greet(fds[open]);
        open += fds[open] >= 0;
    }
    for (unsigned i = 0; i < open; i++) { /* until the other side has had enough */
        char bytes[256];
        for (int left = 300; left > 0; left--) {
            (void)poll(&(struct pollfd){.fd = fds[i], .events = POLLIN}, 1, 100);
            ssize_t n = recv(fds[i], bytes, sizeof bytes, MSG_DONTWAIT);
            if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
                break;
        }
        close(fds[i]);
    }
    free(fds);
    return open;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 64;
    const char *mode = argv[1], *path = argv[2];
    uint64_t random = strtoull(argv[3], NULL, 10);
    unsigned count = (unsigned)strtoul(argv[4], NULL, 10), done = 0;
    struct golden g = {.count = 0};
    signal(SIGPIPE, SIG_IGN);
    if (getenv("ATTACKER_IDLE")) /* takes only what nobody else wants of the processor */
        (void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){.sched_priority = 0});
    load_golden(argv[5], &g);
    if (!g.count)
        return 66;
    if (!strcmp(mode, "malformed"))
        done = attack_malformed(path, random, count, &g);
    else if (!strcmp(mode, "lists") || !strcmp(mode, "mute"))
        done = attack_lists(path, count, mode[0] == 'l');
    else if (!strcmp(mode, "zmtp"))
        done = attack_zmtp(path, random, count);
    else if (!strcmp(mode, "giant"))
        done = attack_giant(path, count);
    else if (!strcmp(mode, "idle"))
        done = attack_idle(path, count);
    else if (!strcmp(mode, "uploads"))
        done = attack_uploads(path, count);
    else if (!strcmp(mode, "posing"))
        done = attack_posing(path, random, count);
    else
        return 64;
    printf("%u\n", done);
    for (size_t i = 0; i < g.count; i++)
        pm_buf_free(&g.files[i]);
    return 0;
}
