#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_call.h"

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
        return pm_call_fail(r, "a remainder", self);
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
    int rc = pm_call_int(r, "divisibleby", args, 0, 0, &by);
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
STRING_METHOD(method_strip, "strip", pm_call_strip(r, self, args, 3, out))
STRING_METHOD(method_lstrip, "lstrip", pm_call_strip(r, self, args, 1, out))
STRING_METHOD(method_rstrip, "rstrip", pm_call_strip(r, self, args, 2, out))
STRING_METHOD(method_splitlines, "splitlines",
              pm_text_lines(r, self->u.string, pm_call_flag(args, 0, false), out))

static int method_split(CALL_ARGS)
{
    struct pm_text separator = {0};
    int64_t limit;
    NEED_STRING("split");
    int rc = pm_call_int(r, "split", args, 1, -1, &limit);
    if (!rc && pm_call_has(args, 0))
        rc = pm_call_string(r, "splitting by", &args->slot[0], &separator);
    return rc ? rc : pm_text_split(r, self->u.string, pm_call_has(args, 0) ? &separator : NULL, limit, out);
}

/* With a limit: the last parts, what is left in front stays whole. */
static int method_rsplit(CALL_ARGS)
{
    struct pm_value all;
    int64_t limit;
    NEED_STRING("rsplit");
    int rc = pm_call_int(r, "rsplit", args, 1, -1, &limit);
    if (!rc && limit >= 0 && !pm_call_has(args, 0))
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
                return pm_call_fail(r, at_end ? "endswith" : "startswith", &part->u.seq->items[i]);
            rc = ends_with(r, self, &part->u.seq->items[i], at_end, out);
        }
        return rc;
    }
    if (part->kind != PM_V_STRING)
        return pm_call_fail(r, at_end ? "endswith" : "startswith", part);
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
        return pm_call_fail(r, at_end ? "removesuffix" : "removeprefix", part);
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
    int rc = pm_call_string(r, "replacing", &args->slot[0], &old);
    if (!rc && !(rc = pm_call_string(r, "replacing by", &args->slot[1], &by)))
        rc = pm_call_int(r, "replace", args, 2, -1, &limit);
    return rc ? rc : pm_text_replace(r, self->u.string, old, by, limit, out);
}

static int method_join(CALL_ARGS)
{
    const struct pm_seq *items;
    NEED_STRING("join");
    int rc = args->slot[0].kind == PM_V_UNDEFINED ? 0 : pm_value_walk(r, &args->slot[0], &items);
    for (size_t i = 0; !rc && args->slot[0].kind != PM_V_UNDEFINED && i < items->count; i++)
        if (items->items[i].kind != PM_V_STRING)
            rc = pm_call_fail(r, "joining", &items->items[i]);
    return rc ? rc : pm_call_join(r, &args->slot[0], &(struct pm_arguments){{*self}, {true}}, out);
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
    int rc = pm_call_string(r, "finding", part, &p);
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
        if ((rc = pm_call_string(r, "counting", &args->slot[0], &part)) || (rc = pm_render_work(r, s.bytes)))
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
        return pm_call_dict_parts(r, self->u.dict, half, PM_SEQ_VIEW, out);                                  \
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

const struct pm_callable *pm_template_test(struct pm_text name)
{
    return pm_call_look_up(tests, sizeof tests / sizeof tests[0], name);
}

const struct pm_callable *pm_template_method(struct pm_text name)
{
    return pm_call_look_up(methods, sizeof methods / sizeof methods[0], name);
}
