#include "engine/vlm/linear.h"

#include <stdbool.h>

/* A job is a block of rows by a run of panels. Rows: their inputs stay in a core's L2 while the panels pass
 * by. Panels: every thread streams long runs of weights, and there are a few jobs a thread so that a thread
 * that the system delays does not hold up the others. */
enum {
    BLOCK_VALUES = 200 * 1024, /* inputs of a block of rows */
    ROW_STEP = 48,             /* a multiple of every kernel's tile */
    QUANT_STEP = 16,           /* the same of the integer kernels */
    JOBS_A_THREAD = 4,
    SMALL_MACS = 1 << 16,    /* below this, waking threads costs more than it saves */
    QUANT_BYTES = 256 * 1024 /* rounded inputs of a block, on the stack of the thread that rounds them */
};
_Static_assert((PM_LINEAR_K_MAX / PM_QUANT_GROUP + 1) * (PM_QUANT_GROUP + 8) + 128 <= QUANT_BYTES,
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
    const struct pm_quant_rows *rounded; /* int8, int4: all rows when they are one block */
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

static struct pm_quant_rows round_rows(const struct run *u, int row, int rows, void *memory)
{
    const struct pm_linear *l = u->linear;
    struct pm_quant_rows x = pm_quant_rows_at(memory, rows, l->k);
    u->kernels->quant->round_rows((const uint16_t *)u->x + (size_t)row * u->x_stride, u->x_stride, l->k,
                                  l->precision == PM_PRECISION_INT4 ? PM_INT4_ZERO : PM_INT8_ZERO, &x);
    return x;
}

static void run_panels_quant(const struct run *u, int row, int rows, int begin, int end)
{
    _Alignas(64) uint8_t memory[QUANT_BYTES];
    const struct pm_quant_rows x = round_rows(u, row, rows, memory);
    for (int panel = begin; panel < end; panel++)
        run_quant(u, &x, row, panel);
}

static bool is_quant(const struct run *u)
{
    return u->linear->precision == PM_PRECISION_INT8 || u->linear->precision == PM_PRECISION_INT4;
}

/* Jobs of one run of panels follow each other, so that its weights are read from memory once. */
static void run_job(void *arg, int job, int thread)
{
    (void)thread;
    const struct run *u = arg;
    int chunk = job / u->row_blocks, row = job % u->row_blocks * u->block_rows;
    int rows = u->rows - row < u->block_rows ? u->rows - row : u->block_rows;
    int begin = (int)((long)u->panels * chunk / u->chunks);
    int end = (int)((long)u->panels * (chunk + 1) / u->chunks);
    if (is_quant(u) && !u->rounded) {
        run_panels_quant(u, row, rows, begin, end);
        return;
    }
    for (int panel = begin; panel < end; panel++)
        if (u->rounded)
            run_quant(u, u->rounded, row, panel);
        else if (u->linear->precision == PM_PRECISION_F32)
            run_f32(u, row, rows, panel);
        else
            run_bf16(u, row, rows, panel);
}

/* Rows of a block. Rounded inputs have to fit the scratch, and with several threads there are rather more
 * blocks than runs of panels: every job rounds its block. */
static int block_rows(const struct run *u, int threads)
{
    int k = u->linear->k;
    if (!is_quant(u)) {
        int fitting = BLOCK_VALUES / k / ROW_STEP * ROW_STEP;
        return fitting > ROW_STEP ? fitting : ROW_STEP;
    }
    int fitting = (QUANT_BYTES - 128) / ((k + PM_QUANT_GROUP - 1) / PM_QUANT_GROUP * (PM_QUANT_GROUP + 8));
    if (fitting > QUANT_STEP)
        fitting = fitting / QUANT_STEP * QUANT_STEP;
    int even = (u->rows - 1) / (threads * JOBS_A_THREAD) / QUANT_STEP * QUANT_STEP + QUANT_STEP;
    if (threads > 1 && even < fitting)
        return even > ROW_STEP ? even : ROW_STEP < fitting ? ROW_STEP : fitting;
    return fitting;
}

static void run_jobs(struct run *u, struct pm_pool *pool, int threads)
{
    int want = threads * JOBS_A_THREAD;
    u->chunks = u->row_blocks >= want ? 1 : (want - 1) / u->row_blocks + 1;
    if (threads == 1 || (double)u->rows * u->linear->n * u->linear->k < SMALL_MACS)
        u->chunks = 1;
    if (u->chunks > u->panels)
        u->chunks = u->panels;
    pm_pool_run(u->chunks * u->row_blocks > 1 ? pool : NULL, run_job, u, u->chunks * u->row_blocks);
}

/* One block of rows: rounded once, for all jobs. */
static void run_one_block(struct run *u, struct pm_pool *pool, int threads)
{
    _Alignas(64) uint8_t memory[QUANT_BYTES];
    const struct pm_quant_rows x = round_rows(u, 0, u->rows, memory);
    u->rounded = &x;
    run_jobs(u, pool, threads);
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
    u.block_rows = block_rows(&u, threads);
    u.row_blocks = (rows - 1) / u.block_rows + 1;
    if (is_quant(&u) && u.row_blocks == 1)
        run_one_block(&u, pool, threads);
    else
        run_jobs(&u, pool, threads);
}
