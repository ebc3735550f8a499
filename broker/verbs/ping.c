/* PING is answered, PONG is a sign of life that the router has noted already. */
#include "broker/broker.h"

int pm_verb_ping(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    (void)err;
    pm_conn_send(b, c, PM_MSG_PONG, m->record);
    return 0;
}

int pm_verb_pong(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    (void)b;
    (void)m;
    (void)err;
    c->pinged_us = 0;
    return 0;
}
