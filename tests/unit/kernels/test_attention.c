/* Attention: right against softmax in double precision, and every row the same bits whatever stands beside it
 * and whatever lies after its limit. */
#include "tests/unit/kernels/common.h"

enum { BLOCK = PM_ATTENTION_BLOCK };

struct cache {
    int dim, keys_count, blocks;
    bool is_bf16;
    float *keys, *values; /* as the blocks hold them: [keys_count][dim] */
    void **key_blocks, **value_blocks;
};

static const struct pm_lm_kernels *lm(const struct pm_kernels *kernels, bool is_bf16)
{
    return is_bf16 ? kernels->bf16 : kernels->f32;
}

static float as_stored(float value, bool is_bf16)
{
    return is_bf16 ? pm_bf16_to_f32(pm_bf16_from_f32(value)) : value;
}

/* Writes all keys and values in runs of odd lengths; slots after the last hold finite rubbish. */
static struct cache make_cache(const struct pm_kernels *kernels, bool is_bf16, int dim, int count)
{
    struct cache c = {.dim = dim, .keys_count = count, .is_bf16 = is_bf16, .blocks = (count - 1) / BLOCK + 1};
    size_t all = (size_t)count * (size_t)dim;
    c.keys = floats(all);
    c.values = floats(all);
    c.key_blocks = bytes((size_t)c.blocks * sizeof *c.key_blocks);
    c.value_blocks = bytes((size_t)c.blocks * sizeof *c.value_blocks);
    for (int b = 0; b < c.blocks; b++) {
        c.key_blocks[b] = bytes(pm_key_block_bytes(dim, is_bf16));
        c.value_blocks[b] = bytes(pm_value_block_bytes(dim, is_bf16));
        for (int first = 0, run; first < BLOCK && b * BLOCK + first < count; first += run) {
            run = 1 + (int)number(BLOCK);
            run = run < BLOCK - first ? run : BLOCK - first;
            run = run < count - b * BLOCK - first ? run : count - b * BLOCK - first;
            size_t at = (size_t)(b * BLOCK + first) * (size_t)dim;
            lm(kernels, is_bf16)->put_keys(c.keys + at, (size_t)dim, run, dim, first, c.key_blocks[b]);
            lm(kernels, is_bf16)->put_values(c.values + at, (size_t)dim, run, dim, first, c.value_blocks[b]);
        }
    }
    for (size_t i = 0; i < all; i++) {
        c.keys[i] = as_stored(c.keys[i], is_bf16);
        c.values[i] = as_stored(c.values[i], is_bf16);
    }
    return c;
}

static void free_cache(struct cache *c)
{
    for (int b = 0; b < c->blocks; b++) {
        free(c->key_blocks[b]);
        free(c->value_blocks[b]);
    }
    free(c->key_blocks);
    free(c->value_blocks);
    free(c->keys);
    free(c->values);
}

struct queries {
    int rows, dim;
    size_t stride, value_bytes;
    void *q, *out;
    int32_t *limits;
    float scale;
};

static struct queries make_queries(const struct cache *c, int rows, float spread)
{
    struct queries q = {.rows = rows, .dim = c->dim, .stride = (size_t)c->dim + number(3)};
    size_t count = (size_t)(rows - 1) * q.stride + (size_t)c->dim;
    q.value_bytes = c->is_bf16 ? 2 : 4;
    q.scale = spread / sqrtf((float)c->dim);
    q.q = c->is_bf16 ? (void *)halves(count) : (void *)floats(count);
    q.out = bytes(count * q.value_bytes);
    q.limits = bytes((size_t)rows * sizeof *q.limits);
    for (int r = 0; r < rows; r++)
        q.limits[r] = 1 + (int)number((uint32_t)c->keys_count);
    q.limits[number((uint32_t)rows)] = c->keys_count;
    return q;
}

static void free_queries(struct queries *q)
{
    free(q->q);
    free(q->out);
    free(q->limits);
}

static void attend(const struct pm_kernels *kernels, const struct cache *c, const struct queries *q,
                   int first, int rows, void *out)
{
    const struct pm_attention a = {
        .q = (const char *)q->q + (size_t)first * q->stride * q->value_bytes,
        .q_stride = q->stride,
        .rows = rows,
        .dim = q->dim,
        .scale = q->scale,
        .keys = (const void *const *)c->key_blocks,
        .values = (const void *const *)c->value_blocks,
        .limits = q->limits + first,
        .out = out,
        .out_stride = q->stride,
    };
    lm(kernels, c->is_bf16)->attend(&a);
}

static float query_value(const struct queries *q, const void *data, int row, int d)
{
    size_t at = (size_t)row * q->stride + (size_t)d;
    return q->value_bytes == 2 ? pm_bf16_to_f32(((const uint16_t *)data)[at]) : ((const float *)data)[at];
}

/* One row in double precision. */
static void exact_row(const struct cache *c, const struct queries *q, int row, double *p, double *out)
{
    double top = -INFINITY, sum = 0;
    for (int j = 0; j < q->limits[row]; j++) {
        p[j] = 0;
        for (int d = 0; d < c->dim; d++)
            p[j] += (double)query_value(q, q->q, row, d) * (double)c->keys[j * c->dim + d];
        p[j] *= (double)q->scale;
        top = fmax(top, p[j]);
    }
    for (int d = 0; d < c->dim; d++)
        out[d] = 0;
    for (int j = 0; j < q->limits[row]; j++) {
        double e = exp(p[j] - top);
        sum += e;
        for (int d = 0; d < c->dim; d++)
            out[d] += e * (double)c->values[j * c->dim + d];
    }
    for (int d = 0; d < c->dim; d++)
        out[d] /= sum;
}

static void check_attention(const struct pm_kernels *kernels, bool is_bf16, int dim, int count, int rows,
                            float spread)
{
    struct cache c = make_cache(kernels, is_bf16, dim, count);
    struct queries q = make_queries(&c, rows, spread);
    double *p = bytes((size_t)count * sizeof *p), want[PM_HEAD_DIM_MAX];
    attend(kernels, &c, &q, 0, rows, q.out);
    for (int r = 0; r < rows; r += 1 + (int)number(3)) {
        exact_row(&c, &q, r, p, want);
        for (int d = 0; d < dim; d++) {
            /* Values are below 1. f32: rounding of scores up to `spread` and of sums. bf16: the result is
             * rounded (2^-9) and so is every probability. */
            double tolerance = is_bf16 ? 4e-3 * fabs(want[d]) + 1.5e-3 : 1e-6 + 3e-7 * (double)spread;
            check(kernels->name, is_bf16 ? "attend bf16" : "attend f32", query_value(&q, q.out, r, d),
                  want[d], tolerance);
        }
    }
    free(p);
    free_queries(&q);
    free_cache(&c);
}

static const int dims[] = {2, 6, 16, 24, 32, 64, 80, 128, 256};

static void test_attention(void **state)
{
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            check_attention(*state, is_bf16, dims[i], 1, 1, 1);
            check_attention(*state, is_bf16, dims[i], 1 + (int)number(64), 1 + (int)number(7), 3);
            check_attention(*state, is_bf16, dims[i], 100 + (int)number(900), 1 + (int)number(18), 8);
        }
    check_attention(*state, false, 64, 1100, 103, 20);
    check_attention(*state, true, 64, 1100, 103, 20);
}

/* Any run of rows, alone or together, gives the bits of all rows in one call. */
static void check_company(const struct pm_kernels *kernels, bool is_bf16, int dim, int count, int rows)
{
    struct cache c = make_cache(kernels, is_bf16, dim, count);
    struct queries q = make_queries(&c, rows, 10);
    size_t row_bytes = q.stride * q.value_bytes;
    char *some = bytes((size_t)rows * row_bytes);
    attend(kernels, &c, &q, 0, rows, q.out);
    for (int first = 0; first < rows; first++)
        for (int n = 1; first + n <= rows && n < 18; n += 1 + (int)number(4)) {
            attend(kernels, &c, &q, first, n, some);
            for (int r = 0; r < n; r++)
                assert_memory_equal(some + (size_t)r * row_bytes,
                                    (char *)q.out + (size_t)(first + r) * row_bytes,
                                    (size_t)dim * q.value_bytes);
        }
    free(some);
    free_queries(&q);
    free_cache(&c);
}

static void test_rows_are_independent(void **state)
{
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            check_company(*state, is_bf16, dims[i], 1 + (int)number(64), 9);
            check_company(*state, is_bf16, dims[i], dims[i] > 100 ? 530 : 600 + (int)number(700), 11);
        }
    check_company(*state, true, 16, 520, 100);
}

/* Heads whose blocks lie one after the other: the bits of one call for each of them. */
static void check_heads(const struct pm_kernels *kernels, bool is_bf16, int dim, int count, int rows)
{
    enum { HEADS = 5 };
    struct cache caches[HEADS], all = {.dim = dim, .keys_count = count, .is_bf16 = is_bf16};
    struct queries q[HEADS];
    size_t key_bytes = pm_key_block_bytes(dim, is_bf16), value_bytes = pm_value_block_bytes(dim, is_bf16);
    for (int h = 0; h < HEADS; h++)
        caches[h] = make_cache(kernels, is_bf16, dim, count);
    all.blocks = caches[0].blocks;
    all.key_blocks = bytes((size_t)all.blocks * sizeof *all.key_blocks);
    all.value_blocks = bytes((size_t)all.blocks * sizeof *all.value_blocks);
    for (int b = 0; b < all.blocks; b++) {
        all.key_blocks[b] = bytes(HEADS * key_bytes);
        all.value_blocks[b] = bytes(HEADS * value_bytes);
        for (size_t h = 0; h < HEADS; h++) {
            memcpy((char *)all.key_blocks[b] + h * key_bytes, caches[h].key_blocks[b], key_bytes);
            memcpy((char *)all.value_blocks[b] + h * value_bytes, caches[h].value_blocks[b], value_bytes);
        }
    }
    q[0] = make_queries(&all, rows, 10);
    size_t row_bytes = q[0].stride * q[0].value_bytes, head_bytes = (size_t)rows * row_bytes;
    char *queries = bytes(HEADS * head_bytes), *out = bytes(HEADS * head_bytes);
    for (size_t h = 0; h < HEADS; h++) {
        void *values = is_bf16 ? (void *)halves(head_bytes / 2) : (void *)floats(head_bytes / 4);
        memcpy(queries + h * head_bytes, values, head_bytes);
        free(values);
    }
    const struct pm_attention a = {
        .q = queries,
        .q_stride = q[0].stride,
        .rows = rows,
        .dim = dim,
        .heads = HEADS,
        .q_head_stride = (size_t)rows * q[0].stride,
        .out_head_stride = (size_t)rows * q[0].stride,
        .scale = q[0].scale,
        .keys = (const void *const *)all.key_blocks,
        .values = (const void *const *)all.value_blocks,
        .limits = q[0].limits,
        .out = out,
        .out_stride = q[0].stride,
    };
    lm(kernels, is_bf16)->attend(&a);
    char *alone = bytes(head_bytes);
    for (size_t h = 0; h < HEADS; h++) {
        struct queries one = q[0];
        one.q = queries + h * head_bytes;
        attend(kernels, &caches[h], &one, 0, rows, alone);
        for (size_t r = 0; r < (size_t)rows; r++)
            assert_memory_equal(alone + r * row_bytes, out + h * head_bytes + r * row_bytes,
                                (size_t)dim * q[0].value_bytes);
        free_cache(&caches[h]);
    }
    free(alone);
    free(queries);
    free(out);
    free_queries(&q[0]);
    free_cache(&all);
}

static void test_heads_are_independent(void **state)
{
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            check_heads(*state, is_bf16, dims[i], 1 + (int)number(64), 1);
            check_heads(*state, is_bf16, dims[i], 500 + (int)number(700), 1 + (int)number(17));
        }
    check_heads(*state, true, 128, 1100, 16); /* more rows than have scores at once */
    check_heads(*state, true, 128, 600, 2);
    check_heads(*state, true, 64, 600, 70);
}

/* A token in the cache does not change what rows before it see: the same bits with the cache cut at the row's
 * limit (fewer blocks, other contents after the limit). */
static void check_future(const struct pm_kernels *kernels, bool is_bf16, int dim)
{
    enum { COUNT = 1300, ROWS = 16 };
    struct cache c = make_cache(kernels, is_bf16, dim, COUNT);
    struct queries q = make_queries(&c, ROWS, 10);
    size_t row_bytes = q.stride * q.value_bytes;
    attend(kernels, &c, &q, 0, ROWS, q.out);
    float *x = floats((size_t)dim);
    char *alone = bytes(row_bytes);
    for (int r = 0; r < ROWS; r++) {
        for (int slot = q.limits[r]; slot < c.blocks * BLOCK; slot++) {
            for (int d = 0; d < dim; d++)
                x[d] = 1e4f * noise();
            lm(kernels, is_bf16)->put_keys(x, (size_t)dim, 1, dim, slot % BLOCK, c.key_blocks[slot / BLOCK]);
            lm(kernels, is_bf16)
                ->put_values(x, (size_t)dim, 1, dim, slot % BLOCK, c.value_blocks[slot / BLOCK]);
        }
        attend(kernels, &c, &q, r, 1, alone);
        assert_memory_equal(alone, (char *)q.out + (size_t)r * row_bytes, (size_t)dim * q.value_bytes);
        /* what other rows see is gone now: later rows must lie before */
        int next = r + 1;
        while (next < ROWS && q.limits[next] > q.limits[r])
            next++;
        r = next - 1;
    }
    free(x);
    free(alone);
    free_queries(&q);
    free_cache(&c);
}

static void test_the_future_is_unseen(void **state)
{
    for (int i = 0; i < 4; i++) {
        check_future(*state, false, dims[1 + 2 * i]);
        check_future(*state, true, dims[1 + 2 * i]);
    }
}

/* Blocks hold exactly what kernels.h says, and nothing outside the slots changes. */
static void test_blocks(void **state)
{
    const struct pm_kernels *kernels = *state;
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            int dim = dims[i], first = (int)number(BLOCK), count = 1 + (int)number((uint32_t)(BLOCK - first));
            int width = (dim + 15) / 16 * 16;
            size_t stride = (size_t)dim + number(4);
            float *x = floats((size_t)(count - 1) * stride + (size_t)dim);
            void *keys = bytes(pm_key_block_bytes(dim, is_bf16));
            void *values = bytes(pm_value_block_bytes(dim, is_bf16));
            assert_int_equal(pm_key_block_bytes(dim, is_bf16), BLOCK * dim * (is_bf16 ? 2 : 4));
            assert_int_equal(pm_value_block_bytes(dim, is_bf16), BLOCK * width * (is_bf16 ? 2 : 4));
            lm(kernels, is_bf16)->put_keys(x, stride, count, dim, first, keys);
            lm(kernels, is_bf16)->put_values(x, stride, count, dim, first, values);
            for (int slot = 0; slot < BLOCK; slot++)
                for (int d = 0; d < width; d++) {
                    int j = slot - first;
                    bool inside = j >= 0 && j < count;
                    float want = inside && d < dim ? x[(size_t)j * stride + (size_t)d] : 0;
                    if (is_bf16) {
                        uint16_t half = inside ? pm_bf16_from_f32(want) : 0xa5a5;
                        if (d < dim)
                            assert_int_equal(((uint16_t *)keys)[(d / 2 * BLOCK + slot) * 2 + d % 2], half);
                        assert_int_equal(((uint16_t *)values)[(slot / 2 * width + d) * 2 + slot % 2], half);
                    } else {
                        if (!inside)
                            memset(&want, 0xa5, sizeof want);
                        if (d < dim)
                            assert_memory_equal((float *)keys + d * BLOCK + slot, &want, sizeof want);
                        assert_memory_equal((float *)values + slot * width + d, &want, sizeof want);
                    }
                }
            free(x);
            free(keys);
            free(values);
        }
}

/* One key far above the others: the others vanish exactly, whatever their number. */
static void test_a_sharp_peak(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { DIM = 16, COUNT = 700, PEAK = 600 };
    struct cache c = make_cache(kernels, false, DIM, COUNT);
    float q[DIM], out[DIM], peak[DIM];
    for (int d = 0; d < DIM; d++)
        peak[d] = q[d] = d % 2 ? 10.0f : -10.0f;
    kernels->f32->put_keys(peak, DIM, 1, DIM, PEAK % BLOCK, c.key_blocks[PEAK / BLOCK]);
    const int32_t limit = COUNT;
    const struct pm_attention a = {.q = q,
                                   .q_stride = DIM,
                                   .rows = 1,
                                   .dim = DIM,
                                   .scale = 1,
                                   .keys = (const void *const *)c.key_blocks,
                                   .values = (const void *const *)c.value_blocks,
                                   .limits = &limit,
                                   .out = out,
                                   .out_stride = DIM};
    kernels->f32->attend(&a);
    for (int d = 0; d < DIM; d++)
        check(kernels->name, "peak", out[d], c.values[PEAK * DIM + d], 1e-7);
    free_cache(&c);
}

/* A sum that underflows to -0 at the end of its last block: the next block, which only the neighbour sees,
 * would turn it to +0. */
static void test_the_sign_of_zero(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { DIM = 16, COUNT = 2 * BLOCK };
    struct cache c = make_cache(kernels, false, DIM, COUNT);
    for (int j = 0; j < COUNT; j++) {
        float key[DIM] = {j == 0 ? 60.0f : 0.0f}, value[DIM];
        for (int d = 0; d < DIM; d++)
            value[d] = j >= BLOCK ? 1.0f : j == BLOCK - 1 ? -1e-30f : 0.0f;
        kernels->f32->put_keys(key, DIM, 1, DIM, j % BLOCK, c.key_blocks[j / BLOCK]);
        kernels->f32->put_values(value, DIM, 1, DIM, j % BLOCK, c.value_blocks[j / BLOCK]);
    }
    struct queries q = make_queries(&c, 2, 1);
    float alone[DIM];
    for (int r = 0; r < 2; r++) {
        q.limits[r] = (r + 1) * BLOCK;
        for (int d = 0; d < DIM; d++)
            ((float *)q.q)[(size_t)r * q.stride + (size_t)d] = d ? 0.0f : 1.0f;
    }
    q.scale = 1;
    attend(kernels, &c, &q, 0, 2, q.out);
    attend(kernels, &c, &q, 0, 1, alone);
    assert_memory_equal(alone, q.out, sizeof alone);
    free_queries(&q);
    free_cache(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention),
                                       cmocka_unit_test(test_rows_are_independent),
                                       cmocka_unit_test(test_heads_are_independent),
                                       cmocka_unit_test(test_the_future_is_unseen),
                                       cmocka_unit_test(test_blocks),
                                       cmocka_unit_test(test_a_sharp_peak),
                                       cmocka_unit_test(test_the_sign_of_zero)};
    return run_all("attention", tests, sizeof tests / sizeof *tests);
}
