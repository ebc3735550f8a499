/* The peer loop against a broker that the test plays. */
#include "fixture.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "proto/peer_internal.h"

static struct pm_peer *open_peer(const struct fake_broker *fake, uint32_t credit, int64_t give_up_us)
{
    static const char *const readers[] = {"fast", "mini"};
    struct pm_peer_config config = {
        .endpoint = fake->endpoint,
        .role = PM_ROLE_WORKER,
        .name = "worker-1",
        .readers = readers,
        .reader_count = 2,
        .credit = credit,
        .give_up_us = give_up_us,
    };
    struct pm_peer *peer = NULL;
    struct pm_error err = {0};
    if (pm_peer_open(&config, &peer, &err))
        fail_msg("%s", err.text);
    return peer;
}

struct scene {
    struct fake_broker fake;
    struct pm_peer *peer;
    struct pm_peer_event event;
};

static int set_up(void **state)
{
    struct scene *s = calloc(1, sizeof *s);
    fake_init(&s->fake);
    fake_start(&s->fake);
    s->peer = open_peer(&s->fake, 2, 0);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *s = *state;
    pm_peer_free(&s->peer);
    fake_end(&s->fake);
    free(s);
    return 0;
}

static void greet(struct scene *s)
{
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_READY, &s->event));
}

static void lease(struct scene *s, uint64_t task, uint32_t attempt)
{
    fake_lease(&s->fake, task, attempt);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LEASE, &s->event));
    assert_int_equal(s->event.lease->task, task);
    assert_int_equal(s->event.lease->attempt, attempt);
}

static void result(struct scene *s, uint64_t task)
{
    struct pm_msg_result r = {.blob = ""};
    pm_peer_result(s->peer, task, &r);
}

/* Waits until the broker's idea of the credit is `granted`. */
static void pump_granted(struct scene *s, uint64_t granted)
{
    int64_t end = pm_clock_us() + 10000000;
    while (s->fake.granted != granted && pm_clock_us() < end) {
        fake_turn(&s->fake);
        assert_int_equal(pm_peer_next(s->peer, 1000, &s->event, NULL), 0);
        assert_int_equal(s->event.kind, PM_PEER_IDLE);
    }
    assert_int_equal(s->fake.granted, granted);
}

static void hello_says_who_we_are(void **state)
{
    struct scene *s = *state;
    greet(s);
    const struct pm_msg_hello *h = &s->fake.hello;
    assert_int_equal(h->role, PM_ROLE_WORKER);
    assert_string_equal(h->name, "worker-1");
    assert_int_equal(h->credit, 2);
    assert_int_equal(h->held_count, 0);
    assert_int_equal(h->reader_count, 2);
    assert_string_equal(h->readers[1], "mini");
    assert_int_equal(h->pid, getpid());
    assert_int_not_equal(h->instance, 0);
    assert_true(h->proto_min <= PM_PROTO_MAX && h->proto_max >= PM_PROTO_MIN);
    assert_string_equal(pm_blobs_dir(pm_peer_blobs(s->peer), PM_BLOB_DISK), s->fake.disk);
    /* Two processes of one name are told apart. */
    assert_non_null(memmem(s->fake.route, s->fake.route_bytes, "worker-1-", 9));
}

static void lease_and_result_return_credit(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 77, 1);
    assert_int_equal(s->event.payload.size, 5);
    assert_memory_equal(s->event.payload.data, "extra", 5);
    assert_string_equal(s->event.lease->options.reader, "fast");
    assert_int_equal(pm_peer_held(s->peer), 1);
    result(s, 77);
    assert_int_equal(pm_peer_held(s->peer), 0);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 1));
    const struct fake_seen *seen = fake_last(&s->fake, PM_MSG_RESULT);
    assert_int_equal(seen->task, 77);
    assert_int_equal(seen->attempt, 1);
    assert_int_equal(seen->epoch, s->fake.epoch);
    pump_granted(s, 3); /* 2 at first, and one came back */
}

/* Whoever holds a page may ask whether it was read before; an answer for another attempt is none. */
static void known_pages_can_be_asked_for(void **state)
{
    struct scene *s = *state;
    assert_false(pm_peer_seen(s->peer, 77, "aa")); /* nobody there */
    greet(s);
    assert_false(pm_peer_seen(s->peer, 77, "aa")); /* not held */
    lease(s, 77, 3);
    assert_true(pm_peer_seen(s->peer, 77, "aa"));
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_SEEN, 1));
    assert_string_equal(fake_last(&s->fake, PM_MSG_SEEN)->text, "aa");
    assert_int_equal(fake_last(&s->fake, PM_MSG_SEEN)->attempt, 3);
    struct pm_msg_known known = {.task = 77, .attempt = 2, .is_known = true};
    assert_int_equal(fake_send(&s->fake, PM_MSG_KNOWN, &known, NULL, 0), 0);
    known.attempt = 3;
    assert_int_equal(fake_send(&s->fake, PM_MSG_KNOWN, &known, NULL, 0), 0);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_KNOWN, &s->event));
    assert_int_equal(s->event.attempt, 3);
    assert_true(s->event.task == 77 && s->event.is_known);
}

/* A broker of protocol 1 does not know the question. */
static void an_older_broker_is_not_asked(void **state)
{
    struct scene *s = *state;
    s->fake.proto = 1;
    greet(s);
    lease(s, 77, 3);
    assert_false(pm_peer_seen(s->peer, 77, "aa"));
    result(s, 77);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 1));
}

static void credit_is_never_exceeded(void **state)
{
    struct scene *s = *state;
    greet(s);
    uint64_t next = 1, done = 0;
    uint64_t held[8];
    uint32_t held_count = 0;
    while (done < 200) {
        fake_turn(&s->fake);
        while (s->fake.given < s->fake.granted)
            fake_lease(&s->fake, next++, 1);
        assert_true(s->fake.given - done <= 2); /* what the credit means */
        assert_int_equal(pm_peer_next(s->peer, 1000, &s->event, NULL), 0);
        if (s->event.kind == PM_PEER_LEASE) {
            held[held_count++] = s->event.lease->task;
            assert_true(held_count <= 2);
        } else if (held_count) {
            result(s, held[--held_count]);
            done++;
            s->fake.seen_count = 0;
        }
    }
    assert_int_equal(pm_peer_refused(s->peer), 0);
}

static void leases_beyond_the_credit_wait(void **state)
{
    struct scene *s = *state;
    greet(s);
    for (uint64_t task = 1; task <= 4; task++)
        fake_lease(&s->fake, task, 1);
    for (uint64_t task = 1; task <= 2; task++) {
        assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LEASE, &s->event));
        assert_int_equal(s->event.lease->task, task);
    }
    assert_int_equal(pm_peer_next(s->peer, 30000, &s->event, NULL), 0);
    assert_int_equal(s->event.kind, PM_PEER_IDLE);
    result(s, 1);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LEASE, &s->event));
    assert_int_equal(s->event.lease->task, 3);
}

static void result_is_sent_again_after_a_broker_restart(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 2);
    lease(s, 6, 1);
    uint64_t old_epoch = s->fake.epoch;
    s->fake.no_ack = true;
    result(s, 5);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 1));
    fake_stop(&s->fake); /* before the acknowledgement */
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LOST, &s->event));
    fake_start(&s->fake);
    greet(s);
    assert_int_equal(s->fake.hellos, 2);
    /* Both the running lease and the unacknowledged result are presented, with their own epoch. */
    assert_int_equal(s->fake.hello.held_count, 2);
    assert_int_equal(s->fake.hello.held[0].task, 6);
    assert_int_equal(s->fake.hello.held[1].task, 5);
    assert_int_equal(s->fake.hello.held[1].attempt, 2);
    assert_int_equal(s->fake.hello.held[1].epoch, old_epoch);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 2));
    assert_int_equal(fake_last(&s->fake, PM_MSG_RESULT)->epoch, old_epoch);
    /* 2 places, one of them free again: one more lease may be given beyond the two presented. */
    pump_granted(s, 3);
    assert_int_equal(s->fake.given, 2);
    /* A result of the old lease goes out under the new epoch's connection, with the lease's epoch. */
    s->fake.no_ack = false;
    result(s, 6);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 3));
    assert_int_equal(fake_last(&s->fake, PM_MSG_RESULT)->task, 6);
    assert_int_equal(fake_last(&s->fake, PM_MSG_RESULT)->epoch, old_epoch);
}

static void result_made_while_the_broker_is_away_is_kept(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 9, 1);
    fake_stop(&s->fake);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LOST, &s->event));
    struct pm_error failure = {.code = PM_EFORMAT, .text = "page 3 is damaged"};
    pm_peer_fail(s->peer, 9, &failure, true);
    fake_start(&s->fake);
    greet(s);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 1));
    assert_string_equal(fake_last(&s->fake, PM_MSG_RESULT)->text, "format:page 3 is damaged");
    /* Acknowledged now: another restart does not bring it back. */
    for (int i = 0; i < 20; i++) {
        fake_turn(&s->fake);
        assert_int_equal(pm_peer_next(s->peer, 1000, &s->event, NULL), 0);
    }
    fake_stop(&s->fake);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LOST, &s->event));
    fake_start(&s->fake);
    greet(s);
    assert_int_equal(s->fake.hello.held_count, 0);
}

static void revoke_stops_the_task_and_nothing_is_sent(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 1);
    struct pm_msg_revoke stale = {.task = 99, .attempt = 1, .reason = "cancelled"};
    struct pm_msg_revoke other = {.task = 5, .attempt = 7, .reason = "fenced"};
    struct pm_msg_revoke revoke = {.task = 5, .attempt = 1, .reason = "cancelled"};
    fake_send(&s->fake, PM_MSG_REVOKE, &stale, NULL, 0); /* unknown task: ignored */
    fake_send(&s->fake, PM_MSG_REVOKE, &other, NULL, 0); /* another attempt: ignored */
    fake_send(&s->fake, PM_MSG_REVOKE, &revoke, NULL, 0);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_REVOKE, &s->event));
    assert_int_equal(s->event.task, 5);
    assert_int_equal(s->event.attempt, 1);
    assert_string_equal(s->event.reason, "cancelled");
    pm_peer_release(s->peer, 5);
    pump_granted(s, 3);
    /* A result that crosses the REVOKE is swallowed. */
    lease(s, 6, 1);
    revoke.task = 6;
    fake_send(&s->fake, PM_MSG_REVOKE, &revoke, NULL, 0);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_REVOKE, &s->event));
    result(s, 6);
    pump_granted(s, 4);
    assert_int_equal(fake_count(&s->fake, PM_MSG_RESULT), 0);
}

static void second_attempt_waits_for_the_first_to_go(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 1);
    fake_lease(&s->fake, 5, 2);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_REVOKE, &s->event));
    assert_int_equal(s->event.attempt, 1);
    assert_string_equal(s->event.reason, "fenced");
    assert_int_equal(pm_peer_next(s->peer, 20000, &s->event, NULL), 0);
    assert_int_equal(s->event.kind, PM_PEER_IDLE);
    pm_peer_release(s->peer, 5);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LEASE, &s->event));
    assert_int_equal(s->event.lease->attempt, 2);
}

/* A restarted broker counts attempts anew: the same number is another lease. */
static void same_attempt_of_another_broker_is_new(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 1);
    fake_stop(&s->fake);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LOST, &s->event));
    fake_start(&s->fake);
    greet(s);
    struct pm_msg_revoke revoke = {.task = 5, .attempt = 1, .reason = "fenced"};
    fake_send(&s->fake, PM_MSG_REVOKE, &revoke, NULL, 0); /* somebody else had it meanwhile */
    fake_lease(&s->fake, 5, 1);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_REVOKE, &s->event));
    for (int64_t end = pm_clock_us() + 10000000; !s->peer->waiting_count && pm_clock_us() < end;)
        assert_int_equal(pm_peer_next(s->peer, 1000, &s->event, NULL), 0); /* it comes before we let go */
    pm_peer_release(s->peer, 5);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LEASE, &s->event));
    assert_int_equal(s->event.lease->epoch, s->fake.epoch);
}

static void beats_only_on_progress(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 1);
    int64_t end = pm_clock_us() + 700000; /* over two intervals without progress: a wedged engine is silent */
    while (pm_clock_us() < end) {
        fake_turn(&s->fake);
        assert_int_equal(pm_peer_next(s->peer, 5000, &s->event, NULL), 0);
    }
    assert_int_equal(fake_count(&s->fake, PM_MSG_BEAT), 0);
    pm_peer_progress(s->peer, 5, 421);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_BEAT, 1));
    assert_int_equal(fake_last(&s->fake, PM_MSG_BEAT)->number, 421);
    pm_peer_progress(s->peer, 5, 5000);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_BEAT, 2));
    assert_int_equal(fake_last(&s->fake, PM_MSG_BEAT)->number, 1000);
    pm_peer_progress(s->peer, 12345, 1); /* not ours: nothing happens */
    pm_peer_partial(s->peer, 5, "so far");
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_PARTIAL, 1));
    assert_string_equal(fake_last(&s->fake, PM_MSG_PARTIAL)->text, "so far");
}

static void drain_ends_when_nothing_is_held(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 1);
    fake_send(&s->fake, PM_MSG_DRAIN, &(char){0}, NULL, 0);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_DRAIN, &s->event));
    s->fake.no_ack = true;
    uint64_t granted = s->fake.granted;
    result(s, 5);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 1)); /* no STOP: not acknowledged yet */
    assert_int_equal(s->fake.granted, granted);                        /* and no more credit */
    struct pm_msg_result_ack ack = {.task = 5, .attempt = 1, .accepted = true};
    fake_send(&s->fake, PM_MSG_RESULT_ACK, &ack, NULL, 0);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_STOP, &s->event));
    pm_peer_free(&s->peer);
    fake_turn(&s->fake);
    assert_int_equal(fake_count(&s->fake, PM_MSG_GOODBYE), 1);
}

static void sigterm_is_an_event(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 1);
    kill(getpid(), SIGTERM);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_STOP, &s->event));
    /* What is held may be finished; nothing new comes. */
    fake_lease(&s->fake, 6, 1);
    uint64_t granted = s->fake.granted;
    result(s, 5);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 1));
    assert_int_equal(pm_peer_next(s->peer, 30000, &s->event, NULL), 0);
    assert_int_equal(s->event.kind, PM_PEER_IDLE);
    fake_turn(&s->fake);
    assert_int_equal(s->fake.granted, granted);
    /* The second one has its ordinary effect: tried in a child, where it may kill. */
    pid_t child = fork();
    if (child == 0) {
        raise(SIGTERM);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static int record(void *context, const struct pm_peer_event *e, struct pm_error *err)
{
    char *seen = context;
    (void)err;
    seen[strlen(seen)] = e->kind == PM_PEER_LEASE ? 'L' : e->kind == PM_PEER_REVOKE ? 'R' : 'S';
    return e->kind == PM_PEER_STOP ? 1 : e->kind == PM_PEER_REVOKE ? PM_EFORMAT : 0;
}

static void each_takes_all_events_until_one_says_enough(void **state)
{
    struct scene *s = *state;
    char seen[8] = "";
    greet(s);
    assert_int_equal(pm_peer_each(s->peer, 0, record, seen, NULL), 0); /* nothing: not even idle */
    assert_string_equal(seen, "");
    fake_lease(&s->fake, 5, 1);
    fake_lease(&s->fake, 6, 1);
    int64_t end = pm_clock_us() + 10000000;
    while (strlen(seen) < 2 && pm_clock_us() < end)
        assert_int_equal(pm_peer_each(s->peer, 100000, record, seen, NULL), 0);
    struct pm_msg_revoke revoke = {.task = 5, .attempt = 1, .reason = "cancelled"};
    fake_send(&s->fake, PM_MSG_REVOKE, &revoke, NULL, 0);
    int rc = 0;
    while (!rc && pm_clock_us() < end)
        rc = pm_peer_each(s->peer, 100000, record, seen, NULL);
    assert_int_equal(rc, PM_EFORMAT); /* what `take` said */
    kill(getpid(), SIGTERM);
    assert_int_equal(pm_peer_each(s->peer, 10000000, record, seen, NULL), 1);
    assert_string_equal(seen, "LLRS");
}

static void deadlines_do_not_wrap(void **state)
{
    (void)state;
    struct pm_msg_lease l = {.deadline_us = 0};
    assert_int_equal(pm_peer_deadline_us(&l, 1000), 0);
    l.deadline_us = 500;
    assert_int_equal(pm_peer_deadline_us(&l, 1000), 1500);
    l.deadline_us = INT64_MAX - 1000;
    assert_true(pm_peer_deadline_us(&l, 1000) == INT64_MAX);
    l.deadline_us++;
    assert_int_equal(pm_peer_deadline_us(&l, 1000), 0);
    l.deadline_us = UINT64_MAX;
    assert_int_equal(pm_peer_deadline_us(&l, 1000), 0);
}

static void refused_hello_is_an_error(void **state)
{
    struct scene *s = *state;
    s->fake.is_silent = true;
    int64_t end = pm_clock_us() + 10000000;
    while (!s->fake.hellos && pm_clock_us() < end) {
        fake_turn(&s->fake);
        assert_int_equal(pm_peer_next(s->peer, 1000, &s->event, NULL), 0);
    }
    struct pm_msg_refuse busy = {.code = "busy", .text = "later", .retry_after_us = 1};
    fake_send(&s->fake, PM_MSG_REFUSE, &busy, NULL, 0);
    while (s->fake.hellos < 2 && pm_clock_us() < end) { /* busy: it tries again */
        fake_turn(&s->fake);
        assert_int_equal(pm_peer_next(s->peer, 1000, &s->event, NULL), 0);
    }
    assert_int_equal(s->fake.hellos, 2);
    struct pm_msg_refuse refuse = {.code = "unsupported", .text = "version 0 is too old"};
    fake_send(&s->fake, PM_MSG_REFUSE, &refuse, NULL, 0);
    struct pm_error err = {0};
    int rc = 0;
    while (!rc && pm_clock_us() < end)
        rc = pm_peer_next(s->peer, 1000, &s->event, &err);
    assert_int_equal(rc, PM_EPROTO);
    assert_non_null(strstr(err.text, "version 0 is too old"));
}

static void unanswered_hello_is_repeated(void **state)
{
    struct scene *s = *state;
    s->fake.is_silent = true;
    int64_t end = pm_clock_us() + 15000000;
    while (s->fake.hellos < 2 && pm_clock_us() < end) {
        fake_turn(&s->fake);
        assert_int_equal(pm_peer_next(s->peer, 5000, &s->event, NULL), 0);
    }
    assert_true(s->fake.hellos >= 2);
    s->fake.is_silent = false;
    greet(s);
}

static void refuse_while_up_means_greet_again(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 1);
    struct pm_msg_refuse refuse = {.code = "gone", .text = "unknown peer"};
    fake_send(&s->fake, PM_MSG_REFUSE, &refuse, NULL, 0);
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LOST, &s->event));
    greet(s);
    assert_int_equal(s->fake.hello.held_count, 1);
    assert_int_equal(s->fake.hello.held[0].task, 5);
}

static void ping_is_answered_and_noise_is_counted(void **state)
{
    struct scene *s = *state;
    greet(s);
    struct pm_msg_ping ping = {.ref = 31337};
    fake_send(&s->fake, PM_MSG_PING, &ping, NULL, 0);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_PONG, 1));
    assert_int_equal(fake_last(&s->fake, PM_MSG_PONG)->number, 31337);
    struct pm_msg_done done = {.ref = 1};
    fake_send(&s->fake, PM_MSG_DONE, &done, NULL, 0); /* well-formed, out of place */
    fake_send(&s->fake, PM_MSG_PING, &ping, NULL, 0);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_PONG, 2));
    assert_int_equal(pm_peer_refused(s->peer), 1);
}

/* A broker whose process lives but whose loop is stuck: the transport's heartbeats never notice. */
static void stuck_broker_is_left(void **state)
{
    struct scene *s = *state;
    greet(s);
    s->peer->link.ping_after_us = 10000;
    s->peer->link.pong_within_us = 300000;
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_PING, 3)); /* answered: no reason to leave */
    s->fake.is_silent = true;
    assert_true(fake_pump_event(&s->fake, s->peer, PM_PEER_LOST, &s->event));
    s->fake.is_silent = false;
    greet(s);
}

static void oversized_result_becomes_a_failure(void **state)
{
    struct scene *s = *state;
    greet(s);
    lease(s, 5, 1);
    size_t bytes = PM_LIMIT_INNER_RECORD + 1;
    struct pm_msg_result r = {.text = {calloc(1, bytes), bytes}};
    pm_peer_result(s->peer, 5, &r);
    free((void *)(uintptr_t)r.text.data);
    assert_true(fake_pump_count(&s->fake, s->peer, PM_MSG_RESULT, 1));
    assert_int_equal(strncmp(fake_last(&s->fake, PM_MSG_RESULT)->text, "limit:", 6), 0);
}

static void gives_up_without_a_broker(void **state)
{
    (void)state;
    struct fake_broker fake;
    struct pm_peer_event event;
    struct pm_error err = {0};
    fake_init(&fake); /* never started */
    struct pm_peer *peer = open_peer(&fake, 1, 50000);
    int rc = 0;
    for (int i = 0; i < 1000 && !rc; i++)
        rc = pm_peer_next(peer, 10000, &event, &err);
    assert_int_equal(rc, PM_ETIMEOUT);
    assert_non_null(strstr(err.text, fake.endpoint));
    pm_peer_free(&peer);
    fake_end(&fake);
}

static void bad_configuration_is_refused(void **state)
{
    (void)state;
    struct pm_peer *peer = NULL;
    struct pm_error err = {0};
    char endpoint[200] = "ipc:///tmp/";
    memset(endpoint + strlen(endpoint), 'x', 110);
    struct pm_peer_config config = {.endpoint = endpoint, .role = PM_ROLE_WORKER, .name = "w", .credit = 1};
    assert_int_equal(pm_peer_open(&config, &peer, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "107"));
    assert_null(peer);
    config.endpoint = "http://x";
    assert_int_equal(pm_peer_open(&config, &peer, &err), PM_EINVAL);
    config.endpoint = "ipc:///tmp/x";
    config.credit = 0;
    assert_int_equal(pm_peer_open(&config, &peer, &err), PM_EINVAL);
    config.credit = 1;
    config.name = "";
    assert_int_equal(pm_peer_open(&config, &peer, &err), PM_EINVAL);
}

#define SCENE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(hello_says_who_we_are),
        SCENE(lease_and_result_return_credit),
        SCENE(known_pages_can_be_asked_for),
        SCENE(an_older_broker_is_not_asked),
        SCENE(credit_is_never_exceeded),
        SCENE(leases_beyond_the_credit_wait),
        SCENE(result_is_sent_again_after_a_broker_restart),
        SCENE(result_made_while_the_broker_is_away_is_kept),
        SCENE(revoke_stops_the_task_and_nothing_is_sent),
        SCENE(second_attempt_waits_for_the_first_to_go),
        SCENE(same_attempt_of_another_broker_is_new),
        SCENE(beats_only_on_progress),
        SCENE(drain_ends_when_nothing_is_held),
        SCENE(sigterm_is_an_event),
        SCENE(each_takes_all_events_until_one_says_enough),
        SCENE(refused_hello_is_an_error),
        SCENE(unanswered_hello_is_repeated),
        SCENE(refuse_while_up_means_greet_again),
        SCENE(ping_is_answered_and_noise_is_counted),
        SCENE(stuck_broker_is_left),
        SCENE(oversized_result_becomes_a_failure),
        cmocka_unit_test(deadlines_do_not_wrap),
        cmocka_unit_test(gives_up_without_a_broker),
        cmocka_unit_test(bad_configuration_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
