#include "engine/ppocr/rec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/ppocr/rec_run.h"

enum {
    FEATURES = PM_REC_FEATURES,
    POOLED = 384, /* channels of the backbone */
    HEADS = 8,
    HEAD_SIZE = 15,
    MLP_HIDDEN = 240,
    NECK_BLOCKS = 2,
    ATTENTION_ROWS = 32, /* queries whose scores are in memory at once */
    HEAD_ROWS = 64,      /* rows of the head whose logits of one panel are in memory at once */
};

struct vector_pair {
    const float *weight, *bias;
};
struct neck_block {
    struct vector_pair norm1, norm2;
    struct pm_dense qkv, proj, fc1, fc2;
};

struct pm_rec {
    struct pm_pack *pack;
    struct pm_net net;
    struct pm_backbone backbone;
    struct pm_dense shortcut, reduce, head;
    struct pm_depthwise local;
    struct neck_block blocks[NECK_BLOCKS];
    struct vector_pair norm;

    /* The line in work. */
    const struct pm_image *line;
    int padded_width, phase;
    struct pm_scratch maps[2], neck, head_work;
    struct pm_fmap map;
};

/* ---- opening ---- */

static int find_pair(const struct pm_pack *pack, struct vector_pair *v, const char *name,
                     struct pm_error *err)
{
    int rc = pm_vector_find(pack, &v->weight, FEATURES, err, "%s.weight", name);
    return rc ? rc : pm_vector_find(pack, &v->bias, FEATURES, err, "%s.bias", name);
}

static int find_neck(struct pm_rec *r, struct pm_error *err)
{
    int rc = pm_dense_find(r->pack, &r->shortcut, FEATURES, 1, POOLED, err, "neck.shortcut");
    if (!rc)
        rc = pm_dense_find(r->pack, &r->reduce, FEATURES, 1, POOLED, err, "neck.reduce");
    if (!rc)
        rc = pm_depthwise_find(r->pack, &r->local, FEATURES, 1, 7, 1, 1, err, "neck.local");
    for (int i = 0; !rc && i < NECK_BLOCKS; i++) {
        struct neck_block *b = &r->blocks[i];
        char name[2][40];
        snprintf(name[0], sizeof name[0], "neck.block%d.norm1", i + 1);
        snprintf(name[1], sizeof name[1], "neck.block%d.norm2", i + 1);
        rc = find_pair(r->pack, &b->norm1, name[0], err);
        if (!rc)
            rc = find_pair(r->pack, &b->norm2, name[1], err);
        if (!rc)
            rc = pm_dense_find(r->pack, &b->qkv, 3 * FEATURES, 1, FEATURES, err, "neck.block%d.attn.qkv",
                               i + 1);
        if (!rc)
            rc =
                pm_dense_find(r->pack, &b->proj, FEATURES, 1, FEATURES, err, "neck.block%d.attn.proj", i + 1);
        if (!rc)
            rc = pm_dense_find(r->pack, &b->fc1, MLP_HIDDEN, 1, FEATURES, err, "neck.block%d.mlp.fc1", i + 1);
        if (!rc)
            rc = pm_dense_find(r->pack, &b->fc2, FEATURES, 1, MLP_HIDDEN, err, "neck.block%d.mlp.fc2", i + 1);
    }
    if (!rc)
        rc = find_pair(r->pack, &r->norm, "neck.norm", err);
    if (!rc)
        rc = pm_dense_find(r->pack, &r->head, PM_REC_CLASSES, 1, FEATURES, err, "head.fc");
    return rc;
}

int pm_rec_open(const char *model_dir, int threads, struct pm_rec **out, struct pm_error *err)
{
    static const int blocks[] = {3, 6, 2};
    *out = NULL;
    struct pm_rec *r = pm_xalloc(sizeof *r);
    int rc = pm_net_open(&r->net, threads, err);
    if (!rc)
        rc = pm_ppocr_open_pack(model_dir, "recogniser", &r->pack, err);
    if (!rc)
        rc = pm_backbone_find(r->pack, &r->backbone, 48, 3, blocks, 1, err);
    if (!rc)
        rc = find_neck(r, err);
    if (rc)
        pm_rec_free(&r);
    *out = r;
    return rc;
}

void pm_rec_free(struct pm_rec **rec)
{
    struct pm_rec *r = *rec;
    if (!r)
        return;
    pm_net_close(&r->net);
    pm_scratch_free(&r->maps[0]);
    pm_scratch_free(&r->maps[1]);
    pm_scratch_free(&r->neck);
    pm_scratch_free(&r->head_work);
    pm_pack_free(&r->pack);
    free(r);
    *rec = NULL;
}

void pm_rec_tap(struct pm_rec *rec, struct pm_tap tap)
{
    rec->net.tap = tap;
}

int pm_rec_steps(int width_px)
{
    return ((width_px + 1) / 2 + 1) / 2 / 2;
}

int pm_rec_width(int crop_width_px, int crop_height_px)
{
    if (crop_width_px < 1 || crop_height_px < 1)
        return 8;
    int64_t w = ((int64_t)PM_REC_HEIGHT * crop_width_px + crop_height_px - 1) / crop_height_px;
    return w < 8 ? 8 : w > INT32_MAX ? INT32_MAX : (int)w;
}

/* ---- cost ---- */

/* Multiply-adds of one phase: 0 the stem, then each block. */
static int64_t phase_macs(int phase, int width)
{
    int64_t half = (width + 1) / 2, quarter = (half + 1) / 2;
    if (phase == 0)
        return 24 * half * (27 * 48 + 192 * 24 + 96 * 48) + 12 * quarter * (864 * 48 + 48 * 96);
    static const struct {
        int first, channels, height;
    } stages[] = {{1, 96, 12}, {4, 192, 6}, {11, 384, 3}};
    int s = phase >= 11 ? 2 : phase >= 4 ? 1 : 0;
    int64_t c = stages[s].channels, pixels = quarter * stages[s].height;
    if (s && phase == stages[s].first)
        return pixels * (9 * c / 2 + c / 2 * c + c * c);
    return pixels * (9 * c + 4 * c * c);
}

enum { PHASES = 14 }; /* stem and 13 blocks; then the neck */

static int64_t neck_macs(int width)
{
    int64_t t = pm_rec_steps(width);
    return t * (2 * POOLED * FEATURES + 7 * FEATURES) +
           NECK_BLOCKS * t * (3 * FEATURES * FEATURES + FEATURES * FEATURES + 2 * FEATURES * MLP_HIDDEN) +
           NECK_BLOCKS * 2 * t * t * FEATURES;
}

int64_t pm_rec_line_macs(int width_px)
{
    int64_t sum = neck_macs(width_px);
    for (int i = 0; i < PHASES; i++)
        sum += phase_macs(i, width_px);
    return sum;
}

int64_t pm_rec_head_macs(int steps)
{
    return (int64_t)steps * FEATURES * PM_REC_CLASSES;
}

/* ---- neck ---- */

struct neck {
    struct pm_rec *r;
    int t;
    float *pooled, *shortcut, *x, *y, *qkv, *mixed, *hidden;
    const struct neck_block *block;
};

static size_t neck_floats(int t)
{
    return (size_t)t * (POOLED + 8 * FEATURES + MLP_HIDDEN);
}

static size_t attention_floats(int t)
{
    size_t padded = ((size_t)t + PM_PANEL - 1) / PM_PANEL * PM_PANEL;
    return padded * (HEAD_SIZE + 1) + ((size_t)t + 1) * 16 + ATTENTION_ROWS * padded;
}

/* Average pool 3x2 over the whole height; an odd last column is dropped. */
static void pool(const struct pm_fmap *map, int t, float *out)
{
    size_t c = POOLED, row = (size_t)map->width * c;
    for (int i = 0; i < t; i++) {
        const float *in = map->data + (size_t)i * 2 * c;
        for (size_t k = 0; k < c; k++)
            out[(size_t)i * c + k] =
                (in[k] + in[k + c] + in[row + k] + in[row + k + c] + in[2 * row + k] + in[2 * row + k + c]) *
                (1.0f / 6.0f);
    }
}

static void layer_norm(const float *x, int rows, struct vector_pair v, float eps, float *out)
{
    for (int r = 0; r < rows; r++, x += FEATURES, out += FEATURES) {
        float mean = 0, variance = 0;
        for (int i = 0; i < FEATURES; i++)
            mean += x[i];
        mean /= FEATURES;
        for (int i = 0; i < FEATURES; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        float scale = 1.0f / sqrtf(variance / FEATURES + eps);
        for (int i = 0; i < FEATURES; i++)
            out[i] = (x[i] - mean) * scale * v.weight[i] + v.bias[i];
    }
}

/* One attention head: keys and values are packed as the panels of two products, so that scores and sums run
 * in the same kernel as every other layer; scores of ATTENTION_ROWS queries at a time. */
static void attention_head(void *arg, int head, int thread)
{
    struct neck *n = arg;
    const struct pm_net *net = &n->r->net;
    int t = n->t;
    size_t padded = ((size_t)t + PM_PANEL - 1) / PM_PANEL * PM_PANEL;
    float *keys = net->work[thread].data, *values = keys + padded * (HEAD_SIZE + 1);
    float *scores = values + ((size_t)t + 1) * 16;
    const float *q = n->qkv + head * HEAD_SIZE;
    memset(keys, 0, padded * (HEAD_SIZE + 1) * sizeof(float));
    memset(values, 0, ((size_t)t + 1) * 16 * sizeof(float));
    for (int i = 0; i < t; i++) {
        const float *k = q + (size_t)i * 3 * FEATURES + FEATURES, *v = k + FEATURES;
        float *panel = keys + (size_t)(i / PM_PANEL) * PM_PANEL * (HEAD_SIZE + 1);
        int width = pm_panel_width(t, i / PM_PANEL);
        for (int d = 0; d < HEAD_SIZE; d++) {
            panel[(d + 1) * width + i % PM_PANEL] = k[d] * 0.25819889f; /* 1 / sqrt 15 */
            values[(size_t)(i + 1) * 16 + (size_t)d] = v[d];
        }
    }
    struct pm_dense key_layer = {keys, t, 1, HEAD_SIZE}, value_layer = {values, HEAD_SIZE, 1, t};
    for (int begin = 0; begin < t; begin += ATTENTION_ROWS) {
        int rows = t - begin < ATTENTION_ROWS ? t - begin : ATTENTION_ROWS;
        float *out = n->mixed + (size_t)begin * FEATURES + head * HEAD_SIZE, sums[ATTENTION_ROWS];
        pm_dense_rows(net, &key_layer, q + (size_t)begin * 3 * FEATURES, 3 * FEATURES, rows, scores, padded,
                      NULL, 0, PM_ACT_NONE);
        for (int i = 0; i < rows; i++)
            sums[i] = net->kernels->exp_row(scores + (size_t)i * padded, t);
        pm_dense_rows(net, &value_layer, scores, padded, rows, out, FEATURES, NULL, 0, PM_ACT_NONE);
        for (int i = 0; i < rows; i++)
            for (int d = 0; d < HEAD_SIZE; d++)
                out[(size_t)i * FEATURES + (size_t)d] /= sums[i];
    }
}

static void neck_block_run(struct neck *n, const struct neck_block *b)
{
    struct pm_net *net = &n->r->net;
    layer_norm(n->x, n->t, b->norm1, 1e-5f, n->y);
    pm_dense_rows(net, &b->qkv, n->y, FEATURES, n->t, n->qkv, 3 * FEATURES, NULL, 0, PM_ACT_NONE);
    pm_pool_run(net->pool, attention_head, n, HEADS);
    pm_dense_rows(net, &b->proj, n->mixed, FEATURES, n->t, n->x, FEATURES, n->x, FEATURES, PM_ACT_NONE);
    layer_norm(n->x, n->t, b->norm2, 1e-5f, n->y);
    pm_dense_rows(net, &b->fc1, n->y, FEATURES, n->t, n->hidden, MLP_HIDDEN, NULL, 0, PM_ACT_SWISH);
    pm_dense_rows(net, &b->fc2, n->hidden, MLP_HIDDEN, n->t, n->x, FEATURES, n->x, FEATURES, PM_ACT_NONE);
}

static int neck_run(struct pm_rec *r, const float **sequence_out, int *steps_out, struct pm_error *err)
{
    struct pm_net *net = &r->net;
    int t = r->map.width / 2;
    size_t ft = (size_t)t * FEATURES;
    int rc = pm_scratch_need(&r->neck, neck_floats(t), err);
    if (!rc)
        rc = pm_net_need_work(net, attention_floats(t), err);
    if (rc)
        return rc;
    struct neck n = {.r = r, .t = t, .pooled = r->neck.data};
    n.shortcut = n.pooled + (size_t)t * POOLED;
    n.x = n.shortcut + ft;
    n.y = n.x + ft;
    n.mixed = n.y + ft;
    n.qkv = n.mixed + ft;
    n.hidden = n.qkv + 3 * ft;
    pool(&r->map, t, n.pooled);
    pm_net_tap(net, "neck.pool", n.pooled, 1, t, POOLED);
    pm_dense_rows(net, &r->shortcut, n.pooled, POOLED, t, n.shortcut, FEATURES, NULL, 0, PM_ACT_SWISH);
    pm_net_tap(net, "neck.shortcut", n.shortcut, 1, t, FEATURES);
    pm_dense_rows(net, &r->reduce, n.pooled, POOLED, t, n.x, FEATURES, NULL, 0, PM_ACT_SWISH);
    struct pm_fmap x = {n.x, 1, t, FEATURES};
    pm_depthwise_pixels(net, &r->local, &x, t, 0, t, n.y);
    net->kernels->activate(n.y, ft, PM_ACT_SWISH);
    for (size_t i = 0; i < ft; i++)
        n.x[i] += n.y[i];
    pm_net_tap(net, "neck.local", n.x, 1, t, FEATURES);
    for (int i = 0; i < NECK_BLOCKS; i++) {
        neck_block_run(&n, &r->blocks[i]);
        pm_net_tap(net, i ? "neck.block2" : "neck.block1", n.x, 1, t, FEATURES);
    }
    layer_norm(n.x, t, r->norm, 1e-6f, n.y);
    for (size_t i = 0; i < ft; i++)
        n.y[i] += n.shortcut[i];
    pm_net_tap(net, "neck.out", n.y, 1, t, FEATURES);
    *sequence_out = n.y;
    *steps_out = t;
    return 0;
}

/* ---- a line ---- */

int pm_rec_start(struct pm_rec *r, const struct pm_image *line, int padded_width, struct pm_error *err)
{
    if (line->height_px != PM_REC_HEIGHT || (line->channels != 1 && line->channels != 3))
        return pm_fail(err, PM_EINVAL,
                       "a line picture of %d x %d x %d: the recogniser takes %d rows and 1 or 3 channels",
                       line->width_px, line->height_px, line->channels, PM_REC_HEIGHT);
    if (padded_width < line->width_px || padded_width < 8 || line->width_px < 1)
        return pm_fail(err, PM_EINVAL, "a line picture %d px wide: the recogniser takes at least 8",
                       line->width_px);
    if (padded_width > PM_REC_WIDTH_MAX)
        return pm_fail(err, PM_ELIMIT, "a line picture %d px wide: the recogniser takes at most %d; split it",
                       padded_width, PM_REC_WIDTH_MAX);
    /* 12 rows x 96 channels; the later stages halve the rows and double the channels. */
    size_t floats = pm_fmap_floats(12, (padded_width + 3) / 4 + 1, 96);
    int rc = pm_scratch_need(&r->maps[0], floats, err);
    if (!rc)
        rc = pm_scratch_need(&r->maps[1], floats, err);
    r->line = line;
    r->padded_width = padded_width;
    r->phase = 0;
    return rc;
}

static const struct pm_block *block_at(const struct pm_backbone *b, int index, int *stage_out,
                                       int *in_stage_out)
{
    int s = 0;
    while (index >= b->stages[s].count)
        index -= b->stages[s++].count;
    *stage_out = s;
    *in_stage_out = index;
    return &b->stages[s].blocks[index];
}

static int run_phase(struct pm_rec *r, struct pm_error *err)
{
    if (r->phase == 0) {
        r->map.data = r->maps[0].data;
        return pm_stem_run(&r->net, &r->backbone, r->line, r->padded_width, &r->map, err);
    }
    int stage, at;
    const struct pm_block *b = block_at(&r->backbone, r->phase - 1, &stage, &at);
    float *other = r->map.data == r->maps[0].data ? r->maps[1].data : r->maps[0].data;
    struct pm_fmap in = r->map;
    int rc = pm_block_run(&r->net, b, &in, other, &r->map, err);
    if (rc || !r->net.tap.fn)
        return rc;
    char name[48];
    snprintf(name, sizeof name, b->is_down ? "backbone.stage%d.down" : "backbone.stage%d.block%d", stage + 1,
             at + (stage == 0));
    pm_net_tap(&r->net, name, r->map.data, r->map.height, r->map.width, r->map.channels);
    if (at + 1 == r->backbone.stages[stage].count) {
        snprintf(name, sizeof name, "backbone.stage%d", stage + 1);
        pm_net_tap(&r->net, name, r->map.data, r->map.height, r->map.width, r->map.channels);
    }
    return 0;
}

int pm_rec_continue(struct pm_rec *r, int64_t budget_macs, bool *done_out, const float **sequence_out,
                    int *steps_out, struct pm_error *err)
{
    *done_out = false;
    PM_ASSERT(r->line);
    while (r->phase < PHASES) {
        if (budget_macs <= 0)
            return 0;
        int rc = run_phase(r, err);
        if (rc)
            return rc;
        budget_macs -= phase_macs(r->phase, r->padded_width);
        r->phase++;
    }
    int rc = neck_run(r, sequence_out, steps_out, err);
    r->line = NULL;
    *done_out = !rc;
    return rc;
}

int64_t pm_rec_macs_left(const struct pm_rec *r)
{
    int64_t sum = r->line ? neck_macs(r->padded_width) : 0;
    for (int i = r->phase; r->line && i < PHASES; i++)
        sum += phase_macs(i, r->padded_width);
    return sum;
}

void pm_rec_drop(struct pm_rec *r)
{
    r->line = NULL;
}

/* ---- head ---- */

struct head_job {
    struct pm_rec *r;
    const float *sequence;
    int steps, chunk;
    struct pm_ctc_step *out;
};

static void head_rows(void *arg, int job, int thread)
{
    struct head_job *j = arg;
    const struct pm_net *net = &j->r->net;
    const struct pm_dense *d = &j->r->head;
    int begin = job * j->chunk, end = begin + j->chunk < j->steps ? begin + j->chunk : j->steps;
    float *logits = net->work[thread].data;
    struct pm_softmax_lanes *lanes = (struct pm_softmax_lanes *)(void *)(logits + HEAD_ROWS * PM_PANEL);
    pm_softmax_begin(lanes, end - begin);
    for (int p = 0; p * PM_PANEL < d->n; p++)
        for (int row = begin; row < end; row += HEAD_ROWS) {
            int rows = end - row < HEAD_ROWS ? end - row : HEAD_ROWS;
            int columns = d->n - p * PM_PANEL < PM_PANEL ? d->n - p * PM_PANEL : PM_PANEL;
            struct pm_gemm g = {.x = {j->sequence + (size_t)row * FEATURES},
                                .x_stride = FEATURES,
                                .taps = 1,
                                .k = FEATURES,
                                .panel = d->panels + (size_t)p * PM_PANEL * (FEATURES + 1),
                                .width = pm_panel_width(d->n, p),
                                .columns = columns,
                                .rows = rows,
                                .out = logits,
                                .out_stride = PM_PANEL};
            net->kernels->gemm(&g);
            net->kernels->softmax_step(logits, PM_PANEL, rows, columns, p * PM_PANEL, lanes + (row - begin));
        }
    for (int row = begin; row < end; row++)
        pm_softmax_end(&lanes[row - begin], &j->out[row].index, &j->out[row].probability);
}

int pm_rec_head(struct pm_rec *r, const float *sequence, int steps, struct pm_ctc_step *out,
                struct pm_error *err)
{
    struct head_job job = {.r = r, .sequence = sequence, .steps = steps, .out = out};
    int threads = r->net.threads;
    job.chunk = ((steps + threads - 1) / threads + 7) / 8 * 8;
    size_t lanes = sizeof(struct pm_softmax_lanes) / sizeof(float) * (size_t)job.chunk;
    int rc = steps ? pm_net_need_work(&r->net, HEAD_ROWS * PM_PANEL + lanes, err) : 0;
    if (rc || !steps)
        return rc;
    pm_pool_run(r->net.pool, head_rows, &job, (steps + job.chunk - 1) / job.chunk);
    if (!r->net.tap.fn || !r->net.tap.all)
        return 0;
    rc = pm_scratch_need(&r->head_work, (size_t)steps * PM_REC_CLASSES, err);
    if (rc)
        return rc;
    pm_dense_rows(&r->net, &r->head, sequence, FEATURES, steps, r->head_work.data, PM_REC_CLASSES, NULL, 0,
                  PM_ACT_NONE);
    pm_net_tap(&r->net, "logits", r->head_work.data, 1, steps, PM_REC_CLASSES);
    return 0;
}

int pm_rec_run(struct pm_rec *rec, const struct pm_image *lines, size_t count,
               struct pm_ctc_step *const *steps_out, struct pm_error *err)
{
    for (size_t i = 0; i < count; i++) {
        bool done;
        const float *sequence = NULL;
        int steps = 0, rc = pm_rec_start(rec, &lines[i], lines[i].width_px, err);
        if (!rc)
            rc = pm_rec_continue(rec, INT64_MAX, &done, &sequence, &steps, err);
        if (!rc)
            rc = pm_rec_head(rec, sequence, steps, steps_out[i], err);
        if (rc)
            return rc;
    }
    return 0;
}
