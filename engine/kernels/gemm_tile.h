/* The micro-kernel of the panel product, written once for any vector type: include after defining
 *
 *   TILE(name)     the function's name with a suffix
 *   TV, TL         vector type and its lanes
 *   T_LOAD, T_STORE, T_SET1, T_FMA, T_ADD, T_MAX, T_LOAD_N(p, n), T_STORE_N(p, v, n)
 *
 * mr rows by nv vectors of sums live in registers for the whole of k: every k step loads nv vectors of the
 * panel and broadcasts mr inputs for mr * nv multiply-adds. mr and nv are constants after inlining and every
 * loop over them is unrolled; both compilers then keep the sums in registers, as long as no index into
 * them depends on anything but such a loop (clang 14 keeps the whole array on the stack otherwise, at 40 % of
 * the rate; bench/engine shows it). */
PM_INLINE void TILE(tile)(const int mr, const int nv, const struct pm_gemm *g, int row, int column)
{
    TV a[8][3];
    const size_t width = (size_t)g->width, stride = g->x_stride;
    const float *w = g->panel + column;
    PM_UNROLL
    for (int i = 0; i < mr; i++)
        PM_UNROLL
    for (int j = 0; j < nv; j++)
        a[i][j] = T_LOAD(w + j * TL);
    w += width;
    const int taps = g->taps, k_end = g->k;
    for (int t = 0; t < taps; t++) {
        const float *x = g->x[t] + (size_t)row * stride;
        for (int k = 0; k < k_end; k++, w += width, x++) {
            TV b[3];
            PM_UNROLL
            for (int j = 0; j < nv; j++)
                b[j] = T_LOAD(w + j * TL);
            PM_UNROLL
            for (int i = 0; i < mr; i++) {
                TV v = T_SET1(x[(size_t)i * stride]);
                PM_UNROLL
                for (int j = 0; j < nv; j++)
                    a[i][j] = T_FMA(v, b[j], a[i][j]);
            }
        }
    }
    if (g->act == PM_ACT_RELU)
        PM_UNROLL
    for (int i = 0; i < mr; i++)
        PM_UNROLL
    for (int j = 0; j < nv; j++)
        a[i][j] = T_MAX(a[i][j], T_SET1(0.0f));
    float *out = g->out + (size_t)row * g->out_stride + column;
    const float *residual =
        g->residual && g->act <= PM_ACT_RELU ? g->residual + (size_t)row * g->residual_stride + column : NULL;
    if (column + nv * TL <= g->columns) {
        if (residual)
            PM_UNROLL
        for (int i = 0; i < mr; i++)
            PM_UNROLL
        for (int j = 0; j < nv; j++)
            a[i][j] = T_ADD(a[i][j], T_LOAD(residual + (size_t)i * g->residual_stride + j * TL));
        PM_UNROLL
        for (int i = 0; i < mr; i++)
            PM_UNROLL
        for (int j = 0; j < nv; j++)
            T_STORE(out + (size_t)i * g->out_stride + j * TL, a[i][j]);
    } else {
        /* The last panel may have fewer columns than it is wide. */
        float block[8 * 3 * TL];
        PM_UNROLL
        for (int i = 0; i < mr; i++)
            PM_UNROLL
        for (int j = 0; j < nv; j++)
            T_STORE(block + (i * nv + j) * TL, a[i][j]);
        for (int i = 0; i < mr; i++)
            for (int j = 0; j < nv && column + j * TL < g->columns; j++) {
                int left = g->columns - column - j * TL, n = left < TL ? left : TL;
                TV v = T_LOAD(block + (i * nv + j) * TL);
                if (residual)
                    v = T_ADD(v, T_LOAD_N(residual + (size_t)i * g->residual_stride + j * TL, n));
                T_STORE_N(out + (size_t)i * g->out_stride + j * TL, v, n);
            }
    }
}

#define TILE_CASE(m)                                                                                         \
    case m:                                                                                                  \
        TILE(tile)(m, nv, g, row, column);                                                                   \
        break

PM_INLINE void TILE(rows)(const int nv, const struct pm_gemm *g, int row, int rows, int column)
{
    switch (rows) {
        TILE_CASE(1);
        TILE_CASE(2);
        TILE_CASE(3);
        TILE_CASE(4);
#if TILE_ROWS == 8
        TILE_CASE(5);
        TILE_CASE(6);
        TILE_CASE(7);
        TILE_CASE(8);
#endif
    default:
        break;
    }
}
#undef TILE_CASE

static __attribute__((noinline, unused)) void TILE(rows1)(const struct pm_gemm *g, int row, int rows,
                                                          int column)
{
    TILE(rows)(1, g, row, rows, column);
}

static __attribute__((noinline, unused)) void TILE(rows2)(const struct pm_gemm *g, int row, int rows,
                                                          int column)
{
    TILE(rows)(2, g, row, rows, column);
}

static __attribute__((noinline, unused)) void TILE(rows3)(const struct pm_gemm *g, int row, int rows,
                                                          int column)
{
    TILE(rows)(3, g, row, rows, column);
}
