/* Records: every rule of record.h, one after the other, and then a storm of broken bytes. */
#include "fixture.h"

#include <math.h>
#include <string.h>

#include <msgpack.h>

#include "proto/page.h"
#include "proto/schema.h"
#include "sample.h"

struct inner {
    uint32_t a;
    const char *s;
};
struct outer {
    uint64_t u64;
    int64_t i64;
    uint32_t u32, choice;
    float f32;
    bool yes;
    const char *str;
    struct pm_bytes bin;
    struct inner rec;
    struct inner *recs;
    uint32_t rec_count;
    const char **strs;
    uint32_t str_count;
    uint32_t *u32s;
    uint32_t u32_count;
    float quad[4];
};
#define T struct inner
static const struct pm_field inner_rows[] = {
    PM_ROW_U32(T, a, true, NULL),
    PM_ROW_STR(T, s, 10, false, NULL),
};
#undef T
static const struct pm_schema inner_schema = PM_SCHEMA_OF("inner", 100, struct inner, inner_rows);
#define T struct outer
static const struct pm_field outer_rows[] = {
    PM_ROW_U64(T, u64, false, NULL),
    PM_ROW_I64(T, i64, false, NULL),
    PM_ROW_U32(T, u32, false, NULL),
    PM_ROW_MAX(T, choice, 3, false, NULL),
    PM_ROW_F32(T, f32, false, NULL),
    PM_ROW_BOOL(T, yes, false, NULL),
    PM_ROW_STR(T, str, 10, false, NULL),
    PM_ROW_BIN(T, bin, 4, false, NULL),
    PM_ROW_REC(T, rec, struct inner, &inner_schema, false, NULL),
    PM_ROW_RECS(T, recs, rec_count, struct inner, &inner_schema, 3, false, NULL),
    PM_ROW_STRS(T, strs, str_count, 2, false, NULL),
    PM_ROW_U32S(T, u32s, u32_count, 3, false, NULL),
    PM_ROW_F32S(T, quad, 4, false, NULL),
};
#undef T
static const struct pm_schema outer_schema = PM_SCHEMA_OF("outer", 203, struct outer, outer_rows);

static int append(void *buf, const char *bytes, size_t n)
{
    pm_buf_append(buf, bytes, n);
    return 0;
}

/* A map of {"v": 203, key: value} where the caller packs the value by msgpack-c. */
struct builder {
    struct pm_buf buf;
    msgpack_packer pk;
};
static msgpack_packer *start(struct builder *b, unsigned pairs)
{
    memset(b, 0, sizeof *b);
    msgpack_packer_init(&b->pk, &b->buf, append);
    msgpack_pack_map(&b->pk, pairs + 1);
    msgpack_pack_str_with_body(&b->pk, "v", 1);
    msgpack_pack_int(&b->pk, 203);
    return &b->pk;
}
static void key(struct builder *b, const char *name)
{
    msgpack_pack_str_with_body(&b->pk, name, strlen(name));
}

static int decode(const struct pm_schema *schema, const void *data, size_t n, struct pm_arena *arena,
                  void *out, struct pm_error *err)
{
    memset(err, 0, sizeof *err);
    return pm_record_decode(schema, data, n, arena, out, err);
}

/* Decodes what was built and frees it; the message of a failure must hold `part`. */
static void refused(struct builder *b, const char *part)
{
    struct pm_arena arena = {0};
    struct outer out;
    struct pm_error err;
    int rc = decode(&outer_schema, b->buf.data, b->buf.size, &arena, &out, &err);
    if (rc != PM_EPROTO)
        fail_msg("code %d, not protocol, for: %s", rc, part);
    if (!strstr(err.text, part) || !(strstr(err.text, "outer") || strstr(err.text, "inner")))
        fail_msg("\"%s\" does not say \"%s\" and the record", err.text, part);
    pm_arena_free(&arena);
    pm_buf_free(&b->buf);
}

static struct outer accepted(struct builder *b, struct pm_arena *arena)
{
    struct outer out;
    struct pm_error err;
    if (decode(&outer_schema, b->buf.data, b->buf.size, arena, &out, &err))
        fail_msg("%s", err.text);
    pm_buf_free(&b->buf);
    return out;
}

static void every_schema_survives_a_round_trip(void **state)
{
    (void)state;
    uint32_t schemas = 0;
    for (uint32_t i = 0; i < 60 + sample_page_schema_count; i++) {
        const struct pm_schema *schema = i < 60 ? pm_msg_schema(i) : sample_page_schemas[i - 60];
        if (!schema)
            continue;
        schemas++;
        struct pm_arena arena = {0};
        struct pm_buf first = {0}, second = {0};
        struct pm_error err;
        void *record = pm_arena_alloc(&arena, schema->size), *copy = pm_arena_alloc(&arena, schema->size);
        sample_fill(schema, &arena, record, 7);
        assert_int_equal(pm_record_try_encode(schema, record, &first, &err), 0);
        if (decode(schema, first.data, first.size, &arena, copy, &err))
            fail_msg("%s", err.text);
        const char *name = sample_difference(schema, record, copy);
        if (name)
            fail_msg("%s: field %s differs", schema->name, name);
        pm_record_encode(schema, copy, &second);
        assert_int_equal(first.size, second.size);
        assert_memory_equal(first.data, second.data, first.size);
        /* msgpack-c, an independent reader, agrees that these bytes are one map. */
        msgpack_unpacked unpacked;
        msgpack_unpacked_init(&unpacked);
        size_t off = 0;
        assert_int_equal(msgpack_unpack_next(&unpacked, (char *)first.data, first.size, &off),
                         MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(off, first.size);
        assert_int_equal(unpacked.data.type, MSGPACK_OBJECT_MAP);
        assert_int_equal(unpacked.data.via.map.size, schema->field_count + 1);
        msgpack_unpacked_destroy(&unpacked);
        pm_buf_free(&first);
        pm_buf_free(&second);
        pm_arena_free(&arena);
    }
    assert_int_equal(schemas, 37 + sample_page_schema_count);
}

static void empty_fields_cost_nothing_and_strings_are_never_null(void **state)
{
    (void)state;
    struct outer record = {0}, out;
    struct pm_buf buf = {0};
    struct pm_arena arena = {0};
    struct pm_error err;
    pm_record_encode(&outer_schema, &record, &buf);
    assert_int_equal(buf.size, 1 + 2 + 2); /* a map with nothing but "v": 203 */
    assert_int_equal(decode(&outer_schema, buf.data, buf.size, &arena, &out, &err), PM_OK);
    assert_string_equal(out.str, "");
    assert_string_equal(out.rec.s, "");
    assert_null(out.recs);
    pm_buf_free(&buf);
    pm_arena_free(&arena);
}

static void numbers_keep_to_their_ranges(void **state)
{
    (void)state;
    struct builder b;
    struct pm_arena arena = {0};
    start(&b, 3);
    key(&b, "u64");
    msgpack_pack_uint64(&b.pk, UINT64_MAX);
    key(&b, "i64");
    msgpack_pack_int64(&b.pk, INT64_MIN);
    key(&b, "u32");
    msgpack_pack_uint64(&b.pk, UINT32_MAX);
    struct outer out = accepted(&b, &arena);
    assert_true(out.u64 == UINT64_MAX && out.i64 == INT64_MIN && out.u32 == UINT32_MAX);

    start(&b, 1);
    key(&b, "u32");
    msgpack_pack_uint64(&b.pk, (uint64_t)UINT32_MAX + 1);
    refused(&b, "u32");
    start(&b, 1);
    key(&b, "u64");
    msgpack_pack_int64(&b.pk, -1);
    refused(&b, "u64");
    start(&b, 1);
    key(&b, "i64");
    msgpack_pack_uint64(&b.pk, (uint64_t)INT64_MAX + 1);
    refused(&b, "i64");
    start(&b, 1);
    key(&b, "choice");
    msgpack_pack_int(&b.pk, 4);
    refused(&b, "limit is 3");
    start(&b, 1);
    key(&b, "f32");
    msgpack_pack_double(&b.pk, 1e300); /* infinite as a float */
    refused(&b, "not finite");
    start(&b, 1);
    key(&b, "f32");
    msgpack_pack_float(&b.pk, NAN);
    refused(&b, "not finite");
    start(&b, 1);
    key(&b, "f32");
    msgpack_pack_int(&b.pk, -3); /* whole numbers are floats too */
    assert_true(accepted(&b, &arena).f32 == -3.0f);
    pm_arena_free(&arena);
}

static void every_type_refuses_every_other(void **state)
{
    (void)state;
    static const char *const strings_only = "str";
    for (size_t i = 0; i < outer_schema.field_count; i++) {
        const struct pm_field *f = &outer_schema.fields[i];
        struct builder b;
        start(&b, 1);
        key(&b, f->name);
        if (f->type == PM_FIELD_STR)
            msgpack_pack_int(&b.pk, 1);
        else
            msgpack_pack_str_with_body(&b.pk, strings_only, 3);
        refused(&b, f->type == PM_FIELD_REC ? "must be a map" : f->name);
        start(&b, 1);
        key(&b, f->name);
        msgpack_pack_nil(&b.pk);
        refused(&b, f->type == PM_FIELD_REC ? "must be a map" : f->name);
    }
}

static void texts_are_utf8_without_nul(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"a\0b", 3},         {"\xff", 1},         {"\xc3", 1},
        {"\xc0\x80", 2},     {"\xed\xa0\x80", 3}, {"\xf4\x90\x80\x80", 4},
        {"\xe0\x80\xaf", 3}, {"abcdefgh\x80", 9},
    };
    struct builder b;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        start(&b, 1);
        key(&b, "str");
        msgpack_pack_str_with_body(&b.pk, bad[i].bytes, bad[i].n);
        refused(&b, "not UTF-8");
    }
    start(&b, 1);
    key(&b, "str");
    msgpack_pack_str_with_body(&b.pk, "12345678901", 11);
    refused(&b, "limit is 10");
    struct pm_arena arena = {0};
    start(&b, 1);
    key(&b, "str");
    msgpack_pack_str_with_body(&b.pk, "1234567890", 10);
    assert_string_equal(accepted(&b, &arena).str, "1234567890");
    pm_arena_free(&arena);
}

static void lists_keep_to_their_limits(void **state)
{
    (void)state;
    static const char *const names[] = {"recs", "strs", "u32s"};
    struct builder b;
    for (int i = 0; i < 3; i++) {
        start(&b, 1);
        key(&b, names[i]);
        msgpack_pack_array(&b.pk, 4);
        for (int k = 0; k < 4; k++)
            msgpack_pack_nil(&b.pk);
        refused(&b, "limit is");
    }
    start(&b, 1);
    key(&b, "bin");
    msgpack_pack_bin_with_body(&b.pk, "12345", 5);
    refused(&b, "limit is 4");
    for (unsigned n = 3; n <= 5; n += 2) {
        start(&b, 1);
        key(&b, "quad");
        msgpack_pack_array(&b.pk, n);
        for (unsigned k = 0; k < n; k++)
            msgpack_pack_float(&b.pk, 1);
        refused(&b, "not 4");
    }
    start(&b, 1);
    key(&b, "recs");
    msgpack_pack_array(&b.pk, 1);
    msgpack_pack_map(&b.pk, 0);
    refused(&b, "cut off"); /* one byte is too little for a required field */
    start(&b, 1);
    key(&b, "rec");
    msgpack_pack_map(&b.pk, 1);
    key(&b, "s");
    msgpack_pack_str_with_body(&b.pk, "x", 1);
    refused(&b, "field a is missing");
}

static void claimed_counts_allocate_nothing(void **state)
{
    (void)state;
    /* A list that claims 2^32 - 1 elements, with no bytes behind it; a map and a string that do. */
    static const uint8_t heads[] = {0xdd, 0xdf, 0xdb, 0xc6, 0xc9};
    for (size_t i = 0; i < sizeof heads; i++) {
        struct builder b;
        start(&b, 1);
        key(&b, i % 2 ? "unknown" : "u32s");
        uint8_t bomb[5] = {heads[i], 0xff, 0xff, 0xff, 0xff};
        pm_buf_append(&b.buf, bomb, sizeof bomb);
        refused(&b, "cut off");
    }
}

static void unknown_keys_are_skipped_however_deep(void **state)
{
    (void)state;
    struct builder b;
    struct pm_arena arena = {0};
    start(&b, 3);
    key(&b, "from_the_future");
    for (int i = 0; i < 100000; i++)
        msgpack_pack_array(&b.pk, 1);
    msgpack_pack_nil(&b.pk);
    key(&b, "more");
    msgpack_pack_map(&b.pk, 2);
    msgpack_pack_int(&b.pk, 1);
    msgpack_pack_double(&b.pk, 2.0);
    msgpack_pack_ext_with_body(&b.pk, "abc", 3, 5);
    msgpack_pack_bin_with_body(&b.pk, "xyz", 3);
    key(&b, "u32");
    msgpack_pack_int(&b.pk, 9);
    assert_int_equal(accepted(&b, &arena).u32, 9);
    pm_arena_free(&arena);
}

static void malformed_maps_are_refused(void **state)
{
    (void)state;
    struct builder b;
    start(&b, 2);
    key(&b, "u32");
    msgpack_pack_int(&b.pk, 1);
    key(&b, "u32");
    msgpack_pack_int(&b.pk, 2);
    refused(&b, "comes twice");
    start(&b, 1);
    msgpack_pack_int(&b.pk, 1);
    msgpack_pack_int(&b.pk, 1);
    refused(&b, "key must be a string");
    start(&b, 0);
    msgpack_pack_nil(&b.pk);
    refused(&b, "too many");
    memset(&b, 0, sizeof b);
    msgpack_packer_init(&b.pk, &b.buf, append);
    msgpack_pack_array(&b.pk, 0);
    refused(&b, "must be a map");
    memset(&b, 0, sizeof b);
    pm_buf_append(&b.buf, "\xc1", 1); /* the one byte that msgpack never uses */
    refused(&b, "not msgpack");
    memset(&b, 0, sizeof b);
    refused(&b, "cut off"); /* nothing at all */
}

static void versions_are_checked(void **state)
{
    (void)state;
    static const struct {
        int version;
        bool is_read;
    } cases[] = {{100, true}, {203, true}, {299, true}, {300, false}, {100000, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct builder b = {0};
        struct pm_arena arena = {0};
        msgpack_packer_init(&b.pk, &b.buf, append);
        msgpack_pack_map(&b.pk, 1);
        key(&b, "v");
        msgpack_pack_int(&b.pk, cases[i].version);
        if (cases[i].is_read)
            accepted(&b, &arena);
        else
            refused(&b, "version");
        pm_arena_free(&arena);
    }
    struct builder b = {0}; /* no version, and one that is not first */
    msgpack_packer_init(&b.pk, &b.buf, append);
    msgpack_pack_map(&b.pk, 0);
    refused(&b, "does not start with its version");
    memset(&b, 0, sizeof b);
    msgpack_packer_init(&b.pk, &b.buf, append);
    msgpack_pack_map(&b.pk, 2);
    key(&b, "u32");
    msgpack_pack_int(&b.pk, 1);
    key(&b, "v");
    msgpack_pack_int(&b.pk, 100);
    refused(&b, "does not start with its version");
}

/* A schema that contains itself, as no schema of ours does: the depth is bounded all the same. */
struct nest {
    struct nest *inner;
    uint32_t count;
};
static const struct pm_schema nest_schema;
#define T struct nest
static const struct pm_field nest_rows[] = {
    PM_ROW_RECS(T, inner, count, struct nest, &nest_schema, 10, false, NULL),
};
#undef T
static const struct pm_schema nest_schema = PM_SCHEMA_OF("nest", 203, struct nest, nest_rows);

static int decode_nest(int levels, struct pm_error *err)
{
    struct builder b = {0};
    struct pm_arena arena = {0};
    struct nest out;
    msgpack_packer_init(&b.pk, &b.buf, append);
    for (int i = 0; i < levels; i++) {
        bool is_outer = i == 0, is_last = i == levels - 1;
        msgpack_pack_map(&b.pk, (size_t)is_outer + !is_last);
        if (is_outer) {
            key(&b, "v");
            msgpack_pack_int(&b.pk, 203);
        }
        if (!is_last) {
            key(&b, "inner");
            msgpack_pack_array(&b.pk, 1);
        }
    }
    int rc = decode(&nest_schema, b.buf.data, b.buf.size, &arena, &out, err);
    pm_arena_free(&arena);
    pm_buf_free(&b.buf);
    return rc;
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    struct pm_error err;
    assert_int_equal(decode_nest(PM_RECORD_DEPTH, &err), 0);
    assert_int_equal(decode_nest(PM_RECORD_DEPTH + 1, &err), PM_EPROTO);
    assert_non_null(strstr(err.text, "deeper"));
}

static void encoder_mends_what_it_can(void **state)
{
    (void)state;
    struct outer record = {.str = "a\xff"
                                  "b",
                           .f32 = INFINITY},
                 out;
    struct pm_buf buf = {0};
    struct pm_arena arena = {0};
    struct pm_error err;
    assert_int_equal(pm_record_try_encode(&outer_schema, &record, &buf, &err), 0);
    assert_int_equal(decode(&outer_schema, buf.data, buf.size, &arena, &out, &err), 0);
    assert_string_equal(out.str, "a\xef\xbf\xbd"
                                 "b");
    assert_true(out.f32 == 0);
    pm_buf_clear(&buf);
    record.str = "\xff\xff\xff\xff"; /* 12 bytes when mended */
    assert_int_equal(pm_record_try_encode(&outer_schema, &record, &buf, &err), PM_ELIMIT);
    assert_non_null(strstr(err.text, "str"));
    assert_int_equal(buf.size, 0);
    record.str = "12345678901";
    assert_int_equal(pm_record_try_encode(&outer_schema, &record, &buf, &err), PM_ELIMIT);
    uint32_t four[4] = {1, 2, 3, 4};
    record = (struct outer){.u32s = four, .u32_count = 4};
    assert_int_equal(pm_record_try_encode(&outer_schema, &record, &buf, &err), PM_ELIMIT);
    record = (struct outer){.rec = {.s = "12345678901"}};
    assert_int_equal(pm_record_try_encode(&outer_schema, &record, &buf, &err), PM_ELIMIT);
    pm_buf_free(&buf);
    pm_arena_free(&arena);
}

/* Every prefix and thousands of mutants of every record: refused or read, never a crash; what is read can be
 * written and read again. */
static void broken_bytes_never_hurt(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    for (uint32_t i = 0; i < 60 + sample_page_schema_count; i++) {
        const struct pm_schema *schema = i < 60 ? pm_msg_schema(i) : sample_page_schemas[i - 60];
        if (!schema)
            continue;
        struct pm_arena arena = {0}, work = {0};
        struct pm_buf good = {0};
        struct pm_error err;
        void *record = pm_arena_alloc(&arena, schema->size), *out = pm_arena_alloc(&arena, schema->size);
        sample_fill(schema, &arena, record, 3);
        pm_record_encode(schema, record, &good);
        for (size_t n = 0; n < good.size; n++) {
            assert_int_equal(decode(schema, good.data, n, &work, out, &err), PM_EPROTO);
            pm_arena_clear(&work);
        }
        uint8_t *bytes = pm_arena_alloc(&arena, good.size);
        for (int k = 0; k < 2000; k++) {
            memcpy(bytes, good.data, good.size);
            for (int m = 0; m < 1 + k % 3; m++) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                bytes[random % good.size] = (uint8_t)(random >> 32);
            }
            if (!decode(schema, bytes, good.size, &work, out, &err)) {
                struct pm_buf again = {0};
                assert_int_equal(pm_record_try_encode(schema, out, &again, &err), 0);
                assert_int_equal(decode(schema, again.data, again.size, &work, record, &err), 0);
                assert_null(sample_difference(schema, out, record));
                pm_buf_free(&again);
            }
            pm_arena_clear(&work);
        }
        pm_buf_free(&good);
        pm_arena_free(&work);
        pm_arena_free(&arena);
    }
}

static void page_texts_are_a_list_of_bins(void **state)
{
    (void)state;
    struct pm_bytes texts[2] = {{(const uint8_t *)"one", 3}, {NULL, 0}};
    struct pm_page_texts in = {texts, 2}, out;
    struct pm_buf buf = {0};
    struct pm_arena arena = {0};
    struct pm_error err;
    pm_page_texts_encode(&in, &buf);
    static const uint8_t expected[] = {0x92, 0xc4, 3, 'o', 'n', 'e', 0xc4, 0};
    assert_int_equal(buf.size, sizeof expected);
    assert_memory_equal(buf.data, expected, sizeof expected);
    assert_int_equal(pm_page_texts_decode(buf.data, buf.size, &arena, &out, &err), 0);
    assert_int_equal(out.text_count, 2);
    assert_memory_equal(out.texts[0].data, "one", 3);
    assert_int_equal(out.texts[1].size, 0);
    for (size_t n = 0; n < buf.size; n++)
        assert_int_equal(pm_page_texts_decode(buf.data, n, &arena, &out, &err), PM_EPROTO);
    pm_buf_append(&buf, "", 1);
    assert_int_equal(pm_page_texts_decode(buf.data, buf.size, &arena, &out, &err), PM_EPROTO);
    static const uint8_t bomb[] = {0xdd, 0xff, 0xff, 0xff, 0xff};
    assert_int_equal(pm_page_texts_decode(bomb, sizeof bomb, &arena, &out, &err), PM_EPROTO);
    pm_buf_free(&buf);
    pm_arena_free(&arena);
}

static void names_cover_every_value(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PM_LABEL_COUNT; i++) {
        assert_string_not_equal(pm_label_name(i), "?");
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(pm_label_name(i), pm_label_name(k));
    }
    assert_string_equal(pm_label_name(PM_LABEL_PARAGRAPH_TITLE), "paragraph_title");
    assert_string_equal(pm_label_family(PM_LABEL_TABLE), "table");
    assert_string_equal(pm_label_family(PM_LABEL_INLINE_FORMULA), "formula");
    assert_string_equal(pm_label_family(PM_LABEL_CHART), "image");
    assert_string_equal(pm_label_family(PM_LABEL_LIST), "text");
    assert_string_equal(pm_label_name(PM_LABEL_COUNT), "?");
    assert_string_equal(pm_role_name(PM_ROLE_SUPERVISOR), "supervisor");
    assert_string_equal(pm_role_name(99), "?");
    assert_string_equal(pm_kind_name(PM_KIND_ASSEMBLE_DOC), "assemble-document");
    assert_string_equal(pm_job_state_name(PM_JOB_CANCELLED), "cancelled");
    assert_int_equal(pm_kind_role(PM_KIND_PAGE), PM_ROLE_LAYOUTD);
    assert_int_equal(pm_kind_role(PM_KIND_REGION), PM_ROLE_WORKER);
    assert_int_equal(pm_kind_role(PM_KIND_ASSEMBLE_PAGE), PM_ROLE_COLLECTOR);
    assert_int_equal(pm_kind_role(77), 0);
    assert_string_equal(pm_msg_name(PM_MSG_BLOB_DATA), "BLOB_DATA");
    assert_string_equal(pm_msg_name(200), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_schema_survives_a_round_trip),
        cmocka_unit_test(empty_fields_cost_nothing_and_strings_are_never_null),
        cmocka_unit_test(numbers_keep_to_their_ranges),
        cmocka_unit_test(every_type_refuses_every_other),
        cmocka_unit_test(texts_are_utf8_without_nul),
        cmocka_unit_test(lists_keep_to_their_limits),
        cmocka_unit_test(claimed_counts_allocate_nothing),
        cmocka_unit_test(unknown_keys_are_skipped_however_deep),
        cmocka_unit_test(malformed_maps_are_refused),
        cmocka_unit_test(versions_are_checked),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(encoder_mends_what_it_can),
        cmocka_unit_test(broken_bytes_never_hurt),
        cmocka_unit_test(page_texts_are_a_list_of_bins),
        cmocka_unit_test(names_cover_every_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
