#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_internal.h"
#include "engine/text/tokenizer_unicode.h"

const char *pm_value_kind_name(const struct pm_value *v)
{
    static const char *const names[] = {"an undefined value", "none",   "a boolean", "an integer",  "a float",
                                        "a string",           "a list", "a mapping", "a namespace", "a macro",
                                        "a loop object"};
    static const char *const flavours[] = {"a list", "a tuple", "a dictionary view", "a generator"};
    return v->kind == PM_V_SEQ ? flavours[v->u.seq->flavour] : names[v->kind];
}

static int fail_undefined(struct pm_render *r, const struct pm_value *v)
{
    return pm_render_fail(r, PM_EINVAL, "\"%.*s\" is undefined",
                          (int)(v->u.string.bytes > 80 ? 80 : v->u.string.bytes),
                          v->u.string.text ? v->u.string.text : "");
}

/* ---- making values ---- */

int pm_value_seq(struct pm_render *r, enum pm_seq_flavour flavour, size_t count, struct pm_seq **out,
                 struct pm_value *value_out)
{
    int rc = pm_render_alloc(r, 1, sizeof **out, out);
    if (!rc)
        rc = pm_render_alloc(r, count ? count : 1, sizeof *(*out)->items, &(*out)->items);
    if (rc)
        return rc;
    (*out)->flavour = flavour;
    (*out)->count = count;
    if (value_out)
        *value_out = (struct pm_value){PM_V_SEQ, {.seq = *out}};
    return 0;
}

const struct pm_value *pm_dict_get(const struct pm_dict *d, struct pm_text key)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->pairs[i].key.bytes == key.bytes &&
            (key.bytes == 0 || memcmp(d->pairs[i].key.text, key.text, key.bytes) == 0))
            return &d->pairs[i].value;
    return NULL;
}

int pm_dict_put(struct pm_render *r, struct pm_dict *d, struct pm_text key, const struct pm_value *v)
{
    int rc = pm_render_work(r, 16 * d->count);
    if (rc)
        return rc;
    struct pm_value *old = (struct pm_value *)pm_dict_get(d, key);
    if (old) {
        *old = *v;
        return 0;
    }
    if (d->count == d->capacity) {
        size_t capacity = d->capacity ? 2 * d->capacity : 4;
        struct pm_pair *pairs;
        if ((rc = pm_render_alloc(r, capacity, sizeof *pairs, &pairs)))
            return rc;
        if (d->count)
            memcpy(pairs, d->pairs, d->count * sizeof *pairs);
        d->pairs = pairs;
        d->capacity = capacity;
    }
    d->pairs[d->count++] = (struct pm_pair){key, *v};
    return 0;
}

static int dict_from_json(struct pm_render *r, const json_t *json, int nesting, struct pm_value *out)
{
    struct pm_dict *d;
    size_t n = json_object_size(json);
    int rc = pm_render_alloc(r, 1, sizeof *d, &d);
    if (!rc)
        rc = pm_render_alloc(r, n ? n : 1, sizeof *d->pairs, &d->pairs);
    if (rc)
        return rc;
    d->capacity = n ? n : 1;
    *out = (struct pm_value){PM_V_DICT, {.dict = d}};
    /* jansson keeps keys apart and in order, so they go in as they come. */
    for (void *at = json_object_iter((json_t *)json); at && !rc;
         at = json_object_iter_next((json_t *)json, at)) {
        struct pm_pair *pair = &d->pairs[d->count++];
        pair->key = (struct pm_text){json_object_iter_key(at), json_object_iter_key_len(at)};
        rc = pm_value_from_json(r, json_object_iter_value(at), nesting + 1, &pair->value);
    }
    return rc;
}

int pm_value_from_json(struct pm_render *r, const json_t *json, int nesting, struct pm_value *out)
{
    struct pm_seq *seq;
    int rc = 0;
    if (nesting > PM_TEMPLATE_MAX_VALUE_NESTING)
        return pm_render_fail(r, PM_ELIMIT, "the variables nest deeper than %d",
                              PM_TEMPLATE_MAX_VALUE_NESTING);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return dict_from_json(r, json, nesting, out);
    case JSON_ARRAY:
        rc = pm_value_seq(r, PM_SEQ_LIST, json_array_size(json), &seq, out);
        for (size_t i = 0; !rc && i < seq->count; i++)
            rc = pm_value_from_json(r, json_array_get(json, i), nesting + 1, &seq->items[i]);
        return rc;
    case JSON_STRING:
        *out = pm_value_string(json_string_value(json), json_string_length(json));
        return 0;
    case JSON_INTEGER:
        *out = pm_value_int(json_integer_value(json));
        return 0;
    case JSON_REAL:
        *out = (struct pm_value){PM_V_FLOAT, {.real = json_real_value(json)}};
        return 0;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = pm_value_bool(json_is_true(json));
        return 0;
    default:
        *out = (struct pm_value){.kind = PM_V_NONE};
        return 0;
    }
}

int pm_value_take(struct pm_render *r, struct pm_buf *buf, struct pm_value *out)
{
    char *copy = NULL;
    int rc = pm_render_work(r, buf->size);
    if (!rc)
        rc = pm_render_alloc(r, buf->size + 1, 1, &copy);
    if (!rc && buf->size)
        memcpy(copy, buf->data, buf->size);
    *out = pm_value_string(copy, rc ? 0 : buf->size);
    pm_buf_free(buf);
    return rc;
}

/* ---- truth and comparison ---- */

bool pm_value_is_true(const struct pm_value *v)
{
    switch (v->kind) {
    case PM_V_UNDEFINED:
    case PM_V_NONE:
        return false;
    case PM_V_BOOL:
        return v->u.boolean;
    case PM_V_INT:
        return v->u.integer != 0;
    case PM_V_FLOAT:
        return v->u.real != 0;
    case PM_V_STRING:
        return v->u.string.bytes > 0;
    case PM_V_SEQ:
        return v->u.seq->count > 0 || v->u.seq->flavour == PM_SEQ_LAZY;
    case PM_V_DICT:
        return v->u.dict->count > 0;
    default:
        return true;
    }
}

bool pm_value_is_number(const struct pm_value *v, double *out)
{
    *out = v->kind == PM_V_BOOL    ? v->u.boolean
           : v->kind == PM_V_INT   ? (double)v->u.integer
           : v->kind == PM_V_FLOAT ? v->u.real
                                   : 0;
    return v->kind == PM_V_BOOL || v->kind == PM_V_INT || v->kind == PM_V_FLOAT;
}

static int compare_numbers(const struct pm_value *a, const struct pm_value *b)
{
    double x, y;
    if (a->kind != PM_V_FLOAT && b->kind != PM_V_FLOAT) {
        int64_t i = a->kind == PM_V_BOOL ? a->u.boolean : a->u.integer;
        int64_t k = b->kind == PM_V_BOOL ? b->u.boolean : b->u.integer;
        return i < k ? -1 : i > k;
    }
    pm_value_is_number(a, &x);
    pm_value_is_number(b, &y);
    return x < y ? -1 : x > y;
}

static int compare_text(struct pm_text a, struct pm_text b)
{
    size_t n = a.bytes < b.bytes ? a.bytes : b.bytes;
    int c = n ? memcmp(a.text, b.text, n) : 0; /* UTF-8 sorts as its code points do */
    return c < 0 ? -1 : c > 0 ? 1 : a.bytes < b.bytes ? -1 : a.bytes > b.bytes;
}

static int equal_seqs(struct pm_render *r, const struct pm_seq *a, const struct pm_seq *b, bool *out)
{
    int rc = 0;
    if (a->flavour >= PM_SEQ_VIEW || b->flavour >= PM_SEQ_VIEW)
        return pm_render_fail(r, PM_EUNSUPPORTED, "comparing a generator or a dictionary view is not served");
    *out = a->flavour == b->flavour && a->count == b->count;
    for (size_t i = 0; i < a->count && *out && !rc; i++)
        rc = pm_value_equal(r, &a->items[i], &b->items[i], out);
    return rc;
}

static int equal_dicts(struct pm_render *r, const struct pm_dict *a, const struct pm_dict *b, bool *out)
{
    int rc = pm_render_work(r, 16 * a->count * (b->count + 1));
    *out = a->count == b->count;
    for (size_t i = 0; i < a->count && *out && !rc; i++) {
        const struct pm_value *other = pm_dict_get(b, a->pairs[i].key);
        *out = other != NULL;
        if (other)
            rc = pm_value_equal(r, &a->pairs[i].value, other, out);
    }
    return rc;
}

int pm_value_equal(struct pm_render *r, const struct pm_value *a, const struct pm_value *b, bool *out)
{
    double x;
    int rc = pm_render_work(r, 16);
    if (rc)
        return rc;
    if (pm_value_is_number(a, &x) && pm_value_is_number(b, &x)) {
        *out = compare_numbers(a, b) == 0;
        return 0;
    }
    *out = false;
    if (a->kind != b->kind)
        return 0;
    switch (a->kind) {
    case PM_V_STRING:
        *out = compare_text(a->u.string, b->u.string) == 0;
        return pm_render_work(r, a->u.string.bytes);
    case PM_V_SEQ:
        return equal_seqs(r, a->u.seq, b->u.seq, out);
    case PM_V_DICT:
        return equal_dicts(r, a->u.dict, b->u.dict, out);
    case PM_V_NAMESPACE:
        *out = a->u.dict == b->u.dict;
        return 0;
    case PM_V_MACRO:
    case PM_V_LOOP:
        *out = a->u.macro == b->u.macro;
        return 0;
    default:
        *out = true; /* none, undefined */
        return 0;
    }
}

int pm_value_order(struct pm_render *r, const struct pm_value *a, const struct pm_value *b, int *out)
{
    double x;
    int rc = pm_render_work(r, 16);
    if (rc)
        return rc;
    if (pm_value_is_number(a, &x) && pm_value_is_number(b, &x)) {
        *out = compare_numbers(a, b);
        return 0;
    }
    if (a->kind == PM_V_STRING && b->kind == PM_V_STRING) {
        *out = compare_text(a->u.string, b->u.string);
        return 0;
    }
    if (a->kind == PM_V_UNDEFINED || b->kind == PM_V_UNDEFINED)
        return fail_undefined(r, a->kind == PM_V_UNDEFINED ? a : b);
    return pm_render_fail(r, a->kind == b->kind && a->kind == PM_V_SEQ ? PM_EUNSUPPORTED : PM_EINVAL,
                          "%s and %s cannot be ordered", pm_value_kind_name(a), pm_value_kind_name(b));
}

int pm_value_contains(struct pm_render *r, const struct pm_value *box, const struct pm_value *v, bool *out)
{
    int rc = 0;
    *out = false;
    switch (box->kind) {
    case PM_V_UNDEFINED:
        return 0;
    case PM_V_STRING:
        if (v->kind == PM_V_UNDEFINED)
            return fail_undefined(r, v);
        if (v->kind != PM_V_STRING)
            return pm_render_fail(r, PM_EINVAL, "%s is looked for in a string", pm_value_kind_name(v));
        *out = pm_text_find(box->u.string, v->u.string, 0) != SIZE_MAX;
        return pm_render_work(r, box->u.string.bytes);
    case PM_V_DICT:
        if (v->kind == PM_V_DICT || (v->kind == PM_V_SEQ && v->u.seq->flavour == PM_SEQ_LIST))
            return pm_render_fail(r, PM_EINVAL, "%s is looked for in a mapping", pm_value_kind_name(v));
        *out = v->kind == PM_V_STRING && pm_dict_get(box->u.dict, v->u.string);
        return pm_render_work(r, 16 * box->u.dict->count);
    case PM_V_SEQ:
        for (size_t i = 0; i < box->u.seq->count && !*out && !rc; i++)
            rc = pm_value_equal(r, &box->u.seq->items[i], v, out);
        return rc;
    default:
        return pm_render_fail(r, PM_EINVAL, "something is looked for in %s", pm_value_kind_name(box));
    }
}

/* ---- walking, attributes, items ---- */

static int walk_string(struct pm_render *r, struct pm_text s, struct pm_seq **out)
{
    int rc = pm_value_seq(r, PM_SEQ_LIST, pm_text_length(s), out, NULL);
    for (size_t i = 0, at = 0, n; !rc && at < s.bytes; at += n) {
        pm_unicode_at((const uint8_t *)s.text + at, s.bytes - at, &n);
        (*out)->items[i++] = pm_value_string(s.text + at, n);
    }
    return rc;
}

int pm_value_walk(struct pm_render *r, const struct pm_value *v, const struct pm_seq **out)
{
    struct pm_seq *seq;
    int rc;
    switch (v->kind) {
    case PM_V_SEQ:
        *out = v->u.seq;
        return 0;
    case PM_V_UNDEFINED:
        rc = pm_value_seq(r, PM_SEQ_LIST, 0, &seq, NULL);
        *out = seq;
        return rc;
    case PM_V_STRING:
        rc = walk_string(r, v->u.string, &seq);
        *out = seq;
        return rc;
    case PM_V_DICT:
        rc = pm_value_seq(r, PM_SEQ_LIST, v->u.dict->count, &seq, NULL);
        for (size_t i = 0; !rc && i < seq->count; i++)
            seq->items[i] = (struct pm_value){PM_V_STRING, {.string = v->u.dict->pairs[i].key}};
        *out = seq;
        return rc;
    default:
        return pm_render_fail(r, PM_EINVAL, "%s cannot be walked through", pm_value_kind_name(v));
    }
}

/* Names that Python's types answer to. Jinja would give the bound method (or number): nothing a template can
 * use without calling it, so that meeting one is refused rather than taken for a missing key. */
static bool is_python_attribute(const struct pm_value *v, struct pm_text name)
{
    static const char of_string[] =
        " capitalize casefold center count encode endswith expandtabs find format format_map index isalnum "
        "isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle "
        "isupper "
        "join ljust lower lstrip maketrans partition removeprefix removesuffix replace rfind rindex rjust "
        "rpartition rsplit rstrip split splitlines startswith strip swapcase title translate upper zfill ";
    static const char of_list[] = " append clear copy count extend index insert pop remove reverse sort ";
    static const char of_dict[] = " clear copy fromkeys get items keys pop popitem setdefault update values ";
    static const char of_number[] = " as_integer_ratio bit_count bit_length conjugate denominator from_bytes "
                                    "fromhex hex imag is_integer numerator real to_bytes ";
    const char *list = v->kind == PM_V_STRING  ? of_string
                       : v->kind == PM_V_SEQ   ? of_list
                       : v->kind == PM_V_DICT  ? of_dict
                       : v->kind == PM_V_BOOL  ? of_number
                       : v->kind == PM_V_INT   ? of_number
                       : v->kind == PM_V_FLOAT ? of_number
                                               : "";
    for (const char *at = list; (at = strchr(at, ' ')) && at[1]; at++)
        if (strncmp(at + 1, name.text, name.bytes) == 0 && at[1 + name.bytes] == ' ')
            return true;
    return false;
}

static int refuse_method(struct pm_render *r, const struct pm_value *v, struct pm_text name)
{
    return pm_render_fail(r, PM_EUNSUPPORTED, "%.*s of %s is a method; it is served only when called",
                          (int)name.bytes, name.text, pm_value_kind_name(v));
}

static int loop_attribute(struct pm_render *r, const struct pm_loop *loop, struct pm_text name,
                          struct pm_value *out)
{
    int64_t index = (int64_t)loop->index, count = (int64_t)loop->items->count;
    if (pm_text_is(name, "index"))
        *out = pm_value_int(index + 1);
    else if (pm_text_is(name, "index0"))
        *out = pm_value_int(index);
    else if (pm_text_is(name, "revindex"))
        *out = pm_value_int(count - index);
    else if (pm_text_is(name, "revindex0"))
        *out = pm_value_int(count - index - 1);
    else if (pm_text_is(name, "first"))
        *out = pm_value_bool(index == 0);
    else if (pm_text_is(name, "last"))
        *out = pm_value_bool(index == count - 1);
    else if (pm_text_is(name, "length"))
        *out = pm_value_int(count);
    else if (pm_text_is(name, "depth"))
        *out = pm_value_int(1);
    else if (pm_text_is(name, "depth0"))
        *out = pm_value_int(0);
    else if (pm_text_is(name, "previtem"))
        *out = index > 0 ? loop->items->items[index - 1] : pm_value_undefined(name);
    else if (pm_text_is(name, "nextitem"))
        *out = index + 1 < count ? loop->items->items[index + 1] : pm_value_undefined(name);
    else
        return pm_render_fail(r, PM_EUNSUPPORTED, "loop.%.*s is not served", (int)name.bytes, name.text);
    return 0;
}

int pm_value_attribute(struct pm_render *r, const struct pm_value *v, struct pm_text name,
                       struct pm_value *out)
{
    const struct pm_value *found = NULL;
    switch (v->kind) {
    case PM_V_UNDEFINED:
        return fail_undefined(r, v);
    case PM_V_LOOP:
        return loop_attribute(r, v->u.loop, name, out);
    case PM_V_MACRO:
        return pm_render_fail(r, PM_EUNSUPPORTED, "attributes of macros are not served");
    case PM_V_DICT:
    case PM_V_NAMESPACE:
        if (v->kind == PM_V_DICT && is_python_attribute(v, name))
            return refuse_method(r, v, name);
        found = pm_dict_get(v->u.dict, name);
        *out = found ? *found : pm_value_undefined(name);
        return pm_render_work(r, 16 * v->u.dict->count);
    default:
        *out = pm_value_undefined(name);
        return is_python_attribute(v, name) ? refuse_method(r, v, name) : 0;
    }
}

/* Where character i of s begins (from 0), or the end of s. */
static size_t character_offset(struct pm_text s, size_t i)
{
    size_t at = 0, n;
    for (; i > 0 && at < s.bytes; i--, at += n)
        pm_unicode_at((const uint8_t *)s.text + at, s.bytes - at, &n);
    return at;
}

static bool as_index(const struct pm_value *v, int64_t *out)
{
    *out = v->kind == PM_V_BOOL ? v->u.boolean : v->kind == PM_V_INT ? v->u.integer : 0;
    return v->kind == PM_V_BOOL || v->kind == PM_V_INT;
}

int pm_value_item(struct pm_render *r, const struct pm_value *v, const struct pm_value *key,
                  struct pm_value *out)
{
    int64_t i;
    const struct pm_value *found = NULL;
    struct pm_text what = key->kind == PM_V_STRING ? key->u.string : (struct pm_text){"item", 4};
    *out = pm_value_undefined(what);
    if (v->kind == PM_V_UNDEFINED)
        return fail_undefined(r, v);
    if (v->kind == PM_V_DICT && key->kind == PM_V_STRING) {
        found = pm_dict_get(v->u.dict, key->u.string);
        if (found)
            *out = *found;
        else if (is_python_attribute(v, key->u.string))
            return refuse_method(r, v, key->u.string);
        return pm_render_work(r, 16 * v->u.dict->count);
    }
    if (v->kind == PM_V_SEQ && as_index(key, &i)) {
        const struct pm_seq *seq = v->u.seq;
        if (seq->flavour >= PM_SEQ_VIEW)
            return pm_render_fail(r, PM_EUNSUPPORTED, "an index into %s is not served",
                                  pm_value_kind_name(v));
        i += i < 0 ? (int64_t)seq->count : 0;
        if (i >= 0 && i < (int64_t)seq->count)
            *out = seq->items[i];
        return 0;
    }
    if (v->kind == PM_V_STRING && as_index(key, &i)) {
        struct pm_text s = v->u.string;
        int64_t count = (int64_t)pm_text_length(s);
        i += i < 0 ? count : 0;
        if (i >= 0 && i < count) {
            size_t n, at = character_offset(s, (size_t)i);
            pm_unicode_at((const uint8_t *)s.text + at, s.bytes - at, &n);
            *out = pm_value_string(s.text + at, n);
        }
        return pm_render_work(r, s.bytes);
    }
    return key->kind == PM_V_STRING ? pm_value_attribute(r, v, key->u.string, out) : 0;
}

/* Python's slice.indices(). */
static int slice_bounds(struct pm_render *r, const struct pm_value bounds[3], int64_t count, int64_t out[3])
{
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != PM_V_NONE && !as_index(&bounds[i], &out[i]))
            return pm_render_fail(r, PM_EINVAL, "%s bounds a slice", pm_value_kind_name(&bounds[i]));
    int64_t step = bounds[2].kind == PM_V_NONE ? 1 : out[2];
    if (step == 0)
        return pm_render_fail(r, PM_EINVAL, "a slice has the step 0");
    if (step > count + 1 || step < -count - 1)
        step = step > 0 ? count + 1 : -count - 1;
    int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? count : count - 1;
    for (int i = 0; i < 2; i++) {
        bool from_low = (i == 0) == (step > 0);
        if (bounds[i].kind == PM_V_NONE) {
            out[i] = from_low ? lowest : highest;
            continue;
        }
        if (out[i] < 0)
            out[i] = out[i] < -count ? lowest : out[i] + count;
        if (out[i] < lowest)
            out[i] = lowest;
        if (out[i] > highest)
            out[i] = highest;
    }
    out[2] = step;
    return 0;
}

int pm_value_slice(struct pm_render *r, const struct pm_value *v, const struct pm_value bounds[3],
                   struct pm_value *out)
{
    const struct pm_seq *items;
    struct pm_seq *part;
    int64_t range[3] = {0};
    if (v->kind == PM_V_UNDEFINED)
        return fail_undefined(r, v);
    if (v->kind != PM_V_STRING && v->kind != PM_V_SEQ)
        return pm_render_fail(r, PM_EINVAL, "a slice of %s", pm_value_kind_name(v));
    if (v->kind == PM_V_SEQ && v->u.seq->flavour >= PM_SEQ_VIEW)
        return pm_render_fail(r, PM_EUNSUPPORTED, "a slice of %s is not served", pm_value_kind_name(v));
    int rc = pm_value_walk(r, v, &items);
    if (!rc)
        rc = slice_bounds(r, bounds, (int64_t)items->count, range);
    if (rc)
        return rc;
    int64_t step = range[2], span = step > 0 ? range[1] - range[0] : range[0] - range[1];
    size_t count = span > 0 ? (size_t)((span - 1) / (step > 0 ? step : -step) + 1) : 0;
    if ((rc = pm_value_seq(r, v->kind == PM_V_SEQ ? v->u.seq->flavour : PM_SEQ_LIST, count, &part, out)))
        return rc;
    for (size_t i = 0; i < count; i++)
        part->items[i] = items->items[range[0] + (int64_t)i * step];
    if (v->kind == PM_V_SEQ)
        return 0;
    struct pm_buf text = {0};
    for (size_t i = 0; i < count; i++)
        pm_buf_append(&text, part->items[i].u.string.text, part->items[i].u.string.bytes);
    return pm_value_take(r, &text, out);
}

/* ---- text ---- */

static int append_repr(struct pm_render *r, const struct pm_value *v, struct pm_buf *out);

static void repr_string(struct pm_text s, struct pm_buf *out)
{
    bool has_single = s.bytes && memchr(s.text, '\'', s.bytes),
         has_double = s.bytes && memchr(s.text, '"', s.bytes);
    char quote = has_single && !has_double ? '"' : '\'';
    pm_buf_append(out, &quote, 1);
    for (size_t at = 0, n; at < s.bytes; at += n) {
        uint32_t c = pm_unicode_at((const uint8_t *)s.text + at, s.bytes - at, &n);
        if (c == '\n' || c == '\r' || c == '\t')
            pm_buf_text(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else if (c == '\\' || c == (unsigned char)quote)
            pm_buf_printf(out, "\\%c", (int)c);
        else if (pm_unicode_is_printable(c))
            pm_buf_append(out, s.text + at, n);
        else
            pm_buf_printf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
    }
    pm_buf_append(out, &quote, 1);
}

static int repr_seq(struct pm_render *r, const struct pm_value *v, struct pm_buf *out)
{
    const struct pm_seq *seq = v->u.seq;
    bool is_tuple = seq->flavour == PM_SEQ_TUPLE;
    int rc = 0;
    if (seq->flavour >= PM_SEQ_VIEW)
        return pm_render_fail(r, PM_EUNSUPPORTED, "writing %s out is not served", pm_value_kind_name(v));
    pm_buf_text(out, is_tuple ? "(" : "[");
    for (size_t i = 0; i < seq->count && !rc; i++) {
        if (i)
            pm_buf_text(out, ", ");
        rc = append_repr(r, &seq->items[i], out);
    }
    pm_buf_text(out, !is_tuple ? "]" : seq->count == 1 ? ",)" : ")");
    return rc;
}

static int repr_dict(struct pm_render *r, const struct pm_dict *d, struct pm_buf *out)
{
    int rc = 0;
    pm_buf_text(out, "{");
    for (size_t i = 0; i < d->count && !rc; i++) {
        if (i)
            pm_buf_text(out, ", ");
        repr_string(d->pairs[i].key, out);
        pm_buf_text(out, ": ");
        rc = append_repr(r, &d->pairs[i].value, out);
    }
    pm_buf_text(out, "}");
    return rc;
}

static int append_repr(struct pm_render *r, const struct pm_value *v, struct pm_buf *out)
{
    int rc = pm_render_work(r, 16);
    if (!rc && ++r->depth > PM_TEMPLATE_MAX_DEPTH)
        rc = pm_render_fail(r, PM_ELIMIT, "a value nests too deeply to be written out");
    if (!rc && v->kind == PM_V_STRING)
        repr_string(v->u.string, out);
    else if (!rc && v->kind == PM_V_SEQ)
        rc = repr_seq(r, v, out);
    else if (!rc && v->kind == PM_V_DICT)
        rc = repr_dict(r, v->u.dict, out);
    else if (!rc && v->kind == PM_V_UNDEFINED)
        pm_buf_text(out, "Undefined");
    else if (!rc)
        rc = pm_value_print(r, v, out);
    r->depth--;
    return rc;
}

int pm_value_print(struct pm_render *r, const struct pm_value *v, struct pm_buf *out)
{
    char number[40];
    int rc = 0;
    if (out->size > PM_TEMPLATE_MAX_OUTPUT)
        return pm_render_fail(r, PM_ELIMIT, "the text becomes longer than %d bytes", PM_TEMPLATE_MAX_OUTPUT);
    switch (v->kind) {
    case PM_V_UNDEFINED:
        break;
    case PM_V_NONE:
        pm_buf_text(out, "None");
        break;
    case PM_V_BOOL:
        pm_buf_text(out, v->u.boolean ? "True" : "False");
        break;
    case PM_V_INT:
        pm_buf_printf(out, "%lld", (long long)v->u.integer);
        break;
    case PM_V_FLOAT:
        pm_text_real(v->u.real, number);
        pm_buf_text(out, number);
        break;
    case PM_V_STRING:
        pm_buf_append(out, v->u.string.text, v->u.string.bytes);
        rc = pm_render_work(r, v->u.string.bytes);
        break;
    case PM_V_SEQ:
    case PM_V_DICT:
        rc = append_repr(r, v, out);
        break;
    default:
        rc = pm_render_fail(r, PM_EUNSUPPORTED, "writing %s out is not served", pm_value_kind_name(v));
    }
    return rc;
}

int pm_value_text(struct pm_render *r, const struct pm_value *v, struct pm_text *out)
{
    struct pm_buf text = {0};
    struct pm_value s = *v;
    int rc = 0;
    if (v->kind == PM_V_UNDEFINED) {
        s = pm_value_string("", 0);
    } else if (v->kind != PM_V_STRING) {
        rc = pm_value_print(r, v, &text);
        if (rc)
            pm_buf_free(&text);
        else
            rc = pm_value_take(r, &text, &s);
    }
    *out = s.u.string;
    return rc;
}

/* ---- JSON text ---- */

static void json_string_text(struct pm_text s, bool ascii, struct pm_buf *out)
{
    pm_buf_text(out, "\"");
    for (size_t at = 0, n; at < s.bytes; at += n) {
        static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
        uint32_t c = pm_unicode_at((const uint8_t *)s.text + at, s.bytes - at, &n);
        const char *known = c && c < 128 ? strchr(plain, (int)c) : NULL;
        if (known)
            pm_buf_printf(out, "\\%c", letters[known - plain]);
        else if (c < 32 || (ascii && c >= 127 && c < 0x10000))
            pm_buf_printf(out, "\\u%04x", (unsigned)c);
        else if (ascii && c >= 0x10000)
            pm_buf_printf(out, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((c - 0x10000) >> 10)),
                          (unsigned)(0xdc00 + ((c - 0x10000) & 0x3ff)));
        else
            pm_buf_append(out, s.text + at, n);
    }
    pm_buf_text(out, "\"");
}

static void json_break(const struct pm_json_style *style, int level, struct pm_buf *out)
{
    if (!style->is_indented)
        return;
    pm_buf_text(out, "\n");
    for (int i = 0; i < level; i++)
        pm_buf_append(out, style->indent.text, style->indent.bytes);
}

static int compare_pairs(const void *a, const void *b)
{
    return compare_text((*(const struct pm_pair *const *)a)->key, (*(const struct pm_pair *const *)b)->key);
}

static int json_dict(struct pm_render *r, const struct pm_dict *d, const struct pm_json_style *style,
                     int level, struct pm_buf *out)
{
    const struct pm_pair **order;
    int rc = pm_render_alloc(r, d->count + 1, sizeof *order, &order);
    if (rc)
        return rc;
    for (size_t i = 0; i < d->count; i++)
        order[i] = &d->pairs[i];
    if (style->sorted)
        qsort(order, d->count, sizeof *order, compare_pairs);
    pm_buf_text(out, "{");
    for (size_t i = 0; i < d->count && !rc; i++) {
        if (i)
            pm_buf_append(out, style->between.text, style->between.bytes);
        json_break(style, level + 1, out);
        json_string_text(order[i]->key, style->ascii, out);
        pm_buf_append(out, style->colon.text, style->colon.bytes);
        rc = pm_value_json(r, &order[i]->value, style, level + 1, out);
    }
    if (d->count)
        json_break(style, level, out);
    pm_buf_text(out, "}");
    return rc;
}

static int json_seq(struct pm_render *r, const struct pm_seq *seq, const struct pm_json_style *style,
                    int level, struct pm_buf *out)
{
    int rc = 0;
    pm_buf_text(out, "[");
    for (size_t i = 0; i < seq->count && !rc; i++) {
        if (i)
            pm_buf_append(out, style->between.text, style->between.bytes);
        json_break(style, level + 1, out);
        rc = pm_value_json(r, &seq->items[i], style, level + 1, out);
    }
    if (seq->count)
        json_break(style, level, out);
    pm_buf_text(out, "]");
    return rc;
}

int pm_value_json(struct pm_render *r, const struct pm_value *v, const struct pm_json_style *style, int level,
                  struct pm_buf *out)
{
    int rc = pm_render_work(r, 16);
    if (rc)
        return rc;
    if (level > PM_TEMPLATE_MAX_DEPTH / 2 || out->size > PM_TEMPLATE_MAX_OUTPUT)
        return pm_render_fail(r, PM_ELIMIT, "a value is too deep or too large for tojson");
    switch (v->kind) {
    case PM_V_NONE:
        pm_buf_text(out, "null");
        return 0;
    case PM_V_BOOL:
        pm_buf_text(out, v->u.boolean ? "true" : "false");
        return 0;
    case PM_V_STRING:
        json_string_text(v->u.string, style->ascii, out);
        return pm_render_work(r, v->u.string.bytes);
    case PM_V_INT:
        return pm_value_print(r, v, out);
    case PM_V_FLOAT:
        if (!isfinite(v->u.real))
            return pm_render_fail(r, PM_EUNSUPPORTED, "tojson of an infinite number is not served");
        return pm_value_print(r, v, out);
    case PM_V_DICT:
        return json_dict(r, v->u.dict, style, level, out);
    case PM_V_SEQ:
        if (v->u.seq->flavour < PM_SEQ_VIEW)
            return json_seq(r, v->u.seq, style, level, out);
        break;
    case PM_V_UNDEFINED:
        return fail_undefined(r, v);
    default:
        break;
    }
    return pm_render_fail(r, PM_EINVAL, "tojson of %s", pm_value_kind_name(v));
}
