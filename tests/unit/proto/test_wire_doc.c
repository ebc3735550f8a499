/* docs/wire.md against the tables: its last part is what this program prints, so it cannot grow stale.
 * `test_wire_doc --write` brings it up to date. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "sample.h"

#define DOC   PM_SOURCE_DIR "/docs/wire.md"
#define BEGIN "<!-- tables: begin -->\n"
#define END   "<!-- tables: end -->\n"

static const char *type_name(const struct pm_field *f, char *text, size_t size)
{
    static const char *const names[] = {
        [PM_FIELD_U64] = "u64",   [PM_FIELD_I64] = "i64",      [PM_FIELD_U32] = "u32",
        [PM_FIELD_F32] = "float", [PM_FIELD_BOOL] = "bool",    [PM_FIELD_STR] = "string",
        [PM_FIELD_BIN] = "bin",   [PM_FIELD_STRS] = "strings", [PM_FIELD_U32S] = "list of u32",
    };
    if (f->type == PM_FIELD_REC)
        snprintf(text, size, "[%s](#%s)", f->sub->name, f->sub->name);
    else if (f->type == PM_FIELD_RECS)
        snprintf(text, size, "list of [%s](#%s)", f->sub->name, f->sub->name);
    else if (f->type == PM_FIELD_F32S)
        snprintf(text, size, "%zu floats", f->limit);
    else
        snprintf(text, size, "%s", names[f->type]);
    return text;
}

static void print_schema(const struct pm_schema *schema, uint32_t type, struct pm_buf *out)
{
    pm_buf_printf(out, "#### %s\n\n", schema->name);
    if (type)
        pm_buf_printf(out, "Type %u, version %u.", type, schema->version);
    else
        pm_buf_printf(out, "Version %u.", schema->version);
    if (!schema->field_count) {
        pm_buf_text(out, " No fields.\n\n");
        return;
    }
    pm_buf_text(out, "\n\n| Field | Type | Limit | Needed | Meaning |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct pm_field *f = &schema->fields[i];
        char kind[128], limit[32] = "";
        if (f->limit && f->type != PM_FIELD_F32S)
            snprintf(limit, sizeof limit, "%zu", f->limit);
        pm_buf_printf(out, "| %s | %s | %s | %s | %s |\n", f->name, type_name(f, kind, sizeof kind), limit,
                      f->required ? "yes" : "", f->help ? f->help : "");
    }
    pm_buf_text(out, "\n");
}

/* Each nested record once, before the first record that holds it. */
struct printed {
    const struct pm_schema *schemas[128];
    size_t count;
};

static void print_nested(const struct pm_schema *schema, struct printed *done, struct pm_buf *out)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct pm_schema *sub = schema->fields[i].sub;
        bool is_known = !sub;
        for (size_t k = 0; k < done->count && !is_known; k++)
            is_known = done->schemas[k] == sub;
        if (is_known)
            continue;
        assert_true(done->count < 128);
        done->schemas[done->count++] = sub;
        print_nested(sub, done, out);
        print_schema(sub, 0, out);
    }
}

static void print_tables(struct pm_buf *out)
{
    struct printed done = {0};
    pm_buf_text(out, "### Messages\n\n");
    for (uint32_t type = 0; type < 256; type++) {
        const struct pm_schema *schema = pm_msg_schema(type);
        if (!schema)
            continue;
        print_nested(schema, &done, out);
        print_schema(schema, type, out);
    }
    pm_buf_text(out, "### Records in blobs and payloads\n\n");
    for (size_t i = 0; i < sample_page_schema_count; i++) {
        print_nested(sample_page_schemas[i], &done, out);
        print_schema(sample_page_schemas[i], 0, out);
    }
}

static int load(struct pm_buf *doc, char **begin, char **end)
{
    struct pm_error err;
    if (pm_fs_read(DOC, 1 << 20, doc, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    pm_buf_text(doc, "");
    *begin = strstr((char *)doc->data, BEGIN);
    *end = strstr((char *)doc->data, END);
    return *begin && *end && *begin < *end ? 0 : -1;
}

static void document_is_up_to_date(void **state)
{
    (void)state;
    struct pm_buf doc = {0}, tables = {0};
    char *begin = NULL, *end = NULL;
    assert_int_equal(load(&doc, &begin, &end), 0);
    print_tables(&tables);
    begin += strlen(BEGIN);
    if ((size_t)(end - begin) != tables.size || memcmp(begin, tables.data, tables.size))
        fail_msg("docs/wire.md is not what the tables say: run tests/test_wire_doc --write");
    pm_buf_free(&doc);
    pm_buf_free(&tables);
}

static void every_field_says_what_it_means(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < 256; type++) {
        const struct pm_schema *schema = pm_msg_schema(type);
        for (size_t i = 0; schema && i < schema->field_count; i++)
            if (!schema->fields[i].help)
                fail_msg("%s.%s has no help", schema->name, schema->fields[i].name);
    }
}

static int write_document(void)
{
    struct pm_buf doc = {0}, out = {0};
    struct pm_error err;
    char *begin = NULL, *end = NULL;
    if (load(&doc, &begin, &end))
        return 1;
    pm_buf_append(&out, doc.data, (size_t)(begin + strlen(BEGIN) - (char *)doc.data));
    print_tables(&out);
    pm_buf_text(&out, end);
    return pm_fs_write(DOC, out.data, out.size, false, &err) ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--write"))
        return write_document();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(document_is_up_to_date),
        cmocka_unit_test(every_field_says_what_it_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
