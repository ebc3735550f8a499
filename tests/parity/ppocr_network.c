/* Networks of the PP-OCR family against the reference's stage outputs and results: det_network, rec_network,
 * cls_network. Limits: maps and probabilities 1e-4, stages 1e-3 + 1e-4 of the stage's largest value, texts
 * equal, scores 2e-4. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/ppocr/det_run.h"
#include "engine/ppocr/rec_run.h"
#include "tests/parity/parity.h"

/* What the taps compare against. */
struct look {
    const struct parity_case *c;
    struct parity_verdict *v;
    struct pm_error *err;
    int batch_index, rc;
    double *worst; /* of this stage over the batch */
    int seen;
    float *logits; /* [steps, classes] of the line at hand */
    int steps;
};

static float value_at(const float *values, size_t flat, int height, int width, int channels, bool is_sequence)
{
    if (is_sequence)
        return values[flat];
    size_t plane = (size_t)height * (size_t)width, c = flat / plane, pixel = flat % plane;
    return values[pixel * (size_t)channels + c];
}

/* The golden keeps every step-th value of the flattened [batch, channels, height, width] (or [batch, steps,
 * features]). */
static void compare_stage(struct look *l, const char *stage, const float *values, int height, int width,
                          int channels)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", l->c->name, stage);
    const json_t *info = json_object_get(json_object_get(l->c->object, "stages"), key);
    const struct pm_tensor *t;
    if (!info || l->rc)
        return;
    size_t step = (size_t)json_integer_value(json_object_get(info, "step"));
    double limit = 1e-3 + 1e-4 * json_number_value(json_object_get(info, "absmax")), worst = 0;
    bool is_sequence = json_array_size(json_object_get(info, "shape")) == 3;
    size_t size = (size_t)height * (size_t)width * (size_t)channels, from = (size_t)l->batch_index * size;
    l->rc = parity_tensor(l->c, stage, PM_DTYPE_F32, &t, l->err);
    if (l->rc || !step)
        return;
    size_t compared = 0;
    for (size_t i = 0; i < t->bytes / sizeof(float); i++) {
        float want;
        if (i * step < from || i * step >= from + size)
            continue;
        memcpy(&want, t->data + 4 * i, sizeof want);
        double error = fabs((double)want -
                            (double)value_at(values, i * step - from, height, width, channels, is_sequence));
        worst = error > worst || isnan(error) ? error : worst;
        compared++;
    }
    if (!compared)
        parity_fail(l->v, "%s: nothing to compare", stage);
    parity_report(l->v, stage, worst, limit);
    l->seen++;
}

static void look_at(void *arg, const char *stage, const float *values, int height, int width, int channels)
{
    struct look *l = arg;
    compare_stage(l, stage, values, height, width, channels);
    if (!strcmp(stage, "logits")) {
        free(l->logits);
        l->steps = width;
        size_t bytes = (size_t)width * (size_t)channels * sizeof(float);
        l->logits = pm_xalloc(bytes);
        memcpy(l->logits, values, bytes);
    }
}

static void check_seen(struct look *l, int batch)
{
    int want = (int)json_object_size(json_object_get(l->c->object, "stages")) * batch;
    if (!l->rc && l->seen != want)
        parity_fail(l->v, "%d of %d stages were compared", l->seen, want);
}

int parity_det_network(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err)
{
    struct pm_det *det = NULL;
    struct pm_image image;
    const struct pm_tensor *want;
    struct look look = {.c = c, .v = v, .err = err};
    void *map = NULL;
    int rc = pm_det_open(parity_model_dir(c), 1, &det, err);
    if (!rc)
        rc = parity_picture(c, "image", &image, err);
    if (!rc)
        rc = parity_tensor(c, "probability", PM_DTYPE_F32, &want, err);
    if (!rc)
        rc = pm_alloc_array((size_t)image.width_px * (size_t)image.height_px, sizeof(float), &map, err);
    if (rc)
        goto done;
    pm_det_tap(det, (struct pm_tap){look_at, &look, true});
    rc = pm_det_map(det, &image, map, err);
    if (!rc)
        rc = look.rc;
    if (rc)
        goto done;
    check_seen(&look, 1);
    /* Once more as users run it: without taps the head goes another way. */
    pm_det_tap(det, (struct pm_tap){0});
    rc = pm_det_map(det, &image, map, err);
    double worst = 0;
    size_t count = (size_t)image.width_px * (size_t)image.height_px;
    if (want->bytes != count * sizeof(float))
        parity_fail(v, "the map has another size");
    for (size_t i = 0; i < count && want->bytes == count * sizeof(float); i++) {
        float w;
        memcpy(&w, want->data + 4 * i, sizeof w);
        double error = fabs((double)w - (double)((float *)map)[i]);
        worst = error > worst || isnan(error) ? error : worst;
    }
    parity_report(v, "map", worst, 1e-4);
done:
    free(map);
    pm_det_free(&det);
    return rc;
}

/* ---- recogniser ---- */

static int open_charset(const struct parity_case *c, struct pm_charset *out, struct pm_error *err)
{
    char *path;
    struct pm_buf text = {0};
    int rc = pm_ppocr_path(parity_model_dir(c), "characters", &path, err);
    if (!rc)
        rc = pm_fs_read(path, (size_t)4 << 20, &text, err);
    if (!rc)
        rc = pm_charset_parse((const char *)text.data, text.size, PM_REC_CLASSES, out, err);
    pm_buf_free(&text);
    free(path);
    return rc;
}

/* Softmax of the logits at the golden's five best classes of each step. */
static void compare_top5(struct look *l, const struct pm_tensor *index, const struct pm_tensor *probability,
                         const struct pm_ctc_step *got)
{
    double worst = 0;
    int other = 0;
    for (int t = 0; t < l->steps; t++) {
        const float *row = l->logits + (size_t)t * PM_REC_CLASSES;
        double top = row[0], sum = 0;
        for (int i = 1; i < PM_REC_CLASSES; i++)
            top = row[i] > top ? row[i] : top;
        for (int i = 0; i < PM_REC_CLASSES; i++)
            sum += exp(row[i] - top);
        for (int k = 0; k < 5; k++) {
            size_t at = ((size_t)l->batch_index * (size_t)l->steps + (size_t)t) * 5 + (size_t)k;
            int32_t class;
            float want;
            memcpy(&class, index->data + 4 * at, sizeof class);
            memcpy(&want, probability->data + 4 * at, sizeof want);
            if (class < 0 || class >= PM_REC_CLASSES)
                continue;
            double p = exp(row[class] - top) / sum, error = fabs(p - (double)want);
            worst = error > worst || isnan(error) ? error : worst;
            if (k)
                continue;
            /* The fused head against the same golden: the class too, unless the golden's first two tie. */
            error = got[t].index == class ? fabs((double)got[t].probability - (double)want) : 0;
            worst = error > worst || isnan(error) ? error : worst;
            float runner_up;
            memcpy(&runner_up, probability->data + 4 * (at + 1), sizeof runner_up);
            other += got[t].index != class && want - runner_up > 2e-4f;
        }
    }
    parity_report(l->v, "probabilities", worst, 1e-4);
    if (other)
        parity_fail(l->v, "%d steps have another best class", other);
}

static int check_line(struct look *l, struct pm_rec *rec, const struct pm_image *image, int padded,
                      const struct pm_charset *charset)
{
    const json_t *texts, *scores;
    const struct pm_tensor *index, *probability;
    bool done;
    const float *sequence = NULL;
    int steps = 0, rc = parity_array(l->c->object, "texts", &texts, l->err);
    if (!rc)
        rc = parity_array(l->c->object, "scores", &scores, l->err);
    if (!rc)
        rc = parity_tensor(l->c, "top5_index", PM_DTYPE_I32, &index, l->err);
    if (!rc)
        rc = parity_tensor(l->c, "top5_probability", PM_DTYPE_F32, &probability, l->err);
    if (!rc)
        rc = pm_rec_start(rec, image, padded, l->err);
    if (!rc)
        rc = pm_rec_continue(rec, INT64_MAX, &done, &sequence, &steps, l->err);
    if (rc)
        return rc;
    uint64_t need = ((uint64_t)l->batch_index + 1) * (uint64_t)steps * 5 * 4;
    if (index->bytes < need || probability->bytes < need)
        return pm_fail(l->err, PM_EFORMAT, "top5 tensors are shorter than %d steps", steps);
    struct pm_ctc_step *got = pm_xalloc(((size_t)steps + 1) * sizeof *got);
    struct pm_ctc_line line = {0};
    rc = pm_rec_head(rec, sequence, steps, got, l->err);
    if (!rc && !l->rc && l->logits)
        compare_top5(l, index, probability, got);
    if (!rc)
        rc = pm_ctc_decode(got, steps, charset, &line, l->err);
    if (!rc) {
        const char *want = json_string_value(json_array_get(texts, (size_t)l->batch_index));
        if (!want || strlen(want) != line.text.size || memcmp(want, line.text.data, line.text.size))
            parity_fail(l->v, "read \"%.60s\" instead of \"%.60s\"",
                        line.text.size ? (char *)line.text.data : "", want ? want : "?");
        double score = json_number_value(json_array_get(scores, (size_t)l->batch_index));
        parity_report(l->v, "score", fabs(score - (double)line.confidence), 2e-4);
    }
    pm_ctc_line_free(&line);
    free(got);
    return rc ? rc : l->rc;
}

int parity_rec_network(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err)
{
    struct pm_rec *rec = NULL;
    struct pm_charset charset = {0};
    struct look look = {.c = c, .v = v, .err = err};
    const json_t *input;
    int rc = pm_rec_open(parity_model_dir(c), 1, &rec, err);
    if (!rc)
        rc = open_charset(c, &charset, err);
    if (!rc)
        rc = parity_array(c->object, "input", &input, err);
    int batch = rc ? 0 : (int)json_integer_value(json_array_get(input, 0));
    int padded = rc ? 0 : (int)json_integer_value(json_array_get(input, 3));
    if (!rc && (batch < 1 || batch > 64))
        rc = pm_fail(err, PM_EFORMAT, "case %s: a batch of %d", c->name, batch);
    if (!rc)
        pm_rec_tap(rec, (struct pm_tap){look_at, &look, true});
    for (int i = 0; !rc && i < batch; i++) {
        struct pm_image image;
        char name[32];
        snprintf(name, sizeof name, "image_bgr.%d", i);
        look.batch_index = i;
        rc = parity_picture(c, batch > 1 ? name : "image", &image, err);
        if (!rc)
            rc = check_line(&look, rec, &image, padded, &charset);
    }
    if (!rc)
        check_seen(&look, batch);
    free(look.logits);
    pm_charset_free(&charset);
    pm_rec_free(&rec);
    return rc;
}

int parity_cls_network(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err)
{
    struct pm_cls *cls = NULL;
    struct pm_image image;
    struct look look = {.c = c, .v = v, .err = err};
    const json_t *want;
    float turned;
    int rc = pm_cls_open(parity_model_dir(c), 1, &cls, err);
    if (!rc)
        rc = parity_picture(c, "image", &image, err);
    if (!rc)
        rc = parity_array(c->object, "probabilities", &want, err);
    if (!rc) {
        pm_cls_tap(cls, (struct pm_tap){look_at, &look, true});
        rc = pm_cls_run(cls, &image, &turned, err);
    }
    if (!rc)
        rc = look.rc;
    if (!rc) {
        check_seen(&look, 1);
        double p = json_number_value(json_array_get(want, 1));
        parity_report(v, "probability", fabs(p - (double)turned), 1e-4);
    }
    pm_cls_free(&cls);
    return rc;
}
