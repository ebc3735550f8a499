/* Everything has a bound, and whoever comes over it is told what, why and when to come back, and is counted:
 * jobs, bytes in the store, uploads of a connection, leases of a peer. Against the real broker process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/broker/fake.h"
#include "proto/chunk.h"

#define SOONEST_US 50000    /* sooner than this is not worth a round trip */
#define LATEST_US  60000000 /* later than this and people give up */

static void open_broker(struct fixture *f, struct link *client, const char *option, const char *value)
{
    const char *const extra[] = {option, value, NULL};
    fixture_open(f);
    broker_start(f, extra);
    client_open(client, f, "alice");
}

static void close_broker(struct fixture *f, struct link *client)
{
    link_close(client);
    fixture_close(f);
}

static void send_submit(struct link *client, const char *blob, const char *key)
{
    struct pm_msg_submit m = {
        .ref = 77, .name = "doc", .key = key, .source = blob, .options = {.stem = "doc"}};
    link_send(client, PM_MSG_SUBMIT, &m);
}

/* The next message: a refusal with this code, and a time to come back when that helps. */
static void expect_no(struct link *l, const char *code, const char *text, bool has_time)
{
    uint32_t type;
    const struct pm_msg_refuse *r = link_receive(l, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    assert_string_equal(r->code, code);
    assert_non_null(strstr(r->text, text));
    if (has_time && (r->retry_after_us < SOONEST_US || r->retry_after_us > LATEST_US))
        fail_msg("come back after %llu us", (unsigned long long)r->retry_after_us);
}

static void jobs_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    struct link client;
    char key[PM_BLOB_KEY_SIZE], name[16];
    uint64_t jobs[3];
    open_broker(&f, &client, "--max-jobs", "3");
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "document %d", i);
        jobs[i] = submit(&client, name, name, NULL);
    }
    put_blob(&f, PM_BLOB_DISK, "one more", key);
    for (int i = 0; i < 5; i++) {
        send_submit(&client, key, "one-more");
        expect_no(&client, "busy", "limit", true);
    }
    assert_int_equal(counter(&client, "refused_submits"), 5);
    /* A key that is known is no new job. */
    bool is_duplicate = false;
    assert_int_equal(submit(&client, "document 0", "document 0", &is_duplicate), jobs[0]);
    assert_true(is_duplicate);
    /* There is room again as soon as one has ended. */
    struct pm_msg_job_ref cancel = {.ref = 5, .job = jobs[1], .batch = ""};
    link_send(&client, PM_MSG_CANCEL, &cancel);
    link_expect(&client, PM_MSG_DONE);
    send_submit(&client, key, "one-more");
    link_expect(&client, PM_MSG_ACCEPTED);
    send_submit(&client, key, "and-another");
    expect_no(&client, "busy", "limit", true);
    assert_int_equal(counter(&client, "refused_submits"), 6);
    close_broker(&f, &client);
}

static void stored_bytes_are_bounded(void **state)
{
    (void)state;
    enum { BYTES = 400000 };
    struct fixture f;
    struct link client;
    char *text = malloc(BYTES + 1), key[PM_BLOB_KEY_SIZE], name[16];
    open_broker(&f, &client, "--max-store", "1");
    unsigned accepted = 0, refused = 0;
    for (int i = 0; i < 6; i++) { /* 2.4 MB in all */
        uint32_t type;
        memset(text, 'a' + i, BYTES);
        text[BYTES] = 0;
        snprintf(name, sizeof name, "large-%d", i);
        put_blob(&f, PM_BLOB_DISK, text, key);
        send_submit(&client, key, name);
        const struct pm_msg_refuse *r = link_receive(&client, &type);
        accepted += type == PM_MSG_ACCEPTED;
        if (type != PM_MSG_REFUSE)
            continue;
        refused++;
        assert_string_equal(r->code, "no-space");
        assert_non_null(strstr(r->text, "the limit is 1 MB"));
        assert_in_range(r->retry_after_us, SOONEST_US, LATEST_US);
    }
    assert_in_range(accepted, 1, 3);
    assert_int_equal(accepted + refused, 6);
    assert_int_equal(counter(&client, "refused_store_full"), refused);
    assert_int_equal(counter(&client, "refused_submits"), refused);
    free(text);
    close_broker(&f, &client);
}

static void begin_upload(struct link *l, uint64_t upload)
{
    struct pm_msg_blob_put m = {.ref = 1000 + upload, .upload = upload, .raw_bytes = 5};
    struct pm_buf packed = {0};
    pm_chunk_pack((const uint8_t *)"12345", 5, &packed);
    link_send_payload(l, PM_MSG_BLOB_PUT, &m, packed.data, packed.size);
    pm_buf_free(&packed);
}

static void uploads_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    struct link client, other;
    open_broker(&f, &client, "--max-jobs", "10");
    for (uint64_t i = 1; i <= 8; i++) {
        begin_upload(&client, i);
        link_expect(&client, PM_MSG_BLOB_STORED);
    }
    for (uint64_t i = 9; i <= 11; i++) {
        begin_upload(&client, i);
        expect_no(&client, "busy", "8 uploads", true);
    }
    assert_int_equal(counter(&client, "uploads_refused"), 3);
    client_open(&other, &f, "bob"); /* somebody else's are his own */
    begin_upload(&other, 1);
    link_expect(&other, PM_MSG_BLOB_STORED);
    link_close(&other);
    close_broker(&f, &client);
}

/* Everything that was sent to l before the answer has come by then. */
static void ping(struct link *l, uint64_t ref)
{
    struct pm_msg_ping m = {.ref = ref};
    link_send(l, PM_MSG_PING, &m);
    link_expect(l, PM_MSG_PONG);
}

static void leases_keep_to_the_credit(void **state)
{
    (void)state;
    struct fixture f;
    struct link client, layoutd;
    char name[16];
    open_broker(&f, &client, "--max-jobs", "100");
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "document %d", i);
        submit(&client, name, name, NULL);
    }
    service_open(&layoutd, &f, PM_ROLE_LAYOUTD, "layoutd-1", 2);
    struct fake_lease held[2] = {take_lease(&layoutd), take_lease(&layoutd)};
    for (int i = 0; i < 6; i++) {
        ping(&client, 1); /* turns of the broker */
        ping(&layoutd, 2);
        assert_int_equal(layoutd.kept_count, 0); /* ten wait, two are out, and no more */
        assert_true(fail_lease(&layoutd, &held[i % 2], "format", "it cannot be read", true));
        held[i % 2] = take_lease(&layoutd);
    }
    link_close(&layoutd);
    close_broker(&f, &client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_bounded), cmocka_unit_test(stored_bytes_are_bounded),
        cmocka_unit_test(uploads_are_bounded), cmocka_unit_test(leases_keep_to_the_credit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
