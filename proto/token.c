#include "proto/token.h"

#include <string.h>

const char *pm_token_kind_name(enum pm_token_kind kind)
{
    static const char *const names[] = {"nil",    "bool", "number", "negative number", "float",
                                        "string", "bin",  "ext",    "array",           "map"};
    return (size_t)kind < sizeof names / sizeof names[0] ? names[kind] : "?";
}

static bool big_endian(struct pm_cursor *c, size_t bytes, uint64_t *out)
{
    if (c->left < bytes)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | c->at[i];
    c->at += bytes;
    c->left -= bytes;
    *out = v;
    return true;
}

static bool take_bytes(struct pm_cursor *c, struct pm_token *t, enum pm_token_kind kind, uint64_t size)
{
    if (size > c->left)
        return false;
    t->kind = kind;
    t->data = c->at;
    t->size = (size_t)size;
    c->at += size;
    c->left -= (size_t)size;
    return true;
}

static bool take_count(struct pm_cursor *c, struct pm_token *t, enum pm_token_kind kind, uint64_t count)
{
    if (count > (kind == PM_TOKEN_MAP ? c->left / 2 : c->left))
        return false;
    t->kind = kind;
    t->size = (size_t)count;
    return true;
}

static bool take_uint(struct pm_cursor *c, struct pm_token *t, size_t bytes)
{
    t->kind = PM_TOKEN_UINT;
    return big_endian(c, bytes, &t->as.number);
}

static bool take_int(struct pm_cursor *c, struct pm_token *t, size_t bytes)
{
    uint64_t v;
    if (!big_endian(c, bytes, &v))
        return false;
    unsigned shift = 64 - 8 * (unsigned)bytes;
    int64_t number = (int64_t)(v << shift) >> shift; /* sign extension: arithmetic shift on our compilers */
    if (number >= 0) {
        t->kind = PM_TOKEN_UINT;
        t->as.number = (uint64_t)number;
    } else {
        t->kind = PM_TOKEN_INT;
        t->as.negative = number;
    }
    return true;
}

static bool take_float(struct pm_cursor *c, struct pm_token *t, size_t bytes)
{
    uint64_t v;
    if (!big_endian(c, bytes, &v))
        return false;
    t->kind = PM_TOKEN_FLOAT;
    if (bytes == 4) {
        uint32_t half = (uint32_t)v;
        float f;
        memcpy(&f, &half, sizeof f);
        t->as.real = (double)f;
    } else {
        memcpy(&t->as.real, &v, sizeof t->as.real);
    }
    return true;
}

static bool take_ext(struct pm_cursor *c, struct pm_token *t, uint64_t size)
{
    uint64_t type;
    return big_endian(c, 1, &type) && take_bytes(c, t, PM_TOKEN_EXT, size);
}

bool pm_token_read(struct pm_cursor *c, struct pm_token *t)
{
    uint64_t head, n;
    *t = (struct pm_token){0};
    if (!big_endian(c, 1, &head))
        return false;
    if (head <= 0x7f || head >= 0xe0) {
        t->kind = head <= 0x7f ? PM_TOKEN_UINT : PM_TOKEN_INT;
        if (t->kind == PM_TOKEN_UINT)
            t->as.number = head;
        else
            t->as.negative = (int64_t)head - 256;
        return true;
    }
    if (head <= 0x8f)
        return take_count(c, t, PM_TOKEN_MAP, head & 0xf);
    if (head <= 0x9f)
        return take_count(c, t, PM_TOKEN_ARRAY, head & 0xf);
    if (head <= 0xbf)
        return take_bytes(c, t, PM_TOKEN_STR, head & 0x1f);
    switch (head) {
    case 0xc0:
        t->kind = PM_TOKEN_NIL;
        return true;
    case 0xc2:
    case 0xc3:
        t->kind = PM_TOKEN_BOOL;
        t->as.truth = head == 0xc3;
        return true;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return big_endian(c, (size_t)1 << (head - 0xc4), &n) && take_bytes(c, t, PM_TOKEN_BIN, n);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return big_endian(c, (size_t)1 << (head - 0xc7), &n) && take_ext(c, t, n);
    case 0xca:
    case 0xcb:
        return take_float(c, t, head == 0xca ? 4 : 8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return take_uint(c, t, (size_t)1 << (head - 0xcc));
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return take_int(c, t, (size_t)1 << (head - 0xd0));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return take_ext(c, t, (uint64_t)1 << (head - 0xd4));
    case 0xd9:
    case 0xda:
    case 0xdb:
        return big_endian(c, (size_t)1 << (head - 0xd9), &n) && take_bytes(c, t, PM_TOKEN_STR, n);
    case 0xdc:
    case 0xdd:
        return big_endian(c, head == 0xdc ? 2 : 4, &n) && take_count(c, t, PM_TOKEN_ARRAY, n);
    case 0xde:
    case 0xdf:
        return big_endian(c, head == 0xde ? 2 : 4, &n) && take_count(c, t, PM_TOKEN_MAP, n);
    default: /* 0xc1 is never used */
        return false;
    }
}

bool pm_token_skip(struct pm_cursor *c)
{
    uint64_t open = 1; /* values still to pass; each needs a byte, so it stays below what is left */
    while (open) {
        struct pm_token t;
        if (open > c->left || !pm_token_read(c, &t))
            return false;
        open--;
        if (t.kind == PM_TOKEN_ARRAY)
            open += t.size;
        else if (t.kind == PM_TOKEN_MAP)
            open += (uint64_t)t.size * 2;
    }
    return true;
}
