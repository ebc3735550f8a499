/* The reference of the scheduler's model beside the real broker process: fake peers and a client that do what
 * they may and what they may not, kill -9 between turns, in a turn and right after an answer, and a restart
 * from the journal. After each step everybody is pinged until all that the broker decided has arrived; then
 * it must be what the reference says: who is answered how, which leases are given and taken back, what jobs
 * have become, how many attempts are in their logs.
 *
 *     test_broker_model [--steps N] [--seed S]        [2000 steps, seed 1] */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/host.h"
#include "fake.h"
#include "reference.h"

#define PEERS       6
#define MAX_HELD    64 /* what a peer holds and what it lies about */
#define MOST_CREDIT 16
#define JOBS        12
#define OLD         64
#define CALM_US     60000 /* beyond the back-off that the reference knows at least */

static const enum pm_role roles[PEERS] = {PM_ROLE_LAYOUTD, PM_ROLE_LAYOUTD, PM_ROLE_WORKER,
                                          PM_ROLE_WORKER,  PM_ROLE_WORKER,  PM_ROLE_COLLECTOR};

struct service {
    struct link link;
    bool is_there;
    pid_t pid;
    uint32_t incarnation;
    uint64_t granted;
    struct fake_lease held[MAX_HELD];
    uint32_t held_count;
};
/* What the client or a peer was answered last. */
struct answers {
    uint32_t client_type, count;
    uint64_t job;
    bool is_duplicate;
    char code[32];
    bool has_ack, is_accepted;
};
static struct run {
    struct fixture f;
    struct reference ref;
    struct link client;
    struct service peers[PEERS];
    struct fake_lease old[OLD];
    uint32_t old_count;
    struct ref_revoke doubtful[32]; /* leases that crossed a message of ours: a revoke has to follow */
    uint32_t doubtful_count;
    struct answers last;
    uint64_t random, seed;
    uint32_t step, kills, pings;
} w;

void ref_broken(const char *format, ...)
{
    char text[500];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fprintf(stderr, "seed %llu, step %u: %s\n", (unsigned long long)w.seed, w.step, text);
    for (int i = 0; i < PEERS; i++)
        if (w.peers[i].pid > 0)
            kill(w.peers[i].pid, SIGKILL);
    broker_kill(&w.f);
    _exit(1);
}

static uint32_t below(uint32_t n)
{
    uint64_t z = w.random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) % n);
}

static uint32_t hash_of(uint64_t task, uint32_t salt)
{
    uint64_t z = (task + salt * 0x51ed27u) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 29) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 33);
}
static uint32_t pages_of(uint64_t job)
{
    return 1 + hash_of(job, 1) % 4;
}
static uint32_t regions_of(uint64_t job, uint32_t page)
{
    return hash_of(pm_task_id(job, page, 0), 2) % 6;
}

/* ---- taking in what the broker says ---- */

static uint32_t ref_id(const struct service *s)
{
    return (uint32_t)(s - w.peers) + 1;
}

static void drop_held(struct service *s, uint32_t i)
{
    w.old[w.old_count < OLD ? w.old_count++ : below(OLD)] = s->held[i];
    s->held[i] = s->held[--s->held_count];
}

static void give_credit(struct service *s)
{
    struct pm_msg_credit c = {.granted = ++s->granted};
    link_send(&s->link, PM_MSG_CREDIT, &c);
    ref_peer(&w.ref, ref_id(s))->granted = s->granted;
}

static void take_lease_in(struct service *s, const struct pm_msg_lease *m)
{
    const struct ref_task *t = ref_task(&w.ref, m->task);
    if (!t || t->state != REF_OPEN) { /* it left before the broker had our last message */
        assert_true(w.doubtful_count < 32);
        w.doubtful[w.doubtful_count++] = (struct ref_revoke){ref_id(s), m->attempt, m->task};
        struct ref_peer *p = ref_peer(&w.ref, ref_id(s));
        if (++p->given > p->granted)
            ref_broken("%s got more than its credit", p->name);
    } else {
        ref_lease(&w.ref, ref_id(s), m->task, m->epoch, m->attempt);
    }
    assert_true(s->held_count < MAX_HELD);
    s->held[s->held_count++] =
        (struct fake_lease){m->task, m->epoch, m->job, m->attempt, m->kind, m->page, m->region};
}

static void take_revoke_in(struct service *s, const struct pm_msg_revoke *m)
{
    bool was_doubtful = false;
    for (uint32_t i = w.doubtful_count; i-- > 0;) {
        const struct ref_revoke *d = &w.doubtful[i];
        if (d->peer != ref_id(s) || d->task != m->task || d->attempt != m->attempt)
            continue;
        w.doubtful[i] = w.doubtful[--w.doubtful_count];
        was_doubtful = true;
    }
    if (!was_doubtful)
        ref_revoke(&w.ref, ref_id(s), m->task, m->attempt, m->reason);
    for (uint32_t i = s->held_count; i-- > 0;)
        if (s->held[i].task == m->task && s->held[i].attempt == m->attempt) {
            drop_held(s, i);
            give_credit(s);
        }
}

/* One message; true when it is the PONG that is waited for. */
static bool take_in(struct link *l, struct service *s, uint64_t pong)
{
    const void *m = l->last.record;
    w.ref.now_us = pm_clock_us();
    switch (l->last.header.type) {
    case PM_MSG_PONG:
        return ((const struct pm_msg_ping *)m)->ref == pong;
    case PM_MSG_LEASE:
        take_lease_in(s, m);
        break;
    case PM_MSG_REVOKE:
        take_revoke_in(s, m);
        break;
    case PM_MSG_RESULT_ACK:
        w.last.has_ack = true;
        w.last.is_accepted = ((const struct pm_msg_result_ack *)m)->accepted;
        break;
    case PM_MSG_ACCEPTED:
        w.last.client_type = PM_MSG_ACCEPTED;
        w.last.job = ((const struct pm_msg_accepted *)m)->job;
        w.last.is_duplicate = ((const struct pm_msg_accepted *)m)->is_duplicate;
        break;
    case PM_MSG_DONE:
        w.last.client_type = PM_MSG_DONE;
        w.last.count = ((const struct pm_msg_done *)m)->count;
        break;
    case PM_MSG_REFUSE:
        w.last.client_type = PM_MSG_REFUSE;
        snprintf(w.last.code, sizeof w.last.code, "%s", ((const struct pm_msg_refuse *)m)->code);
        break;
    default:
        break;
    }
    return false;
}

static void pump(struct link *l, struct service *s, uint64_t pong)
{
    do
        if (!link_try(l, 10000))
            ref_broken("no answer to a PING of %s", s ? "a peer" : "the client");
    while (!take_in(l, s, pong));
}

/* Everything that was decided has arrived when two PINGs, one after the other, are answered: what belongs to
 * the turn of the first leaves after its PONG, and before the second. */
static void sync_up(void)
{
    for (int round = 0; round < 2; round++) {
        struct pm_msg_ping ping = {.ref = ++w.pings};
        link_send(&w.client, PM_MSG_PING, &ping);
        for (int i = 0; i < PEERS; i++)
            if (w.peers[i].is_there)
                link_send(&w.peers[i].link, PM_MSG_PING, &ping);
        pump(&w.client, NULL, ping.ref);
        for (int i = 0; i < PEERS; i++)
            if (w.peers[i].is_there)
                pump(&w.peers[i].link, &w.peers[i], ping.ref);
    }
    if (w.doubtful_count)
        ref_broken("task %llx was given out while it is not open, and not taken back",
                   (unsigned long long)w.doubtful[0].task);
    ref_turn_drop(&w.ref); /* what it writes is seen in what it tells */
    ref_turn_over(&w.ref);
}

/* ---- jobs as they are told ---- */

static bool is_told_as(const struct pm_job_info *info, const struct reference *r)
{
    struct reference copy = *r;
    const struct ref_job *j = ref_job(&copy, info->job);
    uint32_t done = 0, regions = 0;
    if (!j || j->state != info->state)
        return false;
    for (uint32_t i = 0; i < j->page_count; i++) {
        const struct ref_page *p = &j->pages[i];
        done += p->stage == PM_STAGE_DONE;
        regions += p->stage == PM_STAGE_DONE ? p->wanted - p->wanted_failed : 0;
        for (uint32_t k = 0; p->stage == PM_STAGE_REGIONS && k < p->region_count; k++)
            regions += p->regions[k].state == REF_DONE;
    }
    return info->state > PM_JOB_RUNNING || (info->pages == (j->is_open ? j->page_count : 0) &&
                                            info->pages_done == done && info->regions_done == regions);
}

static struct pm_job_info ask(uint64_t job)
{
    struct pm_msg_job_ref q = {.ref = 9, .job = job, .batch = ""};
    link_send(&w.client, PM_MSG_STATUS, &q);
    while (link_try(&w.client, 10000))
        if (w.client.last.header.type == PM_MSG_JOB)
            return ((const struct pm_msg_job *)w.client.last.record)->info;
        else if (w.client.last.header.type == PM_MSG_REFUSE)
            ref_broken("job %llu was accepted and is not there", (unsigned long long)job);
    ref_broken("no answer to STATUS");
}

static void check_jobs(void)
{
    sync_up();
    for (int i = 0; i < REF_JOBS; i++) {
        struct ref_job *j = &w.ref.jobs[i];
        if (!j->id)
            continue;
        struct pm_job_info info = ask(j->id);
        j->retries = info.retries; /* of a job at work they are not written down */
        ref_check_job(&w.ref, &info);
        if (info.attempt_count != j->attempts)
            ref_broken("job %llu has %u failed attempts in its log, not %u", (unsigned long long)j->id,
                       info.attempt_count, j->attempts);
    }
}

/* ---- services ---- */

static void end_process(struct service *s, int signal_number)
{
    kill(s->pid, signal_number);
    siginfo_t info;
    waitid(P_PID, (id_t)s->pid, &info,
           WEXITED | WNOWAIT); /* it stays a zombie: the broker looks how it ended */
}

static void greet(struct service *s, bool is_known)
{
    static const char *readers[] = {"fast"};
    struct pm_held held[MAX_HELD];
    char name[32], *host = pm_host_id();
    uint32_t count = s->held_count;
    if (!s->pid)
        s->pid = start_victim();
    if (!is_known) {
        link_open(&s->link, &w.f, "work.sock");
        s->incarnation++;
    }
    snprintf(name, sizeof name, "peer-%d-%u", (int)(s - w.peers), s->incarnation);
    for (uint32_t i = 0; i < count; i++)
        held[i] = (struct pm_held){s->held[i].task, s->held[i].epoch, s->held[i].attempt};
    uint32_t credit = count + 1 + below(4);
    struct pm_msg_hello h = {.role = roles[s - w.peers],
                             .proto_min = PM_PROTO_MIN,
                             .proto_max = PM_PROTO_MAX,
                             .name = name,
                             .version = "test",
                             .host = host,
                             .pid = (uint64_t)s->pid,
                             .instance = (uint64_t)s->pid,
                             .readers = readers,
                             .reader_count = roles[s - w.peers] == PM_ROLE_WORKER,
                             .credit = credit < MOST_CREDIT ? credit : MOST_CREDIT,
                             .held = held,
                             .held_count = count,
                             .client = ""};
    s->granted = h.credit;
    s->is_there = true;
    ref_join(&w.ref, ref_id(s), h.role, name, h.credit, count);
    if (is_known)
        ref_unheld(&w.ref, ref_id(s), held, count);
    for (uint32_t i = 0; i < count; i++)
        if (!ref_held(&w.ref, ref_id(s), &held[i])) /* the broker must say so */
            w.ref.revokes[w.ref.revoke_count++] =
                (struct ref_revoke){ref_id(s), held[i].attempt, held[i].task};
    link_send(&s->link, PM_MSG_HELLO, &h);
    do
        if (!link_try(&s->link, 10000))
            ref_broken("no WELCOME came");
        else if (s->link.last.header.type != PM_MSG_WELCOME)
            take_in(&s->link, s, 0);
    while (s->link.last.header.type != PM_MSG_WELCOME);
    s->link.epoch = ((const struct pm_msg_welcome *)s->link.last.record)->epoch;
    free(host);
}

static void gone(struct service *s)
{
    while (s->held_count)
        drop_held(s, s->held_count - 1);
    s->is_there = false;
    if (s->pid) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    s->pid = 0;
    link_close(&s->link);
}

static void leave(struct service *s, enum pm_peer_end how)
{
    if (how == PM_PEER_LEFT) {
        struct pm_msg_goodbye bye = {.reason = "enough"};
        link_send(&s->link, PM_MSG_GOODBYE, &bye);
    } else {
        end_process(s, how == PM_PEER_CRASHED ? SIGABRT : SIGKILL);
    }
    ref_end(&w.ref, ref_id(s), how);
    s->is_there = false; /* not pinged any more */
    sync_up();
    gone(s);
}

/* What send_answer puts into a RESULT, for the reference. */
static struct pm_msg_result result_of(const struct fake_lease *l)
{
    static struct pm_found_page pages[REF_PAGES];
    static uint32_t costs[REF_REGIONS];
    for (uint32_t i = 0; i < REF_PAGES; i++)
        pages[i] = (struct pm_found_page){i + 1, 100, 140};
    for (uint32_t i = 0; i < REF_REGIONS; i++)
        costs[i] = 10;
    return (struct pm_msg_result){.task = l->task,
                                  .epoch = l->epoch,
                                  .attempt = l->attempt,
                                  .error_code = "",
                                  .record = "record",
                                  .blob = "blob",
                                  .pages = pages,
                                  .page_count = pages_of(l->job),
                                  .costs = costs,
                                  .cost_count = regions_of(l->job, l->page),
                                  .text = {(const uint8_t *)"x", 1},
                                  .manifest = {(const uint8_t *)"x", 1}};
}

/* Sends a RESULT; the ack comes with the next sync. */
static void send_good(struct service *s, const struct fake_lease *l)
{
    send_answer(&s->link, l, pages_of(l->job), regions_of(l->job, l->page));
    s->granted = s->link.granted; /* it gives credit, too */
}

static void send_bad(struct service *s, const struct fake_lease *l, const char *code)
{
    struct pm_msg_result r = {.task = l->task,
                              .epoch = l->epoch,
                              .attempt = l->attempt,
                              .error_code = code,
                              .error_text = "as the test wants it"};
    link_send(&s->link, PM_MSG_RESULT, &r);
}

static void expect_ack(int rc, const struct fake_lease *l)
{
    if (!w.last.has_ack || w.last.is_accepted != (rc != PM_EGONE))
        ref_broken("the result of attempt %u of task %llx, epoch %llu, was %s", l->attempt,
                   (unsigned long long)l->task, (unsigned long long)l->epoch,
                   !w.last.has_ack      ? "not answered"
                   : w.last.is_accepted ? "accepted"
                                        : "refused");
}

static const char *fate_of(const struct fake_lease *l)
{
    static const char *const soft[] = {"io", "internal", "not-found", "crash"};
    if (hash_of(l->task, 3 + (l->attempt >> 8)) % 23 == 1)
        return "format";
    return below(50) ? "" : below(20) ? soft[below(4)] : "no-memory";
}

static void answer(struct service *s, bool twice)
{
    uint32_t i = below(s->held_count);
    struct fake_lease l = s->held[i];
    const char *code = fate_of(&l);
    struct pm_msg_result r = result_of(&l);
    r.error_code = code;
    for (int n = 0; n < 1 + twice; n++) {
        w.last.has_ack = false;
        w.ref.now_us = pm_clock_us();
        int rc = ref_result(&w.ref, ref_id(s), &r);
        s->link.granted = s->granted;
        if (*code)
            send_bad(s, &l, code);
        else
            send_good(s, &l);
        struct ref_peer *p = ref_peer(&w.ref, ref_id(s));
        p->granted = s->granted;
        if (!n) {
            drop_held(s, i);
            if (*code)
                give_credit(s);
        }
        sync_up();
        expect_ack(rc, &l);
    }
}

/* Of the past, of somebody else, with a forged number: refused. */
static void answer_wrongly(struct service *s)
{
    const struct service *other = &w.peers[below(PEERS)];
    struct fake_lease l;
    if (other->held_count && below(2))
        l = other->held[below(other->held_count)];
    else if (w.old_count)
        l = w.old[below(w.old_count)];
    else
        return;
    uint32_t dice = below(5);
    l.attempt += dice == 0 ? 1 : dice == 1 ? 256 : 0;
    l.epoch += dice == 2;
    l.epoch -= dice == 3;
    if (ref_is_current(&w.ref, ref_id(s), l.task, l.epoch, l.attempt))
        return;
    struct pm_msg_result r = result_of(&l);
    w.last.has_ack = false;
    int rc = ref_result(&w.ref, ref_id(s), &r);
    send_bad(s, &l, "io"); /* refused before it is looked at */
    sync_up();
    expect_ack(rc, &l);
}

/* ---- clients ---- */

static void client_again(void)
{
    if (w.client.socket)
        link_close(&w.client);
    client_open(&w.client, &w.f, "alice");
}

static void send_submit(const char *key)
{
    char source[PM_BLOB_KEY_SIZE];
    put_blob(&w.f, PM_BLOB_DISK, key, source);
    struct pm_msg_submit m = {.ref = 7,
                              .key = key,
                              .name = "doc.pdf",
                              .source = source,
                              .priority = below(5),
                              .batch = "b",
                              .options = {.pages = "",
                                          .password = "",
                                          .reader = "fast",
                                          .formats = "md",
                                          .drop = "",
                                          .stem = "doc",
                                          .whole = ""}};
    w.last.client_type = 0;
    link_send(&w.client, PM_MSG_SUBMIT, &m);
}

static void take_accepted(const char *key)
{
    uint64_t expected = 0;
    if (w.last.client_type != PM_MSG_ACCEPTED)
        ref_broken("a submit was not accepted: %s", w.last.code);
    ref_submit(&w.ref, w.last.job, "alice", key, &expected);
    if (expected != w.last.job)
        ref_broken("the submit of %s gave job %llu, not %llu", key, (unsigned long long)w.last.job,
                   (unsigned long long)expected);
}

static uint32_t job_count(void)
{
    uint32_t count = 0;
    for (int i = 0; i < REF_JOBS; i++)
        count += w.ref.jobs[i].id != 0;
    return count;
}

static void submit_one(void)
{
    char key[16];
    snprintf(key, sizeof key, "k%u", below(2000));
    send_submit(key);
    while (!w.last.client_type)
        if (link_try(&w.client, 10000))
            take_in(&w.client, NULL, 0);
        else
            ref_broken("no answer to SUBMIT");
    take_accepted(key);
    sync_up();
}

static void meddle(void)
{
    static const struct {
        uint32_t type;
        int (*fn)(struct reference *, uint64_t);
        const char *name;
    } verbs[] = {{PM_MSG_CANCEL, ref_cancel, "CANCEL"},
                 {PM_MSG_RETRY, ref_retry, "RETRY"},
                 {PM_MSG_FORGET, ref_forget, "FORGET"}};
    const struct ref_job *j = &w.ref.jobs[below(REF_JOBS)];
    uint32_t verb = below(8);
    verb = verb < 1 ? 0 : verb < 2 ? 1 : 2;
    if (!j->id)
        return;
    struct pm_msg_job_ref q = {.ref = 5, .job = j->id, .batch = ""};
    /* Brought back before: a second retry means the same. */
    bool is_again =
        verbs[verb].type == PM_MSG_RETRY && j->generation &&
        (j->state <= PM_JOB_RUNNING || (j->state == PM_JOB_DONE && !j->failed && !j->regions_failed));
    w.last.client_type = 0;
    w.ref.now_us = pm_clock_us();
    int rc = is_again ? 0 : verbs[verb].fn(&w.ref, q.job);
    link_send(&w.client, verbs[verb].type, &q);
    sync_up();
    const char *code = w.last.client_type == PM_MSG_DONE ? "ok" : w.last.code;
    if (strcmp(code, rc ? pm_err_name(rc) : "ok") != 0)
        ref_broken("%s of job %llu was answered with %s, not %s", verbs[verb].name, (unsigned long long)q.job,
                   code, rc ? pm_err_name(rc) : "ok");
}

/* ---- kill -9 ---- */

/* No lease may be on its way for a while: the back-off of every task is over, or far away. */
static bool is_calm(void)
{
    int64_t now = pm_clock_us();
    for (int i = 0; i < REF_JOBS; i++) {
        struct ref_job *j = &w.ref.jobs[i];
        for (uint32_t k = 0; j->id && j->state <= PM_JOB_RUNNING && k < 2 + j->page_count * (2 + REF_REGIONS);
             k++) {
            const struct ref_page *p = k < 2 ? NULL : &j->pages[(k - 2) / (2 + REF_REGIONS)];
            uint32_t slot = k < 2 ? k : (k - 2) % (2 + REF_REGIONS);
            const struct ref_task *t = k < 2       ? (k ? &j->doc : &j->open)
                                       : slot == 0 ? &p->layout
                                       : slot == 1 ? &p->assemble
                                                   : &p->regions[slot - 2];
            if (t->state == REF_OPEN && t->not_before_us &&
                now < t->failed_us + 2 * (t->not_before_us - t->failed_us) + CALM_US)
                return false;
        }
    }
    return true;
}

static void start_again(void)
{
    broker_kill(&w.f);
    broker_start(&w.f, (const char *const[]){"--stall", "600", NULL});
    client_again();
    w.kills++;
    w.doubtful_count = 0;
}

static void greet_all(void)
{
    for (int i = 0; i < PEERS; i++) {
        struct service *s = &w.peers[i];
        if (!s->is_there)
            continue;
        link_close(&s->link);
        s->is_there = false;
    }
    for (int i = 0; i < PEERS; i++)
        if (w.peers[i].pid)
            greet(&w.peers[i], false);
    sync_up();
}

/* Kills the broker with a result under way, or just acknowledged, and finds out whether it counted. */
static void kill_in_a_result(struct service *s, bool wait_for_ack)
{
    uint32_t i = below(s->held_count);
    struct fake_lease l = s->held[i];
    static struct reference with, without;
    if (l.kind == PM_KIND_PAGE) /* nothing that a client sees tells whether one without regions counted */
        return;
    without = w.ref;
    struct pm_msg_result r = result_of(&l);
    ref_result(&w.ref, ref_id(s), &r);
    with = w.ref;
    send_good(s, &l);
    w.last.has_ack = false;
    while (wait_for_ack && !w.last.has_ack)
        if (link_try(&s->link, 10000))
            take_in(&s->link, s, 0);
        else
            ref_broken("no ack came");
    start_again();
    struct pm_job_info info = ask(l.job);
    bool has_counted = is_told_as(&info, &with);
    if (!has_counted && (wait_for_ack || !is_told_as(&info, &without)))
        ref_broken("task %llx was %s, and after a kill -9 it is %s", (unsigned long long)l.task,
                   wait_for_ack ? "acknowledged" : "sent", "neither done nor as before");
    w.ref = has_counted ? with : without;
    ref_restart(&w.ref, w.ref.epoch + 1, 0);
    greet_all();
}

static void kill_in_a_submit(bool wait_for_answer)
{
    char key[16];
    snprintf(key, sizeof key, "x%u", w.step);
    send_submit(key);
    while (wait_for_answer && !w.last.client_type)
        if (link_try(&w.client, 10000))
            take_in(&w.client, NULL, 0);
        else
            ref_broken("no answer to SUBMIT");
    uint64_t accepted = wait_for_answer ? w.last.job : 0;
    start_again();
    ref_restart(&w.ref, w.ref.epoch + 1, 0);
    send_submit(key);
    while (!w.last.client_type)
        if (link_try(&w.client, 10000))
            take_in(&w.client, NULL, 0);
        else
            ref_broken("no answer to SUBMIT");
    if (accepted && (w.last.job != accepted || !w.last.is_duplicate))
        ref_broken("job %llu was accepted and lost by a kill -9", (unsigned long long)accepted);
    take_accepted(key);
    greet_all();
}

static void kill_broker(void)
{
    struct service *s = &w.peers[below(PEERS)];
    uint32_t dice = below(6);
    if (dice < 3 && s->is_there && s->held_count) {
        kill_in_a_result(s, dice < 2);
    } else if (dice < 5 && job_count() < REF_JOBS - 1) {
        kill_in_a_submit(dice == 3);
    } else {
        start_again();
        ref_restart(&w.ref, w.ref.epoch + 1, 0);
        greet_all();
    }
    check_jobs();
}

/* ---- the run ---- */

/* Nobody has anything, and what is left waits for its time: steps would be wasted. */
static void wait_for_work(void)
{
    for (int64_t until = pm_clock_us() + 5000000; !is_calm() && pm_clock_us() < until;) {
        for (int i = 0; i < PEERS; i++)
            if (w.peers[i].held_count)
                return;
        usleep(1000);
        sync_up();
    }
}

static void one_step(bool has_faults)
{
    wait_for_work();
    struct service *s = &w.peers[below(PEERS)];
    uint32_t dice = has_faults ? below(1000) : 999;
    w.ref.now_us = pm_clock_us();
    bool calm = dice < 140 && is_calm();
    if (!s->is_there) {
        greet(s, false);
        sync_up();
    } else if (dice < 20 && calm) {
        kill_broker();
    } else if (dice < 35 && calm) {
        leave(s, (enum pm_peer_end)below(3));
    } else if (dice < 55 && calm) {
        for (uint32_t i = s->held_count; i-- > 0;)
            if (!below(4))
                drop_held(s, i); /* it never reached it */
        const struct service *other = &w.peers[below(PEERS)];
        if (other != s && other->held_count && s->held_count < MOST_CREDIT)
            s->held[s->held_count++] =
                other->held[below(other->held_count)]; /* a liar: that one is not its */
        greet(s, true);
        sync_up();
    } else if (dice < 140 && calm) {
        meddle();
    } else if (dice >= 140 && dice < 260 && job_count() < REF_JOBS - 1 && ref_live_jobs(&w.ref) < JOBS) {
        submit_one();
    } else if (dice >= 260 && dice < 290) {
        answer_wrongly(s);
    } else if (dice >= 290) {
        for (int i = 0; i < PEERS && !s->held_count; i++)
            s = &w.peers[i];
        if (s->held_count)
            answer(s, dice < 320);
        else if (!has_faults)
            sync_up();
    }
    if (w.step % 100 == 99)
        check_jobs();
}

static uint32_t steps = 2000;

static void same_decisions(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    fixture_open(&w.f);
    broker_start(&w.f, (const char *const[]){"--stall", "600", NULL});
    client_again();
    w.random = w.seed * 0x2545f4914f6cdd1du;
    w.ref.max_jobs = 1000;
    w.ref.epoch = w.client.epoch;
    for (w.step = 0; w.step < steps; w.step++)
        one_step(true);
    for (int64_t until = pm_clock_us() + 120000000; ref_live_jobs(&w.ref); w.step++) {
        if (pm_clock_us() > until)
            ref_broken("%u jobs do not come to an end", ref_live_jobs(&w.ref));
        one_step(false);
    }
    check_jobs();
    start_again(); /* and everything is still there */
    ref_restart(&w.ref, w.ref.epoch + 1, 0);
    greet_all();
    check_jobs();
    printf(
        "seed %llu: %u steps, %llu leases, %llu results (%llu committed, %llu fenced), %llu attempts failed, "
        "%u kill -9, %llu leases taken over\n",
        (unsigned long long)w.seed, w.step, (unsigned long long)w.ref.leases,
        (unsigned long long)w.ref.results, (unsigned long long)w.ref.committed,
        (unsigned long long)w.ref.fenced,
        (unsigned long long)(w.ref.failures[REF_CRASH] + w.ref.failures[REF_KILL] +
                             w.ref.failures[REF_OTHER] + w.ref.failures[REF_MEMORY] +
                             w.ref.failures[REF_INPUT]),
        w.kills, (unsigned long long)w.ref.adopted);
    for (int i = 0; i < PEERS; i++)
        if (w.peers[i].is_there || w.peers[i].pid)
            gone(&w.peers[i]);
    link_close(&w.client);
    fixture_close(&w.f);
}

int main(int argc, char **argv)
{
    w.seed = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--steps"))
            steps = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--seed"))
            w.seed = strtoull(argv[i + 1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_decisions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
