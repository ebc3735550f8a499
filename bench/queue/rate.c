/* How many tasks go through in a second, every one of them synced twice: when it is put, and with its result.
 *
 * Lifecycle of a region task: the result of its page is committed (the task is durable: "put"), a worker gets
 * its LEASE, the worker's RESULT is committed and acknowledged. 64 leases are in flight at four workers; the
 * tasks of layout and assembly that belong to it run in the same time and are not counted. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "rig.h"

#define WORKERS 4u
#define FLIGHT  64u
#define REGIONS 100u
#define PEERS   (WORKERS + 2u)

struct fleet {
    struct rig rig;
    struct goods goods;
    struct fake client, peers[PEERS]; /* layout, collector, workers */
    uint64_t leased, acked;           /* regions */
    int64_t first_us, last_us;
    uint32_t pages, regions;
    uint64_t submitted, finished, jobs; /* whole jobs */
};

static void fleet_open(struct fleet *f, const struct settings *s, uint32_t pages, uint32_t regions)
{
    *f = (struct fleet){.pages = pages, .regions = regions};
    rig_open(&f->rig, s, s->dir);
    rig_start(&f->rig, NULL);
    goods_make(&f->goods, &f->rig);
    fake_client(&f->client, &f->rig, "bench");
    fake_service(&f->peers[0], &f->rig, PM_ROLE_LAYOUTD, "layout", 16);
    fake_service(&f->peers[1], &f->rig, PM_ROLE_COLLECTOR, "collect", 16);
    for (uint32_t i = 2; i < PEERS; i++)
        fake_service(&f->peers[i], &f->rig, PM_ROLE_WORKER, "fast", FLIGHT / WORKERS);
}

static void fleet_close(struct fleet *f)
{
    fake_close(&f->client);
    for (uint32_t i = 0; i < PEERS; i++)
        fake_close(&f->peers[i]);
    goods_free(&f->goods);
    rig_close(&f->rig);
}

static void submit_one(struct fleet *f)
{
    struct pm_msg_submit submit = goods_submit(&f->goods, "fast");
    f->submitted++;
    fake_send(&f->client, PM_MSG_SUBMIT, &submit);
}

/* What one message means. */
static void take(struct fleet *f, struct fake *p)
{
    const struct pm_msg_lease *lease = p->last.record;
    const struct pm_msg_result_ack *ack = p->last.record;
    if (p->last.header.type == PM_MSG_LEASE) {
        if (lease->kind == PM_KIND_REGION && !f->leased++)
            f->first_us = pm_clock_us();
        goods_answer(&f->goods, p, lease, f->pages, f->regions);
    } else if (p->last.header.type == PM_MSG_RESULT_ACK) {
        if (!ack->accepted)
            die("a result was refused");
        if (p >= &f->peers[2]) {
            f->acked++;
            f->last_us = pm_clock_us();
        }
    }
}

static void turn(struct fleet *f)
{
    zmq_pollitem_t items[PEERS + 1];
    for (uint32_t i = 0; i < PEERS; i++)
        items[i] = (zmq_pollitem_t){.socket = f->peers[i].socket, .events = ZMQ_POLLIN};
    items[PEERS] = (zmq_pollitem_t){.socket = f->client.socket, .events = ZMQ_POLLIN};
    if (zmq_poll(items, PEERS + 1, 20000) == 0)
        die("the broker has stopped talking");
    for (uint32_t i = 0; i < PEERS; i++) {
        struct fake *p = &f->peers[i];
        uint64_t granted = p->granted;
        while (fake_receive(p, 0))
            take(f, p);
        if (p->granted != granted)
            fake_credit(p);
    }
    while (fake_receive(&f->client, 0)) {
        const struct pm_msg_event *e = f->client.last.record;
        if (f->client.last.header.type != PM_MSG_EVENT || e->kind != PM_EVENT_STATE ||
            e->info.state < PM_JOB_DONE)
            continue;
        if (e->info.state != PM_JOB_DONE)
            die("a job failed: %s", e->info.error_text);
        f->finished++;
        if (f->submitted < f->jobs)
            submit_one(f);
    }
}

static double lifecycles(const struct settings *s)
{
    struct fleet f;
    uint32_t pages = s->tasks_k * 1000 / REGIONS;
    fleet_open(&f, s, pages < 2000 ? pages : 2000, REGIONS);
    uint64_t wanted = (uint64_t)f.pages * REGIONS;
    submit_one(&f);
    while (f.acked < wanted)
        turn(&f);
    double rate = (double)wanted * 1e6 / (double)(f.last_us - f.first_us);
    fleet_close(&f);
    return rate;
}

static double whole_jobs(const struct settings *s)
{
    struct fleet f;
    fleet_open(&f, s, 1, 1);
    f.jobs = s->tasks_k * 1000 / 50;
    struct pm_msg_watch w = {.ref = 2, .batch = "bench"};
    fake_send(&f.client, PM_MSG_WATCH, &w);
    fake_expect(&f.client, PM_MSG_DONE);
    int64_t start = pm_clock_us();
    for (uint32_t i = 0; i < FLIGHT; i++)
        submit_one(&f);
    while (f.finished < f.jobs)
        turn(&f);
    double rate = (double)f.jobs * 1e6 / (double)(pm_clock_us() - start);
    fleet_close(&f);
    return rate;
}

/* ---- the limit of a synced submit ---- */

struct bare {
    sqlite3 *db;
    sqlite3_stmt *insert;
    char *path;
};

static void bare_open(struct bare *b, const char *dir)
{
    b->path = pm_fs_join(dir, "bare.db");
    if (sqlite3_open(b->path, &b->db) != SQLITE_OK ||
        sqlite3_exec(b->db,
                     "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                     "CREATE TABLE t(id INTEGER PRIMARY KEY, state INTEGER, body BLOB);"
                     "CREATE INDEX t_state ON t(state)",
                     NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(b->db, "INSERT INTO t(state, body) VALUES(1, ?1)", -1, &b->insert, NULL) !=
            SQLITE_OK)
        die("SQLite: %s", sqlite3_errmsg(b->db));
}

static void bare_commit(struct bare *b)
{
    static const char body[450];
    sqlite3_bind_blob(b->insert, 1, body, sizeof body, SQLITE_STATIC);
    if (sqlite3_step(b->insert) != SQLITE_DONE)
        die("SQLite: %s", sqlite3_errmsg(b->db));
    sqlite3_reset(b->insert);
}

static void bare_close(struct bare *b)
{
    sqlite3_finalize(b->insert);
    sqlite3_close(b->db);
    free(b->path);
}

void part_submit(const struct settings *s)
{
    struct rig rig;
    struct goods goods;
    struct fake client;
    struct bare bare = {NULL, NULL, NULL};
    struct series commits = {0}, submits = {0}, ratios = {0};
    rig_open(&rig, s, s->dir);
    rig_start(&rig, NULL);
    goods_make(&goods, &rig);
    fake_client(&client, &rig, "bench");
    bare_open(&bare, rig.dir);
    struct pm_msg_submit submit = goods_submit(&goods, "fast");
    for (uint32_t r = 0; r < s->rounds; r++) {
        struct series c = {0}, t = {0};
        for (int i = 0; i < 1000; i++) {
            int64_t start = pm_clock_us();
            bare_commit(&bare);
            int64_t middle = pm_clock_us();
            fake_send(&client, PM_MSG_SUBMIT, &submit);
            fake_expect(&client, PM_MSG_ACCEPTED);
            int64_t end = pm_clock_us();
            series_add(&c, (double)(middle - start));
            series_add(&t, (double)(end - middle));
            series_add(&commits, (double)(middle - start));
            series_add(&submits, (double)(end - middle));
        }
        series_add(&ratios, series_at(&t, 0.5) / series_at(&c, 0.5));
        series_free(&c);
        series_free(&t);
    }
    figure("one bare SQLite commit (WAL, FULL, one row of 450 bytes), p50", series_at(&commits, 0.5), "us",
           "");
    figure("one bare SQLite commit, p99", series_at(&commits, 0.99), "us", "");
    figure("synced submit (SUBMIT -> ACCEPTED), p50", series_at(&submits, 0.5), "us", "");
    figure("synced submit, p99", series_at(&submits, 0.99), "us", "");
    figure("synced submit p50 / bare commit p50, median of the rounds", series_at(&ratios, 0.5), "x", "<= 2");
    fake_close(&client);
    bare_close(&bare);
    goods_free(&goods);
    series_free(&commits);
    series_free(&submits);
    series_free(&ratios);
    rig_close(&rig);
}

void part_rate(const struct settings *s)
{
    struct series tasks = {0}, jobs = {0};
    for (uint32_t r = 0; r < (s->rounds + 1) / 2; r++) {
        series_add(&tasks, lifecycles(s));
        series_add(&jobs, whole_jobs(s));
    }
    figure("synced lifecycles of region tasks, 64 in flight", series_at(&tasks, 0.5), "1/s", ">= 40000");
    figure("whole one-page jobs (submit, 5 tasks, all synced), 64 in flight", series_at(&jobs, 0.5), "1/s",
           "");
    figure("tasks of those jobs", 5 * series_at(&jobs, 0.5), "1/s", "");
    series_free(&tasks);
    series_free(&jobs);
}
