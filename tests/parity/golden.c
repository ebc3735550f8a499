#include "tests/parity/golden.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/ppocr/det.h"

#define LIST_LIMIT_BYTES ((size_t)256 << 20)

struct parity_file {
    struct parity_run *run;
    char *folder; /* of the golden file */
    struct pm_buf list;
    size_t at; /* start of the next line */
    int line;
    json_t *object;
    struct pm_safetensors *tensors;
};

/* ---- golden file ---- */

int parity_file_open(struct parity_run *run, const char *path, bool needs_tensors, struct parity_file **out,
                     struct pm_error *err)
{
    *out = NULL;
    struct parity_file *file = pm_xalloc(sizeof *file);
    file->run = run;
    const char *slash = strrchr(path, '/');
    file->folder = slash ? pm_xstrndup(path, (size_t)(slash - path)) : pm_xstrdup(".");
    int rc = pm_fs_read(path, LIST_LIMIT_BYTES, &file->list, err);
    if (rc == 0 && needs_tensors) {
        char *tensors = pm_xprintf("%.*s.safetensors", (int)(strlen(path) - strlen(".jsonl")), path);
        rc = pm_safetensors_open(tensors, &file->tensors, err);
        free(tensors);
    }
    if (rc) {
        parity_file_close(&file);
        return rc;
    }
    *out = file;
    return 0;
}

static void set_name(struct parity_file *file, struct parity_case *c)
{
    const json_t *number = json_object_get(file->object, "case");
    const char *page = json_string_value(json_object_get(file->object, "page"));
    if (json_is_integer(number))
        snprintf(c->name, sizeof c->name, "%lld", (long long)json_integer_value(number));
    else
        snprintf(c->name, sizeof c->name, "%s", page ? page : "");
}

int parity_file_next(struct parity_file *file, struct parity_case *out, struct pm_error *err)
{
    *out = (struct parity_case){.file = file, .tensors = file->tensors};
    json_decref(file->object);
    file->object = NULL;
    while (file->at < file->list.size && file->list.data[file->at] == '\n') {
        file->at++;
        file->line++;
    }
    if (file->at >= file->list.size)
        return PM_ENOTFOUND;
    const char *start = (const char *)file->list.data + file->at;
    const char *stop = memchr(start, '\n', file->list.size - file->at);
    size_t bytes = stop ? (size_t)(stop - start) : file->list.size - file->at;
    file->at += bytes;
    snprintf(out->name, sizeof out->name, "line %d", file->line + 1);
    json_error_t problem;
    file->object = json_loadb(start, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(file->object))
        return pm_fail(err, PM_EFORMAT, "line %d is not a JSON object: %s", file->line + 1,
                       file->object ? "another value" : problem.text);
    out->object = file->object;
    set_name(file, out);
    if (!out->name[0])
        return pm_fail(err, PM_EFORMAT, "line %d has neither a case number nor a page", file->line + 1);
    return 0;
}

void parity_file_close(struct parity_file **file)
{
    if (!*file)
        return;
    json_decref((*file)->object);
    pm_safetensors_free(&(*file)->tensors);
    pm_buf_free(&(*file)->list);
    free((*file)->folder);
    free(*file);
    *file = NULL;
}

const char *parity_model_dir(const struct parity_case *c)
{
    return c->file->run->model_dir;
}

const char *parity_folder(const struct parity_case *c)
{
    return c->file->folder;
}

void **parity_state(const struct parity_case *c)
{
    return &c->file->run->state;
}

/* ---- pages ---- */

int parity_read_png(const char *path, struct pm_image *out, struct pm_error *err)
{
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return pm_fail_errno(err, "%s", path);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    png_bytep *volatile rows = NULL;
    int rc = 0;
    if (!info || setjmp(png_jmpbuf(png))) {
        pm_image_free(out);
        rc = pm_fail(err, PM_EFORMAT, "%s: not a readable PNG file", path);
        goto done;
    }
    png_init_io(png, stream);
    png_read_info(png, info);
    png_set_expand(png);
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    png_set_bgr(png);
    png_read_update_info(png, info);
    int height = (int)png_get_image_height(png, info);
    rc = pm_image_alloc((int)png_get_image_width(png, info), height, png_get_channels(png, info), out, err);
    if (rc)
        goto done;
    rows = pm_xalloc((size_t)height * sizeof *rows);
    for (int y = 0; y < height; y++)
        rows[y] = out->owned + (size_t)y * out->stride_bytes;
    png_read_image(png, rows);
done:
    free(rows);
    png_destroy_read_struct(&png, &info, NULL);
    fclose(stream);
    return rc;
}

static const struct pm_image *find_loaded(const struct parity_run *run, const char *path)
{
    for (size_t i = 0; i < run->page_count; i++)
        if (strcmp(run->pages[i].path, path) == 0)
            return &run->pages[i].image;
    return NULL;
}

int parity_page(const struct parity_case *c, const char *stem, const struct pm_image **out,
                struct pm_error *err)
{
    struct parity_run *run = c->file->run;
    if (strchr(stem, '/'))
        return pm_fail(err, PM_EFORMAT, "page name %s holds a slash", stem);
    char *paths[2] = {NULL, NULL};
    if (run->pages_dir) {
        paths[0] = pm_xprintf("%s/%s.png", run->pages_dir, stem);
    } else {
        paths[0] = pm_xprintf("%s/../../pages/dev/%s.png", c->file->folder, stem);
        paths[1] = pm_xprintf("%s/pages/%s.png", c->file->folder, stem);
    }
    const char *path = paths[1] && !pm_fs_is_file(paths[0]) ? paths[1] : paths[0];
    int rc = 0;
    *out = find_loaded(run, path);
    if (!*out) {
        struct pm_image image = {0};
        rc = parity_read_png(path, &image, err);
        if (rc == 0) {
            /* Pointers to earlier pictures may go: a check asks for one page a case. */
            PM_GROW(run->pages, run->page_count, run->page_capacity);
            run->pages[run->page_count] = (struct parity_page_entry){pm_xstrdup(path), image};
            *out = &run->pages[run->page_count++].image;
        }
    }
    free(paths[0]);
    free(paths[1]);
    return rc;
}

void parity_run_close(struct parity_run *run)
{
    for (size_t i = 0; i < run->page_count; i++) {
        pm_image_free(&run->pages[i].image);
        free(run->pages[i].path);
    }
    free(run->pages);
    *run = (struct parity_run){0};
}

/* ---- tensors ---- */

static const struct pm_tensor *find_tensor(const struct parity_case *c, const char *name, const char *suffix)
{
    if (!c->tensors)
        return NULL;
    char *key = pm_xprintf("%s%s%s%s", c->name, name[0] ? "." : "", name, suffix);
    const struct pm_tensor *tensor = pm_safetensors_find(c->tensors, key);
    free(key);
    return tensor;
}

int parity_tensor(const struct parity_case *c, const char *name, enum pm_dtype dtype,
                  const struct pm_tensor **out, struct pm_error *err)
{
    *out = find_tensor(c, name, "");
    if (!*out)
        return pm_fail(err, PM_ENOTFOUND, "no tensor %s.%s", c->name, name);
    if ((*out)->dtype != dtype)
        return pm_fail(err, PM_EFORMAT, "tensor %s.%s is %s, not %s", c->name, name,
                       pm_dtype_name((*out)->dtype), pm_dtype_name(dtype));
    return 0;
}

int parity_picture(const struct parity_case *c, const char *name, struct pm_image *out, struct pm_error *err)
{
    const struct pm_tensor *t = find_tensor(c, name, "");
    if (!t)
        t = find_tensor(c, name, "_bgr");
    if (!t)
        return pm_fail(err, PM_ENOTFOUND, "no tensor %s.%s", c->name, name);
    bool is_grey = t->rank == 2, is_bgr = t->rank == 3 && t->shape[2] == 3;
    if (t->dtype != PM_DTYPE_U8 || (!is_grey && !is_bgr) || t->shape[0] < 1 || t->shape[1] < 1 ||
        t->shape[0] > PM_IMAGE_MAX_SIDE_PX || t->shape[1] > PM_IMAGE_MAX_SIDE_PX)
        return pm_fail(err, PM_EFORMAT, "tensor %s is not a picture", t->name);
    int channels = is_grey ? 1 : 3;
    *out = (struct pm_image){.pixels = t->data,
                             .width_px = (int)t->shape[1],
                             .height_px = (int)t->shape[0],
                             .channels = channels,
                             .stride_bytes = (size_t)t->shape[1] * (size_t)channels};
    return 0;
}

/* ---- members ---- */

int parity_int(const json_t *object, const char *key, int *out, struct pm_error *err)
{
    const json_t *value = json_object_get(object, key);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < INT32_MIN || number > INT32_MAX)
        return pm_fail(err, PM_EFORMAT, "\"%s\" is not a whole number", key);
    *out = (int)number;
    return 0;
}

int parity_number(const json_t *object, const char *key, double *out, struct pm_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        return pm_fail(err, PM_EFORMAT, "\"%s\" is not a number", key);
    *out = json_number_value(value);
    return 0;
}

int parity_text(const json_t *object, const char *key, const char **out, struct pm_error *err)
{
    *out = json_string_value(json_object_get(object, key));
    if (!*out)
        return pm_fail(err, PM_EFORMAT, "\"%s\" is not a text", key);
    return 0;
}

int parity_array(const json_t *object, const char *key, const json_t **out, struct pm_error *err)
{
    *out = json_object_get(object, key);
    if (!json_is_array(*out))
        return pm_fail(err, PM_EFORMAT, "\"%s\" is not a list", key);
    return 0;
}

int parity_quad(const json_t *array, struct pm_quad *out, struct pm_error *err)
{
    if (json_array_size(array) != 4)
        return pm_fail(err, PM_EFORMAT, "a quad has %zu corners", json_array_size(array));
    for (size_t i = 0; i < 4; i++) {
        const json_t *corner = json_array_get(array, i);
        const json_t *x = json_array_get(corner, 0), *y = json_array_get(corner, 1);
        if (json_array_size(corner) != 2 || !json_is_number(x) || !json_is_number(y))
            return pm_fail(err, PM_EFORMAT, "corner %zu of a quad is not two numbers", i);
        out->x[i] = (float)json_number_value(x);
        out->y[i] = (float)json_number_value(y);
    }
    return 0;
}
