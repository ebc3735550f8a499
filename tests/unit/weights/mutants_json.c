/* Damage that leaves JSON well-formed: it reaches the checks behind the parser. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/weights/mutants.h"

static json_t *other_value(uint64_t dice)
{
    static const char *const values[] = {"0",
                                         "1",
                                         "-1",
                                         "2",
                                         "7",
                                         "33",
                                         "4294967296",
                                         "9223372036854775807",
                                         "-9223372036854775808",
                                         "1e308",
                                         "0.5",
                                         "1e-45",
                                         "null",
                                         "true",
                                         "false",
                                         "\"\"",
                                         "\"a\"",
                                         "\"../a\"",
                                         "[]",
                                         "{}",
                                         "[0]",
                                         "[1,1,1,1,1,1,1]",
                                         "[[]]",
                                         "[-1]",
                                         "\"\\u0000\"",
                                         "\"\\u00ff\\ud83d\\ude00\"",
                                         "[4294967296,4294967296]",
                                         "{\"a\":1}",
                                         "64",
                                         "100000",
                                         "[\"a\",\"b\"]",
                                         "\"affine\"",
                                         "[0,8]"};
    return json_loads(values[dice % (sizeof values / sizeof *values)], JSON_DECODE_ANY | JSON_ALLOW_NUL,
                      NULL);
}

static size_t count_nodes(const json_t *v)
{
    size_t n = 1, i;
    const char *key;
    json_t *child;
    if (json_is_object(v))
        json_object_foreach((json_t *)(uintptr_t)v, key, child) n += count_nodes(child);
    else
        json_array_foreach(v, i, child) n += count_nodes(child);
    return n;
}

/* Changes the value number *at below v (in the order of count_nodes, without v itself). */
static bool change(json_t *v, size_t *at, uint64_t dice)
{
    size_t i;
    const char *key;
    json_t *child;
    void *next;
    if (json_is_object(v)) {
        json_object_foreach_safe(v, next, key, child)
        {
            if (--*at == 0) {
                if (dice % 5 == 0)
                    json_object_del(v, key);
                else if (dice % 5 == 1) { /* under another name */
                    json_object_set(v, dice & 64 ? "a" : "weight", child);
                    json_object_del(v, key);
                } else
                    json_object_set_new(v, key, other_value(dice >> 8));
                return true;
            }
            if (change(child, at, dice))
                return true;
        }
        return false;
    }
    json_array_foreach(v, i, child)
    {
        if (--*at == 0) {
            if (dice % 5 == 0)
                json_array_remove(v, i);
            else if (dice % 5 == 1)
                json_array_append(v, child);
            else
                json_array_set_new(v, i, other_value(dice >> 8));
            return true;
        }
        if (change(child, at, dice))
            return true;
    }
    return false;
}

bool mutate_json(struct pm_buf *b, uint64_t dice)
{
    /* A safetensors file has eight bytes of length before its JSON. */
    uint64_t length = b->size;
    size_t start = 0;
    if (b->size > 9 && b->data[0] != '{') {
        memcpy(&length, b->data, sizeof length);
        start = 8;
        if (b->data[8] != '{' || length > b->size - start)
            return false;
    }
    json_t *root = json_loadb((const char *)b->data + start, (size_t)length, JSON_ALLOW_NUL, NULL);
    size_t nodes = root ? count_nodes(root) : 0;
    if (nodes < 2) {
        json_decref(root);
        return false;
    }
    size_t at = 1 + (size_t)(dice >> 32) % (nodes - 1);
    change(root, &at, dice);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text)
        return false;
    struct pm_buf out = {0};
    uint64_t bytes = strlen(text);
    if (start)
        pm_buf_append(&out, &bytes, sizeof bytes);
    pm_buf_append(&out, text, (size_t)bytes);
    if (start)
        pm_buf_append(&out, b->data + start + length, b->size - start - (size_t)length);
    free(text);
    pm_buf_free(b);
    *b = out;
    return true;
}
