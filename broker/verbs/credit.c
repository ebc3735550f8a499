/* CREDIT: how many leases the peer takes, counted since its HELLO. */
#include "broker/broker.h"

int pm_verb_credit(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_credit *credit = m->record;
    (void)err;
    pm_sched_credit(b->sched, c->peer, credit->granted);
    return 0;
}
