/* Packing: every value is where the kernels look for it, in both precisions; what is joined, shared and left
 * out; and that whatever is wrong with a checkpoint is named, and leaves nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/kernels/bf16.h"
#include "engine/kernels/kernels.h"
#include "engine/manifest.h"
#include "engine/pack.h"
#include "engine/vlm/model.h"
#include "tests/unit/base/folder.h"
#include "tests/unit/glm_ocr/tiny.h"

#define TEXT  "model.language_model."
#define EXTRA TEXT "layers.2."
#define BLOCK "model.visual.blocks.1."

static int pack(const char *source, const char *out, enum pm_precision precision, struct pm_error *err)
{
    struct pm_weights *weights;
    const struct pm_glm_ocr_pack_options options = {.precision = precision, .source = source};
    int rc = pm_weights_open(source, &weights, err);
    if (rc)
        return rc;
    rc = pm_glm_ocr_pack(weights, out, &options, err);
    pm_weights_close(&weights);
    return rc;
}

/* A fresh source and a fresh place below the test's folder. */
struct place {
    char *source, *out, *file;
};

static struct place place_in(const char *root, const char *name)
{
    struct place p = {.source = pm_fs_join(root, name)};
    p.out = pm_xprintf("%s/packed/%s", root, name);
    p.file = pm_fs_join(p.out, "model.pmw");
    return p;
}

static void place_free(struct place *p)
{
    free(p->source);
    free(p->out);
    free(p->file);
}

/* ---- values ---- */

/* W[row][column] and the bias of a product. */
static float weight_at(const struct pm_pack_tensor *t, int row, long column)
{
    int n = (int)t->tensor.shape[0];
    size_t k = (size_t)t->tensor.shape[2];
    if (t->layout == PM_LAYOUT_PANELS48)
        return *pm_panel_at((float *)(uintptr_t)t->tensor.data, n, k, row, column);
    if (t->layout == PM_LAYOUT_PANELS64_INT8 || t->layout == PM_LAYOUT_PANELS64_INT4)
        return pm_quant_panel_value(t->layout == PM_LAYOUT_PANELS64_INT8 ? PM_QUANT_INT8 : PM_QUANT_INT4,
                                    t->tensor.data, k, row, (size_t)column);
    assert_int_equal(t->layout, PM_LAYOUT_PANELS64_BF16);
    return pm_bf16_to_f32(*pm_panel_bf16_at((uint16_t *)(uintptr_t)t->tensor.data, k, row, (size_t)column));
}

/* How far a value may be from itself: values are below 2, and 4 bits cut off up to a quarter. */
static float rounding(const struct pm_pack_tensor *t)
{
    return t->layout == PM_LAYOUT_PANELS64_INT8   ? 1.0F / 127 * 1.01F
           : t->layout == PM_LAYOUT_PANELS64_INT4 ? 0.5F
                                                  : 0;
}

static float bias_at(const struct pm_pack *pack, const char *name, int row)
{
    char bias[128];
    const struct pm_pack_tensor *t = pm_pack_find(pack, name);
    if (t->layout == PM_LAYOUT_PANELS48)
        return weight_at(t, row, -1);
    snprintf(bias, sizeof bias, "%.*s.bias", (int)strlen(name) - 7, name);
    t = pm_pack_find(pack, bias);
    assert_non_null(t);
    assert_int_equal(t->tensor.shape[0] % PM_PANEL_BF16, 0);
    return ((const float *)(const void *)t->tensor.data)[row];
}

struct product {
    const char *name;     /* packed */
    const char *parts[3]; /* in the checkpoint, one after the other */
    int rows[3], k;
    bool has_bias;
};

static void check_product(const struct pm_pack *pack, const struct product *p)
{
    const struct pm_pack_tensor *t = pm_pack_find(pack, p->name);
    assert_non_null(t);
    int first = 0;
    for (int i = 0; i < 3 && p->parts[i]; i++) {
        char bias[128];
        snprintf(bias, sizeof bias, "%.*s.bias", (int)strlen(p->parts[i]) - 7, p->parts[i]);
        for (int r = 0; r < p->rows[i]; r++) {
            for (int c = 0; c < p->k; c++)
                assert_float_equal(weight_at(t, first + r, c),
                                   tiny_value(p->parts[i], (uint64_t)r * (uint64_t)p->k + (uint64_t)c),
                                   rounding(t));
            if (p->has_bias)
                assert_float_equal(bias_at(pack, p->name, first + r), tiny_value(bias, (uint64_t)r), 0);
        }
        first += p->rows[i];
    }
    assert_int_equal(t->tensor.shape[0], first);
    assert_int_equal(t->tensor.shape[1], 1);
    assert_int_equal(t->tensor.shape[2], p->k);
}

static const struct product products[] = {
    {"model.visual.patch_embed.proj.weight",
     {"model.visual.patch_embed.proj.weight"},
     {TINY_VISION},
     54,
     true},
    {BLOCK "attn.qkv.weight", {BLOCK "attn.qkv.weight"}, {3 * TINY_VISION}, TINY_VISION, true},
    {BLOCK "mlp.gate_up_proj.weight",
     {BLOCK "mlp.gate_proj.weight", BLOCK "mlp.up_proj.weight"},
     {27, 27},
     TINY_VISION,
     true},
    {BLOCK "mlp.down_proj.weight", {BLOCK "mlp.down_proj.weight"}, {TINY_VISION}, 27, true},
    {"model.visual.merger.gate_up_proj.weight",
     {"model.visual.merger.gate_proj.weight", "model.visual.merger.up_proj.weight"},
     {3 * TINY_TEXT, 3 * TINY_TEXT},
     TINY_TEXT,
     false},
    {TEXT "layers.0.self_attn.qkv_proj.weight",
     {TEXT "layers.0.self_attn.q_proj.weight", TEXT "layers.0.self_attn.k_proj.weight",
      TEXT "layers.0.self_attn.v_proj.weight"},
     {16, 8, 8},
     TINY_TEXT,
     false},
    {TEXT "layers.1.mlp.gate_up_proj.weight",
     {TEXT "layers.1.mlp.gate_up_proj.weight"},
     {40},
     TINY_TEXT,
     false},
    {EXTRA "eh_proj.weight", {EXTRA "eh_proj.weight"}, {TINY_TEXT}, 2 * TINY_TEXT, false},
    {"lm_head.weight", {"lm_head.weight"}, {TINY_VOCAB}, TINY_TEXT, false},
};

/* [out, channel, dy, dx] -> inputs (dy, dx, channel) */
static void check_downsample(const struct pm_pack *pack)
{
    static const char name[] = "model.visual.downsample.weight";
    const struct pm_pack_tensor *t = pm_pack_find(pack, name);
    for (int o = 0; o < TINY_TEXT; o++) {
        for (int c = 0; c < TINY_VISION; c++)
            for (int place = 0; place < 4; place++)
                assert_float_equal(weight_at(t, o, place * TINY_VISION + c),
                                   tiny_value(name, (uint64_t)((o * TINY_VISION + c) * 4 + place)),
                                   rounding(t));
        assert_float_equal(bias_at(pack, name, o), tiny_value("model.visual.downsample.bias", (uint64_t)o),
                           0);
    }
}

static void check_rows(const struct pm_pack *pack, const char *name, bool is_short)
{
    const struct pm_pack_tensor *t = pm_pack_find(pack, name);
    assert_non_null(t);
    assert_int_equal(t->layout, PM_LAYOUT_ROWS);
    assert_int_equal(t->tensor.dtype, is_short ? PM_DTYPE_BF16 : PM_DTYPE_F32);
    uint64_t values = t->tensor.bytes / (is_short ? 2 : 4);
    for (uint64_t i = 0; i < values; i++)
        assert_float_equal(is_short ? pm_bf16_to_f32(((const uint16_t *)(const void *)t->tensor.data)[i])
                                    : ((const float *)(const void *)t->tensor.data)[i],
                           tiny_value(name, i), 0);
}

static void check_values(const char *root, enum pm_precision precision, const char *name)
{
    struct place p = place_in(root, name);
    const struct tiny tiny = {0};
    struct pm_pack *pk;
    struct pm_vlm_model *model;
    struct pm_error err;
    bool is_short = precision != PM_PRECISION_F32;
    tiny_write(p.source, &tiny);
    if (pack(p.source, p.out, precision, &err))
        fail_msg("%s", err.text);
    assert_int_equal(pm_pack_verify(p.file, &err), 0);
    assert_int_equal(pm_pack_open(p.file, &pk, &err), 0);
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        check_product(pk, &products[i]);
    check_downsample(pk);
    check_rows(pk, TEXT "embed_tokens.weight", is_short);
    check_rows(pk, "model.visual.merger.post_projection_norm.bias", false);
    check_rows(pk, BLOCK "attn.q_norm.weight", false);
    check_rows(pk, EXTRA "shared_head.norm.weight", false);
    /* equal to the main ones */
    assert_null(pm_pack_find(pk, EXTRA "embed_tokens.weight"));
    assert_null(pm_pack_find(pk, EXTRA "shared_head.head.weight"));
    pm_pack_free(&pk);
    if (pm_glm_ocr_model_open(p.file, &model, &err)) /* every tensor that the engine binds */
        fail_msg("%s", err.text);
    assert_int_equal(model->precision, precision);
    assert_non_null(model->mtp);
    pm_vlm_model_close(&model);
    place_free(&p);
}

static void test_values_f32(void **state)
{
    check_values(*state, PM_PRECISION_F32, "f32");
}

static void test_values_bf16(void **state)
{
    check_values(*state, PM_PRECISION_BF16, "bf16");
}

static void test_values_int8(void **state)
{
    check_values(*state, PM_PRECISION_INT8, "int8");
}

/* Only the products of the text layers have 4 bits. */
static void test_values_int4(void **state)
{
    static const char *const names[] = {TEXT "layers.0.self_attn.qkv_proj.weight", EXTRA "eh_proj.weight",
                                        "lm_head.weight", BLOCK "attn.qkv.weight",
                                        "model.visual.downsample.weight"};
    struct pm_pack *pk;
    check_values(*state, PM_PRECISION_INT4, "int4");
    struct place p = place_in(*state, "int4");
    assert_int_equal(pm_pack_open(p.file, &pk, NULL), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(pm_pack_find(pk, names[i])->layout,
                         i < 2 ? PM_LAYOUT_PANELS64_INT4 : PM_LAYOUT_PANELS64_INT8);
    pm_pack_free(&pk);
    place_free(&p);
}

/* ---- variants ---- */

static void open_variant(const char *root, const char *name, const struct tiny *tiny, struct pm_pack **out)
{
    struct place p = place_in(root, name);
    struct pm_vlm_model *model;
    struct pm_error err;
    tiny_write(p.source, tiny);
    if (pack(p.source, p.out, PM_PRECISION_BF16, &err) || pm_glm_ocr_model_open(p.file, &model, &err) ||
        pm_pack_open(p.file, out, &err))
        fail_msg("%s", err.text);
    pm_vlm_model_close(&model);
    place_free(&p);
}

static void test_variants(void **state)
{
    struct pm_pack *pk;
    /* copies of the extra layer that are none */
    open_variant(*state, "copies", &(struct tiny){.has_other_copies = true}, &pk);
    check_rows(pk, EXTRA "embed_tokens.weight", true);
    check_product(pk, &(struct product){EXTRA "shared_head.head.weight",
                                        {EXTRA "shared_head.head.weight"},
                                        {TINY_VOCAB},
                                        TINY_TEXT,
                                        false});
    pm_pack_free(&pk);
    /* a checkpoint that left them out */
    open_variant(*state, "left-out", &(struct tiny){.without = EXTRA "embed_tokens.weight"}, &pk);
    assert_null(pm_pack_find(pk, EXTRA "embed_tokens.weight"));
    pm_pack_free(&pk);
    /* no extra layer, though the configuration speaks of one */
    open_variant(*state, "extra", &(struct tiny){.lacks_extra = true}, &pk);
    assert_null(pm_pack_find(pk, EXTRA "eh_proj.weight"));
    assert_non_null(strstr(pm_pack_meta(pk), "\"num_nextn_predict_layers\":0"));
    pm_pack_free(&pk);
    /* a tied head is the table once more */
    open_variant(*state, "tied", &(struct tiny){.is_tied = true}, &pk);
    check_product(pk, &(struct product){
                          "lm_head.weight", {TEXT "embed_tokens.weight"}, {TINY_VOCAB}, TINY_TEXT, false});
    assert_null(pm_pack_find(pk, EXTRA "shared_head.head.weight"));
    pm_pack_free(&pk);
}

/* ---- refusals ---- */

static size_t entries_of(const char *dir)
{
    size_t count = 0;
    DIR *folder = opendir(dir);
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

static void test_refusals(void **state)
{
    const struct {
        struct tiny tiny;
        enum pm_precision precision;
        int code;
        const char *says[3];
    } cases[] = {
        {{.without = BLOCK "norm1.weight"}, 1, PM_EFORMAT, {BLOCK "norm1.weight [8] is missing"}},
        {{.without = EXTRA "enorm.weight"}, 1, PM_EFORMAT, {EXTRA "enorm.weight"}},
        {{.reshaped = TEXT "layers.1.self_attn.k_proj.weight"},
         1,
         PM_EFORMAT,
         {TEXT "layers.1.self_attn.k_proj.weight", "[9, 12]", "[8, 12]"}},
        {{.renamed = TEXT "norm.weight", .name = TEXT "layers.0.self_attn.q_proj.lora_A.weight"},
         1,
         PM_EUNSUPPORTED,
         {"lora_A", "merge the adapter"}},
        {{.renamed = TEXT "norm.weight", .name = "model.decoder.norm.weight"},
         1,
         PM_EUNSUPPORTED,
         {"model.decoder.norm.weight", "something else"}},
        {{.spoiled = BLOCK "mlp.up_proj.bias", .spoilt = (float)(0.0 / 0.0)},
         1,
         PM_EFORMAT,
         {BLOCK "mlp.up_proj.bias"}},
        {{.spoiled = TEXT "layers.0.self_attn.v_proj.weight", .spoilt = (float)(1.0 / 0.0)},
         0,
         PM_EFORMAT,
         {TEXT "layers.0.self_attn.v_proj.weight", "not finite"}},
        {{.spoiled = "lm_head.weight", .spoilt = 3.4e38F},
         1,
         PM_EFORMAT,
         {"lm_head.weight", "too large for bf16"}},
        {{.spoiled = TEXT "embed_tokens.weight", .spoilt = -3.4e38F}, 1, PM_EFORMAT, {"embed_tokens.weight"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[16];
        snprintf(name, sizeof name, "bad%zu", i);
        struct place p = place_in(*state, name);
        char *parent = pm_xprintf("%s/packed-%s", (const char *)*state, name), *out = pm_fs_join(parent, "m");
        struct pm_error err = {0};
        tiny_write(p.source, &cases[i].tiny);
        int rc = pack(p.source, out, cases[i].precision, &err);
        for (int k = 0; k < 3 && cases[i].says[k]; k++)
            if (rc != cases[i].code || !strstr(err.text, cases[i].says[k]))
                fail_msg("case %zu: code %d, \"%s\"; expected \"%s\"", i, rc, err.text, cases[i].says[k]);
        if (pm_fs_is_dir(parent))
            assert_int_equal(entries_of(parent), 2); /* "." and ".." */
        free(out);
        free(parent);
        place_free(&p);
    }
}

static void test_taken_folder(void **state)
{
    struct place p = place_in(*state, "taken");
    struct pm_error err;
    tiny_write(p.source, &(struct tiny){0});
    tiny_put(p.out, "precious.txt", "keep me");
    assert_int_equal(pack(p.source, p.out, PM_PRECISION_BF16, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, p.out));
    assert_int_equal(entries_of(p.out), 3);
    place_free(&p);
}

/* ---- the folder around ---- */

static void test_folder(void **state)
{
    struct place p = place_in(*state, "Line Reader");
    struct pm_model_manifest m;
    struct pm_error err;
    struct pm_buf text = {0};
    char *template = pm_fs_join(p.out, "chat_template.jinja"), *source_template, *name;
    tiny_write(p.source, &(struct tiny){0});
    assert_int_equal(pm_glm_ocr_name(p.source, &name, &err), 0);
    assert_string_equal(name, "line-reader");
    free(name);
    tiny_put(p.source, "pagemill.json",
             "{\"name\":\"mini\",\"region\":\"line\",\"line_height_px\":32,\"width_multiple_px\":16,"
             "\"max_width_px\":1152,\"max_chars\":90,\"tasks\":{\"text\":\"Read:\"},\"script\":\"Latin\","
             "\"drafts_see_pictures\":true}");
    tiny_put(p.source, "README.md", "---\nlanguage: en\nlicense: mit\n---\nlicense: other\n");
    tiny_put(p.source, "tokenizer_config.json",
             "{\"chat_template\":[{\"name\":\"tools\",\"template\":\"x\"},"
             "{\"name\":\"default\",\"template\":\"{{ messages[0].role }}\"}]}");
    source_template = pm_fs_join(p.source, "chat_template.jinja");
    assert_int_equal(remove(source_template), 0);
    if (pack(p.source, p.out, PM_PRECISION_BF16, &err) || pm_model_manifest_read(p.out, &m, &err) ||
        pm_fs_read(template, 1000, &text, &err))
        fail_msg("%s", err.text);
    assert_string_equal(m.name, "mini");
    assert_int_equal(m.region_kind, PM_REGION_LINE);
    assert_int_equal(m.tasks, 1u << PM_TASK_TEXT);
    json_t *root = json_loads(m.json, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(root, "max_width_px")), 1152);
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "prompts"), "text")),
                        "Read:");
    assert_string_equal(json_string_value(json_object_get(root, "licence")), "mit");
    assert_string_equal(json_string_value(json_object_get(root, "script")), "Latin");
    assert_true(json_is_true(json_object_get(root, "drafts_see_pictures")));
    assert_int_equal(text.size, strlen("{{ messages[0].role }}"));
    json_decref(root);
    pm_model_manifest_free(&m);
    pm_buf_free(&text);
    /* a manifest that makes no sense is refused before anything is written */
    tiny_put(p.source, "pagemill.json", "{\"tasks\":{\"poetry\":\"Rhyme:\"}}");
    assert_int_equal(pack(p.source, "/nonexistent/place", PM_PRECISION_BF16, &err), PM_EFORMAT);
    assert_non_null(strstr(err.text, "tasks"));
    tiny_put(p.source, "pagemill.json", "{\"drafts_see_pictures\":\"often\"}");
    struct place q = place_in(*state, "other");
    assert_int_equal(pack(p.source, q.out, PM_PRECISION_BF16, &err), PM_EFORMAT);
    assert_non_null(strstr(err.text, "\"drafts_see_pictures\" must be true or false"));
    place_free(&q);
    free(source_template);
    free(template);
    place_free(&p);
}

/* ---- hostile bytes ---- */

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Changes, removes or repeats some bytes of the first `limit` ones. */
static void mutate(struct pm_buf *b, size_t limit, uint64_t *random)
{
    static const char likely[] = "0123456789{}[]\",:.-e\0\xff";
    for (uint64_t n = 1 + next_random(random) % 3; n; n--) {
        size_t at = next_random(random) % limit;
        switch (next_random(random) % 4) {
        case 0:
            b->data[at] = (uint8_t)next_random(random);
            break;
        case 1:
            b->data[at] = (uint8_t)likely[next_random(random) % (sizeof likely - 1)];
            break;
        case 2: /* a number grows or shrinks */
            for (size_t i = at; i < limit; i++)
                if (b->data[i] >= '0' && b->data[i] <= '9') {
                    b->data[i] = (uint8_t)('0' + next_random(random) % 10);
                    break;
                }
            break;
        default:
            memmove(b->data + at, b->data + at + 1, b->size - at - 1);
            b->data[b->size - 1] = ' ';
        }
    }
}

/* Mutants of every file of a checkpoint are refused with a text, or make a model that opens. */
static void test_mutants(void **state)
{
    static const struct {
        const char *file;
        size_t limit; /* bytes that mutate; the whole file when it is shorter */
        int mutants;
    } files[] = {{"config.json", SIZE_MAX, 300},
                 {"model.safetensors", 6000, 200},
                 {"tokenizer.json", SIZE_MAX, 150},
                 {"chat_template.jinja", SIZE_MAX, 60},
                 {"pagemill.json", SIZE_MAX, 100}};
    struct place p = place_in(*state, "mutants");
    uint64_t random = 4;
    int packed = 0, refused = 0;
    tiny_write(p.source, &(struct tiny){0});
    tiny_put(p.source, "pagemill.json",
             "{\"name\":\"mini\",\"region\":\"line\",\"line_height_px\":32,\"width_multiple_px\":16,"
             "\"max_width_px\":1152,\"max_chars\":90,\"tasks\":{\"text\":\"Read:\"},\"script\":\"Latin\"}");
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        char *path = pm_fs_join(p.source, files[f].file);
        struct pm_buf original = {0};
        struct pm_error err;
        assert_int_equal(pm_fs_read(path, (size_t)1 << 24, &original, &err), 0);
        for (int i = 0; i < files[f].mutants; i++) {
            struct pm_buf mutant = {0};
            struct pm_vlm_model *model;
            pm_buf_append(&mutant, original.data, original.size);
            mutate(&mutant, original.size < files[f].limit ? original.size : files[f].limit, &random);
            assert_int_equal(pm_fs_write(path, mutant.data, mutant.size, false, NULL), 0);
            pm_buf_free(&mutant);
            err = (struct pm_error){0};
            if (pack(p.source, p.out, PM_PRECISION_BF16, &err)) {
                assert_true(err.text[0]);
                refused++;
                continue;
            }
            if (pm_glm_ocr_model_open(p.file, &model, &err))
                fail_msg("packed and does not open: %s", err.text);
            pm_vlm_model_close(&model);
            assert_int_equal(pm_fs_remove_tree(p.out, NULL), 0);
            packed++;
        }
        assert_int_equal(pm_fs_write(path, original.data, original.size, false, NULL), 0);
        pm_buf_free(&original);
        free(path);
    }
    assert_true(packed > 50 && refused > 200); /* the mutants are neither all harmless nor all hopeless */
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values_f32, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_values_bf16, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_values_int8, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_values_int4, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_variants, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_refusals, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_taken_folder, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_folder, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_mutants, folder_make, folder_drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
