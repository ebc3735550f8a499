/* The prompt's ids: messages through the checkpoint's template and tokenizer, placeholders expanded. */
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"
#include "tests/parity/engine.h"

enum { TEMPLATE_LIMIT_BYTES = 1 << 20 };

/* The rendered prompt; free(). Cases without messages have only the text. */
static int render(const struct engine_case *c, char **text_out, size_t *bytes_out, struct pm_error *err)
{
    const json_t *messages = json_object_get(c->object, "messages");
    const char *prompt = json_string_value(json_object_get(c->object, "prompt_text"));
    if (!messages) {
        *text_out = pm_xstrdup(prompt ? prompt : "");
        *bytes_out = strlen(*text_out);
        return 0;
    }
    char *path = pm_fs_join(c->model_dir, "chat_template.jinja");
    struct pm_buf source = {0};
    struct pm_template *template = NULL;
    int rc = pm_fs_read(path, TEMPLATE_LIMIT_BYTES, &source, err);
    if (rc == 0)
        rc = pm_template_parse(path, (const char *)source.data, source.size, &template, err);
    json_t *variables = NULL;
    if (rc == 0)
        rc = pm_template_chat_variables(messages, NULL, true, NULL, &variables, err);
    if (rc == 0)
        rc = pm_template_render(template, variables, text_out, bytes_out, err);
    json_decref(variables);
    pm_template_free(&template);
    pm_buf_free(&source);
    free(path);
    return rc;
}

/* One placeholder an image becomes as many as the image has tokens. */
static int32_t *expand(const struct engine_case *c, const int32_t *ids, size_t count, int *count_out)
{
    int32_t *out = NULL;
    int n = 0, capacity = 0, image = 0, merge = c->model->config.vision.merge;
    for (size_t i = 0; i < count; i++) {
        int copies = 1;
        if (ids[i] == c->model->config.image_id && image < c->image_count) {
            copies = c->grids[image].rows / merge * (c->grids[image].columns / merge);
            image++;
        }
        for (int k = 0; k < copies; k++) {
            PM_GROW(out, n, capacity);
            out[n++] = ids[i];
        }
    }
    *count_out = n;
    return out;
}

static int check(struct engine_case *c, const char *tokenizer_path, struct parity_verdict *v,
                 struct pm_error *err)
{
    struct pm_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t bytes = 0, count = 0;
    int32_t *ids = NULL;
    int rc = render(c, &text, &bytes, err);
    if (rc == 0)
        rc = pm_tokenizer_open(tokenizer_path, &tokenizer, err);
    if (rc == 0)
        rc = pm_tokenizer_encode(tokenizer, text, bytes, true, &ids, &count, err);
    if (rc == 0) {
        const char *expected = json_string_value(json_object_get(c->object, "prompt_text"));
        if (expected && strcmp(expected, text) != 0)
            parity_fail(v, "the rendered text differs: %s", text);
        int n = 0;
        int32_t *expanded = expand(c, ids, count, &n);
        engine_compare_ids(v, "prompt ids", expanded, n, pm_safetensors_find(c->expected, "input_ids"));
        parity_note(v, "%d ids equal", n);
        free(expanded);
    }
    pm_tokenizer_free(&tokenizer);
    free(text);
    free(ids);
    return rc;
}

void engine_check_prompt(struct engine_case *c)
{
    struct parity_verdict v = {0};
    struct pm_error err = {0};
    char *path = pm_fs_join(c->model_dir, "tokenizer.json");
    /* The full-size model is made without a tokenizer. */
    if (pm_fs_is_file(path)) {
        int rc = check(c, path, &v, &err);
        engine_line(c, "prompt", rc, &v, &err);
    }
    free(path);
}
