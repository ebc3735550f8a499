#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/grammar_schema.h"

void pm_schema_fail(struct pm_schema *s, int code, const char *format, ...)
{
    char text[300];
    va_list args;
    if (s->rc)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    s->rc = pm_fail(s->err, code, "schema #%.*s: %s", (int)s->path->size, (const char *)s->path->data, text);
    if (s->err)
        pm_sanitize_text(s->err->text);
}

unsigned pm_schema_keyword(const char *key)
{
    static const struct {
        const char *key;
        unsigned about;
    } keys[] = {{"title", PM_KEY_NOTE},
                {"description", PM_KEY_NOTE},
                {"default", PM_KEY_NOTE},
                {"example", PM_KEY_NOTE},
                {"examples", PM_KEY_NOTE},
                {"deprecated", PM_KEY_NOTE},
                {"readOnly", PM_KEY_NOTE},
                {"writeOnly", PM_KEY_NOTE},
                {"$schema", PM_KEY_NOTE},
                {"$id", PM_KEY_NOTE},
                {"$comment", PM_KEY_NOTE},
                {"$defs", PM_KEY_NOTE},
                {"definitions", PM_KEY_NOTE},
                {"discriminator", PM_KEY_NOTE},
                {"properties", PM_KEY_OBJECT},
                {"required", PM_KEY_OBJECT},
                {"additionalProperties", PM_KEY_OBJECT},
                {"minProperties", PM_KEY_OBJECT},
                {"maxProperties", PM_KEY_OBJECT},
                {"items", PM_KEY_ARRAY},
                {"prefixItems", PM_KEY_ARRAY},
                {"minItems", PM_KEY_ARRAY},
                {"maxItems", PM_KEY_ARRAY},
                {"uniqueItems", PM_KEY_ARRAY},
                {"pattern", PM_KEY_STRING},
                {"format", PM_KEY_STRING},
                {"minLength", PM_KEY_STRING},
                {"maxLength", PM_KEY_STRING},
                {"minimum", PM_KEY_NUMBER},
                {"maximum", PM_KEY_NUMBER},
                {"exclusiveMinimum", PM_KEY_NUMBER},
                {"exclusiveMaximum", PM_KEY_NUMBER},
                {"enum", PM_KEY_VALUE},
                {"const", PM_KEY_VALUE},
                {"type", PM_KEY_TYPE},
                {"nullable", PM_KEY_TYPE},
                {"$ref", PM_KEY_COMBINE},
                {"allOf", PM_KEY_COMBINE},
                {"anyOf", PM_KEY_COMBINE},
                {"oneOf", PM_KEY_COMBINE}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i].key) == 0)
            return keys[i].about;
    return 0;
}

/* ---- $ref ---- */

/* One step of a JSON pointer ("~1" is "/", "~0" is "~", "%41" is "A") into name; false when it is malformed.
 */
static bool unescape_step(const char *step, size_t bytes, char *name)
{
    for (size_t i = 0; i < bytes; i++) {
        char c = step[i];
        if (c == '%') {
            char digits[3] = {0}, *end;
            if (bytes - i < 3)
                return false;
            memcpy(digits, step + i + 1, 2);
            c = (char)strtol(digits, &end, 16);
            if (end != digits + 2 || c == '\0')
                return false;
            i += 2;
        }
        if (c == '~') {
            if (i + 1 >= bytes || (step[i + 1] != '0' && step[i + 1] != '1'))
                return false;
            c = step[++i] == '0' ? '~' : '/';
        }
        *name++ = c;
    }
    *name = '\0';
    return true;
}

static const json_t *step_into(const json_t *at, const char *name)
{
    char *end;
    if (json_is_object(at))
        return json_object_get(at, name);
    if (!json_is_array(at) || *name < '0' || *name > '9')
        return NULL;
    unsigned long index = strtoul(name, &end, 10);
    return *end ? NULL : json_array_get(at, index);
}

const json_t *pm_schema_resolve(struct pm_schema *s, const char *ref)
{
    const json_t *at = s->root;
    if (*ref != '#' || (ref[1] != '\0' && ref[1] != '/')) {
        pm_schema_fail(s, PM_EUNSUPPORTED,
                       "$ref \"%.100s\": only places of this document (\"#/$defs/...\") are read", ref);
        return NULL;
    }
    char *name = pm_xalloc(strlen(ref) + 1);
    for (const char *step = ref + 1; *step && at;) {
        size_t n = strcspn(++step, "/");
        at = unescape_step(step, n, name) ? step_into(at, name) : NULL;
        step += n;
    }
    free(name);
    if (at == NULL)
        pm_schema_fail(s, PM_EFORMAT, "$ref \"%.100s\" names nothing in the schema", ref);
    return at;
}

/* ---- merging ---- */

static json_t *keep(struct pm_schema *s, json_t *made)
{
    if (json_array_size(s->made) >= PM_SCHEMA_MERGES_MAX)
        pm_schema_fail(s, PM_ELIMIT, "more than %d combinations of allOf, anyOf, oneOf and $ref",
                       PM_SCHEMA_MERGES_MAX);
    json_array_append_new(s->made, made);
    return made;
}

static json_t *both_of(const json_t *one, const json_t *other)
{
    return json_pack("{s:[O,O]}", "allOf", one, other);
}

const json_t *pm_schema_without(struct pm_schema *s, const json_t *schema, const char *key)
{
    json_t *rest = keep(s, json_object()), *value;
    const char *name;
    json_object_foreach((json_t *)schema, name,
                        value) if (strcmp(name, key) != 0 && pm_schema_keyword(name) != PM_KEY_NOTE)
        json_object_set(rest, name, value);
    return rest;
}

/* Lists are compared entry by entry: these are too long for it. */
static bool are_long(const json_t *one, const json_t *other)
{
    return json_array_size(one) > 1000 && json_array_size(other) > 1000;
}

static bool list_has(const json_t *list, const json_t *value)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), value))
            return true;
    return false;
}

static json_t *as_list(const json_t *value)
{
    return json_is_array(value) ? json_incref((json_t *)value) : json_pack("[O]", value);
}

static bool has_type(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

static json_t *common_types(const json_t *one, const json_t *other)
{
    json_t *a = as_list(one), *b = as_list(other), *common = json_array(), *value;
    size_t i;
    json_array_foreach(a, i, value)
    {
        const char *name = json_string_value(value);
        if (name && (has_type(b, name) || (strcmp(name, "integer") == 0 && has_type(b, "number"))))
            json_array_append(common, value);
        else if (name && strcmp(name, "number") == 0 && has_type(b, "integer"))
            json_array_append_new(common, json_string("integer"));
    }
    json_decref(a);
    json_decref(b);
    return common;
}

static json_t *common_values(const json_t *one, const json_t *other)
{
    json_t *common = json_array(), *value;
    size_t i;
    json_array_foreach((json_t *)one, i, value) if (list_has(other, value)) json_array_append(common, value);
    return common;
}

static json_t *united(const json_t *one, const json_t *other)
{
    json_t *all = json_copy((json_t *)one), *value;
    size_t i;
    json_array_foreach((json_t *)other, i, value) if (!list_has(all, value)) json_array_append(all, value);
    return all;
}

/* What an object schema says of a property that it does not name; NULL: nothing. */
static const json_t *of_others(const json_t *schema)
{
    const json_t *more = json_object_get(schema, "additionalProperties");
    return json_is_true(more) ? NULL : more;
}

static json_t *common_properties(const json_t *one, const json_t *other)
{
    const json_t *a = json_object_get(one, "properties"), *b = json_object_get(other, "properties");
    json_t *all = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)a, key, value)
    {
        const json_t *twin = json_object_get(b, key) ? json_object_get(b, key) : of_others(other);
        json_object_set_new(all, key, twin ? both_of(value, twin) : json_incref(value));
    }
    json_object_foreach((json_t *)b, key, value) if (json_object_get(all, key) == NULL)
        json_object_set_new(all, key, of_others(one) ? both_of(of_others(one), value) : json_incref(value));
    return all;
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Both schemas state key, differently. NULL: cannot be joined. */
static json_t *join(const char *key, const json_t *one, const json_t *other)
{
    if (strcmp(key, "type") == 0)
        return common_types(one, other);
    if (strcmp(key, "enum") == 0)
        return json_is_array(one) && json_is_array(other) && !are_long(one, other) ? common_values(one, other)
                                                                                   : NULL;
    if (strcmp(key, "required") == 0)
        return json_is_array(one) && json_is_array(other) && !are_long(one, other) ? united(one, other)
                                                                                   : NULL;
    if (strcmp(key, "items") == 0 || strcmp(key, "additionalProperties") == 0)
        return json_is_array(one) || json_is_array(other) ? NULL : both_of(one, other);
    if (json_is_number(one) && json_is_number(other)) {
        bool is_less = json_number_value(one) < json_number_value(other);
        if (starts_with(key, "max") || strcmp(key, "exclusiveMaximum") == 0)
            return json_incref((json_t *)(is_less ? one : other));
        if (starts_with(key, "min") || strcmp(key, "exclusiveMinimum") == 0)
            return json_incref((json_t *)(is_less ? other : one));
    }
    return NULL;
}

/* The older form: a flag beside minimum. */
static void unflag(json_t *schema, const char *flag, const char *bound)
{
    const json_t *value = json_object_get(schema, flag);
    if (!json_is_boolean(value))
        return;
    if (json_is_true(value) && json_object_get(schema, bound)) {
        json_object_set(schema, flag, json_object_get(schema, bound));
        json_object_del(schema, bound);
    } else {
        json_object_del(schema, flag);
    }
}

/* One way to say each thing: const is an enum of one, nullable a type. */
static json_t *normal(struct pm_schema *s, const json_t *schema)
{
    json_t *copy = keep(s, json_object()), *value;
    const char *key;
    json_object_foreach((json_t *)schema, key, value) if (pm_schema_keyword(key) != PM_KEY_NOTE)
        json_object_set(copy, key, value);
    value = json_object_get(copy, "const");
    if (value && json_object_get(copy, "enum") == NULL) {
        json_object_set_new(copy, "enum", json_pack("[O]", value));
        json_object_del(copy, "const");
    }
    value = json_object_get(copy, "type");
    if (value && json_is_true(json_object_get(copy, "nullable"))) {
        json_t *types = as_list(value), *more = json_copy(types);
        if (!has_type(types, "null"))
            json_array_append_new(more, json_string("null"));
        json_object_set_new(copy, "type", more);
        json_decref(types);
    }
    json_object_del(copy, "nullable");
    unflag(copy, "exclusiveMinimum", "minimum");
    unflag(copy, "exclusiveMaximum", "maximum");
    return copy;
}

static void join_combined(json_t *out, const char *key, const json_t *value)
{
    json_t *all = json_object_get(out, "allOf") ? json_copy(json_object_get(out, "allOf")) : json_array();
    if (strcmp(key, "allOf") == 0)
        json_array_extend(all, (json_t *)value);
    else
        json_array_append_new(all, json_pack("{s:O}", key, value));
    json_object_set_new(out, "allOf", all);
}

const json_t *pm_schema_merge(struct pm_schema *s, const json_t *one, const json_t *other)
{
    if (s->rc)
        return NULL;
    if (json_is_boolean(one))
        return json_is_true(one) ? other : one;
    if (json_is_boolean(other))
        return json_is_true(other) ? one : other;
    if (!json_is_object(one) || !json_is_object(other)) {
        pm_schema_fail(s, PM_EFORMAT, "a schema is an object, true or false");
        return NULL;
    }
    json_t *out = normal(s, one), *right = normal(s, other), *value;
    json_t *left = keep(s, json_copy(out));
    const char *key;
    json_object_foreach(right, key, value)
    {
        const json_t *old = json_object_get(left, key);
        if (strcmp(key, "properties") == 0 || (old && json_equal(old, value)))
            continue;
        if (pm_schema_keyword(key) == PM_KEY_COMBINE && old) {
            join_combined(out, key, value);
            continue;
        }
        json_t *joined = old ? join(key, old, value) : json_incref(value);
        if (joined == NULL) {
            pm_schema_fail(s, PM_EUNSUPPORTED, "two different \"%.60s\" for one value cannot be combined",
                           key);
            return NULL;
        }
        json_object_set_new(out, key, joined);
    }
    if (json_is_object(json_object_get(left, "properties")) ||
        json_is_object(json_object_get(right, "properties")))
        json_object_set_new(out, "properties", common_properties(left, right));
    return out;
}

/* ---- are two schemas apart? ---- */

static const json_t *plain(struct pm_schema *s, const json_t *schema)
{
    for (int i = 0; i < 32 && schema && json_is_string(json_object_get(schema, "$ref")); i++)
        schema = pm_schema_resolve(s, json_string_value(json_object_get(schema, "$ref")));
    return schema;
}

/* The values that a schema lists: new reference, NULL when it lists none. */
static json_t *listed(const json_t *schema)
{
    const json_t *values = json_object_get(schema, "enum"), *value = json_object_get(schema, "const");
    if (value)
        return json_pack("[O]", value);
    return json_is_array(values) ? json_incref((json_t *)values) : NULL;
}

static bool lists_are_apart(const json_t *one, const json_t *other)
{
    json_t *a = listed(one), *b = listed(other),
           *common = a && b && !are_long(a, b) ? common_values(a, b) : NULL;
    bool apart = common && json_array_size(common) == 0;
    json_decref(common);
    json_decref(a);
    json_decref(b);
    return apart;
}

static unsigned kind_of_value(const json_t *value)
{
    int type = json_is_false(value) ? JSON_TRUE : (int)json_typeof(value);
    return 1u << (type == JSON_REAL ? JSON_INTEGER : type);
}

/* One bit a kind of JSON value that may match. */
static unsigned kinds(struct pm_schema *s, const json_t *schema, int depth)
{
    static const struct {
        const char *name;
        unsigned kind;
    } types[] = {{"object", 1u << JSON_OBJECT},   {"array", 1u << JSON_ARRAY},
                 {"string", 1u << JSON_STRING},   {"number", 1u << JSON_INTEGER},
                 {"integer", 1u << JSON_INTEGER}, {"boolean", 1u << JSON_TRUE},
                 {"null", 1u << JSON_NULL}};
    unsigned found = 0;
    json_t *values = listed(schema), *value;
    size_t i;
    if (values) {
        json_array_foreach(values, i, value) found |= kind_of_value(value);
        json_decref(values);
        return found;
    }
    const json_t *type = json_object_get(schema, "type"), *any = json_object_get(schema, "anyOf");
    if (type) {
        json_t *list = as_list(type);
        for (size_t k = 0; k < sizeof types / sizeof *types; k++)
            found |= has_type(list, types[k].name) ? types[k].kind : 0;
        json_decref(list);
        return found | (json_is_true(json_object_get(schema, "nullable")) ? 1u << JSON_NULL : 0);
    }
    any = any ? any : json_object_get(schema, "oneOf");
    if (!json_is_array(any) || depth >= 16)
        return ~0u;
    json_array_foreach((json_t *)any, i, value)
    {
        const json_t *target = plain(s, value);
        found |= target ? kinds(s, target, depth + 1) : ~0u;
    }
    return found;
}

static bool requires(const json_t *schema, const char *key)
{
    const json_t *list = json_object_get(schema, "required");
    return json_is_array(list) && has_type(list, key);
}

bool pm_schema_are_apart(struct pm_schema *s, const json_t *one, const json_t *other)
{
    one = plain(s, one);
    other = plain(s, other);
    if (one == NULL || other == NULL)
        return false;
    unsigned shared = kinds(s, one, 0) & kinds(s, other, 0);
    if (shared == 0 || lists_are_apart(one, other))
        return true;
    if (shared != 1u << JSON_OBJECT)
        return false;
    json_t *value;
    const char *key;
    json_object_foreach(json_object_get(one, "properties"), key, value)
    {
        const json_t *twin = json_object_get(json_object_get(other, "properties"), key);
        if (twin && requires(one, key) && requires(other, key) &&
            lists_are_apart(plain(s, value), plain(s, twin)))
            return true;
    }
    return false;
}
