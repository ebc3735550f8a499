/* Reading msgpack one token at a time from bytes that nobody vouches for.
 *
 * A token is a scalar, a text or binary with its bytes, or the head of an array or map. Every length and
 * count is compared with the bytes that are left before it is returned (an element takes at least one byte),
 * so that a caller may allocate by them. Nothing is allocated here, nothing recurses: skipping an unknown
 * value, however deep, is a loop with a counter. msgpack-c's own unpacker allocates a tree by the counts that
 * the sender claims before it sees the elements, which is why it is not used for reading.
 *
 * Threads: pure functions. Errors: false means not msgpack or cut off; callers say what they were reading. */
#ifndef PM_PROTO_TOKEN_H
#define PM_PROTO_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pm_token_kind {
    PM_TOKEN_NIL,
    PM_TOKEN_BOOL,
    PM_TOKEN_UINT, /* 0 and above */
    PM_TOKEN_INT,  /* below 0 */
    PM_TOKEN_FLOAT,
    PM_TOKEN_STR,
    PM_TOKEN_BIN,
    PM_TOKEN_EXT,
    PM_TOKEN_ARRAY,
    PM_TOKEN_MAP
};
const char *pm_token_kind_name(enum pm_token_kind kind);

struct pm_token {
    enum pm_token_kind kind;
    union {
        bool truth;
        uint64_t number;  /* UINT */
        int64_t negative; /* INT */
        double real;
    } as;
    const uint8_t *data; /* STR, BIN, EXT */
    size_t size;         /* bytes; or elements of an array, pairs of a map */
};
struct pm_cursor {
    const uint8_t *at;
    size_t left;
};

bool pm_token_read(struct pm_cursor *cursor, struct pm_token *out);
/* Passes over one whole value. */
bool pm_token_skip(struct pm_cursor *cursor);

#endif
