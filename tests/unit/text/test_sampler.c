/* The sampler against transformers' own results, and the properties that no golden shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/safetensors.h"
#include "engine/text/sampler.h"

/* ---- goldens ---- */

static double number(const json_t *o, const char *key, double otherwise)
{
    const json_t *v = json_object_get(o, key);
    return v ? json_number_value(v) : otherwise;
}

static struct pm_sampling settings_of(const json_t *o)
{
    struct pm_sampling s = pm_sampling_default();
    s.temperature = (float)number(o, "temperature", 1);
    s.top_k = (int)number(o, "top_k", 0);
    s.top_p = (float)number(o, "top_p", 1);
    s.min_p = (float)number(o, "min_p", 0);
    s.repetition_penalty = (float)number(o, "repetition_penalty", 1);
    s.no_repeat_ngram = (int)number(o, "no_repeat_ngram_size", 0);
    return s;
}

/* Where equal scores lie at the edge of top-p, transformers' sort decides which stay: a difference is allowed
 * when the same score occurs twice in the row. */
static void compare_row(const char *name, int row, const float *got, const float *want, int vocab)
{
    int kept = 0, expected = 0;
    for (int i = 0; i < vocab; i++) {
        kept += got[i] > -INFINITY;
        expected += want[i] > -INFINITY;
        if ((got[i] > -INFINITY) != (want[i] > -INFINITY)) {
            float value = got[i] > -INFINITY ? got[i] : want[i];
            bool tie = false;
            for (int j = 0; j < vocab; j++)
                tie = tie || (j != i && fabsf((got[j] > -INFINITY ? got[j] : want[j]) - value) < 1e-6f);
            if (!tie)
                fail_msg("%s row %d: id %d is %g, expected %g", name, row, i, (double)got[i],
                         (double)want[i]);
        } else if (got[i] > -INFINITY && fabsf(got[i] - want[i]) > 2e-6f * fmaxf(1, fabsf(want[i]))) {
            fail_msg("%s row %d: id %d is %.9g, expected %.9g", name, row, i, (double)got[i],
                     (double)want[i]);
        }
    }
    if (kept != expected)
        fail_msg("%s row %d: %d ids stay, expected %d", name, row, kept, expected);
}

static void compare_folder(const char *folder, int least)
{
    char *tensors = pm_xprintf("%s/expected.safetensors", folder),
         *cases = pm_xprintf("%s/case.json", folder);
    struct pm_safetensors *file;
    struct pm_error err;
    if (pm_safetensors_open(tensors, &file, &err))
        fail_msg("%s", err.text);
    json_t *root = json_load_file(cases, 0, NULL);
    assert_non_null(root);
    const struct pm_tensor *logits = pm_safetensors_find(file, "logits");
    const struct pm_tensor *history = pm_safetensors_find(file, "history_ids");
    assert_non_null(logits);
    assert_non_null(history);
    int rows = (int)logits->shape[0], vocab = (int)logits->shape[1], length = (int)history->shape[1];
    float *x = pm_xalloc(sizeof(float) * (size_t)vocab * 3), *want = x + 2 * vocab;
    int32_t *ids = pm_xalloc(sizeof(int32_t) * (size_t)length);
    const char *name;
    json_t *setting;
    int compared = 0;
    json_object_foreach(json_object_get(root, "settings"), name, setting)
    {
        char *key = pm_xprintf("%s.scores", name);
        const struct pm_tensor *scores = pm_safetensors_find(file, key);
        assert_non_null(scores);
        struct pm_sampling s = settings_of(setting);
        assert_int_equal(pm_sampling_check(&s, vocab, &err), 0);
        for (int r = 0; r < rows; r++) {
            size_t row_bytes = sizeof(float) * (size_t)vocab;
            memcpy(x, logits->data + (size_t)r * row_bytes, row_bytes);
            memcpy(want, scores->data + (size_t)r * row_bytes, row_bytes);
            memcpy(ids, history->data + (size_t)r * (size_t)length * 4, (size_t)length * 4);
            struct pm_history h = {ids, length, length};
            pm_sampler_process(&s, &h, NULL, x, vocab, x + vocab);
            compare_row(name, r, x, want, vocab);
        }
        free(key);
        compared++;
    }
    assert_true(compared >= least);
    free(x);
    free(ids);
    json_decref(root);
    pm_safetensors_free(&file);
    free(tensors);
    free(cases);
}

static void test_as_transformers(void **state)
{
    (void)state;
    compare_folder(PM_TEST_DATA "/text/sampling", 7);
    const char *all = PM_SOURCE_DIR "/../shared/goldens/engine/sampling";
    if (access(all, R_OK) == 0)
        compare_folder(all, 24);
}

/* ---- own processors ---- */

static void test_penalties_and_biases(void **state)
{
    (void)state;
    struct pm_sampling s = pm_sampling_default();
    struct pm_logit_bias biases[] = {{0, 2.5f}, {1, -100}, {2, 100}};
    s.biases = biases;
    s.bias_count = 3;
    s.presence_penalty = 0.5f;
    s.frequency_penalty = 0.25f;
    float x[8] = {1, 1, 1, 1, 1, 1, 1, NAN}, scratch[8];
    int32_t ids[] = {3, 3, 4, 4, 5, 4, 99, -1}; /* ids outside the vocabulary are passed over */
    pm_sampler_process(&s, &(struct pm_history){ids, 8, 2}, NULL, x, 8, scratch);
    float want[8] = {3.5f, -INFINITY, 101, 1 /* only in the prompt */, 1 - 0.5f - 0.75f, 0.25f, 1, -INFINITY};
    for (int i = 0; i < 8; i++)
        assert_true(x[i] == want[i]);
}

static void test_mask_comes_before_top_k(void **state)
{
    (void)state;
    struct pm_sampling s = pm_sampling_default();
    s.temperature = 1;
    s.top_k = 2;
    float x[6] = {9, 8, 7, 6, 5, 4}, scratch[6];
    uint32_t mask = 1u << 2 | 1u << 3 | 1u << 5;
    pm_sampler_process(&s, &(struct pm_history){0}, &mask, x, 6, scratch);
    for (int i = 0; i < 6; i++)
        assert_int_equal(x[i] > -INFINITY, i == 2 || i == 3);
}

/* ---- picking ---- */

static uint32_t next_random(uint32_t *r)
{
    *r = *r * 1664525u + 1013904223u;
    return *r >> 8;
}

static void test_greedy_takes_the_first_of_the_highest(void **state)
{
    (void)state;
    enum { N = 1000 };
    float *x = pm_xalloc(sizeof(float) * N * 3);
    struct pm_sampling s = pm_sampling_default();
    struct pm_sample out;
    uint32_t r = 1;
    for (int round = 0; round < 200; round++) {
        int n = 1 + (int)(next_random(&r) % N);
        for (int i = 0; i < n; i++)
            x[i] = (float)(next_random(&r) % 50) * 0.5f - 20;
        int best = 0;
        double sum = 0;
        for (int i = 0; i < n; i++)
            best = x[i] > x[best] ? i : best;
        for (int i = 0; i < n; i++)
            sum += exp((double)x[i] - (double)x[best]);
        s.top_logprobs = round % 21;
        pm_sampler_pick(&s, &(struct pm_history){0}, NULL, x, n, round, x + N, &out);
        assert_int_equal(out.id, best);
        assert_true(fabs((double)out.logprob + log(sum)) < 2e-6);
        assert_int_equal(out.top_count, n < s.top_logprobs ? n : s.top_logprobs);
        for (int i = 0; i < out.top_count; i++) {
            assert_true(fabs((double)out.top_logprobs[i] - (double)(x[out.top_ids[i]] - x[best]) + log(sum)) <
                        4e-6);
            if (i)
                assert_true(
                    x[out.top_ids[i]] < x[out.top_ids[i - 1]] ||
                    (x[out.top_ids[i]] == x[out.top_ids[i - 1]] && out.top_ids[i] > out.top_ids[i - 1]));
        }
    }
    free(x);
}

static void test_hostile_logits(void **state)
{
    (void)state;
    struct pm_sampling s = pm_sampling_default();
    struct pm_sample out;
    float x[40], scratch[80];
    for (int i = 0; i < 40; i++)
        x[i] = NAN;
    s.top_logprobs = 5;
    pm_sampler_pick(&s, &(struct pm_history){0}, NULL, x, 40, 0, scratch, &out);
    assert_int_equal(out.id, 0);
    assert_true(isfinite(out.logprob));
    uint32_t mask[2] = {0, 1u << 3};
    s.temperature = 1;
    pm_sampler_pick(&s, &(struct pm_history){0}, mask, x, 40, 0, scratch, &out);
    assert_int_equal(out.id, 35);
    x[7] = -3;
    x[9] = INFINITY;
    pm_sampler_pick(&s, &(struct pm_history){0}, NULL, x, 40, 0, scratch, &out);
    assert_true(out.id == 7 || out.id == 9);
    assert_true(isfinite(out.logprob));
}

static void test_mask_wins_over_rules_that_exclude_it(void **state)
{
    (void)state;
    struct pm_sampling s = pm_sampling_default();
    s.no_repeat_ngram = 1;
    float x[4] = {1, 2, 3, 4}, scratch[8];
    int32_t ids[] = {1, 2};
    uint32_t mask = 1u << 1 | 1u << 2;
    struct pm_sample out;
    for (int hot = 0; hot < 2; hot++) {
        s.temperature = (float)hot;
        pm_sampler_pick(&s, &(struct pm_history){ids, 2, 0}, &mask, x, 4, 0, scratch, &out);
        assert_int_equal(out.id, 2);
    }
}

/* Draws follow the distribution: with 39 degrees of freedom chi-square passes 90 once in 400,000 times. */
static void test_distribution(void **state)
{
    (void)state;
    enum { N = 40, DRAWS = 40000 };
    float x[N], scratch[2 * N];
    double p[N], sum = 0, chi = 0;
    int seen[N] = {0}, again = 0, other = 0;
    uint32_t r = 5;
    for (int i = 0; i < N; i++) {
        x[i] = (float)(next_random(&r) % 300) * 0.01f;
        sum += p[i] = exp((double)x[i] / 0.8);
    }
    struct pm_sampling s = pm_sampling_default();
    s.temperature = 0.8f;
    struct pm_sample out, twin;
    for (int k = 0; k < DRAWS; k++) {
        s.seed = (uint64_t)(k % 200);
        pm_sampler_pick(&s, &(struct pm_history){0}, NULL, x, N, k / 200, scratch, &out);
        seen[out.id]++;
        pm_sampler_pick(&s, &(struct pm_history){0}, NULL, x, N, k / 200, scratch, &twin);
        again += twin.id == out.id;
        s.seed += 1000;
        pm_sampler_pick(&s, &(struct pm_history){0}, NULL, x, N, k / 200, scratch, &twin);
        other += twin.id == out.id;
    }
    assert_int_equal(again, DRAWS);
    double same = 0;
    for (int i = 0; i < N; i++) {
        double expected = DRAWS * p[i] / sum;
        chi += ((double)seen[i] - expected) * ((double)seen[i] - expected) / expected;
        same += p[i] / sum * (p[i] / sum);
    }
    assert_true(chi < 90);
    assert_true(chi > 12); /* too even is not random either */
    assert_true(fabs((double)other / DRAWS - same) < 0.01);
}

static void test_never_a_removed_id(void **state)
{
    (void)state;
    enum { N = 500 };
    float x[N], copy[N], scratch[2 * N];
    uint32_t mask[(N + 31) / 32], r = 9;
    int32_t ids[60];
    for (int round = 0; round < 400; round++) {
        for (int i = 0; i < N; i++)
            x[i] = (float)(next_random(&r) % 1000) * 0.01f;
        for (size_t i = 0; i < sizeof mask / sizeof *mask; i++)
            mask[i] = next_random(&r) | next_random(&r) << 16;
        mask[0] |= 1;
        for (int i = 0; i < 60; i++)
            ids[i] = (int32_t)(next_random(&r) % N);
        struct pm_sampling s = {.temperature = 0.1f + (float)(round % 20) * 0.2f,
                                .top_k = round % 7 * 10,
                                .top_p = round % 3 ? 0.1f + 0.1f * (float)(round % 9) : 1,
                                .min_p = round % 5 ? 0 : 0.2f,
                                .repetition_penalty = round % 2 ? 1.3f : 1,
                                .no_repeat_ngram = round % 4,
                                .seed = (uint64_t)round};
        memcpy(copy, x, sizeof x);
        struct pm_history h = {ids, 60, 30};
        pm_sampler_process(&s, &h, mask, copy, N, scratch);
        int stay = 0;
        for (int i = 0; i < N; i++)
            stay += copy[i] > -INFINITY;
        assert_true(stay >= 1);
        struct pm_sample out;
        for (int k = 0; k < 20; k++) {
            pm_sampler_pick(&s, &h, mask, x, N, k, scratch, &out);
            assert_true(copy[out.id] > -INFINITY);
        }
    }
}

/* The plain way: sort, then drop. */
static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void test_top_p_as_sorting_does(void **state)
{
    (void)state;
    enum { N = 3000 };
    float *x = pm_xalloc(sizeof(float) * N * 3), *sorted = x + 2 * N;
    uint32_t r = 77;
    for (int round = 0; round < 60; round++) {
        double total = 0, running = 0;
        for (int i = 0; i < N; i++)
            sorted[i] = x[i] =
                (float)(next_random(&r) % (round % 2 ? 100 : 1000000)) * (round % 2 ? 0.1f : 1e-5f);
        qsort(sorted, N, sizeof *sorted, by_value);
        for (int i = 0; i < N; i++)
            total += exp((double)sorted[i] - (double)sorted[N - 1]);
        struct pm_sampling s = pm_sampling_default();
        s.top_p = 0.01f + (float)(round % 49) * 0.02f;
        int drop = 0;
        for (; drop < N - 1; drop++) {
            running += exp((double)sorted[drop] - (double)sorted[N - 1]) / total;
            if (running > 1.0 - (double)s.top_p)
                break;
        }
        pm_sampler_process(&s, &(struct pm_history){0}, NULL, x, N, x + N);
        int kept = 0;
        for (int i = 0; i < N; i++)
            kept += x[i] > -INFINITY;
        assert_in_range(kept, N - drop - 1, N - drop + 1);
    }
    free(x);
}

static void test_settings_are_checked(void **state)
{
    (void)state;
    struct pm_logit_bias far = {100, 1}, high = {1, 101};
    struct pm_sampling good = pm_sampling_default();
    struct pm_error err;
    assert_int_equal(pm_sampling_check(&good, 100, &err), 0);
    struct {
        const char *name;
        struct pm_sampling s;
    } bad[16];
    int n = 0;
#define BAD(field, value)                                                                                    \
    do {                                                                                                     \
        bad[n].name = #field;                                                                                \
        bad[n].s = good;                                                                                     \
        bad[n++].s.field = value;                                                                            \
    } while (0)
    BAD(temperature, -1);
    BAD(temperature, NAN);
    BAD(top_k, -1);
    BAD(top_p, 0);
    BAD(top_p, NAN);
    BAD(min_p, 1.5f);
    BAD(repetition_penalty, 0);
    BAD(presence_penalty, 3);
    BAD(frequency_penalty, -3);
    BAD(no_repeat_ngram, -1);
    BAD(top_logprobs, 21);
    for (int i = 0; i < n; i++) {
        assert_int_equal(pm_sampling_check(&bad[i].s, 100, &err), PM_EINVAL);
        assert_non_null(strstr(err.text, bad[i].name));
    }
    good.bias_count = 1;
    good.biases = &far;
    assert_int_equal(pm_sampling_check(&good, 100, &err), PM_EINVAL);
    good.biases = &high;
    assert_int_equal(pm_sampling_check(&good, 100, &err), PM_EINVAL);
}

/* ---- stop strings ---- */

static void test_stop_strings(void **state)
{
    (void)state;
    const char *strings[] = {"END", "aab", "b", "\n\n"};
    size_t cut;
    struct pm_stop stop = {strings, 1};
    assert_false(pm_stop_find(&stop, "the EN", 6, 0, &cut));
    assert_int_equal(cut, 4);
    assert_true(pm_stop_find(&stop, "the END.", 8, 6, &cut)); /* across the border */
    assert_int_equal(cut, 4);
    assert_false(pm_stop_find(&stop, "E", 1, 0, &cut));
    assert_int_equal(cut, 0);
    stop = (struct pm_stop){strings + 1, 1};
    assert_true(pm_stop_find(&stop, "xaaab", 5, 0, &cut)); /* overlaps itself */
    assert_int_equal(cut, 2);
    stop = (struct pm_stop){strings, 4};
    assert_true(pm_stop_find(&stop, "aab", 3, 2, &cut)); /* two end here: the longer */
    assert_int_equal(cut, 0);
    stop.count = 0;
    assert_false(pm_stop_find(&stop, "abc", 3, 0, &cut));
    assert_int_equal(cut, 3);
}

/* However the text is cut into tokens, what is released is the same, and never takes anything back. */
static void test_stop_whatever_the_cuts(void **state)
{
    (void)state;
    const char *strings[] = {"aab", "ba", "abca", "cc"};
    struct pm_stop stop = {strings, 4};
    uint32_t r = 3;
    for (int round = 0; round < 3000; round++) {
        char text[24];
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (char)('a' + next_random(&r) % 3);
        size_t whole = 0, released = 0, cut = 0, from = 0;
        bool at_once = false, found = false;
        for (size_t n = 1; n <= sizeof text && !at_once; n++) /* one byte at a time */
            at_once = pm_stop_find(&stop, text, n, n - 1, &whole);
        while (from < sizeof text && !found) {
            size_t n = from + 1 + next_random(&r) % 5;
            n = n < sizeof text ? n : sizeof text;
            found = pm_stop_find(&stop, text, n, from, &cut);
            assert_true(cut >= released);
            released = cut;
            from = n;
        }
        assert_int_equal(found, at_once);
        assert_int_equal(released, whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_transformers),
        cmocka_unit_test(test_penalties_and_biases),
        cmocka_unit_test(test_mask_comes_before_top_k),
        cmocka_unit_test(test_greedy_takes_the_first_of_the_highest),
        cmocka_unit_test(test_hostile_logits),
        cmocka_unit_test(test_mask_wins_over_rules_that_exclude_it),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_never_a_removed_id),
        cmocka_unit_test(test_top_p_as_sorting_does),
        cmocka_unit_test(test_settings_are_checked),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_stop_whatever_the_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
