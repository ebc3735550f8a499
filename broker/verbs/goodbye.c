/* GOODBYE: leaves by its own will; what it held is given back without blame. */
#include "broker/broker.h"

int pm_verb_goodbye(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_goodbye *g = m->record;
    (void)err;
    if (c->peer) {
        char reason[PM_LOG_VALUE];
        pm_log(PM_LOG_INFO, "%s left name=%s reason=%s", pm_role_name(c->role), c->name,
               pm_log_value(g->reason, reason));
        pm_sched_peer_end(b->sched, b->now, c->peer, PM_PEER_LEFT);
        c->peer = 0;
    }
    pm_conn_cut(b, c);
    return 0;
}
