/* The decoder and the extra layer: a row's result depends on its own sequence only, and what is wrong with a
 * call is said. (That results are right is shown by parity engine.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/vlm/decoder.h"
#include "engine/vlm/mtp.h"
#include "tests/unit/base/folder.h"
#include "tests/unit/vlm/random_model.h"

enum { TOKENS = 150, EMBEDDED = 20, OTHERS = 2 }; /* three pages; tokens 30..49 come as embeddings */

/* ---- a decoder with everything around it ---- */

struct bench {
    struct pm_vlm_model *model;
    const struct pm_kernels *kernels;
    struct pm_pool *pool;
    struct pm_kv_pool *kv_pool;
    struct pm_decoder *decoder;
    struct pm_mtp *mtp;
};

static void bench_open(struct bench *b, struct pm_vlm_model *model, const struct pm_kernels *kernels,
                       int threads)
{
    *b = (struct bench){.model = model, .kernels = kernels};
    assert_int_equal(pm_pool_new(threads, &b->pool, NULL), 0);
    b->kv_pool = pm_kv_pool_new(model, (size_t)16 << 20);
    b->decoder = pm_decoder_new(model, kernels, b->pool, b->kv_pool, 2 * TOKENS);
    b->mtp = pm_mtp_new(model, kernels, b->pool, b->kv_pool, 2 * TOKENS);
    assert_non_null(b->decoder);
    assert_non_null(b->mtp);
}

static void bench_close(struct bench *b)
{
    pm_mtp_free(&b->mtp);
    pm_decoder_free(&b->decoder);
    pm_kv_pool_free(&b->kv_pool);
    pm_pool_free(&b->pool);
}

/* ---- a sequence: the same for everybody ---- */

struct sequence {
    struct pm_decoder_row rows[TOKENS];
    float *embeddings;
    struct pm_kv kv;
};

static void sequence_make(struct sequence *s, const struct bench *b, uint64_t seed)
{
    const struct pm_text_config *c = &b->model->config.text;
    size_t hidden = (size_t)c->hidden;
    *s = (struct sequence){.embeddings = pm_xalloc(EMBEDDED * hidden * sizeof(float))};
    for (size_t i = 0; i < EMBEDDED * hidden; i++)
        s->embeddings[i] = random_value(&seed);
    for (int i = 0; i < TOKENS; i++) {
        s->rows[i] = (struct pm_decoder_row){
            .slot = i,
            .token = (int32_t)((random_value(&seed) + 1) / 2 * (float)(c->vocab - 1)),
            .position = {i / 2, i / 3, i / 2 + i % 5},
            .wants_logits = true,
        };
        if (i >= 30 && i < 30 + EMBEDDED)
            s->rows[i].embedding = s->embeddings + (size_t)(i - 30) * hidden;
    }
    assert_int_equal(pm_kv_reserve(b->kv_pool, &s->kv, TOKENS, NULL), 0);
}

/* Rows [first, first + count), bound to where this sequence lies now. */
static int sequence_rows(struct sequence *s, int first, int count, struct pm_decoder_row *out)
{
    for (int i = 0; i < count; i++) {
        out[i] = s->rows[first + i];
        out[i].kv = &s->kv;
    }
    return count;
}

static void sequence_drop(struct sequence *s, const struct bench *b)
{
    pm_kv_release(b->kv_pool, &s->kv);
    free(s->embeddings);
}

/* ---- results: logits and hidden states of every token, of the decoder and of the extra layer ---- */

struct results {
    float *logits, *hidden, *draft_logits, *draft_hidden;
    size_t vocab, width;
};

static struct results results_make(const struct bench *b)
{
    struct results r = {.vocab = (size_t)b->model->config.text.vocab,
                        .width = (size_t)b->model->config.text.hidden};
    r.logits = pm_xalloc(TOKENS * r.vocab * sizeof(float));
    r.draft_logits = pm_xalloc(TOKENS * r.vocab * sizeof(float));
    r.hidden = pm_xalloc(TOKENS * r.width * sizeof(float));
    r.draft_hidden = pm_xalloc(TOKENS * r.width * sizeof(float));
    return r;
}

static void results_free(struct results *r)
{
    free(r->logits);
    free(r->hidden);
    free(r->draft_logits);
    free(r->draft_hidden);
}

static void assert_same(const struct results *a, const struct results *b, const char *what)
{
    if (memcmp(a->logits, b->logits, TOKENS * a->vocab * sizeof(float)) ||
        memcmp(a->hidden, b->hidden, TOKENS * a->width * sizeof(float)))
        fail_msg("%s: other bits", what);
    if (memcmp(a->draft_logits, b->draft_logits, TOKENS * a->vocab * sizeof(float)) ||
        memcmp(a->draft_hidden, b->draft_hidden, TOKENS * a->width * sizeof(float)))
        fail_msg("%s: other bits of the extra layer", what);
}

/* Runs rows, of which [at, at + count) are tokens [first, first + count) of the sequence that counts. */
static void run_decoder(struct bench *b, const struct pm_decoder_row *rows, int row_count, int at, int first,
                        int count, struct results *r)
{
    struct pm_error err;
    if (pm_decoder_run(b->decoder, rows, row_count, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < count; i++) {
        memcpy(r->logits + (size_t)(first + i) * r->vocab, pm_decoder_logits(b->decoder, at + i),
               r->vocab * sizeof(float));
        memcpy(r->hidden + (size_t)(first + i) * r->width, pm_decoder_hidden(b->decoder, at + i),
               r->width * sizeof(float));
    }
}

/* The extra layer over the tokens, its slots in the same chunks; hidden states are the decoder's. */
static void run_mtp(struct bench *b, const struct pm_decoder_row *rows, int row_count, int at, int first,
                    int count, struct results *r)
{
    struct pm_error err;
    struct pm_mtp_row *slots = pm_xalloc((size_t)row_count * sizeof *slots);
    for (int i = 0; i < row_count; i++) {
        bool is_ours = i >= at && i < at + count;
        slots[i] = (struct pm_mtp_row){
            .kv = rows[i].kv,
            .slot = rows[i].slot,
            .hidden = r->hidden + (is_ours ? (size_t)(first + i - at) * r->width : 0),
            .token = rows[i].token,
            .position = {rows[i].position[0], rows[i].position[1], rows[i].position[2]},
            .wants_logits = is_ours,
        };
    }
    if (pm_mtp_run(b->mtp, slots, row_count, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < count; i++) {
        memcpy(r->draft_logits + (size_t)(first + i) * r->vocab, pm_mtp_logits(b->mtp, at + i),
               r->vocab * sizeof(float));
        memcpy(r->draft_hidden + (size_t)(first + i) * r->width, pm_mtp_hidden(b->mtp, at + i),
               r->width * sizeof(float));
    }
    free(slots);
}

/* The sequence alone, chunk tokens at a time. */
static struct results run_chunks(struct bench *b, int chunk)
{
    struct results r = results_make(b);
    struct pm_decoder_row rows[TOKENS];
    struct sequence s;
    sequence_make(&s, b, 1);
    for (int first = 0, count; first < TOKENS; first += count) {
        count = sequence_rows(&s, first, TOKENS - first < chunk ? TOKENS - first : chunk, rows);
        run_decoder(b, rows, count, 0, first, count, &r);
        run_mtp(b, rows, count, 0, first, count, &r);
    }
    sequence_drop(&s, b);
    return r;
}

/* The same between two others that are elsewhere in their texts. */
static struct results run_company(struct bench *b)
{
    static const int chunks[] = {1, 40, 5, 2, 64, 1};
    struct results r = results_make(b);
    struct pm_decoder_row rows[2 * TOKENS];
    struct sequence s, others[OTHERS];
    sequence_make(&s, b, 1);
    int done[OTHERS] = {0}, step = 0;
    for (int k = 0; k < OTHERS; k++)
        sequence_make(&others[k], b, 100 + (uint64_t)k);
    for (int first = 0, count; first < TOKENS; first += count, step++) {
        int at = 0, take = done[0] + 3 <= TOKENS ? 3 : 0;
        at += sequence_rows(&others[0], done[0], take, rows);
        done[0] += take;
        count = chunks[step % 6] < TOKENS - first ? chunks[step % 6] : TOKENS - first;
        int all = at + sequence_rows(&s, first, count, rows + at);
        take = done[1] + 17 <= TOKENS ? 17 : 0;
        all += sequence_rows(&others[1], done[1], take, rows + all);
        done[1] += take;
        run_decoder(b, rows, all, at, first, count, &r);
        run_mtp(b, rows, all, at, first, count, &r);
    }
    sequence_drop(&s, b);
    for (int k = 0; k < OTHERS; k++)
        sequence_drop(&others[k], b);
    return r;
}

static void check_rows(struct pm_vlm_model *model, const struct pm_kernels *kernels)
{
    static const int chunks[] = {1, 3, 7, 64};
    char what[80];
    struct bench one, two;
    bench_open(&one, model, kernels, 1);
    bench_open(&two, model, kernels, 2);
    struct results whole = run_chunks(&one, TOKENS);
    for (size_t i = 0; i < TOKENS * whole.vocab; i++)
        if (!(whole.logits[i] > -1e4f && whole.logits[i] < 1e4f))
            fail_msg("logit %zu is %g", i, (double)whole.logits[i]);
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        struct results r = run_chunks(i % 2 ? &two : &one, chunks[i]);
        snprintf(what, sizeof what, "%s, chunks of %d", kernels->name, chunks[i]);
        assert_same(&whole, &r, what);
        results_free(&r);
    }
    struct results r = run_chunks(&two, TOKENS);
    assert_same(&whole, &r, "two threads");
    results_free(&r);
    r = run_company(&two);
    assert_same(&whole, &r, "company");
    results_free(&r);
    results_free(&whole);
    bench_close(&one);
    bench_close(&two);
}

static void each_table(const char *dir, enum pm_precision precision)
{
    for (int i = 0; i < RANDOM_SIZES; i++) {
        struct pm_vlm_model *model = random_model_open(dir, &random_sizes[i], precision);
        for (const char *const *name = random_tables; *name; name++)
            if (pm_kernels_get(*name))
                check_rows(model, pm_kernels_get(*name));
        pm_vlm_model_close(&model);
    }
}

static void test_rows_f32(void **state)
{
    each_table(*state, PM_PRECISION_F32);
}

static void test_rows_bf16(void **state)
{
    each_table(*state, PM_PRECISION_BF16);
}

static void test_rows_int8(void **state)
{
    each_table(*state, PM_PRECISION_INT8);
}

static void test_rows_int4(void **state)
{
    each_table(*state, PM_PRECISION_INT4);
}

/* All precisions compute the same thing: also where sizes are odd and bf16 pads its pairs, int8 and
 * int4 their groups. */
static void check_precision(const char *dir, enum pm_precision precision, double limit)
{
    for (int i = 0; i < RANDOM_SIZES; i++) {
        struct results r[2];
        for (int p = 0; p < 2; p++) {
            struct pm_vlm_model *model =
                random_model_open(dir, &random_sizes[i], p ? precision : PM_PRECISION_F32);
            struct bench b;
            bench_open(&b, model, pm_kernels_get(NULL), 1);
            r[p] = run_chunks(&b, TOKENS);
            bench_close(&b);
            pm_vlm_model_close(&model);
        }
        double error = 0, size = 0;
        for (size_t k = 0; k < TOKENS * r[0].vocab; k++) {
            double d = (double)r[0].logits[k] - (double)r[1].logits[k];
            double e = (double)r[0].draft_logits[k] - (double)r[1].draft_logits[k];
            error += d * d + e * e;
            size += (double)r[0].logits[k] * (double)r[0].logits[k] +
                    (double)r[0].draft_logits[k] * (double)r[0].draft_logits[k];
        }
        assert_true(size > 0);
        if (!(error <= limit * size))
            fail_msg("%s: %s is off by %g of %g", random_sizes[i].name, pm_precision_name(precision), error,
                     size);
        results_free(&r[0]);
        results_free(&r[1]);
    }
}

static void test_precisions(void **state)
{
    check_precision(*state, PM_PRECISION_BF16, 2e-3);
    check_precision(*state, PM_PRECISION_INT8, 4e-3);
    check_precision(*state, PM_PRECISION_INT4, 0.08);
}

/* A cache that was cut back and filled again with other tokens holds nothing of the old ones. */
static void test_truncated(void **state)
{
    struct pm_vlm_model *model = random_model_open(*state, &random_sizes[0], PM_PRECISION_F32);
    struct pm_decoder_row rows[TOKENS];
    struct bench b;
    struct sequence s, wrong;
    bench_open(&b, model, pm_kernels_get(NULL), 1);
    struct results whole = run_chunks(&b, TOKENS), r = results_make(&b);
    sequence_make(&s, &b, 1);
    sequence_make(&wrong, &b, 7);
    for (int first = 0; first < TOKENS; first += 50) {
        /* four drafts that turn out wrong, in the slots of what comes next */
        int count = first + 54 <= TOKENS ? 4 : 0;
        sequence_rows(&s, first, 50, rows);
        run_decoder(&b, rows, 50, 0, first, 50, &r);
        run_mtp(&b, rows, 50, 0, first, 50, &r);
        for (int i = 0; i < count; i++) {
            rows[i] = wrong.rows[first + 50 + i];
            rows[i].kv = &s.kv;
        }
        if (count)
            assert_int_equal(pm_decoder_run(b.decoder, rows, count, NULL), 0);
        pm_kv_truncate(b.kv_pool, &s.kv, first + 50);
        assert_int_equal(pm_kv_reserve(b.kv_pool, &s.kv, TOKENS, NULL), 0);
    }
    assert_same(&whole, &r, "wrong drafts");
    results_free(&whole);
    results_free(&r);
    sequence_drop(&s, &b);
    sequence_drop(&wrong, &b);
    bench_close(&b);
    pm_vlm_model_close(&model);
}

/* The extra layer has no embedding at position 0, and the token's own elsewhere. */
static void test_first_slot(void **state)
{
    struct pm_vlm_model *model = random_model_open(*state, &random_sizes[0], PM_PRECISION_F32);
    size_t vocab = (size_t)model->config.text.vocab;
    float *logits = pm_xalloc(vocab * sizeof *logits);
    struct bench b;
    struct sequence s;
    bench_open(&b, model, pm_kernels_get(NULL), 1);
    sequence_make(&s, &b, 1);
    for (int position = 0; position < 2; position++) {
        struct pm_mtp_row row = {.kv = &s.kv,
                                 .hidden = s.embeddings,
                                 .token = 10,
                                 .position = {position, position, position},
                                 .wants_logits = true};
        assert_int_equal(pm_mtp_run(b.mtp, &row, 1, NULL), 0);
        memcpy(logits, pm_mtp_logits(b.mtp, 0), vocab * sizeof *logits);
        row.token = 20;
        assert_int_equal(pm_mtp_run(b.mtp, &row, 1, NULL), 0);
        assert_int_equal(memcmp(logits, pm_mtp_logits(b.mtp, 0), vocab * sizeof *logits) == 0, position == 0);
    }
    free(logits);
    sequence_drop(&s, &b);
    bench_close(&b);
    pm_vlm_model_close(&model);
}

/* ---- what is wrong with a call ---- */

static void refuse(struct bench *b, const struct pm_decoder_row *rows, int count, const char *why)
{
    struct pm_error err;
    assert_int_equal(pm_decoder_run(b->decoder, rows, count, &err), PM_EINVAL);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

static void test_refused(void **state)
{
    struct pm_vlm_model *model = random_model_open(*state, &random_sizes[0], PM_PRECISION_F32);
    struct pm_decoder_row rows[2 * TOKENS + 1];
    struct bench b;
    struct sequence s, other;
    bench_open(&b, model, pm_kernels_get(NULL), 1);
    sequence_make(&s, &b, 1);
    sequence_make(&other, &b, 2);
    sequence_rows(&s, 0, 5, rows);
    refuse(&b, rows, 0, "must be 1 to 300");
    refuse(&b, rows, 2 * TOKENS + 1, "must be 1 to 300");
    rows[3].token = model->config.text.vocab;
    refuse(&b, rows, 5, "row 3 is token 70, outside the vocabulary of 70");
    rows[3].token = -1;
    refuse(&b, rows, 5, "token -1");
    sequence_rows(&s, 0, 5, rows);
    rows[4].slot = 5;
    refuse(&b, rows, 5, "row 4 is slot 5, but the row before it is slot 3");
    sequence_rows(&s, 0, 5, rows);
    rows[4].slot = 192; /* three pages */
    refuse(&b, rows, 5, "room for 192 tokens");
    sequence_rows(&s, 0, 5, rows);
    rows[2].position[1] = -1;
    refuse(&b, rows, 5, "position -1");
    sequence_rows(&s, 0, 2, rows);
    sequence_rows(&other, 0, 1, rows + 2);
    sequence_rows(&s, 2, 1, rows + 3);
    refuse(&b, rows, 4, "rows 0 and 3 are of one sequence");
    struct pm_mtp_row slot = {.kv = &s.kv, .token = model->config.text.vocab, .hidden = s.embeddings};
    struct pm_error err;
    assert_int_equal(pm_mtp_run(b.mtp, &slot, 1, &err), PM_EINVAL);
    sequence_drop(&s, &b);
    sequence_drop(&other, &b);
    bench_close(&b);
    pm_vlm_model_close(&model);
}

/* ---- positions ---- */

static void test_positions(void **state)
{
    (void)state;
    enum { I = RANDOM_IMAGE_ID };
    struct pm_vlm_config config = {.image_id = I, .vision = {.merge = 2}};
    /* two pictures: 2 x 3 tokens, then at once 1 x 2, then text */
    static const int32_t ids[] = {9, 4, I, I, I, I, I, I, I, I, 5};
    static const struct pm_image_grid grids[] = {{4, 6}, {2, 4}};
    static const int32_t expected[][3] = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {2, 2, 3}, {2, 2, 4}, {2, 3, 2},
                                          {2, 3, 3}, {2, 3, 4}, {5, 5, 5}, {5, 5, 6}, {7, 7, 7}};
    enum { COUNT = sizeof ids / sizeof ids[0] };
    int32_t out[COUNT][3], delta;
    struct pm_error err;
    assert_int_equal(pm_vlm_positions(&config, ids, COUNT, grids, 2, out, &delta, &err), 0);
    assert_memory_equal(out, expected, sizeof expected);
    assert_int_equal(delta, 8 - COUNT);
    assert_int_equal(pm_vlm_positions(&config, ids, COUNT, grids, 1, out, &delta, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "only 1 images"));
    assert_int_equal(pm_vlm_positions(&config, ids, 9, grids, 2, out, &delta, &err), PM_EINVAL);
    assert_int_equal(pm_vlm_positions(&config, ids, 8, grids, 2, out, &delta, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "2 images are given"));
    static const struct pm_image_grid large[] = {{6, 6}}, uneven[] = {{3, 6}}, huge[] = {{1 << 30, 1 << 30}};
    assert_int_equal(pm_vlm_positions(&config, ids, COUNT, large, 1, out, &delta, &err), PM_EINVAL);
    assert_int_equal(pm_vlm_positions(&config, ids, COUNT, uneven, 1, out, &delta, &err), PM_EINVAL);
    assert_int_equal(pm_vlm_positions(&config, ids, COUNT, huge, 1, out, &delta, &err), PM_EINVAL);
    assert_int_equal(pm_vlm_positions(&config, ids, 2, NULL, 0, out, &delta, &err), 0);
    assert_int_equal(delta, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_f32),   cmocka_unit_test(test_rows_bf16),
        cmocka_unit_test(test_rows_int8),  cmocka_unit_test(test_rows_int4),
        cmocka_unit_test(test_precisions), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_first_slot), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_positions),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_drop);
}
