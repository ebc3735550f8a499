/* Check end_to_end: the reference pipeline step by step with its default settings (rapidocr 3.10), defects
 * included: shrunken pages, black rows above and below very wide pictures, single lines turned by the
 * classifier, batches of six padded to the widest. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/ppocr/crop.h"
#include "engine/ppocr/rec_run.h"
#include "tests/parity/ppocr.h"
#include "tests/parity/ppocr_reference.h"

#define MAX_SIDE     2000
#define MIN_SIDE     30
#define PAD_HEIGHT   30
#define PAD_RATIO    8
#define DET_SIDE     736
#define CLS_THRESH   0.9f
#define TEXT_SCORE   0.5f
#define BATCH        6
#define LINE_HEIGHT  48
#define MIN_LINE_WH  (320.0 / 48.0)
#define PAIRING_PX   20.0 /* farther apart, two boxes are not of the same line */
#define BOX_LIMIT_PX 2.0
#define TEXT_SHARE   0.98

/* A text line on its way through the pipeline. */
struct line {
    struct pm_quad quad; /* in the prepared picture, at the end in the page */
    struct pm_image crop;
    double ratio; /* width / height of the crop */
    struct pm_ctc_line text;
    /* The reference sorts lines by ratio with a sort that is not stable: where equals meet at a batch's edge,
     * either may be in either batch, and its padding changes what is read. What this line reads in the
     * batches before and after, where that applies. */
    struct pm_ctc_line elsewhere[2];
    int elsewhere_count;
};

struct lines {
    struct line *items;
    size_t count;
};

static void free_texts(struct line *line)
{
    pm_ctc_line_free(&line->text);
    for (int i = 0; i < line->elsewhere_count; i++)
        pm_ctc_line_free(&line->elsewhere[i]);
    line->elsewhere_count = 0;
}

static void free_lines(struct lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) {
        pm_image_free(&lines->items[i].crop);
        free_texts(&lines->items[i]);
    }
    free(lines->items);
    *lines = (struct lines){0};
}

/* ---- the picture ---- */

/* The page within the side limits; *out is a view when nothing changes. */
static int fit_sides(const struct pm_image *page, struct pm_image *out, struct pm_error *err)
{
    int w = page->width_px, h = page->height_px;
    *out = pm_image_view(page, 0, 0, w, h);
    int longer = w > h ? w : h;
    if (longer > MAX_SIDE) {
        double ratio = (double)MAX_SIDE / longer;
        int rc = pm_resize_bilinear(page, reference_side_32(w, ratio), reference_side_32(h, ratio), out, err);
        if (rc)
            return rc;
    }
    w = out->width_px;
    h = out->height_px;
    int shorter = w < h ? w : h;
    if (shorter >= MIN_SIDE)
        return 0;
    double ratio = (double)MIN_SIDE / shorter;
    struct pm_image larger;
    int rc = pm_resize_bilinear(out, reference_side_32(w, ratio), reference_side_32(h, ratio), &larger, err);
    pm_image_free(out);
    *out = larger;
    return rc;
}

/* Black rows above and below; *rows_out is their number on each side. Takes image over. */
static int pad_rows(struct pm_image *image, int *rows_out, struct pm_error *err)
{
    *rows_out = 0;
    if (image->height_px > PAD_HEIGHT && (double)image->width_px / image->height_px <= PAD_RATIO)
        return 0;
    int wanted = image->width_px / PAD_RATIO > PAD_HEIGHT ? image->width_px / PAD_RATIO : PAD_HEIGHT;
    int rows = abs(2 * wanted - image->height_px) / 2;
    struct pm_image padded;
    int rc = pm_image_alloc(image->width_px, image->height_px + 2 * rows, image->channels, &padded, err);
    if (rc)
        return rc;
    memset(padded.owned, 0, padded.stride_bytes * (size_t)padded.height_px);
    for (int y = 0; y < image->height_px; y++)
        memcpy(padded.owned + (size_t)(y + rows) * padded.stride_bytes,
               image->pixels + (size_t)y * image->stride_bytes, padded.stride_bytes);
    pm_image_free(image);
    *image = padded;
    *rows_out = rows;
    return 0;
}

/* ---- detect and crop ---- */

static int find_lines(const struct parity_case *c, const struct pm_image *image, struct lines *out,
                      struct pm_error *err)
{
    struct pm_det *det;
    struct pm_image input = {0};
    void *map = NULL;
    struct pm_det_box *boxes = NULL;
    size_t count = 0;
    int w, h;
    reference_det_size(image->width_px, image->height_px, false, DET_SIDE, &w, &h);
    struct pm_det_params params = pm_det_params_default();
    int rc = ppocr_det(c, &det, err);
    if (!rc)
        rc = pm_resize_bilinear(image, w, h, &input, err);
    if (!rc)
        rc = pm_alloc_array((size_t)w * (size_t)h, sizeof(float), &map, err);
    if (!rc)
        rc = pm_det_map(det, &input, map, err);
    if (!rc)
        rc = pm_det_boxes(map, w, h, image->width_px, image->height_px, &params, &boxes, &count, err);
    free(map);
    pm_image_free(&input);
    if (rc)
        return rc;
    struct pm_quad *quads = pm_xalloc((count + 1) * sizeof *quads);
    for (size_t i = 0; i < count; i++)
        quads[i] = boxes[i].quad;
    free(boxes);
    reference_sort_boxes(quads, count);
    *out = (struct lines){pm_xalloc((count + 1) * sizeof *out->items), count};
    for (size_t i = 0; !rc && i < count; i++) {
        out->items[i].quad = quads[i];
        rc = pm_crop_quad(image, &quads[i], 1, &out->items[i].crop, err);
    }
    free(quads);
    return rc;
}

/* ---- orientation ---- */

static void turn_around(struct pm_image *image)
{
    size_t channels = (size_t)image->channels;
    size_t pixels = (size_t)image->width_px * (size_t)image->height_px; /* a crop's rows are tight */
    for (size_t i = 0; i < pixels / 2; i++) {
        uint8_t *a = image->owned + i * channels, *b = image->owned + (pixels - 1 - i) * channels;
        for (size_t k = 0; k < channels; k++) {
            uint8_t swap = a[k];
            a[k] = b[k];
            b[k] = swap;
        }
    }
}

static int turn_lines(const struct parity_case *c, struct lines *lines, struct pm_error *err)
{
    struct pm_cls *cls;
    int rc = ppocr_cls(c, &cls, err);
    for (size_t i = 0; !rc && i < lines->count; i++) {
        float turned;
        rc = pm_cls_run(cls, &lines->items[i].crop, &turned, err);
        if (!rc && turned > CLS_THRESH)
            turn_around(&lines->items[i].crop);
    }
    return rc;
}

/* ---- recognise ---- */

static int by_ratio(const void *left, const void *right)
{
    const struct line *const *a = left, *const *b = right;
    if ((*a)->ratio != (*b)->ratio)
        return (*a)->ratio < (*b)->ratio ? -1 : 1;
    return *a < *b ? -1 : *a > *b;
}

static int read_line(struct pm_rec *rec, const struct pm_charset *charset, const struct line *line, int width,
                     struct pm_ctc_line *out, struct pm_error *err)
{
    int own = (int)ceil(LINE_HEIGHT * line->ratio), step_count = 0;
    struct pm_image resized = {0};
    const float *sequence = NULL;
    struct pm_ctc_step *steps = NULL;
    bool done = false;
    int rc = pm_resize_bilinear(&line->crop, own > width ? width : own, LINE_HEIGHT, &resized, err);
    if (!rc)
        rc = pm_rec_start(rec, &resized, width, err);
    while (!rc && !done)
        rc = pm_rec_continue(rec, INT64_MAX, &done, &sequence, &step_count, err);
    if (!rc) {
        steps = pm_xalloc((size_t)step_count * sizeof *steps);
        rc = pm_rec_head(rec, sequence, step_count, steps, err);
    }
    if (!rc)
        rc = pm_ctc_decode(steps, step_count, charset, out, err);
    free(steps);
    pm_image_free(&resized);
    return rc;
}

/* Width of the input of the batch that order[i] is in. */
static int batch_width(struct line *const *order, size_t count, size_t i)
{
    size_t end = (i / BATCH + 1) * BATCH;
    return (int)(LINE_HEIGHT * fmax(MIN_LINE_WH, order[(end < count ? end : count) - 1]->ratio));
}

static int read_in_batch(struct pm_rec *rec, const struct pm_charset *charset, struct line *const *order,
                         size_t count, size_t i, struct pm_error *err)
{
    struct line *line = order[i];
    size_t start = i / BATCH * BATCH, end = start + BATCH;
    int width = batch_width(order, count, i), rc = read_line(rec, charset, line, width, &line->text, err);
    bool before = start > 0 && order[start - 1]->ratio == line->ratio;
    bool after = end < count && order[end]->ratio == line->ratio;
    for (int side = 0; !rc && side < 2; side++) {
        if (!(side == 0 ? before : after))
            continue;
        int other = batch_width(order, count, side == 0 ? start - 1 : end);
        if (other == width)
            continue;
        rc = read_line(rec, charset, line, other, &line->elsewhere[line->elsewhere_count], err);
        line->elsewhere_count += !rc;
    }
    return rc;
}

static int read_lines(const struct parity_case *c, struct lines *lines, struct pm_error *err)
{
    struct pm_rec *rec;
    const struct pm_charset *charset;
    int rc = ppocr_rec(c, &rec, err);
    if (!rc)
        rc = ppocr_charset(c, &charset, err);
    if (rc)
        return rc;
    struct line **order = pm_xalloc((lines->count + 1) * sizeof *order);
    for (size_t i = 0; i < lines->count; i++) {
        struct line *line = order[i] = &lines->items[i];
        line->ratio = (double)line->crop.width_px / line->crop.height_px;
    }
    qsort(order, lines->count, sizeof *order, by_ratio);
    for (size_t i = 0; !rc && i < lines->count; i++)
        rc = read_in_batch(rec, charset, order, lines->count, i, err);
    free(order);
    return rc;
}

/* ---- result ---- */

static bool is_blank(const char *text)
{
    for (; *text; text++)
        if (*text != ' ' && strncmp(text, "\xe3\x80\x80", 3) == 0)
            text += 2;
        else if (*text != ' ')
            return false;
    return true;
}

/* Drops blank and doubtful lines; boxes go back to the page. */
static void finish_lines(struct lines *lines, const struct pm_image *page, const struct pm_image *prepared,
                         int pad)
{
    float scale_x = (float)((double)page->width_px / prepared->width_px);
    float scale_y = (float)((double)page->height_px / (prepared->height_px - 2 * pad));
    size_t kept = 0;
    for (size_t i = 0; i < lines->count; i++) {
        struct line *line = &lines->items[i];
        pm_image_free(&line->crop);
        if (is_blank((const char *)line->text.text.data) || line->text.confidence < TEXT_SCORE) {
            free_texts(line);
            continue;
        }
        for (int k = 0; k < 4; k++) {
            float x = line->quad.x[k] * scale_x, y = (line->quad.y[k] - (float)pad) * scale_y;
            line->quad.x[k] = fminf(fmaxf(x, 0), (float)page->width_px);
            line->quad.y[k] = fminf(fmaxf(y, 0), (float)page->height_px);
        }
        lines->items[kept++] = *line;
    }
    lines->count = kept;
}

static int run_pipeline(const struct parity_case *c, const struct pm_image *page, struct lines *out,
                        struct pm_error *err)
{
    struct pm_image prepared = {0};
    int pad = 0, rc = fit_sides(page, &prepared, err);
    if (!rc)
        rc = pad_rows(&prepared, &pad, err);
    if (!rc)
        rc = find_lines(c, &prepared, out, err);
    if (!rc)
        rc = turn_lines(c, out, err);
    if (!rc)
        rc = read_lines(c, out, err);
    if (!rc)
        finish_lines(out, page, &prepared, pad);
    pm_image_free(&prepared);
    return rc;
}

/* ---- comparing ---- */

/* Our words as the reference lists them: words where all are "en&num", else single characters. */
static bool has_same_words(const struct line *line, const struct pm_charset *charset, const json_t *expected)
{
    struct reference_words words;
    reference_split_words(&line->text, charset, &words);
    bool has_cn = false;
    size_t at = 0;
    bool same = true;
    for (size_t i = 0; i < words.count; i++)
        has_cn |= words.words[i].is_cn;
    for (size_t i = 0; same && i < words.count; i++) {
        const struct reference_word *w = &words.words[i];
        char *whole = reference_word_text(&words, i, charset);
        for (size_t k = 0; same && k < (has_cn ? w->count : 1); k++) {
            const char *ours = has_cn ? charset->entries[words.chars[w->first + k].index] : whole;
            const char *theirs = json_string_value(json_array_get(json_array_get(expected, at++), 0));
            same = theirs && strcmp(ours, theirs) == 0;
        }
        free(whole);
    }
    reference_words_free(&words);
    return same && at == json_array_size(expected);
}

static double quad_distance(const struct pm_quad *a, const struct pm_quad *b)
{
    double largest = 0;
    for (int i = 0; i < 4; i++)
        largest = fmax(largest, fmax(fabs((double)a->x[i] - b->x[i]), fabs((double)a->y[i] - b->y[i])));
    return largest;
}

/* How many of the golden lines we have, and how well. */
struct tally {
    size_t paired, equal_text, in_order, words_compared, equal_words;
    double corner, score;
};

static int compare_line(const struct parity_case *c, const json_t *golden, size_t index,
                        const struct lines *ours, bool *is_taken, struct tally *t, struct pm_error *err)
{
    const json_t *corners;
    const struct pm_charset *charset;
    struct pm_quad quad;
    const char *text;
    double score;
    int rc = parity_array(golden, "box", &corners, err);
    if (!rc)
        rc = parity_quad(corners, &quad, err);
    if (!rc)
        rc = parity_text(golden, "text", &text, err);
    if (!rc)
        rc = parity_number(golden, "score", &score, err);
    if (!rc)
        rc = ppocr_charset(c, &charset, err);
    if (rc)
        return rc;
    size_t nearest = 0;
    double best = PAIRING_PX;
    for (size_t i = 0; i < ours->count; i++) {
        double distance = is_taken[i] ? INFINITY : quad_distance(&quad, &ours->items[i].quad);
        if (distance < best) {
            best = distance;
            nearest = i;
        }
    }
    if (!(best < PAIRING_PX))
        return 0;
    is_taken[nearest] = true;
    struct line *line = &ours->items[nearest];
    for (int i = 0; i < line->elsewhere_count && strcmp((const char *)line->text.text.data, text) != 0; i++) {
        struct pm_ctc_line swap = line->text;
        line->text = line->elsewhere[i];
        line->elsewhere[i] = swap;
    }
    t->paired++;
    t->corner = fmax(t->corner, best);
    t->in_order += nearest == index;
    if (strcmp((const char *)line->text.text.data, text) != 0)
        return 0;
    t->equal_text++;
    t->score = fmax(t->score, fabs((double)line->text.confidence - score));
    const json_t *words = json_array_get(json_object_get(c->object, "words"), index);
    if (words) {
        t->words_compared++;
        t->equal_words += has_same_words(line, charset, words);
    }
    return 0;
}

static int compare_page(const struct parity_case *c, const struct lines *ours, struct parity_verdict *v,
                        struct pm_error *err)
{
    const json_t *golden;
    int rc = parity_array(c->object, "lines", &golden, err);
    if (rc)
        return rc;
    size_t count = json_array_size(golden);
    bool *is_taken = pm_xalloc(ours->count + 1);
    struct tally t = {0};
    for (size_t i = 0; !rc && i < count; i++)
        rc = compare_line(c, json_array_get(golden, i), i, ours, is_taken, &t, err);
    free(is_taken);
    if (rc)
        return rc;
    size_t most = count > ours->count ? count : ours->count;
    double share = most ? (double)t.equal_text / (double)most : 1;
    parity_report(v, "corner px", t.corner, BOX_LIMIT_PX);
    parity_report(v, "other text", 1 - share, 1 - TEXT_SHARE);
    parity_note(v, "%zu lines, %zu golden, %zu paired, %zu equal, %zu in place, score %.2g, words %zu of %zu",
                ours->count, count, t.paired, t.equal_text, t.in_order, t.score, t.equal_words,
                t.words_compared);
    if (json_object_get(c->object, "words") && json_is_array(json_object_get(c->object, "words")) &&
        (double)t.equal_words < TEXT_SHARE * (double)t.words_compared)
        parity_fail(v, "the words of %zu of %zu lines differ", t.words_compared - t.equal_words,
                    t.words_compared);
    return 0;
}

int parity_end_to_end(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err)
{
    const char *stem;
    const struct pm_image *page;
    struct lines lines = {0};
    int rc = parity_text(c->object, "page", &stem, err);
    if (!rc)
        rc = parity_page(c, stem, &page, err);
    if (!rc)
        rc = run_pipeline(c, page, &lines, err);
    if (!rc)
        rc = compare_page(c, &lines, v, err);
    free_lines(&lines);
    return rc;
}
