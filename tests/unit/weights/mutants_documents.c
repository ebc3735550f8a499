/* The side files of a model as formats of the mutants: config.json and its companions, tokenizer.json,
 * chat_template.jinja. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "engine/glm_ocr/glm_ocr.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"
#include "tests/unit/weights/mutants.h"

static const struct pm_buf *only(const struct files *files, int i)
{
    return &files->file[i].bytes;
}

/* ---- configuration ---- */

void documents_config(struct files *files)
{
    pm_buf_text(
        files_add(files, "config.json"),
        "{\"architectures\":[\"GlmOcrForConditionalGeneration\"],\"model_type\":\"glm_ocr\",\"text_config\":"
        "{\"vocab_size\":80,\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
        "\"num_nextn_predict_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":32,"
        "\"rms_norm_eps\":1e-5,\"max_position_embeddings\":4096,\"eos_token_id\":[64,65],"
        "\"tie_word_embeddings\":false,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000,"
        "\"partial_rotary_factor\":1.0,\"mrope_section\":[4,6,6]}},\"vision_config\":{\"hidden_size\":32,"
        "\"intermediate_size\":64,\"depth\":2,\"num_heads\":2,\"patch_size\":14,\"temporal_patch_size\":2,"
        "\"spatial_merge_size\":2,\"out_hidden_size\":64,\"rms_norm_eps\":1e-5,\"attention_bias\":true},"
        "\"image_token_id\":66,\"image_start_token_id\":67,\"image_end_token_id\":68}");
    pm_buf_text(files_add(files, "generation_config.json"), "{\"eos_token_id\":[64,65],\"pad_token_id\":64}");
    pm_buf_text(files_add(files, "preprocessor_config.json"),
                "{\"size\":{\"shortest_edge\":12544,\"longest_edge\":9633792},\"patch_size\":14,"
                "\"temporal_patch_size\":2,\"merge_size\":2,\"image_mean\":[0.5,0.5,0.5],\"image_std\":[0.25,"
                "0.25,0.25]}");
}

/* NUL-terminated copies: what pm_weights_document hands out. */
static char *text_of(const struct pm_buf *b)
{
    return b->size ? pm_xstrndup((const char *)b->data, b->size) : pm_xstrdup("");
}

int try_config(const char *folder, const struct files *files, struct pm_error *err)
{
    (void)folder;
    char *texts[3];
    for (int i = 0; i < 3; i++)
        texts[i] = text_of(only(files, i));
    struct pm_vlm_config config;
    struct pm_glm_ocr_tensor *tensors = NULL;
    size_t count = 0;
    int rc = pm_glm_ocr_config(texts[0], texts[1], texts[2], &config, err);
    if (!rc)
        rc = pm_glm_ocr_tensors(&config, &tensors, &count, err);
    if (!rc && !count)
        abort();
    free(tensors);
    for (int i = 0; i < 3; i++)
        free(texts[i]);
    return rc;
}

/* ---- tokenizer ---- */

void documents_tokenizer(struct files *files)
{
    struct pm_buf *b = files_add(files, "tokenizer.json");
    pm_buf_text(
        b, "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":69,\"content\":\"<|user|>\",\"single_word\":false,"
           "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true},{\"id\":70,\"content\":"
           "\"<think>\",\"special\":false}],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\","
           "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"");
    pm_buf_text(b, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}"
                   "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+");
    pm_buf_text(
        b,
        "\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":false}]},\"post_processor\":null,\"decoder\":{\"type\":"
        "\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\"model\":{"
        "\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
        "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":true,"
        "\"vocab\":{");
    /* Bytes that stand for themselves as characters; what the others become is not needed here. */
    for (int i = 0; i < 64; i++)
        pm_buf_printf(b, "\"%s%c\":%d,", '!' + i == '"' || '!' + i == '\\' ? "\\" : "", '!' + i, i);
    pm_buf_text(b, "\"\u0120\":64,\"a\":65,\"b\":66,\"ab\":67,\"\u0120ab\":68},\"merges\":[[\"a\",\"b\"],"
                   "[\"\u0120\",\"ab\"]]}}");
}

int try_tokenizer(const char *folder, const struct files *files, struct pm_error *err)
{
    static const char text[] = "ab ab\n'S 1234 <|user|>A<think>";
    const struct pm_buf *b = only(files, 0);
    struct pm_tokenizer *t;
    (void)folder;
    char *json = text_of(b);
    int rc = pm_tokenizer_parse("tokenizer.json", json, strlen(json), &t, err);
    free(json);
    if (rc)
        return rc;
    for (int special = 0; special < 2 && !rc; special++) {
        int32_t *ids = NULL;
        size_t count = 0, bytes;
        char *back = NULL;
        rc = pm_tokenizer_encode(t, text, sizeof text - 1, special, &ids, &count, err);
        if (!rc)
            rc = pm_tokenizer_decode(t, ids, count, false, &back, &bytes, err);
        for (size_t i = 0; i < count; i++)
            if (ids[i] < 0 || ids[i] >= pm_tokenizer_size(t))
                abort();
        free(back);
        free(ids);
    }
    pm_tokenizer_free(&t);
    return rc;
}

/* ---- chat template ---- */

void documents_template(struct files *files)
{
    pm_buf_text(
        files_add(files, "chat_template.jinja"),
        "[gMASK]<sop>\n"
        "{%- macro seen(content) -%}\n"
        "{%- if content is string -%}{{- content }}\n"
        "{%- elif content is iterable and content is not mapping -%}\n"
        "{%- for item in content -%}\n"
        "{%- if item is mapping and item.type == 'text' -%}{{- item.text }}\n"
        "{%- elif item.type == 'image' or 'image' in item -%}<|begin_of_image|><|image|><|end_of_image|>\n"
        "{%- endif -%}\n{%- endfor -%}\n{%- else -%}{{- content }}{%- endif -%}\n"
        "{%- endmacro -%}\n"
        "{%- set ns = namespace(last=-1) %}\n"
        "{%- for m in messages %}{%- if m.role == 'user' %}{% set ns.last = loop.index0 -%}{%- endif %}\n"
        "{%- endfor %}\n"
        "{% for m in messages %}\n"
        "{%- if m.role == 'user' -%}<|user|>\n{{ seen(m.content) }}\n"
        "{{- '/nothink' if (enable_thinking is defined and not enable_thinking) else '' -}}\n"
        "{%- elif loop.index0 > ns.last -%}{{ '\\n' + seen(m.content).strip() }}\n"
        "{%- endif -%}\n{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}<|assistant|>\n{%- endif -%}\n");
}

int try_template(const char *folder, const struct files *files, struct pm_error *err)
{
    static const char messages[] =
        "[{\"role\":\"user\",\"content\":\"first\"},{\"role\":\"assistant\",\"content\":\"seen\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"text\",\"text\":\"Text "
        "Recognition:\"}]}]";
    struct pm_template *t;
    (void)folder;
    int rc = pm_template_parse("chat_template.jinja", (const char *)only(files, 0)->data,
                               only(files, 0)->size, &t, err);
    if (rc)
        return rc;
    json_t *list = json_loads(messages, 0, NULL), *variables = NULL;
    char *text = NULL;
    size_t bytes;
    rc = pm_template_chat_variables(list, NULL, true, NULL, &variables, err);
    if (!rc)
        rc = pm_template_render(t, variables, &text, &bytes, err);
    free(text);
    json_decref(variables);
    json_decref(list);
    pm_template_free(&t);
    return rc;
}
