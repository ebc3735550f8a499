/* A stock of tasks that wait: what each takes of the broker's memory, and how soon after a kill -9 the first
 * of them is given out. The journals are made by the broker's own writer, without the broker: as many pages
 * with their regions in a few thousand jobs, and as many jobs of their own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "broker/journal.h"
#include "rig.h"

#define PAGES   4u
#define REGIONS 100u
#define BATCH   2000u

struct writer {
    struct pm_journal *journal;
    struct pm_actions actions;
    struct pm_msg_submit submit;
};

static void flush(struct writer *w)
{
    struct pm_error err;
    if (w->actions.op_count && pm_journal_apply(w->journal, w->actions.ops, w->actions.op_count, &err))
        die("%s", err.text);
    pm_actions_clear(&w->actions);
}

static void put_job(struct writer *w, uint64_t job)
{
    struct pm_op *op = pm_actions_op(&w->actions, PM_OP_JOB_PUT, job);
    op->client = "bench";
    op->submit = &w->submit;
    op->wall_us = 1;
}

static void put_pages(struct writer *w, const struct goods *g, uint64_t job, const char *sheet)
{
    static const struct pm_found_page found[PAGES] = {
        {1, 1654, 2339}, {2, 1654, 2339}, {3, 1654, 2339}, {4, 1654, 2339}};
    pm_actions_op(&w->actions, PM_OP_JOB_RUN, job)->wall_us = 2;
    struct pm_op *op = pm_actions_op(&w->actions, PM_OP_JOB_OPEN, job);
    op->document_pages = op->page_count = PAGES;
    op->pages = found;
    for (uint32_t page = 1; page <= PAGES; page++) {
        op = pm_actions_op(&w->actions, PM_OP_PAGE_LAID, job);
        op->page = page;
        op->record = g->record;
        op->sheet = sheet;
        op->bytes = 1000;
        op->costs = g->costs;
        op->cost_count = REGIONS;
    }
}

static void write_stock(struct rig *rig, const struct goods *g, uint64_t tasks, bool in_jobs)
{
    struct writer w = {.submit = goods_submit(g, "fast")};
    struct pm_error err;
    char *path = pm_fs_join(rig->state, "journal.db"), sheet[PM_BLOB_KEY_SIZE];
    if (pm_blob_put(rig->blobs, PM_BLOB_PIXELS, "crops", 5, sheet, &err) ||
        pm_journal_open(path, NULL, &w.journal, &err))
        die("%s", err.text);
    uint64_t jobs = in_jobs ? tasks : tasks / (PAGES * REGIONS);
    for (uint64_t job = 1; job <= jobs; job++) {
        put_job(&w, job);
        if (!in_jobs)
            put_pages(&w, g, job, sheet);
        if (w.actions.op_count >= BATCH)
            flush(&w);
    }
    flush(&w);
    pm_journal_free(&w.journal);
    pm_actions_free(&w.actions);
    free(path);
}

/* The broker with nothing to do: what a stock is compared with. */
static uint64_t empty_rss(const struct settings *s)
{
    struct rig rig;
    rig_open(&rig, s, s->dir);
    rig_start(&rig, NULL);
    uint64_t rss = rig_rss(&rig);
    rig_close(&rig);
    return rss;
}

static void measure(const struct settings *s, uint64_t empty, bool in_jobs)
{
    struct rig rig;
    struct goods goods;
    struct fake peer;
    char name[120];
    uint64_t tasks = (uint64_t)s->tasks_k * 1000;
    const char *shape = in_jobs ? "jobs of their own" : "regions of 4-page jobs";
    enum pm_role role = in_jobs ? PM_ROLE_LAYOUTD : PM_ROLE_WORKER;
    rig_open(&rig, s, s->dir);
    goods_make(&goods, &rig);
    write_stock(&rig, &goods, tasks, in_jobs);
    static const char *const budget[] = {"--pixel-budget", "100000", NULL};
    rig_start(&rig, budget);
    snprintf(name, sizeof name, "memory of %llu k queued tasks, %s, each", (unsigned long long)tasks / 1000,
             shape);
    figure(name, (double)(rig_rss(&rig) - empty) / (double)tasks, "bytes", "<= 200");
    fake_service(&peer, &rig, role, "fast", 1);
    const struct pm_msg_lease *lease = fake_expect(&peer, PM_MSG_LEASE);
    struct pm_held held = {lease->task, lease->epoch, lease->attempt};
    struct series ready = {0}, back = {0}, leased = {0};
    for (uint32_t r = 0; r < (s->rounds + 1) / 2; r++) {
        int64_t killed = pm_clock_us();
        rig_kill(&rig);
        uint64_t instance = peer.instance;
        fake_close(&peer);
        fake_open(&peer, &rig, "work.sock"); /* as the peers' library does when the connection breaks */
        peer.instance = instance;
        rig_start(&rig, budget);
        series_add(&ready, (double)(rig.ready_us - killed) / 1e6);
        fake_hello(&peer, role, "fast", 2, &held, 1);
        series_add(&back, (double)(pm_clock_us() - rig.ready_us) / 1e6);
        fake_expect(&peer, PM_MSG_LEASE);
        series_add(&leased, (double)(pm_clock_us() - killed) / 1e6);
    }
    snprintf(name, sizeof name, "kill -9 to serving, %llu k live tasks, %s", (unsigned long long)tasks / 1000,
             shape);
    figure(name, series_at(&ready, 0.5), "s", "");
    snprintf(name, sizeof name, "serving to a peer registered again, %s", shape);
    figure(name, series_at(&back, 0.5), "s", "<= 1");
    snprintf(name, sizeof name, "kill -9 to the first lease, %llu k live tasks, %s",
             (unsigned long long)tasks / 1000, shape);
    figure(name, series_at(&leased, 0.5), "s", "<= 2");
    series_free(&ready);
    series_free(&back);
    series_free(&leased);
    fake_close(&peer);
    goods_free(&goods);
    rig_close(&rig);
}

void part_stock(const struct settings *s)
{
    uint64_t empty = empty_rss(s);
    measure(s, empty, false);
    measure(s, empty, true);
}
