/* RETRY and FORGET of a whole batch, or of everything that failed, and CANCEL of a batch: a slice in each
 * turn, so that a million jobs keep nobody waiting. DONE says how many when the last slice is through; who
 * asked may have left by then. Asking again after a lost answer counts the same jobs: those that are under
 * way again. */
#include <stdlib.h>

#include "broker/broker.h"
#include "broker/gate.h"

#define SLICE_LOOK   20000 /* jobs looked at in a turn */
#define SLICE_CHANGE 64    /* ... and changed */
#define SLICE_CANCEL 2048  /* ... which reads nothing back */
#define BULKS_MOST   64    /* unfinished requests */
#define BULKS_OF_ONE 8     /* ... of one connection */

struct pm_bulk {
    struct pm_bulk *next;
    uint64_t conn, ref, cursor;
    char *batch; /* "": any */
    char *only;  /* jobs of this client; NULL: everybody's */
    enum pm_bulk_what what;
    uint32_t count;
};

int pm_bulk_begin(struct pm_broker *b, const struct pm_conn *c, const struct pm_msg_job_ref *q,
                  enum pm_bulk_what what, struct pm_error *err)
{
    struct pm_bulk **at = &b->bulks;
    unsigned all = 0, own = 0;
    for (; *at; at = &(*at)->next) {
        all++;
        own += (*at)->conn == c->id;
    }
    if (all >= BULKS_MOST || own >= BULKS_OF_ONE)
        return pm_fail(err, PM_EBUSY, "%u requests for whole batches are not through yet",
                       own >= BULKS_OF_ONE ? own : all);
    *at = pm_xalloc(sizeof **at);
    **at = (struct pm_bulk){.conn = c->id, .ref = q->ref, .batch = pm_xstrdup(q->batch), .what = what};
    const char *only = pm_gate_only_client(c, 0);
    (*at)->only = only ? pm_xstrdup(only) : NULL;
    return 0;
}

static struct pm_bulk *drop(struct pm_bulk *k)
{
    struct pm_bulk *next = k->next;
    free(k->batch);
    free(k->only);
    free(k);
    return next;
}

void pm_bulk_free(struct pm_broker *b)
{
    while (b->bulks)
        b->bulks = drop(b->bulks);
}

static int retry(struct pm_broker *b, uint64_t job, struct pm_error *err)
{
    struct pm_job_image image;
    int rc = pm_journal_job(b->journal, job, &b->arena, &image, err);
    return rc ? rc : pm_sched_retry(b->sched, b->now, &image, err);
}

static const char *const names[] = {
    [PM_BULK_FORGET] = "forget", [PM_BULK_RETRY] = "retry", [PM_BULK_CANCEL] = "cancel"};

static int change(struct pm_broker *b, enum pm_bulk_what what, uint64_t job, struct pm_error *err)
{
    return what == PM_BULK_FORGET   ? pm_sched_forget(b->sched, job, err)
           : what == PM_BULK_CANCEL ? pm_sched_cancel(b->sched, b->now, job, err)
                                    : retry(b, job, err);
}

/* False when there is no job left. */
static bool slice(struct pm_broker *b, struct pm_bulk *k, struct pm_error *err)
{
    const struct pm_sched_filter filter = {.batch = k->batch,
                                           .state = k->what == PM_BULK_FORGET ? PM_JOB_FAILED : 0,
                                           .is_live = k->what == PM_BULK_CANCEL,
                                           .client = k->only};
    unsigned most = k->what == PM_BULK_CANCEL ? SLICE_CANCEL : SLICE_CHANGE;
    for (unsigned looked = 0, changed = 0; looked < SLICE_LOOK && changed < most; looked++) {
        uint64_t job = pm_sched_next_job(b->sched, &k->cursor, &filter);
        if (!job)
            return false;
        uint32_t state = pm_sched_state(b->sched, job);
        enum pm_retry_need need = pm_sched_retry_need(b->sched, job);
        if (k->what == PM_BULK_RETRY && (state == PM_JOB_CANCELLED || need != PM_RETRY_NEEDED)) {
            k->count += need == PM_RETRY_UNDER_WAY && state <= PM_JOB_RUNNING;
            continue;
        }
        int rc = change(b, k->what, job, err);
        if (rc)
            pm_log(PM_LOG_WARNING, "%s refused job=%llu: %s", names[k->what], (unsigned long long)job,
                   err->text);
        k->count += !rc;
        changed++;
    }
    return true;
}

static void answer(struct pm_broker *b, const struct pm_bulk *k)
{
    struct pm_msg_done done = {.ref = k->ref, .count = k->count};
    char batch[PM_LOG_VALUE];
    pm_log(PM_LOG_INFO, "%s of many is through jobs=%u batch=%s", names[k->what], k->count,
           pm_log_value(k->batch, batch));
    for (size_t i = 0; i < b->conn_count; i++)
        if (b->conns[i]->id == k->conn && !b->conns[i]->is_dead)
            pm_conn_send(b, b->conns[i], PM_MSG_DONE, &done);
}

int pm_bulk_go_on(struct pm_broker *b, struct pm_error *err)
{
    struct pm_bulk *k = b->bulks;
    if (!k)
        return 0;
    int rc = pm_broker_commit(b, err); /* the journal is read, and jobs that changed in this turn stay */
    struct pm_error local;
    if (rc || slice(b, k, &local))
        return rc;
    answer(b, k);
    b->bulks = drop(k);
    return 0;
}
