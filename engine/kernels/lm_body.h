/* The language-model kernels of one precision, written once over a vector type (vector_body.h, lm_math.h) and
 * a step of the product. Include after defining
 *
 *   LM(name)            the function's name with a suffix
 *   ACT, ACT_IS_BF16    type of an activation; 1 for bf16
 *   ACT_PUT(p, v, n)    stores the first n lanes as activations
 *   PB, PB_LOAD(p)      operands of one vector of outputs, PB_VALUES (f32: 1, bf16: 2) inputs of each
 *   PX, PX_LOAD(p)      the same inputs of one row, in every lane
 *   P_STEP(sum, x, b)   sum of products
 *   P_PROBABILITIES(p, a, b, sum)
 *                       stores two vectors of probabilities as activations, returns sum plus both
 *   TILE_M, TILE_V      rows and vectors of a tile, so that its sums and operands fit the registers
 *   TILE_WIDE_M         most rows of a tile of 8 vectors: for few rows, since more sums hide the latency of a
 *                       step
 *   TILE_TALL_M         most rows of a tile of 2 vectors, for products of a few more than TILE_M rows;
 *                       left out where there are none
 *
 * Exactness: whatever the tile, an output is one chain of steps in the order of the inputs. */

#ifndef TILE_TALL_M
#define TILE_TALL_M 0
#endif

/* ---- the tile of every product ---- */

enum LM(start) { LM(FROM_ZERO), LM(FROM_BIAS), LM(FROM_OUT) };

struct LM(product) {
    const ACT *x; /* [rows], x_stride apart: inputs of all segments one after the other */
    size_t x_stride;
    const void *const *segments; /* operands: [count][steps][w_stride] */
    int count, steps;
    size_t w_stride;
    float *out;
    size_t out_stride;
    const float *bias;  /* FROM_BIAS */
    const float *scale; /* FROM_OUT: sums begin with out[r] * scale[r] */
    int columns;        /* what is stored when the start is FROM_ZERO or FROM_BIAS */
    bool add;           /* to out */
    bool is_first;      /* of the tiles over these operands: they may have to come from memory */
    const char *next;   /* of tiles that fetch: what will be read after these operands */
};

/* Where a tile takes only a part of the operands' columns, those of the first tile fetch the other parts,
 * too: from memory they come faster end to end than in strips. */
enum { LM(IS_NARROW) = TILE_V * VL < PM_PANEL_BF16, LM(AHEAD) = 32 /* steps */ };

enum { LM(MOST_M) = TILE_TALL_M > TILE_M ? TILE_TALL_M : TILE_M };

/* lines: of what comes next, fetched at each step; 0 where the processor does better by itself. */
PM_INLINE void LM(tile)(const int mr, const int nv, const int lines, const enum LM(start) start,
                        const struct LM(product) * p, int row, int column)
{
    VF a[LM(MOST_M)][8];
    const size_t x_stride = p->x_stride, w_stride = p->w_stride, out_stride = p->out_stride;
    const ACT *x = p->x + (size_t)row * x_stride;
    float *out = p->out + (size_t)row * out_stride + column;
    PM_UNROLL
    for (int i = 0; i < mr; i++)
        PM_UNROLL
    for (int j = 0; j < nv; j++) {
        if (start == LM(FROM_OUT))
            a[i][j] = V_MUL(V_LOAD(out + (size_t)i * out_stride + j * VL), V_SET1(p->scale[row + i]));
        else if (start == LM(FROM_BIAS))
            a[i][j] = V_LOAD(p->bias + column + j * VL);
        else
            a[i][j] = V_SET1(0.0f);
    }
    const int steps = p->steps, count = p->count;
    const char *next = p->next;
    const bool is_first = LM(IS_NARROW) && p->is_first && nv == TILE_V && column == 0;
    for (int s = 0; s < count; s++) {
        const ACT *w = (const ACT *)p->segments[s] + (size_t)column * PB_VALUES;
        for (int t = 0; t < steps; t++, w += w_stride, x += PB_VALUES) {
            if (lines > 0) {
                PM_UNROLL
                for (int i = 0; i < lines; i++)
                    __builtin_prefetch(next + i * 64, 0, 2);
                next += lines * 64;
            }
            if (is_first)
                for (size_t line = 0; line < w_stride * sizeof *w; line += 64)
                    __builtin_prefetch(
                        (const void *)((uintptr_t)w + LM(AHEAD) * w_stride * sizeof *w + line));
            if (nv == 8) { /* rows wait in registers, operands pass by */
                PX v[LM(MOST_M)];
                PM_UNROLL
                for (int i = 0; i < mr; i++)
                    v[i] = PX_LOAD(x + (size_t)i * x_stride);
                PM_UNROLL
                for (int j = 0; j < nv; j++) {
                    PB b = PB_LOAD(w + j * VL * PB_VALUES);
                    PM_UNROLL
                    for (int i = 0; i < mr; i++)
                        a[i][j] = P_STEP(a[i][j], v[i], b);
                }
                continue;
            }
            PB b[TILE_V];
            PM_UNROLL
            for (int j = 0; j < nv; j++)
                b[j] = PB_LOAD(w + j * VL * PB_VALUES);
            PM_UNROLL
            for (int i = 0; i < mr; i++) {
                PX v = PX_LOAD(x + (size_t)i * x_stride);
                PM_UNROLL
                for (int j = 0; j < nv; j++)
                    a[i][j] = P_STEP(a[i][j], v, b[j]);
            }
        }
    }
    if (start == LM(FROM_OUT) || (!p->add && column + nv * VL <= p->columns)) {
        PM_UNROLL
        for (int i = 0; i < mr; i++)
            PM_UNROLL
        for (int j = 0; j < nv; j++)
            V_STORE(out + (size_t)i * out_stride + j * VL, a[i][j]);
        return;
    }
    PM_UNROLL
    for (int j = 0; j < nv; j++) {
        int left = p->columns - column - j * VL;
        if (left <= 0)
            break;
        PM_UNROLL
        for (int i = 0; i < mr; i++) {
            float *o = out + (size_t)i * out_stride + j * VL;
            V_STORE_N(o, p->add ? V_ADD(V_LOAD_N(o, left), a[i][j]) : a[i][j], left);
        }
    }
}

#define TILE_CASE(m)                                                                                         \
    case m:                                                                                                  \
        if (m <= most)                                                                                       \
            LM(tile)(m <= most ? m : 1, nv, lines, start, p, row, column);                                   \
        break

PM_INLINE void LM(rows)(const int most, const int nv, const int lines, const enum LM(start) start,
                        const struct LM(product) * p, int row, int rows, int column)
{
    switch (rows) {
        TILE_CASE(1);
        TILE_CASE(2);
        TILE_CASE(3);
        TILE_CASE(4);
#if TILE_M == 6
        TILE_CASE(5);
        TILE_CASE(6);
#endif
    default:
        break;
    }
}
#undef TILE_CASE

/* rows (1..TILE_M) by columns (a multiple of 16) outputs. */
PM_INLINE void LM(span)(const int lines, const enum LM(start) start, const struct LM(product) * p, int row,
                        int rows, int columns)
{
    int column = 0;
    if (rows <= TILE_WIDE_M)
        for (; column + 8 * VL <= columns; column += 8 * VL)
            LM(rows)(TILE_WIDE_M, 8, lines, start, p, row, rows, column);
    for (; column + TILE_V * VL <= columns; column += TILE_V * VL)
        LM(rows)(TILE_M, TILE_V, lines, start, p, row, rows, column);
#if TILE_V > 2
    for (; column + 2 * VL <= columns; column += 2 * VL)
        LM(rows)(TILE_M, 2, lines, start, p, row, rows, column);
    if (column < columns)
        LM(rows)(TILE_M, 1, lines, start, p, row, rows, column);
#endif
}

#if ACT_IS_BF16
#if TILE_TALL_M > TILE_M
/* TILE_TALL_M rows, or one less: two tiles would compute from a panel that only the first of them reads, and
 * the second wastes half of its steps. These are tiles of two vectors, over runs of a panel that stay in the
 * first cache; meanwhile the next run is fetched. Sums wait in memory, which is exact. */
static void LM(gemm_tall)(const struct pm_gemm_bf16 *g)
{
    enum { RUN = 48 /* steps */, COLUMNS = 2 * VL, LINES = COLUMNS * PB_VALUES * sizeof(ACT) / 64 };
    _Alignas(64) float sums[TILE_TALL_M * PM_PANEL_BF16];
    float ones[TILE_TALL_M];
    for (int i = 0; i < TILE_TALL_M; i++) {
        ones[i] = 1.0f;
        for (int c = 0; c < PM_PANEL_BF16; c++)
            sums[i * PM_PANEL_BF16 + c] = g->bias ? g->bias[c] : 0.0f;
    }
    const void *segment;
    struct LM(product) p = {
        .x_stride = g->x_stride,
        .segments = &segment,
        .count = 1,
        .w_stride = 2 * PM_PANEL_BF16,
        .out = sums,
        .out_stride = PM_PANEL_BF16,
        .scale = ones,
    };
    int steps = (g->k + 1) / 2;
    for (int t = 0; t < steps; t += RUN) {
        p.steps = steps - t < RUN ? steps - t : RUN;
        p.x = g->x + 2 * t;
        segment = g->panel + (size_t)t * p.w_stride;
        p.next = (const char *)segment + (size_t)p.steps * p.w_stride * sizeof *g->panel;
        for (int c = 0; c < PM_PANEL_BF16; c += COLUMNS, p.next += p.steps * LINES * 64)
            if (g->rows == TILE_TALL_M)
                LM(tile)(TILE_TALL_M, 2, LINES, LM(FROM_OUT), &p, 0, c);
            else
                LM(tile)(TILE_TALL_M - 1, 2, LINES, LM(FROM_OUT), &p, 0, c);
    }
    for (int i = 0; i < g->rows; i++) {
        float *out = g->out + (size_t)i * g->out_stride;
        const float *sum = sums + i * PM_PANEL_BF16;
        for (int c = 0; c < g->columns; c += VL) {
            VF v = V_LOAD(sum + c);
            lm_store(out, g->add ? V_ADD(lm_load(out, c, g->columns), v) : v, c, g->columns);
        }
    }
}
#endif

static void LM(gemm)(const struct pm_gemm_bf16 *g)
{
    pm_check_gemm_bf16(g);
#if TILE_TALL_M > TILE_M
    if (g->rows == TILE_TALL_M || g->rows == TILE_TALL_M - 1) {
        LM(gemm_tall)(g);
        return;
    }
#endif
    const void *segment = g->panel;
    struct LM(product) p = {
        .x = g->x,
        .x_stride = g->x_stride,
        .segments = &segment,
        .count = 1,
        .steps = (g->k + 1) / 2,
        .w_stride = 2 * PM_PANEL_BF16,
        .out = g->out,
        .out_stride = g->out_stride,
        .bias = g->bias,
        .columns = g->columns,
        .add = g->add,
    };
    for (int row = 0; row < g->rows; row += TILE_M) {
        int rows = g->rows - row < TILE_M ? g->rows - row : TILE_M;
        p.is_first = row == 0;
        if (g->bias)
            LM(span)(0, LM(FROM_BIAS), &p, row, rows, PM_PANEL_BF16);
        else
            LM(span)(0, LM(FROM_ZERO), &p, row, rows, PM_PANEL_BF16);
    }
}
#endif

/* ---- attention ---- */

/* Keys whose scores are softened together: more make the rescaling of what was summed before rarer. Groups
 * begin at multiples of this in the sequence, whatever the call. */
enum {
    LM(GROUP) = 512,
    LM(GROUP_BLOCKS) = LM(GROUP) / PM_ATTENTION_BLOCK,
    LM(CHUNK) = 16 * TILE_M, /* rows with sums */
    LM(FEW) = 16,            /* rows of a head that pass through the blocks together */
    LM(SCORES) = 64,         /* rows, of several heads, with scores */
    /* One to four rows compute faster than memory is read, and the processor reads ahead by itself. More
     * rows or passes leave memory waiting, unless they ask for what comes next. */
    LM(PATIENT) = 4,
    LM(LINES) = LM(IS_NARROW) ? 0 : 4
};

/* Scratch of some rows: at most 96 x 256 sums (96 KB) and 64 x 512 scores (128 KB), of which a tile of one
 * head among many rows uses only the first 12 KB. */
struct LM(rows_state) {
    _Alignas(64) float out[LM(CHUNK) * PM_HEAD_DIM_MAX]; /* [heads][rows][D] */
    _Alignas(64) float scores[LM(SCORES) * LM(GROUP)];   /* [heads][rows][GROUP], then probabilities */
    float top[LM(CHUNK)], sum[LM(CHUNK)];
};

/* The first `valid` of `count` (a multiple of 64) scores of a row become probabilities, the others exactly 0.
 * Returns what earlier sums have to be multiplied by: exactly 1 when valid is 0. */
PM_INLINE float LM(soften)(float *scores, ACT *probabilities, int valid, int count, float to_log2, float *top,
                           float *sum)
{
    if (valid <= 0) {
        memset(probabilities, 0, (size_t)count * sizeof *probabilities);
        return 1.0f;
    }
    int end = (valid + 2 * VL - 1) / (2 * VL) * (2 * VL);
    for (int j = valid; j < end; j++)
        scores[j] = -INFINITY;
    VF high = V_LOAD(scores), high2 = V_LOAD(scores + VL);
    for (int j = 2 * VL; j < end; j += 2 * VL) {
        high = V_MAX(high, V_LOAD(scores + j));
        high2 = V_MAX(high2, V_LOAD(scores + j + VL));
    }
    float best = V_HMAX(V_MAX(high, high2)), before = *top;
    best = best > before ? best : before;
    VF factor = V_SET1(to_log2), total = V_SET1(0.0f);
#if ACT_IS_BF16
    /* 2^(score factor - base): base is rounded, but the same in all that it divides. */
    VF base = V_MUL(V_SET1(-best), factor);
    for (int j = 0; j < end; j += 2 * VL) {
        VF a = lm_exp2_short(V_FMA(V_LOAD(scores + j), factor, base));
        VF b = lm_exp2_short(V_FMA(V_LOAD(scores + j + VL), factor, base));
        total = P_PROBABILITIES(probabilities + j, a, b, total);
    }
    float rescale = V_FIRST(lm_exp2(V_ADD(V_MUL(V_SET1(before), factor), base)));
#else
    VF base = V_SET1(best);
    for (int j = 0; j < end; j += 2 * VL) {
        VF a = lm_exp2(V_MUL(V_SUB(V_LOAD(scores + j), base), factor));
        VF b = lm_exp2(V_MUL(V_SUB(V_LOAD(scores + j + VL), base), factor));
        total = P_PROBABILITIES(probabilities + j, a, b, total);
    }
    float rescale = V_FIRST(lm_exp2(V_MUL(V_SUB(V_SET1(before), base), factor)));
#endif
    if (end < count)
        memset(probabilities + end, 0, (size_t)(count - end) * sizeof *probabilities);
    *top = best;
    *sum = *sum * rescale + V_HSUM(total);
    return rescale;
}

/* Rows [row, row + rows) of heads [head, head + heads); those of a head are a tile, or few. */
struct LM(set) {
    int row, rows, head, heads;
    int in_chunk;        /* place of the first in the sums */
    bool is_from_memory; /* a few rows with blocks that nobody has read before */
};

/* One product of all rows of a set with one block of `bytes` bytes, tile by tile; `next` is read after it. */
PM_INLINE void LM(block)(const enum LM(start) start, const struct LM(set) * t, struct LM(product) * p,
                         int at_once, int columns, size_t bytes, const void *next)
{
    for (int i = 0; i < t->rows; i += at_once) {
        int rows = t->rows - i < at_once ? t->rows - i : at_once;
        p->is_first = t->in_chunk + i == 0;
        if (t->is_from_memory && t->rows > LM(PATIENT)) { /* every tile fetches its share */
            p->next = (const char *)next + bytes / 64 * (size_t)i / (size_t)t->rows * 64;
            LM(span)(LM(LINES), start, p, i, rows, columns);
        } else {
            LM(span)(0, start, p, i, rows, columns);
        }
    }
}

/* Head `head` of a key or value block. */
PM_INLINE const void *LM(head)(const void *block, int head, size_t bytes)
{
    return (const char *)block + (size_t)head * bytes;
}

/* Scores of one group of keys, which begins with block `block`. */
static void LM(score)(const struct pm_attention *a, const struct LM(set) * t, float *scores, int block,
                      int blocks)
{
    const void *const *keys = a->keys + block;
    const void *segment;
    struct LM(product) p = {
        .x_stride = a->q_stride,
        .segments = &segment,
        .count = 1,
        .steps = a->dim / PB_VALUES,
        .w_stride = PM_ATTENTION_BLOCK * PB_VALUES,
        .out_stride = LM(GROUP),
        .columns = PM_ATTENTION_BLOCK,
    };
    size_t bytes = (size_t)a->dim * PM_ATTENTION_BLOCK * sizeof(ACT);
    for (int b = 0; b < blocks; b++)
        for (int h = 0; h < t->heads; h++) {
            const void *next = b + 1 < blocks ? keys[b + 1] : a->values[block];
            segment = LM(head)(keys[b], t->head + h, bytes);
            p.x = (const ACT *)a->q + (size_t)(t->head + h) * a->q_head_stride + (size_t)t->row * a->q_stride;
            p.out = scores + h * t->rows * LM(GROUP) + b * PM_ATTENTION_BLOCK;
            next = h + 1 < t->heads ? LM(head)(segment, 1, bytes) : LM(head)(next, t->head, bytes);
            LM(block)(LM(FROM_ZERO), t, &p, TILE_M, PM_ATTENTION_BLOCK, bytes, next);
        }
}

/* Adds the values of the group, weighted; what was summed before is rescaled first. */
static void LM(weigh)(const struct pm_attention *a, const struct LM(set) * t, struct LM(rows_state) * s,
                      const float *rescale, int block, int blocks)
{
    int width = (a->dim + 15) / 16 * 16;
    const void *values[LM(GROUP_BLOCKS)];
    float ones[LM(FEW)];
    struct LM(product) p = {
        .x_stride = LM(GROUP) * sizeof *s->scores / sizeof(ACT),
        .segments = values,
        .steps = PM_ATTENTION_BLOCK / PB_VALUES,
        .w_stride = (size_t)width * PB_VALUES,
        .out_stride = (size_t)width,
    };
    for (int i = 0; i < LM(FEW); i++)
        ones[i] = 1.0f;
    /* One tile of one head keeps its sums in registers; otherwise a block serves all that need it, and sums
     * wait in memory. Wide heads: fewer rows at a time, so that values are read in one pass end to end. */
    int together = t->heads == 1 && t->rows <= TILE_M ? blocks : 1;
    int at_once = TILE_WIDE_M > 1 && width >= 8 * VL ? TILE_WIDE_M : TILE_M;
    size_t bytes = (size_t)width * PM_ATTENTION_BLOCK * sizeof(ACT);
    p.count = together;
    for (int b = 0; b < blocks; b += together)
        for (int h = 0; h < t->heads; h++) {
            for (int k = 0; k < together; k++)
                values[k] = LM(head)(a->values[block + b + k], t->head + h, bytes);
            const void *next = a->values[block + (b + 1 < blocks ? b + 1 : b)];
            p.x = (const ACT *)(const void *)(s->scores + h * t->rows * LM(GROUP)) + b * PM_ATTENTION_BLOCK;
            p.out = s->out + (t->in_chunk + h * t->rows) * width;
            p.scale = b ? ones : rescale + h * t->rows;
            next = h + 1 < t->heads ? LM(head)(values[0], 1, bytes) : LM(head)(next, t->head, bytes);
            LM(block)(LM(FROM_OUT), t, &p, at_once, width, bytes, next);
        }
}

/* Keys that some row of the set sees. */
PM_INLINE int LM(seen)(const struct pm_attention *a, const struct LM(set) * t)
{
    int last = 0;
    for (int i = 0; i < t->rows; i++)
        last = a->limits[t->row + i] > last ? a->limits[t->row + i] : last;
    return last;
}

/* One group of keys that begins with block `block`. */
static void LM(attend_group)(const struct pm_attention *a, const struct LM(set) * t,
                             struct LM(rows_state) * s, int block)
{
    int first = block * PM_ATTENTION_BLOCK, last = LM(seen)(a, t);
    if (last <= first)
        return;
    int blocks = (last - first - 1) / PM_ATTENTION_BLOCK + 1;
    blocks = blocks < LM(GROUP_BLOCKS) ? blocks : LM(GROUP_BLOCKS);
    LM(score)(a, t, s->scores, block, blocks);
    float rescale[LM(SCORES)];
    for (int i = 0; i < t->heads * t->rows; i++) {
        int valid = a->limits[t->row + i % t->rows] - first;
        float *scores = s->scores + i * LM(GROUP);
        rescale[i] = LM(soften)(scores, (ACT *)(void *)scores, valid < LM(GROUP) ? valid : LM(GROUP),
                                blocks * PM_ATTENTION_BLOCK, a->scale * 1.44269504f, &s->top[t->in_chunk + i],
                                &s->sum[t->in_chunk + i]);
    }
    LM(weigh)(a, t, s, rescale, block, blocks);
}

/* Some rows of some heads, all that the scratch holds. */
static void LM(attend_set)(const struct pm_attention *a, const struct LM(set) * t)
{
    struct LM(rows_state) s;
    int width = (a->dim + 15) / 16 * 16, count = t->heads * t->rows;
    for (int i = 0; i < count; i++) {
        s.top[i] = -INFINITY;
        s.sum[i] = 0;
    }
    memset(s.out, 0, (size_t)count * (size_t)width * sizeof *s.out);
    int blocks = (LM(seen)(a, t) + PM_ATTENTION_BLOCK - 1) / PM_ATTENTION_BLOCK;
    int at_once = t->rows <= LM(FEW) ? t->rows : TILE_M;
    for (int block = 0; block < blocks; block += LM(GROUP_BLOCKS))
        for (int i = 0; i < t->rows; i += at_once) {
            struct LM(set) part = *t;
            part.row = t->row + i;
            part.rows = t->rows - i < at_once ? t->rows - i : at_once;
            part.in_chunk = i;
            LM(attend_group)(a, &part, &s, block);
        }
    for (int i = 0; i < count; i++) {
        /* Adding 0 makes every zero +0: its sign could come from keys after the limit. */
        VF factor = V_SET1(s.sum[i] > 0 ? 1.0f / s.sum[i] : 0.0f), zero = V_SET1(0.0f);
        ACT *out = (ACT *)a->out + (size_t)(t->head + i / t->rows) * a->out_head_stride +
                   (size_t)(t->row + i % t->rows) * a->out_stride;
        for (int d = 0; d < a->dim; d += VL)
            ACT_PUT(out + d, V_ADD(V_MUL(V_LOAD(s.out + i * width + d), factor), zero), a->dim - d);
    }
}

static void LM(attend)(const struct pm_attention *a)
{
    pm_check_attention(a, ACT_IS_BF16);
    int heads = a->heads ? a->heads : 1, at_once = a->rows <= LM(FEW) ? LM(SCORES) / a->rows : 1;
    for (int head = 0; head < heads; head += at_once)
        for (int row = 0; row < a->rows; row += LM(CHUNK)) {
            const struct LM(set) t = {
                .row = row,
                .rows = a->rows - row < LM(CHUNK) ? a->rows - row : LM(CHUNK),
                .head = head,
                .heads = heads - head < at_once ? heads - head : at_once,
                .is_from_memory = a->rows <= LM(FEW),
            };
            LM(attend_set)(a, &t);
        }
}

static void LM(put_keys)(const float *x, size_t stride, int count, int dim, int first, void *block)
{
    pm_check_rows(x, stride, count, dim, sizeof *x);
    pm_check_bytes(block, pm_key_block_bytes(dim, ACT_IS_BF16));
    for (int j = 0; j < count; j++, x += stride) {
        ACT row[PM_HEAD_DIM_MAX + VL];
        for (int d = 0; d < dim; d += VL)
            ACT_PUT(row + d, lm_load(x, d, dim), VL);
        ACT *keys = (ACT *)block + (size_t)(first + j) * PB_VALUES;
        for (int d = 0; d < dim; d += PB_VALUES, keys += PM_ATTENTION_BLOCK * PB_VALUES)
            memcpy(keys, row + d, PB_VALUES * sizeof *row);
    }
}

static void LM(put_values)(const float *x, size_t stride, int count, int dim, int first, void *block)
{
    pm_check_rows(x, stride, count, dim, sizeof *x);
    pm_check_bytes(block, pm_value_block_bytes(dim, ACT_IS_BF16));
    const int width = (dim + 15) / 16 * 16;
    ACT rows[PB_VALUES][PM_HEAD_DIM_MAX + VL];
    for (int j = 0; j < count;) {
        /* In bf16 two slots lie side by side: together, where both are there. */
        int slot = first + j, part = slot % PB_VALUES;
        int together = part == 0 && j + PB_VALUES <= count ? PB_VALUES : 1;
        ACT *values = (ACT *)block + (size_t)(slot / PB_VALUES) * (size_t)width * PB_VALUES;
        for (int i = 0; i < together; i++, x += stride)
            for (int d = 0; d < width; d += VL)
                ACT_PUT(rows[i] + d, d < dim ? lm_load(x, d, dim) : V_SET1(0.0f), VL);
        if (together == PB_VALUES)
            for (int d = 0; d < width; d++)
                for (int i = 0; i < PB_VALUES; i++)
                    values[d * PB_VALUES + i] = rows[i][d];
        else
            for (int d = 0; d < width; d++)
                values[d * PB_VALUES + part] = rows[0][d];
        j += together;
    }
}

/* ---- norms, gates, conversions ---- */

/* Products read pairs: a row of odd length gets a zero more where it has room. */
PM_INLINE void LM(finish_row)(ACT *out, int n, size_t out_stride)
{
    if (ACT_IS_BF16 && n % 2 && (size_t)n < out_stride)
        out[n] = 0;
}

static void LM(rms_norm)(const float *x, size_t x_stride, int rows, int n, const float *weight, float eps,
                         void *out, size_t out_stride)
{
    pm_check_rows(x, x_stride, rows, n, sizeof *x);
    pm_check_rows(out, out_stride, rows, n, sizeof(ACT));
    pm_check_floats(weight, (size_t)n);
    for (int r = 0; r < rows; r++, x += x_stride) {
        ACT *o = (ACT *)out + (size_t)r * out_stride;
        VF factor = V_SET1(lm_rms_factor(x, n, eps));
        for (int i = 0; i < n; i += VL)
            ACT_PUT(o + i, V_MUL(V_MUL(lm_load(x, i, n), factor), lm_load(weight, i, n)), n - i);
        LM(finish_row)(o, n, out_stride);
    }
}

static void LM(gate)(const float *x, size_t x_stride, int rows, int n, void *out, size_t out_stride)
{
    pm_check_rows(x, x_stride, rows, 2 * n, sizeof *x);
    pm_check_rows(out, out_stride, rows, n, sizeof(ACT));
    for (int r = 0; r < rows; r++, x += x_stride) {
        ACT *o = (ACT *)out + (size_t)r * out_stride;
        for (int i = 0; i < n; i += VL)
            ACT_PUT(o + i, V_MUL(lm_silu(lm_load(x, i, n)), lm_load(x + n, i, n)), n - i);
        LM(finish_row)(o, n, out_stride);
    }
}

static void LM(convert)(const float *x, size_t x_stride, int rows, int n, void *out, size_t out_stride)
{
    pm_check_rows(x, x_stride, rows, n, sizeof *x);
    pm_check_rows(out, out_stride, rows, n, sizeof(ACT));
    for (int r = 0; r < rows; r++, x += x_stride) {
        ACT *o = (ACT *)out + (size_t)r * out_stride;
        for (int i = 0; i < n; i += VL)
            ACT_PUT(o + i, lm_load(x, i, n), n - i);
        LM(finish_row)(o, n, out_stride);
    }
}

#undef LM
#undef ACT
#undef ACT_IS_BF16
#undef ACT_PUT
#undef PB
#undef PB_VALUES
#undef PB_LOAD
#undef PX
#undef PX_LOAD
#undef P_STEP
#undef P_PROBABILITIES
#undef TILE_M
#undef TILE_V
#undef TILE_WIDE_M
