/* Golden frames: one file per message type and page record, committed. They decode to known values and encode
 * to the same bytes, so that a change of the wire is a decision and not an accident.
 *
 * A file is the frames of one message, each behind its length (4 bytes, little endian); a page record is one
 * frame. `test_golden --write DIR` makes them; do that only for a new type. A changed type keeps its old file
 * under another name as a case that must still decode. */
#include "fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "proto/page.h"
#include "sample.h"

#define TYPES 60
#define EPOCH 0x1122334455667788u

struct golden {
    const struct pm_schema *schema;
    uint32_t type; /* 0: a page record */
    char name[64];
};

/* Frames as earlier versions sent them. */
static const struct {
    const char *name;
    uint32_t type; /* 0: the manifest record */
} old_files[] = {
    {"HELLO-1.bin", PM_MSG_HELLO}, {"SUBMIT-1.bin", PM_MSG_SUBMIT}, {"SUBMIT-2.bin", PM_MSG_SUBMIT},
    {"LEASE-1.bin", PM_MSG_LEASE}, {"LEASE-2.bin", PM_MSG_LEASE},   {"RESULT-1.bin", PM_MSG_RESULT},
    {"JOB-1.bin", PM_MSG_JOB},     {"JOBS-1.bin", PM_MSG_JOBS},     {"EVENT-1.bin", PM_MSG_EVENT},
    {"FLEET-1.bin", PM_MSG_FLEET}, {"record-manifest-1.bin", 0}};

static bool golden_at(uint32_t i, struct golden *out)
{
    *out = (struct golden){0};
    out->type = i < TYPES ? i : 0;
    if (i >= TYPES + sample_page_schema_count)
        return false;
    out->schema = i < TYPES ? pm_msg_schema(i) : sample_page_schemas[i - TYPES];
    if (out->schema)
        snprintf(out->name, sizeof out->name, "%s%s.bin", i < TYPES ? "" : "record-", out->schema->name);
    return true;
}

static void add_frame(struct pm_buf *file, const void *data, size_t n)
{
    uint8_t length[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};
    pm_buf_append(file, length, sizeof length);
    pm_buf_append(file, data, n);
}

static bool has_payload(uint32_t type)
{
    return type == PM_MSG_LEASE || type == PM_MSG_BLOB_PUT || type == PM_MSG_BLOB_DATA;
}

static void build(const struct golden *g, struct pm_buf *file)
{
    struct pm_arena arena = {0};
    struct pm_buf encoded = {0};
    void *record = pm_arena_alloc(&arena, g->schema->size);
    sample_fill(g->schema, &arena, record, 7);
    pm_record_encode(g->schema, record, &encoded);
    if (g->type) {
        uint8_t head[PM_FRAME_HEADER_BYTES];
        struct pm_header h = {.proto = 1, .type = g->type, .seq = g->type + 1, .epoch = EPOCH};
        pm_header_put(&h, head);
        add_frame(file, head, sizeof head);
    }
    add_frame(file, encoded.data, encoded.size);
    if (has_payload(g->type))
        add_frame(file, "payload", 7);
    pm_buf_free(&encoded);
    pm_arena_free(&arena);
}

static struct pm_bytes next_frame(const struct pm_buf *file, size_t *at)
{
    assert_true(file->size - *at >= 4);
    const uint8_t *p = file->data + *at;
    size_t n = p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    assert_true(n <= file->size - *at - 4);
    *at += 4 + n;
    return (struct pm_bytes){p + 4, n};
}

static void read_golden(const char *name, struct pm_buf *out)
{
    struct pm_error err;
    char *path = pm_xprintf("%s/proto/%s", PM_TEST_DATA, name);
    if (pm_fs_read(path, 1 << 20, out, &err))
        fail_msg("%s", err.text);
    free(path);
}

static void check(const struct golden *g)
{
    struct pm_buf file = {0}, again = {0};
    struct pm_arena arena = {0};
    struct pm_error err;
    size_t at = 0;
    read_golden(g->name, &file);
    if (g->type) {
        struct pm_bytes head = next_frame(&file, &at);
        struct pm_header h;
        assert_int_equal(pm_header_get(head.data, head.size, &h, &err), 0);
        assert_int_equal(h.proto, 1);
        assert_int_equal(h.type, g->type);
        assert_int_equal(h.seq, g->type + 1);
        assert_true(h.epoch == EPOCH);
    }
    struct pm_bytes record = next_frame(&file, &at);
    void *known = pm_arena_alloc(&arena, g->schema->size), *is = pm_arena_alloc(&arena, g->schema->size);
    sample_fill(g->schema, &arena, known, 7);
    if (pm_record_decode(g->schema, record.data, record.size, &arena, is, &err))
        fail_msg("%s: %s", g->name, err.text);
    const char *field = sample_difference(g->schema, known, is);
    if (field)
        fail_msg("%s: field %s has another value", g->name, field);
    if (has_payload(g->type)) {
        struct pm_bytes payload = next_frame(&file, &at);
        assert_int_equal(payload.size, 7);
        assert_memory_equal(payload.data, "payload", 7);
    }
    assert_int_equal(at, file.size);
    build(g, &again);
    if (again.size != file.size || memcmp(again.data, file.data, file.size))
        fail_msg("%s: encoded to other bytes", g->name);
    pm_buf_free(&file);
    pm_buf_free(&again);
    pm_arena_free(&arena);
}

static void goldens_decode_and_encode_byte_for_byte(void **state)
{
    (void)state;
    struct golden g;
    unsigned count = 0, files = 0;
    for (uint32_t i = 0; golden_at(i, &g); i++) {
        if (!g.schema)
            continue;
        check(&g);
        count++;
    }
    DIR *dir = opendir(PM_TEST_DATA "/proto");
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir));)
        files += strstr(e->d_name, ".bin") != NULL;
    closedir(dir);
    assert_int_equal(files, count + sizeof old_files / sizeof *old_files); /* none that nothing looks at */
}

/* What an earlier version sent is understood, every value of it: encoded again it is the same bytes but for
 * the number of the version, so no field was lost or changed and none that it did not know is set. */
static void frames_of_earlier_versions_decode(void **state)
{
    (void)state;
    static const size_t version_at = 3; /* map head, "v" with its length, the number */
    for (size_t i = 0; i < sizeof old_files / sizeof *old_files; i++) {
        uint32_t type = old_files[i].type;
        const struct pm_schema *schema = type ? pm_msg_schema(type) : &pm_manifest_schema;
        struct pm_buf file = {0}, again = {0};
        struct pm_arena arena = {0};
        struct pm_error err;
        size_t at = 0;
        read_golden(old_files[i].name, &file);
        if (type)
            (void)next_frame(&file, &at); /* header */
        struct pm_bytes record = next_frame(&file, &at);
        size_t number = version_at + (record.data[0] == 0xde ? 2 : 0); /* 16 fields and more: a longer head */
        void *is = pm_arena_alloc(&arena, schema->size);
        if (pm_record_decode(schema, record.data, record.size, &arena, is, &err))
            fail_msg("%s: %s", old_files[i].name, err.text);
        pm_record_encode(schema, is, &again);
        assert_int_equal(again.size, record.size);
        assert_true(record.data[number] == 100);
        assert_int_equal(again.data[number], schema->version);
        again.data[number] = 100;
        assert_memory_equal(again.data, record.data, record.size);
        pm_buf_free(&file);
        pm_buf_free(&again);
        pm_arena_free(&arena);
    }
}

/* Written by hand from docs/wire.md, without the code under test. */
static void a_hello_by_hand(void **state)
{
    (void)state;
    static const char bytes[] = "\x87"
                                "\xa1v\x65"
                                "\xa4role\x03"
                                "\xa9proto_min\x01"
                                "\xa9proto_max\x01"
                                "\xa4name\xa2w1"
                                "\xa8instance\xcf\x00\x01\x02\x03\x04\x05\x06\x07"
                                "\xa4held\x91\x83\xa4task\xcd\x01\x00\xa5"
                                "epoch\x05\xa7"
                                "attempt\x02";
    struct pm_msg_hello hello;
    struct pm_arena arena = {0};
    struct pm_error err;
    if (pm_record_decode(pm_msg_schema(PM_MSG_HELLO), bytes, sizeof bytes - 1, &arena, &hello, &err))
        fail_msg("%s", err.text);
    assert_int_equal(hello.role, PM_ROLE_WORKER);
    assert_string_equal(hello.name, "w1");
    assert_true(hello.instance == 0x0001020304050607u);
    assert_int_equal(hello.held_count, 1);
    assert_int_equal(hello.held[0].task, 256);
    assert_int_equal(hello.held[0].epoch, 5);
    assert_int_equal(hello.held[0].attempt, 2);
    assert_string_equal(hello.client, "");
    struct pm_buf again = {0};
    pm_record_encode(pm_msg_schema(PM_MSG_HELLO), &hello, &again);
    assert_int_equal(again.size, sizeof bytes - 1);
    assert_memory_equal(again.data, bytes, again.size);
    pm_buf_free(&again);
    pm_arena_free(&arena);
}

static int write_all(const char *dir)
{
    struct golden g;
    for (uint32_t i = 0; golden_at(i, &g); i++) {
        if (!g.schema)
            continue;
        struct pm_buf file = {0};
        struct pm_error err;
        char *path = pm_fs_join(dir, g.name);
        build(&g, &file);
        if (pm_fs_write(path, file.data, file.size, false, &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        free(path);
        pm_buf_free(&file);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--write"))
        return write_all(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens_decode_and_encode_byte_for_byte),
        cmocka_unit_test(frames_of_earlier_versions_decode),
        cmocka_unit_test(a_hello_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
