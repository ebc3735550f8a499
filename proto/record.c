#include "proto/record.h"

#include <math.h>
#include <string.h>

#include <msgpack.h>

#include "base/utf8.h"
#include "proto/token.h"

#define MAX_FIELDS 64 /* one bit each in the mask of fields seen */

static const void *place(const void *record, const struct pm_field *f)
{
    return (const char *)record + f->offset;
}

static uint32_t list_count(const void *record, const struct pm_field *f)
{
    uint32_t count;
    memcpy(&count, (const char *)record + f->count_offset, sizeof count);
    return count;
}

/* ---- encoding ---- */

static int write_out(void *data, const char *bytes, size_t n)
{
    pm_buf_append(data, bytes, n);
    return 0;
}

static bool is_empty_record(const struct pm_schema *schema, const void *record);

static bool is_empty(const struct pm_field *f, const void *record)
{
    const void *p = place(record, f);
    switch (f->type) {
    case PM_FIELD_U64:
        return !*(const uint64_t *)p;
    case PM_FIELD_I64:
        return !*(const int64_t *)p;
    case PM_FIELD_U32:
        return !*(const uint32_t *)p;
    case PM_FIELD_F32: /* the bits, so that -0 survives */
        return !memcmp(p, &(float){0}, sizeof(float));
    case PM_FIELD_BOOL:
        return !*(const bool *)p;
    case PM_FIELD_STR:
        return !*(const char *const *)p || !**(const char *const *)p;
    case PM_FIELD_BIN:
        return !((const struct pm_bytes *)p)->size;
    case PM_FIELD_REC:
        return is_empty_record(f->sub, p);
    case PM_FIELD_RECS:
    case PM_FIELD_STRS:
    case PM_FIELD_U32S:
        return !list_count(record, f);
    case PM_FIELD_F32S:
        for (size_t i = 0; i < f->limit; i++)
            if (memcmp((const float *)p + i, &(float){0}, sizeof(float)))
                return false;
        return true;
    }
    return true;
}

static bool is_empty_record(const struct pm_schema *schema, const void *record)
{
    for (size_t i = 0; i < schema->field_count; i++)
        if (!is_empty(&schema->fields[i], record))
            return false;
    return true;
}

static void pack_text(msgpack_packer *pk, const char *text)
{
    if (!text)
        text = "";
    size_t n = strlen(text);
    if (pm_utf8_is_valid(text, n)) {
        msgpack_pack_str(pk, n);
        msgpack_pack_str_body(pk, text, n);
        return;
    }
    struct pm_buf mended = {0};
    pm_utf8_mend(text, n, &mended);
    msgpack_pack_str(pk, mended.size);
    msgpack_pack_str_body(pk, mended.data, mended.size);
    pm_buf_free(&mended);
}

static void pack_float(msgpack_packer *pk, float value)
{
    msgpack_pack_float(pk, isfinite(value) ? value : 0.0f);
}

static void pack_record(msgpack_packer *pk, const struct pm_schema *schema, const void *record,
                        unsigned depth);

static void pack_list(msgpack_packer *pk, const struct pm_field *f, const void *record, unsigned depth)
{
    const void *items = *(const void *const *)place(record, f);
    uint32_t count = list_count(record, f);
    PM_ASSERT(items || !count);
    msgpack_pack_array(pk, count);
    for (uint32_t i = 0; i < count; i++) {
        if (f->type == PM_FIELD_RECS)
            pack_record(pk, f->sub, (const char *)items + i * f->sub->size, depth + 1);
        else if (f->type == PM_FIELD_STRS)
            pack_text(pk, ((const char *const *)items)[i]);
        else
            msgpack_pack_uint32(pk, ((const uint32_t *)items)[i]);
    }
}

static void pack_field(msgpack_packer *pk, const struct pm_field *f, const void *record, unsigned depth)
{
    const void *p = place(record, f);
    switch (f->type) {
    case PM_FIELD_U64:
        msgpack_pack_uint64(pk, *(const uint64_t *)p);
        break;
    case PM_FIELD_I64:
        msgpack_pack_int64(pk, *(const int64_t *)p);
        break;
    case PM_FIELD_U32:
        msgpack_pack_uint32(pk, *(const uint32_t *)p);
        break;
    case PM_FIELD_F32:
        pack_float(pk, *(const float *)p);
        break;
    case PM_FIELD_BOOL:
        if (*(const bool *)p)
            msgpack_pack_true(pk);
        else
            msgpack_pack_false(pk);
        break;
    case PM_FIELD_STR:
        pack_text(pk, *(const char *const *)p);
        break;
    case PM_FIELD_BIN: {
        const struct pm_bytes *b = p;
        msgpack_pack_bin(pk, b->size);
        if (b->size)
            msgpack_pack_bin_body(pk, b->data, b->size);
        break;
    }
    case PM_FIELD_REC:
        pack_record(pk, f->sub, p, depth + 1);
        break;
    case PM_FIELD_RECS:
    case PM_FIELD_STRS:
    case PM_FIELD_U32S:
        pack_list(pk, f, record, depth);
        break;
    case PM_FIELD_F32S:
        msgpack_pack_array(pk, f->limit);
        for (size_t i = 0; i < f->limit; i++)
            pack_float(pk, ((const float *)p)[i]);
        break;
    }
}

static void pack_record(msgpack_packer *pk, const struct pm_schema *schema, const void *record,
                        unsigned depth)
{
    PM_ASSERT(depth < PM_RECORD_DEPTH && schema->field_count <= MAX_FIELDS);
    uint64_t written = 0;
    size_t pairs = depth == 0;
    for (size_t i = 0; i < schema->field_count; i++) {
        if (schema->fields[i].required || !is_empty(&schema->fields[i], record)) {
            written |= (uint64_t)1 << i;
            pairs++;
        }
    }
    msgpack_pack_map(pk, pairs);
    if (depth == 0) {
        pack_text(pk, "v");
        msgpack_pack_uint32(pk, schema->version);
    }
    for (size_t i = 0; i < schema->field_count; i++) {
        if (!(written >> i & 1))
            continue;
        pack_text(pk, schema->fields[i].name);
        pack_field(pk, &schema->fields[i], record, depth);
    }
}

void pm_record_encode(const struct pm_schema *schema, const void *record, struct pm_buf *out)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, write_out);
    pack_record(&pk, schema, record, 0);
}

/* ---- limits before sending ---- */

static int over(const struct pm_schema *schema, const struct pm_field *f, size_t is, size_t limit,
                struct pm_error *err)
{
    return pm_fail(err, PM_ELIMIT, "cannot send %s: field %s is %zu, the limit is %zu", schema->name, f->name,
                   is, limit);
}

static int check_limits(const struct pm_schema *schema, const void *record, struct pm_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < schema->field_count && !rc; i++) {
        const struct pm_field *f = &schema->fields[i];
        const void *p = place(record, f);
        if (f->type == PM_FIELD_STR) {
            const char *text = *(const char *const *)p;
            size_t n = text ? strlen(text) : 0;
            /* Mending can make three bytes of one. */
            if (n > f->limit || (n > f->limit / 3 && !pm_utf8_is_valid(text, n) && n * 3 > f->limit))
                return over(schema, f, n, f->limit, err);
        } else if (f->type == PM_FIELD_BIN) {
            if (((const struct pm_bytes *)p)->size > f->limit)
                return over(schema, f, ((const struct pm_bytes *)p)->size, f->limit, err);
        } else if (f->type == PM_FIELD_REC) {
            rc = check_limits(f->sub, p, err);
        } else if (f->type == PM_FIELD_RECS || f->type == PM_FIELD_STRS || f->type == PM_FIELD_U32S) {
            uint32_t count = list_count(record, f);
            const void *items = *(const void *const *)p;
            if (count > f->limit)
                return over(schema, f, count, f->limit, err);
            for (uint32_t k = 0; k < count && !rc; k++) {
                if (f->type == PM_FIELD_RECS)
                    rc = check_limits(f->sub, (const char *)items + k * f->sub->size, err);
                const char *item = f->type == PM_FIELD_STRS ? ((const char *const *)items)[k] : NULL;
                if (item && strlen(item) > PM_RECORD_ITEM_BYTES)
                    return over(schema, f, strlen(item), PM_RECORD_ITEM_BYTES, err);
            }
        }
    }
    return rc;
}

int pm_record_try_encode(const struct pm_schema *schema, const void *record, struct pm_buf *out,
                         struct pm_error *err)
{
    int rc = check_limits(schema, record, err);
    if (!rc)
        pm_record_encode(schema, record, out);
    return rc;
}

/* ---- decoding ---- */

struct decoder {
    struct pm_cursor cursor;
    struct pm_arena *arena;
    struct pm_error *err;
};

static int cut_off(struct decoder *d, const struct pm_schema *schema)
{
    return pm_fail(d->err, PM_EPROTO, "record %s is cut off or not msgpack", schema->name);
}

static int wrong_type(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f,
                      const char *wanted, enum pm_token_kind is)
{
    return pm_fail(d->err, PM_EPROTO, "record %s: field %s must be %s, not %s", schema->name, f->name, wanted,
                   pm_token_kind_name(is));
}

static int too_much(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f, uint64_t is,
                    uint64_t limit)
{
    return pm_fail(d->err, PM_EPROTO, "record %s: field %s is %llu, the limit is %llu", schema->name, f->name,
                   (unsigned long long)is, (unsigned long long)limit);
}

/* Absent strings are "", at every level that is embedded. */
static void set_empty(const struct pm_schema *schema, void *record)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct pm_field *f = &schema->fields[i];
        void *p = (char *)record + f->offset;
        if (f->type == PM_FIELD_STR)
            *(const char **)p = "";
        else if (f->type == PM_FIELD_REC)
            set_empty(f->sub, p);
    }
}

static int read_text(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f,
                     size_t limit, const char **out)
{
    struct pm_token t;
    if (!pm_token_read(&d->cursor, &t))
        return cut_off(d, schema);
    if (t.kind != PM_TOKEN_STR)
        return wrong_type(d, schema, f, "a string", t.kind);
    if (t.size > limit)
        return too_much(d, schema, f, t.size, limit);
    if (!pm_utf8_is_text(t.data, t.size))
        return pm_fail(d->err, PM_EPROTO, "record %s: field %s is not UTF-8 text", schema->name, f->name);
    *out = t.size ? pm_arena_text(d->arena, (const char *)t.data, t.size) : "";
    return 0;
}

static int read_number(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f,
                       uint64_t limit, uint64_t *out)
{
    struct pm_token t;
    if (!pm_token_read(&d->cursor, &t))
        return cut_off(d, schema);
    if (t.kind != PM_TOKEN_UINT)
        return wrong_type(d, schema, f, "a number", t.kind);
    if (t.as.number > limit)
        return too_much(d, schema, f, t.as.number, limit);
    *out = t.as.number;
    return 0;
}

static int read_signed(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f,
                       int64_t *out)
{
    struct pm_token t;
    if (!pm_token_read(&d->cursor, &t))
        return cut_off(d, schema);
    if (t.kind != PM_TOKEN_UINT && t.kind != PM_TOKEN_INT)
        return wrong_type(d, schema, f, "a number", t.kind);
    if (t.kind == PM_TOKEN_UINT && t.as.number > INT64_MAX)
        return too_much(d, schema, f, t.as.number, INT64_MAX);
    *out = t.kind == PM_TOKEN_UINT ? (int64_t)t.as.number : t.as.negative;
    return 0;
}

static int read_float(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f, float *out)
{
    struct pm_token t;
    if (!pm_token_read(&d->cursor, &t))
        return cut_off(d, schema);
    if (t.kind == PM_TOKEN_FLOAT)
        *out = (float)t.as.real;
    else if (t.kind == PM_TOKEN_UINT)
        *out = (float)t.as.number;
    else if (t.kind == PM_TOKEN_INT)
        *out = (float)t.as.negative;
    else
        return wrong_type(d, schema, f, "a float", t.kind);
    if (!isfinite(*out))
        return pm_fail(d->err, PM_EPROTO, "record %s: field %s is not finite", schema->name, f->name);
    return 0;
}

/* Fewest bytes that an element can take: what bounds the memory of a list by the bytes received. */
static size_t least_bytes(const struct pm_schema *schema)
{
    size_t n = 1;
    for (size_t i = 0; i < schema->field_count; i++)
        if (schema->fields[i].required)
            n += strlen(schema->fields[i].name) + 2;
    return n;
}

static int read_record(struct decoder *d, const struct pm_schema *schema, void *record, unsigned depth);

static int read_list(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f,
                     void *record, unsigned depth)
{
    struct pm_token t;
    if (!pm_token_read(&d->cursor, &t))
        return cut_off(d, schema);
    if (t.kind != PM_TOKEN_ARRAY)
        return wrong_type(d, schema, f, "a list", t.kind);
    if (t.size > f->limit)
        return too_much(d, schema, f, t.size, f->limit);
    size_t item_bytes = f->type == PM_FIELD_RECS   ? f->sub->size
                        : f->type == PM_FIELD_STRS ? sizeof(char *)
                                                   : sizeof(uint32_t);
    if (f->type == PM_FIELD_RECS && t.size > d->cursor.left / least_bytes(f->sub))
        return cut_off(d, schema);
    uint32_t count = (uint32_t)t.size;
    if (!count)
        return 0;
    char *items = pm_arena_alloc(d->arena, count * item_bytes);
    int rc = 0;
    for (uint32_t i = 0; i < count && !rc; i++) {
        void *item = items + i * item_bytes;
        uint64_t number = 0;
        if (f->type == PM_FIELD_RECS) {
            rc = read_record(d, f->sub, item, depth + 1);
        } else if (f->type == PM_FIELD_STRS) {
            rc = read_text(d, schema, f, PM_RECORD_ITEM_BYTES, item);
        } else {
            rc = read_number(d, schema, f, UINT32_MAX, &number);
            *(uint32_t *)item = (uint32_t)number;
        }
    }
    if (rc)
        return rc;
    memcpy((char *)record + f->offset, &items, sizeof items);
    memcpy((char *)record + f->count_offset, &count, sizeof count);
    return 0;
}

static int read_floats(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f,
                       float *out)
{
    struct pm_token t;
    if (!pm_token_read(&d->cursor, &t))
        return cut_off(d, schema);
    if (t.kind != PM_TOKEN_ARRAY)
        return wrong_type(d, schema, f, "a list", t.kind);
    if (t.size != f->limit)
        return pm_fail(d->err, PM_EPROTO, "record %s: field %s has %zu numbers, not %zu", schema->name,
                       f->name, t.size, f->limit);
    int rc = 0;
    for (size_t i = 0; i < f->limit && !rc; i++)
        rc = read_float(d, schema, f, out + i);
    return rc;
}

static int read_field(struct decoder *d, const struct pm_schema *schema, const struct pm_field *f,
                      void *record, unsigned depth)
{
    void *p = (char *)record + f->offset;
    uint64_t number = 0;
    struct pm_token t;
    int rc;
    switch (f->type) {
    case PM_FIELD_U64:
        return read_number(d, schema, f, UINT64_MAX, p);
    case PM_FIELD_I64:
        return read_signed(d, schema, f, p);
    case PM_FIELD_U32:
        rc = read_number(d, schema, f, f->limit ? f->limit : UINT32_MAX, &number);
        *(uint32_t *)p = (uint32_t)number;
        return rc;
    case PM_FIELD_F32:
        return read_float(d, schema, f, p);
    case PM_FIELD_BOOL:
        if (!pm_token_read(&d->cursor, &t))
            return cut_off(d, schema);
        if (t.kind != PM_TOKEN_BOOL)
            return wrong_type(d, schema, f, "true or false", t.kind);
        *(bool *)p = t.as.truth;
        return 0;
    case PM_FIELD_STR:
        return read_text(d, schema, f, f->limit, p);
    case PM_FIELD_BIN:
        if (!pm_token_read(&d->cursor, &t))
            return cut_off(d, schema);
        if (t.kind != PM_TOKEN_BIN)
            return wrong_type(d, schema, f, "bin", t.kind);
        if (t.size > f->limit)
            return too_much(d, schema, f, t.size, f->limit);
        *(struct pm_bytes *)p = (struct pm_bytes){
            t.size ? (const uint8_t *)pm_arena_text(d->arena, (const char *)t.data, t.size) : NULL, t.size};
        return 0;
    case PM_FIELD_REC:
        return read_record(d, f->sub, p, depth + 1);
    case PM_FIELD_RECS:
    case PM_FIELD_STRS:
    case PM_FIELD_U32S:
        return read_list(d, schema, f, record, depth);
    case PM_FIELD_F32S:
        return read_floats(d, schema, f, p);
    }
    return pm_fail(d->err, PM_EINTERNAL, "record %s: field %s has no type", schema->name, f->name);
}

/* Senders write fields in table order, so the search starts behind the last hit and mostly ends there. */
static size_t find_field(const struct pm_schema *schema, size_t start, const struct pm_token *key)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        size_t at = (start + i) % schema->field_count;
        const char *name = schema->fields[at].name;
        if (strlen(name) == key->size && !memcmp(name, key->data, key->size))
            return at;
    }
    return schema->field_count;
}

static int read_version(struct decoder *d, const struct pm_schema *schema, size_t pairs)
{
    struct pm_token key, version;
    if (!pairs || !pm_token_read(&d->cursor, &key) || key.kind != PM_TOKEN_STR || key.size != 1 ||
        key.data[0] != 'v' || !pm_token_read(&d->cursor, &version) || version.kind != PM_TOKEN_UINT)
        return pm_fail(d->err, PM_EPROTO, "record %s does not start with its version", schema->name);
    if (version.as.number / 100 > schema->version / 100)
        return pm_fail(d->err, PM_EPROTO, "record %s has version %llu, this program reads up to %u.99",
                       schema->name, (unsigned long long)version.as.number, schema->version / 100);
    return 0;
}

static int read_record(struct decoder *d, const struct pm_schema *schema, void *record, unsigned depth)
{
    PM_ASSERT(schema->field_count <= MAX_FIELDS);
    struct pm_token t;
    if (depth >= PM_RECORD_DEPTH)
        return pm_fail(d->err, PM_EPROTO, "record %s lies deeper than %d levels", schema->name,
                       PM_RECORD_DEPTH);
    if (!pm_token_read(&d->cursor, &t))
        return cut_off(d, schema);
    if (t.kind != PM_TOKEN_MAP)
        return pm_fail(d->err, PM_EPROTO, "record %s must be a map, not %s", schema->name,
                       pm_token_kind_name(t.kind));
    set_empty(schema, record);
    size_t pairs = t.size, next = 0;
    uint64_t seen = 0;
    int rc = depth ? 0 : read_version(d, schema, pairs);
    for (size_t pair = depth ? 0 : 1; pair < pairs && !rc; pair++) {
        if (!pm_token_read(&d->cursor, &t))
            return cut_off(d, schema);
        if (t.kind != PM_TOKEN_STR)
            return pm_fail(d->err, PM_EPROTO, "record %s: a key must be a string, not %s", schema->name,
                           pm_token_kind_name(t.kind));
        size_t at = find_field(schema, next, &t);
        if (at == schema->field_count) {
            if (!pm_token_skip(&d->cursor))
                return cut_off(d, schema);
            continue;
        }
        if (seen >> at & 1)
            return pm_fail(d->err, PM_EPROTO, "record %s: field %s comes twice", schema->name,
                           schema->fields[at].name);
        seen |= (uint64_t)1 << at;
        next = at + 1;
        rc = read_field(d, schema, &schema->fields[at], record, depth);
    }
    for (size_t i = 0; i < schema->field_count && !rc; i++)
        if (schema->fields[i].required && !(seen >> i & 1))
            return pm_fail(d->err, PM_EPROTO, "record %s: field %s is missing", schema->name,
                           schema->fields[i].name);
    return rc;
}

int pm_record_decode(const struct pm_schema *schema, const void *data, size_t bytes, struct pm_arena *arena,
                     void *record_out, struct pm_error *err)
{
    struct decoder d = {{data, bytes}, arena, err};
    memset(record_out, 0, schema->size);
    int rc = read_record(&d, schema, record_out, 0);
    if (!rc && d.cursor.left)
        rc = pm_fail(err, PM_EPROTO, "record %s is followed by %zu bytes too many", schema->name,
                     d.cursor.left);
    return rc;
}
