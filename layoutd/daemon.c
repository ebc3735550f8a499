#include "layoutd/daemon.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "layoutd/task.h"
#include "proto/task_log.h"

#define BUSY_WAIT_US    4000 /* how long a finished task may wait for the owner to notice */
#define IDLE_WAIT_US    1000000
#define DECODER_LIFE_US 30000000 /* an unused decoder is ended */
#define ANSWER_S        2 /* a broker that is slower than this costs more than reading the page again */

enum state { WAITING, RUNNING, DONE };

/* Was this page read before? The labourer asks, the owner carries question and answer. */
enum question { NOTHING_ASKED, TO_BE_ASKED, ASKED, KNOWN, UNKNOWN };

struct job {
    const struct pm_msg_lease *lease; /* the peer's, until result or release */
    int64_t deadline_us;              /* 0: none */
    int64_t taken_us;
    bool is_revoked, is_late;
    unsigned seen_steps;
    struct pm_task_watch watch;
    struct pm_done done;
    enum state state;
    enum question question;
    const char *fingerprint; /* of a question; the labourer's, until it is answered */
    struct job *next;
};

struct daemon {
    struct pm_peer *peer;
    struct pm_task_env env;
    struct pm_blobs *blobs; /* our own view of the store: the peer may reopen its own */
    int cancel_fd;
    pthread_t labourer;
    pthread_mutex_t lock;
    pthread_cond_t wake, answered;
    struct job *jobs; /* in the order of the leases; guarded by lock, as are their states */
    bool is_stopping;
    bool is_leaving; /* told to stop: finishes what it holds */
};

/* ---- the labourer ---- */

static struct job *next_waiting(struct daemon *d)
{
    for (struct job *j = d->jobs; j; j = j->next)
        if (j->state == WAITING)
            return j;
    return NULL;
}

static void wait_for_work(struct daemon *d)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 5;
    if (pthread_cond_timedwait(&d->wake, &d->lock, &until) == ETIMEDOUT)
        pm_decoders_expire(d->env.decoders, pm_clock_us() - DECODER_LIFE_US);
}

/* Waits for the owner's answer; the page is laid out when there is none soon. */
static bool is_known(void *context, uint64_t task, const char *fingerprint)
{
    struct daemon *d = context;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ANSWER_S;
    pthread_mutex_lock(&d->lock);
    struct job *j = d->jobs;
    while (j && (j->state != RUNNING || j->lease->task != task))
        j = j->next;
    bool is_known = false;
    if (j) {
        j->fingerprint = fingerprint;
        j->question = TO_BE_ASKED;
        int rc = 0;
        while (!rc && (j->question == TO_BE_ASKED || j->question == ASKED))
            rc = pthread_cond_timedwait(&d->answered, &d->lock, &until);
        is_known = j->question == KNOWN;
        j->question = NOTHING_ASKED;
        j->fingerprint = NULL;
    }
    pthread_mutex_unlock(&d->lock);
    return is_known;
}

static void *labour(void *argument)
{
    struct daemon *d = argument;
    pthread_mutex_lock(&d->lock);
    while (!d->is_stopping) {
        struct job *j = next_waiting(d);
        if (!j) {
            wait_for_work(d);
            continue;
        }
        eventfd_t stale;
        eventfd_read(d->cancel_fd, &stale); /* a cancel of the task before */
        j->state = RUNNING;
        if (j->is_revoked || j->is_late) {
            pm_fail(&j->done.error, PM_ECANCELLED, "stopped before it began");
        } else {
            pthread_mutex_unlock(&d->lock);
            int64_t waited_us = pm_clock_us() - j->taken_us;
            struct pm_task_id id = pm_task_id_of(j->lease);
            pm_task_log_begin(&id);
            pm_task_run(&d->env, j->lease, &j->watch, &j->done);
            j->done.result.wait_us = (uint64_t)waited_us;
            pthread_mutex_lock(&d->lock);
        }
        j->state = DONE;
    }
    pthread_mutex_unlock(&d->lock);
    pm_decoders_free(&d->env.decoders);
    return NULL;
}

/* ---- the owner ---- */

/* Call with the lock held. */
static void cancel(struct daemon *d, struct job *j)
{
    atomic_store(&j->watch.cancel, true);
    if (j->state == RUNNING)
        eventfd_write(d->cancel_fd, 1);
    if (j->question) { /* nobody wants to know any more */
        j->question = UNKNOWN;
        pthread_cond_signal(&d->answered);
    }
}

/* Call with the lock held. */
static void ask(struct daemon *d, struct job *j)
{
    bool could_ask = pm_peer_seen(d->peer, j->lease->task, j->fingerprint);
    j->question = could_ask ? ASKED : UNKNOWN;
    if (!could_ask)
        pthread_cond_signal(&d->answered);
}

/* The broker's answer; without a task: none will come. */
static void take_answer(struct daemon *d, uint64_t task, uint32_t attempt, bool is_known)
{
    pthread_mutex_lock(&d->lock);
    for (struct job *j = d->jobs; j; j = j->next)
        if (j->question == ASKED && (!task || (j->lease->task == task && j->lease->attempt == attempt))) {
            j->question = is_known ? KNOWN : UNKNOWN;
            pthread_cond_signal(&d->answered);
        }
    pthread_mutex_unlock(&d->lock);
}

static void take(struct daemon *d, const struct pm_msg_lease *lease)
{
    struct job *j = pm_xalloc(sizeof *j);
    j->lease = lease;
    j->taken_us = pm_clock_us();
    j->deadline_us = pm_peer_deadline_us(lease, j->taken_us);
    pthread_mutex_lock(&d->lock);
    struct job **end = &d->jobs;
    while (*end)
        end = &(*end)->next;
    *end = j;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
}

static void end_task(struct daemon *d, uint64_t task)
{
    bool found = false;
    pthread_mutex_lock(&d->lock);
    for (struct job *j = d->jobs; j; j = j->next)
        if (j->lease->task == task) {
            j->is_revoked = found = true;
            cancel(d, j);
        }
    pthread_mutex_unlock(&d->lock);
    if (!found)
        pm_peer_release(d->peer, task);
}

/* The lease belongs to the peer and dies with its result: log first. */
static void answer(struct daemon *d, struct job *j)
{
    const struct pm_msg_lease *l = j->lease;
    uint64_t task = l->task;
    struct pm_error *e = &j->done.error;
    struct pm_task_id id = pm_task_id_of(l);
    int64_t run_us = pm_clock_us() - j->taken_us;
    if (j->is_revoked) {
        pm_task_log_end(&id, "revoked", run_us, NULL);
        pm_peer_release(d->peer, task);
    } else if (j->is_late) {
        pm_fail(e, PM_ETIMEOUT, "%s took longer than %.1f s",
                l->kind == PM_KIND_OPEN ? "opening the document" : "laying out the page",
                (double)l->deadline_us / 1e6);
        pm_task_log_end(&id, "failed", run_us, e);
        pm_peer_fail(d->peer, task, e, false);
    } else if (e->code) {
        pm_task_log_end(&id, "failed", run_us, e);
        pm_peer_fail(d->peer, task, e, j->done.is_final);
    } else {
        pm_task_log_end(&id, "done", run_us, NULL);
        pm_peer_result(d->peer, task, &j->done.result);
    }
    pm_done_free(&j->done);
    free(j);
}

/* Sends what is done, ends what is late, and tells of progress: a task that gave a sign of life, one that
 * waits for something with a deadline of its own, and those that queue behind it. Returns tasks left. */
static unsigned look_after(struct daemon *d)
{
    struct job *finished = NULL, **last = &finished, **at;
    unsigned left = 0;
    bool alive = true;
    int64_t now = pm_clock_us();
    pthread_mutex_lock(&d->lock);
    for (at = &d->jobs; *at;) {
        struct job *j = *at;
        if (j->state == DONE) {
            *at = j->next;
            j->next = NULL;
            *last = j;
            last = &j->next;
            continue;
        }
        if (j->deadline_us && now > j->deadline_us && !j->is_late) {
            j->is_late = true;
            cancel(d, j);
        }
        if (j->state == RUNNING) {
            unsigned steps = atomic_load(&j->watch.steps);
            alive = steps != j->seen_steps || atomic_load(&j->watch.is_timed);
            j->seen_steps = steps;
            if (j->question == TO_BE_ASKED)
                ask(d, j);
        }
        if (alive && !j->is_revoked)
            pm_peer_progress(d->peer, j->lease->task, atomic_load(&j->watch.permille));
        left++;
        at = &j->next;
    }
    pthread_mutex_unlock(&d->lock);
    while (finished) {
        struct job *j = finished;
        finished = j->next;
        answer(d, j);
    }
    return left;
}

static bool has_job(struct daemon *d)
{
    pthread_mutex_lock(&d->lock);
    bool has = d->jobs != NULL;
    pthread_mutex_unlock(&d->lock);
    return has;
}

/* Blobs of our own, so that the labourer's never change under it. */
static int open_blobs(struct daemon *d, struct pm_error *err)
{
    struct pm_blobs *theirs = pm_peer_blobs(d->peer);
    const char *disk = pm_blobs_dir(theirs, PM_BLOB_DISK), *pixels = pm_blobs_dir(theirs, PM_BLOB_PIXELS);
    if (d->blobs && !strcmp(pm_blobs_dir(d->blobs, PM_BLOB_DISK), disk) &&
        !strcmp(pm_blobs_dir(d->blobs, PM_BLOB_PIXELS), pixels))
        return 0;
    if (d->blobs) /* another store under the same endpoint: start clean, the supervisor starts us again */
        return pm_fail(err, PM_EGONE, "the broker's blob store moved from %s to %s",
                       pm_blobs_dir(d->blobs, PM_BLOB_DISK), disk);
    int rc = pm_blobs_open(disk, pixels, &d->blobs, err);
    if (!rc) {
        pthread_mutex_lock(&d->lock);
        d->env.blobs = d->blobs;
        pthread_mutex_unlock(&d->lock);
    }
    return rc;
}

static int take_event(void *ctx, const struct pm_peer_event *e, struct pm_error *err)
{
    struct daemon *d = ctx;
    switch (e->kind) {
    case PM_PEER_READY:
        return open_blobs(d, err);
    case PM_PEER_LEASE:
        take(d, e->lease);
        return 0;
    case PM_PEER_REVOKE:
        end_task(d, e->task);
        return 0;
    case PM_PEER_STOP:
        d->is_leaving = true;
        return 0;
    case PM_PEER_KNOWN:
        take_answer(d, e->task, e->attempt, e->is_known);
        return 0;
    case PM_PEER_LOST:
        take_answer(d, 0, 0, false);
        pm_log(PM_LOG_WARNING, "the broker is gone; waiting for it");
        return 0;
    default:
        return 0;
    }
}

static int loop(struct daemon *d, struct pm_error *err)
{
    for (;;) {
        int rc = pm_peer_each(d->peer, has_job(d) ? BUSY_WAIT_US : IDLE_WAIT_US, take_event, d, err);
        if (rc)
            return rc;
        look_after(d);
        if (d->is_leaving && !pm_peer_can_finish(d->peer))
            return 0;
    }
}

static int start(struct daemon *d, struct pm_error *err)
{
    pthread_condattr_t monotonic;
    d->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->cancel_fd < 0)
        return pm_fail_errno(err, "cannot make an eventfd");
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->wake, &monotonic);
    pthread_cond_init(&d->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return 0;
}

int pm_layoutd_run(struct pm_peer *peer, const struct pm_layoutd_config *config, struct pm_error *err)
{
    struct daemon d = {.peer = peer,
                       .env = {.tools = config->tools,
                               .models_dir = config->models_dir,
                               .layout_model = config->layout_model,
                               .is_known = is_known}};
    d.env.is_known_context = &d;
    int rc = start(&d, err);
    if (rc)
        return rc;
    d.env.decoders = pm_decoders_new(config->decode_program, d.cancel_fd);
    int failed = pthread_create(&d.labourer, NULL, labour, &d);
    if (failed) {
        errno = failed;
        rc = pm_fail_errno(err, "cannot start a thread");
        pm_decoders_free(&d.env.decoders);
    } else {
        rc = loop(&d, err);
        pthread_mutex_lock(&d.lock);
        d.is_stopping = true;
        for (struct job *j = d.jobs; j; j = j->next)
            cancel(&d, j);
        pthread_cond_signal(&d.wake);
        pthread_mutex_unlock(&d.lock);
        pthread_join(d.labourer, NULL);
    }
    while (d.jobs) { /* unanswered leases: the broker gives them to the next layoutd */
        struct job *j = d.jobs;
        d.jobs = j->next;
        pm_done_free(&j->done);
        free(j);
    }
    pm_blobs_free(&d.blobs);
    pthread_cond_destroy(&d.wake);
    pthread_cond_destroy(&d.answered);
    pthread_mutex_destroy(&d.lock);
    close(d.cancel_fd);
    return rc;
}
