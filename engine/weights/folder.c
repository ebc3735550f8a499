/* Folders as Hugging Face lays them out: model.safetensors or shards with an index, and side files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "engine/json.h"
#include "engine/weights/internal.h"

int pm_weights_side_file(const struct pm_weights *weights, const char *name, struct pm_buf *out,
                         struct pm_error *err)
{
    char *path = pm_fs_join(weights->folder, name);
    int rc = pm_fs_is_file(path)
                 ? pm_fs_read(path, PM_WEIGHTS_DOCUMENT_BYTES, out, err)
                 : pm_fail(err, PM_ENOTFOUND, "%s: the model has no %s: it belongs beside the weights",
                           weights->folder, name);
    free(path);
    return rc;
}

static int side_object(const struct pm_weights *w, const char *name, json_t **out, struct pm_error *err)
{
    struct pm_buf text = {0};
    *out = NULL;
    int rc = pm_weights_side_file(w, name, &text, err);
    if (!rc)
        rc = pm_json_object(name, (const char *)text.data, text.size, out, err);
    pm_buf_free(&text);
    return rc;
}

void pm_weights_append_json(struct pm_buf *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (text)
        pm_buf_append(out, text, strlen(text));
    free(text);
}

/* Tools that save without the extra layer leave its number in the configuration: a reader would look for
 * tensors that nobody kept. */
static void drop_missing_extra_layer(const struct pm_weights *w, struct pm_buf *text)
{
    json_t *config = NULL;
    if (pm_json_object("config.json", (const char *)text->data, text->size, &config, NULL))
        return;
    json_t *t = json_object_get(config, "text_config");
    json_int_t layers = json_integer_value(json_object_get(t, "num_hidden_layers"));
    if (json_integer_value(json_object_get(t, "num_nextn_predict_layers")) > 0 && layers > 0) {
        char prefix[96];
        int n = snprintf(prefix, sizeof prefix, "model.language_model.layers.%lld.", (long long)layers);
        bool is_there = false;
        for (size_t i = 0; i < w->count && !is_there; i++)
            is_there = !strncmp(w->entries[i].name, prefix, (size_t)n);
        if (!is_there) {
            json_object_set_new(t, "num_nextn_predict_layers", json_integer(0));
            pm_buf_clear(text);
            pm_weights_append_json(text, config);
        }
    }
    json_decref(config);
}

/* The template, where it is a text inside another file (as transformers 4 wrote it). */
static int inner_template(const struct pm_weights *w, struct pm_buf *out, struct pm_error *err)
{
    static const char *const files[] = {"chat_template.json", "tokenizer_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        json_t *object = NULL;
        int rc = side_object(w, files[i], &object, err);
        const json_t *text = json_object_get(object, "chat_template");
        if (json_is_string(text))
            pm_buf_append(out, json_string_value(text), json_string_length(text));
        bool is_found = json_is_string(text);
        json_decref(object);
        if (is_found || (rc && rc != PM_ENOTFOUND))
            return is_found ? 0 : rc;
    }
    return pm_fail(err, PM_ENOTFOUND,
                   "%s: the model has no chat template: neither chat_template.jinja nor a chat_template in "
                   "tokenizer_config.json",
                   w->folder);
}

int pm_weights_folder_document(const struct pm_weights *weights, const char *name, struct pm_buf *out,
                               struct pm_error *err)
{
    int rc = pm_weights_side_file(weights, name, out, err);
    if (!rc && !strcmp(name, "config.json"))
        drop_missing_extra_layer(weights, out);
    if (rc != PM_ENOTFOUND)
        return rc;
    if (!strcmp(name, "chat_template.jinja"))
        return inner_template(weights, out, err);
    if (!strcmp(name, "preprocessor_config.json")) { /* transformers 5 keeps it inside another file */
        json_t *processor = NULL;
        if (!side_object(weights, "processor_config.json", &processor, NULL) &&
            json_is_object(json_object_get(processor, "image_processor"))) {
            pm_weights_append_json(out, json_object_get(processor, "image_processor"));
            rc = 0;
        }
        json_decref(processor);
    }
    return rc;
}

void pm_weights_fill_plain(struct pm_weights_entry *entry, const struct pm_tensor *tensor)
{
    bool is_float =
        tensor->dtype == PM_DTYPE_F32 || tensor->dtype == PM_DTYPE_F16 || tensor->dtype == PM_DTYPE_BF16;
    entry->tensor.rank = tensor->rank;
    memcpy(entry->tensor.shape, tensor->shape, sizeof tensor->shape);
    entry->tensor.stored_bytes = tensor->bytes;
    snprintf(entry->stored_as, sizeof entry->stored_as, "%s", pm_dtype_name(tensor->dtype));
    entry->stored[0] = (struct pm_stored){.kind = PM_STORED_PLAIN,
                                          .data = is_float ? tensor->data : NULL,
                                          .dtype = tensor->dtype,
                                          .bytes = tensor->bytes,
                                          .values = tensor->bytes / pm_dtype_bytes(tensor->dtype)};
}

/* Other tools' quantised folders look like MLX's and are not. */
static int refuse_foreign_scheme(const struct pm_weights *w, const json_t *config, struct pm_error *err)
{
    const char *method =
        json_string_value(json_object_get(json_object_get(config, "quantization_config"), "quant_method"));
    if (!method || json_object_get(config, "quantization"))
        return 0;
    return pm_fail(err, PM_EUNSUPPORTED,
                   "%s: quantised by \"%.40s\": only plain, MLX's and GGUF's weights are read", w->path,
                   method);
}

/* The tensors of all opened shards become entries, as the folder's configuration says. */
static int add_tensors(struct pm_weights *w, struct pm_error *err)
{
    size_t count = 0, n = 0;
    for (size_t s = 0; s < w->shard_count; s++)
        count += pm_safetensors_count(w->shards[s]);
    const struct pm_tensor **tensors = pm_xalloc((count ? count : 1) * sizeof *tensors);
    for (size_t s = 0; s < w->shard_count; s++) {
        const struct pm_tensor *t;
        for (size_t i = 0; (t = pm_safetensors_at(w->shards[s], i)); i++)
            tensors[n++] = t;
    }
    json_t *config = NULL;
    int rc = side_object(w, "config.json", &config, err);
    if (rc == PM_ENOTFOUND) /* the family's parser will miss it */
        rc = 0;
    if (!rc)
        rc = refuse_foreign_scheme(w, config, err);
    if (!rc && pm_mlx_is(config, tensors, n)) {
        w->format = "mlx";
        rc = pm_mlx_add(w, config, tensors, n, err);
    } else if (!rc) {
        w->format = "safetensors";
        for (size_t i = 0; i < n; i++)
            pm_weights_fill_plain(pm_weights_add(w, tensors[i]->name), tensors[i]);
    }
    json_decref(config);
    free(tensors);
    return rc;
}

int pm_weights_open_safetensors(struct pm_weights *weights, const char *file, struct pm_error *err)
{
    weights->shards = pm_xalloc(sizeof *weights->shards);
    int rc = pm_safetensors_open(file, &weights->shards[0], err);
    if (rc)
        return rc;
    weights->shard_count = 1;
    return add_tensors(weights, err);
}

/* Opens the shards; every tensor must lie where the index says, and nowhere else. */
static int open_shards(struct pm_weights *w, const char *what, const struct pm_index *index,
                       struct pm_error *err)
{
    struct pm_strmap where = {0}; /* tensor -> shard's name in the index */
    uint64_t total = 0;
    int rc = 0;
    for (size_t i = 0; i < index->count; i++)
        pm_strmap_put(&where, index->entries[i].name, (void *)(uintptr_t)index->entries[i].shard);
    w->shards = pm_xalloc(index->shard_count * sizeof *w->shards);
    for (size_t s = 0; s < index->shard_count && !rc; s++) {
        char *path = pm_fs_join(w->folder, index->shards[s]);
        rc = pm_fs_is_file(path)
                 ? pm_safetensors_open(path, &w->shards[s], err)
                 : pm_fail(err, PM_ENOTFOUND, "%s: its shard %.100s is not there: fetch it, too", what,
                           index->shards[s]);
        free(path);
        if (rc)
            break;
        w->shard_count++;
        const struct pm_tensor *t;
        for (size_t i = 0; (t = pm_safetensors_at(w->shards[s], i)) && !rc; i++) {
            const char *shard = pm_strmap_get(&where, t->name);
            total += t->bytes;
            if (!shard)
                rc = pm_fail(err, PM_EFORMAT,
                             "%s: shard %.100s holds tensor %.150s, which is not in the "
                             "index",
                             what, index->shards[s], t->name);
            else if (strcmp(shard, index->shards[s]))
                rc = pm_fail(err, PM_EFORMAT,
                             "%s: tensor %.150s should be in shard %.80s and is in %.80s, too or instead",
                             what, t->name, shard, index->shards[s]);
        }
    }
    for (size_t i = 0; i < index->count && !rc; i++) {
        size_t s = 0;
        while (strcmp(index->shards[s], index->entries[i].shard))
            s++;
        if (!pm_safetensors_find(w->shards[s], index->entries[i].name))
            rc = pm_fail(err, PM_EFORMAT, "%s: tensor %.150s is not in its shard %.100s", what,
                         index->entries[i].name, index->entries[i].shard);
    }
    if (!rc && index->has_total && total != index->total_bytes)
        rc = pm_fail(err, PM_EFORMAT, "%s: total_size is %llu, the shards hold %llu bytes of tensors", what,
                     (unsigned long long)index->total_bytes, (unsigned long long)total);
    pm_strmap_free(&where);
    return rc;
}

int pm_weights_open_index(struct pm_weights *weights, const char *file, struct pm_error *err)
{
    struct pm_buf text = {0};
    struct pm_index index = {0};
    int rc = pm_fs_read(file, PM_WEIGHTS_DOCUMENT_BYTES, &text, err);
    if (!rc)
        rc = pm_index_parse(file, (const char *)text.data, text.size, &index, err);
    if (!rc)
        rc = open_shards(weights, file, &index, err);
    if (!rc)
        rc = add_tensors(weights, err);
    pm_index_free(&index);
    pm_buf_free(&text);
    return rc;
}
