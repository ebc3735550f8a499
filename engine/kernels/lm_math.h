/* Exponentials and row sums of the language-model kernels, over the vector type of vector_body.h. Everything
 * here treats a row (or a lane) by itself. */

/* e^x to 1 ulp or so, from e^-87 to e^88: ln 2 in two parts, then a minimax polynomial of degree 6 (its own
 * relative error is 3e-9). */
PM_INLINE VF lm_exp(VF x)
{
    x = V_MIN(V_MAX(x, V_SET1(-87.0f)), V_SET1(88.0f));
    VF n = V_ROUND(V_MUL(x, V_SET1(1.44269504f)));
    VF r = V_FNMA(n, V_SET1(0.693359375f), x);
    r = V_FNMA(n, V_SET1(-2.12194440e-4f), r);
    VF p = V_FMA(r, V_SET1(1.381460077e-03f), V_SET1(8.368715547e-03f));
    p = V_FMA(p, r, V_SET1(4.166838793e-02f));
    p = V_FMA(p, r, V_SET1(1.666652064e-01f));
    p = V_FMA(p, r, V_SET1(4.999999345e-01f));
    p = V_ADD(V_FMA(V_MUL(p, r), r, r), V_SET1(1.0f));
    return V_SCALE2(p, n);
}

/* 2^x for x <= 0, exactly 1 at 0 and exactly 0 for x <= LM_EXP2_LOW (minus infinity too). A minimax
 * polynomial with a relative error of 2e-9 before rounding. */
PM_INLINE VF lm_exp2(VF x)
{
    x = V_MAX(x, V_SET1(LM_EXP2_LOW));
    VF n = V_ROUND(x), f = V_SUB(x, n);
    VF p = V_FMA(f, V_SET1(1.535336101e-04f), V_SET1(1.339887525e-03f));
    p = V_FMA(p, f, V_SET1(9.618437368e-03f));
    p = V_FMA(p, f, V_SET1(5.550332469e-02f));
    p = V_FMA(p, f, V_SET1(2.402264791e-01f));
    p = V_FMA(p, f, V_SET1(6.931472029e-01f));
    return V_SCALE2(V_FMA(p, f, V_SET1(1.0f)), n);
}

/* The same for what is rounded to bf16 next: a relative error of 9e-5, a twentieth of that rounding. */
PM_INLINE VF lm_exp2_short(VF x)
{
    VF f = V_SPLIT2(x);
    VF p = V_FMA(f, V_SET1(7.706705932e-02f), V_SET1(2.276449723e-01f));
    p = V_FMA(p, f, V_SET1(6.951167908e-01f));
    return V_SCALE2_FLOOR(V_FMA(p, f, V_SET1(1.0f)), x);
}

PM_INLINE VF lm_silu(VF x)
{
    return V_DIV(x, V_ADD(V_SET1(1.0f), lm_exp(V_SUB(V_SET1(0.0f), x))));
}

PM_INLINE VF lm_load(const float *x, int i, int n)
{
    return i + VL <= n ? V_LOAD(x + i) : V_LOAD_N(x + i, n - i);
}

PM_INLINE void lm_store(float *x, VF v, int i, int n)
{
    if (i + VL <= n)
        V_STORE(x + i, v);
    else
        V_STORE_N(x + i, v, n - i);
}

/* 1 / rms of a row. */
PM_INLINE float lm_rms_factor(const float *x, int n, float eps)
{
    VF a = V_SET1(0.0f), b = a;
    int i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        VF v = V_LOAD(x + i), w = V_LOAD(x + i + VL);
        a = V_FMA(v, v, a);
        b = V_FMA(w, w, b);
    }
    for (; i < n; i += VL) {
        VF v = lm_load(x, i, n);
        a = V_FMA(v, v, a);
    }
    return 1.0f / sqrtf(V_HSUM(V_ADD(a, b)) / (float)n + eps);
}
