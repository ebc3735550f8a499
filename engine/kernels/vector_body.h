/* Every kernel but the micro-kernel of the product, written once over a vector type. Include after defining
 *
 *   VF, VL                    vector of floats and its lanes (8 or 16)
 *   V_LOAD V_STORE V_SET1 V_ADD V_SUB V_MUL V_DIV V_MAX V_MIN V_FMA(a, b, c) V_FNMA(a, b, c)
 *   V_LOAD_N(p, n), V_STORE_N(p, v, n)     the first n lanes; the others read as 0
 *   V_ROUND(v), V_SCALE2(v, n)             nearest integer, v * 2^n for integral n in -127..127
 *   V_MASK, V_GT(a, b), V_BITS(mask), V_BLEND(mask, if_set, if_clear), V_HMAX(v), V_HSUM(v), V_BYTES(p)
 *   DW_BLOCK                  outputs of a depthwise row held in registers
 */

PM_INLINE VF v_exp(VF x)
{
    x = V_MIN(V_MAX(x, V_SET1(-87.0f)), V_SET1(88.0f));
    VF n = V_ROUND(V_MUL(x, V_SET1(1.44269504f)));
    VF r = V_FNMA(n, V_SET1(0.693359375f), x);
    r = V_FNMA(n, V_SET1(-2.12194440e-4f), r);
    VF p = V_FMA(r, V_SET1(8.312525049e-03f), V_SET1(4.189011343e-02f));
    p = V_FMA(p, r, V_SET1(1.666711446e-01f));
    p = V_FMA(p, r, V_SET1(4.999923179e-01f));
    p = V_FMA(V_MUL(p, r), r, V_ADD(r, V_SET1(1.0f)));
    return V_SCALE2(p, n);
}

/* x/2 (1 + erf(x / sqrt 2)). erf(x / sqrt 2) / x is even: a polynomial of degree 12 in u = 2 x^2 / 5.2^2 - 1,
 * minimax over |x| <= 5.2 (Lawson's iteration on Chebyshev points), beyond which erf is 1 to 2e-7. */
PM_INLINE VF v_gelu(VF x)
{
    VF z = V_MIN(V_MAX(x, V_SET1(-5.2f)), V_SET1(5.2f));
    VF u = V_FMA(V_MUL(z, z), V_SET1(0.07396449704f), V_SET1(-1.0f));
    VF p = V_FMA(u, V_SET1(1.762123530e-03f), V_SET1(-5.063379765e-03f));
    p = V_FMA(p, u, V_SET1(5.622008214e-03f));
    p = V_FMA(p, u, V_SET1(-6.893200986e-03f));
    p = V_FMA(p, u, V_SET1(1.516842397e-02f));
    p = V_FMA(p, u, V_SET1(-2.629509361e-02f));
    p = V_FMA(p, u, V_SET1(3.676389193e-02f));
    p = V_FMA(p, u, V_SET1(-4.915884034e-02f));
    p = V_FMA(p, u, V_SET1(6.381414464e-02f));
    p = V_FMA(p, u, V_SET1(-7.988606502e-02f));
    p = V_FMA(p, u, V_SET1(1.000605246e-01f));
    p = V_FMA(p, u, V_SET1(-1.354866909e-01f));
    p = V_FMA(p, u, V_SET1(2.718998612e-01f));
    VF half = V_MUL(x, V_SET1(0.5f));
    return V_FMA(half, V_MUL(z, p), half);
}

PM_INLINE VF v_act(VF x, const enum pm_act act)
{
    switch (act) {
    case PM_ACT_RELU:
        return V_MAX(x, V_SET1(0.0f));
    case PM_ACT_GELU:
        return v_gelu(x);
    case PM_ACT_SWISH:
        return V_DIV(x, V_ADD(V_SET1(1.0f), v_exp(V_SUB(V_SET1(0.0f), x))));
    case PM_ACT_HSWISH:
        return V_MUL(V_MUL(x, V_MIN(V_MAX(V_ADD(x, V_SET1(3.0f)), V_SET1(0.0f)), V_SET1(6.0f))),
                     V_SET1(1.0f / 6.0f));
    case PM_ACT_SIGMOID:
        return V_DIV(V_SET1(1.0f), V_ADD(V_SET1(1.0f), v_exp(V_SUB(V_SET1(0.0f), x))));
    case PM_ACT_NONE:
        break;
    }
    return x;
}

PM_INLINE void act_span(float *x, size_t n, const enum pm_act act)
{
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        V_STORE(x + i, v_act(V_LOAD(x + i), act));
    if (i < n)
        V_STORE_N(x + i, v_act(V_LOAD_N(x + i, (int)(n - i)), act), (int)(n - i));
}

static void vec_activate(float *x, size_t n, enum pm_act act)
{
    pm_check_floats(x, n);
    switch (act) {
    case PM_ACT_RELU:
        act_span(x, n, PM_ACT_RELU);
        break;
    case PM_ACT_GELU:
        act_span(x, n, PM_ACT_GELU);
        break;
    case PM_ACT_SWISH:
        act_span(x, n, PM_ACT_SWISH);
        break;
    case PM_ACT_HSWISH:
        act_span(x, n, PM_ACT_HSWISH);
        break;
    case PM_ACT_SIGMOID:
        act_span(x, n, PM_ACT_SIGMOID);
        break;
    case PM_ACT_NONE:
        break;
    }
}

/* The activations that the micro-kernel leaves to do, on the block that it just wrote (still in L1). */
static void finish_block(const struct pm_gemm *g, int row, int rows)
{
    for (int r = row; r < row + rows; r++) {
        float *out = g->out + (size_t)r * g->out_stride;
        vec_activate(out, (size_t)g->columns, g->act);
        if (!g->residual)
            continue;
        const float *residual = g->residual + (size_t)r * g->residual_stride;
        for (int c = 0; c < g->columns; c += VL) {
            int n = g->columns - c < VL ? g->columns - c : VL;
            V_STORE_N(out + c, V_ADD(V_LOAD_N(out + c, n), V_LOAD_N(residual + c, n)), n);
        }
    }
}

/* nx outputs of one channel vector: kw and stride are constants, so which input column feeds which output is
 * known when compiling; every input vector is loaded once a kernel row. */
PM_INLINE void dw_block(const int kw, const int stride, const int nx, const struct pm_dw *d, int x, int lanes,
                        size_t c, float *out)
{
    size_t channels = (size_t)d->channels;
    size_t padded = (channels + PM_DW_LANES - 1) / PM_DW_LANES * PM_DW_LANES;
    const float *w = d->weights + c;
    VF a[DW_BLOCK];
    PM_UNROLL
    for (int i = 0; i < nx; i++)
        a[i] = V_LOAD(w);
    for (int ky = 0; ky < d->kh; ky++) {
        if (!d->in[ky])
            continue;
        VF tap[7];
        PM_UNROLL
        for (int kx = 0; kx < kw; kx++)
            tap[kx] = V_LOAD(w + (size_t)(1 + ky * kw + kx) * padded);
        const float *in = d->in[ky] + (size_t)(x * stride - kw / 2) * channels + c;
        PM_UNROLL
        for (int ix = 0; ix < (nx - 1) * stride + kw; ix++) {
            const float *p = in + (size_t)ix * channels;
            VF v = lanes == VL ? V_LOAD(p) : V_LOAD_N(p, lanes);
            PM_UNROLL
            for (int kx = 0; kx < kw; kx++)
                if (ix >= kx && (ix - kx) % stride == 0 && (ix - kx) / stride < nx)
                    a[(ix - kx) / stride] = V_FMA(v, tap[kx], a[(ix - kx) / stride]);
        }
    }
    PM_UNROLL
    for (int i = 0; i < nx; i++) {
        if (lanes == VL)
            V_STORE(out + (size_t)i * channels, a[i]);
        else
            V_STORE_N(out + (size_t)i * channels, a[i], lanes);
    }
}

/* One output with bounds checked: the borders, and kernels of other sizes. */
static void dw_one(const struct pm_dw *d, int x, float *out)
{
    size_t channels = (size_t)d->channels;
    size_t padded = (channels + PM_DW_LANES - 1) / PM_DW_LANES * PM_DW_LANES;
    for (size_t c = 0; c < channels; c += VL) {
        int lanes = channels - c < VL ? (int)(channels - c) : VL;
        VF a = V_LOAD(d->weights + c);
        for (int ky = 0; ky < d->kh; ky++)
            for (int kx = 0; kx < d->kw; kx++) {
                int ix = x * d->stride_x - d->kw / 2 + kx;
                if (!d->in[ky] || ix < 0 || ix >= d->in_width)
                    continue;
                const float *p = d->in[ky] + (size_t)ix * channels + c;
                VF v = lanes == VL ? V_LOAD(p) : V_LOAD_N(p, lanes);
                a = V_FMA(v, V_LOAD(d->weights + (size_t)(1 + ky * d->kw + kx) * padded + c), a);
            }
        V_STORE_N(out + c, a, lanes);
    }
}

PM_INLINE void dw_span(const int kw, const int stride, const int nx, const struct pm_dw *d, int x, float *out)
{
    int channels = d->channels, c = 0;
    for (; c + VL <= channels; c += VL)
        dw_block(kw, stride, nx, d, x, VL, (size_t)c, out + c);
    if (c < channels)
        dw_block(kw, stride, nx, d, x, channels - c, (size_t)c, out + c);
}

PM_INLINE void dw_row(const int kw, const int stride, const struct pm_dw *d)
{
    int x = d->x_begin;
    float *out = d->out;
    while (x < d->x_end) {
        int left = x * stride - kw / 2;
        /* the largest block whose inputs all lie inside the row */
        int inside = left < 0 ? 0 : (d->in_width - kw - left) / stride + 1;
        if (d->in_width - kw - left < 0)
            inside = 0;
        int room = d->x_end - x < inside ? d->x_end - x : inside;
        int nx = room >= DW_BLOCK ? DW_BLOCK : room >= 4 ? 4 : 1;
        if (!inside)
            dw_one(d, x, out);
        else if (nx == DW_BLOCK)
            dw_span(kw, stride, DW_BLOCK, d, x, out);
        else if (nx == 4)
            dw_span(kw, stride, 4, d, x, out);
        else
            dw_one(d, x, out);
        x += nx;
        out += (size_t)nx * (size_t)d->channels;
    }
}

static __attribute__((noinline)) void dw_row_3_1(const struct pm_dw *d)
{
    dw_row(3, 1, d);
}

static __attribute__((noinline)) void dw_row_3_2(const struct pm_dw *d)
{
    dw_row(3, 2, d);
}

static __attribute__((noinline)) void dw_row_5_1(const struct pm_dw *d)
{
    dw_row(5, 1, d);
}

static __attribute__((noinline)) void dw_row_7_1(const struct pm_dw *d)
{
    dw_row(7, 1, d);
}

static void vec_depthwise(const struct pm_dw *d)
{
    pm_check_depthwise(d);
    if (d->kw == 3 && d->stride_x == 1)
        dw_row_3_1(d);
    else if (d->kw == 3 && d->stride_x == 2)
        dw_row_3_2(d);
    else if (d->kw == 5 && d->stride_x == 1)
        dw_row_5_1(d);
    else if (d->kw == 7 && d->stride_x == 1)
        dw_row_7_1(d);
    else
        for (int x = d->x_begin; x < d->x_end; x++)
            dw_one(d, x, d->out + (size_t)(x - d->x_begin) * (size_t)d->channels);
}

static void vec_scale_rows(float *x, int rows, int channels, const float *gate)
{
    pm_check_floats(x, (size_t)rows * (size_t)channels);
    pm_check_floats(gate, (size_t)channels);
    for (int r = 0; r < rows; r++, x += channels) {
        int c = 0;
        for (; c + VL <= channels; c += VL)
            V_STORE(x + c, V_MUL(V_LOAD(x + c), V_LOAD(gate + c)));
        if (c < channels)
            V_STORE_N(x + c, V_MUL(V_LOAD_N(x + c, channels - c), V_LOAD_N(gate + c, channels - c)),
                      channels - c);
    }
}

static void vec_sum_rows(const float *x, int rows, int channels, float *sum)
{
    pm_check_floats(x, (size_t)rows * (size_t)channels);
    pm_check_floats(sum, (size_t)channels);
    for (int r = 0; r < rows; r++, x += channels) {
        int c = 0;
        for (; c + VL <= channels; c += VL)
            V_STORE(sum + c, V_ADD(V_LOAD(sum + c), V_LOAD(x + c)));
        if (c < channels)
            V_STORE_N(sum + c, V_ADD(V_LOAD_N(sum + c, channels - c), V_LOAD_N(x + c, channels - c)),
                      channels - c);
    }
}

static void vec_max_2x2(const float *a, const float *b, int pixels, int channels, float *out,
                        size_t out_stride)
{
    pm_check_floats(a, (size_t)(pixels + 1) * (size_t)channels);
    pm_check_floats(b, (size_t)(pixels + 1) * (size_t)channels);
    pm_check_floats(out, (size_t)(pixels - 1) * out_stride + (size_t)channels);
    for (int p = 0; p < pixels; p++, a += channels, b += channels, out += out_stride)
        for (int c = 0; c < channels; c += VL) {
            int n = channels - c < VL ? channels - c : VL;
            VF top = V_MAX(V_LOAD_N(a + c, n), V_LOAD_N(a + c + channels, n));
            VF low = V_MAX(V_LOAD_N(b + c, n), V_LOAD_N(b + c + channels, n));
            V_STORE_N(out + c, V_MAX(top, low), n);
        }
}

static void vec_normalise(const uint8_t *bytes, size_t n, float *out)
{
    pm_check_floats(out, n);
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        V_STORE(out + i, V_FMA(V_BYTES(bytes + i), V_SET1(2.0f / 255.0f), V_SET1(-1.0f)));
    for (; i < n; i++)
        out[i] = (float)bytes[i] * (2.0f / 255.0f) - 1.0f;
}

static float vec_exp_row(float *x, int n)
{
    pm_check_floats(x, (size_t)n);
    VF top = V_SET1(x[0]), sum = V_SET1(0.0f);
    int i = 0;
    for (; i + VL <= n; i += VL)
        top = V_MAX(top, V_LOAD(x + i));
    float best = V_HMAX(top);
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    top = V_SET1(best);
    for (i = 0; i + VL <= n; i += VL) {
        VF e = v_exp(V_SUB(V_LOAD(x + i), top));
        V_STORE(x + i, e);
        sum = V_ADD(sum, e);
    }
    float total = V_HSUM(sum);
    if (i < n) {
        V_STORE_N(x + i, v_exp(V_SUB(V_LOAD_N(x + i, n - i), top)), n - i);
        for (; i < n; i++)
            total += x[i];
    }
    return total;
}

static void vec_softmax_step(const float *logits, size_t stride, int rows, int columns, int first_index,
                             struct pm_softmax_lanes *lanes)
{
    pm_check_floats(logits, (size_t)(rows - 1) * stride + (size_t)columns);
    for (int r = 0; r < rows; r++, logits += stride, lanes++)
        for (int lane = 0; lane < 16; lane += VL) {
            VF top = V_LOAD(lanes->max + lane), sum = V_LOAD(lanes->sum + lane);
            for (int j = lane; j < columns; j += 16) {
                int n = columns - j < VL ? columns - j : VL;
                VF l = V_LOAD_N(logits + j, n);
                if (n < VL)
                    l = V_BLEND(V_GT(V_SET1((float)n), v_lane_numbers()), l, V_SET1(-3.0e38f));
                V_MASK better = V_GT(l, top);
                unsigned bits = V_BITS(better);
                if (bits) {
                    VF next = V_BLEND(better, l, top);
                    sum = V_MUL(sum, v_exp(V_SUB(top, next)));
                    top = next;
                    for (; bits; bits &= bits - 1)
                        lanes->index[lane + __builtin_ctz(bits)] = first_index + j + __builtin_ctz(bits);
                }
                sum = V_ADD(sum, v_exp(V_SUB(l, top)));
            }
            V_STORE(lanes->max + lane, top);
            V_STORE(lanes->sum + lane, sum);
        }
}
