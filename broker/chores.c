/* What is done after a turn, when everybody has been answered: in slices, and the long ones only while nobody
 * waits. */
#include "broker/broker.h"

#define SHRINK_US 1000000
#define SOON_US   5000 /* nobody has come for that long: time for a chore */

static void sweep(struct pm_broker *b)
{
    struct pm_error err;
    if (b->now.us - b->sweep_us > PM_SWEEP_US) {
        b->sweep_us = b->now.us;
        pm_refs_sweep_begin(b);
    }
    if (pm_refs_sweep(b, &err))
        pm_log(PM_LOG_WARNING, "cannot sweep the blob store: %s", err.text);
}

static void shrink(struct pm_broker *b)
{
    struct pm_error err;
    if (b->now.us - b->shrink_us < SHRINK_US)
        return;
    b->shrink_us = b->now.us;
    if (pm_journal_shrink(b->journal, &err))
        pm_log(PM_LOG_WARNING, "cannot shrink the journal: %s", err.text);
}

int pm_chores(struct pm_broker *b, bool is_idle, struct pm_error *err)
{
    pm_refs_collect(b);
    sweep(b); /* after the commit: what this turn refers to is counted by now */
    if (is_idle)
        shrink(b);
    int rc = pm_journal_tidy(b->journal, is_idle, err);
    if (rc)
        b->is_stopping = true; /* as after a commit that failed */
    return rc;
}

int64_t pm_chores_next_us(const struct pm_broker *b)
{
    bool any = pm_journal_is_untidy(b->journal) || pm_refs_is_busy(b);
    return any ? b->now.us + SOON_US : INT64_MAX;
}
