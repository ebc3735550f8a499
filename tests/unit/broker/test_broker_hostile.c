/* Peers that break the rules, and floods, against the real broker process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/fs.h"
#include "fake.h"

static void strangers_and_wrong_roles(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    struct link l;
    link_open(&l, &t.f, "client.sock");
    struct pm_msg_stats stats = {.ref = 1};
    link_send(&l, PM_MSG_STATS, &stats);
    expect_refusal(&l, "protocol", "hello first");
    link_close(&l);
    struct pm_msg_credit credit = {.granted = 5}; /* a client is no worker */
    link_send(&t.client, PM_MSG_CREDIT, &credit);
    expect_refusal(&t.client, "denied", "may not send CREDIT");
    link_open(&l, &t.f, "client.sock");
    struct pm_msg_hello hello = {.role = PM_ROLE_WORKER,
                                 .proto_min = 1,
                                 .proto_max = 1,
                                 .name = "w",
                                 .version = "",
                                 .host = "",
                                 .client = "",
                                 .instance = 1};
    link_send(&l, PM_MSG_HELLO, &hello);
    expect_refusal(&l, "denied", "does not belong on this socket");
    hello.role = PM_ROLE_CLIENT;
    hello.proto_min = hello.proto_max = 99;
    link_send(&l, PM_MSG_HELLO, &hello);
    expect_refusal(&l, "unsupported", "protocol 99");
    /* Not a message of ours at all. */
    zmq_send(l.socket, "rubbish", 7, 0);
    expect_refusal(&l, "protocol", "");
    link_close(&l);
    assert_int_equal(counter(&t.client, "unknown_peers"), 1);
    assert_int_equal(counter(&t.client, "wrong_role"), 1);
    assert_int_equal(counter(&t.client, "hellos_refused"), 2);
    assert_int_equal(counter(&t.client, "malformed_messages"), 1);
    fleet_close(&t);
}

static void bad_submits(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    char source[PM_BLOB_KEY_SIZE];
    put_blob(&t.f, PM_BLOB_DISK, "x", source);
    struct pm_msg_submit good = {.ref = 4, .key = "", .name = "n", .source = source, .batch = ""};
    good.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "n"};
    struct pm_msg_submit m = good;
    m.options.pages = "3-1";
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "invalid", "runs backwards");
    m = good;
    m.source = "d0123";
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "invalid", "not the key");
    m = good;
    m.source = "dffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "not-found", "not in the broker's store");
    m = good;
    m.options.stem = "../../etc/passwd";
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "invalid", "must not be a path");
    assert_int_equal(counter(&t.client, "refused_submits"), 4);
    fleet_close(&t);
    /* Full: busy, and told when to come again. */
    fixture_open(&t.f);
    broker_start(&t.f, (const char *const[]){"--max-jobs", "1", NULL});
    client_open(&t.client, &t.f, "alice");
    submit(&t.client, "a", "a", NULL);
    put_blob(&t.f, PM_BLOB_DISK, "x", source);
    link_send(&t.client, PM_MSG_SUBMIT, &good);
    uint32_t type;
    const struct pm_msg_refuse *r = link_receive(&t.client, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    assert_string_equal(r->code, "busy");
    assert_true(r->retry_after_us > 0);
    broker_kill(&t.f);
    /* A disk that is nearly full takes no jobs, and says so. */
    broker_start(&t.f, (const char *const[]){"--min-free", "16000000", NULL});
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    link_send(&t.client, PM_MSG_SUBMIT, &good);
    expect_refusal(&t.client, "no-space", "no space left");
    bool duplicate;
    submit(&t.client, "a", "a", &duplicate); /* what is accepted stays accepted */
    assert_true(duplicate);
    link_close(&t.client);
    fixture_close(&t.f);
}

static void second_broker_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    broker_start(&f, NULL);
    char *other = pm_fs_join(f.dir, "other");
    assert_int_equal(broker_run_again(&f, f.state, other), 75);
    assert_int_equal(broker_run_again(&f, other, f.run), 75);
    struct link c; /* and the first one still serves */
    client_open(&c, &f, "alice");
    submit(&c, "a", "a", NULL);
    link_close(&c);
    assert_int_equal(broker_stop(&f), 0);
    /* A path that the system would cut, so that two brokers meet on one socket, is not taken. */
    char *longest = pm_xprintf("%s/%0100d", f.dir, 0);
    assert_int_equal(broker_run_again(&f, other, longest), 78);
    free(longest);
    /* A directory that others can enter is not taken. */
    assert_int_equal(chmod(f.run, 0755), 0);
    assert_int_equal(broker_run_again(&f, f.state, f.run), 78);
    chmod(f.run, 0700);
    free(other);
    fixture_close(&f);
}

/* A peer that does not read: a ROUTER without MANDATORY would drop silently. Here a lease that cannot be sent
 * is another's, and nothing of the credit of others is lost. */
static void peer_that_does_not_read(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    struct link eve;
    client_open(&eve, &t.f, "eve");
    struct pm_msg_list q = {.ref = 1, .batch = "", .limit = 1};
    for (int i = 0, failed = 0; i < 30000 && failed < 20;
         i++) { /* asks and never reads, until she is put out */
        struct pm_header h = {.proto = 1, .type = PM_MSG_LIST, .seq = ++eve.seq};
        if (pm_message_send(eve.socket, NULL, 0, &h, &q, NULL, 0, NULL)) {
            zmq_pollitem_t item = {.socket = eve.socket, .events = ZMQ_POLLOUT};
            failed = zmq_poll(&item, 1, 50) ? 0 : failed + 1;
        }
    }
    /* Others are served, and what could not be delivered was counted: delayed, or the peer was cut. */
    uint64_t job = submit(&t.client, "source", "key", NULL);
    assert_int_equal(serve_until_done(&t, job, 1, 1).state, PM_JOB_DONE);
    assert_true(counter(&t.client, "sends_delayed") > 0);
    assert_int_equal(broker_stop(&t.f), 0); /* what she did not read does not hold it up (LINGER) */
    link_close(&eve);
    fleet_close(&t);
}

struct flood {
    struct link link;
    atomic_bool stop;
};

static void *flood_on_and_on(void *argument)
{
    struct flood *flood = argument;
    struct pm_msg_list q = {.ref = 1, .batch = "", .limit = 100};
    while (!atomic_load(&flood->stop)) {
        struct pm_header h = {.proto = 1, .type = PM_MSG_LIST, .seq = ++flood->link.seq};
        (void)pm_message_send(flood->link.socket, NULL, 0, &h, &q, NULL, 0, NULL);
        pm_arena_clear(&flood->link.arena); /* and reads, so that nothing slows it down */
        (void)pm_message_receive(flood->link.socket, false, &flood->link.arena, &flood->link.last, NULL);
    }
    return NULL;
}

/* Messages are taken in turns, a number from each socket, clocks looked at between: a client that sends
 * without pause keeps nobody from working. */
static void flood_starves_nobody(void **state)
{
    (void)state;
    struct fleet t;
    struct flood flood = {.stop = false};
    pthread_t thread;
    fleet_open(&t);
    client_open(&flood.link, &t.f, "eve");
    assert_int_equal(pthread_create(&thread, NULL, flood_on_and_on, &flood), 0);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct pm_job_info info = serve_until_done(&t, job, 5, 10);
    atomic_store(&flood.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.retries, 0); /* no lease was taken for stalled */
    /* libzmq 4.3 ends the process when a socket is dropped in the middle of a message of several frames. */
    int linger_ms = 2000;
    zmq_setsockopt(flood.link.socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    link_close(&flood.link);
    fleet_close(&t);
}

/* More than a frame may have: that connection ends, nothing of it is kept, and the others do not notice. */
static void oversized_message_costs_its_sender(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    struct link eve;
    client_open(&eve, &t.f, "eve");
    uint8_t *large = calloc(1, PM_FRAME_PAYLOAD_BYTES + 1);
    void *watch = zmq_socket(t.f.zmq, ZMQ_PAIR);
    assert_int_equal(zmq_socket_monitor(eve.socket, "inproc://eve", ZMQ_EVENT_DISCONNECTED), 0);
    assert_int_equal(zmq_connect(watch, "inproc://eve"), 0);
    assert_true(zmq_send(eve.socket, large, PM_FRAME_PAYLOAD_BYTES + 1, 0) > 0);
    zmq_pollitem_t item = {.socket = watch, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    assert_int_equal(serve_until_done(&t, job, 1, 1).state, PM_JOB_DONE);
    zmq_socket_monitor(eve.socket, NULL, 0);
    zmq_close(watch);
    link_close(&eve);
    free(large);
    fleet_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_and_wrong_roles), cmocka_unit_test(bad_submits),
        cmocka_unit_test(second_broker_is_refused),  cmocka_unit_test(peer_that_does_not_read),
        cmocka_unit_test(flood_starves_nobody),      cmocka_unit_test(oversized_message_costs_its_sender),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
