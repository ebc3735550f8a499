#include "client/lib/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

const char *pagemill_job_state_name(int state)
{
    return pm_job_state_name((uint32_t)state);
}

int pagemill_job_is_final(int state)
{
    return state == PAGEMILL_JOB_DONE || state == PAGEMILL_JOB_FAILED || state == PAGEMILL_JOB_CANCELLED;
}

/* A list and the arena that its strings live in; the public part comes first. */
struct job_list {
    struct pagemill_jobs list;
    struct pm_arena arena;
};

/* Takes the answer's arena over. */
static int make_list(struct pm_answer *answer, const struct pm_job_info *infos, uint32_t count, bool has_more,
                     struct pagemill_jobs **out, struct pm_error *err)
{
    struct job_list *made = calloc(1, sizeof *made);
    struct pagemill_job *jobs = calloc(count ? count : 1, sizeof *jobs);
    if (!made || !jobs) {
        free(made);
        free(jobs);
        pm_answer_free(answer);
        return pm_fail(err, PM_ENOMEM, "no memory for a list of %u jobs", count);
    }
    made->arena = answer->arena;
    *answer = (struct pm_answer){0};
    for (uint32_t i = 0; i < count; i++)
        pm_client_job(&made->arena, &infos[i], &jobs[i]);
    made->list = (struct pagemill_jobs){.jobs = jobs, .count = count, .has_more = has_more};
    *out = &made->list;
    return 0;
}

void pagemill_jobs_free(struct pagemill_jobs **jobs)
{
    struct job_list *made = (struct job_list *)*jobs;
    *jobs = NULL;
    if (!made)
        return;
    free((void *)made->list.jobs);
    pm_arena_free(&made->arena);
    free(made);
}

int pagemill_list(pagemill *pm, const struct pagemill_list_options *options, int64_t timeout_ms,
                  struct pagemill_jobs **out, struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    struct pagemill_list_options o = PAGEMILL_LIST_OPTIONS_INIT;
    *out = NULL;
    if (options)
        memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
    if (o.state < 0 || o.state > PAGEMILL_JOB_CANCELLED)
        return pm_fail(err, PM_EINVAL, "%d is not a job state", o.state);
    struct pm_msg_list m = {.ref = pm_client_ref(pm),
                            .state = (uint32_t)o.state,
                            .batch = o.batch ? o.batch : "",
                            .before = o.before,
                            .limit = o.limit};
    struct pm_answer answer;
    int rc =
        pm_client_call(pm, PM_MSG_LIST, &m, m.ref, PM_MSG_JOBS, pm_client_deadline(timeout_ms), &answer, err);
    if (rc)
        return rc;
    const struct pm_msg_jobs *jobs = answer.message.record;
    return make_list(&answer, jobs->jobs, jobs->job_count, jobs->has_more, out, err);
}

int pagemill_status(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_jobs **out,
                    struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    struct pm_msg_job_ref m = {.ref = pm_client_ref(pm), .job = job, .batch = ""};
    struct pm_answer answer;
    *out = NULL;
    int rc = pm_client_call(pm, PM_MSG_STATUS, &m, m.ref, PM_MSG_JOB, pm_client_deadline(timeout_ms), &answer,
                            err);
    if (rc)
        return rc;
    const struct pm_msg_job *info = answer.message.record;
    return make_list(&answer, &info->info, 1, false, out, err);
}

/* A request whose answer was lost with its connection was sent again and refused: because the first one was
 * carried out? */
static bool is_carried_out(pagemill *pm, uint32_t type, uint64_t job, int rc, int64_t timeout_ms)
{
    struct pagemill_jobs *status;
    if (type == PM_MSG_FORGET)
        return rc == PM_ENOTFOUND;
    if (type != PM_MSG_RETRY || pagemill_status(pm, job, timeout_ms, &status, NULL))
        return false;
    const struct pagemill_job *j = &status->jobs[0];
    bool is_so = !pagemill_job_is_final((int)j->state) ||
                 (j->state == PAGEMILL_JOB_DONE && !j->pages_failed && !j->regions_failed);
    pagemill_jobs_free(&status);
    return is_so;
}

static int change(pagemill *pm, uint32_t type, uint64_t job, const char *batch, int64_t timeout_ms,
                  uint32_t *count_out, struct pagemill_error *err)
{
    struct pm_msg_job_ref m = {.ref = pm_client_ref(pm), .job = job, .batch = batch ? batch : ""};
    struct pm_answer answer;
    int rc = pm_client_call(pm, type, &m, m.ref, PM_MSG_DONE, pm_client_deadline(timeout_ms), &answer,
                            pm_client_error(err));
    if (rc && pm->was_repeated && !*m.batch && job)
        return is_carried_out(pm, type, job, rc, timeout_ms) ? 0 : rc;
    if (rc)
        return rc;
    if (count_out)
        *count_out = ((const struct pm_msg_done *)answer.message.record)->count;
    pm_answer_free(&answer);
    return 0;
}

int pagemill_cancel(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_error *err)
{
    return change(pm, PM_MSG_CANCEL, job, NULL, timeout_ms, NULL, err);
}

int pagemill_cancel_batch(pagemill *pm, const char *batch, int64_t timeout_ms, uint32_t *count_out,
                          struct pagemill_error *err)
{
    if (!batch || !*batch)
        return pm_fail(pm_client_error(err), PM_EINVAL, "a batch needs a name");
    return change(pm, PM_MSG_CANCEL, 0, batch, timeout_ms, count_out, err);
}

int pagemill_retry(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_error *err)
{
    if (!job) /* on the wire: every job */
        return pm_fail(pm_client_error(err), PM_EINVAL, "0 is no job's number");
    return change(pm, PM_MSG_RETRY, job, NULL, timeout_ms, NULL, err);
}

int pagemill_retry_batch(pagemill *pm, const char *batch, int64_t timeout_ms, uint32_t *count_out,
                         struct pagemill_error *err)
{
    return change(pm, PM_MSG_RETRY, 0, batch, timeout_ms, count_out, err);
}

int pagemill_forget_failed(pagemill *pm, const char *batch, int64_t timeout_ms, uint32_t *count_out,
                           struct pagemill_error *err)
{
    return change(pm, PM_MSG_FORGET, 0, batch, timeout_ms, count_out, err);
}

int pagemill_forget(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_error *err)
{
    if (!job)
        return pm_fail(pm_client_error(err), PM_EINVAL, "0 is no job's number");
    return change(pm, PM_MSG_FORGET, job, NULL, timeout_ms, NULL, err);
}

int pagemill_shutdown(pagemill *pm, int now, int64_t timeout_ms, struct pagemill_error *err)
{
    struct pm_msg_shutdown m = {.ref = pm_client_ref(pm), .now = now != 0};
    struct pm_answer answer;
    int rc = pm_client_call(pm, PM_MSG_SHUTDOWN, &m, m.ref, PM_MSG_DONE, pm_client_deadline(timeout_ms),
                            &answer, pm_client_error(err));
    pm_answer_free(&answer);
    return rc;
}

/* ---- the fleet ---- */

struct fleet {
    struct pagemill_stats stats;
    struct pm_arena arena;
};

static void convert(struct pm_arena *arena, const struct pm_msg_fleet *m, struct pagemill_stats *out)
{
    struct pagemill_peer *peers = pm_arena_alloc(arena, m->peer_count * sizeof *peers);
    for (uint32_t i = 0; i < m->peer_count; i++) {
        const struct pm_peer_info *p = &m->peers[i];
        peers[i] = (struct pagemill_peer){.name = p->name,
                                          .role = p->role,
                                          .version = p->version,
                                          .pid = p->pid,
                                          .leases = p->leases,
                                          .credit = p->credit,
                                          .done = p->done,
                                          .failed = p->failed,
                                          .busy_us = p->busy_us,
                                          .up_us = p->up_us,
                                          .silent_us = p->silent_us,
                                          .host = p->host,
                                          .state = p->state,
                                          .readers = (const char *const *)p->readers,
                                          .reader_count = p->reader_count,
                                          .rss_bytes = p->rss_bytes,
                                          .task = p->task,
                                          .task_us = p->task_us,
                                          .tokens = p->tokens};
    }
    struct pagemill_queue *queues = pm_arena_alloc(arena, m->queue_count * sizeof *queues);
    for (uint32_t i = 0; i < m->queue_count; i++) {
        const struct pm_queue_info *q = &m->queues[i];
        queues[i] = (struct pagemill_queue){.kind = q->kind,
                                            .queued = q->queued,
                                            .leased = q->leased,
                                            .oldest_us = q->oldest_us,
                                            .done = q->done,
                                            .failed = q->failed,
                                            .retried = q->retried,
                                            .reader = q->reader};
    }
    struct pagemill_counter *counters = pm_arena_alloc(arena, m->counter_count * sizeof *counters);
    for (uint32_t i = 0; i < m->counter_count; i++)
        counters[i] = (struct pagemill_counter){.name = m->counters[i].name, .value = m->counters[i].value};
    struct pagemill_latency *latencies = pm_arena_alloc(arena, m->latency_count * sizeof *latencies);
    for (uint32_t i = 0; i < m->latency_count; i++) {
        const struct pm_latency *l = &m->latencies[i];
        latencies[i] = (struct pagemill_latency){l->name,   l->label,  l->count, l->sum_us,
                                                 l->p50_us, l->p99_us, l->max_us};
    }
    *out = (struct pagemill_stats){.epoch = m->epoch,
                                   .up_us = m->up_us,
                                   .version = m->version,
                                   .peers = peers,
                                   .peer_count = m->peer_count,
                                   .queues = queues,
                                   .queue_count = m->queue_count,
                                   .counters = counters,
                                   .counter_count = m->counter_count,
                                   .jobs_queued = m->jobs_queued,
                                   .jobs_running = m->jobs_running,
                                   .jobs_done = m->jobs_done,
                                   .jobs_failed = m->jobs_failed,
                                   .jobs_cancelled = m->jobs_cancelled,
                                   .pages_done = m->pages_done,
                                   .regions_done = m->regions_done,
                                   .pixel_bytes = m->pixel_bytes,
                                   .pixel_budget_bytes = m->pixel_budget_bytes,
                                   .disk_bytes_free = m->disk_bytes_free,
                                   .is_draining = m->is_draining,
                                   .latencies = latencies,
                                   .latency_count = m->latency_count,
                                   .tokens = m->tokens,
                                   .rss_bytes = m->rss_bytes,
                                   .state_bytes = m->state_bytes,
                                   .clients = m->clients};
}

int pagemill_stats(pagemill *pm, int64_t timeout_ms, struct pagemill_stats **out,
                   struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    struct pm_msg_stats m = {.ref = pm_client_ref(pm)};
    struct pm_answer answer;
    *out = NULL;
    int rc = pm_client_call(pm, PM_MSG_STATS, &m, m.ref, PM_MSG_FLEET, pm_client_deadline(timeout_ms),
                            &answer, err);
    if (rc)
        return rc;
    struct fleet *made = calloc(1, sizeof *made);
    if (!made) {
        pm_answer_free(&answer);
        return pm_fail(err, PM_ENOMEM, "no memory for the fleet's figures");
    }
    made->arena = answer.arena;
    convert(&made->arena, answer.message.record, &made->stats);
    *out = &made->stats;
    return 0;
}

void pagemill_stats_free(struct pagemill_stats **stats)
{
    struct fleet *made = (struct fleet *)*stats;
    *stats = NULL;
    if (made)
        pm_arena_free(&made->arena);
    free(made);
}
