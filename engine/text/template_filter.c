#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_call.h"

int pm_call_fail(struct pm_render *r, const char *name, const struct pm_value *self)
{
    return pm_render_fail(r, PM_EINVAL, "%s of %s", name, pm_value_kind_name(self));
}

int pm_call_string(struct pm_render *r, const char *name, const struct pm_value *v, struct pm_text *out)
{
    *out = v->u.string;
    return v->kind == PM_V_STRING ? 0 : pm_call_fail(r, name, v);
}

int pm_call_int(struct pm_render *r, const char *name, const struct pm_arguments *args, int slot,
                int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (!pm_call_has(args, slot))
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

int pm_call_strip(struct pm_render *r, const struct pm_value *self, const struct pm_arguments *args,
                  int which, struct pm_value *out)
{
    struct pm_text s, chars = {0};
    int rc = pm_value_text(r, self, &s);
    if (!rc && pm_call_has(args, 0))
        rc = pm_call_string(r, "stripping characters", &args->slot[0], &chars);
    if (!rc)
        rc = pm_render_work(r, s.bytes * (chars.bytes / 8 + 1));
    if (rc)
        return rc;
    s = pm_text_strip(s, which, pm_call_has(args, 0) ? &chars : NULL);
    *out = pm_value_string(s.text, s.bytes);
    return 0;
}

static int filter_trim(CALL_ARGS)
{
    return pm_call_strip(r, self, args, 3, out);
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
        rc = pm_call_int(r, "replace", args, 2, -1, &limit);
    return rc ? rc : pm_text_replace(r, s, old, by, limit, out);
}

static int filter_indent(CALL_ARGS)
{
    struct pm_text s, with = {0};
    struct pm_value lines;
    struct pm_buf text = {0};
    int64_t width = 4;
    bool first = pm_call_flag(args, 1, false), blank = pm_call_flag(args, 2, false),
         is_text = args->has[0] && args->slot[0].kind == PM_V_STRING;
    int rc = pm_call_string(r, "indent", self, &s);
    if (!rc && is_text)
        with = args->slot[0].u.string;
    else if (!rc)
        rc = pm_call_int(r, "indent", args, 0, 4, &width);
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
    struct pm_json_style style = {.ascii = pm_call_flag(args, 0, false),
                                  .sorted = pm_call_flag(args, 3, false),
                                  .between = {", ", 2},
                                  .colon = {": ", 2}};
    static const char blanks[] = "                                ";
    int64_t width;
    int rc = 0;
    if (pm_call_has(args, 1)) {
        style.is_indented = true;
        style.between.bytes = 1;
        if (args->slot[1].kind == PM_V_STRING) {
            style.indent = args->slot[1].u.string;
        } else if (!(rc = pm_call_int(r, "tojson", args, 1, 0, &width))) {
            if (width > (int64_t)sizeof blanks - 1)
                return pm_render_fail(r, PM_ELIMIT, "tojson indented by more than %zu", sizeof blanks - 1);
            style.indent = (struct pm_text){blanks, width > 0 ? (size_t)width : 0};
        }
    }
    if (!rc && pm_call_has(args, 2)) {
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
        return pm_call_fail(r, "int", self);
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
        return pm_call_fail(r, "float", self);
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
        return pm_call_fail(r, "abs", self);
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
        return pm_call_fail(r, "length", self);
    return 0;
}

static int filter_default(CALL_ARGS)
{
    (void)r;
    bool is_missing =
        self->kind == PM_V_UNDEFINED || (pm_call_flag(args, 1, false) && !pm_value_is_true(self));
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
        return pm_call_fail(r, "last", self);
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

int pm_call_dict_parts(struct pm_render *r, const struct pm_dict *d, int half, enum pm_seq_flavour flavour,
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
        return pm_call_fail(r, "items", self);
    return pm_call_dict_parts(r, self->u.dict, 0, PM_SEQ_LAZY, out);
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

int pm_call_join(CALL_ARGS)
{
    struct pm_text between = {"", 0};
    const struct pm_seq *items;
    struct pm_buf text = {0};
    int rc = pm_value_walk(r, self, &items);
    if (!rc && args->has[0])
        rc = pm_value_text(r, &args->slot[0], &between);
    for (size_t i = 0; !rc && i < items->count; i++) {
        struct pm_value item = items->items[i];
        if (pm_call_has(args, 1))
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
    if (!rc && pm_call_has(args, 2) && args->slot[2].kind == PM_V_STRING &&
        memchr(args->slot[2].u.string.text, ',', args->slot[2].u.string.bytes))
        return pm_render_fail(r, PM_EUNSUPPORTED, "sort by several attributes is not served");
    return rc ? rc
              : sort_seq(r, copy, pm_call_has(args, 2) ? &args->slot[2] : NULL, pm_call_flag(args, 1, false),
                         pm_call_flag(args, 0, false));
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
        return pm_call_fail(r, "dictsort", self);
    const struct pm_value which = pm_value_int(by_value);
    int rc = pm_call_dict_parts(r, self->u.dict, 0, PM_SEQ_LIST, out);
    return rc ? rc
              : sort_seq(r, out->u.seq, &which, pm_call_flag(args, 0, false), pm_call_flag(args, 2, false));
}

/* ---- table ---- */

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
    {"join", "d attribute", 0, pm_call_join},
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

const struct pm_callable *pm_call_look_up(const struct pm_callable *table, size_t count, struct pm_text name)
{
    for (size_t i = 0; i < count; i++)
        if (pm_text_is(name, table[i].name))
            return &table[i];
    return NULL;
}

const struct pm_callable *pm_template_filter(struct pm_text name)
{
    return pm_call_look_up(filters, sizeof filters / sizeof filters[0], name);
}
