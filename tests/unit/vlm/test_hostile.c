/* Packed files with changed bytes under a right checksum: whatever header, index, meta text or values say, a
 * model is refused in words, or opens and can be run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "engine/vlm/decoder.h"
#include "engine/vlm/mtp.h"
#include "tests/unit/base/folder.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "tests/unit/vlm/random_model.h"

enum { MUTANTS = 80, /* of each part of each file */ SIDE_MAX_PX = 96, CHANGES_MAX = 3 };

/* Parts of the file (engine/pack.h): what is covered by the checksum of the index, and the values. */
enum part { HEADER, INDEX, META, DATA, PARTS };

struct file {
    uint8_t *bytes;
    size_t size;
};

static uint64_t number_at(const uint8_t *p, int bytes)
{
    uint64_t n = 0;
    while (bytes--)
        n = n << 8 | p[bytes];
    return n;
}

static uint32_t below(uint64_t *seed, uint64_t end)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*seed >> 33) % (end ? end : 1));
}

static struct file read_file(const char *path)
{
    const uint8_t *map;
    struct file f;
    assert_int_equal(pm_fs_map(path, &map, &f.size, NULL), 0);
    f.bytes = pm_xalloc(f.size);
    memcpy(f.bytes, map, f.size);
    pm_fs_unmap(map, f.size);
    return f;
}

/* The checksum of the index, where the header still says where the index is. */
static void sign(struct file *f)
{
    struct pm_hasher hasher;
    uint64_t index = number_at(f->bytes + 24, 8);
    if (index > f->size)
        return;
    pm_hasher_start(&hasher);
    pm_hasher_add(&hasher, f->bytes, 64);
    pm_hasher_add(&hasher, f->bytes + index, f->size - (size_t)index);
    pm_hasher_finish(&hasher, f->bytes + 64);
}

/* One changed byte: a digit becomes another one, so that JSON stays JSON; else a bit, an end or anything. */
static void change(uint8_t *byte, uint64_t *seed)
{
    static const uint8_t ends[] = {0, 1, 0x7f, 0x80, 0xff};
    if (*byte >= '0' && *byte <= '9' && below(seed, 8))
        *byte = (uint8_t)('0' + below(seed, 10));
    else if (below(seed, 2))
        *byte ^= (uint8_t)(1u << below(seed, 8));
    else
        *byte = below(seed, 2) ? ends[below(seed, sizeof ends)] : (uint8_t)below(seed, 256);
}

static void mutate(struct file *f, enum part part, uint64_t *seed)
{
    size_t index = number_at(f->bytes + 24, 8), meta = f->size - number_at(f->bytes + 56, 4);
    size_t first[PARTS + 1] = {[HEADER] = 0, [INDEX] = index, [META] = meta, [DATA] = 4096};
    size_t end[PARTS] = {[HEADER] = 64, [INDEX] = meta, [META] = f->size, [DATA] = index};
    for (uint32_t n = 1 + below(seed, CHANGES_MAX); n; n--) {
        size_t at = first[part] + below(seed, end[part] - first[part]);
        change(&f->bytes[at], seed);
        if (part == DATA && at + 4 <= index && below(seed, 2)) /* not a number, in either type */
            memset(f->bytes + at / 4 * 4, 0xff, 4);
    }
    sign(f);
}

/* ---- running what opened ---- */

static void run_picture(const struct pm_vlm_model *m, const struct pm_kernels *kernels)
{
    uint8_t pixels[24 * 24 * 3] = {7, 200, 90};
    const struct pm_image image = {
        .pixels = pixels, .width_px = 24, .height_px = 24, .channels = 3, .stride_bytes = 72};
    struct pm_patches patches;
    int width, height, tokens;
    if (pm_smart_resize(&m->config, 24, 24, &width, &height, NULL) || width > SIDE_MAX_PX ||
        height > SIDE_MAX_PX || pm_patches_make(&m->config, &image, &patches, NULL))
        return;
    struct pm_vision *vision = pm_vision_new(m, kernels, NULL);
    assert_non_null(vision);
    if (pm_vision_begin(vision, &patches, NULL) == 0) {
        while (!pm_vision_step(vision, (int64_t)1 << 40)) {
        }
        pm_vision_tokens(vision, &tokens);
        assert_true(tokens >= 1);
    }
    pm_patches_free(&patches);
    pm_vision_free(&vision);
}

/* Two tokens, and a draft where there is the layer for it. */
static void run_text(const struct pm_vlm_model *m, const struct pm_kernels *kernels)
{
    struct pm_kv_pool *pool = pm_kv_pool_new(m, (size_t)1 << 26);
    struct pm_kv kv = {0};
    struct pm_decoder *decoder = pm_decoder_new(m, kernels, NULL, pool, 2);
    struct pm_mtp *mtp = m->mtp ? pm_mtp_new(m, kernels, NULL, pool, 1) : NULL;
    struct pm_error err;
    assert_int_equal(pm_kv_reserve(pool, &kv, 2, NULL), 0);
    const struct pm_decoder_row rows[2] = {
        {.kv = &kv, .token = 0, .wants_logits = true},
        {.kv = &kv,
         .token = m->config.text.vocab - 1,
         .slot = 1,
         .position = {1, 1, 1},
         .wants_logits = true},
    };
    if (pm_decoder_run(decoder, rows, 2, &err))
        fail_msg("%s", err.text);
    const struct pm_mtp_row draft = {.kv = &kv,
                                     .slot = 1,
                                     .hidden = pm_decoder_hidden(decoder, 1),
                                     .token = m->config.image_id,
                                     .position = {1, 1, 1},
                                     .wants_logits = true};
    if (mtp && pm_mtp_run(mtp, &draft, 1, &err))
        fail_msg("%s", err.text);
    pm_mtp_free(&mtp);
    pm_decoder_free(&decoder);
    pm_kv_release(pool, &kv);
    pm_kv_pool_free(&pool);
}

/* True when it opened. */
static bool try_file(const char *path, const struct file *f)
{
    struct pm_vlm_model *m;
    struct pm_error err;
    assert_int_equal(pm_fs_write(path, f->bytes, f->size, false, NULL), 0);
    int rc = pm_glm_ocr_model_open(path, &m, &err);
    if (rc) {
        assert_null(m);
        assert_true(rc == PM_EFORMAT || rc == PM_EUNSUPPORTED);
        assert_non_null(strstr(err.text, path)); /* it says what is wrong with which file */
        return false;
    }
    const struct pm_kernels *kernels = pm_kernels_get(NULL);
    run_picture(m, kernels);
    run_text(m, kernels);
    pm_vlm_model_close(&m);
    return true;
}

static void test_mutants(void **state)
{
    char *path = pm_fs_join(*state, "mutant.pmw");
    uint64_t seed = 5;
    int opened[PARTS] = {0};
    for (int size = 0; size < RANDOM_SIZES; size++) {
        char *from =
            random_model_path(*state, &random_sizes[size], size % 2 ? PM_PRECISION_BF16 : PM_PRECISION_F32);
        struct file good = read_file(from), f = {pm_xalloc(good.size), good.size};
        assert_true(try_file(path, &good));
        for (int part = 0; part < PARTS; part++)
            for (int i = 0; i < MUTANTS; i++) {
                memcpy(f.bytes, good.bytes, good.size);
                mutate(&f, (enum part)part, &seed);
                opened[part] += try_file(path, &f);
            }
        free(good.bytes);
        free(f.bytes);
        free(from);
    }
    /* Neither are all refused, nor does everything pass. */
    assert_true(opened[META] > 5 && opened[META] < 2 * MUTANTS - 5);
    assert_true(opened[INDEX] < 2 * MUTANTS - 5);
    assert_true(opened[DATA] > MUTANTS);
    free(path);
}

/* ---- vectors ---- */

/* The pack with one value of one tensor replaced. */
static void put_value(const char *from, const char *to, const char *tensor, float value)
{
    struct pm_pack *pack;
    struct file f = read_file(from);
    assert_int_equal(pm_pack_open(from, &pack, NULL), 0);
    const struct pm_pack_tensor *t = pm_pack_find(pack, tensor);
    const uint8_t *map_begin = (const uint8_t *)pm_pack_at(pack, 0)->tensor.data - 4096;
    assert_non_null(t);
    memcpy(f.bytes + ((const uint8_t *)t->tensor.data - map_begin) + 4, &value, sizeof value);
    assert_int_equal(pm_fs_write(to, f.bytes, f.size, false, NULL), 0);
    pm_pack_free(&pack);
    free(f.bytes);
}

/* Norms and biases are small enough to be looked at: one bad value there spoils every text. */
static void test_vectors(void **state)
{
    static const char *const names[] = {
        "model.visual.blocks.0.norm1.weight",
        "model.visual.blocks.0.attn.q_norm.weight",
        "model.visual.blocks.0.attn.qkv.bias",
        "model.visual.merger.post_projection_norm.bias",
        "model.language_model.layers.0.post_mlp_layernorm.weight",
        "model.language_model.layers.2.enorm.weight",
        "model.language_model.norm.weight",
    };
    static const float values[] = {0.0f / 0.0f, 1.0f / 0.0f, -1.0f / 0.0f};
    char *from = random_model_path(*state, &random_sizes[0], PM_PRECISION_BF16);
    char *to = pm_fs_join(*state, "value.pmw");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct pm_vlm_model *m;
        struct pm_error err;
        put_value(from, to, names[i], values[i % 3]);
        assert_int_equal(pm_glm_ocr_model_open(to, &m, &err), PM_EFORMAT);
        assert_null(m);
        if (!strstr(err.text, names[i]) || !strstr(err.text, "finite") || !strstr(err.text, to))
            fail_msg("\"%s\" does not name %s", err.text, names[i]);
    }
    free(from);
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutants),
        cmocka_unit_test(test_vectors),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_drop);
}
