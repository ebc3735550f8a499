/* JSON schema to nodes of a pm_nfa.
 *
 * Served: type (one or a list), properties, required, additionalProperties, minProperties and maxProperties
 * (of objects without properties), items, prefixItems, minItems, maxItems, enum, const, pattern, minLength,
 * maxLength, minimum, maximum, exclusiveMinimum, exclusiveMaximum (type number: whole bounds), anyOf, oneOf
 * (alternatives that cannot both match), allOf, $ref within the document (recursion to PM_NFA_DEPTH_MAX
 * levels), format (date, time, date-time, uuid, email, ipv4), nullable. title, description, default, examples
 * and the like say nothing. Any other keyword is PM_EUNSUPPORTED, with its path.
 *
 * Texts are narrower than the schema where JSON leaves a choice: properties come in the schema's order,
 * properties that it does not name only where additionalProperties or the lack of properties says so, all
 * prefixItems are there and more only with items; blanks, numbers and escapes as grammar_json.h says.
 *
 * Ownership: nothing is kept of the schema. Threads: none. Errors: PM_EFORMAT, PM_EINVAL, PM_EUNSUPPORTED,
 * PM_ELIMIT with the path of the schema. */
#ifndef PM_ENGINE_TEXT_GRAMMAR_SCHEMA_H
#define PM_ENGINE_TEXT_GRAMMAR_SCHEMA_H

#include <jansson.h>

#include "engine/text/grammar_nfa.h"

enum { PM_SCHEMA_MAX_BYTES = 1 << 20, PM_SCHEMA_DEPTH_MAX = 100, PM_SCHEMA_MERGES_MAX = 10000 };

int pm_schema_build(const char *schema, struct pm_nfa *nfa, struct pm_error *err);

/* What the files of the schema compiler share. The first error stays in rc; after it nothing is done. */
struct pm_schema {
    struct pm_nfa *nfa;
    const json_t *root;
    json_t *made; /* list: keeps schemas alive that were put together */
    struct pm_buf *path;
    int rc;
    struct pm_error *err;
};
void pm_schema_fail(struct pm_schema *s, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What a keyword is about; 0: not known. */
enum {
    PM_KEY_NOTE = 1, /* says nothing about texts */
    PM_KEY_OBJECT = 2,
    PM_KEY_ARRAY = 4,
    PM_KEY_STRING = 8,
    PM_KEY_NUMBER = 16,
    PM_KEY_VALUE = 32,   /* enum, const */
    PM_KEY_TYPE = 64,    /* type, nullable */
    PM_KEY_COMBINE = 128 /* $ref, allOf, anyOf, oneOf */
};
unsigned pm_schema_keyword(const char *key);

/* The schema that a $ref names, borrowed; NULL after an error. */
const json_t *pm_schema_resolve(struct pm_schema *s, const char *ref);
/* A schema that demands what both do; borrowed from s. NULL after an error. */
const json_t *pm_schema_merge(struct pm_schema *s, const json_t *one, const json_t *other);
/* The schema without some key, and without notes. Borrowed from s. */
const json_t *pm_schema_without(struct pm_schema *s, const json_t *schema, const char *key);
/* No value can match both. False also when that is not plain. */
bool pm_schema_are_apart(struct pm_schema *s, const json_t *one, const json_t *other);

#endif
