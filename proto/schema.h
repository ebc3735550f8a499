/* Macros that write a struct's field table. Each row checks at compile time that the member has the type the
 * row says; the member's name is the key on the wire, so renaming a member is a change of the protocol.
 *
 * Rows start with T, the struct: `PM_ROW_U64(struct pm_held, task, true, "task number")`. `need` is true for
 * required fields. Private to proto/ and to the tests of records. */
#ifndef PM_PROTO_SCHEMA_H
#define PM_PROTO_SCHEMA_H

#include "proto/record.h"

/* offsetof, and an error at compile time when the member is not of type `type`. */
#define PM_ROW_PLACE(T, member, ctype) (offsetof(T, member) + 0 * _Generic(((T *)0)->member, ctype : 1))

#define PM_ROW_SCALAR(T, member, kind, ctype, max, need, text)                                               \
    {                                                                                                        \
        .name = #member, .type = kind, .offset = PM_ROW_PLACE(T, member, ctype), .limit = (max),             \
        .required = (need), .help = (text)                                                                   \
    }
#define PM_ROW_U64(T, member, need, text)  PM_ROW_SCALAR(T, member, PM_FIELD_U64, uint64_t, 0, need, text)
#define PM_ROW_I64(T, member, need, text)  PM_ROW_SCALAR(T, member, PM_FIELD_I64, int64_t, 0, need, text)
#define PM_ROW_U32(T, member, need, text)  PM_ROW_SCALAR(T, member, PM_FIELD_U32, uint32_t, 0, need, text)
#define PM_ROW_F32(T, member, need, text)  PM_ROW_SCALAR(T, member, PM_FIELD_F32, float, 0, need, text)
#define PM_ROW_BOOL(T, member, need, text) PM_ROW_SCALAR(T, member, PM_FIELD_BOOL, bool, 0, need, text)
/* A number of at most max: enumerations and shares. */
#define PM_ROW_MAX(T, member, max, need, text)                                                               \
    PM_ROW_SCALAR(T, member, PM_FIELD_U32, uint32_t, max, need, text)
#define PM_ROW_STR(T, member, max, need, text)                                                               \
    PM_ROW_SCALAR(T, member, PM_FIELD_STR, const char *, max, need, text)
#define PM_ROW_BIN(T, member, max, need, text)                                                               \
    PM_ROW_SCALAR(T, member, PM_FIELD_BIN, struct pm_bytes, max, need, text)
/* float member[n] */
#define PM_ROW_F32S(T, member, n, need, text)                                                                \
    {                                                                                                        \
        .name = #member, .type = PM_FIELD_F32S,                                                              \
        .offset = offsetof(T, member) +                                                                      \
                  0 * sizeof(char[sizeof(((T *)0)->member) == (n) * sizeof(float) ? 1 : -1]),                \
        .limit = (n), .required = (need), .help = (text)                                                     \
    }
#define PM_ROW_REC(T, member, struct_type, schema, need, text)                                               \
    {                                                                                                        \
        .name = #member, .type = PM_FIELD_REC, .offset = PM_ROW_PLACE(T, member, struct_type),               \
        .sub = (schema), .required = (need), .help = (text)                                                  \
    }
#define PM_ROW_LIST(T, member, count_member, kind, ctype, schema, max, need, text)                           \
    {                                                                                                        \
        .name = #member, .type = kind, .offset = PM_ROW_PLACE(T, member, ctype),                             \
        .count_offset = PM_ROW_PLACE(T, count_member, uint32_t), .limit = (max), .sub = (schema),            \
        .required = (need), .help = (text)                                                                   \
    }
#define PM_ROW_RECS(T, member, count_member, struct_type, schema, max, need, text)                           \
    PM_ROW_LIST(T, member, count_member, PM_FIELD_RECS, struct_type *, schema, max, need, text)
#define PM_ROW_STRS(T, member, count_member, max, need, text)                                                \
    PM_ROW_LIST(T, member, count_member, PM_FIELD_STRS, const char **, NULL, max, need, text)
#define PM_ROW_U32S(T, member, count_member, max, need, text)                                                \
    PM_ROW_LIST(T, member, count_member, PM_FIELD_U32S, uint32_t *, NULL, max, need, text)

/* The schema itself: PM_SCHEMA(static, held, "held", 100, struct pm_held, held_fields). */
#define PM_SCHEMA_OF(label, number, T, rows)                                                                 \
    {                                                                                                        \
        .name = (label), .version = (number), .size = sizeof(T), .fields = (rows),                           \
        .field_count = sizeof(rows) / sizeof((rows)[0])                                                      \
    }

#endif
