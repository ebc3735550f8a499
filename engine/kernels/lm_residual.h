/* The kernels of the residual stream and of positions, which are f32 in every precision. */

static void vec_layer_norm(float *x, size_t stride, int rows, int n, const float *weight, const float *bias,
                           float eps)
{
    pm_check_rows(x, stride, rows, n, sizeof *x);
    pm_check_floats(weight, (size_t)n);
    pm_check_floats(bias, (size_t)n);
    for (int r = 0; r < rows; r++, x += stride) {
        VF sum = V_SET1(0.0f), squares = sum;
        for (int i = 0; i < n; i += VL)
            sum = V_ADD(sum, lm_load(x, i, n));
        VF mean = V_SET1(V_HSUM(sum) / (float)n);
        int i = 0;
        for (; i + VL <= n; i += VL) {
            VF d = V_SUB(V_LOAD(x + i), mean);
            squares = V_FMA(d, d, squares);
        }
        float rest = 0;
        for (; i < n; i++) {
            float d = x[i] - V_FIRST(mean);
            rest += d * d;
        }
        VF factor = V_SET1(1.0f / sqrtf((V_HSUM(squares) + rest) / (float)n + eps));
        for (i = 0; i < n; i += VL) {
            VF v = V_MUL(V_SUB(lm_load(x, i, n), mean), factor);
            lm_store(x, V_FMA(v, lm_load(weight, i, n), lm_load(bias, i, n)), i, n);
        }
    }
}

static void vec_add_rms_norm(const float *x, size_t x_stride, int rows, int n, const float *weight, float eps,
                             float *out, size_t out_stride)
{
    pm_check_rows(x, x_stride, rows, n, sizeof *x);
    pm_check_rows(out, out_stride, rows, n, sizeof *out);
    pm_check_floats(weight, (size_t)n);
    for (int r = 0; r < rows; r++, x += x_stride, out += out_stride) {
        VF factor = V_SET1(lm_rms_factor(x, n, eps));
        for (int i = 0; i < n; i += VL) {
            VF v = V_MUL(lm_load(x, i, n), factor);
            lm_store(out, V_FMA(v, lm_load(weight, i, n), lm_load(out, i, n)), i, n);
        }
    }
}

static void vec_rope_interleaved(float *x, int heads, int dim, int pairs, const float *cosines,
                                 const float *sines)
{
    pm_check_rows(x, (size_t)dim, heads, 2 * pairs, sizeof *x);
    pm_check_floats(cosines, (size_t)pairs);
    pm_check_floats(sines, (size_t)pairs);
    for (int h = 0; h < heads; h++, x += dim)
        for (int p = 0; p < pairs; p += VL / 2) {
            int count = pairs - p < VL / 2 ? pairs - p : VL / 2;
            VF v = lm_load(x, 2 * p, 2 * (p + count));
            VF c = v_twice(lm_load(cosines, p, p + count)), s = v_twice(lm_load(sines, p, p + count));
            /* even: a cos - b sin; odd: b cos + a sin */
            lm_store(x, v_turn(v, c, V_MUL(v_swap_pairs(v), s)), 2 * p, 2 * (p + count));
        }
}

static void vec_rope_half_split(float *x, int heads, int dim, int pairs, const float *cosines,
                                const float *sines)
{
    pm_check_rows(x, (size_t)dim, heads, 2 * pairs, sizeof *x);
    pm_check_floats(cosines, (size_t)pairs);
    pm_check_floats(sines, (size_t)pairs);
    for (int h = 0; h < heads; h++, x += dim)
        for (int p = 0; p < pairs; p += VL) {
            VF a = lm_load(x, p, pairs), b = lm_load(x + pairs, p, pairs);
            VF c = lm_load(cosines, p, pairs), s = lm_load(sines, p, pairs);
            lm_store(x, V_FNMA(b, s, V_MUL(a, c)), p, pairs);
            lm_store(x + pairs, V_FMA(a, s, V_MUL(b, c)), p, pairs);
        }
}
