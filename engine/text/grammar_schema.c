#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "engine/text/grammar_json.h"
#include "engine/text/grammar_regex.h"
#include "engine/text/grammar_schema.h"

enum {
    UNBOUNDED = PM_JSON_UNBOUNDED,
    COUNT_MAX = PM_REGEX_COUNT_MAX,
    NAME_MAX_BYTES = 1024,
    PROPERTIES_MAX = 2000,
    ONE_OF_MAX = 256,
};

/* A rule that was called and is not built yet. */
struct todo {
    const json_t *schema;
    uint32_t rule;
    bool is_member; /* any name, then the value */
    char *path;
};
struct compiler {
    struct pm_schema s;
    struct pm_map rules[2]; /* rule + 1 by schema: values, members */
    struct todo *todo;
    size_t todo_count, todo_capacity;
    int depth;
};

static uint32_t value_of(struct compiler *c, const json_t *schema, uint32_t next);

/* ---- where we are, for messages ---- */

static size_t enter(struct compiler *c, const char *key, int index)
{
    size_t old = c->s.path->size;
    if (key)
        pm_buf_printf(c->s.path, "/%.60s", key);
    if (index >= 0)
        pm_buf_printf(c->s.path, "/%d", index);
    return old;
}

static void leave(struct compiler *c, size_t old)
{
    c->s.path->size = old;
}

/* ---- rules ---- */

static uint32_t call(struct compiler *c, const json_t *schema, bool is_member, uint32_t next)
{
    uintptr_t rule = (uintptr_t)pm_map_get(&c->rules[is_member], (uint64_t)(uintptr_t)schema);
    if (rule == 0) {
        rule = (uintptr_t)pm_nfa_rule(c->s.nfa) + 1;
        pm_map_put(&c->rules[is_member], (uint64_t)(uintptr_t)schema, (void *)rule); // NOLINT: a number
        PM_GROW(c->todo, c->todo_count, c->todo_capacity);
        c->todo[c->todo_count++] = (struct todo){schema, (uint32_t)rule - 1, is_member,
                                                 pm_xstrndup((const char *)c->s.path->data, c->s.path->size)};
    }
    return pm_nfa_call(c->s.nfa, (uint32_t)rule - 1, next);
}

/* ---- reading keywords ---- */

/* A count: 0 or more; otherwise when it is not stated. */
static int count_of(struct compiler *c, const json_t *schema, const char *key, int otherwise)
{
    const json_t *value = json_object_get(schema, key);
    if (value == NULL)
        return otherwise;
    double n = json_number_value(value);
    if (!json_is_number(value) || n < 0 || n != floor(n)) // NOLINT: whole or not
        pm_schema_fail(&c->s, PM_EFORMAT, "\"%s\" is not a whole number from 0", key);
    else if (n > COUNT_MAX)
        pm_schema_fail(&c->s, PM_ELIMIT, "\"%s\" is above %d", key, COUNT_MAX);
    else
        return (int)n;
    return otherwise;
}

static void check_keywords(struct compiler *c, const json_t *schema)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)schema, key, value) if (pm_schema_keyword(key) == 0)
        pm_schema_fail(&c->s, PM_EUNSUPPORTED, "the keyword \"%.60s\" is not served", key);
}

/* ---- lists of things: items, members ---- */

struct series {
    const json_t *schema; /* of an item, or of the value of a member */
    bool is_member;
    int min, max;
};

static uint32_t member(struct compiler *c, const json_t *schema, uint32_t next)
{
    return pm_json_string(c->s.nfa, 0, UNBOUNDED, pm_json_colon(c->s.nfa, value_of(c, schema, next)));
}

static uint32_t item(struct compiler *c, const struct series *e, uint32_t next)
{
    return e->is_member ? member(c, e->schema, next) : value_of(c, e->schema, next);
}

/* min to max of them with commas between; to_first: a comma stands before the first, too */
static uint32_t series(struct compiler *c, const struct series *e, bool comma_first, uint32_t close)
{
    struct pm_nfa *nfa = c->s.nfa;
    uint32_t at = close, first;
    if (c->s.rc || (e->max != UNBOUNDED && e->max < e->min))
        return PM_NFA_NOTHING;
    if (e->max == 0)
        return close;
    if (e->max == UNBOUNDED && e->min <= 1) { /* one copy, which leads back to itself */
        at = pm_nfa_split_open(nfa);
        first = item(c, e, at);
        pm_nfa_split_set(nfa, at, pm_json_comma(nfa, first), close);
    } else {
        if (e->max == UNBOUNDED) {
            at = pm_nfa_split_open(nfa);
            pm_nfa_split_set(nfa, at, pm_json_comma(nfa, call(c, e->schema, e->is_member, at)), close);
        }
        for (int i = (e->max == UNBOUNDED ? e->min : e->max) - 1; i >= 1; i--) {
            at = pm_json_comma(nfa, call(c, e->schema, e->is_member, at));
            at = i >= e->min ? pm_nfa_split(nfa, at, close) : at;
        }
        first = call(c, e->schema, e->is_member, at);
    }
    first = comma_first ? pm_json_comma(nfa, first) : first;
    return e->min == 0 ? pm_nfa_split(nfa, first, close) : first;
}

static const json_t *anything(void)
{
    return json_true(); /* never freed */
}

static uint32_t array_of(struct compiler *c, const json_t *schema, uint32_t next)
{
    struct pm_nfa *nfa = c->s.nfa;
    const json_t *prefix = json_object_get(schema, "prefixItems"), *items = json_object_get(schema, "items");
    int min = count_of(c, schema, "minItems", 0), max = count_of(c, schema, "maxItems", UNBOUNDED);
    uint32_t at = pm_nfa_byte(nfa, ']', ']', next);
    if (json_is_true(json_object_get(schema, "uniqueItems")))
        pm_schema_fail(&c->s, PM_EUNSUPPORTED, "the keyword \"uniqueItems\" is not served");
    if (prefix == NULL && json_is_array(items)) { /* the older form */
        prefix = items;
        items = NULL;
    }
    if (prefix && !json_is_array(prefix))
        pm_schema_fail(&c->s, PM_EFORMAT, "\"prefixItems\" is not a list");
    if (max != UNBOUNDED && min > max)
        pm_schema_fail(&c->s, PM_EINVAL, "\"minItems\" is above \"maxItems\"");
    if (c->s.rc)
        return PM_NFA_NOTHING;
    int n = (int)json_array_size(prefix);
    n = max != UNBOUNDED && n > max ? max : n;
    struct series rest = {items ? items : anything(), false, min > n ? min - n : 0,
                          max == UNBOUNDED ? UNBOUNDED : max - n};
    if (prefix && items == NULL)
        rest.schema = json_false();
    size_t old = enter(c, "items", -1);
    if (json_is_false(rest.schema))
        at = rest.min ? PM_NFA_NOTHING : at;
    else
        at = series(c, &rest, n > 0, at);
    leave(c, old);
    for (int i = n - 1; i >= 0; i--) {
        old = enter(c, "prefixItems", i);
        at = value_of(c, json_array_get(prefix, (size_t)i), at);
        at = i ? pm_json_comma(nfa, at) : at;
        leave(c, old);
    }
    return pm_nfa_byte(nfa, '[', '[', at);
}

/* ---- objects ---- */

struct property {
    const char *name;
    const json_t *schema;
    bool is_required;
};
struct object {
    struct property *properties;
    size_t count, capacity;
    const json_t *others; /* schema of properties that are not named; NULL: there are none */
};

static bool is_listed(const json_t *required, const char *name)
{
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *text = json_string_value(json_array_get(required, i));
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

static void read_object(struct compiler *c, const json_t *schema, struct object *o)
{
    const json_t *properties = json_object_get(schema, "properties"),
                 *required = json_object_get(schema, "required");
    const json_t *others = json_object_get(schema, "additionalProperties");
    const char *name;
    json_t *value;
    if ((properties && !json_is_object(properties)) || (required && !json_is_array(required))) {
        pm_schema_fail(&c->s, PM_EFORMAT, "\"properties\" is an object and \"required\" a list of names");
        return;
    }
    if (json_object_size(properties) > PROPERTIES_MAX || json_array_size(required) > PROPERTIES_MAX) {
        pm_schema_fail(&c->s, PM_ELIMIT, "over %d properties", PROPERTIES_MAX);
        return;
    }
    o->others = others ? others : properties ? NULL : anything();
    o->others = json_is_false(others) ? NULL : o->others;
    json_object_foreach((json_t *)properties, name, value)
    {
        PM_GROW(o->properties, o->count, o->capacity);
        o->properties[o->count++] = (struct property){name, value, is_listed(required, name)};
    }
    for (size_t i = 0; i < json_array_size(required); i++) {
        name = json_string_value(json_array_get(required, i));
        if (name == NULL)
            pm_schema_fail(&c->s, PM_EFORMAT, "\"required\" is a list of names");
        else if (json_is_false(others) && json_object_get(properties, name) == NULL)
            pm_schema_fail(&c->s, PM_EINVAL, "\"%.60s\" is required, and additionalProperties forbids it",
                           name);
        if (c->s.rc)
            return;
        if (json_object_get(properties, name))
            continue;
        bool is_there = false;
        for (size_t k = json_object_size(properties); k < o->count; k++)
            is_there = is_there || strcmp(o->properties[k].name, name) == 0;
        if (is_there)
            continue;
        PM_GROW(o->properties, o->count, o->capacity);
        o->properties[o->count++] = (struct property){name, others ? others : anything(), true};
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Members whose names are none of the properties, after those: *first_out is entered when no member stands
 * before, *more_out when one does. */
static void other_members(struct compiler *c, const struct object *o, uint32_t close, uint32_t *first_out,
                          uint32_t *more_out)
{
    struct pm_nfa *nfa = c->s.nfa;
    const char **names = pm_xalloc((o->count + 1) * sizeof *names);
    for (size_t i = 0; i < o->count; i++) {
        names[i] = o->properties[i].name;
        if (strlen(names[i]) > NAME_MAX_BYTES)
            pm_schema_fail(&c->s, PM_ELIMIT, "a name of over %d bytes beside additionalProperties",
                           NAME_MAX_BYTES);
    }
    if (c->s.rc == 0) {
        qsort(names, o->count, sizeof *names, by_text);
        size_t old = enter(c, "additionalProperties", -1);
        uint32_t again = pm_nfa_split_open(nfa), one = pm_json_colon(nfa, value_of(c, o->others, again));
        one = pm_json_other_string(nfa, names, o->count, one);
        pm_nfa_split_set(nfa, again, pm_json_comma(nfa, one), close);
        *more_out = again;
        *first_out = pm_nfa_split(nfa, one, close);
        leave(c, old);
    }
    free(names);
}

static uint32_t property(struct compiler *c, const struct property *p, uint32_t next)
{
    json_t *name = json_string(p->name);
    char *text = pm_json_text(name);
    size_t old = enter(c, "properties", -1);
    enter(c, p->name, -1);
    uint32_t at = pm_json_colon(c->s.nfa, value_of(c, p->schema, next));
    at = pm_nfa_text(c->s.nfa, text, strlen(text), at);
    leave(c, old);
    free(text);
    json_decref(name);
    return at;
}

static uint32_t object_of(struct compiler *c, const json_t *schema, uint32_t next)
{
    struct pm_nfa *nfa = c->s.nfa;
    struct object o = {0};
    int min = count_of(c, schema, "minProperties", 0), max = count_of(c, schema, "maxProperties", UNBOUNDED);
    uint32_t close = pm_nfa_byte(nfa, '}', '}', next), first = close, more = close;
    read_object(c, schema, &o);
    if (c->s.rc == 0 && o.count == 0 && o.others) {
        size_t old = enter(c, "additionalProperties", -1);
        first = series(c, &(struct series){o.others, true, min, max}, false, close);
        leave(c, old);
    } else if (min > 0 || max != UNBOUNDED) {
        pm_schema_fail(&c->s, PM_EUNSUPPORTED,
                       "minProperties and maxProperties are served for objects without properties only");
    } else if (c->s.rc == 0 && o.others) {
        other_members(c, &o, close, &first, &more);
    }
    for (size_t i = o.count; i-- > 0 && c->s.rc == 0;) {
        const struct property *p = &o.properties[i];
        uint32_t this = property(c, p, more), after_comma = pm_json_comma(nfa, this);
        first = p->is_required ? this : pm_nfa_split(nfa, this, first);
        more = p->is_required ? after_comma : pm_nfa_split(nfa, after_comma, more);
    }
    free(o.properties);
    return pm_nfa_byte(nfa, '{', '{', first);
}

/* ---- strings ---- */

#define MONTH_DAY                                                                                            \
    "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])" \
    ")"
#define LEAP_YEAR "([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)"
#define DATE      "([1-9][0-9]{3}-" MONTH_DAY "|" LEAP_YEAR "-02-29)"
#define CLOCK     "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define OCTET     "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define LABEL     "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", DATE},
    {"time", CLOCK},
    {"date-time", DATE "T" CLOCK},
    {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
    {"email", "[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@" LABEL "(\\." LABEL ")+"},
    {"ipv4", OCTET "(\\." OCTET "){3}"},
};

static uint32_t string_by_pattern(struct compiler *c, const char *pattern, bool search, uint32_t next)
{
    struct pm_regex *regex;
    struct pm_error why;
    if (pm_regex_parse(pattern, search, &regex, &why)) {
        pm_schema_fail(&c->s, why.code, "%s", why.text);
        return PM_NFA_NOTHING;
    }
    uint32_t at = pm_nfa_byte(c->s.nfa, '"', '"', next);
    at = pm_nfa_byte(c->s.nfa, '"', '"', pm_regex_build(regex, c->s.nfa, pm_json_chars, at));
    pm_regex_free(&regex);
    return at;
}

static uint32_t string_of(struct compiler *c, const json_t *schema, uint32_t next)
{
    const json_t *pattern = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
    int min = count_of(c, schema, "minLength", 0), max = count_of(c, schema, "maxLength", UNBOUNDED);
    if ((pattern && !json_is_string(pattern)) || (format && !json_is_string(format)))
        pm_schema_fail(&c->s, PM_EFORMAT, "\"pattern\" and \"format\" are texts");
    else if (max != UNBOUNDED && min > max)
        pm_schema_fail(&c->s, PM_EINVAL, "\"minLength\" is above \"maxLength\"");
    else if ((pattern || format) && (min > 0 || max != UNBOUNDED))
        pm_schema_fail(&c->s, PM_EUNSUPPORTED,
                       "minLength or maxLength beside pattern or format (put the length into the pattern)");
    else if (pattern && format)
        pm_schema_fail(&c->s, PM_EUNSUPPORTED, "pattern and format for one string");
    if (c->s.rc)
        return PM_NFA_NOTHING;
    if (pattern)
        return string_by_pattern(c, json_string_value(pattern), true, next);
    if (format == NULL)
        return pm_json_string(c->s.nfa, min, max, next);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, json_string_value(format)) == 0)
            return string_by_pattern(c, formats[i].pattern, false, next);
    pm_schema_fail(&c->s, PM_EUNSUPPORTED, "the format \"%.60s\" is not served", json_string_value(format));
    return PM_NFA_NOTHING;
}

/* ---- numbers ---- */

/* The tighter of two bounds that keyword and exclusive keyword state; false when there is none. sign 1: the
 * least, -1: the most. */
static bool bound(struct compiler *c, const json_t *schema, const char *key, const char *exclusive, int sign,
                  double *value_out, bool *excluded_out)
{
    const json_t *plain = json_object_get(schema, key), *strict = json_object_get(schema, exclusive);
    bool flag = json_is_true(strict); /* the older form: a flag beside the bound */
    strict = json_is_boolean(strict) ? NULL : strict;
    if ((plain && !json_is_number(plain)) || (strict && !json_is_number(strict)))
        pm_schema_fail(&c->s, PM_EFORMAT, "\"%s\" and \"%s\" are numbers", key, exclusive);
    if (c->s.rc || (plain == NULL && strict == NULL))
        return false;
    double a = json_number_value(plain), b = json_number_value(strict);
    bool use_strict = plain == NULL || (strict && sign * b >= sign * a);
    *value_out = use_strict ? b : a;
    *excluded_out = use_strict || flag;
    return true;
}

static int64_t clamp(double x)
{
    return x > (double)PM_JSON_INTEGER_MAX    ? PM_JSON_INTEGER_MAX
           : x < -(double)PM_JSON_INTEGER_MAX ? -PM_JSON_INTEGER_MAX
                                              : (int64_t)x;
}

static uint32_t number_of(struct compiler *c, const json_t *schema, bool is_integer, uint32_t next)
{
    struct pm_json_range r = {-PM_JSON_INTEGER_MAX, PM_JSON_INTEGER_MAX, false, false};
    double lo = 0, hi = 0;
    bool has_lo = bound(c, schema, "minimum", "exclusiveMinimum", 1, &lo, &r.lo_excluded);
    bool has_hi = bound(c, schema, "maximum", "exclusiveMaximum", -1, &hi, &r.hi_excluded);
    if (c->s.rc)
        return PM_NFA_NOTHING;
    if (!is_integer && !has_lo && !has_hi)
        return pm_json_number(c->s.nfa, next);
    if (!is_integer && ((has_lo && lo != floor(lo)) || (has_hi && hi != floor(hi)))) { // NOLINT: whole or not
        pm_schema_fail(&c->s, PM_EUNSUPPORTED,
                       "bounds of a number with a fraction (whole bounds are served)");
        return PM_NFA_NOTHING;
    }
    if (has_lo) {
        r.lo = clamp(ceil(lo));
        r.lo_excluded = r.lo_excluded && lo == ceil(lo); // NOLINT: whole or not
    }
    if (has_hi) {
        r.hi = clamp(floor(hi));
        r.hi_excluded = r.hi_excluded && hi == floor(hi); // NOLINT: whole or not
    }
    return is_integer ? pm_json_integer_range(c->s.nfa, &r, next) : pm_json_number_range(c->s.nfa, &r, next);
}

/* ---- values ---- */

enum { OBJECT = 1, ARRAY = 2, STRING = 4, NUMBER = 8, INTEGER = 16, BOOLEAN = 32, NIL = 64, ALL = 127 };

static const struct {
    const char *name;
    unsigned type, about; /* keywords that imply it */
} types[] = {{"object", OBJECT, PM_KEY_OBJECT},
             {"array", ARRAY, PM_KEY_ARRAY},
             {"string", STRING, PM_KEY_STRING},
             {"number", NUMBER, PM_KEY_NUMBER},
             {"integer", INTEGER, 0},
             {"boolean", BOOLEAN, 0},
             {"null", NIL, 0}};

static unsigned type_of_name(struct compiler *c, const json_t *name)
{
    for (size_t i = 0; json_is_string(name) && i < sizeof types / sizeof *types; i++)
        if (strcmp(json_string_value(name), types[i].name) == 0)
            return types[i].type;
    pm_schema_fail(&c->s, PM_EFORMAT,
                   "\"type\" is none of object, array, string, number, integer, boolean, null");
    return 0;
}

/* What type says; without it, what the other keywords are about. */
static unsigned types_of(struct compiler *c, const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    unsigned found = 0, about = 0;
    const char *key;
    json_t *value;
    size_t i;
    if (json_is_array(type))
        json_array_foreach((json_t *)type, i, value) found |= type_of_name(c, value);
    else if (type)
        found = type_of_name(c, type);
    if (type == NULL) {
        json_object_foreach((json_t *)schema, key, value) about |= pm_schema_keyword(key);
        for (i = 0; i < sizeof types / sizeof *types; i++)
            found |= about & types[i].about ? types[i].type : 0;
        found = found ? found : ALL;
    }
    if (json_is_true(json_object_get(schema, "nullable")))
        found |= NIL;
    return found & NUMBER ? found & ~(unsigned)INTEGER : found;
}

static bool is_of_type(const json_t *value, unsigned type)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return type & OBJECT;
    case JSON_ARRAY:
        return type & ARRAY;
    case JSON_STRING:
        return type & STRING;
    case JSON_INTEGER:
        return type & (NUMBER | INTEGER);
    case JSON_REAL:
        return type & NUMBER || (type & INTEGER && json_real_value(value) == floor(json_real_value(value)));
    case JSON_TRUE:
    case JSON_FALSE:
        return type & BOOLEAN;
    case JSON_NULL:
        return type & NIL;
    }
    return false;
}

static uint32_t listed_values(struct compiler *c, const json_t *schema, uint32_t next)
{
    const json_t *one = json_object_get(schema, "const"), *list = json_object_get(schema, "enum");
    unsigned type = json_object_get(schema, "type") ? types_of(c, schema) : ALL;
    json_t *values = json_array(), *value;
    const char *key;
    size_t i;
    json_object_foreach((json_t *)schema, key,
                        value) if (pm_schema_keyword(key) &
                                   ~(unsigned)(PM_KEY_NOTE | PM_KEY_VALUE | PM_KEY_TYPE))
        pm_schema_fail(&c->s, PM_EUNSUPPORTED, "\"%.60s\" beside enum or const", key);
    if (list && !json_is_array(list))
        pm_schema_fail(&c->s, PM_EFORMAT, "\"enum\" is not a list");
    bool is_in = one == NULL || list == NULL;
    for (i = 0; one && i < json_array_size(list); i++)
        is_in = is_in || json_equal(one, json_array_get(list, i));
    if (one && is_in && is_of_type(one, type))
        json_array_append(values, (json_t *)one);
    for (i = 0; one == NULL && i < json_array_size(list); i++)
        if (is_of_type(json_array_get(list, i), type))
            json_array_append(values, json_array_get(list, i));
    uint32_t at = c->s.rc ? PM_NFA_NOTHING : pm_json_values(c->s.nfa, values, next);
    json_decref(values);
    return at;
}

static uint32_t typed_value(struct compiler *c, const json_t *schema, uint32_t next)
{
    struct pm_nfa *nfa = c->s.nfa;
    unsigned found = types_of(c, schema);
    uint32_t at = PM_NFA_NOTHING;
    if (found & NIL)
        at = pm_nfa_split(nfa, pm_nfa_text(nfa, "null", 4, next), at);
    if (found & BOOLEAN) {
        at = pm_nfa_split(nfa, pm_nfa_text(nfa, "true", 4, next), at);
        at = pm_nfa_split(nfa, pm_nfa_text(nfa, "false", 5, next), at);
    }
    if (found & (NUMBER | INTEGER))
        at = pm_nfa_split(nfa, number_of(c, schema, !(found & NUMBER), next), at);
    if (found & STRING)
        at = pm_nfa_split(nfa, string_of(c, schema, next), at);
    if (found & ARRAY)
        at = pm_nfa_split(nfa, array_of(c, schema, next), at);
    if (found & OBJECT)
        at = pm_nfa_split(nfa, object_of(c, schema, next), at);
    return at;
}

/* Any value at all: lists and objects of such by a call. */
static uint32_t free_value(struct compiler *c, uint32_t next)
{
    json_t *scalars = json_pack("{s:[s,s,s,s]}", "type", "string", "number", "boolean", "null");
    struct pm_nfa *nfa = c->s.nfa;
    uint32_t at = typed_value(c, scalars, next);
    json_decref(scalars);
    for (int is_member = 0; is_member < 2; is_member++) {
        uint32_t close = pm_nfa_byte(nfa, is_member ? '}' : ']', is_member ? '}' : ']', next);
        at = pm_nfa_split(
            nfa,
            pm_nfa_byte(nfa, is_member ? '{' : '[', is_member ? '{' : '[',
                        series(c, &(struct series){anything(), is_member, 0, UNBOUNDED}, false, close)),
            at);
    }
    return at;
}

static uint32_t alternatives(struct compiler *c, const json_t *schema, const char *key, uint32_t next)
{
    const json_t *list = json_object_get(schema, key), *rest = pm_schema_without(&c->s, schema, key);
    size_t n = json_array_size(list);
    uint32_t at = PM_NFA_NOTHING;
    if (!json_is_array(list) || n == 0)
        pm_schema_fail(&c->s, PM_EFORMAT, "\"%s\" is not a list of schemas", key);
    if (n > ONE_OF_MAX && strcmp(key, "oneOf") == 0)
        pm_schema_fail(&c->s, PM_ELIMIT, "over %d alternatives of \"oneOf\": use anyOf", ONE_OF_MAX);
    for (size_t i = 0; i < n && c->s.rc == 0 && strcmp(key, "oneOf") == 0; i++)
        for (size_t k = 0; k < i; k++)
            if (c->s.rc == 0 && !pm_schema_are_apart(&c->s, json_array_get(list, k), json_array_get(list, i)))
                pm_schema_fail(
                    &c->s, PM_EUNSUPPORTED,
                    "the alternatives %zu and %zu of \"oneOf\" may both match: use anyOf, or give them "
                    "different types or a required property with different const values",
                    k, i);
    for (size_t i = n; i-- > 0 && c->s.rc == 0;) {
        size_t old = enter(c, key, (int)i);
        const json_t *one = json_array_get(list, i);
        if (json_object_size(rest))
            one = pm_schema_merge(&c->s, rest, one);
        if (one)
            at = pm_nfa_split(c->s.nfa, value_of(c, one, next), at);
        leave(c, old);
    }
    return at;
}

/* $ref and allOf: one schema that says all, or a call where $ref stands alone. */
static uint32_t combined(struct compiler *c, const json_t *schema, const char *key, uint32_t next)
{
    const json_t *value = json_object_get(schema, key), *all = pm_schema_without(&c->s, schema, key);
    if (strcmp(key, "$ref") == 0) {
        if (!json_is_string(value))
            pm_schema_fail(&c->s, PM_EFORMAT, "\"$ref\" is not a text");
        const json_t *target = c->s.rc ? NULL : pm_schema_resolve(&c->s, json_string_value(value));
        if (target && json_object_size(all) == 0)
            return call(c, target, false, next);
        all = target ? pm_schema_merge(&c->s, target, all) : NULL;
    } else {
        if (!json_is_array(value) || json_array_size(value) == 0)
            pm_schema_fail(&c->s, PM_EFORMAT, "\"allOf\" is not a list of schemas");
        const json_t *own = all; /* what is referred to comes first, so do its properties */
        all = json_true();
        for (size_t i = 0; c->s.rc == 0 && i < json_array_size(value); i++)
            all = pm_schema_merge(&c->s, all, json_array_get(value, i));
        all = pm_schema_merge(&c->s, all, own);
    }
    return c->s.rc || all == NULL ? PM_NFA_NOTHING : value_of(c, all, next);
}

static uint32_t any_of_schema(struct compiler *c, const json_t *schema, uint32_t next)
{
    /* allOf comes last: two lists of alternatives that cannot be joined wait in it for their turn */
    static const char *const combining[] = {"$ref", "anyOf", "oneOf", "allOf"};
    if (json_is_boolean(schema))
        return json_is_true(schema) ? call(c, schema, false, next) : PM_NFA_NOTHING;
    if (!json_is_object(schema)) {
        pm_schema_fail(&c->s, PM_EFORMAT, "a schema is an object, true or false");
        return PM_NFA_NOTHING;
    }
    check_keywords(c, schema);
    if (c->s.rc)
        return PM_NFA_NOTHING;
    for (int i = 0; i < 4; i++)
        if (json_object_get(schema, combining[i]))
            return i == 1 || i == 2 ? alternatives(c, schema, combining[i], next)
                                    : combined(c, schema, combining[i], next);
    if (json_object_get(schema, "enum") || json_object_get(schema, "const"))
        return listed_values(c, schema, next);
    if (types_of(c, schema) == ALL - INTEGER && json_object_get(schema, "type") == NULL)
        return call(c, anything(), false, next);
    return typed_value(c, schema, next);
}

static uint32_t value_of(struct compiler *c, const json_t *schema, uint32_t next)
{
    if (c->s.rc || c->s.nfa->is_full)
        return PM_NFA_NOTHING;
    if (c->depth >= PM_SCHEMA_DEPTH_MAX) {
        pm_schema_fail(&c->s, PM_ELIMIT,
                       "nested deeper than %d (or a $ref to itself within allOf, or with keywords "
                       "beside it)",
                       PM_SCHEMA_DEPTH_MAX);
        return PM_NFA_NOTHING;
    }
    c->depth++;
    uint32_t at = any_of_schema(c, schema, next);
    c->depth--;
    return at;
}

int pm_schema_build(const char *text, struct pm_nfa *nfa, struct pm_error *err)
{
    struct pm_buf path = {0};
    size_t bytes = strlen(text);
    json_error_t why;
    if (bytes > PM_SCHEMA_MAX_BYTES)
        return pm_fail(err, PM_ELIMIT, "the schema has %zu bytes: %d are allowed", bytes,
                       PM_SCHEMA_MAX_BYTES);
    json_t *root = json_loadb(text, bytes, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        int rc = pm_fail(err, PM_EFORMAT, "the schema is not JSON: %s at byte %d", why.text, why.position);
        if (err)
            pm_sanitize_text(err->text);
        return rc;
    }
    struct compiler c = {.s = {nfa, root, json_array(), &path, 0, err}};
    pm_buf_text(&path, "");
    pm_nfa_rule_set(nfa, 0, value_of(&c, root, PM_NFA_RETURN));
    for (size_t i = 0; i < c.todo_count; i++) { /* building one may add more */
        struct todo t = c.todo[i];
        pm_buf_clear(&path);
        pm_buf_append(&path, t.path, strlen(t.path));
        free(t.path);
        if (c.s.rc)
            continue;
        uint32_t entry = t.is_member              ? member(&c, t.schema, PM_NFA_RETURN)
                         : t.schema == anything() ? free_value(&c, PM_NFA_RETURN)
                                                  : value_of(&c, t.schema, PM_NFA_RETURN);
        pm_nfa_rule_set(nfa, t.rule, entry);
    }
    pm_map_free(&c.rules[0]);
    pm_map_free(&c.rules[1]);
    free(c.todo);
    pm_buf_free(&path);
    json_decref(c.s.made);
    json_decref(root);
    return c.s.rc;
}
