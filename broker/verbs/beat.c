/* BEAT: leases that made progress. */
#include "broker/broker.h"

int pm_verb_beat(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_beat *beat = m->record;
    (void)err;
    for (uint32_t i = 0; i < beat->lease_count; i++)
        pm_sched_beat(b->sched, b->now, c->peer, beat->leases[i].task, beat->leases[i].attempt);
    return 0;
}
