#include "engine/vlm/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kernels/kv8.h"

enum {
    ROWS_PER_JOB = 16, /* of norms and gates */
    TILE_ROWS = 64,    /* query rows x heads of one attention call, about */
    FEW_ROWS = 16,     /* with no more of each, heads of a tile share a job and read what lies together */
};

/* Rows [first, first + count) of one sequence; as a segment all of them, as a tile some that attend in one
 * call. */
struct span {
    const struct pm_kv *kv;
    int first, count;
};

/* Attention of key/value heads [head, head + heads) of a tile. */
struct attention_job {
    int tile, head, heads;
};

struct pm_pass {
    const struct pm_vlm_model *model;
    const struct pm_kernels *kernels;
    const struct pm_lm_kernels *lm;
    const struct pm_kv8_kernels *kv8; /* NULL: the cache holds what attention reads */
    struct pm_pool *pool;
    struct pm_kv_pool *kv_pool;
    int max_rows, count;
    int group; /* query heads of a key/value head */
    int pairs, tile_rows;
    size_t act_bytes, act_stride, wide_stride;
    /* Of the rows */
    struct span *segments, *tiles;
    int segment_count, tile_count;
    struct attention_job *jobs; /* [max_rows * kv_heads] */
    int job_count;
    int *slots;
    int32_t *limits; /* [max_rows * group]: what each query row sees */
    int *logit_rows; /* [max_rows]: index among the rows with logits, -1 */
    int logit_count;
    float *cosines, *sines; /* [max_rows, pairs] */
    float frequencies[PM_HEAD_DIM_MAX / 2];
    /* Scratch */
    float *stream;       /* [max_rows, hidden] */
    uint8_t *act;        /* [max_rows, act_stride] */
    float *wide;         /* [max_rows, wide_stride]: q, k, v; or gate, up */
    float *branch;       /* [max_rows, hidden] */
    uint8_t *query;      /* [kv_heads, max_rows, group, head_dim]: rows of one attention call side by side */
    uint8_t *attended;   /* [threads, tile_rows * group or FEW_ROWS * kv_heads, head_dim] */
    float *hidden;       /* [max_rows, hidden] */
    const void **blocks; /* [threads, 2 * block_capacity] */
    int block_capacity;
    uint8_t *expanded; /* kv8: [threads, block_capacity], a key and a value block each */
    size_t expanded_key_bytes, expanded_bytes;
    float *logits; /* [logit_capacity, vocab] */
    int logit_capacity;
};

/* ---- opening ---- */

static int even(int n)
{
    return n + (n & 1);
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

void pm_vlm_frequencies(float theta, int n, float *out)
{
    for (int i = 0; i < n / 2; i++) {
        float exponent = (float)(2 * i) / (float)n;
        out[i] = 1.0f / (float)pow((double)theta, (double)exponent);
    }
}

void pm_vlm_angle(int32_t position, float frequency, float *cosine_out, float *sine_out)
{
    float angle = (float)position * frequency;
    *cosine_out = (float)cos((double)angle);
    *sine_out = (float)sin((double)angle);
}

/* Most rows, of one head or several, that a job attends for. */
static size_t attended_rows(const struct pm_pass *p)
{
    return (size_t)max_int(p->tile_rows * p->group, FEW_ROWS * p->model->config.text.kv_heads);
}

static int allocate(struct pm_pass *p)
{
    const struct pm_text_config *c = &p->model->config.text;
    size_t rows = (size_t)p->max_rows, threads = (size_t)pm_pool_threads(p->pool), hidden = (size_t)c->hidden;
    size_t heads_width = (size_t)c->heads * (size_t)c->head_dim;
    size_t tile = attended_rows(p) * (size_t)c->head_dim;
    struct {
        void *out;
        size_t count, size;
    } wanted[] = {
        {&p->segments, rows, sizeof *p->segments},
        {&p->tiles, rows, sizeof *p->tiles},
        {&p->jobs, rows * (size_t)c->kv_heads, sizeof *p->jobs},
        {&p->slots, rows, sizeof *p->slots},
        {&p->limits, rows * (size_t)p->group, sizeof *p->limits},
        {&p->logit_rows, rows, sizeof *p->logit_rows},
        {&p->cosines, rows * (size_t)p->pairs, sizeof(float)},
        {&p->sines, rows * (size_t)p->pairs, sizeof(float)},
        {&p->stream, rows * hidden, sizeof(float)},
        {&p->act, rows * p->act_stride, p->act_bytes},
        {&p->wide, rows * p->wide_stride, sizeof(float)},
        {&p->branch, rows * hidden, sizeof(float)},
        {&p->query, rows * heads_width, p->act_bytes},
        {&p->attended, threads * tile, p->act_bytes},
        {&p->hidden, rows * hidden, sizeof(float)},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *memory;
        int rc = pm_alloc_array(wanted[i].count, wanted[i].size, &memory, NULL);
        if (rc)
            return rc;
        memcpy(wanted[i].out, &memory, sizeof memory);
    }
    memset(p->act, 0, rows * p->act_stride * p->act_bytes);
    return 0;
}

struct pm_pass *pm_pass_new(const struct pm_vlm_model *model, const struct pm_kernels *kernels,
                            struct pm_pool *pool, struct pm_kv_pool *kv_pool, int max_rows, int act_width)
{
    PM_ASSERT(max_rows >= 1);
    const struct pm_text_config *c = &model->config.text;
    struct pm_pass *p = pm_xalloc(sizeof *p);
    p->model = model;
    p->kernels = kernels;
    p->lm = pm_precision_is_bf16(model->precision) ? kernels->bf16 : kernels->f32;
    p->pool = pool;
    p->kv_pool = kv_pool;
    if (pm_kv_pool_format(kv_pool) == PM_KV_INT8) {
        p->kv8 = pm_kv8_get(kernels);
        p->expanded_key_bytes = pm_key_block_bytes(c->head_dim, true);
        p->expanded_bytes = p->expanded_key_bytes + pm_value_block_bytes(c->head_dim, true);
    }
    p->max_rows = max_rows;
    p->group = c->heads / c->kv_heads;
    p->pairs = c->rotary_dim / 2;
    p->tile_rows = max_int(1, TILE_ROWS / p->group);
    p->act_bytes = pm_activation_bytes(model->precision);
    int q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    int act = max_int(max_int(c->hidden, c->intermediate), max_int(q, act_width));
    p->act_stride = (size_t)even(act);
    p->wide_stride = (size_t)max_int(q + 2 * kv, 2 * c->intermediate);
    pm_vlm_frequencies(c->rope_theta, c->rotary_dim, p->frequencies);
    if (allocate(p))
        pm_pass_free(&p);
    return p;
}

void pm_pass_free(struct pm_pass **pass)
{
    struct pm_pass *p = *pass;
    if (!p)
        return;
    void *owned[] = {p->segments, p->tiles,    p->jobs,   p->slots,  p->limits, p->logit_rows,
                     p->cosines,  p->sines,    p->stream, p->act,    p->wide,   p->branch,
                     p->query,    p->attended, p->hidden, p->blocks, p->logits, p->expanded};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
    free(p);
    *pass = NULL;
}

/* ---- rows ---- */

static int check_row(const struct pm_pass_row *row, int index, struct pm_error *err)
{
    if (row->slot < 0 || row->slot / PM_KV_PAGE_TOKENS >= row->kv->page_count)
        return pm_fail(err, PM_EINVAL, "row %d is slot %d, but its sequence has room for %d tokens", index,
                       row->slot, row->kv->page_count * PM_KV_PAGE_TOKENS);
    for (int i = 0; i < 3; i++)
        if (row->position[i] < 0 || row->position[i] > PM_VLM_LIMIT_POSITIONS)
            return pm_fail(err, PM_EINVAL, "row %d has position %d, outside 0..%d", index, row->position[i],
                           PM_VLM_LIMIT_POSITIONS);
    return 0;
}

/* Cuts the rows into segments and tiles. */
static int cut_rows(struct pm_pass *p, const struct pm_pass_row *rows, struct pm_error *err)
{
    p->segment_count = p->tile_count = 0;
    for (int first = 0, end; first < p->count; first = end) {
        const struct pm_kv *kv = rows[first].kv;
        for (end = first; end < p->count && rows[end].kv == kv; end++)
            if (rows[end].slot != rows[first].slot + (end - first))
                return pm_fail(err, PM_EINVAL,
                               "row %d is slot %d, but the row before it is slot %d of the sequence", end,
                               rows[end].slot, rows[end - 1].slot);
        for (int s = 0; s < p->segment_count; s++)
            if (p->segments[s].kv == kv)
                return pm_fail(err, PM_EINVAL, "rows %d and %d are of one sequence but do not stand together",
                               p->segments[s].first, first);
        p->segments[p->segment_count++] = (struct span){kv, first, end - first};
        for (int r = first; r < end; r += p->tile_rows)
            p->tiles[p->tile_count++] = (struct span){kv, r, end - r < p->tile_rows ? end - r : p->tile_rows};
    }
    return 0;
}

/* Heads of a tile of few rows that one job takes: keys of all heads lie together on a page, and then their
 * values, so more heads are longer runs of memory; but every thread needs work, and about as much. */
static int heads_together(const struct pm_pass *p, int tiles)
{
    int kv_heads = p->model->config.text.kv_heads, heads = kv_heads, threads = pm_pool_threads(p->pool);
    if (p->kv8)
        return 1;
    while (heads > 1 && tiles * ((kv_heads - 1) / heads + 1) < threads)
        heads = (heads + 1) / 2;
    if (heads > 2 && tiles * ((kv_heads - 1) / heads + 1) % threads && tiles < 4 * threads)
        heads = (heads + 1) / 2;
    return heads;
}

/* Cuts the tiles into jobs. */
static void cut_jobs(struct pm_pass *p)
{
    int kv_heads = p->model->config.text.kv_heads, few = 0;
    for (int t = 0; t < p->tile_count; t++)
        few += p->tiles[t].count * p->group <= FEW_ROWS;
    int together = heads_together(p, few);
    p->job_count = 0;
    for (int t = 0; t < p->tile_count; t++)
        for (int head = 0, heads; head < kv_heads; head += heads) {
            heads = p->tiles[t].count * p->group <= FEW_ROWS ? together : 1;
            heads = heads < kv_heads - head ? heads : kv_heads - head;
            p->jobs[p->job_count++] = (struct attention_job){t, head, heads};
        }
}

/* Frequency i turns by the time, row or column position, by the section it lies in. */
static void set_angles(struct pm_pass *p, int row, const int32_t position[3])
{
    const int *sections = p->model->config.text.rope_sections;
    float *cosines = p->cosines + (size_t)row * (size_t)p->pairs;
    float *sines = p->sines + (size_t)row * (size_t)p->pairs;
    int axis = 0, end = sections[0];
    for (int i = 0; i < p->pairs; i++) {
        while (i >= end && axis < PM_VLM_SECTIONS - 1)
            end += sections[++axis];
        pm_vlm_angle(position[axis], p->frequencies[i], &cosines[i], &sines[i]);
    }
}

static int grow_blocks(struct pm_pass *p, int blocks, struct pm_error *err)
{
    if (blocks <= p->block_capacity)
        return 0;
    int capacity = max_int(blocks, 2 * p->block_capacity);
    void *memory;
    int rc = pm_alloc_array((size_t)pm_pool_threads(p->pool) * 2 * (size_t)capacity, sizeof *p->blocks,
                            &memory, err);
    if (rc)
        return rc;
    free(p->blocks);
    p->blocks = memory;
    p->block_capacity = 0;
    if (p->kv8) {
        free(p->expanded);
        p->expanded = NULL;
        rc = pm_alloc_array((size_t)pm_pool_threads(p->pool) * (size_t)capacity, p->expanded_bytes, &memory,
                            err);
        if (rc)
            return rc;
        p->expanded = memory;
    }
    p->block_capacity = capacity;
    return 0;
}

int pm_pass_begin(struct pm_pass *p, const struct pm_pass_row *rows, int count, struct pm_error *err)
{
    if (count < 1 || count > p->max_rows)
        return pm_fail(err, PM_EINVAL, "a pass of %d rows: must be 1 to %d", count, p->max_rows);
    p->count = count;
    p->logit_count = 0;
    int blocks = 0, rc;
    for (int r = 0; r < count; r++) {
        if ((rc = check_row(&rows[r], r, err)))
            return rc;
        p->slots[r] = rows[r].slot;
        for (int g = 0; g < p->group; g++)
            p->limits[r * p->group + g] = rows[r].slot + 1;
        p->logit_rows[r] = rows[r].wants_logits ? p->logit_count++ : -1;
        blocks = max_int(blocks, rows[r].slot / PM_KV_PAGE_TOKENS + 1);
        set_angles(p, r, rows[r].position);
    }
    rc = cut_rows(p, rows, err);
    if (rc)
        return rc;
    cut_jobs(p);
    return grow_blocks(p, blocks, err);
}

float *pm_pass_stream(struct pm_pass *p)
{
    return p->stream;
}

void *pm_pass_activations(struct pm_pass *p, size_t *stride_out)
{
    *stride_out = p->act_stride;
    return p->act;
}

const float *pm_pass_cosines(const struct pm_pass *p)
{
    return p->cosines;
}

const float *pm_pass_sines(const struct pm_pass *p)
{
    return p->sines;
}

/* ---- row by row ---- */

struct row_work {
    struct pm_pass *pass;
    enum { WORK_NORM, WORK_GATE, WORK_ADD_NORM, WORK_FINAL_NORM } kind;
    const float *weight;
};

static void *act_row(const struct pm_pass *p, int row)
{
    return p->act + (size_t)row * p->act_stride * p->act_bytes;
}

static void do_rows(void *arg, int job, int thread)
{
    (void)thread;
    const struct row_work *w = arg;
    struct pm_pass *p = w->pass;
    const struct pm_text_config *c = &p->model->config.text;
    int first = job * ROWS_PER_JOB, rows = p->count - first < ROWS_PER_JOB ? p->count - first : ROWS_PER_JOB;
    size_t hidden = (size_t)c->hidden, at = (size_t)first * hidden;
    switch (w->kind) {
    case WORK_NORM:
        p->lm->rms_norm(p->stream + at, hidden, rows, c->hidden, w->weight, c->rms_eps, act_row(p, first),
                        p->act_stride);
        break;
    case WORK_GATE:
        p->lm->gate(p->wide + (size_t)first * p->wide_stride, p->wide_stride, rows, c->intermediate,
                    act_row(p, first), p->act_stride);
        break;
    case WORK_ADD_NORM:
        p->kernels->add_rms_norm(p->branch + at, hidden, rows, c->hidden, w->weight, c->rms_eps,
                                 p->stream + at, hidden);
        break;
    case WORK_FINAL_NORM:
        p->kernels->f32->rms_norm(p->stream + at, hidden, rows, c->hidden, w->weight, c->rms_eps,
                                  p->hidden + at, hidden);
        break;
    }
}

static void run_rows(struct pm_pass *p, struct row_work work)
{
    work.pass = p;
    pm_pool_run(p->pool, do_rows, &work, (p->count + ROWS_PER_JOB - 1) / ROWS_PER_JOB);
}

/* ---- attention ---- */

struct attention_work {
    struct pm_pass *pass;
    int layer;
};

/* Query rows of a key/value head, from row on. */
static uint8_t *query_row(const struct pm_pass *p, int kv_head, int row)
{
    size_t at = ((size_t)kv_head * (size_t)p->max_rows + (size_t)row) * (size_t)p->group;
    return p->query + at * (size_t)p->model->config.text.head_dim * p->act_bytes;
}

static void put_span(struct pm_pass *p, const struct span *s, int layer, int kv_head, const float *keys,
                     const float *values)
{
    int dim = p->model->config.text.head_dim;
    for (int done = 0, count; done < s->count; done += count) {
        int slot = p->slots[s->first] + done, page = slot / PM_KV_PAGE_TOKENS, at = slot % PM_KV_PAGE_TOKENS;
        count = PM_KV_PAGE_TOKENS - at < s->count - done ? PM_KV_PAGE_TOKENS - at : s->count - done;
        size_t offset = (size_t)done * p->wide_stride;
        if (p->kv8) {
            p->kv8->put(keys + offset, values + offset, p->wide_stride, count, dim, at,
                        pm_kv_keys(p->kv_pool, s->kv, page, layer, kv_head));
            continue;
        }
        p->lm->put_keys(keys + offset, p->wide_stride, count, dim, at,
                        pm_kv_keys(p->kv_pool, s->kv, page, layer, kv_head));
        p->lm->put_values(values + offset, p->wide_stride, count, dim, at,
                          pm_kv_values(p->kv_pool, s->kv, page, layer, kv_head));
    }
}

/* One segment and one key/value head: turns queries and keys, writes queries beside each other and keys and
 * values into the cache. Two jobs never write into one block. */
static void turn(struct pm_pass *p, const struct span *s, int layer, int kv_head)
{
    const struct pm_text_config *c = &p->model->config.text;
    int dim = c->head_dim;
    void (*rope)(float *, int, int, int, const float *, const float *) =
        c->rope_pairs == PM_ROPE_INTERLEAVED ? p->kernels->rope_interleaved : p->kernels->rope_half_split;
    size_t q_width = (size_t)c->heads * (size_t)dim, kv_width = (size_t)c->kv_heads * (size_t)dim;
    size_t q_at = (size_t)kv_head * (size_t)p->group * (size_t)dim;
    size_t k_at = q_width + (size_t)kv_head * (size_t)dim;
    for (int r = s->first; r < s->first + s->count; r++) {
        float *row = p->wide + (size_t)r * p->wide_stride;
        const float *cosines = p->cosines + (size_t)r * (size_t)p->pairs;
        const float *sines = p->sines + (size_t)r * (size_t)p->pairs;
        rope(row + q_at, p->group, dim, p->pairs, cosines, sines);
        rope(row + k_at, 1, dim, p->pairs, cosines, sines);
        p->lm->convert(row + q_at, (size_t)dim, p->group, dim, query_row(p, kv_head, r), (size_t)dim);
    }
    const float *first = p->wide + (size_t)s->first * p->wide_stride;
    put_span(p, s, layer, kv_head, first + k_at, first + k_at + kv_width);
}

static void do_turn(void *arg, int job, int thread)
{
    (void)thread;
    const struct attention_work *w = arg;
    int kv_heads = w->pass->model->config.text.kv_heads;
    turn(w->pass, &w->pass->segments[job / kv_heads], w->layer, job % kv_heads);
}

/* The blocks that a job reads. */
static void find_blocks(struct pm_pass *p, const struct attention_job *j, int layer, int thread, int blocks,
                        const void **keys, const void **values)
{
    const struct span *t = &p->tiles[j->tile];
    for (int i = 0; i < blocks; i++) {
        keys[i] = pm_kv_keys(p->kv_pool, t->kv, i, layer, j->head);
        values[i] = pm_kv_values(p->kv_pool, t->kv, i, layer, j->head);
        if (p->kv8) {
            size_t at = (size_t)thread * (size_t)p->block_capacity + (size_t)i;
            uint8_t *room = p->expanded + at * p->expanded_bytes;
            p->kv8->expand(keys[i], p->model->config.text.head_dim, (uint16_t *)(void *)room,
                           (uint16_t *)(void *)(room + p->expanded_key_bytes));
            keys[i] = room;
            values[i] = room + p->expanded_key_bytes;
        }
    }
}

/* The query heads of all rows of the tile in one call. */
static void do_attend(void *arg, int job, int thread)
{
    const struct attention_work *w = arg;
    struct pm_pass *p = w->pass;
    const struct pm_text_config *c = &p->model->config.text;
    const struct attention_job *j = &p->jobs[job];
    const struct span *t = &p->tiles[j->tile];
    size_t dim = (size_t)c->head_dim, rows = (size_t)t->count * (size_t)p->group;
    const void **keys = p->blocks + (size_t)thread * 2 * (size_t)p->block_capacity;
    const void **values = keys + p->block_capacity;
    find_blocks(p, j, w->layer, thread, p->slots[t->first + t->count - 1] / PM_KV_PAGE_TOKENS + 1, keys,
                values);
    uint8_t *out = p->attended + (size_t)thread * attended_rows(p) * dim * p->act_bytes;
    p->lm->attend(&(struct pm_attention){
        .q = query_row(p, j->head, t->first),
        .q_stride = dim,
        .rows = (int)rows,
        .dim = c->head_dim,
        .heads = j->heads,
        .q_head_stride = (size_t)p->max_rows * (size_t)p->group * dim,
        .out_head_stride = rows * dim,
        .scale = 1.0f / sqrtf((float)c->head_dim),
        .keys = keys,
        .values = values,
        .limits = p->limits + (size_t)t->first * (size_t)p->group,
        .out = out,
        .out_stride = dim,
    });
    size_t row_bytes = (size_t)p->group * dim * p->act_bytes;
    for (int h = j->head; h < j->head + j->heads; h++)
        for (int r = 0; r < t->count; r++, out += row_bytes)
            memcpy((uint8_t *)act_row(p, t->first + r) + (size_t)h * row_bytes, out, row_bytes);
}

/* Both, where every segment is one tile: steps of single tokens are short, and waking threads is not. */
static void do_turn_and_attend(void *arg, int job, int thread)
{
    const struct attention_work *w = arg;
    const struct attention_job *j = &w->pass->jobs[job];
    for (int h = j->head; h < j->head + j->heads; h++)
        turn(w->pass, &w->pass->tiles[j->tile], w->layer, h);
    do_attend(arg, job, thread);
}

/* ---- layers ---- */

/* stream += norm(linear(activations)), or without the norm. */
static void run_branch(struct pm_pass *p, const struct pm_linear *linear, const float *norm)
{
    size_t hidden = (size_t)p->model->config.text.hidden;
    if (norm) {
        pm_linear_run(linear, p->kernels, p->pool, p->act, p->act_stride, p->count, p->branch, hidden,
                      PM_LINEAR_STORE);
        run_rows(p, (struct row_work){.kind = WORK_ADD_NORM, .weight = norm});
    } else {
        pm_linear_run(linear, p->kernels, p->pool, p->act, p->act_stride, p->count, p->stream, hidden,
                      PM_LINEAR_ADD);
    }
}

void pm_pass_layer(struct pm_pass *p, const struct pm_text_layer *layer, int index)
{
    int kv_heads = p->model->config.text.kv_heads;
    struct attention_work attention = {p, index};
    run_rows(p, (struct row_work){.kind = WORK_NORM, .weight = layer->input_norm});
    pm_linear_run(&layer->qkv, p->kernels, p->pool, p->act, p->act_stride, p->count, p->wide, p->wide_stride,
                  PM_LINEAR_STORE);
    if (p->tile_count == p->segment_count) {
        pm_pool_run(p->pool, do_turn_and_attend, &attention, p->job_count);
    } else {
        pm_pool_run(p->pool, do_turn, &attention, p->segment_count * kv_heads);
        pm_pool_run(p->pool, do_attend, &attention, p->job_count);
    }
    run_branch(p, &layer->o, layer->post_attention_norm);

    run_rows(p, (struct row_work){.kind = WORK_NORM, .weight = layer->pre_mlp_norm});
    pm_linear_run(&layer->gate_up, p->kernels, p->pool, p->act, p->act_stride, p->count, p->wide,
                  p->wide_stride, PM_LINEAR_STORE);
    run_rows(p, (struct row_work){.kind = WORK_GATE});
    run_branch(p, &layer->down, layer->post_mlp_norm);
}

static int grow_logits(struct pm_pass *p, struct pm_error *err)
{
    if (p->logit_count <= p->logit_capacity)
        return 0;
    int capacity = max_int(p->logit_count, 2 * p->logit_capacity);
    capacity = capacity > p->max_rows ? p->max_rows : capacity;
    void *memory;
    int rc =
        pm_alloc_array((size_t)capacity * (size_t)p->model->config.text.vocab, sizeof(float), &memory, err);
    if (rc)
        return rc;
    free(p->logits);
    p->logits = memory;
    p->logit_capacity = capacity;
    return 0;
}

int pm_pass_finish(struct pm_pass *p, const float *norm, const struct pm_linear *head, struct pm_error *err)
{
    const struct pm_text_config *c = &p->model->config.text;
    run_rows(p, (struct row_work){.kind = WORK_FINAL_NORM, .weight = norm});
    if (p->logit_count == 0)
        return 0;
    int rc = grow_logits(p, err);
    if (rc)
        return rc;
    for (int r = 0; r < p->count; r++)
        if (p->logit_rows[r] >= 0)
            p->lm->convert(p->hidden + (size_t)r * (size_t)c->hidden, (size_t)c->hidden, 1, c->hidden,
                           act_row(p, p->logit_rows[r]), p->act_stride);
    pm_linear_run(head, p->kernels, p->pool, p->act, p->act_stride, p->logit_count, p->logits,
                  (size_t)c->vocab, PM_LINEAR_STORE);
    return 0;
}

const float *pm_pass_hidden(const struct pm_pass *p, int row)
{
    PM_ASSERT(row >= 0 && row < p->count);
    return p->hidden + (size_t)row * (size_t)p->model->config.text.hidden;
}

const float *pm_pass_logits(const struct pm_pass *p, int row)
{
    PM_ASSERT(row >= 0 && row < p->count && p->logit_rows[row] >= 0);
    return p->logits + (size_t)p->logit_rows[row] * (size_t)p->model->config.text.vocab;
}

void pm_vlm_embed(const struct pm_vlm_model *model, const void *table, int32_t token, float *out)
{
    size_t hidden = (size_t)model->config.text.hidden, at = (size_t)token * hidden;
    if (!pm_precision_is_bf16(model->precision)) {
        memcpy(out, (const float *)table + at, hidden * sizeof(float));
        return;
    }
    const uint16_t *row = (const uint16_t *)table + at;
    for (size_t i = 0; i < hidden; i++) {
        uint32_t bits = (uint32_t)row[i] << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}
