/* config.json and its companions: the published sizes, other spellings, and that every broken key is named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"

/* The values of the published checkpoint. */
static const char published[] =
    "{\"architectures\": [\"GlmOcrForConditionalGeneration\"], \"model_type\": \"glm_ocr\","
    " \"text_config\": {\"model_type\": \"glm_ocr_text\", \"pad_token_id\": 59246, \"vocab_size\": 59392,"
    " \"eos_token_id\": [59246, 59253], \"attention_bias\": false, \"head_dim\": 128, \"hidden_act\": "
    "\"silu\","
    " \"hidden_size\": 1536, \"intermediate_size\": 4608, \"max_position_embeddings\": 131072,"
    " \"num_attention_heads\": 16, \"num_hidden_layers\": 16, \"num_nextn_predict_layers\": 1,"
    " \"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-05, \"tie_word_embeddings\": false,"
    " \"rope_parameters\": {\"rope_type\": \"default\", \"mrope_section\": [16, 24, 24],"
    " \"partial_rotary_factor\": 1.0, \"rope_theta\": 10000}},"
    " \"vision_config\": {\"hidden_size\": 1024, \"depth\": 24, \"num_heads\": 16, \"attention_bias\": true,"
    " \"intermediate_size\": 4096, \"hidden_act\": \"silu\", \"image_size\": 336, \"patch_size\": 14,"
    " \"out_hidden_size\": 1536, \"rms_norm_eps\": 1e-05, \"spatial_merge_size\": 2,"
    " \"temporal_patch_size\": 2},"
    " \"image_start_token_id\": 59256, \"image_end_token_id\": 59257, \"image_token_id\": 59280}";
static const char generation[] =
    "{\"do_sample\": false, \"eos_token_id\": [59246, 59253], \"pad_token_id\": 59246}";
static const char preprocessor[] =
    "{\"size\": {\"shortest_edge\": 12544, \"longest_edge\": 9633792}, \"do_rescale\": true,"
    " \"patch_size\": 14, \"temporal_patch_size\": 2, \"merge_size\": 2,"
    " \"image_mean\": [0.48145466, 0.4578275, 0.40821073],"
    " \"image_std\": [0.26862954, 0.26130258, 0.27577711]}";

/* text with its first `find` replaced; caller frees. */
static char *changed(const char *text, const char *find, const char *put)
{
    const char *at = strstr(text, find);
    assert_non_null(at);
    return pm_xprintf("%.*s%s%s", (int)(at - text), text, put, at + strlen(find));
}

static void test_published(void **state)
{
    (void)state;
    struct pm_vlm_config c;
    struct pm_error err;
    assert_int_equal(pm_glm_ocr_config(published, generation, preprocessor, &c, &err), 0);
    assert_int_equal(c.vision.depth, 24);
    assert_int_equal(c.vision.head_dim, 64);
    assert_int_equal(c.vision.in_channels, 3);
    assert_int_equal(c.vision.merger_intermediate, 4608);
    assert_true(c.vision.has_attention_bias && c.vision.has_mlp_bias && c.vision.has_qk_norm);
    assert_int_equal(c.text.head_dim, 128);
    assert_int_equal(c.text.rotary_dim, 128);
    assert_int_equal(c.text.rope_sections[0], 16);
    assert_int_equal(c.text.mtp_layers, 1);
    assert_false(c.text.has_tied_head || c.text.has_attention_bias);
    assert_float_equal(c.text.rope_theta, 10000, 0);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.eos_ids[1], 59253);
    assert_int_equal(c.pad_id, 59246);
    assert_int_equal(c.min_pixels, 12544);
    assert_int_equal(c.max_pixels, 9633792);
    assert_float_equal(c.std[2], 0.27577711, 1e-8);
}

static void test_tensors(void **state)
{
    (void)state;
    struct pm_vlm_config c;
    struct pm_error err;
    struct pm_glm_ocr_tensor *list;
    size_t count;
    uint64_t values = 0;
    assert_int_equal(pm_glm_ocr_config(published, NULL, NULL, &c, &err), 0);
    assert_int_equal(pm_glm_ocr_tensors(&c, &list, &count, &err), 0);
    assert_int_equal(count, 526);
    for (size_t i = 0; i < count; i++) {
        uint64_t n = 1;
        for (int d = 0; d < list[i].rank; d++)
            n *= list[i].shape[d];
        values += n;
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(list[i].name, list[k].name);
    }
    assert_true(values == 1325258240);
    free(list);
    c.text.mtp_layers = 0;
    assert_int_equal(pm_glm_ocr_tensors(&c, &list, &count, &err), 0);
    assert_int_equal(count, 510);
    free(list);
}

/* What the files may leave out, and older spellings. */
static void test_variants(void **state)
{
    (void)state;
    struct pm_vlm_config c;
    struct pm_error err;
    /* without its companions */
    assert_int_equal(pm_glm_ocr_config(published, NULL, NULL, &c, &err), 0);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.pad_id, 59246);
    assert_int_equal(c.max_pixels, 9633792);
    assert_float_equal(c.mean[0], 0.48145466, 1e-8);
    /* generation_config.json goes first, and may hold one id */
    assert_int_equal(pm_glm_ocr_config(published, "{\"eos_token_id\": 7}", NULL, &c, &err), 0);
    assert_int_equal(c.eos_count, 1);
    assert_int_equal(c.eos_ids[0], 7);
    /* no head_dim: hidden over heads */
    char *narrow = changed(published, "\"head_dim\": 128,", ""),
         *text = changed(narrow, "[16, 24, 24]", "[16, 16, 16]");
    assert_int_equal(pm_glm_ocr_config(text, NULL, NULL, &c, &err), 0);
    assert_int_equal(c.text.head_dim, 96);
    free(narrow);
    free(text);
    /* rope_scaling of older files */
    text = changed(published,
                   "\"rope_parameters\": {\"rope_type\": \"default\", \"mrope_section\": [16, 24, 24],"
                   " \"partial_rotary_factor\": 1.0, \"rope_theta\": 10000}",
                   "\"rope_theta\": 5000.0, \"partial_rotary_factor\": 0.5,"
                   " \"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [8, 12, 12]}");
    assert_int_equal(pm_glm_ocr_config(text, NULL, NULL, &c, &err), 0);
    assert_float_equal(c.text.rope_theta, 5000, 0);
    assert_int_equal(c.text.rotary_dim, 64);
    free(text);
    /* tied above, and smaller pictures in older keys */
    text = changed(published, "\"image_token_id\"", "\"tie_word_embeddings\": true, \"image_token_id\"");
    assert_int_equal(pm_glm_ocr_config(text, NULL, "{\"min_pixels\": 100, \"max_pixels\": 200}", &c, &err),
                     0);
    assert_true(c.text.has_tied_head);
    assert_int_equal(c.min_pixels, 100);
    assert_int_equal(c.max_pixels, 200);
    free(text);
}

struct broken {
    int file; /* 0 config, 1 generation, 2 preprocessor */
    const char *find, *put, *says;
    int code;
};
static const struct broken all_broken[] = {
    {0, "\"model_type\": \"glm_ocr\"", "\"model_type\": \"qwen2_5_vl\"", "qwen2_5_vl", PM_EUNSUPPORTED},
    {0, "GlmOcrFor", "Glm4vFor", "Glm4vForConditionalGeneration", PM_EUNSUPPORTED},
    {0, "\"model_type\": \"glm_ocr\",", "", "model_type", PM_EFORMAT},
    {0, "\"text_config\": {", "\"text\": {", "\"text_config\"", PM_EFORMAT},
    {0, "\"vision_config\": {", "\"vision\": {", "\"vision_config\"", PM_EFORMAT},
    {0, "\"hidden_size\": 1536", "\"hidden\": 1536", "text_config.hidden_size\" is missing", PM_EFORMAT},
    {0, "\"hidden_size\": 1536", "\"hidden_size\": 70000", "text_config.hidden_size\" is 70000", PM_EFORMAT},
    {0, "\"hidden_size\": 1536", "\"hidden_size\": 1536.5", "text_config.hidden_size", PM_EFORMAT},
    {0, "\"hidden_size\": 1536", "\"hidden_size\": \"1536\"", "text_config.hidden_size", PM_EFORMAT},
    {0, "\"hidden_size\": 1536", "\"hidden_size\": 1534", "vision_config.out_hidden_size", PM_EFORMAT},
    {0, "\"vocab_size\": 59392", "\"vocab_size\": 0", "text_config.vocab_size", PM_EFORMAT},
    {0, "\"vocab_size\": 59392", "\"vocab_size\": 9223372036854775807", "text_config.vocab_size", PM_EFORMAT},
    {0, "\"vocab_size\": 59392", "\"vocab_size\": 59280", "image_token_id", PM_EFORMAT},
    {0, "\"head_dim\": 128", "\"head_dim\": 127", "text_config.head_dim", PM_EFORMAT},
    {0, "\"head_dim\": 128", "\"head_dim\": 512", "text_config.head_dim", PM_EFORMAT},
    {0, "\"head_dim\": 128", "\"head_dim\": 64", "mrope_section", PM_EFORMAT},
    {0, "\"num_key_value_heads\": 8", "\"num_key_value_heads\": 3", "num_key_value_heads", PM_EFORMAT},
    {0, "\"num_key_value_heads\": 8", "\"num_key_value_heads\": 0", "num_key_value_heads", PM_EFORMAT},
    {0, "\"num_attention_heads\": 16", "\"num_attention_heads\": 1024", "num_attention_heads", PM_EFORMAT},
    {0, "\"num_hidden_layers\": 16", "\"num_hidden_layers\": 257", "num_hidden_layers", PM_EFORMAT},
    {0, "\"num_nextn_predict_layers\": 1", "\"num_nextn_predict_layers\": 2", "num_nextn_predict_layers",
     PM_EFORMAT},
    {0, "\"max_position_embeddings\": 131072", "\"max_position_embeddings\": -1", "max_position_embeddings",
     PM_EFORMAT},
    {0, "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0", "text_config.rms_norm_eps", PM_EFORMAT},
    {0, "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1e-05", "text_config.rms_norm_eps", PM_EFORMAT},
    {0, "\"rms_norm_eps\": 1e-05, \"spatial", "\"rms_norm_eps\": 1e-99, \"spatial",
     "vision_config.rms_norm_eps", PM_EFORMAT},
    {0, "\"rms_norm_eps\": 1e-05, \"tie", "\"tie", "text_config.rms_norm_eps\" is missing", PM_EFORMAT},
    {0, "\"rope_theta\": 10000", "\"rope_theta\": 0", "rope_theta", PM_EFORMAT},
    {0, "\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "rope_type\" is \"yarn\"", PM_EUNSUPPORTED},
    {0, "[16, 24, 24]", "[16, 24]", "mrope_section", PM_EFORMAT},
    {0, "[16, 24, 24]", "[16, 24, 25]", "mrope_section", PM_EFORMAT},
    {0, "[16, 24, 24]", "[-16, 56, 24]", "mrope_section", PM_EFORMAT},
    {0, "\"partial_rotary_factor\": 1.0", "\"partial_rotary_factor\": 1.5", "partial_rotary_factor",
     PM_EFORMAT},
    {0, "\"silu\"", "\"gelu\"", "text_config.hidden_act\" is \"gelu\"", PM_EUNSUPPORTED},
    {0, "\"silu\", \"image", "\"gelu\", \"image", "vision_config.hidden_act", PM_EUNSUPPORTED},
    {0, "\"attention_bias\": true", "\"attention_bias\": 1", "vision_config.attention_bias", PM_EFORMAT},
    {0, "\"num_heads\": 16", "\"num_heads\": 15", "vision_config.num_heads", PM_EFORMAT},
    {0, "\"num_heads\": 16", "\"num_heads\": 512", "vision_config.num_heads", PM_EFORMAT},
    {0, "\"num_heads\": 16", "\"num_heads\": 2", "vision_config.num_heads", PM_EFORMAT},
    {0, "\"depth\": 24", "\"depth\": 0", "vision_config.depth", PM_EFORMAT},
    {0, "\"patch_size\": 14", "\"patch_size\": 129", "vision_config.patch_size", PM_EFORMAT},
    {0, "\"image_size\": 336", "\"in_channels\": 4", "vision_config.in_channels", PM_EFORMAT},
    {0, "\"out_hidden_size\": 1536", "\"out_hidden_size\": 65536", "out_hidden_size", PM_EFORMAT},
    {0, "59280}", "59257}", "image_token_id", PM_EFORMAT},
    {0, "\"image_end_token_id\": 59257", "\"image_end_token_id\": 59392", "image_end_token_id", PM_EFORMAT},
    {0, "{\"arch", "[\"arch", "config.json line", PM_EFORMAT},
    {1, "[59246, 59253]", "[59246, 60000]", "generation_config.json: \"eos_token_id\"", PM_EFORMAT},
    {1, "[59246, 59253]", "[]", "generation_config.json: \"eos_token_id\"", PM_EFORMAT},
    {1, "[59246, 59253]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]", "eos_token_id", PM_EFORMAT},
    {1, "[59246, 59253]", "\"59246\"", "eos_token_id", PM_EFORMAT},
    {1, "\"pad_token_id\": 59246", "\"pad_token_id\": -2", "pad_token_id", PM_EFORMAT},
    {2, "\"shortest_edge\": 12544", "\"shortest_edge\": 0", "size.shortest_edge", PM_EFORMAT},
    {2, "\"shortest_edge\": 12544, ", "", "size.shortest_edge\" is missing", PM_EFORMAT},
    {2, "\"longest_edge\": 9633792", "\"longest_edge\": 12543", "size.longest_edge", PM_EFORMAT},
    {2, "\"longest_edge\": 9633792", "\"longest_edge\": 4611686018427387904", "size.longest_edge",
     PM_EFORMAT},
    {2, "\"do_rescale\": true", "\"do_rescale\": false", "do_rescale", PM_EUNSUPPORTED},
    {2, "\"do_rescale\": true", "\"rescale_factor\": 0.5", "rescale_factor", PM_EFORMAT},
    {2, "\"patch_size\": 14", "\"patch_size\": 16", "patch_size", PM_EFORMAT},
    {2, "[0.26862954", "[0", "image_std", PM_EFORMAT},
    {2, "0.4578275, 0.40821073", "0.4578275", "image_mean", PM_EFORMAT},
};

static void test_broken(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof all_broken / sizeof *all_broken; i++) {
        const struct broken *b = &all_broken[i];
        const char *files[3] = {published, generation, preprocessor};
        char *text = changed(files[b->file], b->find, b->put);
        struct pm_vlm_config c;
        struct pm_error err;
        files[b->file] = text;
        int rc = pm_glm_ocr_config(files[0], files[1], files[2], &c, &err);
        if (rc != b->code || !strstr(err.text, b->says))
            fail_msg("%s -> %s: code %d, \"%s\"; expected \"%s\"", b->find, b->put, rc, rc ? err.text : "",
                     b->says);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
