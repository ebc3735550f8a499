#include "client/cli/rolling.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "client/cli/memory.h"

#define URGE_US 2000000 /* from the second SIGTERM to SIGKILL */

void pm_rolling_open(struct pm_rolling *r, struct pm_supervise *set, const struct pm_rolling_config *config)
{
    *r = (struct pm_rolling){.set = set, .config = *config};
}

void pm_rolling_close(struct pm_rolling *r)
{
    free(r->order);
    *r = (struct pm_rolling){0};
}

bool pm_rolling_is_busy(const struct pm_rolling *r)
{
    return r->stage != PM_ROLLING_IDLE;
}

static size_t current(const struct pm_rolling *r)
{
    return r->order[r->at];
}

static void tell(struct pm_rolling *r, const char *kind, char *text)
{
    r->config.tell(r->config.context, kind, text);
    free(text);
}

/* ---- one process ---- */

/* A second one beside it must fit, with room to work. */
static bool has_room(pid_t pid)
{
    uint64_t own = pm_memory_of_process(pid), available = pm_memory_available();
    return !available || own + own / 2 + ((uint64_t)128 << 20) < available;
}

static void start_one(struct pm_rolling *r, int64_t now_us)
{
    size_t index = current(r);
    r->old_pid = pm_supervise_pid(r->set, index);
    r->began_us = now_us;
    r->was_urged = false;
    if (index == r->config.broker || (r->old_pid && !has_room(r->old_pid))) {
        r->stage = r->old_pid ? PM_ROLLING_LEAVING : PM_ROLLING_STARTING;
        r->until_us = now_us + r->config.drain_us;
        pm_supervise_restart(r->set, index, index == r->config.broker ? SIGHUP : SIGTERM);
    } else {
        r->stage = PM_ROLLING_STARTING;
        r->until_us = now_us + r->config.start_us;
        pm_supervise_replace(r->set, index);
    }
}

static void finish(struct pm_rolling *r)
{
    r->stage = PM_ROLLING_IDLE;
    free(r->order);
    r->order = NULL;
}

static void end_one(struct pm_rolling *r, int64_t now_us)
{
    size_t index = current(r);
    tell(r, "step",
         pm_xprintf("%s restarted pid=%d was=%d seconds=%.2f", pm_supervise_name(r->set, index),
                    (int)pm_supervise_pid(r->set, index), (int)r->old_pid,
                    (double)(now_us - r->began_us) / 1e6));
    if (++r->at < r->count) {
        start_one(r, now_us);
        return;
    }
    size_t count = r->count;
    finish(r);
    tell(r, "done", pm_xprintf("%zu processes restarted", count));
}

static void give_up(struct pm_rolling *r, const char *why)
{
    const char *name = pm_supervise_name(r->set, current(r));
    size_t left = r->count - r->at - 1;
    bool has_old = pm_supervise_take_back(r->set, current(r));
    finish(r);
    tell(r, "failed",
         pm_xprintf("the new %s %s%s; %zu more processes were left as they are", name, why,
                    has_old ? ", the old one goes on" : "", left));
}

/* ---- what happens ---- */

bool pm_rolling_event(struct pm_rolling *r, const struct pm_supervise_event *e, int64_t now_us)
{
    if (r->stage == PM_ROLLING_IDLE || e->index != current(r))
        return false;
    bool is_end =
        e->kind == PM_SUPERVISE_DIED || e->kind == PM_SUPERVISE_FATAL || e->kind == PM_SUPERVISE_FINISHED;
    if (e->kind == PM_SUPERVISE_LEFT) {
        if (r->stage == PM_ROLLING_DRAINING) {
            end_one(r, now_us);
        } else if (r->stage == PM_ROLLING_LEAVING) {
            r->stage = PM_ROLLING_STARTING;
            r->until_us = now_us + r->config.start_us;
        }             /* else: the old one has ended by itself meanwhile, its successor is all there is */
        return false; /* it is told as usual, too */
    }
    if (is_end && r->stage == PM_ROLLING_STARTING) {
        char *why = pm_xprintf("failed (%s)", e->text);
        bool has_old = pm_supervise_has_leaving(r->set, e->index);
        /* Without an old one the usual treatment is right: start it again, or say that it cannot be. */
        if (has_old || e->kind == PM_SUPERVISE_FATAL)
            give_up(r, why);
        free(why);
        return has_old;
    }
    return false;
}

void pm_rolling_ready(struct pm_rolling *r, size_t index, int64_t now_us)
{
    if (r->stage != PM_ROLLING_STARTING || index != current(r))
        return;
    if (!pm_supervise_has_leaving(r->set, index)) {
        end_one(r, now_us);
        return;
    }
    r->stage = PM_ROLLING_DRAINING;
    r->until_us = now_us + r->config.drain_us;
    pm_supervise_dismiss(r->set, index, SIGTERM);
}

static void urge(struct pm_rolling *r, int signal_number)
{
    if (r->stage == PM_ROLLING_DRAINING)
        pm_supervise_dismiss(r->set, current(r), signal_number);
    else
        pm_supervise_signal(r->set, current(r), signal_number);
}

void pm_rolling_tick(struct pm_rolling *r, int64_t now_us)
{
    if (r->stage == PM_ROLLING_IDLE || now_us < r->until_us)
        return;
    if (r->stage == PM_ROLLING_STARTING) {
        if (pm_supervise_has_leaving(r->set, current(r)))
            give_up(r, "was not ready in time");
        else
            r->until_us =
                now_us + r->config.start_us; /* nothing to go back to: the supervisor keeps trying */
        return;
    }
    urge(r, r->was_urged ? SIGKILL : SIGTERM);
    r->was_urged = true;
    r->until_us = now_us + URGE_US;
}

int64_t pm_rolling_next_us(const struct pm_rolling *r)
{
    return r->stage == PM_ROLLING_IDLE ? INT64_MAX : r->until_us;
}

void pm_rolling_abort(struct pm_rolling *r, const char *why)
{
    if (r->stage == PM_ROLLING_IDLE)
        return;
    finish(r);
    tell(r, "failed", pm_xstrdup(why));
}

/* ---- which ---- */

static bool is_named(const char *name, const char *word, size_t size)
{
    return !strncmp(name, word, size) && (!name[size] || name[size] == '-');
}

/* Marks what a word names; false when it names nothing. */
static bool mark(const struct pm_rolling *r, const char *word, size_t size, bool *wanted)
{
    bool found = false;
    for (size_t i = 0; i < pm_supervise_count(r->set); i++)
        if (is_named(pm_supervise_name(r->set, i), word, size))
            found = wanted[i] = true;
    return found;
}

int pm_rolling_begin(struct pm_rolling *r, const char *words, int64_t now_us, struct pm_error *err)
{
    size_t count = pm_supervise_count(r->set);
    if (r->stage != PM_ROLLING_IDLE)
        return pm_fail(err, PM_EBUSY, "a restart is under way; ask again when it is over");
    bool *wanted = pm_xalloc((count + 1) * sizeof *wanted), has_words = false;
    int rc = 0;
    for (const char *at = words; !rc && *(at += strspn(at, " ")); at += strcspn(at, " ")) {
        size_t size = strcspn(at, " ");
        has_words = true;
        if (!mark(r, at, size, wanted))
            rc = pm_fail(err, PM_ENOTFOUND, "this fleet has no process \"%.*s\"; `pagemill top` lists them",
                         (int)(size < 80 ? size : 80), at);
    }
    if (!rc) {
        r->order = pm_xalloc((count + 1) * sizeof *r->order);
        r->count = r->at = 0;
        for (size_t i = 0; i < count; i++)
            if ((!has_words || wanted[i]) && i != r->config.broker)
                r->order[r->count++] = i;
        if (r->config.broker < count && (!has_words || wanted[r->config.broker]))
            r->order[r->count++] = r->config.broker;
        start_one(r, now_us);
    }
    free(wanted);
    return rc;
}
