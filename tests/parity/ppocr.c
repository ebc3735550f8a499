/* Kind ppocr: its table, opened models, and the checks of everything around the networks. */
#include "tests/parity/ppocr.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/host.h"
#include "base/mem.h"
#include "engine/ppocr/crop.h"
#include "engine/ppocr/net.h"
#include "tests/parity/ppocr_reference.h"

#define CHARSET_LIMIT_BYTES ((size_t)4 << 20)

struct models {
    struct pm_det *det;
    struct pm_rec *rec;
    struct pm_cls *cls;
    struct pm_charset charset;
};

static struct models *models_of(const struct parity_case *c)
{
    void **state = parity_state(c);
    if (!*state)
        *state = pm_xalloc(sizeof(struct models));
    return *state;
}

static void close_models(void *state)
{
    struct models *m = state;
    if (!m)
        return;
    pm_det_free(&m->det);
    pm_rec_free(&m->rec);
    pm_cls_free(&m->cls);
    pm_charset_free(&m->charset);
    free(m);
}

int ppocr_det(const struct parity_case *c, struct pm_det **out, struct pm_error *err)
{
    struct models *m = models_of(c);
    int rc = m->det ? 0 : pm_det_open(parity_model_dir(c), pm_host_cores(), &m->det, err);
    *out = m->det;
    return rc;
}

int ppocr_rec(const struct parity_case *c, struct pm_rec **out, struct pm_error *err)
{
    struct models *m = models_of(c);
    int rc = m->rec ? 0 : pm_rec_open(parity_model_dir(c), pm_host_cores(), &m->rec, err);
    *out = m->rec;
    return rc;
}

int ppocr_cls(const struct parity_case *c, struct pm_cls **out, struct pm_error *err)
{
    struct models *m = models_of(c);
    int rc = m->cls ? 0 : pm_cls_open(parity_model_dir(c), pm_host_cores(), &m->cls, err);
    *out = m->cls;
    return rc;
}

int ppocr_charset(const struct parity_case *c, const struct pm_charset **out, struct pm_error *err)
{
    struct models *m = models_of(c);
    *out = &m->charset;
    if (m->charset.count > 0)
        return 0;
    char *paths[3] = {NULL, pm_xprintf("%s/rec_characters.txt", parity_folder(c)),
                      pm_xprintf("%s/../rec_characters.txt", parity_folder(c))};
    int rc = pm_ppocr_path(parity_model_dir(c), "characters", &paths[0], err);
    for (int i = 0; i < 3; i++) {
        if (!paths[i] || !pm_fs_is_file(paths[i]))
            continue;
        struct pm_buf text = {0};
        rc = pm_fs_read(paths[i], CHARSET_LIMIT_BYTES, &text, err);
        if (rc == 0)
            rc = pm_charset_parse((const char *)text.data, text.size, 0, &m->charset, err);
        pm_buf_free(&text);
        break;
    }
    for (int i = 0; i < 3; i++)
        free(paths[i]);
    if (rc == 0 && m->charset.count == 0)
        rc =
            pm_fail(err, PM_ENOTFOUND, "no rec_characters.txt in the model folder or beside the golden file");
    return rc;
}

/* ---- resize ---- */

static double largest_difference(const struct pm_image *a, const struct pm_image *b, double *mean_out)
{
    size_t row = (size_t)a->width_px * (size_t)a->channels;
    int largest = 0;
    double sum = 0;
    for (int y = 0; y < a->height_px; y++) {
        const uint8_t *p = a->pixels + (size_t)y * a->stride_bytes;
        const uint8_t *q = b->pixels + (size_t)y * b->stride_bytes;
        for (size_t x = 0; x < row; x++) {
            int difference = abs(p[x] - q[x]);
            largest = difference > largest ? difference : largest;
            sum += difference;
        }
    }
    *mean_out = sum / ((double)row * a->height_px);
    return largest;
}

static bool is_same_size(const struct pm_image *a, const struct pm_image *b)
{
    return a->width_px == b->width_px && a->height_px == b->height_px && a->channels == b->channels;
}

static int check_resize(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err)
{
    struct pm_image in, expected, out;
    const char *kind;
    int rc = parity_picture(c, "in", &in, err);
    if (!rc)
        rc = parity_picture(c, "out", &expected, err);
    if (!rc)
        rc = parity_text(c->object, "kind", &kind, err);
    if (!rc)
        rc = pm_resize_bilinear(&in, expected.width_px, expected.height_px, &out, err);
    if (rc)
        return rc;
    if (in.channels != expected.channels) {
        parity_fail(v, "%d channels in, %d expected", in.channels, expected.channels);
    } else {
        double mean, largest = largest_difference(&out, &expected, &mean);
        parity_report(v, "pixel", largest, 1);
        parity_note(v, "mean %.2g", mean);
    }
    pm_image_free(&out);
    if (strcmp(kind, "det") != 0)
        return 0;
    const char *type;
    int limit, width, height;
    rc = parity_text(c->object, "limit_type", &type, err);
    if (!rc)
        rc = parity_int(c->object, "limit_side_len", &limit, err);
    if (rc)
        return rc;
    reference_det_size(in.width_px, in.height_px, strcmp(type, "max") == 0, limit, &width, &height);
    if (width != expected.width_px || height != expected.height_px)
        parity_fail(v, "detector's rule gives %d x %d instead of %d x %d", width, height, expected.width_px,
                    expected.height_px);
    return 0;
}

/* ---- crop ---- */

/* The picture that a case names: a page, or a tensor by its whole name. */
static int case_picture(const struct parity_case *c, struct pm_image *out, struct pm_error *err)
{
    const char *page = json_string_value(json_object_get(c->object, "page"));
    if (page) {
        const struct pm_image *image;
        int rc = parity_page(c, page, &image, err);
        if (rc == 0)
            *out = pm_image_view(image, 0, 0, image->width_px, image->height_px);
        return rc;
    }
    const char *name;
    int rc = parity_text(c->object, "image", &name, err);
    if (rc)
        return rc;
    size_t prefix = strlen(c->name);
    if (strncmp(name, c->name, prefix) != 0 || name[prefix] != '.')
        return pm_fail(err, PM_EFORMAT, "picture %s belongs to another case", name);
    return parity_picture(c, name + prefix + 1, out, err);
}

static int check_crop(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err)
{
    struct pm_image page, expected, out;
    const json_t *corners;
    struct pm_quad quad;
    int width, height, rc = case_picture(c, &page, err);
    if (!rc)
        rc = parity_picture(c, "crop", &expected, err);
    if (!rc)
        rc = parity_array(c->object, "quad", &corners, err);
    if (!rc)
        rc = parity_quad(corners, &quad, err);
    if (!rc)
        rc = parity_int(c->object, "width", &width, err);
    if (!rc)
        rc = parity_int(c->object, "height", &height, err);
    if (!rc)
        rc = pm_crop_quad(&page, &quad, 1, &out, err);
    if (rc)
        return rc;
    if (out.width_px != width || out.height_px != height || !is_same_size(&out, &expected)) {
        parity_fail(v, "%d x %d, %d channels instead of %d x %d, %d", out.width_px, out.height_px,
                    out.channels, width, height, expected.channels);
    } else {
        double mean, largest = largest_difference(&out, &expected, &mean);
        parity_report(v, "pixel", largest, 12);
        parity_report(v, "mean", mean, 0.6);
        parity_note(v, "mean %.2g", mean);
    }
    pm_image_free(&out);
    return 0;
}

/* ---- postprocess ---- */

static int optional_float(const json_t *object, const char *key, float *inout, struct pm_error *err)
{
    double value;
    if (!json_object_get(object, key))
        return 0;
    int rc = parity_number(object, key, &value, err);
    if (rc == 0)
        *inout = (float)value;
    return rc;
}

static int det_params(const json_t *object, struct pm_det_params *out, struct pm_error *err)
{
    *out = pm_det_params_default();
    int rc = optional_float(object, "thresh", &out->thresh, err);
    if (!rc)
        rc = optional_float(object, "box_thresh", &out->box_thresh, err);
    if (!rc)
        rc = optional_float(object, "unclip_ratio", &out->unclip_ratio, err);
    if (!rc && json_object_get(object, "max_candidates"))
        rc = parity_int(object, "max_candidates", &out->max_candidates, err);
    const json_t *dilation = json_object_get(object, "use_dilation");
    if (dilation)
        out->use_dilation = json_is_true(dilation);
    const char *mode = json_string_value(json_object_get(object, "score_mode"));
    if (mode)
        out->score_slow = strcmp(mode, "slow") == 0;
    return rc;
}

static double quad_distance(const struct pm_quad *a, const struct pm_quad *b)
{
    double largest = 0;
    for (int i = 0; i < 4; i++)
        largest = fmax(largest, fmax(fabs((double)a->x[i] - b->x[i]), fabs((double)a->y[i] - b->y[i])));
    return largest;
}

/* Pairs every expected box with the nearest of ours that is still free. */
static void compare_boxes(const struct pm_det_box *expected, const struct pm_det_box *ours, size_t count,
                          struct parity_verdict *v)
{
    bool *is_taken = pm_xalloc(count ? count : 1);
    double corner = 0, score = 0;
    for (size_t i = 0; i < count; i++) {
        size_t nearest = 0;
        double best = INFINITY;
        for (size_t k = 0; k < count; k++) {
            double distance = is_taken[k] ? INFINITY : quad_distance(&expected[i].quad, &ours[k].quad);
            if (distance < best) {
                best = distance;
                nearest = k;
            }
        }
        is_taken[nearest] = true;
        corner = fmax(corner, best);
        score = fmax(score, fabs((double)expected[i].score - ours[nearest].score));
    }
    free(is_taken);
    parity_report(v, "corner", corner, 1);
    parity_report(v, "score", score, 2e-3);
    parity_note(v, "%zu boxes, corner %.3g px", count, corner);
}

/* The order after sorting has to be the reference's too, for its own boxes. */
static int check_sorted(const struct parity_case *c, const struct pm_det_box *expected, size_t count,
                        struct parity_verdict *v, struct pm_error *err)
{
    const json_t *list;
    int rc = parity_array(c->object, "sorted", &list, err);
    if (rc)
        return rc;
    struct pm_quad *quads = pm_xalloc((count + 1) * sizeof *quads);
    for (size_t i = 0; i < count; i++)
        quads[i] = expected[i].quad;
    reference_sort_boxes(quads, count);
    if (json_array_size(list) != count)
        parity_fail(v, "%zu sorted boxes instead of %zu", json_array_size(list), count);
    for (size_t i = 0; !rc && !v->failed && i < count; i++) {
        struct pm_quad quad;
        rc = parity_quad(json_array_get(list, i), &quad, err);
        if (!rc && quad_distance(&quad, &quads[i]) > 0)
            parity_fail(v, "sorted box %zu is another one", i);
    }
    free(quads);
    return rc;
}

static int read_boxes(const struct parity_case *c, struct pm_det_box **out, size_t *count_out,
                      struct pm_error *err)
{
    const json_t *boxes, *scores;
    int rc = parity_array(c->object, "boxes", &boxes, err);
    if (!rc)
        rc = parity_array(c->object, "scores", &scores, err);
    if (rc)
        return rc;
    size_t count = json_array_size(boxes);
    if (json_array_size(scores) != count)
        return pm_fail(err, PM_EFORMAT, "%zu boxes with %zu scores", count, json_array_size(scores));
    *out = pm_xalloc((count + 1) * sizeof **out);
    *count_out = count;
    for (size_t i = 0; !rc && i < count; i++) {
        rc = parity_quad(json_array_get(boxes, i), &(*out)[i].quad, err);
        (*out)[i].score = (float)json_number_value(json_array_get(scores, i));
    }
    if (rc)
        free(*out);
    return rc;
}

static int check_postprocess(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err)
{
    struct pm_image bytes;
    struct pm_det_params params;
    struct pm_det_box *expected = NULL, *ours = NULL;
    size_t expected_count = 0, count = 0;
    int width, height, rc = parity_picture(c, "", &bytes, err);
    if (!rc)
        rc = parity_int(c->object, "image_width", &width, err);
    if (!rc)
        rc = parity_int(c->object, "image_height", &height, err);
    if (!rc)
        rc = det_params(c->object, &params, err);
    if (!rc)
        rc = read_boxes(c, &expected, &expected_count, err);
    if (rc)
        return rc;
    size_t values = (size_t)bytes.width_px * (size_t)bytes.height_px;
    float *map = pm_xalloc(values * sizeof *map);
    for (size_t i = 0; i < values; i++)
        map[i] = (float)bytes.pixels[i] / 255.0f;
    rc = pm_det_boxes(map, bytes.width_px, bytes.height_px, width, height, &params, &ours, &count, err);
    free(map);
    if (!rc) {
        if (count != expected_count)
            parity_fail(v, "%zu boxes instead of %zu", count, expected_count);
        else
            compare_boxes(expected, ours, count, v);
        rc = check_sorted(c, expected, expected_count, v, err);
    }
    free(ours);
    free(expected);
    return rc;
}

/* ---- ctc ---- */

/* Lists [class, probability] of a step, everything else 0: the best, the first one on ties. */
static int best_of_step(const json_t *list, struct pm_ctc_step *out, struct pm_error *err)
{
    *out = (struct pm_ctc_step){0, 0};
    if (!json_is_array(list))
        return pm_fail(err, PM_EFORMAT, "a step is not a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i), *index = json_array_get(pair, 0);
        const json_t *probability = json_array_get(pair, 1);
        if (!json_is_integer(index) || !json_is_number(probability))
            return pm_fail(err, PM_EFORMAT, "a step's entry is not [class, probability]");
        float p = (float)json_number_value(probability);
        int32_t k = (int32_t)json_integer_value(index);
        if (p > out->probability || (p == out->probability && k < out->index))
            *out = (struct pm_ctc_step){k, p};
    }
    return 0;
}

static int read_steps(const struct parity_case *c, struct pm_ctc_step **out, size_t *count_out,
                      struct pm_error *err)
{
    const json_t *list;
    int rc = parity_array(c->object, "steps", &list, err);
    if (rc)
        return rc;
    *count_out = json_array_size(list);
    *out = pm_xalloc((*count_out + 1) * sizeof **out);
    for (size_t i = 0; !rc && i < *count_out; i++)
        rc = best_of_step(json_array_get(list, i), &(*out)[i], err);
    if (rc)
        free(*out);
    return rc;
}

static void compare_word(const struct reference_words *words, size_t index, const struct pm_charset *charset,
                         const json_t *text, const json_t *columns, const json_t *type,
                         struct parity_verdict *v)
{
    const struct reference_word *w = &words->words[index];
    char *ours = reference_word_text(words, index, charset);
    if (!json_is_string(text) || strcmp(ours, json_string_value(text)) != 0)
        parity_fail(v, "word %zu is \"%.40s\"", index, ours);
    free(ours);
    if (!json_is_string(type) || strcmp(json_string_value(type), w->is_cn ? "cn" : "en&num") != 0)
        parity_fail(v, "word %zu has another type", index);
    if (json_array_size(columns) != w->count)
        parity_fail(v, "word %zu has %zu columns", index, w->count);
    for (size_t i = 0; i < w->count && !v->failed; i++)
        if (json_integer_value(json_array_get(columns, i)) != words->chars[w->first + i].column)
            parity_fail(v, "word %zu, character %zu: column %d", index, i, words->chars[w->first + i].column);
}

static int compare_words(const struct parity_case *c, const struct pm_ctc_line *line,
                         const struct pm_charset *charset, struct parity_verdict *v, struct pm_error *err)
{
    const json_t *texts, *columns, *types;
    int rc = parity_array(c->object, "words", &texts, err);
    if (!rc)
        rc = parity_array(c->object, "word_cols", &columns, err);
    if (!rc)
        rc = parity_array(c->object, "word_types", &types, err);
    if (rc)
        return rc;
    struct reference_words words;
    reference_split_words(line, charset, &words);
    if (json_array_size(texts) != words.count)
        parity_fail(v, "%zu words instead of %zu", words.count, json_array_size(texts));
    for (size_t i = 0; i < words.count && !v->failed; i++)
        compare_word(&words, i, charset, json_array_get(texts, i), json_array_get(columns, i),
                     json_array_get(types, i), v);
    reference_words_free(&words);
    return 0;
}

static int compare_scores(const struct parity_case *c, const struct pm_ctc_line *line,
                          struct parity_verdict *v, struct pm_error *err)
{
    const json_t *scores;
    int rc = parity_array(c->object, "character_scores", &scores, err);
    if (rc)
        return rc;
    /* The reference gives an empty line one score of 0. */
    size_t count = line->char_count ? line->char_count : 1;
    if (json_array_size(scores) != count) {
        parity_fail(v, "%zu character scores instead of %zu", count, json_array_size(scores));
        return 0;
    }
    double largest = 0;
    for (size_t i = 0; i < count; i++) {
        double ours = line->char_count ? reference_round5(line->chars[i].probability) : 0;
        largest = fmax(largest, fabs(ours - json_number_value(json_array_get(scores, i))));
    }
    parity_report(v, "character score", largest, 2e-5);
    return 0;
}

static int check_ctc(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err)
{
    const struct pm_charset *charset;
    const char *text;
    double score, ratio, max_ratio, filled;
    struct pm_ctc_step *steps;
    size_t count;
    int rc = ppocr_charset(c, &charset, err);
    if (!rc)
        rc = parity_text(c->object, "text", &text, err);
    if (!rc)
        rc = parity_number(c->object, "score", &score, err);
    if (!rc)
        rc = parity_number(c->object, "wh_ratio", &ratio, err);
    if (!rc)
        rc = parity_number(c->object, "max_wh_ratio", &max_ratio, err);
    if (!rc)
        rc = parity_number(c->object, "line_txt_len", &filled, err);
    if (!rc)
        rc = read_steps(c, &steps, &count, err);
    if (rc)
        return rc;
    struct pm_ctc_line line;
    rc = pm_ctc_decode(steps, (int)count, charset, &line, err);
    free(steps);
    if (rc)
        return rc;
    parity_report(v, "score", fabs((double)line.confidence - score), 2e-5);
    if (strcmp((const char *)line.text.data, text) != 0)
        parity_fail(v, "text \"%.60s\" instead of \"%.60s\"", (const char *)line.text.data, text);
    parity_report(v, "line length", fabs((double)count * ratio / max_ratio - filled), 1e-6 * (1 + filled));
    rc = compare_words(c, &line, charset, v, err);
    if (!rc)
        rc = compare_scores(c, &line, v, err);
    pm_ctc_line_free(&line);
    return rc;
}

/* ---- table ---- */

static const struct parity_check checks[] = {
    {"det_network", true, parity_det_network},
    {"rec_network", true, parity_rec_network},
    {"cls_network", true, parity_cls_network},
    {"postprocess", true, check_postprocess},
    {"crop", true, check_crop},
    {"resize", true, check_resize},
    {"ctc", false, check_ctc},
    {"end_to_end", false, parity_end_to_end},
};

const struct parity_kind parity_ppocr = {.name = "ppocr",
                                         .default_model = "models/ppocr",
                                         .checks = checks,
                                         .check_count = sizeof checks / sizeof checks[0],
                                         .close = close_models};
