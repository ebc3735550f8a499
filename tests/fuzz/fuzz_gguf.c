/* Any bytes as a GGUF file: refused, or every tensor and every list lies inside them. */
#include <stdlib.h>

#include "engine/weights/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"tokenizer.ggml.tokens", "a", "general.architecture",
                                       "general.alignment"};
    struct pm_gguf *f;
    struct pm_error err;
    if (pm_gguf_parse("fuzz", data, size, &f, &err))
        return 0;
    const struct pm_gguf_tensor *t;
    for (size_t i = 0; (t = pm_gguf_at(f, i)); i++) {
        const struct pm_stored *s = &t->stored;
        float values[PM_BLOCK_VALUES_MAX];
        if (s->data < data || s->bytes > size || s->data + s->bytes > data + size)
            abort();
        uint64_t n = s->values < PM_BLOCK_VALUES_MAX ? s->values : PM_BLOCK_VALUES_MAX;
        pm_stored_read(s, s->values - n, n, values);
        pm_stored_read(s, 0, n, values);
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct pm_gguf_texts it;
        const char *text;
        size_t bytes;
        double reals[4];
        uint64_t wholes[4];
        if (pm_gguf_texts(f, keys[i], &it))
            while (pm_gguf_next_text(&it, &text, &bytes))
                if ((const uint8_t *)text < data || (const uint8_t *)text + bytes > data + size)
                    abort();
        pm_gguf_reals(f, keys[i], reals, 4);
        pm_gguf_wholes(f, keys[i], wholes, 4);
        pm_gguf_whole(f, keys[i], wholes);
        pm_gguf_real(f, keys[i], reals);
        pm_gguf_text(f, keys[i], &text, &bytes);
    }
    pm_gguf_free(&f);
    return 0;
}
