/* weights_dump MODEL OUT: every tensor as the engine reads it, row by row, into OUT/tensors.safetensors
 * (F32), and every document beside it. For tests/tools/check_formats.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "engine/weights/weights.h"
#include "tests/unit/weights/build.h"

int main(int argc, char **argv)
{
    static const char *const documents[] = {
        "config.json",    "generation_config.json", "preprocessor_config.json",
        "tokenizer.json", "tokenizer_config.json",  "chat_template.jinja"};
    struct pm_weights *w = NULL;
    struct pm_error err = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: weights_dump MODEL OUT\n");
        return 2;
    }
    int rc = pm_weights_open(argv[1], &w, &err);
    if (!rc)
        rc = pm_fs_mkdir_p(argv[2], 0755, &err);
    size_t count = rc ? 0 : pm_weights_count(w);
    struct source *tensors = pm_xalloc((count + 1) * sizeof *tensors);
    for (size_t i = 0; i < count && !rc; i++) {
        const struct pm_weights_tensor *t = pm_weights_at(w, i);
        void *values = NULL;
        rc = pm_alloc_array((size_t)(t->rows * t->columns), sizeof(float), &values, &err);
        for (uint64_t r = 0; r < t->rows && !rc; r++)
            rc = pm_weights_read(w, t, r, 1, (float *)values + r * t->columns, &err);
        tensors[i] = (struct source){.name = t->name,
                                     .dtype = PM_DTYPE_F32,
                                     .rank = t->rank,
                                     .data = values,
                                     .bytes = (size_t)(t->rows * t->columns) * sizeof(float)};
        memcpy(tensors[i].shape, t->shape, sizeof t->shape);
    }
    struct files out = {0};
    if (!rc)
        build_safetensors(files_add(&out, "tensors.safetensors"), tensors, count);
    for (size_t i = 0; i < sizeof documents / sizeof *documents && !rc; i++) {
        const char *text;
        size_t bytes;
        if (!pm_weights_document(w, documents[i], &text, &bytes, &err))
            pm_buf_append(files_add(&out, documents[i]), text, bytes);
        else if (err.code != PM_ENOTFOUND)
            rc = err.code;
    }
    if (!rc && !files_write(&out, argv[2]))
        rc = pm_fail(&err, PM_EIO, "cannot write into %s", argv[2]);
    if (rc)
        fprintf(stderr, "weights_dump: %s\n", err.text);
    else
        printf("%s: %zu tensors\n", pm_weights_format(w), count);
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)tensors[i].data);
    free(tensors);
    files_free(&out);
    pm_weights_close(&w);
    return rc ? 1 : 0;
}
