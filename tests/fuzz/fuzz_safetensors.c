/* Any bytes as a safetensors file: refused, or every tensor lies inside them. */
#include <stdlib.h>

#include "engine/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pm_safetensors *f;
    struct pm_error err;
    if (pm_safetensors_parse("fuzz", data, size, &f, &err))
        return 0;
    for (size_t i = 0; i < pm_safetensors_count(f); i++) {
        const struct pm_tensor *t = pm_safetensors_at(f, i);
        float *values;
        if (t->data < data || t->bytes > size || t->data + t->bytes > data + size)
            abort();
        if (!pm_safetensors_floats(f, t->name, -1, NULL, &values, &err))
            free(values);
    }
    pm_safetensors_free(&f);
    return 0;
}
