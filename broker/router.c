/* Dispatch by table: type of message -> verb, and who may send it. */
#include "base/clock.h"
#include "broker/broker.h"
#include "broker/gate.h"

#define ROLE(r)  (1u << (r))
#define SERVICES (ROLE(PM_ROLE_LAYOUTD) | ROLE(PM_ROLE_WORKER) | ROLE(PM_ROLE_COLLECTOR))
#define CLIENTS  (ROLE(PM_ROLE_CLIENT) | ROLE(PM_ROLE_SUPERVISOR))

#define SEES (PM_RIGHT_SUBMIT | PM_RIGHT_WATCH)

static const struct route {
    pm_verb *verb;
    unsigned roles;
    bool has_ref; /* a request: its record begins with the request's number, and it is always answered */
    unsigned
        rights; /* one of these, or admin; 0: none needed beyond the hello's. Verbs look whose job it is. */
    bool is_costly; /* looks at many jobs: each connection has a share of our time */
} routes[] = {
    [PM_MSG_GOODBYE] = {pm_verb_goodbye, SERVICES | CLIENTS, false, 0, false},
    [PM_MSG_PING] = {pm_verb_ping, SERVICES | CLIENTS, true, 0, false},
    [PM_MSG_PONG] = {pm_verb_pong, SERVICES | CLIENTS, false, 0, false},
    [PM_MSG_CREDIT] = {pm_verb_credit, SERVICES, false, 0, false},
    [PM_MSG_BEAT] = {pm_verb_beat, SERVICES, false, 0, false},
    [PM_MSG_PARTIAL] = {pm_verb_partial, ROLE(PM_ROLE_WORKER), false, 0, false},
    [PM_MSG_RESULT] = {pm_verb_result, SERVICES, false, 0, false},
    [PM_MSG_SEEN] = {pm_verb_seen, ROLE(PM_ROLE_LAYOUTD), false, 0, false},
    [PM_MSG_SUBMIT] = {pm_verb_submit, CLIENTS, true, PM_RIGHT_SUBMIT, false},
    [PM_MSG_LIST] = {pm_verb_list, CLIENTS, true, SEES, true},
    [PM_MSG_STATUS] = {pm_verb_status, CLIENTS, true, SEES, false},
    [PM_MSG_CANCEL] = {pm_verb_cancel, CLIENTS, true, PM_RIGHT_SUBMIT, false},
    [PM_MSG_RETRY] = {pm_verb_retry, CLIENTS, true, PM_RIGHT_SUBMIT, false},
    [PM_MSG_FORGET] = {pm_verb_forget, CLIENTS, true, PM_RIGHT_SUBMIT, false},
    [PM_MSG_WATCH] = {pm_verb_watch, CLIENTS, true, SEES, true},
    [PM_MSG_FETCH] = {pm_verb_fetch, CLIENTS, true, PM_RIGHT_SUBMIT, false},
    [PM_MSG_STATS] = {pm_verb_stats, CLIENTS, true, PM_RIGHT_WATCH, true},
    [PM_MSG_SHUTDOWN] = {pm_verb_shutdown, CLIENTS, true, PM_RIGHT_ADMIN, false},
    [PM_MSG_BLOB_PUT] = {pm_verb_blob_put, CLIENTS, true, PM_RIGHT_SUBMIT, false},
    [PM_MSG_BLOB_GET] = {pm_verb_blob_get, CLIENTS, true, PM_RIGHT_SUBMIT, false},
};

static uint64_t ref_of(const struct route *r, const struct pm_message *m)
{
    return r->has_ref ? *(const uint64_t *)m->record : 0;
}

static uint64_t retry_after_us(int code)
{
    return code == PM_EBUSY ? 1000000 : code == PM_ENOSPC ? 5000000 : 0;
}

static int refuse_right(struct pm_broker *b, const struct pm_conn *c, const struct pm_message *m,
                        const struct route *r, struct pm_error *err)
{
    char need[PM_RIGHTS_TEXT], has[PM_RIGHTS_TEXT];
    pm_count(b, PM_COUNT_missing_rights);
    return pm_fail(err, PM_EDENIED, "%s needs role %s, key %s has %s", pm_msg_name(m->header.type),
                   pm_rights_text(r->rights, need), c->client, pm_rights_text(c->rights, has));
}

void pm_route(struct pm_broker *b, int socket, const struct pm_message *m)
{
    if (m->header.type == PM_MSG_HELLO) {
        pm_verb_hello(b, socket, m);
        return;
    }
    const size_t known = sizeof routes / sizeof routes[0];
    const struct route *r = m->header.type < known ? &routes[m->header.type] : NULL;
    struct pm_conn *c = pm_conn_find(b, socket, m);
    if (!c || !pm_gate_is_of(c, m)) {
        pm_count(b, PM_COUNT_unknown_peers);
        if (pm_gate_breach(b, socket, m, PM_BREACH_UNKNOWN, "no hello") && m->header.type != PM_MSG_GOODBYE)
            pm_refuse_stranger(b, socket, m, 0, PM_EPROTO, "hello first: the broker does not know you");
        return;
    }
    c->heard_us = b->now.us;
    c->is_unreachable = false;
    if (c->peer)
        pm_sched_alive(b->sched, c->peer);
    struct pm_error err = {0};
    unsigned points = 0;
    int rc;
    if (!r || !r->verb || !(r->roles & ROLE(c->role))) {
        pm_count(b, PM_COUNT_wrong_role);
        rc = pm_fail(&err, PM_EDENIED, "a %s may not send %s", pm_role_name(c->role),
                     pm_msg_name(m->header.type));
        points = PM_BREACH_ROLE;
    } else if (r->rights && !(c->rights & (r->rights | PM_RIGHT_ADMIN))) {
        rc = refuse_right(b, c, m, r, &err);
    } else if (!r->is_costly) {
        rc = r->verb(b, c, m, &err);
        points = rc == PM_EPROTO ? PM_BREACH_LATE : 0;
    } else if ((rc = pm_gate_check_share(b, c, &err)) != 0) {
        points = PM_BREACH_GREEDY;
    } else {
        int64_t start = pm_clock_us();
        rc = r->verb(b, c, m, &err);
        pm_gate_spent(b, c, pm_clock_us() - start);
    }
    if (!rc)
        return;
    pm_count(b, PM_COUNT_refused_requests);
    pm_metrics_refused(b->metrics, rc);
    if (points && !pm_gate_breach(b, socket, m, points, err.text))
        return;
    pm_log(PM_LOG_DEBUG, "refused %s of %s: %s", pm_msg_name(m->header.type), c->name, err.text);
    if (c->peer)
        return; /* services do not ask: what they say is taken or not */
    struct pm_msg_refuse refuse = {.ref = r && r->verb ? ref_of(r, m) : 0,
                                   .code = pm_err_name(rc),
                                   .text = err.text,
                                   .retry_after_us = retry_after_us(rc)};
    pm_conn_send(b, c, PM_MSG_REFUSE, &refuse);
}
