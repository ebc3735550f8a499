/* PARTIAL: text so far, passed on to watchers that asked for it; nothing depends on it. */
#include <string.h>

#include "broker/broker.h"

#define PARTIAL_BYTES 65536

int pm_verb_partial(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_partial *p = m->record;
    (void)err;
    if (!pm_sched_is_current(b->sched, c->peer, p->task, p->attempt) ||
        pm_task_kind(p->task) != PM_KIND_REGION)
        return 0;
    pm_sched_beat(b->sched, b->now, c->peer, p->task, p->attempt);
    if (strlen(p->text) > PARTIAL_BYTES) {
        pm_count(b, PM_COUNT_events_coalesced);
        return 0;
    }
    struct pm_action event = {.kind = PM_ACTION_EVENT,
                              .event = PM_EVENT_PARTIAL,
                              .job = pm_task_job(p->task),
                              .page = pm_task_page(p->task),
                              .region = pm_task_slot(p->task) + 1, /* 0 is the page itself */
                              .blob = "",
                              .text = p->text};
    pm_events_take(b, &event);
    return 0;
}
