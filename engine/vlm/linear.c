#include "engine/vlm/linear.h"

#include <stdbool.h>

/* A job is a block of rows by a run of panels. Rows: their inputs stay in a core's L2 while the panels pass
 * by. Panels: with few rows every thread streams long runs of weights, a few jobs a thread, so that a thread
 * that the system delays does not hold up the others; with many rows jobs are shorter, since the threads wait
 * for the last one. */
enum {
    BLOCK_VALUES = 200 * 1024, /* inputs of a block of rows */
    BLOCK_BYTES = 512 * 1024,  /* the same when they are rounded */
    ROW_STEP = 48,             /* a multiple of every kernel's tile */
    BLOCKS_MAX = 64,
    FEW_ROWS = 16,
    JOBS_A_THREAD_FEW = 4,
    JOBS_A_THREAD = 12,
    SMALL_MACS = 1 << 16,       /* below this, waking threads costs more than it saves */
    ROUNDED_BYTES = 2048 * 1024 /* rounded inputs of the rows that are taken at once, on the caller's stack */
};
_Static_assert((PM_LINEAR_K_MAX / PM_QUANT_GROUP + 1) * (PM_QUANT_GROUP + 8) + 128 * BLOCKS_MAX <=
                   ROUNDED_BYTES,
               "a row of the widest product must fit");

struct run {
    const struct pm_linear *linear;
    const struct pm_kernels *kernels;
    const void *x;
    size_t x_stride;
    int rows;
    float *out;
    size_t out_stride;
    bool add;
    int block_rows, row_blocks, panels, chunks;
    struct pm_quant_rows *rounded; /* int8, int4: [row_blocks] */
};

size_t pm_activation_bytes(enum pm_precision precision)
{
    return pm_precision_is_bf16(precision) ? sizeof(uint16_t) : sizeof(float);
}

int pm_linear_bind(const struct pm_pack *pack, enum pm_precision precision, const char *name,
                   const char *bias, int n, int k, struct pm_linear *out, struct pm_error *err)
{
    *out = (struct pm_linear){.precision = precision, .n = n, .k = k};
    if (n < 1 || k < 1)
        return pm_fail(err, PM_EFORMAT, "tensor %s: a product of %d outputs over %d inputs", name, n, k);
    const uint64_t shape[] = {(uint64_t)n, 1, (uint64_t)k};
    if (precision == PM_PRECISION_F32)
        return pm_pack_need(pack, name, PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3, shape, &out->panels, err);
    enum pm_dtype dtype = PM_DTYPE_BF16;
    enum pm_layout layout = PM_LAYOUT_PANELS64_BF16;
    if (precision != PM_PRECISION_BF16) {
        const struct pm_pack_tensor *there = pm_pack_find(pack, name);
        dtype = PM_DTYPE_U8;
        layout = PM_LAYOUT_PANELS64_INT8;
        out->precision = PM_PRECISION_INT8;
        if (precision == PM_PRECISION_INT4 && there && there->layout == PM_LAYOUT_PANELS64_INT4) {
            layout = PM_LAYOUT_PANELS64_INT4;
            out->precision = PM_PRECISION_INT4;
        }
        if (k > PM_LINEAR_K_MAX)
            return pm_fail(err, PM_EUNSUPPORTED, "tensor %s: %d inputs, more than the %d that %s can have",
                           name, k, PM_LINEAR_K_MAX, pm_precision_name(precision));
    }
    int rc = pm_pack_need(pack, name, dtype, layout, 3, shape, &out->panels, err);
    if (rc || !bias)
        return rc;
    const uint64_t padded = ((uint64_t)n + PM_PANEL_BF16 - 1) / PM_PANEL_BF16 * PM_PANEL_BF16;
    return pm_pack_need_vector(pack, bias, padded, &out->bias, err);
}

static void run_f32(const struct run *u, int row, int rows, int panel)
{
    const struct pm_linear *l = u->linear;
    int column = panel * PM_PANEL;
    float *out = u->out + (size_t)row * u->out_stride + column;
    const struct pm_gemm g = {
        .x = {(const float *)u->x + (size_t)row * u->x_stride},
        .x_stride = u->x_stride,
        .taps = 1,
        .k = l->k,
        .panel = (const float *)l->panels + (size_t)column * ((size_t)l->k + 1),
        .width = pm_panel_width(l->n, panel),
        .columns = l->n - column < PM_PANEL ? l->n - column : PM_PANEL,
        .rows = rows,
        .act = PM_ACT_NONE,
        .out = out,
        .out_stride = u->out_stride,
        .residual = u->add ? out : NULL,
        .residual_stride = u->out_stride,
    };
    u->kernels->gemm(&g);
}

static void run_bf16(const struct run *u, int row, int rows, int panel)
{
    const struct pm_linear *l = u->linear;
    int column = panel * PM_PANEL_BF16;
    const struct pm_gemm_bf16 g = {
        .x = (const uint16_t *)u->x + (size_t)row * u->x_stride,
        .x_stride = u->x_stride,
        .k = l->k,
        .rows = rows,
        .columns = l->n - column < PM_PANEL_BF16 ? l->n - column : PM_PANEL_BF16,
        .panel = (const uint16_t *)l->panels + (size_t)column * (((size_t)l->k + 1) / 2 * 2),
        .bias = l->bias ? l->bias + column : NULL,
        .out = u->out + (size_t)row * u->out_stride + column,
        .out_stride = u->out_stride,
        .add = u->add,
    };
    u->kernels->gemm_bf16(&g);
}

static void run_quant(const struct run *u, const struct pm_quant_rows *x, int row, int panel)
{
    const struct pm_linear *l = u->linear;
    const struct pm_quant_kernels *quant = u->kernels->quant;
    bool is_int4 = l->precision == PM_PRECISION_INT4;
    int column = panel * PM_PANEL_QUANT;
    const struct pm_gemm_quant g = {
        .x = x,
        .panel = (const uint8_t *)l->panels +
                 (size_t)panel * (size_t)x->groups * (is_int4 ? PM_INT4_GROUP_BYTES : PM_INT8_GROUP_BYTES),
        .bias = l->bias ? l->bias + column : NULL,
        .columns = l->n - column < PM_PANEL_QUANT ? l->n - column : PM_PANEL_QUANT,
        .out = u->out + (size_t)row * u->out_stride + column,
        .out_stride = u->out_stride,
        .add = u->add,
    };
    if (is_int4)
        quant->gemm_int4(&g);
    else
        quant->gemm_int8(&g);
}

static bool is_quant(const struct run *u)
{
    return u->linear->precision == PM_PRECISION_INT8 || u->linear->precision == PM_PRECISION_INT4;
}

static int rows_of(const struct run *u, int block)
{
    int left = u->rows - block * u->block_rows;
    return left < u->block_rows ? left : u->block_rows;
}

/* Jobs of one run of panels follow each other, so that its weights are read from memory once. */
static void run_job(void *arg, int job, int thread)
{
    (void)thread;
    const struct run *u = arg;
    int chunk = job / u->row_blocks, block = job % u->row_blocks, row = block * u->block_rows;
    int begin = (int)((long)u->panels * chunk / u->chunks);
    int end = (int)((long)u->panels * (chunk + 1) / u->chunks);
    for (int panel = begin; panel < end; panel++)
        if (u->rounded)
            run_quant(u, &u->rounded[block], row, panel);
        else if (u->linear->precision == PM_PRECISION_F32)
            run_f32(u, row, rows_of(u, block), panel);
        else
            run_bf16(u, row, rows_of(u, block), panel);
}

/* ---- cutting ---- */

static int ceiling(int a, int b)
{
    return (a - 1) / b + 1;
}

static int rounded_row_bytes(const struct run *u)
{
    return ceiling(u->linear->k, PM_QUANT_GROUP) * (PM_QUANT_GROUP + 8);
}

/* Blocks of about the same size, as few as fit, but enough to give all threads work. */
static void cut(struct run *u, int threads)
{
    int k = u->linear->k, fitting = is_quant(u) ? BLOCK_BYTES / rounded_row_bytes(u) : BLOCK_VALUES / k;
    int blocks = ceiling(u->rows, fitting > ROW_STEP ? fitting : ROW_STEP);
    int want = threads * (u->rows > FEW_ROWS ? JOBS_A_THREAD : JOBS_A_THREAD_FEW);
    if (threads == 1 || (double)u->rows * u->linear->n * k < SMALL_MACS)
        want = 1;
    if (blocks < ceiling(want, u->panels))
        blocks = ceiling(want, u->panels);
    if (blocks > BLOCKS_MAX)
        blocks = BLOCKS_MAX;
    u->block_rows = ceiling(ceiling(u->rows, blocks), ROW_STEP / 2) * (ROW_STEP / 2);
    u->row_blocks = ceiling(u->rows, u->block_rows);
    /* Runs of the same length, where a few panels are a run. */
    int run = (int)((long)u->panels * u->row_blocks / want);
    u->chunks = ceiling(u->panels, run > 0 ? run : 1);
}

static void run_jobs(struct run *u, struct pm_pool *pool)
{
    int jobs = u->chunks * u->row_blocks;
    pm_pool_run(jobs > 1 ? pool : NULL, run_job, u, jobs);
}

/* ---- rounded inputs ---- */

static void round_block(void *arg, int block, int thread)
{
    (void)thread;
    const struct run *u = arg;
    const struct pm_linear *l = u->linear;
    const uint16_t *x = (const uint16_t *)u->x + (size_t)block * (size_t)u->block_rows * u->x_stride;
    u->kernels->quant->round_rows(x, u->x_stride, l->k,
                                  l->precision == PM_PRECISION_INT4 ? PM_INT4_ZERO : PM_INT8_ZERO,
                                  &u->rounded[block]);
}

/* As many rows as the stack holds at a time: rounded once, for all jobs. */
static void run_rounded(struct run u, struct pm_pool *pool, int threads)
{
    _Alignas(64) uint8_t memory[ROUNDED_BYTES];
    struct pm_quant_rows rounded[BLOCKS_MAX];
    int all = u.rows, most = (ROUNDED_BYTES - 128 * BLOCKS_MAX) / rounded_row_bytes(&u);
    int at_once = ceiling(all, ceiling(all, most));
    u.rounded = rounded;
    for (int first = 0; first < all; first += at_once) {
        u.rows = all - first < at_once ? all - first : at_once;
        cut(&u, threads);
        uint8_t *place = memory;
        for (int block = 0; block < u.row_blocks; block++) {
            rounded[block] = pm_quant_rows_at(place, rows_of(&u, block), u.linear->k);
            place += pm_quant_rows_bytes(rows_of(&u, block), u.linear->k);
        }
        pm_pool_run(u.row_blocks > 1 ? pool : NULL, round_block, &u, u.row_blocks);
        run_jobs(&u, pool);
        u.x = (const uint16_t *)u.x + (size_t)u.rows * u.x_stride;
        u.out += (size_t)u.rows * u.out_stride;
    }
}

void pm_linear_run(const struct pm_linear *linear, const struct pm_kernels *kernels, struct pm_pool *pool,
                   const void *x, size_t x_stride, int rows, float *out, size_t out_stride,
                   enum pm_linear_mode mode)
{
    if (rows < 1)
        return;
    int width = linear->precision == PM_PRECISION_F32 ? PM_PANEL : PM_PANEL_BF16;
    int threads = pm_pool_threads(pool);
    struct run u = {.linear = linear,
                    .kernels = kernels,
                    .x = x,
                    .x_stride = x_stride,
                    .rows = rows,
                    .out = out,
                    .out_stride = out_stride,
                    .add = mode == PM_LINEAR_ADD,
                    .panels = (linear->n - 1) / width + 1};
    if (is_quant(&u)) {
        run_rounded(u, pool, threads);
        return;
    }
    cut(&u, threads);
    run_jobs(&u, pool);
}
