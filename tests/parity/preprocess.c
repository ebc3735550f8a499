/* parity preprocess FOLDER...: picture files on their way into the vision tower, beside the reference image
 * processor (transformers Glm46VImageProcessor, torchvision backend).
 *
 * FOLDER holds expected.json, images/ and, where pixels are needed that no file gives,
 * expected/NAME.safetensors. Every file gives a case "decode": our decoder's pixels beside the reference's.
 * Every route of the reference (load: EXIF applied, alpha dropped; direct: EXIF ignored, alpha over white)
 * gives a case of its name: the size rule, the resized bytes and the f32 values that the engine makes of the
 * reference's pixels; all of it must be equal to the last bit.
 *
 * Our decoder applies EXIF and lays alpha over white, so it is compared with "direct" where a picture has
 * alpha and with "load" elsewhere. It differs on purpose in two things: 16-bit grey keeps the high byte
 * (Pillow clips it to white), and a file that ends early is delivered as far as it goes, with a warning,
 * instead of being refused. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/vlm/image.h"
#include "layoutd/decode/loader.h"
#include "tests/parity/parity.h"

enum { SHA_HEX = 2 * crypto_hash_sha256_BYTES + 1 };

/* Pixels as the reference has them: tight R, G, B. */
struct rgb {
    int width, height;
    uint8_t *bytes; /* NULL: none */
};

struct one_file {
    const char *folder, *name; /* "images/grey.png" */
    char stem[64];             /* "grey" */
    const json_t *object;
    const struct pm_safetensors *tensors; /* or NULL */
    struct rgb decoded;                   /* by our decoder */
    struct parity_counts *counts;
};

/* ---- pixels ---- */

static size_t byte_count(const struct rgb *p)
{
    return (size_t)p->width * (size_t)p->height * 3;
}

static void free_rgb(struct rgb *p)
{
    free(p->bytes);
    *p = (struct rgb){0};
}

static struct rgb rgb_of_image(const struct pm_image *image)
{
    struct rgb p = {image->width_px, image->height_px, NULL};
    uint8_t *to = p.bytes = pm_xalloc(byte_count(&p));
    for (int y = 0; y < p.height; y++) {
        const uint8_t *row = image->pixels + (size_t)y * image->stride_bytes;
        for (int x = 0; x < p.width; x++, to += 3)
            for (int c = 0; c < 3; c++)
                to[c] = image->channels == 1 ? row[x] : row[3 * x + 2 - c];
    }
    return p;
}

static int image_of_rgb(const struct rgb *p, struct pm_image *out, struct pm_error *err)
{
    int rc = pm_image_alloc(p->width, p->height, 3, out, err);
    for (size_t i = 0; rc == 0 && i < byte_count(p); i++)
        out->owned[i] = p->bytes[i / 3 * 3 + 2 - i % 3];
    return rc;
}

static void to_sha(const void *bytes, size_t count, char hex[SHA_HEX])
{
    uint8_t sha[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(sha, bytes, count);
    sodium_bin2hex(hex, SHA_HEX, sha, sizeof sha);
}

static bool has_sha(const void *bytes, size_t count, const char *expected)
{
    char hex[SHA_HEX];
    to_sha(bytes, count, hex);
    return strcmp(hex, expected) == 0;
}

/* A tensor [height, width, 3] of bytes, or none. */
static struct rgb rgb_of_tensor(const struct one_file *f, const char *route, const char *name)
{
    char full[80];
    snprintf(full, sizeof full, "%s.%s", route, name);
    const struct pm_tensor *t = f->tensors ? pm_safetensors_find(f->tensors, full) : NULL;
    struct rgb p = {0};
    if (!t || t->dtype != PM_DTYPE_U8 || t->rank != 3 || t->shape[2] != 3 || t->bytes == 0 ||
        t->shape[0] > PM_IMAGE_MAX_SIDE_PX || t->shape[1] > PM_IMAGE_MAX_SIDE_PX)
        return p;
    p = (struct rgb){(int)t->shape[1], (int)t->shape[0], pm_xalloc((size_t)t->bytes)};
    memcpy(p.bytes, t->data, (size_t)t->bytes);
    return p;
}

/* Largest and mean difference of pictures of the same size. */
static void measure(const struct rgb *a, const struct rgb *b, double *largest, double *mean)
{
    double sum = 0, most = 0;
    for (size_t i = 0; i < byte_count(a); i++) {
        double d = abs(a->bytes[i] - b->bytes[i]);
        sum += d;
        most = d > most ? d : most;
    }
    *largest = most;
    *mean = sum / (double)byte_count(a);
}

/* Equal by the hash; otherwise how far off the tensor, when there is one. */
static void compare_pixels(const struct rgb *ours, const struct rgb *theirs, const char *sha,
                           const char *what, struct parity_verdict *v)
{
    if (has_sha(ours->bytes, byte_count(ours), sha)) {
        parity_report(v, what, 0, 0);
        return;
    }
    if (!theirs->bytes) {
        parity_fail(v, "%s: the hash differs, and there are no pixels to compare with", what);
        return;
    }
    if (theirs->width != ours->width || theirs->height != ours->height) {
        parity_fail(v, "%s: %d x %d, not %d x %d", what, ours->width, ours->height, theirs->width,
                    theirs->height);
        return;
    }
    double largest, mean;
    measure(ours, theirs, &largest, &mean);
    parity_note(v, "%s not equal: mean difference %.4f", what, mean);
    parity_report(v, what, largest, 0);
}

/* ---- decoding ---- */

static int read_pixels(const struct pm_raster *raster, struct rgb *out, struct pm_error *err)
{
    char *path = pm_xprintf("/proc/self/fd/%d", raster->memfd);
    struct pm_buf pixels = {0};
    int rc = pm_fs_read(path, PM_IMAGE_MAX_BYTES, &pixels, err);
    struct pm_image image = {.pixels = pixels.data,
                             .width_px = (int)raster->width_px,
                             .height_px = (int)raster->height_px,
                             .channels = (int)raster->channels,
                             .stride_bytes = (size_t)raster->width_px * raster->channels};
    if (rc == 0)
        *out = rgb_of_image(&image);
    free(path);
    pm_buf_free(&pixels);
    return rc;
}

/* Decodes in this process. warning_out: what the decoder says of a damaged picture, "" for a sound one. */
static int decode(const struct pm_buf *bytes, struct rgb *out, char warning_out[PM_RASTER_WARNING_BYTES],
                  struct pm_error *err)
{
    warning_out[0] = 0;
    enum pm_format format = pm_sniff(bytes->data, bytes->size);
    if (format == PM_FORMAT_UNKNOWN || format == PM_FORMAT_PDF)
        return pm_fail(err, PM_EFORMAT, "is not a picture");
    struct pm_source source = {.bytes = bytes->data,
                               .size = bytes->size,
                               .limits = {.max_source_px = 1u << 28,
                                          .max_page_px = 1u << 28,
                                          .max_pages = 1,
                                          .pdf_longest_px = 1,
                                          .picture_longest_px = PM_IMAGE_MAX_SIDE_PX}};
    const struct pm_loader *loader = pm_loader_for(format);
    void *document;
    uint32_t pages = 0;
    char title[PM_WIRE_TITLE_BYTES] = "";
    int rc = pm_loader_open(loader, &source, &document, &pages, title, err);
    if (rc)
        return rc;
    struct pm_raster raster = {0};
    rc = loader->render(document, 0, 0, &raster, err);
    if (rc == 0)
        rc = read_pixels(&raster, out, err);
    memcpy(warning_out, raster.warning, PM_RASTER_WARNING_BYTES);
    pm_raster_free(&raster);
    loader->close(document);
    return rc;
}

/* The route that our decoder takes with this picture. */
static const char *own_route(const struct one_file *f)
{
    bool turns = json_is_integer(json_object_get(f->object, "exif_orientation"));
    return json_object_get(f->object, "direct") && !turns ? "direct" : "load";
}

/* The decoder's pixels beside those of the route. */
static int check_pixels(const struct one_file *f, struct parity_verdict *v, struct pm_error *err)
{
    const char *route = own_route(f), *mode, *sha;
    const json_t *expected = json_object_get(f->object, route), *size;
    int rc = parity_text(f->object, "mode", &mode, err);
    rc = rc ? rc : parity_text(expected, "rgb_sha256", &sha, err);
    rc = rc ? rc : parity_array(expected, "rgb_hw", &size, err);
    if (rc)
        return rc;
    int height = (int)json_integer_value(json_array_get(size, 0));
    int width = (int)json_integer_value(json_array_get(size, 1));
    if (f->decoded.width != width || f->decoded.height != height) {
        parity_fail(v, "%d x %d pixels, not %d x %d", f->decoded.width, f->decoded.height, width, height);
        return 0;
    }
    if (strcmp(mode, "I;16") == 0) {
        parity_report(v, "size", 0, 0);
        parity_note(v, "16-bit grey: ours keeps the high byte, pixels not compared");
        return 0;
    }
    struct rgb theirs = rgb_of_tensor(f, route, "rgb");
    compare_pixels(&f->decoded, &theirs, sha, "rgb", v);
    if (strcmp(route, "direct") == 0)
        parity_note(v, "alpha over white");
    free_rgb(&theirs);
    return 0;
}

static int check_decoding(struct one_file *f, struct parity_verdict *v, struct pm_error *err)
{
    char *path = pm_fs_join(f->folder, f->name), warning[PM_RASTER_WARNING_BYTES];
    struct pm_buf bytes = {0};
    struct pm_error refusal = {0};
    int rc = pm_fs_read(path, 64 << 20, &bytes, err);
    if (rc)
        goto done;
    bool must_refuse = json_object_get(f->object, "rejected") != NULL;
    int refused = decode(&bytes, &f->decoded, warning, &refusal);
    if (must_refuse) {
        parity_report(v, "refused", refused || warning[0] ? 0 : 1, 0);
        parity_note(v, refused ? "refused: %s" : "delivered in part: %s", refused ? refusal.text : warning);
    } else if (refused) {
        parity_fail(v, "%s", refusal.text);
    } else {
        rc = check_pixels(f, v, err);
    }
done:
    pm_buf_free(&bytes);
    free(path);
    return rc;
}

/* ---- the engine's part ---- */

/* The checkpoint's preprocessor_config.json. */
static struct pm_vlm_config processor(int64_t longest_edge)
{
    return (struct pm_vlm_config){
        .vision = {.in_channels = 3, .patch = 14, .temporal = 2, .merge = 2},
        .min_pixels = 112 * 112,
        .max_pixels = longest_edge,
        .mean = {0.48145466f, 0.4578275f, 0.40821073f},
        .std = {0.26862954f, 0.26130258f, 0.27577711f},
    };
}

static int pair(const json_t *object, const char *key, size_t first, int out[2], struct pm_error *err)
{
    const json_t *array;
    int rc = parity_array(object, key, &array, err);
    for (size_t i = 0; rc == 0 && i < 2; i++)
        out[i] = (int)json_integer_value(json_array_get(array, first + i));
    return rc;
}

static int check_values(const struct pm_vlm_config *config, const struct pm_image *image,
                        const json_t *expected, struct parity_verdict *v, struct pm_error *err)
{
    struct pm_patches patches;
    const char *sha;
    int grid[2], tokens;
    int rc = parity_text(expected, "torchvision.pixel_values_f32_sha256", &sha, err);
    rc = rc ? rc : pair(expected, "grid_thw", 1, grid, err);
    rc = rc ? rc : parity_int(expected, "image_tokens", &tokens, err);
    rc = rc ? rc : pm_patches_make(config, image, &patches, err);
    if (rc)
        return rc;
    if (patches.rows != grid[0] || patches.columns != grid[1] || patches.rows * patches.columns / 4 != tokens)
        parity_fail(v, "grid %d x %d, not %d x %d with %d tokens", patches.rows, patches.columns, grid[0],
                    grid[1], tokens);
    else
        parity_report(v, "values",
                      !has_sha(patches.values,
                               (size_t)patches.rows * (size_t)patches.columns * 1176 * sizeof(float), sha),
                      0);
    parity_note(v, "%d x %d patches", patches.rows, patches.columns);
    pm_patches_free(&patches);
    return 0;
}

static int check_resizing(const struct one_file *f, const char *route, const struct pm_vlm_config *config,
                          const struct pm_image *image, struct parity_verdict *v, struct pm_error *err)
{
    const json_t *expected = json_object_get(f->object, route);
    const char *sha;
    int hw[2], width, height;
    int rc = parity_text(expected, "torchvision.u8_sha256", &sha, err);
    rc = rc ? rc : pair(expected, "resized_hw", 0, hw, err);
    rc = rc ? rc : pm_smart_resize(config, image->width_px, image->height_px, &width, &height, err);
    if (rc)
        return rc;
    if (width != hw[1] || height != hw[0]) {
        parity_fail(v, "resized to %d x %d, not %d x %d", width, height, hw[1], hw[0]);
        return 0;
    }
    struct pm_image resized;
    rc = pm_resize_bicubic(image, width, height, &resized, err);
    if (rc)
        return rc;
    struct rgb ours = rgb_of_image(&resized), theirs = rgb_of_tensor(f, route, "resized_u8.torchvision");
    compare_pixels(&ours, &theirs, sha, "resized", v);
    free_rgb(&ours);
    free_rgb(&theirs);
    pm_image_free(&resized);
    return check_values(config, image, expected, v, err);
}

/* The pixels that the reference began with: our decoder's when they are the same, else the stored ones. */
static int route_pixels(const struct one_file *f, const char *route, struct pm_image *out,
                        struct pm_error *err)
{
    const char *sha;
    int rc = parity_text(json_object_get(f->object, route), "rgb_sha256", &sha, err);
    if (rc)
        return rc;
    if (f->decoded.bytes && has_sha(f->decoded.bytes, byte_count(&f->decoded), sha))
        return image_of_rgb(&f->decoded, out, err);
    struct rgb stored = rgb_of_tensor(f, route, "rgb");
    if (!stored.bytes || !has_sha(stored.bytes, byte_count(&stored), sha))
        rc = pm_fail(err, PM_ENOTFOUND, "the pixels of route %s are not stored in expected/%s.safetensors",
                     route, f->stem);
    else
        rc = image_of_rgb(&stored, out, err);
    free_rgb(&stored);
    return rc;
}

static int check_route(const struct one_file *f, const char *route, struct parity_verdict *v,
                       struct pm_error *err)
{
    int longest_edge;
    struct pm_image image = {0};
    int rc = parity_int(f->object, "longest_edge", &longest_edge, err);
    rc = rc ? rc : route_pixels(f, route, &image, err);
    if (rc)
        return rc;
    struct pm_vlm_config config = processor(longest_edge);
    if (json_object_get(json_object_get(f->object, route), "rejected")) {
        struct pm_patches patches;
        struct pm_error refusal = {0};
        int refused = pm_patches_make(&config, &image, &patches, &refusal);
        parity_report(v, "refused", refused == PM_ELIMIT ? 0 : 1, 0);
        parity_note(v, "%s", refusal.text);
        pm_patches_free(&patches);
    } else {
        rc = check_resizing(f, route, &config, &image, v, err);
    }
    pm_image_free(&image);
    return rc;
}

/* ---- files and folders ---- */

static void run_checks(struct one_file *f)
{
    static const char *const routes[] = {"load", "direct"};
    struct parity_verdict v = {0};
    struct pm_error err = {0};
    int rc = check_decoding(f, &v, &err);
    parity_print(f->counts, "decode", f->stem, rc, &v, &err);
    for (size_t i = 0; i < 2; i++) {
        if (!json_object_get(f->object, routes[i]))
            continue;
        v = (struct parity_verdict){0};
        rc = check_route(f, routes[i], &v, &err);
        parity_print(f->counts, routes[i], f->stem, rc, &v, &err);
    }
}

static void run_file(const char *folder, const json_t *object, struct parity_counts *counts)
{
    struct one_file f = {.folder = folder, .object = object, .counts = counts};
    struct pm_error err = {0};
    if (parity_text(object, "file", &f.name, &err)) {
        parity_print(counts, "decode", "?", err.code, NULL, &err);
        return;
    }
    const char *slash = strrchr(f.name, '/'), *base = slash ? slash + 1 : f.name, *dot = strrchr(base, '.');
    snprintf(f.stem, sizeof f.stem, "%.*s", (int)(dot ? dot - base : (long)strlen(base)), base);
    char *path = pm_xprintf("%s/expected/%s.safetensors", folder, f.stem);
    struct pm_safetensors *tensors = NULL;
    if (pm_fs_is_file(path) && pm_safetensors_open(path, &tensors, &err)) {
        parity_print(counts, "decode", f.stem, err.code, NULL, &err);
    } else {
        f.tensors = tensors;
        run_checks(&f);
    }
    free_rgb(&f.decoded);
    pm_safetensors_free(&tensors);
    free(path);
}

static int run_preprocess(const char *path, struct parity_counts *counts)
{
    char *list = pm_fs_join(path, "expected.json");
    json_error_t error;
    json_t *root = pm_fs_is_file(list) ? json_load_file(list, 0, &error) : NULL;
    const json_t *cases = json_object_get(root, "cases");
    int found = (int)json_array_size(cases);
    for (int i = 0; i < found; i++)
        run_file(path, json_array_get(cases, (size_t)i), counts);
    json_decref(root);
    free(list);
    return found;
}

const struct parity_kind parity_preprocess = {.name = "preprocess", .run_path = run_preprocess};
