/* SEEN: layoutd asks whether a page was read before. KNOWN says yes only when everything of it is there, so
 * that the result that relies on it will be taken. */
#include <string.h>

#include "broker/broker.h"
#include "broker/known.h"

int pm_verb_seen(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_seen *q = m->record;
    struct pm_msg_known answer = {.task = q->task, .attempt = q->attempt};
    struct pm_known_page page;
    if (pm_sched_is_current(b->sched, c->peer, q->task, q->attempt)) {
        int rc = pm_known_find(b, q->fingerprint, &page, err);
        if (rc && rc != PM_ENOTFOUND)
            return rc;
        answer.is_known = !rc;
    }
    pm_conn_send(b, c, PM_MSG_KNOWN, &answer);
    return 0;
}
