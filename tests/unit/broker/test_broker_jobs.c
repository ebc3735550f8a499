/* A job's life in the real broker process, with fake peers over ipc. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "fake.h"
#include "proto/chunk.h"
#include "proto/page.h"

static void whole_job(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key-1", NULL);
    struct fake_lease open = take_lease(&t.layoutd);
    assert_int_equal(open.kind, PM_KIND_OPEN);
    assert_true(answer_lease(&t.layoutd, &open, 2, 0));
    for (uint32_t page = 1; page <= 2; page++) {
        struct fake_lease l = take_lease(&t.layoutd);
        assert_int_equal(l.kind, PM_KIND_PAGE);
        assert_int_equal(l.page, page);
        assert_true(answer_lease(&t.layoutd, &l, 0, 3));
    }
    for (uint32_t i = 0; i < 6; i++) { /* pages and regions in order */
        struct fake_lease l = take_lease(&t.worker);
        assert_int_equal(l.kind, PM_KIND_REGION);
        assert_int_equal(l.page, 1 + i / 3);
        assert_int_equal(l.region, i % 3);
        send_answer(&t.worker, &l, 0, 0);
    }
    for (uint32_t page = 1; page <= 2; page++) {
        const struct pm_msg_lease *m = link_expect(&t.collector, PM_MSG_LEASE);
        struct pm_page_texts texts;
        struct pm_arena arena = {0};
        assert_int_equal(m->kind, PM_KIND_ASSEMBLE_PAGE);
        assert_int_equal(pm_page_texts_decode(t.collector.last.payload.data, t.collector.last.payload.size,
                                              &arena, &texts, NULL),
                         0);
        assert_int_equal(texts.text_count, 3);
        pm_arena_free(&arena);
        struct fake_lease l = {m->task, m->epoch, m->job, m->attempt, m->kind, m->page, m->region};
        assert_true(answer_lease(&t.collector, &l, 0, 0));
    }
    const struct pm_msg_lease *m = link_expect(&t.collector, PM_MSG_LEASE);
    struct pm_doc_pages pages;
    struct pm_arena arena = {0};
    assert_int_equal(m->kind, PM_KIND_ASSEMBLE_DOC);
    assert_int_equal(pm_record_decode(&pm_doc_pages_schema, t.collector.last.payload.data,
                                      t.collector.last.payload.size, &arena, &pages, NULL),
                     0);
    assert_int_equal(pages.page_count, 2);
    assert_true(pm_blob_exists(t.f.blobs, pages.pages[1].blob, NULL));
    pm_arena_free(&arena);
    struct fake_lease doc = {m->task, m->epoch, m->job, m->attempt, m->kind, m->page, m->region};
    assert_true(answer_lease(&t.collector, &doc, 2, 0));
    struct pm_job_info info = job_status(&t.client, job);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.pages_done, 2);
    assert_int_equal(info.regions_done, 6);
    assert_int_equal(info.retries, 0);
    struct pm_msg_job_ref q = {.ref = 3, .job = job, .batch = ""};
    link_send(&t.client, PM_MSG_FETCH, &q);
    const struct pm_msg_manifest *manifest = link_expect(&t.client, PM_MSG_MANIFEST);
    struct pm_manifest files;
    assert_int_equal(pm_record_decode(&pm_manifest_schema, manifest->manifest.data, manifest->manifest.size,
                                      &arena, &files, NULL),
                     0);
    assert_int_equal(files.file_count, 1);
    pm_arena_free(&arena);
    pixels_are_gone_soon(&t);
    assert_int_equal(broker_stop(&t.f), 0);
    fleet_close(&t);
}

static void duplicates_give_the_first_job(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    bool duplicate;
    uint64_t first = submit(&t.client, "a", "same", &duplicate);
    assert_false(duplicate);
    assert_int_equal(submit(&t.client, "a", "same", &duplicate), first);
    assert_true(duplicate);
    struct link bob; /* keys belong to their client */
    client_open(&bob, &t.f, "bob");
    assert_int_not_equal(submit(&bob, "a", "same", &duplicate), first);
    assert_false(duplicate);
    link_close(&bob);
    broker_kill(&t.f);
    broker_start(&t.f, NULL);
    struct link again;
    client_open(&again, &t.f, "alice");
    assert_int_equal(submit(&again, "a", "same", &duplicate), first);
    assert_true(duplicate);
    assert_int_equal(counter(&again, "duplicate_submits"), 1);
    link_close(&again);
    fleet_close(&t);
}

/* The answer to a page of a cancelled job is refused, and what came with it does not stay in memory. */
static void sheet_of_a_refused_page_goes(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    struct pm_msg_job_ref q = {.ref = 5, .job = job, .batch = ""};
    link_send(&t.client, PM_MSG_CANCEL, &q);
    link_expect(&t.client, PM_MSG_DONE);
    assert_false(answer_lease(&t.layoutd, &l, 0, 3));
    assert_int_equal(files_below(t.f.pixels), 1);
    pixels_are_gone_soon(&t);
    fleet_close(&t);
}

static void lost_sheet_is_made_again(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 2);
    struct fake_lease region = take_lease(&t.worker);
    broker_kill(&t.f);
    assert_int_equal(pm_fs_remove_tree(t.f.pixels, NULL), 0); /* a reboot */
    broker_start(&t.f, NULL);
    char *disk = pm_fs_join(t.f.state, "blobs");
    pm_blobs_free(&t.f.blobs);
    assert_int_equal(pm_blobs_open(disk, t.f.pixels, &t.f.blobs, NULL), 0);
    free(disk);
    struct pm_held held = {region.task, region.epoch, region.attempt};
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 4, 0, &held, 1);
    link_expect(&t.worker, PM_MSG_REVOKE); /* of the old layout: not wanted any more */
    assert_false(answer_lease(&t.worker, &region, 0, 0));
    service_hello(&t.layoutd, PM_ROLE_LAYOUTD, "layoutd-1", 1, 0, NULL, 0);
    service_hello(&t.collector, PM_ROLE_COLLECTOR, "collector-1", 1, 0, NULL, 0);
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    struct pm_job_info info = serve_until_done(&t, job, 1, 2);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.regions_done, 2);
    fleet_close(&t);
}

static void cancel_reaches_a_running_region(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 1);
    struct fake_lease region = take_lease(&t.worker);
    struct pm_msg_job_ref q = {.ref = 5, .job = 0, .batch = "batch"};
    link_send(&t.client, PM_MSG_CANCEL, &q);
    assert_int_equal(((const struct pm_msg_done *)link_expect(&t.client, PM_MSG_DONE))->count, 1);
    const struct pm_msg_revoke *revoke = link_expect(&t.worker, PM_MSG_REVOKE);
    assert_int_equal(revoke->task, region.task);
    assert_string_equal(revoke->reason, "cancelled");
    assert_false(answer_lease(&t.worker, &region, 0, 0));
    assert_int_equal(job_status(&t.client, job).state, PM_JOB_CANCELLED);
    pixels_are_gone_soon(&t);
    /* And retried it runs to its end. */
    q = (struct pm_msg_job_ref){.ref = 6, .job = job, .batch = ""};
    link_send(&t.client, PM_MSG_RETRY, &q);
    link_expect(&t.client, PM_MSG_DONE);
    assert_int_equal(serve_until_done(&t, job, 1, 1).state, PM_JOB_DONE);
    /* Forgotten, it is gone with its blobs' references. */
    link_send(&t.client, PM_MSG_FORGET, &q);
    link_expect(&t.client, PM_MSG_DONE);
    link_send(&t.client, PM_MSG_STATUS, &q);
    uint32_t type;
    link_receive(&t.client, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    fleet_close(&t);
}

static void failures_are_told(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 2, 0);
    l = take_lease(&t.layoutd);
    assert_true(fail_lease(&t.layoutd, &l, "format", "page 1 is damaged", true));
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 2);
    l = take_lease(&t.worker);
    assert_true(fail_lease(&t.worker, &l, "format", "the crop is empty", true));
    struct pm_job_info info = serve_until_done(&t, job, 2, 2);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.pages_done, 1);
    assert_int_equal(info.pages_failed, 1);
    assert_int_equal(info.regions_failed, 1);
    assert_int_equal(info.error_count, 2);
    assert_int_equal(info.errors[0].page, 1);
    assert_string_equal(info.errors[0].text, "page 1 is damaged");
    assert_int_equal(info.errors[1].page, 2);
    assert_int_equal(info.errors[1].region, 1);
    assert_string_equal(info.errors[1].code, "format");
    /* A retry reads just those. */
    struct pm_msg_job_ref q = {.ref = 6, .job = job, .batch = ""};
    link_send(&t.client, PM_MSG_RETRY, &q);
    link_expect(&t.client, PM_MSG_DONE);
    info = serve_until_done(&t, job, 2, 2);
    assert_int_equal(info.pages_done, 2);
    assert_int_equal(info.regions_done, 4);
    assert_int_equal(info.error_count, 0);
    /* A document that cannot be opened fails as a whole, with its reason. */
    job = submit(&t.client, "other", "key-2", NULL);
    l = take_lease(&t.layoutd);
    fail_lease(&t.layoutd, &l, "password", "the document needs a password", true);
    info = job_status(&t.client, job);
    assert_int_equal(info.state, PM_JOB_FAILED);
    assert_string_equal(info.error_code, "password");
    fleet_close(&t);
}

static void drain_finishes_what_is_in_hand(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 2, 0);
    l = take_lease(&t.layoutd);
    struct pm_msg_shutdown q = {.ref = 8};
    link_send(&t.client, PM_MSG_SHUTDOWN, &q);
    link_expect(&t.client, PM_MSG_DONE);
    char source[PM_BLOB_KEY_SIZE];
    put_blob(&t.f, PM_BLOB_DISK, "x", source);
    struct pm_msg_submit m = {.ref = 4, .key = "", .name = "n", .source = source, .batch = ""};
    m.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "n"};
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "busy", "stopping");
    assert_true(answer_lease(&t.layoutd, &l, 0, 0)); /* still taken */
    /* The empty page is assembled, the second page is not begun; then the broker leaves. */
    struct fake_lease page = take_lease(&t.collector);
    assert_true(answer_lease(&t.collector, &page, 0, 0));
    link_expect(&t.layoutd, PM_MSG_GOODBYE);
    int status;
    pm_child_reap(&t.f.broker, &status);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    broker_start(&t.f, NULL);
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    service_hello(&t.layoutd, PM_ROLE_LAYOUTD, "layoutd-1", 1, 0, NULL, 0);
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 4, 0, NULL, 0);
    service_hello(&t.collector, PM_ROLE_COLLECTOR, "collector-1", 1, 0, NULL, 0);
    assert_int_equal(serve_until_done(&t, job, 2, 1).state, PM_JOB_DONE);
    fleet_close(&t);
}

static void blobs_through_the_socket(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    size_t bytes = PM_CHUNK_BYTES + 1000;
    uint8_t *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * i >> 7);
    char key[PM_BLOB_KEY_SIZE] = "";
    for (size_t at = 0; at < bytes; at += PM_CHUNK_BYTES) {
        size_t n = bytes - at < PM_CHUNK_BYTES ? bytes - at : PM_CHUNK_BYTES;
        struct pm_buf packed = {0};
        pm_chunk_pack(data + at, n, &packed);
        struct pm_msg_blob_put put = {
            .ref = 20, .upload = 1, .offset = at, .is_last = at + n == bytes, .raw_bytes = (uint32_t)n};
        link_send_payload(&t.client, PM_MSG_BLOB_PUT, &put, packed.data, packed.size);
        const struct pm_msg_blob_stored *stored = link_expect(&t.client, PM_MSG_BLOB_STORED);
        assert_int_equal(stored->offset, at + n);
        strcpy(key, stored->blob);
        pm_buf_free(&packed);
    }
    struct pm_blob_map map;
    assert_int_equal(pm_blob_map(t.f.blobs, key, &map, NULL), 0);
    assert_int_equal(map.bytes, bytes);
    assert_memory_equal(map.data, data, bytes);
    pm_blob_unmap(&map);
    /* Nobody refers to it yet: it is not given out. As a job's source it is. */
    struct pm_msg_blob_get get = {.ref = 21, .blob = key, .offset = PM_CHUNK_BYTES};
    link_send(&t.client, PM_MSG_BLOB_GET, &get);
    expect_refusal(&t.client, "not-found", "no result");
    struct pm_msg_submit m = {.ref = 4, .key = "", .name = "n", .source = key, .batch = ""};
    m.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "n"};
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    link_expect(&t.client, PM_MSG_ACCEPTED);
    link_send(&t.client, PM_MSG_BLOB_GET, &get);
    const struct pm_msg_blob_data *part = link_expect(&t.client, PM_MSG_BLOB_DATA);
    assert_int_equal(part->total, bytes);
    assert_int_equal(part->raw_bytes, 1000);
    uint8_t raw[1000];
    assert_int_equal(pm_chunk_unpack(t.client.last.payload, 1000, raw, NULL), 0);
    assert_memory_equal(raw, data + PM_CHUNK_BYTES, 1000);
    /* Chunks out of order, and more than was announced, are refused. */
    struct pm_msg_blob_put put = {.ref = 22, .upload = 2, .offset = 10, .raw_bytes = 3};
    link_send_payload(&t.client, PM_MSG_BLOB_PUT, &put, "abc", 3);
    expect_refusal(&t.client, "protocol", "was expected");
    put.offset = 0;
    put.raw_bytes = PM_CHUNK_BYTES + 1;
    link_send_payload(&t.client, PM_MSG_BLOB_PUT, &put, "abc", 3);
    uint32_t type;
    link_receive(&t.client, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    free(data);
    fleet_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_job),
        cmocka_unit_test(duplicates_give_the_first_job),
        cmocka_unit_test(sheet_of_a_refused_page_goes),
        cmocka_unit_test(lost_sheet_is_made_again),
        cmocka_unit_test(cancel_reaches_a_running_region),
        cmocka_unit_test(failures_are_told),
        cmocka_unit_test(drain_finishes_what_is_in_hand),
        cmocka_unit_test(blobs_through_the_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
