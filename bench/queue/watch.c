/* What costs nothing and what has to be quick: idle workers, workers that die, jobs that are cancelled. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "rig.h"

#define IDLE   256u
#define DEATHS 30u

/* Answers what comes for a while. */
static void linger(struct fake *fakes, size_t count, int64_t us)
{
    zmq_pollitem_t *items = pm_xalloc(count * sizeof *items);
    for (size_t i = 0; i < count; i++)
        items[i] = (zmq_pollitem_t){.socket = fakes[i].socket, .events = ZMQ_POLLIN};
    int64_t until = pm_clock_us() + us, beat = pm_clock_us() + 5000000;
    while (pm_clock_us() < until) {
        zmq_poll(items, (int)count, 100);
        bool is_due = pm_clock_us() > beat; /* idle peers ask when they have heard nothing for 5 s */
        for (size_t i = 0; i < count; i++) {
            struct pm_msg_ping ping = {.ref = 1};
            if (is_due)
                fake_send(&fakes[i], PM_MSG_PING, &ping);
            while (fake_receive(&fakes[i], 0))
                ;
        }
        if (is_due)
            beat += 5000000;
    }
    free(items);
}

void part_idle(const struct settings *s)
{
    struct rig rig;
    rig_open(&rig, s, s->memory);
    rig_start(&rig, NULL);
    struct fake *fakes = pm_xalloc(IDLE * sizeof *fakes);
    int64_t us = (int64_t)s->seconds * 1000000;
    usleep(500000);
    int64_t before = rig_cpu_us(&rig);
    usleep((useconds_t)us);
    double alone = (double)(rig_cpu_us(&rig) - before) * 100 / (double)us;
    for (uint32_t i = 0; i < IDLE; i++)
        fake_service(&fakes[i], &rig, PM_ROLE_WORKER, "fast", 1);
    linger(fakes, IDLE, 1000000);
    before = rig_cpu_us(&rig);
    linger(fakes, IDLE, us);
    double with = (double)(rig_cpu_us(&rig) - before) * 100 / (double)us;
    figure("broker without peers, share of one core", alone, "%", "");
    figure("broker with 256 idle workers (pings and heartbeats included), share of one core", with, "%",
           "<= 1");
    for (uint32_t i = 0; i < IDLE; i++)
        fake_close(&fakes[i]);
    free(fakes);
    rig_close(&rig);
}

/* ---- deaths ---- */

int role_victim(const char *dir, int ready_fd)
{
    struct rig rig = {.run = (char *)(uintptr_t)dir, .zmq = zmq_ctx_new()};
    struct fake f;
    fake_service(&f, &rig, PM_ROLE_WORKER, "fast", 1);
    fake_expect(&f, PM_MSG_LEASE);
    if (write(ready_fd, "1", 1) != 1)
        return 1;
    while (fake_receive(&f, 1000000))
        ;
    return 0;
}

static void await_event(struct fake *client, enum pm_event_kind kind)
{
    while (((const struct pm_msg_event *)fake_expect(client, PM_MSG_EVENT))->kind != kind)
        ;
}

static uint64_t submit_pages(struct goods *g, struct fake *client, struct fake *layout)
{
    struct pm_msg_submit submit = goods_submit(g, "fast");
    fake_send(client, PM_MSG_SUBMIT, &submit);
    uint64_t job = ((const struct pm_msg_accepted *)fake_expect(client, PM_MSG_ACCEPTED))->job;
    for (int i = 0; i < 2; i++) {
        goods_answer(g, layout, fake_expect(layout, PM_MSG_LEASE), 1, 1);
        fake_credit(layout);
        fake_expect(layout, PM_MSG_RESULT_ACK);
    }
    return job;
}

static void cancel(struct fake *client, uint64_t job)
{
    struct pm_msg_job_ref q = {.ref = 5, .job = job, .batch = ""};
    fake_send(client, PM_MSG_CANCEL, &q);
}

/* A job with one region: leased by a process that is killed, then by our worker. */
static void one_death(struct rig *rig, struct goods *g, struct fake *client, struct fake *layout,
                      struct series *seen, struct series *again)
{
    struct pm_child victim;
    struct fake worker;
    int fds[2];
    uint64_t job = submit_pages(g, client, layout);
    if (pipe(fds))
        die("cannot make a pipe");
    rig_again(rig, "victim", rig->run, fds[1], &victim);
    close(fds[1]);
    wait_for_byte(fds[0], "the victim");
    fake_service(&worker, rig, PM_ROLE_WORKER, "fast", 1);
    while (fake_receive(client, 0))
        ;
    int64_t start = pm_clock_us();
    pm_child_signal(&victim, SIGKILL);
    await_event(client, PM_EVENT_RETRY);
    series_add(seen, (double)(pm_clock_us() - start) / 1000);
    fake_expect(&worker, PM_MSG_LEASE);
    series_add(again, (double)(pm_clock_us() - start) / 1000);
    pm_child_reap(&victim, NULL);
    cancel(client, job);
    fake_expect(client, PM_MSG_DONE);
    fake_expect(&worker, PM_MSG_REVOKE);
    struct pm_msg_goodbye bye = {.reason = "done"};
    fake_send(&worker, PM_MSG_GOODBYE, &bye);
    usleep(2000);
    fake_close(&worker);
}

static void cancels(struct rig *rig, struct goods *g, struct fake *client, struct fake *layout)
{
    struct series queued = {0}, running = {0};
    struct fake worker;
    for (uint32_t i = 0; i < 200; i++) {
        uint64_t job = submit_pages(g, client, layout); /* its region is queued: nobody reads */
        int64_t start = pm_clock_us();
        cancel(client, job);
        fake_expect(client, PM_MSG_DONE);
        series_add(&queued, (double)(pm_clock_us() - start) / 1000);
    }
    fake_service(&worker, rig, PM_ROLE_WORKER, "fast", 1);
    for (uint32_t i = 0; i < 200; i++) {
        uint64_t job = submit_pages(g, client, layout);
        fake_expect(&worker, PM_MSG_LEASE);
        int64_t start = pm_clock_us();
        cancel(client, job);
        fake_expect(&worker, PM_MSG_REVOKE);
        series_add(&running, (double)(pm_clock_us() - start) / 1000);
        fake_expect(client, PM_MSG_DONE);
        worker.granted++;
        fake_credit(&worker);
    }
    figure("cancel of a queued job, synced, p50", series_at(&queued, 0.5), "ms", "<= 2");
    figure("cancel of a queued job, p99", series_at(&queued, 0.99), "ms", "");
    figure("cancel of a running job until its worker is told, synced, p50", series_at(&running, 0.5), "ms",
           "");
    figure("cancel of a running job until its worker is told, p99", series_at(&running, 0.99), "ms", "");
    fake_close(&worker);
    series_free(&queued);
    series_free(&running);
}

void part_death(const struct settings *s)
{
    struct rig rig;
    struct goods goods;
    struct fake client, layout;
    struct series seen = {0}, again = {0};
    rig_open(&rig, s, s->dir);
    rig_start(&rig, NULL);
    goods_make(&goods, &rig);
    fake_client(&client, &rig, "bench");
    fake_service(&layout, &rig, PM_ROLE_LAYOUTD, "layout", 1);
    cancels(&rig, &goods, &client, &layout);
    struct pm_msg_watch w = {.ref = 2, .batch = "bench"};
    fake_send(&client, PM_MSG_WATCH, &w);
    fake_expect(&client, PM_MSG_DONE);
    for (uint32_t i = 0; i < DEATHS; i++)
        one_death(&rig, &goods, &client, &layout, &seen, &again);
    figure("SIGKILL of a worker until its retry is told, synced, p50", series_at(&seen, 0.5), "ms", "<= 5");
    figure("SIGKILL of a worker until its retry is told, p99", series_at(&seen, 0.99), "ms", "");
    figure("SIGKILL of a worker until another has its task, p50", series_at(&again, 0.5), "ms", "<= 20");
    figure("SIGKILL of a worker until another has its task, p99", series_at(&again, 0.99), "ms", "");
    fake_close(&client);
    fake_close(&layout);
    goods_free(&goods);
    series_free(&seen);
    series_free(&again);
    rig_close(&rig);
}
