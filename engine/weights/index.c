/* model.safetensors.index.json: which shard holds which tensor.
 *
 *     {"metadata": {"total_size": BYTES}, "weight_map": {"TENSOR": "SHARD FILE", ...}} */
#include <stdlib.h>
#include <string.h>

#include "engine/weights/internal.h"

/* A shard is a file beside its index, nothing else: no path leads out of the folder. */
static bool is_shard_name(const char *name)
{
    size_t n = strlen(name);
    return n && n <= 255 && name[0] != '.' && !strpbrk(name, "/\\") && n > 12 &&
           !strcmp(name + n - 12, ".safetensors");
}

static int read_total(const char *what, const json_t *total, struct pm_index *out, struct pm_error *err)
{
    if (!total)
        return 0;
    double value = json_number_value(total);
    if (!json_is_number(total) || !(value >= 0 && value < 9e18))
        return pm_fail(err, PM_EFORMAT, "%s: metadata.total_size is not a number of bytes", what);
    out->has_total = true;
    out->total_bytes = json_is_integer(total) ? (uint64_t)json_integer_value(total) : (uint64_t)value;
    return 0;
}

int pm_index_parse(const char *what, const char *json, size_t bytes, struct pm_index *out,
                   struct pm_error *err)
{
    memset(out, 0, sizeof *out);
    json_error_t why;
    out->root = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &why);
    json_t *map = json_object_get(out->root, "weight_map");
    int rc = 0;
    if (!out->root)
        rc = pm_fail(err, PM_EFORMAT, "%s: not JSON: %s", what, why.text);
    else if (!json_is_object(map) || !json_object_size(map))
        rc = pm_fail(err, PM_EFORMAT, "%s: weight_map is missing or empty", what);
    else if (json_object_size(map) > PM_WEIGHTS_TENSORS_MAX)
        rc = pm_fail(err, PM_ELIMIT, "%s: %zu tensors; at most %d are read", what, json_object_size(map),
                     PM_WEIGHTS_TENSORS_MAX);
    else
        rc =
            read_total(what, json_object_get(json_object_get(out->root, "metadata"), "total_size"), out, err);
    if (rc) {
        pm_index_free(out);
        return rc;
    }
    out->entries = pm_xalloc(json_object_size(map) * sizeof *out->entries);
    size_t capacity = 0;
    const char *name;
    json_t *value;
    struct pm_strmap seen = {0};
    json_object_foreach(map, name, value)
    {
        const char *shard = json_string_value(value);
        if (!shard || !is_shard_name(shard)) {
            rc = pm_fail(err, PM_EFORMAT,
                         "%s: tensor %.200s: its shard \"%.100s\" is not the name of a .safetensors file "
                         "beside the index",
                         what, name, shard ? shard : "");
            break;
        }
        out->entries[out->count++] = (struct pm_index_entry){.name = name, .shard = shard};
        if (pm_strmap_get(&seen, shard))
            continue;
        if (out->shard_count == PM_WEIGHTS_SHARDS_MAX) {
            rc = pm_fail(err, PM_ELIMIT, "%s: more than %d shards", what, PM_WEIGHTS_SHARDS_MAX);
            break;
        }
        PM_GROW(out->shards, out->shard_count, capacity);
        out->shards[out->shard_count++] = shard;
        pm_strmap_put(&seen, shard, (void *)(uintptr_t)1);
    }
    pm_strmap_free(&seen);
    if (rc)
        pm_index_free(out);
    return rc;
}

void pm_index_free(struct pm_index *index)
{
    json_decref(index->root);
    free(index->entries);
    free(index->shards);
    memset(index, 0, sizeof *index);
}
