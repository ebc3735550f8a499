/* What a hostile process costs the others. An honest fleet runs small jobs, as many at once as keep the
 * broker busy; every other slice of time an attacker (tests/hostile/attacker.c, other users' priority:
 * SCHED_IDLE, because it is the broker's work for it that is measured and not its own on the same cores) does
 * one thing after the other. */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "rig.h"

#define SLICE_US 2000000
#define PAGES    2
#define REGIONS  8
#define WINDOW   16u /* jobs at once */

struct honest {
    struct fake client, services[3];
    struct goods goods;
    unsigned under_way;
};

struct attacker {
    const char *mode, *count;
    struct pm_child child;
    bool is_running;
    char *program, *socket;
    unsigned seed;
};

/* As many jobs at once as keep the broker busy. Takes what has come; how many jobs have ended by it. */
static unsigned serve(struct honest *h)
{
    zmq_pollitem_t items[4] = {{.socket = h->client.socket, .events = ZMQ_POLLIN}};
    unsigned ended = 0;
    for (int i = 0; i < 3; i++)
        items[i + 1] = (zmq_pollitem_t){.socket = h->services[i].socket, .events = ZMQ_POLLIN};
    for (; h->under_way < WINDOW; h->under_way++) {
        struct pm_msg_submit submit = goods_submit(&h->goods, "fast");
        fake_send(&h->client, PM_MSG_SUBMIT, &submit);
    }
    zmq_poll(items, 4, 1000);
    for (int i = 0; i < 3; i++) {
        bool has_answered = false;
        while (fake_receive(&h->services[i], 0))
            if (h->services[i].last.header.type == PM_MSG_LEASE) {
                goods_answer(&h->goods, &h->services[i], h->services[i].last.record, PAGES, REGIONS);
                has_answered = true;
            }
        if (has_answered)
            fake_credit(&h->services[i]);
    }
    while (fake_receive(&h->client, 0)) {
        const struct pm_msg_event *e = h->client.last.record;
        ended += h->client.last.header.type == PM_MSG_EVENT && e->kind == PM_EVENT_STATE &&
                 e->info.state == PM_JOB_DONE;
    }
    h->under_way -= ended;
    return ended;
}

static void keep_attacking(struct attacker *a)
{
    int status;
    if (a->is_running && poll(&(struct pollfd){.fd = a->child.pidfd, .events = POLLIN}, 1, 0) != 1)
        return;
    if (a->is_running)
        pm_child_reap(&a->child, &status);
    char seed[16], *golden = pm_fs_join(PM_SOURCE_DIR, "tests/data/proto");
    snprintf(seed, sizeof seed, "%u", ++a->seed);
    const char *argv[] = {"attacker", a->mode, a->socket, seed, a->count, golden, NULL};
    static const char *const idle[] = {"ATTACKER_IDLE=1", NULL};
    struct pm_spawn spec = {.path = a->program,
                            .argv = argv,
                            .set_env = idle,
                            .stdin_fd = -1,
                            .stdout_fd = -1,
                            .stderr_fd = STDERR_FILENO,
                            .die_with_parent = true};
    struct pm_error err;
    if (pm_spawn(&spec, &a->child, &err))
        die("%s (build it with PM_TESTS=ON)", err.text);
    a->is_running = true;
    free(golden);
}

static void stop_attacking(struct attacker *a)
{
    if (a->is_running) {
        pm_child_signal(&a->child, SIGKILL);
        pm_child_reap(&a->child, NULL);
    }
    a->is_running = false;
}

struct rate {
    double a_second, a_cpu_second; /* jobs, by the clock and by the broker's own time */
};

static struct rate slice(struct rig *rig, struct honest *h, struct attacker *a)
{
    unsigned jobs = 0;
    int64_t start = pm_clock_us(), until = start + SLICE_US, cpu = rig_cpu_us(rig);
    while (pm_clock_us() < until) {
        if (a)
            keep_attacking(a);
        jobs += serve(h);
    }
    struct rate rate = {jobs * 1e6 / (double)(pm_clock_us() - start),
                        jobs * 1e6 / (double)(rig_cpu_us(rig) - cpu + 1)};
    if (a)
        stop_attacking(a);
    return rate;
}

void part_hostile(const struct settings *s)
{
    static const struct {
        const char *mode, *count, *name;
    } attacks[] = {{"malformed", "1000", "malformed messages"},
                   {"zmtp", "1000", "broken ZMTP"},
                   {"giant", "100", "giant and endless frames"},
                   {"lists", "10000", "a flood of requests that are answered"},
                   {"mute", "10000", "a flood whose answers are not read"},
                   {"uploads", "8", "uploads that are never finished"},
                   {"posing", "100", "leases of others claimed"}};
    static const enum pm_role roles[3] = {PM_ROLE_LAYOUTD, PM_ROLE_WORKER, PM_ROLE_COLLECTOR};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    *strrchr(self, '/') = 0;
    struct rig rig;
    struct honest h = {.under_way = 0};
    rig_open(&rig, s, s->memory); /* no disk: what others cost would be lost in its noise */
    rig_start(&rig, NULL);
    goods_make(&h.goods, &rig);
    fake_client(&h.client, &rig, "honest");
    for (int i = 0; i < 3; i++)
        fake_service(&h.services[i], &rig, roles[i], "fast", 64);
    struct pm_msg_watch w = {.ref = 2, .batch = ""};
    fake_send(&h.client, PM_MSG_WATCH, &w);
    fake_expect(&h.client, PM_MSG_DONE);
    for (unsigned jobs = 0; jobs < 50;)
        jobs += serve(&h);
    for (size_t k = 0; k < sizeof attacks / sizeof attacks[0]; k++) {
        struct series kept = {0}, cpu = {0};
        struct attacker a = {
            .mode = attacks[k].mode,
            .count = attacks[k].count,
            .program = pm_fs_join(self, "tests/attacker"),
            .socket = pm_fs_join(rig.run, !strcmp(attacks[k].mode, "posing") ? "work.sock" : "client.sock"),
            .seed = (unsigned)k * 1000};
        for (uint32_t i = 0; i < s->rounds; i++) { /* before, meanwhile, after */
            struct rate before = slice(&rig, &h, NULL), meanwhile = slice(&rig, &h, &a),
                        after = slice(&rig, &h, NULL);
            series_add(&kept, meanwhile.a_second * 200 / (before.a_second + after.a_second));
            series_add(&cpu, meanwhile.a_cpu_second * 200 / (before.a_cpu_second + after.a_cpu_second));
        }
        char *name = pm_xprintf("rate of honest jobs kept under %s", attacks[k].name);
        figure(name, series_at(&kept, 0.5), "%", ">= 95");
        free(name);
        figure("... for the same processor time of the broker", series_at(&cpu, 0.5), "%", ">= 95");
        series_free(&cpu);
        free(a.program);
        free(a.socket);
        series_free(&kept);
    }
    figure("memory of the broker at the end", (double)rig_rss(&rig) / 1e6, "MB", "");
    fake_close(&h.client);
    for (int i = 0; i < 3; i++)
        fake_close(&h.services[i]);
    goods_free(&h.goods);
    rig_close(&rig);
}
