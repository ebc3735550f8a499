/* SHUTDOWN: drain and leave, or leave now. */
#include "broker/broker.h"

int pm_verb_shutdown(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_shutdown *q = m->record;
    (void)err;
    pm_log(PM_LOG_INFO, "asked to stop by %s%s", c->name, q->now ? " now" : "");
    if (q->now)
        b->is_stopping = true;
    else
        pm_broker_drain(b);
    struct pm_msg_done done = {.ref = q->ref, .count = 1};
    pm_conn_send(b, c, PM_MSG_DONE, &done);
    return 0;
}
