/* Any bytes as an index of shards and as the configuration of an MLX folder. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "engine/weights/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pm_index index;
    struct pm_error err;
    if (!pm_index_parse("fuzz", (const char *)data, size, &index, &err)) {
        for (size_t i = 0; i < index.count; i++)
            if (strpbrk(index.entries[i].shard, "/\\") || index.entries[i].shard[0] == '.')
                abort();
        pm_index_free(&index);
    }
    json_t *config = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    struct pm_mlx_scheme scheme;
    if (config && !pm_mlx_scheme("fuzz", config, "a", &scheme, &err) &&
        (scheme.bits < 2 || scheme.bits > 8 || scheme.group < 32 || scheme.group > 128))
        abort();
    json_decref(config);
    return 0;
}
