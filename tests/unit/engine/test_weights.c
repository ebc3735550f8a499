/* Weight files from hostile hands: safetensors and packed files, good ones, precisely wrong ones, and
 * mutants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/kernels/kernels.h"
#include "engine/pack.h"
#include "engine/safetensors.h"

/* ---- safetensors ---- */

static struct pm_buf safetensors(const char *json, size_t data_bytes)
{
    struct pm_buf b = {0};
    uint64_t n = strlen(json);
    for (int i = 0; i < 8; i++)
        pm_buf_append(&b, &(uint8_t){(uint8_t)(n >> 8 * i)}, 1);
    pm_buf_append(&b, json, n);
    for (size_t i = 0; i < data_bytes; i++)
        pm_buf_append(&b, &(uint8_t){(uint8_t)i}, 1);
    return b;
}

/* Parses; the error's text must contain why (NULL: must succeed). */
static void expect(const char *json, size_t data_bytes, const char *why)
{
    struct pm_buf b = safetensors(json, data_bytes);
    struct pm_safetensors *f;
    struct pm_error err;
    int rc = pm_safetensors_parse("test", b.data, b.size, &f, &err);
    if (why) {
        assert_int_equal(rc, PM_EFORMAT);
        assert_null(f);
        if (!strstr(err.text, why))
            fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    } else
        assert_int_equal(rc, 0);
    pm_safetensors_free(&f);
    pm_buf_free(&b);
}

static void test_safetensors_good(void **state)
{
    (void)state;
    struct pm_buf b = safetensors("{\"b\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[8,16]},"
                                  "\"a\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                  "\"none\":{\"dtype\":\"U8\",\"shape\":[0,3],\"data_offsets\":[8,8]},"
                                  "\"__metadata__\":{\"k\":\"v\"}}",
                                  16);
    struct pm_safetensors *f;
    assert_int_equal(pm_safetensors_parse("test", b.data, b.size, &f, NULL), 0);
    assert_int_equal(pm_safetensors_count(f), 3);
    assert_string_equal(pm_safetensors_at(f, 0)->name, "a");
    assert_null(pm_safetensors_at(f, 3));
    assert_null(pm_safetensors_find(f, "c"));
    const struct pm_tensor *t = pm_safetensors_find(f, "b");
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->bytes, 8);
    assert_int_equal(t->data[0], 8);
    pm_safetensors_free(&f);
    pm_buf_free(&b);
}

static void test_safetensors_bad(void **state)
{
    (void)state;
    expect("[]", 0, "not a JSON object");
    expect("{", 0, "not a JSON object");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
           "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
           8, "not a JSON object");
    expect("{\"a\":1}", 4, "dtype");
    expect("{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "F31");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "at most 6");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "impossible size");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "impossible size");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 4,
           "impossible size");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "cut short");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, "cut short");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "4 bytes of data");
    expect("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
           "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
           8, "share bytes");
    expect("{}", 0, NULL);
    struct pm_safetensors *f;
    assert_int_equal(pm_safetensors_parse("t", (const uint8_t *)"\1\2", 2, &f, NULL), PM_EFORMAT);
    static const uint8_t huge[16] = {0, 0, 0, 0, 0, 0, 0, 128};
    assert_int_equal(pm_safetensors_parse("t", huge, sizeof huge, &f, NULL), PM_EFORMAT);
}

static void test_safetensors_floats(void **state)
{
    (void)state;
    static const char json[] = "{\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},"
                               "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]},"
                               "\"n\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]},"
                               "\"i\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[16,17]}}";
    struct pm_buf b = safetensors(json, 17);
    uint8_t *data = b.data + 8 + strlen(json);
    static const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x3f80, 0xc040};
    static const uint32_t nan_bits = 0x7fc00000;
    memcpy(data, halves, sizeof halves);
    memcpy(data + 12, &nan_bits, 4);
    struct pm_safetensors *f;
    float *v;
    assert_int_equal(pm_safetensors_parse("test", b.data, b.size, &f, NULL), 0);
    assert_int_equal(pm_safetensors_floats(f, "h", 1, (const uint64_t[]){4}, &v, NULL), 0);
    assert_true(v[0] == 1.0f && v[1] == -2.0f && v[2] == 5.9604644775390625e-8f && v[3] == 65504.0f);
    free(v);
    assert_int_equal(pm_safetensors_floats(f, "b", -1, NULL, &v, NULL), 0);
    assert_true(v[0] == 1.0f && v[1] == -3.0f);
    free(v);
    assert_int_equal(pm_safetensors_floats(f, "h", 1, (const uint64_t[]){5}, &v, NULL), PM_EFORMAT);
    assert_int_equal(pm_safetensors_floats(f, "h", 2, (const uint64_t[]){2, 2}, &v, NULL), PM_EFORMAT);
    assert_int_equal(pm_safetensors_floats(f, "n", -1, NULL, &v, NULL), PM_EFORMAT);
    assert_int_equal(pm_safetensors_floats(f, "i", -1, NULL, &v, NULL), PM_EFORMAT);
    assert_int_equal(pm_safetensors_floats(f, "x", -1, NULL, &v, NULL), PM_ENOTFOUND);
    pm_safetensors_free(&f);
    pm_buf_free(&b);
}

/* ---- packed files ---- */

static char *temporary(const char *name)
{
    char *dir = getenv("TMPDIR");
    return pm_xprintf("%s/pm-weights-%ld-%s", dir ? dir : "/tmp", (long)getpid(), name);
}

/* A small file: panels 10 x (2 x 3), a depthwise 3x3 of 5 channels, a vector of 7 u8. */
static void write_pack(const char *path)
{
    struct pm_pack_writer *w;
    float panels[16 * 7], depthwise[10 * 16];
    for (size_t i = 0; i < 16 * 7; i++)
        panels[i] = (float)i;
    for (size_t i = 0; i < 160; i++)
        depthwise[i] = -(float)i;
    assert_int_equal(pm_pack_writer_open(path, &w, NULL), 0);
    assert_int_equal(pm_pack_writer_add(w, "dense", PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3,
                                        (const uint64_t[]){10, 2, 3}, panels, NULL),
                     0);
    assert_int_equal(pm_pack_writer_add(w, "dw", PM_DTYPE_F32, PM_LAYOUT_DEPTHWISE, 3,
                                        (const uint64_t[]){5, 3, 3}, depthwise, NULL),
                     0);
    assert_int_equal(pm_pack_writer_add(w, "bytes", PM_DTYPE_U8, PM_LAYOUT_ROWS, 1, (const uint64_t[]){7},
                                        "abcdefg", NULL),
                     0);
    assert_int_equal(
        pm_pack_writer_add(w, "", PM_DTYPE_U8, PM_LAYOUT_ROWS, 1, (const uint64_t[]){7}, "abcdefg", NULL),
        PM_EINVAL);
    assert_int_equal(pm_pack_writer_add(w, "x", PM_DTYPE_U8, PM_LAYOUT_PANELS48, 1, (const uint64_t[]){7},
                                        "abcdefg", NULL),
                     PM_EINVAL);
    assert_int_equal(pm_pack_writer_finish(w, "{\"a\": 1}", NULL), 0);
    pm_pack_writer_free(&w);
}

static void test_pack_round_trip(void **state)
{
    (void)state;
    char *path = temporary("round");
    write_pack(path);
    struct pm_pack *p;
    const void *data;
    struct pm_error err;
    assert_int_equal(pm_pack_open(path, &p, &err), 0);
    assert_int_equal(pm_pack_count(p), 3);
    assert_string_equal(pm_pack_meta(p), "{\"a\": 1}");
    static const uint64_t shape[] = {10, 2, 3}, other[] = {10, 3, 2};
    assert_int_equal(pm_pack_need(p, "dense", PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3, shape, &data, &err), 0);
    assert_int_equal((uintptr_t)data % PM_PACK_ALIGN, 0);
    assert_true(((const float *)data)[111] == 111.0f);
    assert_int_equal(pm_pack_need(p, "dense", PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3, other, &data, &err),
                     PM_EFORMAT);
    assert_non_null(strstr(err.text, "dense"));
    assert_int_equal(pm_pack_need(p, "dense", PM_DTYPE_F32, PM_LAYOUT_DEPTHWISE, 3, shape, &data, &err),
                     PM_EFORMAT);
    assert_int_equal(pm_pack_need(p, "nothing", PM_DTYPE_F32, PM_LAYOUT_ROWS, 1, shape, &data, &err),
                     PM_EFORMAT);
    assert_non_null(strstr(err.text, "nothing"));
    const struct pm_pack_tensor *t = pm_pack_find(p, "bytes");
    assert_memory_equal(t->tensor.data, "abcdefg", 7);
    pm_pack_free(&p);
    assert_int_equal(pm_pack_verify(path, &err), 0);
    unlink(path);
    free(path);
}

static void test_pack_bytes(void **state)
{
    (void)state;
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3, (const uint64_t[]){48, 1, 4}),
                     48 * 5 * 4);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3, (const uint64_t[]){49, 1, 4}),
                     56 * 5 * 4);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3, (const uint64_t[]){88, 1, 4}),
                     96 * 5 * 4);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F32, PM_LAYOUT_DEPTHWISE, 3, (const uint64_t[]){17, 3, 3}),
                     32 * 10 * 4);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3, (const uint64_t[]){0, 1, 4}), -1);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F16, PM_LAYOUT_PANELS48, 3, (const uint64_t[]){48, 1, 4}), -1);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F32, PM_LAYOUT_ROWS, 2, (const uint64_t[]){UINT64_MAX, 2}), -1);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F32, PM_LAYOUT_ROWS, 2, (const uint64_t[]){1ull << 62, 2}), -1);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3,
                                   (const uint64_t[]){(1 << 24) - 1, (1 << 24) - 1, (1 << 24) - 1}),
                     -1);
}

/* Every truncation and every flipped bit of header and index is refused; a flipped bit of the data opens
 * (checking it would read the whole file) and fails verification. */
static void test_pack_mutants(void **state)
{
    (void)state;
    char *path = temporary("mutant");
    write_pack(path);
    struct pm_buf b = {0};
    assert_int_equal(pm_fs_read(path, 1 << 20, &b, NULL), 0);
    void *copy;
    assert_int_equal(pm_alloc_array(b.size, 1, &copy, NULL), 0);
    uint8_t *c = copy;
    struct pm_pack *p;
    uint64_t index = 0;
    memcpy(&index, b.data + 24, 8);
    for (size_t cut = 0; cut < b.size; cut += cut < 4096 || cut > index ? 1 : 13) {
        memcpy(c, b.data, b.size);
        assert_int_equal(pm_pack_parse("cut", c, cut, &p, NULL), PM_EFORMAT);
        assert_null(p);
    }
    for (size_t at = 0; at < b.size; at++) {
        if (at == 128)
            at = index - 64; /* padding and data: below */
        for (int bit = 0; bit < 8; bit++) {
            bool is_hash_of_data = at >= 96 && at < 128, is_data = at >= 128 && at < index;
            memcpy(c, b.data, b.size);
            c[at] ^= (uint8_t)(1 << bit);
            int rc = pm_pack_parse("flip", c, b.size, &p, NULL);
            if (!is_hash_of_data && !is_data && rc != PM_EFORMAT)
                fail_msg("bit %d of byte %zu was not noticed", bit, at);
            pm_pack_free(&p);
        }
    }
    b.data[4096 + 5] ^= 1;
    assert_int_equal(pm_fs_write(path, b.data, b.size, false, NULL), 0);
    assert_int_equal(pm_pack_open(path, &p, NULL), 0);
    pm_pack_free(&p);
    assert_int_equal(pm_pack_verify(path, NULL), PM_EFORMAT);
    unlink(path);
    free(path);
    free(copy);
    pm_buf_free(&b);
}

static uint32_t next(uint32_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

/* Random edits of a safetensors file: refused or loaded, and what is loaded lies inside the bytes. */
static void test_safetensors_mutants(void **state)
{
    (void)state;
    static const char json[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                               "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}";
    struct pm_buf b = safetensors(json, 32);
    uint32_t seed = 20260801;
    int loaded = 0, refused = 0;
    for (int i = 0; i < 20000; i++) {
        uint8_t *c = malloc(b.size); /* exact size: the address sanitizer sees any step outside */
        size_t size = next(&seed) % 4 ? b.size : next(&seed) % b.size;
        assert_non_null(c);
        memcpy(c, b.data, b.size);
        for (uint32_t k = next(&seed) % 4; k > 0; k--)
            c[next(&seed) % b.size] =
                next(&seed) % 2 ? (uint8_t)next(&seed) : (uint8_t)("0129-,[]{}\"F"[next(&seed) % 12]);
        struct pm_safetensors *f;
        if (!pm_safetensors_parse("mutant", c, size, &f, NULL)) {
            loaded++;
            for (size_t k = 0; k < pm_safetensors_count(f); k++) {
                const struct pm_tensor *t = pm_safetensors_at(f, k);
                assert_true(t->data >= c && t->data + t->bytes <= c + size);
            }
        } else
            refused++;
        pm_safetensors_free(&f);
        free(c);
    }
    assert_true(loaded > 100 && refused > 1000);
    pm_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_good),   cmocka_unit_test(test_safetensors_bad),
        cmocka_unit_test(test_safetensors_floats), cmocka_unit_test(test_safetensors_mutants),
        cmocka_unit_test(test_pack_round_trip),    cmocka_unit_test(test_pack_bytes),
        cmocka_unit_test(test_pack_mutants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
