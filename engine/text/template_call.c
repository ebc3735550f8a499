/* Filters, tests and methods. Each has its parameters beside it in a table; the parser puts arguments where
 * they belong, so that a function finds its n-th parameter in slot n. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_internal.h"

#define CALL_ARGS                                                                                            \
    struct pm_render *r, const struct pm_value *self, const struct pm_arguments *args, struct pm_value *out

static int fail_self(struct pm_render *r, const char *name, const struct pm_value *self)
{
    return pm_render_fail(r, PM_EINVAL, "%s of %s", name, pm_value_kind_name(self));
}

static bool flag(const struct pm_arguments *args, int slot, bool otherwise)
{
    return args->has[slot] ? pm_value_is_true(&args->slot[slot]) : otherwise;
}

static bool has_value(const struct pm_arguments *args, int slot)
{
    return args->has[slot] && args->slot[slot].kind != PM_V_NONE;
}

static int want_string(struct pm_render *r, const char *name, const struct pm_value *v, struct pm_text *out)
{
    *out = v->u.string;
    return v->kind == PM_V_STRING ? 0 : fail_self(r, name, v);
}

/* An integer argument, or otherwise when it is not given. */
static int want_int(struct pm_render *r, const char *name, const struct pm_arguments *args, int slot,
                    int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (!has_value(args, slot))
        return 0;
    *out = args->slot[slot].u.integer;
    return args->slot[slot].kind == PM_V_INT ? 0
                                             : pm_render_fail(r, PM_EINVAL, "%s with %s for a number", name,
                                                              pm_value_kind_name(&args->slot[slot]));
}

/* ---- text ---- */

static int recase(struct pm_render *r, const struct pm_value *self, enum pm_text_case to,
                  struct pm_value *out)
{
    struct pm_text s;
    int rc = pm_value_text(r, self, &s);
    return rc ? rc : pm_text_recase(r, s, to, out);
}
#define RECASE(name, to)                                                                                     \
    static int name(CALL_ARGS)                                                                               \
    {                                                                                                        \
        (void)args;                                                                                          \
        return recase(r, self, to, out);                                                                     \
    }
RECASE(filter_upper, PM_CASE_UPPER)
RECASE(filter_lower, PM_CASE_LOWER)
RECASE(filter_capitalize, PM_CASE_CAPITALIZE)
RECASE(filter_title, PM_CASE_JINJA_TITLE)

static int strip(struct pm_render *r, const struct pm_value *self, const struct pm_arguments *args, int which,
                 struct pm_value *out)
{
    struct pm_text s, chars = {0};
    int rc = pm_value_text(r, self, &s);
    if (!rc && has_value(args, 0))
        rc = want_string(r, "stripping characters", &args->slot[0], &chars);
    if (!rc)
        rc = pm_render_work(r, s.bytes * (chars.bytes / 8 + 1));
    if (rc)
        return rc;
    s = pm_text_strip(s, which, has_value(args, 0) ? &chars : NULL);
    *out = pm_value_string(s.text, s.bytes);
    return 0;
}

static int filter_trim(CALL_ARGS)
{
    return strip(r, self, args, 3, out);
}

static int filter_string(CALL_ARGS)
{
    struct pm_text s = {0};
    (void)args;
    int rc = pm_value_text(r, self, &s);
    *out = pm_value_string(s.text, s.bytes);
    return rc;
}

static int filter_replace(CALL_ARGS)
{
    struct pm_text s, old, by;
    int64_t limit;
    int rc = pm_value_text(r, self, &s);
    if (!rc && !(rc = pm_value_text(r, &args->slot[0], &old)) &&
        !(rc = pm_value_text(r, &args->slot[1], &by)))
        rc = want_int(r, "replace", args, 2, -1, &limit);
    return rc ? rc : pm_text_replace(r, s, old, by, limit, out);
}

static int filter_indent(CALL_ARGS)
{
    struct pm_text s, with = {0};
    struct pm_value lines;
    struct pm_buf text = {0};
    int64_t width = 4;
    bool first = flag(args, 1, false), blank = flag(args, 2, false),
         is_text = args->has[0] && args->slot[0].kind == PM_V_STRING;
    int rc = want_string(r, "indent", self, &s);
    if (!rc && is_text)
        with = args->slot[0].u.string;
    else if (!rc)
        rc = want_int(r, "indent", args, 0, 4, &width);
    if (!rc && (width > 1000 || with.bytes > 1000))
        rc = pm_render_fail(r, PM_ELIMIT, "indent by more than 1000 characters");
    struct pm_buf blanks = {0};
    for (int64_t i = 0; i < width && !rc && !is_text; i++)
        pm_buf_append(&blanks, " ", 1);
    if (!is_text)
        with = (struct pm_text){(char *)blanks.data, blanks.size};
    struct pm_buf all = {0};
    if (!rc) { /* as Jinja: one line end more, so that an empty text has one line */
        pm_buf_append(&all, s.text, s.bytes);
        pm_buf_append(&all, "\n", 1);
        rc = pm_text_lines(r, (struct pm_text){(char *)all.data, all.size}, false, &lines);
    }
    for (size_t i = 0; !rc && i < lines.u.seq->count; i++) {
        struct pm_text line = lines.u.seq->items[i].u.string;
        if (i)
            pm_buf_append(&text, "\n", 1);
        if (i ? line.bytes > 0 || blank : first)
            pm_buf_append(&text, with.text, with.bytes);
        pm_buf_append(&text, line.text, line.bytes);
        if (text.size > PM_TEMPLATE_MAX_OUTPUT)
            rc = pm_render_fail(r, PM_ELIMIT, "indent makes a text longer than %d bytes",
                                PM_TEMPLATE_MAX_OUTPUT);
    }
    pm_buf_free(&all);
    pm_buf_free(&blanks);
    if (rc) {
        pm_buf_free(&text);
        return rc;
    }
    return pm_value_take(r, &text, out);
}

static int filter_tojson(CALL_ARGS)
{
    struct pm_json_style style = {.ascii = flag(args, 0, false),
                                  .sorted = flag(args, 3, false),
                                  .between = {", ", 2},
                                  .colon = {": ", 2}};
    static const char blanks[] = "                                ";
    int64_t width;
    int rc = 0;
    if (has_value(args, 1)) {
        style.is_indented = true;
        style.between.bytes = 1;
        if (args->slot[1].kind == PM_V_STRING) {
            style.indent = args->slot[1].u.string;
        } else if (!(rc = want_int(r, "tojson", args, 1, 0, &width))) {
            if (width > (int64_t)sizeof blanks - 1)
                return pm_render_fail(r, PM_ELIMIT, "tojson indented by more than %zu", sizeof blanks - 1);
            style.indent = (struct pm_text){blanks, width > 0 ? (size_t)width : 0};
        }
    }
    if (!rc && has_value(args, 2)) {
        const struct pm_value *v = &args->slot[2];
        if (v->kind != PM_V_SEQ || v->u.seq->count != 2 || v->u.seq->items[0].kind != PM_V_STRING ||
            v->u.seq->items[1].kind != PM_V_STRING)
            return pm_render_fail(r, PM_EINVAL, "separators of tojson are not two strings");
        style.between = v->u.seq->items[0].u.string;
        style.colon = v->u.seq->items[1].u.string;
    }
    struct pm_buf text = {0};
    if (!rc)
        rc = pm_value_json(r, self, &style, 0, &text);
    if (rc) {
        pm_buf_free(&text);
        return rc;
    }
    return pm_value_take(r, &text, out);
}

/* ---- numbers ---- */

/* The number that a string is, as int() and float() read it. */
static bool read_number(struct pm_text s, bool may_be_real, double *real, int64_t *integer)
{
    char plain[64];
    size_t n = 0;
    s = pm_text_strip(s, 3, NULL);
    for (size_t i = 0; i < s.bytes; i++) {
        char c = s.text[i];
        bool is_between = c == '_' && i > 0 && i + 1 < s.bytes && isdigit((unsigned char)s.text[i - 1]) &&
                          isdigit((unsigned char)s.text[i + 1]);
        if (is_between)
            continue;
        if (n == sizeof plain - 1 || !strchr(may_be_real ? "0123456789+-.eE" : "0123456789+-", c) || !c)
            return false;
        plain[n++] = c;
    }
    plain[n] = 0;
    char *end;
    if (n == 0 || (!may_be_real && n > 18))
        return false;
    if (may_be_real)
        *real = strtod(plain, &end);
    else
        *integer = strtoll(plain, &end, 10);
    return *end == 0;
}

static int filter_int(CALL_ARGS)
{
    double real;
    int64_t integer = 0;
    if (args->has[1] && (args->slot[1].kind != PM_V_INT || args->slot[1].u.integer != 10))
        return pm_render_fail(r, PM_EUNSUPPORTED, "int with a base other than 10 is not served");
    *out = args->has[0] ? args->slot[0] : pm_value_int(0);
    if (self->kind == PM_V_UNDEFINED)
        return fail_self(r, "int", self);
    bool is_string = self->kind == PM_V_STRING;
    if (is_string && read_number(self->u.string, false, &real, &integer)) {
        *out = pm_value_int(integer);
        return 0;
    }
    if (is_string ? !read_number(self->u.string, true, &real, &integer) : !pm_value_is_number(self, &real))
        return 0;
    if (self->kind == PM_V_INT)
        *out = *self;
    else if (!isfinite(real) || fabs(real) > 9e18)
        return pm_render_fail(r, PM_ELIMIT, "int of a number that is too large");
    else
        *out = pm_value_int((int64_t)real);
    return 0;
}

static int filter_float(CALL_ARGS)
{
    double real;
    int64_t integer;
    if (self->kind == PM_V_UNDEFINED)
        return fail_self(r, "float", self);
    if (self->kind == PM_V_STRING ? read_number(self->u.string, true, &real, &integer)
                                  : pm_value_is_number(self, &real))
        *out = (struct pm_value){PM_V_FLOAT, {.real = real}};
    else
        *out = args->has[0] ? args->slot[0] : (struct pm_value){PM_V_FLOAT, {.real = 0}};
    return 0;
}

static int filter_abs(CALL_ARGS)
{
    double real;
    (void)args;
    if (!pm_value_is_number(self, &real))
        return fail_self(r, "abs", self);
    if (self->kind == PM_V_FLOAT)
        *out = (struct pm_value){PM_V_FLOAT, {.real = fabs(real)}};
    else if (self->kind == PM_V_INT && self->u.integer == INT64_MIN)
        return pm_render_fail(r, PM_ELIMIT, "abs of a number that is too large");
    else
        *out = pm_value_int(self->kind == PM_V_BOOL ? self->u.boolean
                            : self->u.integer < 0   ? -self->u.integer
                                                    : self->u.integer);
    return 0;
}

/* ---- sequences ---- */

static int filter_length(CALL_ARGS)
{
    (void)args;
    if (self->kind == PM_V_UNDEFINED)
        *out = pm_value_int(0);
    else if (self->kind == PM_V_STRING)
        *out = pm_value_int((int64_t)pm_text_length(self->u.string));
    else if (self->kind == PM_V_DICT)
        *out = pm_value_int((int64_t)self->u.dict->count);
    else if (self->kind == PM_V_SEQ && self->u.seq->flavour != PM_SEQ_LAZY)
        *out = pm_value_int((int64_t)self->u.seq->count);
    else
        return fail_self(r, "length", self);
    return 0;
}

static int filter_default(CALL_ARGS)
{
    (void)r;
    bool is_missing = self->kind == PM_V_UNDEFINED || (flag(args, 1, false) && !pm_value_is_true(self));
    *out = !is_missing ? *self : args->has[0] ? args->slot[0] : pm_value_string("", 0);
    return 0;
}

static int copy_seq(struct pm_render *r, const struct pm_seq *from, enum pm_seq_flavour flavour,
                    struct pm_seq **out, struct pm_value *value_out)
{
    int rc = pm_value_seq(r, flavour, from->count, out, value_out);
    if (!rc && from->count)
        memcpy((*out)->items, from->items, from->count * sizeof *from->items);
    return rc;
}

static int filter_list(CALL_ARGS)
{
    const struct pm_seq *items;
    struct pm_seq *copy;
    (void)args;
    int rc = pm_value_walk(r, self, &items);
    return rc ? rc : copy_seq(r, items, PM_SEQ_LIST, &copy, out);
}

static int end_of(struct pm_render *r, const struct pm_value *self, bool is_last, struct pm_value *out)
{
    const struct pm_seq *items;
    if (is_last && self->kind == PM_V_SEQ && self->u.seq->flavour == PM_SEQ_LAZY)
        return fail_self(r, "last", self);
    int rc = pm_value_walk(r, self, &items);
    if (!rc)
        *out = items->count ? items->items[is_last ? items->count - 1 : 0]
                            : pm_value_undefined((struct pm_text){"first or last of nothing", 24});
    return rc;
}

static int filter_first(CALL_ARGS)
{
    (void)args;
    return end_of(r, self, false, out);
}

static int filter_last(CALL_ARGS)
{
    (void)args;
    return end_of(r, self, true, out);
}

static int filter_reverse(CALL_ARGS)
{
    const struct pm_seq *items;
    struct pm_seq *copy;
    const struct pm_value backwards[3] = {
        {.kind = PM_V_NONE}, {.kind = PM_V_NONE}, {PM_V_INT, {.integer = -1}}};
    (void)args;
    if (self->kind == PM_V_STRING)
        return pm_value_slice(r, self, backwards, out);
    int rc = pm_value_walk(r, self, &items);
    if (!rc)
        rc = copy_seq(r, items, PM_SEQ_LAZY, &copy, out);
    for (size_t i = 0; !rc && i < items->count; i++)
        copy->items[i] = items->items[items->count - 1 - i];
    return rc;
}

/* (key, value) tuples, or one half of them: 0 both, 1 keys, 2 values. */
static int dict_parts(struct pm_render *r, const struct pm_dict *d, int half, enum pm_seq_flavour flavour,
                      struct pm_value *out)
{
    struct pm_seq *seq, *pair;
    int rc = pm_value_seq(r, flavour, d->count, &seq, out);
    for (size_t i = 0; i < d->count && !rc; i++) {
        struct pm_value key = {PM_V_STRING, {.string = d->pairs[i].key}};
        if (half) {
            seq->items[i] = half == 1 ? key : d->pairs[i].value;
        } else if (!(rc = pm_value_seq(r, PM_SEQ_TUPLE, 2, &pair, &seq->items[i]))) {
            pair->items[0] = key;
            pair->items[1] = d->pairs[i].value;
        }
    }
    return rc;
}

static int filter_items(CALL_ARGS)
{
    struct pm_seq *none;
    (void)args;
    if (self->kind == PM_V_UNDEFINED)
        return pm_value_seq(r, PM_SEQ_LAZY, 0, &none, out);
    if (self->kind != PM_V_DICT)
        return fail_self(r, "items", self);
    return dict_parts(r, self->u.dict, 0, PM_SEQ_LAZY, out);
}

/* item.a.0.b by Jinja's rules for attribute= of filters. */
static int attribute_path(struct pm_render *r, const struct pm_value *item, const struct pm_value *path,
                          const struct pm_value *otherwise, struct pm_value *out)
{
    struct pm_value parts, at = *item;
    struct pm_seq *single;
    int rc;
    if (path->kind == PM_V_STRING)
        rc = pm_text_split(r, path->u.string, &(struct pm_text){".", 1}, -1, &parts);
    else if (path->kind != PM_V_INT)
        return pm_render_fail(r, PM_EINVAL, "%s names an attribute", pm_value_kind_name(path));
    else if (!(rc = pm_value_seq(r, PM_SEQ_LIST, 1, &single, &parts)))
        single->items[0] = *path;
    for (size_t i = 0; !rc && i < parts.u.seq->count; i++) {
        struct pm_value key = parts.u.seq->items[i];
        int64_t index;
        double unused;
        if (key.kind == PM_V_STRING && key.u.string.bytes && isdigit((unsigned char)key.u.string.text[0]) &&
            read_number(key.u.string, false, &unused, &index))
            key = pm_value_int(index);
        rc = pm_value_item(r, &at, &key, out);
        if (!rc && otherwise && otherwise->kind != PM_V_NONE && out->kind == PM_V_UNDEFINED)
            *out = *otherwise;
        at = *out;
    }
    return rc;
}

static int filter_join(CALL_ARGS)
{
    struct pm_text between = {"", 0};
    const struct pm_seq *items;
    struct pm_buf text = {0};
    int rc = pm_value_walk(r, self, &items);
    if (!rc && args->has[0])
        rc = pm_value_text(r, &args->slot[0], &between);
    for (size_t i = 0; !rc && i < items->count; i++) {
        struct pm_value item = items->items[i];
        if (has_value(args, 1))
            rc = attribute_path(r, &items->items[i], &args->slot[1], NULL, &item);
        if (i)
            pm_buf_append(&text, between.text, between.bytes);
        if (!rc)
            rc = pm_value_print(r, &item, &text);
    }
    if (rc) {
        pm_buf_free(&text);
        return rc;
    }
    return pm_value_take(r, &text, out);
}

/* ---- map, select ---- */

/* Calls a filter or test by its name with the arguments of slots from.. */
static int call_named(struct pm_render *r, bool is_test, const struct pm_arguments *args, int name_slot,
                      const struct pm_value *self, struct pm_value *out)
{
    const struct pm_value *name = &args->slot[name_slot];
    struct pm_arguments inner = {0};
    int given = 0, parameters = 0;
    if (name->kind != PM_V_STRING)
        return pm_render_fail(r, PM_EINVAL, "%s names a %s", pm_value_kind_name(name),
                              is_test ? "test" : "filter");
    const struct pm_callable *call =
        is_test ? pm_template_test(name->u.string) : pm_template_filter(name->u.string);
    if (!call)
        return pm_render_fail(r, PM_EUNSUPPORTED, "the %s %.*s is not served", is_test ? "test" : "filter",
                              (int)(name->u.string.bytes > 60 ? 60 : name->u.string.bytes),
                              name->u.string.text);
    for (int i = name_slot + 1; i < 4 && args->has[i]; i++, given++) {
        inner.slot[given] = args->slot[i];
        inner.has[given] = true;
    }
    for (const char *p = call->parameters; *p; p++)
        parameters += *p == ' ' || p == call->parameters;
    if (given < call->required || given > parameters)
        return pm_render_fail(r, PM_EINVAL, "%s with %d arguments", call->name, given);
    return call->call(r, self, &inner, out);
}

static int filter_map(CALL_ARGS)
{
    const struct pm_seq *items;
    struct pm_seq *mapped;
    int rc = pm_value_walk(r, self, &items);
    if (!rc && !args->has[0] && !args->has[4])
        return pm_render_fail(r, PM_EINVAL, "map without a filter or attribute");
    if (!rc)
        rc = pm_value_seq(r, PM_SEQ_LAZY, items->count, &mapped, out);
    for (size_t i = 0; !rc && i < items->count; i++)
        rc = args->has[0] ? call_named(r, false, args, 0, &items->items[i], &mapped->items[i])
                          : attribute_path(r, &items->items[i], &args->slot[4],
                                           args->has[5] ? &args->slot[5] : NULL, &mapped->items[i]);
    return rc;
}

static int choose(struct pm_render *r, const struct pm_value *self, const struct pm_arguments *args,
                  bool by_attribute, bool wanted, struct pm_value *out)
{
    const struct pm_seq *items;
    struct pm_seq *chosen;
    int rc = pm_value_walk(r, self, &items), test = by_attribute;
    if (!rc)
        rc = pm_value_seq(r, PM_SEQ_LAZY, items->count, &chosen, out);
    if (rc)
        return rc;
    chosen->count = 0;
    for (size_t i = 0; !rc && i < items->count; i++) {
        struct pm_value subject = items->items[i], verdict;
        if (by_attribute)
            rc = attribute_path(r, &items->items[i], &args->slot[0], NULL, &subject);
        verdict = subject;
        if (!rc && args->has[test])
            rc = call_named(r, true, args, test, &subject, &verdict);
        if (!rc && pm_value_is_true(&verdict) == wanted)
            chosen->items[chosen->count++] = items->items[i];
    }
    return rc;
}
#define CHOOSE(name, by_attribute, wanted)                                                                   \
    static int name(CALL_ARGS)                                                                               \
    {                                                                                                        \
        return choose(r, self, args, by_attribute, wanted, out);                                             \
    }
CHOOSE(filter_select, false, true)
CHOOSE(filter_reject, false, false)
CHOOSE(filter_selectattr, true, true)
CHOOSE(filter_rejectattr, true, false)

/* ---- sorting ---- */

/* Stable insertion by keys; steps are charged, so that a long list ends at the limit of steps. */
static int sort_by(struct pm_render *r, struct pm_value *items, struct pm_value *keys, size_t count,
                   bool reverse)
{
    for (size_t i = 1; i < count; i++) {
        struct pm_value item = items[i], key = keys[i];
        size_t at = i;
        for (; at > 0; at--) {
            int order, rc = pm_value_order(r, &key, &keys[at - 1], &order);
            if (rc)
                return rc;
            if (reverse ? order <= 0 : order >= 0)
                break;
            items[at] = items[at - 1];
            keys[at] = keys[at - 1];
        }
        items[at] = item;
        keys[at] = key;
    }
    return 0;
}

static int sort_key(struct pm_render *r, const struct pm_value *v, bool case_sensitive, struct pm_value *out)
{
    *out = *v;
    return v->kind == PM_V_STRING && !case_sensitive ? pm_text_recase(r, v->u.string, PM_CASE_LOWER, out) : 0;
}

static int sort_seq(struct pm_render *r, struct pm_seq *seq, const struct pm_value *path, bool case_sensitive,
                    bool reverse)
{
    struct pm_value *keys;
    int rc = pm_render_alloc(r, seq->count + 1, sizeof *keys, &keys);
    for (size_t i = 0; !rc && i < seq->count; i++) {
        struct pm_value key = seq->items[i];
        if (path)
            rc = attribute_path(r, &seq->items[i], path, NULL, &key);
        if (!rc)
            rc = sort_key(r, &key, case_sensitive, &keys[i]);
    }
    return rc ? rc : sort_by(r, seq->items, keys, seq->count, reverse);
}

static int filter_sort(CALL_ARGS)
{
    const struct pm_seq *items;
    struct pm_seq *copy;
    int rc = pm_value_walk(r, self, &items);
    if (!rc)
        rc = copy_seq(r, items, PM_SEQ_LIST, &copy, out);
    if (!rc && has_value(args, 2) && args->slot[2].kind == PM_V_STRING &&
        memchr(args->slot[2].u.string.text, ',', args->slot[2].u.string.bytes))
        return pm_render_fail(r, PM_EUNSUPPORTED, "sort by several attributes is not served");
    return rc ? rc
              : sort_seq(r, copy, has_value(args, 2) ? &args->slot[2] : NULL, flag(args, 1, false),
                         flag(args, 0, false));
}

static int filter_dictsort(CALL_ARGS)
{
    bool by_value = false;
    if (args->has[1]) {
        const struct pm_value *by = &args->slot[1];
        by_value = by->kind == PM_V_STRING && pm_text_is(by->u.string, "value");
        if (!by_value && !(by->kind == PM_V_STRING && pm_text_is(by->u.string, "key")))
            return pm_render_fail(r, PM_EINVAL, "dictsort by neither key nor value");
    }
    if (self->kind != PM_V_DICT)
        return fail_self(r, "dictsort", self);
    const struct pm_value which = pm_value_int(by_value);
    int rc = dict_parts(r, self->u.dict, 0, PM_SEQ_LIST, out);
    return rc ? rc : sort_seq(r, out->u.seq, &which, flag(args, 0, false), flag(args, 2, false));
}

/* ---- tests ---- */

#define TEST(name, condition)                                                                                \
    static int name(CALL_ARGS)                                                                               \
    {                                                                                                        \
        (void)r;                                                                                             \
        (void)args;                                                                                          \
        *out = pm_value_bool(condition);                                                                     \
        return 0;                                                                                            \
    }
TEST(test_defined, self->kind != PM_V_UNDEFINED)
TEST(test_undefined, self->kind == PM_V_UNDEFINED)
TEST(test_none, self->kind == PM_V_NONE)
TEST(test_boolean, self->kind == PM_V_BOOL)
TEST(test_true, self->kind == PM_V_BOOL && self->u.boolean)
TEST(test_false, self->kind == PM_V_BOOL && !self->u.boolean)
TEST(test_integer, self->kind == PM_V_INT)
TEST(test_float, self->kind == PM_V_FLOAT)
TEST(test_number, self->kind == PM_V_INT || self->kind == PM_V_FLOAT || self->kind == PM_V_BOOL)
TEST(test_string, self->kind == PM_V_STRING)
TEST(test_mapping, self->kind == PM_V_DICT)
TEST(test_iterable, self->kind == PM_V_UNDEFINED || self->kind == PM_V_STRING || self->kind == PM_V_SEQ ||
                        self->kind == PM_V_DICT || self->kind == PM_V_LOOP)
TEST(test_sequence, self->kind == PM_V_UNDEFINED || self->kind == PM_V_STRING || self->kind == PM_V_DICT ||
                        (self->kind == PM_V_SEQ && self->u.seq->flavour < PM_SEQ_VIEW))
TEST(test_callable, self->kind == PM_V_UNDEFINED || self->kind == PM_V_MACRO || self->kind == PM_V_LOOP)

static int compare(struct pm_render *r, const struct pm_value *self, const struct pm_arguments *args,
                   enum pm_op op, struct pm_value *out)
{
    bool is = false;
    int order = 0, rc;
    if (op == PM_OP_EQ || op == PM_OP_NE)
        rc = pm_value_equal(r, self, &args->slot[0], &is);
    else if (op == PM_OP_IN)
        rc = pm_value_contains(r, &args->slot[0], self, &is);
    else
        rc = pm_value_order(r, self, &args->slot[0], &order);
    if (op == PM_OP_NE)
        is = !is;
    else if (op != PM_OP_EQ && op != PM_OP_IN)
        is = op == PM_OP_LT   ? order < 0
             : op == PM_OP_LE ? order <= 0
             : op == PM_OP_GT ? order > 0
                              : order >= 0;
    *out = pm_value_bool(is);
    return rc;
}
#define COMPARE(name, op)                                                                                    \
    static int name(CALL_ARGS)                                                                               \
    {                                                                                                        \
        return compare(r, self, args, op, out);                                                              \
    }
COMPARE(test_eq, PM_OP_EQ)
COMPARE(test_ne, PM_OP_NE)
COMPARE(test_lt, PM_OP_LT)
COMPARE(test_le, PM_OP_LE)
COMPARE(test_gt, PM_OP_GT)
COMPARE(test_ge, PM_OP_GE)
COMPARE(test_in, PM_OP_IN)

static int test_remainder(struct pm_render *r, const struct pm_value *self, int64_t by, int64_t wanted,
                          struct pm_value *out)
{
    double real;
    if (!pm_value_is_number(self, &real))
        return fail_self(r, "a remainder", self);
    if (by == 0)
        return pm_render_fail(r, PM_EINVAL, "division by zero");
    if (self->kind == PM_V_FLOAT) {
        *out = pm_value_bool(fmod(real, (double)by) == (double)wanted);
        return 0;
    }
    int64_t v = self->kind == PM_V_BOOL ? self->u.boolean : self->u.integer, rest = by == -1 ? 0 : v % by;
    *out = pm_value_bool((rest < 0 ? rest + (by < 0 ? -by : by) : rest) == wanted);
    return 0;
}

static int test_even(CALL_ARGS)
{
    (void)args;
    return test_remainder(r, self, 2, 0, out);
}

static int test_odd(CALL_ARGS)
{
    (void)args;
    return test_remainder(r, self, 2, 1, out);
}

static int test_divisibleby(CALL_ARGS)
{
    int64_t by;
    int rc = want_int(r, "divisibleby", args, 0, 0, &by);
    return rc ? rc : test_remainder(r, self, by, 0, out);
}

/* ---- methods ---- */

static int method_fail(struct pm_render *r, const char *name, const struct pm_value *self)
{
    if (self->kind == PM_V_UNDEFINED)
        return pm_render_fail(r, PM_EINVAL, "\"%.*s\" is undefined",
                              (int)(self->u.string.bytes > 80 ? 80 : self->u.string.bytes),
                              self->u.string.text);
    return pm_render_fail(r, PM_EINVAL, "%s has no method %s", pm_value_kind_name(self), name);
}

/* The receiver as a string. */
#define NEED_STRING(name)                                                                                    \
    do {                                                                                                     \
        if (self->kind != PM_V_STRING)                                                                       \
            return method_fail(r, name, self);                                                               \
    } while (0)

#define STRING_METHOD(function, name, ...)                                                                   \
    static int function(CALL_ARGS)                                                                           \
    {                                                                                                        \
        (void)args;                                                                                          \
        NEED_STRING(name);                                                                                   \
        return __VA_ARGS__;                                                                                  \
    }
STRING_METHOD(method_upper, "upper", pm_text_recase(r, self->u.string, PM_CASE_UPPER, out))
STRING_METHOD(method_lower, "lower", pm_text_recase(r, self->u.string, PM_CASE_LOWER, out))
STRING_METHOD(method_title, "title", pm_text_recase(r, self->u.string, PM_CASE_TITLE, out))
STRING_METHOD(method_capitalize, "capitalize", pm_text_recase(r, self->u.string, PM_CASE_CAPITALIZE, out))
STRING_METHOD(method_strip, "strip", strip(r, self, args, 3, out))
STRING_METHOD(method_lstrip, "lstrip", strip(r, self, args, 1, out))
STRING_METHOD(method_rstrip, "rstrip", strip(r, self, args, 2, out))
STRING_METHOD(method_splitlines, "splitlines", pm_text_lines(r, self->u.string, flag(args, 0, false), out))

static int method_split(CALL_ARGS)
{
    struct pm_text separator = {0};
    int64_t limit;
    NEED_STRING("split");
    int rc = want_int(r, "split", args, 1, -1, &limit);
    if (!rc && has_value(args, 0))
        rc = want_string(r, "splitting by", &args->slot[0], &separator);
    return rc ? rc : pm_text_split(r, self->u.string, has_value(args, 0) ? &separator : NULL, limit, out);
}

/* With a limit: the last parts, what is left in front stays whole. */
static int method_rsplit(CALL_ARGS)
{
    struct pm_value all;
    int64_t limit;
    NEED_STRING("rsplit");
    int rc = want_int(r, "rsplit", args, 1, -1, &limit);
    if (!rc && limit >= 0 && !has_value(args, 0))
        return pm_render_fail(r, PM_EUNSUPPORTED, "rsplit by white space with a limit is not served");
    if (!rc)
        rc = method_split(r, self, &(struct pm_arguments){{args->slot[0]}, {args->has[0]}}, &all);
    if (rc)
        return rc;
    *out = all;
    struct pm_seq *seq = all.u.seq;
    if (limit < 0 || (int64_t)seq->count <= limit + 1)
        return 0;
    size_t joined = seq->count - (size_t)limit; /* this many parts become the first */
    struct pm_text first = {self->u.string.text, 0}, last = seq->items[joined - 1].u.string;
    first.bytes = (size_t)(last.text + last.bytes - first.text);
    /* A separator that overlaps itself would be found elsewhere from behind. */
    if (args->slot[0].u.string.bytes > 1)
        return pm_render_fail(r, PM_EUNSUPPORTED, "rsplit by several characters with a limit is not served");
    seq->items[joined - 1] = pm_value_string(first.text, first.bytes);
    seq->items += joined - 1;
    seq->count = (size_t)limit + 1;
    return 0;
}

static int ends_with(struct pm_render *r, const struct pm_value *self, const struct pm_value *part,
                     bool at_end, bool *out)
{
    struct pm_text s = self->u.string, p = part->u.string;
    if (part->kind == PM_V_SEQ && part->u.seq->flavour == PM_SEQ_TUPLE) {
        int rc = 0;
        for (size_t i = 0; i < part->u.seq->count && !*out && !rc; i++) {
            if (part->u.seq->items[i].kind != PM_V_STRING)
                return fail_self(r, at_end ? "endswith" : "startswith", &part->u.seq->items[i]);
            rc = ends_with(r, self, &part->u.seq->items[i], at_end, out);
        }
        return rc;
    }
    if (part->kind != PM_V_STRING)
        return fail_self(r, at_end ? "endswith" : "startswith", part);
    *out = s.bytes >= p.bytes &&
           (p.bytes == 0 || memcmp(at_end ? s.text + s.bytes - p.bytes : s.text, p.text, p.bytes) == 0);
    return 0;
}

static int method_startswith(CALL_ARGS)
{
    bool is = false;
    NEED_STRING("startswith");
    int rc = ends_with(r, self, &args->slot[0], false, &is);
    *out = pm_value_bool(is);
    return rc;
}

static int method_endswith(CALL_ARGS)
{
    bool is = false;
    NEED_STRING("endswith");
    int rc = ends_with(r, self, &args->slot[0], true, &is);
    *out = pm_value_bool(is);
    return rc;
}

static int remove_end(struct pm_render *r, const struct pm_value *self, const struct pm_value *part,
                      bool at_end, struct pm_value *out)
{
    bool is = false;
    struct pm_text s = self->u.string;
    if (part->kind != PM_V_STRING)
        return fail_self(r, at_end ? "removesuffix" : "removeprefix", part);
    int rc = ends_with(r, self, part, at_end, &is);
    size_t n = is ? part->u.string.bytes : 0;
    *out = pm_value_string(s.text + (at_end ? 0 : n), s.bytes - n);
    return rc;
}
STRING_METHOD(method_removeprefix, "removeprefix", remove_end(r, self, &args->slot[0], false, out))
STRING_METHOD(method_removesuffix, "removesuffix", remove_end(r, self, &args->slot[0], true, out))

static int method_replace(CALL_ARGS)
{
    struct pm_text old, by;
    int64_t limit;
    NEED_STRING("replace");
    int rc = want_string(r, "replacing", &args->slot[0], &old);
    if (!rc && !(rc = want_string(r, "replacing by", &args->slot[1], &by)))
        rc = want_int(r, "replace", args, 2, -1, &limit);
    return rc ? rc : pm_text_replace(r, self->u.string, old, by, limit, out);
}

static int method_join(CALL_ARGS)
{
    const struct pm_seq *items;
    NEED_STRING("join");
    int rc = args->slot[0].kind == PM_V_UNDEFINED ? 0 : pm_value_walk(r, &args->slot[0], &items);
    for (size_t i = 0; !rc && args->slot[0].kind != PM_V_UNDEFINED && i < items->count; i++)
        if (items->items[i].kind != PM_V_STRING)
            rc = fail_self(r, "joining", &items->items[i]);
    return rc ? rc : filter_join(r, &args->slot[0], &(struct pm_arguments){{*self}, {true}}, out);
}

/* Characters before byte offset at. */
static int64_t characters(struct pm_text s, size_t at)
{
    return (int64_t)pm_text_length((struct pm_text){s.text, at});
}

static int find(struct pm_render *r, const struct pm_value *self, const struct pm_value *part, bool is_last,
                struct pm_value *out)
{
    struct pm_text s = self->u.string, p;
    int rc = want_string(r, "finding", part, &p);
    if (!rc)
        rc = pm_render_work(r, s.bytes);
    if (rc)
        return rc;
    size_t found = pm_text_find(s, p, 0);
    if (found != SIZE_MAX && is_last) {
        if (p.bytes == 0)
            found = s.bytes;
        for (size_t next; p.bytes && (next = pm_text_find(s, p, found + 1)) != SIZE_MAX;)
            found = next;
    }
    *out = pm_value_int(found == SIZE_MAX ? -1 : characters(s, found));
    return 0;
}
STRING_METHOD(method_find, "find", find(r, self, &args->slot[0], false, out))
STRING_METHOD(method_rfind, "rfind", find(r, self, &args->slot[0], true, out))

static int method_count(CALL_ARGS)
{
    int64_t count = 0;
    int rc = 0;
    if (self->kind == PM_V_STRING) {
        struct pm_text s = self->u.string, part;
        if ((rc = want_string(r, "counting", &args->slot[0], &part)) || (rc = pm_render_work(r, s.bytes)))
            return rc;
        if (part.bytes == 0)
            count = (int64_t)pm_text_length(s) + 1;
        for (size_t at = 0; part.bytes && (at = pm_text_find(s, part, at)) != SIZE_MAX; at += part.bytes)
            count++;
    } else if (self->kind == PM_V_SEQ && self->u.seq->flavour < PM_SEQ_VIEW) {
        for (size_t i = 0; i < self->u.seq->count && !rc; i++) {
            bool is = false;
            rc = pm_value_equal(r, &self->u.seq->items[i], &args->slot[0], &is);
            count += is;
        }
    } else {
        return method_fail(r, "count", self);
    }
    *out = pm_value_int(count);
    return rc;
}

static int all_characters(struct pm_render *r, struct pm_text s, int (*is)(int), struct pm_value *out)
{
    bool all = s.bytes > 0;
    for (size_t i = 0; i < s.bytes; i++) {
        if ((unsigned char)s.text[i] >= 0x80)
            return pm_render_fail(r, PM_EUNSUPPORTED,
                                  "asking for the kind of characters outside ASCII is not served");
        all &= is((unsigned char)s.text[i]) != 0;
    }
    *out = pm_value_bool(all);
    return pm_render_work(r, s.bytes);
}

static int is_python_space(int c)
{
    return isspace(c) || (c >= 0x1c && c <= 0x1f);
}
STRING_METHOD(method_isdigit, "isdigit", all_characters(r, self->u.string, isdigit, out))
STRING_METHOD(method_isalpha, "isalpha", all_characters(r, self->u.string, isalpha, out))
STRING_METHOD(method_isalnum, "isalnum", all_characters(r, self->u.string, isalnum, out))
STRING_METHOD(method_isspace, "isspace", all_characters(r, self->u.string, is_python_space, out))

#define DICT_METHOD(function, name, half)                                                                    \
    static int function(CALL_ARGS)                                                                           \
    {                                                                                                        \
        (void)args;                                                                                          \
        if (self->kind != PM_V_DICT)                                                                         \
            return method_fail(r, name, self);                                                               \
        return dict_parts(r, self->u.dict, half, PM_SEQ_VIEW, out);                                          \
    }
DICT_METHOD(method_items, "items", 0)
DICT_METHOD(method_keys, "keys", 1)
DICT_METHOD(method_values, "values", 2)

static int method_get(CALL_ARGS)
{
    if (self->kind != PM_V_DICT)
        return method_fail(r, "get", self);
    const struct pm_value *found =
        args->slot[0].kind == PM_V_STRING ? pm_dict_get(self->u.dict, args->slot[0].u.string) : NULL;
    *out = found ? *found : args->has[1] ? args->slot[1] : (struct pm_value){.kind = PM_V_NONE};
    return pm_render_work(r, 16 * self->u.dict->count);
}

static int method_cycle(CALL_ARGS)
{
    size_t count = 0;
    if (self->kind != PM_V_LOOP)
        return method_fail(r, "cycle", self);
    while (count < PM_CALL_SLOTS && args->has[count])
        count++;
    *out = args->slot[self->u.loop->index % count];
    return 0;
}

/* ---- tables ---- */

static const struct pm_callable filters[] = {
    {"abs", "", 0, filter_abs},
    {"capitalize", "", 0, filter_capitalize},
    {"count", "", 0, filter_length},
    {"d", "default_value boolean", 0, filter_default},
    {"default", "default_value boolean", 0, filter_default},
    {"dictsort", "case_sensitive by reverse", 0, filter_dictsort},
    {"first", "", 0, filter_first},
    {"float", "default", 0, filter_float},
    {"indent", "width first blank", 0, filter_indent},
    {"int", "default base", 0, filter_int},
    {"items", "", 0, filter_items},
    {"join", "d attribute", 0, filter_join},
    {"last", "", 0, filter_last},
    {"length", "", 0, filter_length},
    {"list", "", 0, filter_list},
    {"lower", "", 0, filter_lower},
    {"map", "- - - - attribute default", 0, filter_map},
    {"reject", "- - - -", 0, filter_reject},
    {"rejectattr", "- - - -", 1, filter_rejectattr},
    {"replace", "old new count", 2, filter_replace},
    {"reverse", "", 0, filter_reverse},
    {"select", "- - - -", 0, filter_select},
    {"selectattr", "- - - -", 1, filter_selectattr},
    {"sort", "reverse case_sensitive attribute", 0, filter_sort},
    {"string", "", 0, filter_string},
    {"title", "", 0, filter_title},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, filter_tojson},
    {"trim", "chars", 0, filter_trim},
    {"upper", "", 0, filter_upper},
};

static const struct pm_callable tests[] = {
    {"!=", "-", 1, test_ne},
    {"<", "-", 1, test_lt},
    {"<=", "-", 1, test_le},
    {"==", "-", 1, test_eq},
    {">", "-", 1, test_gt},
    {">=", "-", 1, test_ge},
    {"boolean", "", 0, test_boolean},
    {"callable", "", 0, test_callable},
    {"defined", "", 0, test_defined},
    {"divisibleby", "num", 1, test_divisibleby},
    {"eq", "-", 1, test_eq},
    {"equalto", "-", 1, test_eq},
    {"even", "", 0, test_even},
    {"false", "", 0, test_false},
    {"float", "", 0, test_float},
    {"ge", "-", 1, test_ge},
    {"greaterthan", "-", 1, test_gt},
    {"gt", "-", 1, test_gt},
    {"in", "seq", 1, test_in},
    {"integer", "", 0, test_integer},
    {"iterable", "", 0, test_iterable},
    {"le", "-", 1, test_le},
    {"lessthan", "-", 1, test_lt},
    {"lt", "-", 1, test_lt},
    {"mapping", "", 0, test_mapping},
    {"ne", "-", 1, test_ne},
    {"none", "", 0, test_none},
    {"number", "", 0, test_number},
    {"odd", "", 0, test_odd},
    {"sequence", "", 0, test_sequence},
    {"string", "", 0, test_string},
    {"true", "", 0, test_true},
    {"undefined", "", 0, test_undefined},
};

static const struct pm_callable methods[] = {
    {"capitalize", "", 0, method_capitalize},
    {"count", "-", 1, method_count},
    {"cycle", "- - - - - -", 1, method_cycle},
    {"endswith", "-", 1, method_endswith},
    {"find", "-", 1, method_find},
    {"get", "- -", 1, method_get},
    {"isalnum", "", 0, method_isalnum},
    {"isalpha", "", 0, method_isalpha},
    {"isdigit", "", 0, method_isdigit},
    {"isspace", "", 0, method_isspace},
    {"items", "", 0, method_items},
    {"join", "-", 1, method_join},
    {"keys", "", 0, method_keys},
    {"lower", "", 0, method_lower},
    {"lstrip", "-", 0, method_lstrip},
    {"removeprefix", "-", 1, method_removeprefix},
    {"removesuffix", "-", 1, method_removesuffix},
    {"replace", "- - -", 2, method_replace},
    {"rfind", "-", 1, method_rfind},
    {"rsplit", "sep maxsplit", 0, method_rsplit},
    {"rstrip", "-", 0, method_rstrip},
    {"split", "sep maxsplit", 0, method_split},
    {"splitlines", "keepends", 0, method_splitlines},
    {"startswith", "-", 1, method_startswith},
    {"strip", "-", 0, method_strip},
    {"title", "", 0, method_title},
    {"upper", "", 0, method_upper},
    {"values", "", 0, method_values},
};

static const struct pm_callable *look_up(const struct pm_callable *table, size_t count, struct pm_text name)
{
    for (size_t i = 0; i < count; i++)
        if (pm_text_is(name, table[i].name))
            return &table[i];
    return NULL;
}

const struct pm_callable *pm_template_filter(struct pm_text name)
{
    return look_up(filters, sizeof filters / sizeof filters[0], name);
}

const struct pm_callable *pm_template_test(struct pm_text name)
{
    return look_up(tests, sizeof tests / sizeof tests[0], name);
}

const struct pm_callable *pm_template_method(struct pm_text name)
{
    return look_up(methods, sizeof methods / sizeof methods[0], name);
}
