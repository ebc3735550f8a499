/* Products of integers, written once over a vector type. Include after defining
 *
 *   Q(name)                  the function's name with a suffix
 *   Q_BITS                   8 or 4
 *   QI, QL                   a vector of int32 and its lanes
 *   Q_SET1(n)                n in every lane
 *   QX, Q_LOAD_X(p)          four inputs of one row in every lane
 *   QW, Q_WEIGHTS(v)         bytes of weights as the step wants them (int4: bytes 0..15)
 *   Q_STEP(sum, w, x)        sum + the four products of each lane
 *   Q_IN_ORDER(v)            nothing, but keeps the loads of weights in their order: a stream that is read
 *                            forwards comes a fifth faster from memory
 *   Q_LOAD(p), Q_LOW4(v), Q_HIGH4(v)
 *                            bytes of weights, and the halves of bytes
 *   QF, Q_FLOAT(i), Q_FLOAT_LOAD(p), Q_FLOAT_STORE(p, f), Q_FLOAT_SET1(x), Q_MUL, Q_ADD, Q_FMA,
 *   Q_SCALES(p)              bf16 as floats
 *   Q_FLOAT_LOAD_N(p, n), Q_FLOAT_STORE_N(p, f, n)
 *   Q_KEEP(v)                nothing, but v counts as used
 *   Q_PACE                   steps that every vector of weights takes at least; 0 where a step is slow anyway
 *   TILE_M, TILE_V           rows and vectors of a tile, so that its sums and operands fit the registers
 *
 * Up to CHUNK rows walk through the groups of a panel together: a group of weights comes from memory once and
 * stays in the first cache while tile after tile takes it. The integer sums of a group live in registers, the
 * floats between groups in memory that never leaves the first cache. */

enum {
    Q(CHUNK) = 32,
    Q(STREAMED) = 8, /* so few rows stream the weights: the processor fetches ahead best by itself */
    Q(GROUP_BYTES) = Q_BITS == 8 ? PM_INT8_GROUP_BYTES : PM_INT4_GROUP_BYTES
};

/* mr rows of one group: x [mr][64], x_scales [mr], corrections [mr], sums [mr][64]. */
PM_INLINE void Q(tile)(const int mr, const uint8_t *group, const int8_t *x, const float *x_scales,
                       const int32_t *corrections, float *sums)
{
    /* Loads that run far ahead of their use take the places in which the processor fetches ahead: with three
     * steps a vector, weights come from memory 10 to 25 % faster than with one. So row 0 counts again. */
    const int steps = mr < Q_PACE ? Q_PACE : mr;
    for (int column = 0; column < PM_PANEL_QUANT; column += TILE_V * QL, sums += TILE_V * QL) {
        QI a[TILE_M][TILE_V];
        const uint8_t *scales = group + 2 * column, *w = group + PM_QUANT_SCALE_BYTES + 4 * column;
        for (int line = 0; line < 2 * TILE_V * QL; line += 64)
            __builtin_prefetch(scales + line); /* needed last, but it stands first in the stream */
        PM_UNROLL
        for (int i = 0; i < steps; i++)
            PM_UNROLL
        for (int j = 0; j < TILE_V; j++)
            a[i][j] = Q_SET1(corrections[i < mr ? i : 0]);
        PM_NO_UNROLL
        for (int t = 0; t < PM_QUANT_GROUP / 4 * Q_BITS / 8; t++, w += PM_PANEL_QUANT * 4) {
#if Q_BITS == 8
            QW b[TILE_V];
            PM_UNROLL
            for (int j = 0; j < TILE_V; j++) {
                QI bytes = Q_LOAD(w + j * QL * 4);
                Q_IN_ORDER(bytes);
                b[j] = Q_WEIGHTS(bytes);
            }
            PM_UNROLL
            for (int i = 0; i < steps; i++) {
                QX v = Q_LOAD_X(x + (i < mr ? i : 0) * PM_QUANT_GROUP + 4 * t);
                PM_UNROLL
                for (int j = 0; j < TILE_V; j++)
                    a[i][j] = Q_STEP(a[i][j], b[j], v);
            }
#else
            QW low[TILE_V], high[TILE_V];
            PM_UNROLL
            for (int j = 0; j < TILE_V; j++) {
                QI both = Q_LOAD(w + j * QL * 4);
                Q_IN_ORDER(both);
                low[j] = Q_LOW4(both);
                high[j] = Q_HIGH4(both);
            }
            PM_UNROLL
            for (int i = 0; i < steps; i++) {
                QX v = Q_LOAD_X(x + (i < mr ? i : 0) * PM_QUANT_GROUP + 4 * t);
                PM_UNROLL
                for (int j = 0; j < TILE_V; j++)
                    a[i][j] = Q_STEP(a[i][j], low[j], v);
                v = Q_LOAD_X(x + (i < mr ? i : 0) * PM_QUANT_GROUP + PM_QUANT_GROUP / 2 + 4 * t);
                PM_UNROLL
                for (int j = 0; j < TILE_V; j++)
                    a[i][j] = Q_STEP(a[i][j], high[j], v);
            }
#endif
        }
        PM_UNROLL
        for (int i = 0; i < steps; i++)
            PM_UNROLL
        for (int j = 0; j < TILE_V; j++)
            Q_KEEP(a[i][j]);
        PM_UNROLL
        for (int j = 0; j < TILE_V; j++) {
            QF scale = Q_SCALES(scales + 2 * j * QL);
            PM_UNROLL
            for (int i = 0; i < mr; i++) {
                float *sum = sums + (size_t)i * PM_PANEL_QUANT + j * QL;
                QF factor = Q_MUL(scale, Q_FLOAT_SET1(x_scales[i]));
                Q_FLOAT_STORE(sum, Q_FMA(Q_FLOAT(a[i][j]), factor, Q_FLOAT_LOAD(sum)));
            }
        }
    }
}

#define TILE_OF(m)                                                                                           \
    static __attribute__((noinline)) void Q(tile_##m)(const uint8_t *group, const int8_t *x,                 \
                                                      const float *x_scales, const int32_t *corrections,     \
                                                      float *sums)                                           \
    {                                                                                                        \
        Q(tile)(m, group, x, x_scales, corrections, sums);                                                   \
    }
TILE_OF(1)
TILE_OF(2)
TILE_OF(3)
TILE_OF(4)
#undef TILE_OF

/* Rows of finished sums. */
PM_INLINE void Q(put)(const struct pm_gemm_quant *g, int row, int count, const float *sums)
{
    for (int r = 0; r < count; r++, sums += PM_PANEL_QUANT) {
        float *out = g->out + (size_t)(row + r) * g->out_stride;
        for (int j = 0; j < g->columns; j += QL) {
            int left = g->columns - j;
            QF value = Q_FLOAT_LOAD(sums + j);
            if (g->add)
                value = Q_ADD(Q_FLOAT_LOAD_N(out + j, left), value);
            if (left >= QL)
                Q_FLOAT_STORE(out + j, value);
            else
                Q_FLOAT_STORE_N(out + j, value, left);
        }
    }
}

/* Fetches what tile r takes of the work of fetching the next group, and its own inputs of that group. */
PM_INLINE void Q(fetch_next)(const uint8_t *group, const int8_t *x, size_t x_step, int r, int mr, int chunk)
{
    const int lines = Q(GROUP_BYTES) / 64, end = (r + mr) * lines / chunk;
    for (int line = r * lines / chunk; line < end; line++)
        __builtin_prefetch(group + Q(GROUP_BYTES) + line * 64);
    for (int i = 0; i < mr; i++)
        __builtin_prefetch(x + x_step + (r + i) * PM_QUANT_GROUP);
}

/* Fetches the lines that results will go to. */
PM_INLINE void Q(fetch_out)(const struct pm_gemm_quant *g, int row, int count)
{
    for (int r = row; r < row + count; r++)
        for (int j = 0; j < g->columns; j += 16)
            __builtin_prefetch(g->out + (size_t)r * g->out_stride + j, 1);
}

/* Rows [row, row + chunk) over a whole panel. What is finished leaves tile by tile: stores wait for their
 * lines while the next tile computes. */
static void Q(walk)(const struct pm_gemm_quant *g, int row, int chunk, float *sums)
{
    static void (*const tiles[])(const uint8_t *, const int8_t *, const float *, const int32_t *,
                                 float *) = {Q(tile_1), Q(tile_2), Q(tile_3), Q(tile_4)};
    const struct pm_quant_rows *rows = g->x;
    const uint8_t *group = g->panel;
    const size_t count = (size_t)rows->rows;
    const int8_t *x = rows->values + (size_t)row * PM_QUANT_GROUP;
    const float *x_scales = rows->scales + row;
    const int32_t *corrections = rows->corrections + row;
    for (int left = rows->groups; left > 0; left--) {
        for (int r = 0; r < chunk; r += TILE_M) {
            int mr = chunk - r < TILE_M ? chunk - r : TILE_M;
            if (chunk > Q(STREAMED) && left > 1)
                Q(fetch_next)(group, x, count * PM_QUANT_GROUP, r, mr, chunk);
            if (left == 2)
                Q(fetch_out)(g, row + r, mr);
            tiles[mr - 1](group, x + r * PM_QUANT_GROUP, x_scales + r, corrections + r,
                          sums + r * PM_PANEL_QUANT);
            if (left == 1)
                Q(put)(g, row + r, mr, sums + r * PM_PANEL_QUANT);
        }
        group += Q(GROUP_BYTES);
        x += count * PM_QUANT_GROUP;
        x_scales += count;
        corrections += count;
    }
}

static void Q(gemm)(const struct pm_gemm_quant *g)
{
    const int rows = g->x->rows;
    pm_check_gemm_quant(g, Q(GROUP_BYTES));
    for (int row = 0; row < rows; row += Q(CHUNK)) {
        int chunk = rows - row < Q(CHUNK) ? rows - row : Q(CHUNK);
        _Alignas(64) float sums[Q(CHUNK) * PM_PANEL_QUANT];
        if (g->bias)
            for (int r = 0; r < chunk; r++)
                memcpy(sums + r * PM_PANEL_QUANT, g->bias, PM_PANEL_QUANT * sizeof *sums);
        else
            memset(sums, 0, (size_t)chunk * PM_PANEL_QUANT * sizeof *sums);
        Q(walk)(g, row, chunk, sums);
    }
}

#undef Q
#undef Q_BITS
#undef QX
#undef QW
#undef Q_LOAD_X
#undef Q_WEIGHTS
#undef Q_STEP
#undef Q_PACE
#undef TILE_M
#undef TILE_V
