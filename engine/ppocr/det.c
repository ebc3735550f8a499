#include "engine/ppocr/det.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/ppocr/crop.h"
#include "engine/ppocr/det_run.h"

enum {
    LEVELS = 4,  /* stages 1..4: 1/4, 1/8, 1/16, 1/32 */
    WIDE = 96,   /* channels of the neck */
    NARROW = 24, /* of its outputs and the head */
    SMOOTH_TAPS = 7,
};

struct level {
    struct pm_dense lateral, smooth;
    struct pm_gate lateral_gate, smooth_gate;
    struct pm_depthwise smooth_dw;
};

struct pm_det {
    struct pm_pack *pack;
    struct pm_net net;
    struct pm_backbone backbone;
    struct level levels[LEVELS];
    struct pm_dense conv, up1, up2;

    struct pm_scratch stages[LEVELS][2], sums, narrow[LEVELS], rows;
    struct pm_fmap c[LEVELS]; /* stage outputs */
    struct pm_fmap p[LEVELS]; /* sums of the top-down path */
    struct pm_fmap o[LEVELS]; /* smoothed, before the gate */
    float gates[LEVELS][WIDE];
};

static const int stage_channels[LEVELS] = {48, 96, 192, 384};

/* ---- opening ---- */

static int find_level(struct pm_det *d, int i, struct pm_error *err)
{
    struct level *l = &d->levels[i];
    int rc =
        pm_dense_find(d->pack, &l->lateral, WIDE, 1, stage_channels[i], err, "neck.lateral%d.conv", i + 2);
    if (!rc)
        rc = pm_gate_find(d->pack, &l->lateral_gate, WIDE, 0.2f, err, "neck.lateral%d.se", i + 2);
    if (!rc)
        rc = pm_depthwise_find(d->pack, &l->smooth_dw, WIDE, SMOOTH_TAPS, SMOOTH_TAPS, 1, 1, err,
                               "neck.smooth%d.dw", i + 2);
    if (!rc)
        rc = pm_dense_find(d->pack, &l->smooth, NARROW, 1, WIDE, err, "neck.smooth%d.conv", i + 2);
    if (!rc)
        rc = pm_gate_find(d->pack, &l->smooth_gate, NARROW, 0.2f, err, "neck.smooth%d.se", i + 2);
    return rc;
}

int pm_det_open(const char *model_dir, int threads, struct pm_det **out, struct pm_error *err)
{
    static const int blocks[LEVELS] = {2, 2, 4, 2};
    *out = NULL;
    struct pm_det *d = pm_xalloc(sizeof *d);
    int rc = pm_net_open(&d->net, threads, err);
    if (!rc)
        rc = pm_ppocr_open_pack(model_dir, "detector", &d->pack, err);
    if (!rc)
        rc = pm_backbone_find(d->pack, &d->backbone, 24, LEVELS, blocks, 2, err);
    for (int i = 0; !rc && i < LEVELS; i++)
        rc = find_level(d, i, err);
    if (!rc)
        rc = pm_dense_find(d->pack, &d->conv, NARROW, 3, 3 * WIDE, err, "head.conv");
    if (!rc)
        rc = pm_dense_find(d->pack, &d->up1, 4 * NARROW, 1, NARROW, err, "head.up1");
    if (!rc)
        rc = pm_dense_find(d->pack, &d->up2, 4, 1, NARROW, err, "head.up2");
    if (rc)
        pm_det_free(&d);
    *out = d;
    return rc;
}

void pm_det_free(struct pm_det **det)
{
    struct pm_det *d = *det;
    if (!d)
        return;
    pm_net_close(&d->net);
    for (int i = 0; i < LEVELS; i++) {
        pm_scratch_free(&d->stages[i][0]);
        pm_scratch_free(&d->stages[i][1]);
        pm_scratch_free(&d->narrow[i]);
    }
    pm_scratch_free(&d->sums);
    pm_scratch_free(&d->rows);
    pm_pack_free(&d->pack);
    free(d);
    *det = NULL;
}

void pm_det_tap(struct pm_det *det, struct pm_tap tap)
{
    det->net.tap = tap;
}

int64_t pm_det_macs(int width_px, int height_px)
{
    int64_t full = (int64_t)width_px * height_px, q = full / 16, sum = 0;
    sum += full / 4 * (27 * 24 + 96 * 12 + 48 * 24) + q * (432 * 24 + 24 * 48);
    static const int blocks[LEVELS] = {2, 2, 4, 2};
    for (int i = 0; i < LEVELS; i++) {
        int64_t c = stage_channels[i], pixels = q >> (2 * i);
        sum += blocks[i] * pixels * (9 * c + 4 * c * c);
        if (i)
            sum += pixels * (9 * c / 2 + c / 2 * c + c * c);
        sum += pixels * (c * WIDE + 49 * WIDE + WIDE * NARROW);
    }
    return sum + q * (9 * WIDE * NARROW + NARROW * 4 * NARROW) + full / 4 * NARROW * 4;
}

/* ---- backbone ---- */

static int run_backbone(struct pm_det *d, const struct pm_image *image, struct pm_error *err)
{
    int h = image->height_px / 4, w = image->width_px / 4, rc = 0;
    for (int i = 0; !rc && i < 2 * LEVELS; i++)
        rc = pm_scratch_need(&d->stages[i / 2][i % 2],
                             pm_fmap_floats(h >> i / 2, w >> i / 2, stage_channels[i / 2]), err);
    if (rc)
        return rc;
    struct pm_fmap map = {.data = d->stages[0][0].data};
    rc = pm_stem_run(&d->net, &d->backbone, image, image->width_px, &map, err);
    for (int i = 0; !rc && i < LEVELS; i++) {
        const struct pm_stage *s = &d->backbone.stages[i];
        for (int k = 0; !rc && k < s->count; k++) {
            const struct pm_block *b = &s->blocks[k];
            float *own = d->stages[i][0].data, *other = map.data != own ? own : d->stages[i][1].data;
            struct pm_fmap in = map;
            rc = pm_block_run(&d->net, b, &in, other, &map, err);
            if (rc || !d->net.tap.fn)
                continue;
            char name[48];
            snprintf(name, sizeof name, b->is_down ? "backbone.stage%d.down" : "backbone.stage%d.block%d",
                     i + 1, k + (i == 0));
            pm_net_tap(&d->net, name, map.data, map.height, map.width, map.channels);
        }
        d->c[i] = map;
        char name[32];
        snprintf(name, sizeof name, "backbone.stage%d", i + 1);
        if (!rc)
            pm_net_tap(&d->net, name, map.data, map.height, map.width, map.channels);
    }
    return rc;
}

/* ---- neck ---- */

struct neck_job {
    struct pm_det *d;
    int level;
    float *row_sums;
};

/* p = lateral(c) * (1 + gate) + the coarser level's p, twice as large. The gate is known before the
 * convolution: it has no bias, so the mean of its output is the convolution of the mean. */
static void lateral_row(void *arg, int y, int thread)
{
    struct neck_job *j = arg;
    struct pm_det *d = j->d;
    const struct pm_fmap *c = &d->c[j->level], *p = &d->p[j->level];
    (void)thread;
    int w = p->width;
    float *row = p->data + (size_t)y * (size_t)w * WIDE;
    pm_dense_rows(&d->net, &d->levels[j->level].lateral,
                  c->data + (size_t)y * (size_t)w * (size_t)c->channels, (size_t)c->channels, w, row, WIDE,
                  NULL, 0, PM_ACT_NONE);
    d->net.kernels->scale_rows(row, w, WIDE, d->gates[j->level]);
    if (j->level + 1 == LEVELS)
        return;
    const struct pm_fmap *up = &d->p[j->level + 1];
    const float *coarse = up->data + (size_t)(y / 2) * (size_t)up->width * WIDE;
    for (int x = 0; x < w; x++)
        for (int k = 0; k < WIDE; k++)
            row[x * WIDE + k] += coarse[x / 2 * WIDE + k];
}

/* o = smooth.conv(smooth.dw(p)); its gate comes later, when the mean of o is known. */
static void smooth_row(void *arg, int y, int thread)
{
    struct neck_job *j = arg;
    struct pm_det *d = j->d;
    const struct level *l = &d->levels[j->level];
    const struct pm_fmap *p = &d->p[j->level];
    int w = p->width;
    float *wide = d->net.work[thread].data, *row = d->o[j->level].data + (size_t)y * (size_t)w * NARROW;
    float *sums = j->row_sums + (size_t)y * NARROW;
    pm_depthwise_pixels(&d->net, &l->smooth_dw, p, w, y * w, (y + 1) * w, wide);
    pm_dense_rows(&d->net, &l->smooth, wide, WIDE, w, row, NARROW, NULL, 0, PM_ACT_NONE);
    memset(sums, 0, NARROW * sizeof(float));
    d->net.kernels->sum_rows(row, w, NARROW, sums);
}

static void mean_of_rows(const struct pm_net *net, const float *rows, const struct pm_fmap *map, float *mean)
{
    memset(mean, 0, (size_t)map->channels * sizeof(float));
    net->kernels->sum_rows(rows, map->height, map->channels, mean);
    for (int c = 0; c < map->channels; c++)
        mean[c] /= (float)map->height * (float)map->width;
}

/* After a tap only: the gated map, as the reference has it. */
static void tap_gated(struct pm_det *d, int level, const float *gate)
{
    char name[32];
    const struct pm_fmap *o = &d->o[level];
    struct pm_scratch copy = {0};
    if (!d->net.tap.fn || !d->net.tap.all ||
        pm_scratch_need(&copy, pm_fmap_floats(o->height, o->width, NARROW), NULL))
        return;
    memcpy(copy.data, o->data, pm_fmap_floats(o->height, o->width, NARROW) * sizeof(float));
    d->net.kernels->scale_rows(copy.data, o->height * o->width, NARROW, gate);
    snprintf(name, sizeof name, "neck.smooth%d", level + 2);
    pm_net_tap(&d->net, name, copy.data, o->height, o->width, NARROW);
    pm_scratch_free(&copy);
}

/* Two sums in turn: p of a level is needed only for the next finer one. */
static int run_neck(struct pm_det *d, struct pm_error *err)
{
    const struct pm_fmap *finest = &d->c[0];
    int h = finest->height, w = finest->width;
    size_t sum_floats = pm_fmap_floats(h, w, WIDE) + pm_fmap_floats(h / 2, w / 2, WIDE) + 64;
    size_t row_floats = (size_t)h * 384;
    int rc = pm_scratch_need(&d->sums, sum_floats, err);
    if (!rc)
        rc = pm_scratch_need(&d->rows, row_floats, err);
    if (!rc)
        rc = pm_net_need_work(&d->net, (size_t)w * WIDE, err);
    for (int i = 0; !rc && i < LEVELS; i++)
        rc = pm_scratch_need(&d->narrow[i], pm_fmap_floats(h >> i, w >> i, NARROW), err);
    for (int i = LEVELS - 1; !rc && i >= 0; i--) {
        const struct pm_fmap *c = &d->c[i];
        float *large = d->sums.data, *small = large + pm_fmap_floats(h, w, WIDE);
        d->p[i] = (struct pm_fmap){i % 2 ? small : large, c->height, c->width, WIDE};
        d->o[i] = (struct pm_fmap){d->narrow[i].data, c->height, c->width, NARROW};
        float mean[384], wide_mean[WIDE];
        struct neck_job job = {d, i, d->rows.data};
        pm_fmap_mean(&d->net, c, d->rows.data, mean);
        pm_dense_rows(&d->net, &d->levels[i].lateral, mean, (size_t)c->channels, 1, wide_mean, WIDE, NULL, 0,
                      PM_ACT_NONE);
        pm_gate_run(&d->net, &d->levels[i].lateral_gate, wide_mean, d->gates[i]);
        for (int k = 0; k < WIDE; k++)
            d->gates[i][k] += 1.0f;
        pm_pool_run(d->net.pool, lateral_row, &job, c->height);
        char name[32];
        snprintf(name, sizeof name, i + 1 == LEVELS ? "neck.lateral%d" : "neck.sum%d", i + 2);
        pm_net_tap(&d->net, name, d->p[i].data, c->height, c->width, WIDE);
        pm_pool_run(d->net.pool, smooth_row, &job, c->height);
        float narrow_mean[NARROW];
        mean_of_rows(&d->net, d->rows.data, &d->o[i], narrow_mean);
        pm_gate_run(&d->net, &d->levels[i].smooth_gate, narrow_mean, d->gates[i]);
        for (int k = 0; k < NARROW; k++)
            d->gates[i][k] += 1.0f;
        tap_gated(d, i, d->gates[i]);
    }
    return rc;
}

/* ---- head ---- */

enum { HEAD_RING = 4 };

struct head_job {
    struct pm_det *d;
    float *map;
    int width, height, band; /* of the quarter-size map; rows a job */
    float *conv_copy, *up1_copy;
};

static size_t head_row_floats(int width)
{
    return (size_t)(width + 2) * WIDE;
}

static size_t head_floats(int width)
{
    return (HEAD_RING + 1) * head_row_floats(width) + (size_t)width * NARROW * 5 + (size_t)width * 2 * 4 + 64;
}

/* Row y of concat(up8(o5), up4(o4), up2(o3), o2), each gated; one pixel of zeros at each end. */
static void concat_row(const struct pm_det *d, int y, int width, float *out)
{
    for (int x = 0; x < width; x++)
        for (int i = 0; i < LEVELS; i++) {
            int level = LEVELS - 1 - i;
            const struct pm_fmap *o = &d->o[level];
            const float *in =
                o->data + ((size_t)(y >> level) * (size_t)o->width + (size_t)(x >> level)) * NARROW;
            float *to = out + (size_t)(x + 1) * WIDE + i * NARROW;
            for (int k = 0; k < NARROW; k++)
                to[k] = in[k] * d->gates[level][k];
        }
}

static void head_band(void *arg, int band, int thread)
{
    struct head_job *j = arg;
    struct pm_det *d = j->d;
    int w = j->width, from = band * j->band, to = from + j->band < j->height ? from + j->band : j->height;
    size_t row_floats = head_row_floats(w);
    float *ring = d->net.work[thread].data, *zeros = ring + HEAD_RING * row_floats;
    float *conv = zeros + row_floats, *up1 = conv + (size_t)w * NARROW, *up2 = up1 + (size_t)w * 4 * NARROW;
    memset(ring, 0, (HEAD_RING + 1) * row_floats * sizeof(float));
    int next = from ? from - 1 : 0;
    for (int y = from; y < to; y++) {
        for (; next <= y + 1 && next < j->height; next++)
            concat_row(d, next, w, ring + (size_t)(next & (HEAD_RING - 1)) * row_floats);
        const float *rows[3];
        for (int k = 0; k < 3; k++) {
            int at = y - 1 + k;
            rows[k] = at < 0 || at >= j->height ? zeros : ring + (size_t)(at & (HEAD_RING - 1)) * row_floats;
        }
        pm_conv_rows(&d->net, &d->conv, rows, WIDE, w, conv, NARROW, PM_ACT_RELU);
        /* up1: outputs of one pixel are [2 rows][2 columns][24]; a panel of 48 is one output row of both
         * columns. */
        pm_dense_rows(&d->net, &d->up1, conv, NARROW, w, up1, 4 * NARROW, NULL, 0, PM_ACT_RELU);
        pm_dense_rows(&d->net, &d->up2, up1, NARROW, 4 * w, up2, 4, NULL, 0, PM_ACT_NONE);
        (void)up2;
        for (int x = 0; x < w; x++)
            for (int s = 0; s < 4; s++) { /* s: row and column inside the pixel at half size */
                const float *quad = up2 + ((size_t)x * 4 + (size_t)s) * 4;
                float *out = j->map + ((size_t)(4 * y + 2 * (s / 2)) * (size_t)(4 * w)) +
                             (size_t)(4 * x + 2 * (s % 2));
                out[0] = quad[0];
                out[1] = quad[1];
                out[4 * w] = quad[2];
                out[4 * w + 1] = quad[3];
            }
        if (j->conv_copy) {
            memcpy(j->conv_copy + (size_t)y * (size_t)w * NARROW, conv, (size_t)w * NARROW * sizeof(float));
            for (int x = 0; x < w; x++)
                for (int i = 0; i < 2; i++)
                    memcpy(j->up1_copy + ((size_t)(2 * y + i) * (size_t)(2 * w) + (size_t)(2 * x)) * NARROW,
                           up1 + ((size_t)x * 4 + (size_t)(2 * i)) * NARROW, 2 * NARROW * sizeof(float));
        } else
            d->net.kernels->activate(j->map + (size_t)(4 * y) * (size_t)(4 * w), (size_t)(16 * w),
                                     PM_ACT_SIGMOID);
    }
}

static int run_head(struct pm_det *d, float *map, struct pm_error *err)
{
    struct head_job job = {.d = d, .map = map, .width = d->c[0].width, .height = d->c[0].height};
    size_t pixels = (size_t)job.width * (size_t)job.height;
    struct pm_scratch copy = {0};
    job.band = (job.height + d->net.threads - 1) / d->net.threads;
    int rc = pm_net_need_work(&d->net, head_floats(job.width), err);
    if (!rc && d->net.tap.fn && d->net.tap.all)
        rc = pm_scratch_need(&copy, pixels * NARROW * 5, err);
    if (rc)
        return rc;
    job.conv_copy = copy.data;
    job.up1_copy = copy.data ? copy.data + pixels * NARROW : NULL;
    pm_pool_run(d->net.pool, head_band, &job, (job.height + job.band - 1) / job.band);
    if (copy.data) {
        pm_net_tap(&d->net, "head.conv", job.conv_copy, job.height, job.width, NARROW);
        pm_net_tap(&d->net, "head.up1", job.up1_copy, 2 * job.height, 2 * job.width, NARROW);
        pm_net_tap(&d->net, "head.up2", map, 4 * job.height, 4 * job.width, 1);
        d->net.kernels->activate(map, pixels * 16, PM_ACT_SIGMOID);
    }
    pm_scratch_free(&copy);
    return 0;
}

int pm_det_map(struct pm_det *det, const struct pm_image *bgr, float *map_out, struct pm_error *err)
{
    if (bgr->width_px < 32 || bgr->height_px < 32 || bgr->width_px % 32 || bgr->height_px % 32)
        return pm_fail(err, PM_EINVAL,
                       "a picture of %d x %d for the text detector: sides must be multiples of 32",
                       bgr->width_px, bgr->height_px);
    if ((int64_t)bgr->width_px * bgr->height_px > PM_DET_PIXELS_MAX)
        return pm_fail(err, PM_ELIMIT, "a picture of %d x %d for the text detector: at most %lld pixels",
                       bgr->width_px, bgr->height_px, (long long)PM_DET_PIXELS_MAX);
    int rc = run_backbone(det, bgr, err);
    if (!rc)
        rc = run_neck(det, err);
    return rc ? rc : run_head(det, map_out, err);
}

/* ---- whole detector ---- */

static int round_to_32(double v)
{
    int n = (int)(nearbyint(v / 32.0) * 32.0);
    return n < 32 ? 32 : n;
}

int pm_det_run(struct pm_det *det, const struct pm_image *image, int limit_px,
               const struct pm_det_params *params, struct pm_det_box **boxes_out, size_t *count_out,
               struct pm_error *err)
{
    *boxes_out = NULL;
    *count_out = 0;
    int longer = image->width_px > image->height_px ? image->width_px : image->height_px;
    double ratio = limit_px > 0 && longer > limit_px ? (double)limit_px / longer : 1.0;
    int w = round_to_32((int)(image->width_px * ratio)), h = round_to_32((int)(image->height_px * ratio));
    struct pm_image small = {0};
    void *map = NULL;
    int rc = 0;
    if ((int64_t)w * h > PM_DET_PIXELS_MAX)
        return pm_fail(err, PM_ELIMIT,
                       "a picture of %d x %d is too large to look for text: give a limit for its "
                       "longer side",
                       image->width_px, image->height_px);
    bool resized = w != image->width_px || h != image->height_px;
    if (resized)
        rc = pm_resize_bilinear(image, w, h, &small, err);
    if (!rc)
        rc = pm_alloc_array((size_t)w * (size_t)h, sizeof(float), &map, err);
    if (!rc)
        rc = pm_det_map(det, resized ? &small : image, map, err);
    if (!rc)
        rc = pm_det_boxes(map, w, h, image->width_px, image->height_px, params, boxes_out, count_out, err);
    free(map);
    pm_image_free(&small);
    return rc;
}
