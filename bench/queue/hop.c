/* The raw hop, without the journal: four passes over a socket, client -> broker -> worker -> broker ->
 * client.
 *
 * What the broker routes without writing anything is partial text: PARTIAL of a worker's lease goes to the
 * clients that watch its job as EVENT. Two processes, each with a worker and a client: ours sends PARTIAL,
 * the other one's client gets the EVENT, its worker sends PARTIAL in turn, our client gets that EVENT. The
 * record is decoded, the lease looked up, the watchers searched, the event encoded with a snapshot of its
 * job, twice. The limit is a 300-byte message to another process and back through a forwarder that looks at
 * nothing.
 *
 * Beside it the whole life of a job with the journal on tmpfs, where a sync costs nothing: SUBMIT -> LEASE
 * (open)
 * -> RESULT (a final error) -> EVENT (failed). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "rig.h"

#define ROUND 3000
#define BYTES 300

struct end { /* one side: what it holds, what it watches */
    struct fake worker, client;
    uint64_t task;
    uint32_t attempt;
    char text[256];
};

static void partial(struct end *e)
{
    struct pm_msg_partial p = {.task = e->task, .attempt = e->attempt, .text = e->text};
    fake_send(&e->worker, PM_MSG_PARTIAL, &p);
}

/* Waits for the other side's text. */
static void await(struct end *e)
{
    for (;;) {
        const struct pm_msg_event *m = fake_expect(&e->client, PM_MSG_EVENT);
        if (m->kind == PM_EVENT_PARTIAL)
            return;
    }
}

static void begin(struct end *e, struct rig *rig, const char *reader)
{
    memset(e->text, 'x', 200);
    fake_service(&e->worker, rig, PM_ROLE_WORKER, reader, 1);
    const struct pm_msg_lease *lease = fake_expect(&e->worker, PM_MSG_LEASE);
    e->task = lease->task;
    e->attempt = lease->attempt;
    fake_client(&e->client, rig, reader);
}

static void watch(struct end *e, uint64_t job)
{
    struct pm_msg_watch w = {.ref = 2, .job = job, .batch = "", .partial = true};
    fake_send(&e->client, PM_MSG_WATCH, &w);
    fake_expect(&e->client, PM_MSG_DONE);
}

int role_hop(const char *dir, int ready_fd)
{
    struct rig rig = {.run = (char *)(uintptr_t)dir, .zmq = zmq_ctx_new()};
    struct end e = {.task = 0};
    begin(&e, &rig, "behind");
    watch(&e, 1);
    if (write(ready_fd, "1", 1) != 1)
        return 1;
    close(ready_fd);
    for (;;) {
        await(&e);
        partial(&e);
    }
}

/* Two jobs with one region each, leased by our worker and by the other process's. */
static void set_up(struct rig *rig, struct end *ours, struct goods *goods, struct pm_child *other)
{
    struct fake client, layout;
    int fds[2];
    fake_client(&client, rig, "bench");
    fake_service(&layout, rig, PM_ROLE_LAYOUTD, "layout", 4);
    static const char *const readers[] = {"ahead", "behind"};
    for (int i = 0; i < 2; i++) {
        struct pm_msg_submit submit = goods_submit(goods, readers[i]);
        fake_send(&client, PM_MSG_SUBMIT, &submit);
        fake_expect(&client, PM_MSG_ACCEPTED);
        for (int k = 0; k < 2; k++) {
            goods_answer(goods, &layout, fake_expect(&layout, PM_MSG_LEASE), 1, 1);
            fake_credit(&layout);
        }
    }
    begin(ours, rig, "ahead");
    if (pipe(fds))
        die("cannot make a pipe");
    rig_again(rig, "hop", rig->run, fds[1], other);
    close(fds[1]);
    wait_for_byte(fds[0], "the other side");
    watch(ours, 2);
    fake_close(&client);
    fake_close(&layout);
}

static void forward_round(void *socket, struct series *out)
{
    char message[BYTES] = {0};
    for (int i = 0; i < ROUND; i++) {
        int64_t start = pm_clock_us();
        zmq_send(socket, message, sizeof message, 0);
        zmq_recv(socket, message, sizeof message, 0);
        series_add(out, (double)(pm_clock_us() - start));
    }
}

static void broker_round(struct end *e, struct series *out)
{
    for (int i = 0; i < ROUND; i++) {
        int64_t start = pm_clock_us();
        partial(e);
        await(e);
        series_add(out, (double)(pm_clock_us() - start));
    }
}

static void hops(const struct settings *s)
{
    struct rig rig;
    struct goods goods;
    struct end ours = {.task = 0};
    struct pm_child other, forward, echo;
    struct series bare = {0}, routed = {0}, ratios = {0};
    int fds[2];
    rig_open(&rig, s, s->memory);
    rig_start(&rig, NULL);
    goods_make(&goods, &rig);
    static const char *const roles[] = {"forward", "echo"};
    for (int i = 0; i < 2; i++) {
        if (pipe(fds))
            die("cannot make a pipe");
        rig_again(&rig, roles[i], rig.run, fds[1], i ? &echo : &forward);
        close(fds[1]);
        wait_for_byte(fds[0], roles[i]);
    }
    set_up(&rig, &ours, &goods, &other);
    char *endpoint = pm_xprintf("ipc://%s/front.sock", rig.run);
    void *socket = zmq_socket(rig.zmq, ZMQ_DEALER);
    zmq_connect(socket, endpoint);
    free(endpoint);
    for (uint32_t r = 0; r < s->rounds; r++) {
        struct series b = {0}, t = {0};
        forward_round(socket, &b);
        broker_round(&ours, &t);
        series_add(&ratios, series_at(&t, 0.5) / series_at(&b, 0.5));
        for (size_t i = 0; i < b.count; i++)
            series_add(&bare, b.items[i]);
        for (size_t i = 0; i < t.count; i++)
            series_add(&routed, t.items[i]);
        series_free(&b);
        series_free(&t);
    }
    figure("bare forwarder, 300 bytes there and back, p50", series_at(&bare, 0.5), "us", "");
    figure("bare forwarder, p99", series_at(&bare, 0.99), "us", "");
    figure("raw hop through the broker (PARTIAL -> EVENT, twice), p50", series_at(&routed, 0.5), "us", "");
    figure("raw hop through the broker, p99", series_at(&routed, 0.99), "us", "");
    figure("raw hop p50 / bare forwarder p50, median of the rounds", series_at(&ratios, 0.5), "x", "<= 1.4");
    zmq_close(socket);
    int linger = 0;
    zmq_setsockopt(ours.client.socket, ZMQ_LINGER, &linger, sizeof linger);
    fake_close(&ours.worker);
    fake_close(&ours.client);
    pm_child_signal(&other, 9);
    pm_child_signal(&forward, 9);
    pm_child_signal(&echo, 9);
    pm_child_reap(&other, NULL);
    pm_child_reap(&forward, NULL);
    pm_child_reap(&echo, NULL);
    goods_free(&goods);
    series_free(&bare);
    series_free(&routed);
    series_free(&ratios);
    rig_close(&rig);
}

static void lives(const struct settings *s)
{
    struct rig rig;
    struct goods goods;
    struct fake client, layout;
    struct series times = {0};
    rig_open(&rig, s, s->memory);
    rig_start(&rig, NULL);
    goods_make(&goods, &rig);
    fake_client(&client, &rig, "bench");
    fake_service(&layout, &rig, PM_ROLE_LAYOUTD, "layout", 1);
    struct pm_msg_watch w = {.ref = 2, .batch = ""};
    fake_send(&client, PM_MSG_WATCH, &w);
    fake_expect(&client, PM_MSG_DONE);
    struct pm_msg_submit submit = goods_submit(&goods, "fast");
    for (int i = 0; i < 3000; i++) {
        int64_t start = pm_clock_us();
        fake_send(&client, PM_MSG_SUBMIT, &submit);
        const struct pm_msg_lease *lease = fake_expect(&layout, PM_MSG_LEASE);
        struct pm_msg_result r = {.task = lease->task,
                                  .epoch = lease->epoch,
                                  .attempt = lease->attempt,
                                  .error_code = "format",
                                  .error_text = "not a document",
                                  .is_final_error = true};
        layout.granted++;
        fake_send(&layout, PM_MSG_RESULT, &r);
        fake_credit(&layout);
        const struct pm_msg_event *e;
        do
            e = fake_expect(&client, PM_MSG_EVENT);
        while (e->kind != PM_EVENT_STATE || e->info.state != PM_JOB_FAILED);
        series_add(&times, (double)(pm_clock_us() - start));
    }
    figure("SUBMIT -> LEASE -> RESULT -> EVENT, journal on tmpfs, p50", series_at(&times, 0.5), "us", "");
    figure("SUBMIT -> LEASE -> RESULT -> EVENT, p99", series_at(&times, 0.99), "us", "");
    fake_close(&client);
    fake_close(&layout);
    goods_free(&goods);
    series_free(&times);
    rig_close(&rig);
}

void part_hop(const struct settings *s)
{
    hops(s);
    lives(s);
}
