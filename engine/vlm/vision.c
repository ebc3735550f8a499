#include "engine/vlm/vision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/vlm/pass.h"

/* The tower runs in sweeps over the rows (patches), a slice of rows at a time:
 *
 *     PATCHES            patch vectors -> stream
 *     for each block:
 *       KEYS             norm, q, k, v of all rows; keys and values go into blocks of 64
 *       ROWS             attention, projection and MLP of a slice: once all keys are there, a row needs only
 *                        itself
 *     MERGE              post norm, downsample, merger: tokens
 *
 * Per row only the stream, q, k and v are kept; everything wider lives for one slice. */
enum sweep { SWEEP_PATCHES, SWEEP_KEYS, SWEEP_ROWS, SWEEP_MERGE, SWEEP_DONE };

enum {
    SLICE_ROWS = 288,  /* most rows of a slice: bounds the scratch; whole tiles of products and attention */
    MIN_ROWS = 32,     /* fewer are not worth a pass over the weights */
    ROWS_PER_JOB = 16, /* of norms and gates; keys of 16 rows fill whole cache lines of their blocks */
    TILE_ROWS = 96,    /* query rows of one attention call */
};

struct pm_vision {
    const struct pm_vlm_model *model;
    const struct pm_kernels *kernels;
    const struct pm_lm_kernels *lm;
    struct pm_pool *pool;
    pm_probe probe;
    void *probe_ctx;
    int64_t (*clock)(void);
    int64_t spent[PM_VISION_PHASES];
    size_t act_bytes;
    int slice_rows; /* most rows of a slice, a multiple of merge^2 */
    /* Where the work stands */
    enum sweep sweep;
    int block, row;
    /* The picture */
    int grid_rows, grid_columns, patches, tokens, key_blocks;
    size_t key_bytes, value_bytes; /* of one block */
    /* Memory of the picture, kept for the next one when large enough */
    uint8_t *memory;
    size_t memory_bytes;
    float *stream;  /* [patches, hidden] */
    float *out;     /* [tokens, out_hidden] */
    uint8_t *input; /* [patches, patch values, even]: only until the first block, in the place of q, k, v */
    uint8_t *query; /* [patches, hidden] */
    uint8_t *keys;  /* [heads, key_blocks] blocks */
    uint8_t *values;
    float *cosines, *sines; /* [longer side, head_dim / 4]: a row's and a column's share of the angles */
    int32_t *limits;        /* [TILE_ROWS]: all patches */
    const void **pointers;  /* [heads, 2, key_blocks] */
    /* Scratch of a slice, made once */
    size_t act_stride, wide_stride, turned_stride;
    uint8_t *act, *act2;
    float *wide;   /* [slice_rows, wide_stride] */
    float *turned; /* [threads, ROWS_PER_JOB, turned_stride]: queries and keys */
};

static size_t even(size_t n)
{
    return n + (n & 1);
}

/* Values of a row rounded up to an odd number of cache lines: rows that lie a page apart would meet in the
 * same places of the caches. */
static size_t spread(size_t n, size_t value_bytes)
{
    size_t lines = (n * value_bytes + 63) / 64;
    return (lines | 1) * 64 / value_bytes;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static size_t patch_values(const struct pm_vision_config *c)
{
    return (size_t)c->in_channels * (size_t)c->temporal * (size_t)c->patch * (size_t)c->patch;
}

/* ---- memory ---- */

struct pm_vision *pm_vision_new(const struct pm_vlm_model *model, const struct pm_kernels *kernels,
                                struct pm_pool *pool)
{
    const struct pm_vision_config *c = &model->config.vision;
    struct pm_vision *v = pm_xalloc(sizeof *v);
    v->model = model;
    v->kernels = kernels;
    v->lm = pm_precision_is_bf16(model->precision) ? kernels->bf16 : kernels->f32;
    v->pool = pool;
    v->sweep = SWEEP_DONE;
    v->act_bytes = pm_activation_bytes(model->precision);
    v->key_bytes = pm_key_block_bytes(c->head_dim, pm_precision_is_bf16(model->precision));
    v->value_bytes = pm_value_block_bytes(c->head_dim, pm_precision_is_bf16(model->precision));
    size_t area = (size_t)c->merge * (size_t)c->merge, hidden = (size_t)c->hidden;
    size_t merged = max_size((size_t)c->out_hidden, (size_t)c->merger_intermediate);
    v->slice_rows = (int)(max_size(SLICE_ROWS / area, 1) * area);
    /* A merged row stands for merge^2 rows, so its scratch always fits when a row's does. */
    v->act_stride = spread(max_size(max_size(hidden, (size_t)c->intermediate), merged), v->act_bytes);
    v->wide_stride =
        spread(max_size(max_size(3 * hidden, 2 * (size_t)c->intermediate), 2 * merged), sizeof(float));
    v->turned_stride = spread(2 * hidden, sizeof(float));
    size_t rows = (size_t)v->slice_rows, threads = (size_t)pm_pool_threads(pool);
    void *act, *act2, *wide, *turned;
    int rc = pm_alloc_array(rows * v->act_stride, v->act_bytes, &act, NULL);
    rc |= pm_alloc_array(rows * v->act_stride, v->act_bytes, &act2, NULL);
    rc |= pm_alloc_array(rows * v->wide_stride, sizeof(float), &wide, NULL);
    rc |= pm_alloc_array(threads * ROWS_PER_JOB * v->turned_stride, sizeof(float), &turned, NULL);
    v->act = act;
    v->act2 = act2;
    v->wide = wide;
    v->turned = turned;
    v->limits = pm_xalloc(TILE_ROWS * sizeof *v->limits);
    if (rc)
        pm_vision_free(&v);
    return v;
}

void pm_vision_free(struct pm_vision **vision)
{
    struct pm_vision *v = *vision;
    if (!v)
        return;
    free(v->memory);
    free(v->act);
    free(v->act2);
    free(v->wide);
    free(v->turned);
    free(v->limits);
    free(v);
    *vision = NULL;
}

void pm_vision_set_probe(struct pm_vision *v, pm_probe probe, void *ctx)
{
    v->probe = probe;
    v->probe_ctx = ctx;
}

void pm_vision_set_clock(struct pm_vision *v, int64_t (*clock)(void))
{
    v->clock = clock;
    memset(v->spent, 0, sizeof v->spent);
}

const int64_t *pm_vision_spent(const struct pm_vision *v)
{
    return v->spent;
}

/* Jobs of one phase on all threads. */
static void run_phase(struct pm_vision *v, enum pm_vision_phase phase, void (*fn)(void *, int, int),
                      void *arg, int jobs)
{
    int64_t start = v->clock ? v->clock() : 0;
    pm_pool_run(v->pool, fn, arg, jobs);
    if (v->clock)
        v->spent[phase] += v->clock() - start;
}

/* Sizes of the parts of a picture's memory. longer_side bounds the table of angles. */
struct parts {
    size_t stream, out, qkv, query, keys, values, angles, pointers, total;
};

static struct parts size_parts(const struct pm_vlm_model *model, size_t patches, size_t longer_side)
{
    const struct pm_vision_config *c = &model->config.vision;
    bool is_bf16 = pm_precision_is_bf16(model->precision);
    size_t act = pm_activation_bytes(model->precision), heads = (size_t)c->heads, hidden = (size_t)c->hidden;
    size_t blocks = (patches + PM_ATTENTION_BLOCK - 1) / PM_ATTENTION_BLOCK;
    size_t tokens = patches / ((size_t)c->merge * (size_t)c->merge);
    struct parts p;
    p.stream = aligned(patches * hidden * sizeof(float));
    p.out = aligned(tokens * (size_t)c->out_hidden * sizeof(float));
    p.query = aligned(patches * hidden * act);
    p.keys = aligned(heads * blocks * pm_key_block_bytes(c->head_dim, is_bf16));
    p.values = aligned(heads * blocks * pm_value_block_bytes(c->head_dim, is_bf16));
    p.qkv = max_size(p.query + p.keys + p.values, aligned(patches * even(patch_values(c)) * act));
    p.angles = aligned(longer_side * (size_t)c->head_dim / 4 * sizeof(float));
    p.pointers = aligned(heads * 2 * blocks * sizeof(void *));
    p.total = p.stream + p.out + p.qkv + 2 * p.angles + p.pointers;
    return p;
}

size_t pm_vision_bytes(const struct pm_vlm_model *model, int64_t patches)
{
    return size_parts(model, (size_t)patches, (size_t)patches).total;
}

static void lay_out(struct pm_vision *v, const struct parts *p)
{
    uint8_t *at = v->memory;
    v->stream = (float *)at;
    v->out = (float *)(at += p->stream);
    v->input = at += p->out;
    v->query = v->input;
    v->keys = v->query + p->query;
    v->values = v->keys + p->keys;
    v->cosines = (float *)(at += p->qkv);
    v->sines = (float *)(at += p->angles);
    v->pointers = (const void **)(at + p->angles);
}

/* ---- begin ---- */

static void set_angles(struct pm_vision *v, int longer_side)
{
    const struct pm_vision_config *c = &v->model->config.vision;
    float frequencies[PM_HEAD_DIM_MAX / 4];
    int n = c->head_dim / 4;
    pm_vlm_frequencies(c->rope_theta, c->head_dim / 2, frequencies);
    for (int position = 0; position < longer_side; position++)
        for (int i = 0; i < n; i++) {
            size_t at = (size_t)position * (size_t)n + (size_t)i;
            pm_vlm_angle(position, frequencies[i], &v->cosines[at], &v->sines[at]);
        }
}

static void set_pointers(struct pm_vision *v)
{
    size_t blocks = (size_t)v->key_blocks;
    for (size_t head = 0; head < (size_t)v->model->config.vision.heads; head++)
        for (size_t i = 0; i < blocks; i++) {
            v->pointers[head * 2 * blocks + i] = v->keys + (head * blocks + i) * v->key_bytes;
            v->pointers[(head * 2 + 1) * blocks + i] = v->values + (head * blocks + i) * v->value_bytes;
        }
}

int pm_vision_begin(struct pm_vision *v, const struct pm_patches *patches, struct pm_error *err)
{
    const struct pm_vision_config *c = &v->model->config.vision;
    v->sweep = SWEEP_DONE;
    v->tokens = 0;
    int64_t count = (int64_t)patches->rows * patches->columns;
    if (patches->rows < 1 || patches->columns < 1 || patches->rows % c->merge ||
        patches->columns % c->merge || count > PM_VLM_LIMIT_POSITIONS)
        return pm_fail(err, PM_EINVAL,
                       "a grid of %d x %d patches: both sides must be multiples of %d, %d patches "
                       "at most",
                       patches->columns, patches->rows, c->merge, PM_VLM_LIMIT_POSITIONS);
    int longer_side = patches->rows > patches->columns ? patches->rows : patches->columns;
    struct parts p = size_parts(v->model, (size_t)count, (size_t)longer_side);
    if (p.total > v->memory_bytes) {
        free(v->memory);
        v->memory_bytes = 0;
        void *memory;
        int rc = pm_alloc_array(p.total, 1, &memory, err);
        v->memory = memory;
        if (rc)
            return pm_fail_prefix(err, "a picture of %d x %d patches", patches->columns, patches->rows);
        v->memory_bytes = p.total;
    }
    v->grid_rows = patches->rows;
    v->grid_columns = patches->columns;
    v->patches = (int)count;
    v->tokens = v->patches / (c->merge * c->merge);
    v->key_blocks = (v->patches + PM_ATTENTION_BLOCK - 1) / PM_ATTENTION_BLOCK;
    lay_out(v, &p);
    set_angles(v, longer_side);
    set_pointers(v);
    for (int i = 0; i < TILE_ROWS; i++)
        v->limits[i] = v->patches;
    size_t n = patch_values(c);
    v->lm->convert(patches->values, n, v->patches, (int)n, v->input, even(n));
    v->sweep = SWEEP_PATCHES;
    v->block = v->row = 0;
    return 0;
}

/* ---- work on a slice ---- */

struct slice {
    struct pm_vision *v;
    int first, count; /* rows, or merged rows */
    /* of row work */
    enum { WORK_NORM, WORK_GATE, WORK_MERGED_NORM } kind;
    const float *weight;
    int n; /* values of a row of the result */
};

static void *act_row(uint8_t *act, const struct pm_vision *v, int row, size_t stride)
{
    return act + (size_t)row * stride * v->act_bytes;
}

static void do_rows(void *arg, int job, int thread)
{
    (void)thread;
    const struct slice *s = arg;
    struct pm_vision *v = s->v;
    const struct pm_vision_config *c = &v->model->config.vision;
    int first = job * ROWS_PER_JOB, rows = s->count - first < ROWS_PER_JOB ? s->count - first : ROWS_PER_JOB;
    size_t n = (size_t)s->n;
    float *wide = v->wide + (size_t)first * v->wide_stride;
    switch (s->kind) {
    case WORK_NORM:
        v->lm->rms_norm(v->stream + (size_t)(s->first + first) * n, n, rows, s->n, s->weight, c->rms_eps,
                        act_row(v->act, v, first, v->act_stride), v->act_stride);
        break;
    case WORK_GATE:
        v->lm->gate(wide, v->wide_stride, rows, s->n, act_row(v->act, v, first, v->act_stride),
                    v->act_stride);
        break;
    case WORK_MERGED_NORM:
        v->kernels->layer_norm(wide, v->wide_stride, rows, s->n, v->model->vision.merger_norm,
                               v->model->vision.merger_norm_bias, c->layer_norm_eps);
        for (int r = 0; r < rows; r++)
            v->kernels->activate(wide + (size_t)r * v->wide_stride, n, PM_ACT_GELU);
        v->lm->convert(wide, v->wide_stride, rows, s->n, act_row(v->act, v, first, v->act_stride),
                       v->act_stride);
        break;
    }
}

static void run_rows(struct slice s)
{
    run_phase(s.v, s.kind == WORK_GATE ? PM_VISION_GATES : PM_VISION_NORMS, do_rows, &s,
              (s.count + ROWS_PER_JOB - 1) / ROWS_PER_JOB);
}

static void run_linear(struct pm_vision *v, const struct pm_linear *linear, const void *x, size_t x_stride,
                       int rows, float *out, size_t out_stride, enum pm_linear_mode mode)
{
    int64_t start = v->clock ? v->clock() : 0;
    pm_linear_run(linear, v->kernels, v->pool, x, x_stride, rows, out, out_stride, mode);
    if (v->clock)
        v->spent[PM_VISION_LINEARS] += v->clock() - start;
}

/* ---- queries, keys, values ---- */

/* Row and column of a patch: patches come in merge x merge squares, squares row by row. */
static void locate(const struct pm_vision *v, int patch, int *row_out, int *column_out)
{
    int merge = v->model->config.vision.merge, area = merge * merge;
    int square = patch / area, inside = patch % area, squares = v->grid_columns / merge;
    *row_out = square / squares * merge + inside / merge;
    *column_out = square % squares * merge + inside % merge;
}

/* Norm and rotation of one row's queries and keys. */
static void turn_row(const struct pm_vision *v, int patch, const float *row, float *turned)
{
    const struct pm_vision_config *c = &v->model->config.vision;
    const struct pm_vision_layer *layer = &v->model->vision.layers[v->block];
    size_t hidden = (size_t)c->hidden, quarter = (size_t)c->head_dim / 4, dim = (size_t)c->head_dim;
    float cosines[PM_HEAD_DIM_MAX / 2], sines[PM_HEAD_DIM_MAX / 2];
    int place[2];
    locate(v, patch, &place[0], &place[1]);
    for (int axis = 0; axis < 2; axis++) {
        size_t from = (size_t)place[axis] * quarter, to = (size_t)axis * quarter;
        memcpy(cosines + to, v->cosines + from, quarter * sizeof *cosines);
        memcpy(sines + to, v->sines + from, quarter * sizeof *sines);
    }
    if (layer->q_norm) {
        v->kernels->f32->rms_norm(row, dim, c->heads, c->head_dim, layer->q_norm, c->rms_eps, turned, dim);
        v->kernels->f32->rms_norm(row + hidden, dim, c->heads, c->head_dim, layer->k_norm, c->rms_eps,
                                  turned + hidden, dim);
    } else {
        memcpy(turned, row, 2 * hidden * sizeof *turned);
    }
    (c->rope_pairs == PM_ROPE_INTERLEAVED ? v->kernels->rope_interleaved : v->kernels->rope_half_split)(
        turned, 2 * c->heads, c->head_dim, c->head_dim / 2, cosines, sines);
}

/* Keys and values of rows [first, first + count) of the picture into their blocks, all heads. */
static void put_rows(const struct pm_vision *v, int first, int count, const float *keys, const float *values)
{
    const struct pm_vision_config *c = &v->model->config.vision;
    size_t dim = (size_t)c->head_dim;
    int slot = first / PM_ATTENTION_BLOCK, at = first % PM_ATTENTION_BLOCK;
    for (int head = 0; head < c->heads; head++, keys += dim, values += dim) {
        size_t block = (size_t)head * (size_t)v->key_blocks + (size_t)slot;
        v->lm->put_keys(keys, v->turned_stride, count, c->head_dim, at, v->keys + block * v->key_bytes);
        v->lm->put_values(values, v->wide_stride, count, c->head_dim, at, v->values + block * v->value_bytes);
    }
}

/* Queries, keys and values of some rows of a slice go to their places. */
static void do_turn(void *arg, int job, int thread)
{
    const struct slice *s = arg;
    struct pm_vision *v = s->v;
    size_t hidden = (size_t)v->model->config.vision.hidden;
    float *turned = v->turned + (size_t)thread * ROWS_PER_JOB * v->turned_stride;
    int first = job * ROWS_PER_JOB, count = s->count - first < ROWS_PER_JOB ? s->count - first : ROWS_PER_JOB;
    const float *rows = v->wide + (size_t)first * v->wide_stride;
    for (int r = 0; r < count; r++)
        turn_row(v, s->first + first + r, rows + (size_t)r * v->wide_stride,
                 turned + (size_t)r * v->turned_stride);
    v->lm->convert(turned, v->turned_stride, count, (int)hidden,
                   act_row(v->query, v, s->first + first, hidden), hidden);
    for (int done = 0, n; done < count; done += n) {
        int slot = s->first + first + done, left = PM_ATTENTION_BLOCK - slot % PM_ATTENTION_BLOCK;
        n = count - done < left ? count - done : left;
        put_rows(v, slot, n, turned + (size_t)done * v->turned_stride + hidden,
                 rows + (size_t)done * v->wide_stride + 2 * hidden);
    }
}

static void run_keys(struct slice s)
{
    struct pm_vision *v = s.v;
    const struct pm_vision_config *c = &v->model->config.vision;
    const struct pm_vision_layer *layer = &v->model->vision.layers[v->block];
    s.kind = WORK_NORM;
    s.weight = layer->norm1;
    s.n = c->hidden;
    run_rows(s);
    run_linear(v, &layer->qkv, v->act, v->act_stride, s.count, v->wide, v->wide_stride, PM_LINEAR_STORE);
    run_phase(v, PM_VISION_TURN, do_turn, &s, (s.count + ROWS_PER_JOB - 1) / ROWS_PER_JOB);
}

/* ---- attention and MLP ---- */

static void do_attend(void *arg, int job, int thread)
{
    (void)thread;
    const struct slice *s = arg;
    struct pm_vision *v = s->v;
    const struct pm_vision_config *c = &v->model->config.vision;
    int tiles = (s->count + TILE_ROWS - 1) / TILE_ROWS;
    int head = job / tiles, first = job % tiles * TILE_ROWS; /* a head's keys stay in the cache */
    size_t hidden = (size_t)c->hidden, column = (size_t)head * (size_t)c->head_dim * v->act_bytes;
    const void **keys = v->pointers + (size_t)head * 2 * (size_t)v->key_blocks;
    v->lm->attend(&(struct pm_attention){
        .q = (uint8_t *)act_row(v->query, v, s->first + first, hidden) + column,
        .q_stride = hidden,
        .rows = s->count - first < TILE_ROWS ? s->count - first : TILE_ROWS,
        .dim = c->head_dim,
        .scale = 1.0f / sqrtf((float)c->head_dim),
        .keys = keys,
        .values = keys + v->key_blocks,
        .limits = v->limits,
        .out = (uint8_t *)act_row(v->act, v, first, v->act_stride) + column,
        .out_stride = v->act_stride,
    });
}

static void run_block_rows(struct slice s)
{
    struct pm_vision *v = s.v;
    const struct pm_vision_config *c = &v->model->config.vision;
    const struct pm_vision_layer *layer = &v->model->vision.layers[v->block];
    float *stream = v->stream + (size_t)s.first * (size_t)c->hidden;
    int tiles = (s.count + TILE_ROWS - 1) / TILE_ROWS;
    run_phase(v, PM_VISION_ATTENTION, do_attend, &s, tiles * c->heads);
    run_linear(v, &layer->proj, v->act, v->act_stride, s.count, stream, (size_t)c->hidden, PM_LINEAR_ADD);
    s.kind = WORK_NORM;
    s.weight = layer->norm2;
    s.n = c->hidden;
    run_rows(s);
    run_linear(v, &layer->gate_up, v->act, v->act_stride, s.count, v->wide, v->wide_stride, PM_LINEAR_STORE);
    s.kind = WORK_GATE;
    s.n = c->intermediate;
    run_rows(s);
    run_linear(v, &layer->down, v->act, v->act_stride, s.count, stream, (size_t)c->hidden, PM_LINEAR_ADD);
}

/* ---- merger ---- */

static void probe(const struct pm_vision *v, const char *name, const float *values, int rows, int columns)
{
    if (v->probe)
        v->probe(v->probe_ctx, name, values, rows, columns);
}

static void probe_slice(const struct pm_vision *v, const char *name, const float *values, size_t stride,
                        int rows, int columns)
{
    if (v->probe)
        for (int r = 0; r < rows; r++)
            probe(v, name, values + (size_t)r * stride, 1, columns);
}

static void run_merge(struct slice s)
{
    struct pm_vision *v = s.v;
    const struct pm_vlm_model *m = v->model;
    const struct pm_vision_config *c = &m->config.vision;
    int area = c->merge * c->merge, rows = s.count / area;
    size_t hidden = (size_t)c->hidden, out = (size_t)c->out_hidden;
    float *stream = v->stream + (size_t)s.first * hidden;
    /* In place where rows lie side by side, so that the rows of a square are one input of the product. */
    if (m->vision.post_norm) {
        v->kernels->f32->rms_norm(stream, hidden, s.count, c->hidden, m->vision.post_norm, c->rms_eps,
                                  v->wide, hidden);
        memcpy(stream, v->wide, (size_t)s.count * hidden * sizeof *stream);
    }
    probe(v, "vision.post_layernorm", stream, s.count, c->hidden);
    v->lm->convert(stream, hidden, s.count, c->hidden, v->act2, hidden);
    run_linear(v, &m->vision.downsample, v->act2, (size_t)area * hidden, rows, v->wide, v->wide_stride,
               PM_LINEAR_STORE);
    probe_slice(v, "vision.downsample", v->wide, v->wide_stride, rows, c->out_hidden);
    v->lm->convert(v->wide, v->wide_stride, rows, c->out_hidden, v->act, v->act_stride);
    run_linear(v, &m->vision.merger_proj, v->act, v->act_stride, rows, v->wide, v->wide_stride,
               PM_LINEAR_STORE);
    s.kind = WORK_MERGED_NORM;
    s.n = c->out_hidden;
    s.count = rows;
    run_rows(s);
    run_linear(v, &m->vision.merger_gate_up, v->act, v->act_stride, rows, v->wide, v->wide_stride,
               PM_LINEAR_STORE);
    s.kind = WORK_GATE;
    s.n = c->merger_intermediate;
    run_rows(s);
    run_linear(v, &m->vision.merger_down, v->act, v->act_stride, rows,
               v->out + (size_t)(s.first / area) * out, out, PM_LINEAR_STORE);
}

/* ---- sweeps ---- */

/* Multiply-adds of one row of the present sweep. */
static int64_t row_macs(const struct pm_vision *v)
{
    const struct pm_vision_config *c = &v->model->config.vision;
    int64_t hidden = c->hidden, out = c->out_hidden, area = (int64_t)c->merge * c->merge;
    switch (v->sweep) {
    case SWEEP_PATCHES:
        return hidden * (int64_t)patch_values(c);
    case SWEEP_KEYS:
        return hidden * 3 * hidden;
    case SWEEP_ROWS:
        return hidden * (hidden + 3 * (int64_t)c->intermediate + 2 * (int64_t)v->patches);
    case SWEEP_MERGE:
        return hidden * out + out * (out + 3 * (int64_t)c->merger_intermediate) / area;
    case SWEEP_DONE:
        break;
    }
    return 1;
}

static void run_slice(struct pm_vision *v, int count)
{
    const struct pm_vision_config *c = &v->model->config.vision;
    struct slice s = {.v = v, .first = v->row, .count = count};
    size_t n = even(patch_values(c)), hidden = (size_t)c->hidden;
    switch (v->sweep) {
    case SWEEP_PATCHES:
        run_linear(v, &v->model->vision.patch, act_row(v->input, v, s.first, n), n, count,
                   v->stream + (size_t)s.first * hidden, hidden, PM_LINEAR_STORE);
        break;
    case SWEEP_KEYS:
        run_keys(s);
        break;
    case SWEEP_ROWS:
        run_block_rows(s);
        break;
    case SWEEP_MERGE:
        run_merge(s);
        break;
    case SWEEP_DONE:
        break;
    }
}

/* After the last row of a sweep. */
static void next_sweep(struct pm_vision *v)
{
    const struct pm_vision_config *c = &v->model->config.vision;
    char name[32];
    v->row = 0;
    switch (v->sweep) {
    case SWEEP_PATCHES:
        probe(v, "vision.patch_embed", v->stream, v->patches, c->hidden);
        /* Keys and values lie where the patches were: slots after the last patch must hold finite values. */
        memset(v->keys, 0, (size_t)c->heads * (size_t)v->key_blocks * v->key_bytes);
        memset(v->values, 0, (size_t)c->heads * (size_t)v->key_blocks * v->value_bytes);
        v->sweep = c->depth > 0 ? SWEEP_KEYS : SWEEP_MERGE;
        break;
    case SWEEP_KEYS:
        v->sweep = SWEEP_ROWS;
        break;
    case SWEEP_ROWS:
        snprintf(name, sizeof name, "vision.blocks.%d", v->block);
        probe(v, name, v->stream, v->patches, c->hidden);
        v->block++;
        v->sweep = v->block < c->depth ? SWEEP_KEYS : SWEEP_MERGE;
        break;
    case SWEEP_MERGE:
        probe(v, "vision.merger", v->out, v->tokens, c->out_hidden);
        v->sweep = SWEEP_DONE;
        break;
    case SWEEP_DONE:
        break;
    }
}

bool pm_vision_step(struct pm_vision *v, int64_t max_macs)
{
    int area = v->model->config.vision.merge * v->model->config.vision.merge;
    bool is_first = true;
    while (v->sweep != SWEEP_DONE && max_macs > 0) {
        int64_t cost = row_macs(v), rows = max_macs / cost, left = v->patches - v->row;
        /* A few rows take nearly as long as many, for the weights: what is left of the slice is left. */
        if (!is_first && 2 * rows < (left < v->slice_rows ? left : v->slice_rows))
            break;
        is_first = false;
        rows = rows < MIN_ROWS ? MIN_ROWS : rows > v->slice_rows ? v->slice_rows : rows;
        rows = (rows + area - 1) / area * area; /* squares stay whole */
        rows = rows > v->slice_rows ? v->slice_rows : rows;
        int count = rows < v->patches - v->row ? (int)rows : v->patches - v->row;
        run_slice(v, count);
        max_macs -= cost * count;
        v->row += count;
        if (v->row == v->patches)
            next_sweep(v);
    }
    return v->sweep == SWEEP_DONE;
}

const float *pm_vision_tokens(const struct pm_vision *v, int *count_out)
{
    PM_ASSERT(v->sweep == SWEEP_DONE);
    *count_out = v->tokens;
    return v->out;
}
