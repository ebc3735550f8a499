/* Opening a packed model: what is bound, and what is refused with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/vlm/model.h"
#include "tests/unit/base/folder.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "tests/unit/vlm/random_model.h"

static void test_bound(void **state)
{
    for (int p = 0; p < 2; p++) {
        enum pm_precision precision = p ? PM_PRECISION_BF16 : PM_PRECISION_F32;
        struct pm_vlm_model *m = random_model_open(*state, &random_sizes[0], precision);
        const struct random_sizes *s = &random_sizes[0];
        assert_int_equal(m->precision, precision);
        assert_int_equal(m->config.text.vocab, s->vocab);
        assert_int_equal(m->config.image_id, RANDOM_IMAGE_ID);
        assert_int_equal(m->layers[1].qkv.n, (s->heads + 2 * s->kv_heads) * s->head_dim);
        assert_int_equal(m->layers[1].qkv.k, s->hidden);
        assert_int_equal(m->layers[1].gate_up.n, 2 * s->intermediate);
        assert_int_equal(m->vision.layers[1].gate_up.n, 2 * s->vision_intermediate);
        assert_int_equal(m->vision.patch.k, 3 * s->temporal * s->patch * s->patch);
        assert_int_equal(m->vision.downsample.k, s->merge * s->merge * s->vision_hidden);
        /* in f32 the bias lies in the panels */
        assert_true((m->vision.layers[0].qkv.bias != NULL) == (precision == PM_PRECISION_BF16));
        assert_null(m->layers[0].qkv.bias);
        assert_non_null(m->mtp);
        assert_int_equal(m->mtp->join.k, 2 * s->hidden);
        assert_ptr_not_equal(m->mtp->embed, m->embed); /* random: a copy of its own */
        assert_true(m->weight_bytes > 100000);
        pm_vlm_model_close(&m);
        assert_null(m);
    }
}

/* Copies the tensors of a pack but one, with other meta text. */
static char *copy_pack(const char *dir, const char *without, const char *meta)
{
    char *from = random_model_path(dir, &random_sizes[0], PM_PRECISION_F32),
         *to = pm_fs_join(dir, "copy.pmw");
    struct pm_pack *pack;
    struct pm_pack_writer *writer;
    assert_int_equal(pm_pack_open(from, &pack, NULL), 0);
    assert_int_equal(pm_pack_writer_open(to, &writer, NULL), 0);
    for (size_t i = 0; i < pm_pack_count(pack); i++) {
        const struct pm_pack_tensor *t = pm_pack_at(pack, i);
        if (!without || strcmp(t->tensor.name, without) != 0)
            assert_int_equal(pm_pack_writer_add(writer, t->tensor.name, t->tensor.dtype, t->layout,
                                                t->tensor.rank, t->tensor.shape, t->tensor.data, NULL),
                             0);
    }
    assert_int_equal(pm_pack_writer_finish(writer, meta ? meta : pm_pack_meta(pack), NULL), 0);
    pm_pack_writer_free(&writer);
    pm_pack_free(&pack);
    free(from);
    return to;
}

static void refuse(const char *dir, const char *without, const char *meta, int code, const char *why)
{
    char *path = copy_pack(dir, without, meta);
    struct pm_vlm_model *model = (void *)dir;
    struct pm_error err;
    assert_int_equal(pm_glm_ocr_model_open(path, &model, &err), code);
    assert_null(model);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    free(path);
}

static void test_refused(void **state)
{
    static const char *const needed[] = {
        "model.visual.blocks.1.attn.k_norm.weight",
        "model.visual.merger.post_projection_norm.bias",
        "model.visual.downsample.weight",
        "model.language_model.layers.1.self_attn.qkv_proj.weight",
        "model.language_model.layers.2.shared_head.norm.weight",
        "model.language_model.embed_tokens.weight",
        "lm_head.weight",
    };
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        refuse(*state, needed[i], NULL, PM_EFORMAT, needed[i]);
    refuse(*state, NULL, "", PM_EFORMAT, "not a JSON object");
    refuse(*state, NULL, "[1]", PM_EFORMAT, "not a JSON object");
    refuse(*state, NULL, "{\"precision\":\"f32\"}", PM_EFORMAT, "lacks the configuration");
    refuse(*state, NULL, "{\"precision\":\"int3\",\"config\":{}}", PM_EFORMAT, "precision");
    refuse(*state, NULL, "{\"precision\":\"f32\",\"config\":{}}", PM_EFORMAT, "model_type");
    struct pm_vlm_model *model;
    assert_int_equal(pm_glm_ocr_model_open("/no/such/model.pmw", &model, NULL), PM_ENOTFOUND);
}

/* The extra layer's table and head are the main ones when the pack has none of their own. */
static void test_shared(void **state)
{
    char *path = copy_pack(*state, "model.language_model.layers.2.embed_tokens.weight", NULL);
    struct pm_vlm_model *m;
    assert_int_equal(pm_glm_ocr_model_open(path, &m, NULL), 0);
    assert_ptr_equal(m->mtp->embed, m->embed);
    pm_vlm_model_close(&m);
    free(path);
    path = copy_pack(*state, "model.language_model.layers.2.shared_head.head.weight", NULL);
    assert_int_equal(pm_glm_ocr_model_open(path, &m, NULL), 0);
    assert_ptr_equal(m->mtp->head.panels, m->head.panels);
    pm_vlm_model_close(&m);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_shared),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_drop);
}
