/* Records: plain C structs on the wire and on disk as msgpack maps, described by a table of fields.
 *
 * One table per struct says name, type, place and limit of each field; encoding and decoding walk it. A map
 * key that the table does not know is skipped (newer peers may add fields), a missing optional field stays
 * zero, a missing required one, a wrong type, a text that is not UTF-8 or holds NUL, or anything over its
 * limit is PM_EPROTO with the record's and the field's name. Nesting is at most PM_RECORD_DEPTH records. A
 * key that comes twice is refused too. Memory: a list is allocated only after its count was found to fit both
 * its limit and the bytes that are there.
 *
 * An encoder leaves out optional fields that are zero, empty or NULL, and writes "v" only in the outermost
 * map (nested records share its version). It mends what a decoder would refuse for no fault of the sender's:
 * bytes that are not UTF-8 become U+FFFD, a float that is not finite becomes 0.
 *
 * Ownership: decoded strings, bytes and lists live in the arena given; strings are NUL-terminated copies and
 * never NULL ("" when absent). */
#ifndef PM_PROTO_RECORD_H
#define PM_PROTO_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/mem.h"

#define PM_RECORD_DEPTH      8
#define PM_RECORD_ITEM_BYTES 4096u /* longest string inside a PM_FIELD_STRS list */

struct pm_bytes {
    const uint8_t *data;
    size_t size;
};

enum pm_field_type {
    PM_FIELD_U64,  /* uint64_t */
    PM_FIELD_I64,  /* int64_t */
    PM_FIELD_U32,  /* uint32_t; limit: largest value, 0: any */
    PM_FIELD_F32,  /* float; must be finite */
    PM_FIELD_BOOL, /* bool */
    PM_FIELD_STR,  /* const char *; limit: bytes without NUL */
    PM_FIELD_BIN,  /* struct pm_bytes; limit: bytes */
    PM_FIELD_REC,  /* an embedded struct, described by sub */
    PM_FIELD_RECS, /* a list: pointer at offset, uint32_t count at count_offset; elements described by sub;
                      limit: count */
    PM_FIELD_STRS, /* a list of const char *; limit: count */
    PM_FIELD_U32S, /* a list of uint32_t; limit: count */
    PM_FIELD_F32S, /* a fixed array float[limit] */
};

struct pm_schema;
struct pm_field {
    const char *name;
    enum pm_field_type type;
    size_t offset, count_offset;
    size_t limit;
    const struct pm_schema *sub;
    bool required;
    const char *help; /* one line for docs/wire.md; may be NULL */
};
struct pm_schema {
    const char *name;
    uint32_t version; /* written as the map's first pair "v"; a higher major version is refused: version / 100
                         is the major */
    size_t size;      /* sizeof the struct */
    const struct pm_field *fields; /* at most 64 */
    size_t field_count;
};

/* Appends. A field over its limit is written as it is, and refused by whoever decodes it; where that can
 * happen use pm_record_try_encode. */
void pm_record_encode(const struct pm_schema *schema, const void *record, struct pm_buf *out);
/* As above, but PM_ELIMIT (out unchanged) when a field is over its limit, with the field's name. */
int pm_record_try_encode(const struct pm_schema *schema, const void *record, struct pm_buf *out,
                         struct pm_error *err);
/* The whole of data must be one record. *record_out: schema->size bytes, zeroed first. */
int pm_record_decode(const struct pm_schema *schema, const void *data, size_t bytes, struct pm_arena *arena,
                     void *record_out, struct pm_error *err);

#endif
