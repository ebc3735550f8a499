/* The generator: a request's tokens are its own, whatever runs beside it, on however many threads, in
 * whatever slices, with however many drafts, in however little memory. */
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/host.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "engine/vlm/generate.h"
#include "tiny_model.h"

enum { REGIONS = 64, TOKENS_MAX = 80 };

static struct pm_tiny tiny;

static int setup(void **state)
{
    (void)state;
    pm_tiny_make(&tiny, PM_TINY_BLOCK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pm_tiny_remove(&tiny);
    return 0;
}

/* ---- regions ---- */

struct region {
    int32_t ids[64];
    int id_count;
    struct pm_image images[2];
    int image_count, max_tokens;
    struct pm_sampling sampling;
    struct pm_logit_bias biases[3];
    const struct pm_grammar *grammar;
    const char *stop;
    /* what came out */
    int32_t out[TOKENS_MAX];
    float logprobs[TOKENS_MAX];
    int out_count;
    struct pm_buf text;
    enum pm_generate_end end;
    int drafted, accepted;
    bool is_done;
};

static struct pm_grammar *words;

static void make_region(struct region *r, uint64_t *seed)
{
    *r = (struct region){.max_tokens = pm_tiny_between(seed, 1, 60), .sampling = pm_sampling_default()};
    int pictures = pm_tiny_between(seed, 0, 4);
    r->image_count = pictures < 2 ? 0 : pictures < 4 ? 1 : 2;
    for (int i = 0; i < r->image_count; i++) {
        for (int k = pm_tiny_between(seed, 0, 3); k > 0; k--)
            r->ids[r->id_count++] = pm_tiny_between(seed, 0, 255);
        r->ids[r->id_count++] = PM_TINY_IMAGE;
        r->images[i] = pm_tiny_picture(seed, pm_tiny_between(seed, 16, 150), pm_tiny_between(seed, 16, 80));
    }
    bool ends_with_picture = r->image_count && !pm_tiny_between(seed, 0, 4);
    for (int k = ends_with_picture ? 0 : pm_tiny_between(seed, 1, 40); k > 0; k--)
        r->ids[r->id_count++] = pm_tiny_between(seed, 0, 255);
    struct pm_sampling *s = &r->sampling;
    s->seed = pm_tiny_random(seed);
    switch (pm_tiny_between(seed, 0, 5)) {
    case 0:
        s->temperature = 0.7f;
        break;
    case 1:
        s->temperature = 1.3f;
        s->top_k = 20;
        s->top_p = 0.9f;
        break;
    case 2:
        s->repetition_penalty = 1.2f;
        s->frequency_penalty = 0.3f;
        s->presence_penalty = 0.2f;
        break;
    case 3:
        s->temperature = 0.9f;
        s->min_p = 0.05f;
        s->no_repeat_ngram = 3;
        s->top_logprobs = 4;
        for (int i = 0; i < 3; i++)
            r->biases[i] =
                (struct pm_logit_bias){pm_tiny_between(seed, 0, 255), (float)pm_tiny_between(seed, -9, 3)};
        s->bias_count = 3;
        break;
    default:
        break; /* greedy: two in six */
    }
    if (!pm_tiny_between(seed, 0, 7))
        r->grammar = words;
    if (!pm_tiny_between(seed, 0, 4))
        r->stop = "e";
}

static struct region *make_regions(uint64_t seed)
{
    struct region *all = pm_xalloc(REGIONS * sizeof *all);
    for (int i = 0; i < REGIONS; i++)
        make_region(&all[i], &seed);
    return all;
}

static void clear(struct region *r)
{
    r->out_count = 0;
    r->is_done = false;
    pm_buf_free(&r->text);
}

static void free_regions(struct region *all)
{
    for (int i = 0; i < REGIONS; i++) {
        for (int k = 0; k < all[i].image_count; k++)
            pm_image_free(&all[i].images[k]);
        pm_buf_free(&all[i].text);
    }
    free(all);
}

static int admit(struct pm_generate *g, struct region *r, uint64_t id, int drafts, struct pm_error *err)
{
    r->sampling.biases = r->biases; /* regions move */
    struct pm_generate_request request = {.id = id,
                                          .ids = r->ids,
                                          .id_count = r->id_count,
                                          .images = r->images,
                                          .image_count = r->image_count,
                                          .max_tokens = r->max_tokens,
                                          .sampling = r->sampling,
                                          .stop = {&r->stop, r->stop ? 1 : 0},
                                          .grammar = r->grammar,
                                          .drafts = drafts};
    return pm_generate_admit(g, &request, err);
}

static void take(struct region *r, const struct pm_generate_event *e)
{
    assert_false(r->is_done);
    assert_in_range(e->sample_count, e->is_final ? 0 : 1, PM_MTP_DRAFTS_MAX + 1);
    for (int i = 0; i < e->sample_count; i++) {
        assert_true(r->out_count < TOKENS_MAX);
        assert_true(isfinite(e->samples[i].logprob) && e->samples[i].logprob <= 0);
        r->logprobs[r->out_count] = e->samples[i].logprob;
        r->out[r->out_count++] = e->samples[i].id;
    }
    assert_true(pm_utf8_is_valid(e->text, e->text_bytes));
    pm_buf_append(&r->text, e->text, e->text_bytes);
    if (!e->is_final)
        return;
    if (e->end == PM_GENERATE_ERROR)
        fail_msg("%s", e->error.text);
    assert_int_equal(e->generated_tokens, r->out_count);
    r->end = e->end;
    r->drafted = e->drafted_tokens;
    r->accepted = e->accepted_tokens;
    r->is_done = true;
}

static struct pm_generate_config further; /* of the next new_generate: settings that few tests need */

static struct pm_generate *new_generate(int threads, int running, int prefill_rows, size_t kv_bytes)
{
    struct pm_generate *g;
    struct pm_error err;
    struct pm_generate_config config = {.model = tiny.model,
                                        .tokenizer = tiny.tokenizer,
                                        .kernels = pm_kernels_get(NULL),
                                        .threads = threads,
                                        .max_running = running,
                                        .prefill_rows = prefill_rows,
                                        .kv_bytes = kv_bytes,
                                        .slice_macs = 3000000,
                                        .kv_int8 = further.kv_int8,
                                        .memory_bytes = further.memory_bytes,
                                        .vision_cache_bytes =
                                            further.vision_cache_bytes ? further.vision_cache_bytes : -1,
                                        .step_us = further.step_us,
                                        .drafts_when_paying = further.drafts_when_paying,
                                        .drafts_see_pictures = further.drafts_see_pictures,
                                        .draft_hook = further.draft_hook,
                                        .draft_hook_ctx = further.draft_hook_ctx};
    if (pm_generate_new(&config, &g, &err))
        fail_msg("%s", err.text);
    return g;
}

static void step(struct pm_generate *g, struct region *all)
{
    const struct pm_generate_event *events;
    size_t count;
    struct pm_error err;
    if (pm_generate_step(g, &events, &count, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < count; i++)
        take(&all[events[i].id - 1], &events[i]);
}

static void run_alone(struct pm_generate *g, struct region *r)
{
    struct pm_error err;
    clear(r);
    if (admit(g, r, 1, 0, &err))
        fail_msg("%s", err.text);
    while (pm_generate_running(g))
        step(g, r);
    assert_true(r->is_done);
}

/* All regions in random order, each with its number of drafts (drafts < 0: a random one), joining whenever
 * there is room and the dice say so. */
static struct pm_generate_counters run_batch(struct pm_generate *g, struct region *all, int drafts,
                                             uint64_t seed)
{
    int order[REGIONS], next = 0;
    struct pm_error err;
    for (int i = 0; i < REGIONS; i++) {
        clear(&all[i]);
        order[i] = i;
    }
    for (int i = REGIONS - 1; i > 0; i--) {
        int k = pm_tiny_between(&seed, 0, i), swap = order[i];
        order[i] = order[k];
        order[k] = swap;
    }
    while (next < REGIONS || pm_generate_running(g)) {
        while (next < REGIONS && pm_generate_room(g) &&
               (!pm_generate_running(g) || pm_tiny_between(&seed, 0, 2))) {
            int i = order[next++];
            if (admit(g, &all[i], (uint64_t)i + 1,
                      drafts < 0 ? pm_tiny_between(&seed, 0, PM_MTP_DRAFTS_MAX) : drafts, &err))
                fail_msg("%s", err.text);
        }
        step(g, all);
    }
    return pm_generate_counters(g);
}

/* A request of text only, in which no token ends the text. */
static void admit_long(struct pm_generate *g, uint64_t id, const int32_t *ids, int id_count, int max_tokens,
                       int drafts, const struct pm_grammar *grammar)
{
    struct pm_error err;
    struct pm_generate_request request = {.id = id,
                                          .ids = ids,
                                          .id_count = id_count,
                                          .max_tokens = max_tokens,
                                          .sampling = pm_sampling_default(),
                                          .grammar = grammar,
                                          .drafts = drafts,
                                          .ignores_eos = true};
    if (pm_generate_admit(g, &request, &err))
        fail_msg("%s", err.text);
}

static void expect_same(const struct region *want, const struct region *got)
{
    for (int i = 0; i < REGIONS; i++) {
        assert_true(got[i].is_done);
        assert_int_equal(want[i].out_count, got[i].out_count);
        assert_memory_equal(want[i].out, got[i].out, (size_t)want[i].out_count * sizeof *want[i].out);
        assert_memory_equal(want[i].logprobs, got[i].logprobs,
                            (size_t)want[i].out_count * sizeof *want[i].logprobs);
        assert_int_equal(want[i].end, got[i].end);
        assert_int_equal(want[i].text.size, got[i].text.size);
        if (want[i].text.size)
            assert_memory_equal(want[i].text.data, got[i].text.data, want[i].text.size);
    }
}

static size_t page_bytes(void)
{
    return pm_kv_page_bytes(tiny.model);
}

static void check_company(enum pm_precision precision)
{
    static const struct {
        int threads, running, prefill_rows, drafts, pages;
    } runs[] = {
        {1, 64, 0, 0, 0},  /* all together */
        {2, 16, 7, 4, 0},  /* drafts */
        {3, 9, 1, -1, 0},  /* a row at a time, drafts by chance */
        {2, 24, 33, 1, 9}, /* a cache that holds two or three of them */
        {1, 5, 64, 2, 0},
    };
    pm_tiny_open(&tiny, precision);
    struct region *want = make_regions(precision + 1), *got = make_regions(precision + 1);
    struct pm_generate *g = new_generate(1, 1, 0, 0);
    int tokens = 0, stops = 0, drafted = 0, accepted = 0;
    for (int i = 0; i < REGIONS; i++) {
        run_alone(g, &want[i]);
        tokens += want[i].out_count;
        stops += want[i].end == PM_GENERATE_STOP;
    }
    pm_generate_free(&g);
    assert_true(tokens > 10 * REGIONS && stops > 4 && stops < REGIONS - 4);
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        g = new_generate(runs[k].threads, runs[k].running, runs[k].prefill_rows,
                         (size_t)runs[k].pages * page_bytes());
        struct pm_generate_counters c = run_batch(g, got, runs[k].drafts, k + 7);
        expect_same(want, got);
        assert_true(runs[k].pages ? c.pauses > 0 : c.pauses == 0);
        for (int i = 0; i < REGIONS; i++) {
            drafted += got[i].drafted;
            accepted += got[i].accepted;
            if (!runs[k].drafts)
                assert_int_equal(got[i].drafted, 0);
        }
        pm_generate_free(&g);
    }
    assert_true(accepted > 100 && drafted - accepted > 100); /* both ways were walked */
    free_regions(want);
    free_regions(got);
    pm_tiny_close(&tiny);
}

static void test_company_f32(void **state)
{
    (void)state;
    check_company(PM_PRECISION_F32);
}

static void test_company_bf16(void **state)
{
    (void)state;
    check_company(PM_PRECISION_BF16);
}

static void test_company_int8(void **state)
{
    (void)state;
    check_company(PM_PRECISION_INT8);
}

static void test_company_int4(void **state)
{
    (void)state;
    check_company(PM_PRECISION_INT4);
}

/* Slices and rows that follow the clock: the same texts, and in the end nobody waits. */
static void test_steps_by_time(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct region *want = make_regions(31), *got = make_regions(31);
    struct pm_generate *g = new_generate(1, 1, 0, 0);
    for (int i = 0; i < REGIONS; i++)
        run_alone(g, &want[i]);
    assert_true(pm_generate_counters(g).longest_gap_us > 0);
    pm_generate_free(&g);
    static const int64_t steps[] = {1, 300, 2000, 1000000};
    for (int k = 0; k < 4; k++) {
        further.step_us = steps[k];
        g = new_generate(1 + k % 2, 5 + 9 * k, 40, 0);
        run_batch(g, got, -1, (uint64_t)k);
        expect_same(want, got);
        pm_generate_free(&g);
    }
    further.step_us = 0;
    free_regions(want);
    free_regions(got);
    pm_tiny_close(&tiny);
}

/* Texts whose pictures come together begin together, by the clock as well: eight, or all that there are. */
static void test_texts_gather(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct region *all = make_regions(31);
    struct pm_error err;
    for (int many = 3; many <= 10; many += 7) {
        int admitted = 0, pictures = 0, first_eight = 0;
        further.step_us = 1000000;
        struct pm_generate *g = new_generate(1, many, 0, 0);
        for (int i = 0; i < REGIONS && admitted < many; i++) {
            clear(&all[i]);
            if (!all[i].image_count)
                continue;
            if (admit(g, &all[i], (uint64_t)i + 1, 0, &err))
                fail_msg("%s", err.text);
            pictures += all[i].image_count;
            first_eight += admitted++ < 8 ? all[i].image_count : 0;
        }
        assert_int_equal(admitted, many);
        while (!pm_generate_counters(g).passes)
            step(g, all);
        assert_int_equal(pm_generate_counters(g).pictures, many < 8 ? pictures : first_eight);
        while (pm_generate_running(g))
            step(g, all);
        pm_generate_free(&g);
    }
    further.step_us = 0;
    free_regions(all);
    pm_tiny_close(&tiny);
}

/* What the extra layer is given at a picture's places changes its guesses, of texts with pictures alone, and
 * no text. */
static void test_drafts_see_pictures(void **state)
{
    (void)state;
    int accepted[2][2] = {{0}}; /* [sees][has pictures] */
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct region *want = make_regions(31), *got = make_regions(31);
    struct pm_generate *g = new_generate(1, 1, 0, 0);
    for (int i = 0; i < REGIONS; i++)
        run_alone(g, &want[i]);
    pm_generate_free(&g);
    for (int sees = 0; sees < 2; sees++) {
        further.drafts_see_pictures = sees;
        g = new_generate(2, 16, 7, 0);
        run_batch(g, got, 3, 5);
        pm_generate_free(&g);
        expect_same(want, got);
        for (int i = 0; i < REGIONS; i++)
            accepted[sees][got[i].image_count > 0] += got[i].accepted;
    }
    further.drafts_see_pictures = false;
    assert_true(accepted[0][0] > 0 && accepted[0][0] == accepted[1][0]);
    assert_true(accepted[0][1] > 0 && accepted[0][1] != accepted[1][1]);
    free_regions(want);
    free_regions(got);
    pm_tiny_close(&tiny);
}

/* Under a memory limit pictures and texts wait for each other and come out the same; what can never fit is
 * refused with the numbers. */
static void test_memory(void **state)
{
    (void)state;
#ifdef PM_SANITIZED /* what a process takes is not what its allocations are: freed memory is kept */
    skip();
#endif
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct region *want = make_regions(21), *got = make_regions(21);
    struct pm_generate *g = new_generate(1, 1, 0, 0);
    struct pm_error err;
    for (int i = 0; i < REGIONS; i++)
        run_alone(g, &want[i]);
    assert_true(pm_generate_memory(g) == SIZE_MAX);
    pm_generate_free(&g);
    /* The least with which each of them fits alone. */
    size_t least = 0, begin = (size_t)128 << 20;
    further.memory_bytes = begin;
    g = new_generate(1, 16, 33, 0);
    begin += (1 << 20) - pm_generate_memory(g); /* leaves 1 MB */
    pm_generate_free(&g);
    for (size_t limit = begin;; limit -= 1 << 15) {
        struct pm_generate_config config = {.model = tiny.model,
                                            .tokenizer = tiny.tokenizer,
                                            .kernels = pm_kernels_get(NULL),
                                            .threads = 1,
                                            .max_running = 16,
                                            .prefill_rows = 33,
                                            .slice_macs = 3000000,
                                            .vision_cache_bytes = -1,
                                            .memory_bytes = limit};
        int rc = pm_generate_new(&config, &g, &err);
        if (rc) {
            assert_int_equal(rc, PM_ELIMIT);
            assert_non_null(strstr(err.text, "raise --memory"));
            break;
        }
        assert_true(pm_generate_memory(g) < limit);
        for (int i = 0; i < REGIONS && !rc; i++) {
            clear(&got[i]);
            rc = admit(g, &got[i], 1, 2, &err);
            if (!rc)
                assert_int_equal(pm_generate_cancel(g, 1, NULL), 0);
        }
        pm_generate_free(&g);
        if (rc) {
            assert_int_equal(rc, PM_ELIMIT);
            assert_non_null(strstr(err.text, "or --memory"));
            break;
        }
        least = limit;
    }
    if (!least)
        fail_msg("%s", err.text);
    further.memory_bytes = least + (1 << 16); /* the heap is not the same each time */
    g = new_generate(1, 16, 33, 0);
    struct pm_generate_counters c = run_batch(g, got, -1, 3);
    expect_same(want, got);
    assert_true(c.waits > 0 || c.pauses > 0);
    pm_generate_free(&g);
    further.memory_bytes = 0;
    free_regions(want);
    free_regions(got);
    pm_tiny_close(&tiny);
}

/* Bytes of the heap in use. */
static size_t heap_bytes(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* What the budget counts covers what is allocated: pictures of 440 patches, drafts and texts fill a limit,
 * and the heap never goes beyond it, of the margin for other things (24 MB) nothing is touched. */
static void check_covered(bool kv_int8)
{
    enum { COUNT = 12, MARGIN = 24 << 20, OWN = 96 << 10 /* of this test: what came out */ };
    struct region all[COUNT];
    uint64_t seed = 9;
    struct pm_error err;
    for (int i = 0; i < COUNT; i++) {
        all[i] = (struct region){.max_tokens = 70, .image_count = 1, .sampling = pm_sampling_default()};
        all[i].ids[all[i].id_count++] = PM_TINY_IMAGE;
        all[i].ids[all[i].id_count++] = 'a' + i;
        all[i].images[0] = pm_tiny_picture(&seed, 512, 128);
    }
    struct mallinfo2 m = mallinfo2();
    size_t heap = m.uordblks + m.hblkhd + m.fordblks, own = (size_t)pm_host_own_bytes();
    size_t other = own > heap ? own - heap : 0, most = 0;
    further = (struct pm_generate_config){.memory_bytes = (size_t)512 << 20, .kv_int8 = kv_int8};
    struct pm_generate *g = new_generate(1, 8, 64, 0);
    size_t limit = further.memory_bytes - pm_generate_memory(g) + ((size_t)1200 << 10);
    pm_generate_free(&g);
    further.memory_bytes = limit;
    g = new_generate(1, 8, 64, 0);
    size_t begin = heap_bytes(), room = pm_generate_memory(g);
    assert_in_range(room, 1 << 19, 3 << 19);
    for (int next = 0; next < COUNT || pm_generate_running(g);) {
        for (; next < COUNT && pm_generate_room(g); next++)
            if (admit(g, &all[next], (uint64_t)next + 1, 3, &err))
                fail_msg("%s", err.text);
        step(g, all);
        most = heap_bytes() > most ? heap_bytes() : most;
    }
    struct pm_generate_counters c = pm_generate_counters(g);
    pm_generate_free(&g);
    further = (struct pm_generate_config){0};
    assert_true(c.waits > 0 || c.pauses > 0);
    if (most > limit - MARGIN - other + OWN)
        fail_msg("the heap had %zu bytes, of the limit %zu were left for it", most, limit - MARGIN - other);
    assert_true(most - begin > room / 2); /* it was filled */
    for (int i = 0; i < COUNT; i++) {
        pm_image_free(&all[i].images[0]);
        pm_buf_free(&all[i].text);
    }
}

static void test_memory_covered(void **state)
{
    (void)state;
#ifdef PM_SANITIZED /* see above */
    skip();
#endif
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    check_covered(false);
    check_covered(true);
    pm_tiny_close(&tiny);
}

/* The cache in 8 bits: company changes nothing there either. */
static void test_company_kv_int8(void **state)
{
    (void)state;
    further.kv_int8 = true;
    check_company(PM_PRECISION_BF16);
    further.kv_int8 = false;
    struct pm_generate *g;
    struct pm_error err;
    pm_tiny_open(&tiny, PM_PRECISION_F32);
    struct pm_generate_config config = {.model = tiny.model,
                                        .kernels = pm_kernels_get(NULL),
                                        .threads = 1,
                                        .max_running = 1,
                                        .kv_int8 = true};
    assert_int_equal(pm_generate_new(&config, &g, &err), PM_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "f32"));
    pm_tiny_close(&tiny);
}

/* Prompts that begin alike are computed once as far as that goes, over pages and within one; the texts are
 * those of each alone, drafts included, whoever leaves first. */
static void test_shared(void **state)
{
    (void)state;
    static const int common[] = {2, 3, 5, 64, 65, 150};
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    for (size_t k = 0; k < sizeof common / sizeof *common; k++)
        for (int drafts = 0; drafts <= 2; drafts += 2) {
            enum { TEXTS = 4 };
            struct region *all = pm_xalloc(2 * TEXTS * sizeof *all), *want = all + TEXTS;
            int32_t ids[TEXTS][160];
            struct pm_generate *g = new_generate(1, 1, 0, 0);
            for (int i = 0; i < TEXTS; i++) {
                for (int n = 0; n < 160; n++)
                    ids[i][n] = n < common[k] ? n : (n * 7 + i * 13 + 1) % 256;
                admit_long(g, 1, ids[i], 160, 16 + 7 * i, 0, NULL);
                while (pm_generate_running(g))
                    step(g, &want[i]);
            }
            pm_generate_free(&g);
            g = new_generate(1, TEXTS, 200, 0);
            for (int i = 0; i < TEXTS; i++) {
                admit_long(g, (uint64_t)i + 1, ids[i], 160, 16 + 7 * i, drafts, NULL);
                for (int n = 0; n < 5; n++) /* its prompt is through */
                    step(g, all);
            }
            while (pm_generate_running(g))
                step(g, all);
            int shared = common[k] - 1 < 2 ? 0 : common[k] - 1;
            assert_int_equal(pm_generate_counters(g).shared_slots, (TEXTS - 1) * shared);
            pm_generate_free(&g);
            for (int i = 0; i < TEXTS; i++) {
                assert_int_equal(all[i].out_count, want[i].out_count);
                assert_memory_equal(all[i].out, want[i].out, (size_t)want[i].out_count * sizeof *want[i].out);
                assert_memory_equal(all[i].logprobs, want[i].logprobs,
                                    (size_t)want[i].out_count * sizeof(float));
                pm_buf_free(&all[i].text);
                pm_buf_free(&want[i].text);
            }
            free(all);
        }
    pm_tiny_close(&tiny);
}

/* ---- drafts ---- */

/* The next tokens that are known, each nth one wrong. */
struct oracle {
    const struct region *known;
    int prompts[REGIONS], wrong_each, calls;
};

static void foretell(void *ctx, uint64_t id, int slot, int32_t *token)
{
    struct oracle *o = ctx;
    const struct region *r = &o->known[id - 1];
    int at = slot - o->prompts[id - 1];
    assert_true(at >= 1 && at < r->max_tokens);
    if (at < r->out_count)
        *token = r->out[at];
    if (o->wrong_each && ++o->calls % o->wrong_each == 0)
        *token = (*token + 1) % PM_TINY_VOCAB;
}

/* Texts without pictures, whose drafts mostly hold, seldom, or not at all: however many are made when they
 * seem to pay, the texts are the same, and the counts add up. */
static void test_drafts_when_paying(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct region *want = make_regions(5), *got = make_regions(5);
    struct oracle oracle = {.known = want};
    struct pm_generate *g = new_generate(1, 1, 0, 0);
    for (int i = 0; i < REGIONS; i++) {
        struct region *both[] = {&want[i], &got[i]};
        for (int k = 0; k < 2; k++) {
            for (int n = 0; n < both[k]->image_count; n++)
                pm_image_free(&both[k]->images[n]);
            both[k]->image_count = 0;
            both[k]->id_count = 3;
            for (int n = 0; n < 3; n++)
                both[k]->ids[n] = i + n;
        }
        oracle.prompts[i] = 3;
        run_alone(g, &want[i]);
    }
    pm_generate_free(&g);
    static const int wrongs[] = {0, 2, 1};
    for (int k = 0; k < 3; k++) {
        int drafted = 0, accepted = 0;
        oracle.wrong_each = wrongs[k];
        further = (struct pm_generate_config){.drafts_when_paying = true,
                                              .step_us = 300 * k,
                                              .draft_hook = foretell,
                                              .draft_hook_ctx = &oracle};
        g = new_generate(1 + k, 3 + 8 * k, 9, 0);
        run_batch(g, got, PM_MTP_DRAFTS_MAX, (uint64_t)k + 1);
        pm_generate_free(&g);
        expect_same(want, got);
        for (int i = 0; i < REGIONS; i++) {
            drafted += got[i].drafted;
            accepted += got[i].accepted;
            assert_true(got[i].accepted <= got[i].drafted && got[i].accepted < got[i].out_count);
        }
        assert_true(drafted > 0 && (wrongs[k] == 1) == (accepted == 0));
        if (!wrongs[k])
            assert_true(accepted > drafted / 2); /* the rest was made for texts that ended */
    }
    further = (struct pm_generate_config){0};
    free_regions(want);
    free_regions(got);
    pm_tiny_close(&tiny);
}

/* ---- by hand ---- */

/* One region with the parts that the generator is made of: tower, positions, decoder row by row, sampler. */
static void read_by_hand(const struct region *r, struct region *out)
{
    static int32_t ids[PM_TINY_POSITIONS], positions[PM_TINY_POSITIONS][3];
    const struct pm_kernels *kernels = pm_kernels_get(NULL);
    struct pm_kv_pool *pool = pm_kv_pool_new(tiny.model, 64 * page_bytes());
    struct pm_vision *vision = pm_vision_new(tiny.model, kernels, NULL);
    struct pm_decoder *decoder = pm_decoder_new(tiny.model, kernels, NULL, pool, 1);
    struct pm_image_grid grids[2];
    struct pm_kv kv = {0};
    float *features[2] = {NULL, NULL}, *scratch = pm_xalloc(2 * PM_TINY_VOCAB * sizeof *scratch);
    int count = 0, image = 0, hidden = tiny.model->config.text.hidden, firsts[2], sizes[2];
    int32_t delta;
    for (int i = 0; i < r->id_count; i++) {
        if (r->ids[i] != PM_TINY_IMAGE) {
            ids[count++] = r->ids[i];
            continue;
        }
        struct pm_patches patches;
        assert_int_equal(pm_patches_make(&tiny.model->config, &r->images[image], &patches, NULL), 0);
        assert_int_equal(pm_vision_begin(vision, &patches, NULL), 0);
        while (!pm_vision_step(vision, INT64_MAX / 2))
            ;
        const float *tokens = pm_vision_tokens(vision, &sizes[image]);
        features[image] = pm_xalloc((size_t)(sizes[image] * hidden) * sizeof(float));
        memcpy(features[image], tokens, (size_t)(sizes[image] * hidden) * sizeof(float));
        grids[image] = (struct pm_image_grid){patches.rows, patches.columns};
        firsts[image] = count;
        for (int k = 0; k < sizes[image]; k++)
            ids[count++] = PM_TINY_IMAGE;
        pm_patches_free(&patches);
        image++;
    }
    int prompt = count;
    assert_int_equal(pm_vlm_positions(&tiny.model->config, ids, count, grids, image, positions, &delta, NULL),
                     0);
    assert_int_equal(pm_kv_reserve(pool, &kv, PM_TINY_POSITIONS, NULL), 0);
    struct pm_sampling sampling = r->sampling;
    sampling.biases = r->biases;
    for (int slot = 0; slot < count && out->out_count < r->max_tokens; slot++) {
        struct pm_decoder_row row = {
            .kv = &kv, .slot = slot, .token = ids[slot], .wants_logits = slot >= prompt - 1};
        for (int k = 0; k < 3; k++)
            row.position[k] = slot < prompt ? positions[slot][k] : slot + delta;
        for (int k = 0; k < image; k++)
            if (slot >= firsts[k] && slot < firsts[k] + sizes[k])
                row.embedding = features[k] + (slot - firsts[k]) * hidden;
        assert_int_equal(pm_decoder_run(decoder, &row, 1, NULL), 0);
        if (!row.wants_logits)
            continue;
        struct pm_history history = {ids, count, prompt};
        struct pm_sample sample;
        pm_sampler_pick(&sampling, &history, NULL, pm_decoder_logits(decoder, 0), PM_TINY_VOCAB,
                        out->out_count, scratch, &sample);
        out->logprobs[out->out_count] = sample.logprob;
        ids[count++] = out->out[out->out_count++] = sample.id;
        if (sample.id == 256 || sample.id == PM_TINY_END)
            break;
    }
    free(features[0]);
    free(features[1]);
    free(scratch);
    pm_kv_release(pool, &kv);
    pm_decoder_free(&decoder);
    pm_vision_free(&vision);
    pm_kv_pool_free(&pool);
}

static void test_by_hand(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct region *all = make_regions(77);
    struct pm_generate *g = new_generate(1, REGIONS, 11, 0);
    for (int i = 0; i < REGIONS; i++) {
        all[i].grammar = NULL;
        all[i].stop = NULL;
    }
    run_batch(g, all, 3, 5);
    for (int i = 0; i < REGIONS; i++) {
        struct region want = {0};
        read_by_hand(&all[i], &want);
        assert_int_equal(all[i].out_count, want.out_count);
        assert_memory_equal(all[i].out, want.out, (size_t)want.out_count * sizeof *want.out);
        assert_memory_equal(all[i].logprobs, want.logprobs, (size_t)want.out_count * sizeof *want.logprobs);
    }
    pm_generate_free(&g);
    free_regions(all);
    pm_tiny_close(&tiny);
}

/* ---- refusals ---- */

static void refused(struct pm_generate *g, const struct region *r, int drafts, int code, const char *text)
{
    struct pm_error err;
    struct region copy = *r;
    assert_int_equal(admit(g, &copy, 77, drafts, &err), code);
    if (!strstr(err.text, text))
        fail_msg("\"%s\" does not say \"%s\"", err.text, text);
}

static void test_refusals(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_F32);
    struct pm_generate *g = new_generate(1, 2, 0, 3 * page_bytes());
    uint64_t seed = 5;
    struct pm_error err;
    struct region good = {.ids = {1, 2, 3}, .id_count = 3, .max_tokens = 5}, r;
    good.sampling = pm_sampling_default();
    assert_int_equal(pm_generate_token_limit(g), 192);
    r = good, r.id_count = 0;
    refused(g, &r, 0, PM_EINVAL, "empty");
    r = good, r.max_tokens = 0;
    refused(g, &r, 0, PM_EINVAL, "at least 1");
    r = good, r.max_tokens = 190;
    refused(g, &r, 0, PM_ELIMIT, "3 tokens and 190 more need a cache of 193 tokens, there is one of 192");
    r = good, r.ids[1] = PM_TINY_VOCAB;
    refused(g, &r, 0, PM_EINVAL, "id 320 at place 1");
    r = good, r.ids[1] = -1;
    refused(g, &r, 0, PM_EINVAL, "id -1 at place 1");
    r = good, r.ids[2] = PM_TINY_IMAGE;
    refused(g, &r, 0, PM_EINVAL, "1 places for pictures, the request has 0");
    r = good, r.images[0] = pm_tiny_picture(&seed, 20, 20), r.image_count = 1;
    refused(g, &r, 0, PM_EINVAL, "0 places for pictures, the request has 1");
    pm_image_free(&r.images[0]);
    r.ids[0] = PM_TINY_IMAGE;
    refused(g, &r, 0, PM_EINVAL, "picture 1");
    r.images[0] = pm_tiny_picture(&seed, 4000, 10);
    refused(g, &r, 0, PM_ELIMIT, "200");
    pm_image_free(&r.images[0]);
    r = good, r.sampling.temperature = -1;
    refused(g, &r, 0, PM_EINVAL, "temperature");
    r = good, r.stop = "";
    refused(g, &r, 0, PM_EINVAL, "stop string 1 is empty");
    refused(g, &good, PM_MTP_DRAFTS_MAX + 1, PM_EINVAL, "drafts");
    assert_int_equal(pm_generate_running(g), 0);
    assert_int_equal(admit(g, &good, 1, 0, &err), 0);
    assert_int_equal(admit(g, &good, 1, 0, &err), PM_EINVAL);
    assert_int_equal(admit(g, &good, 2, 0, &err), 0);
    assert_int_equal(admit(g, &good, 3, 0, &err), PM_EBUSY);
    assert_int_equal(pm_generate_room(g), 0);
    pm_generate_free(&g);
    g = new_generate(1, 1, 0, 0); /* all the model's positions */
    r = good;
    r.ids[0] = r.ids[1] = PM_TINY_IMAGE, r.image_count = 2;
    r.images[0] = pm_tiny_picture(&seed, 240, 128);
    r.images[1] = pm_tiny_picture(&seed, 720, 280);
    assert_int_equal(admit(g, &r, 1, 0, &err), 0); /* shrunk to fit */
    r.max_tokens = 1000;                           /* more than positions are left: it ends there */
    clear(&r);
    assert_int_equal(pm_generate_cancel(g, 1, &err), 0);
    r.sampling.biases = NULL;
    assert_int_equal(admit(g, &r, 1, 0, &err), 0);
    for (int i = 0; i < 2; i++)
        pm_image_free(&r.images[i]);
    pm_generate_free(&g);
    pm_tiny_close(&tiny);
}

/* ---- cancel ---- */

/* Cancelled at every step of its way, in the tower or later, with another one beside it that must not notice.
 */
static void test_cancel(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct pm_generate *g = new_generate(1, 2, 8, 0);
    uint64_t seed = 11;
    struct pm_error err;
    struct region two[2], want;
    for (int i = 0; i < 2; i++) {
        two[i] = (struct region){.ids = {9, PM_TINY_IMAGE, 7}, .id_count = 3, .image_count = 1};
        two[i].sampling = pm_sampling_default();
        two[i].max_tokens = 12;
        two[i].images[0] = pm_tiny_picture(&seed, 90, 60);
    }
    run_alone(g, &two[1]);
    want = two[1];
    two[1].text = (struct pm_buf){0};
    assert_int_equal(pm_generate_cancel(g, 1, &err), PM_ENOTFOUND);
    bool is_last = false;
    int after = 0;
    for (; !is_last; after++) {
        clear(&two[0]);
        clear(&two[1]);
        assert_int_equal(admit(g, &two[0], 1, 2, &err), 0);
        assert_int_equal(admit(g, &two[1], 2, 2, &err), 0);
        for (int i = 0; i < after && !two[0].is_done; i++)
            step(g, two);
        is_last = two[0].is_done;
        assert_int_equal(pm_generate_cancel(g, 1, &err), is_last ? PM_ENOTFOUND : 0);
        assert_int_equal(pm_generate_room(g), two[1].is_done ? 2 : 1);
        while (pm_generate_running(g))
            step(g, two);
        assert_int_equal(two[1].out_count, want.out_count);
        assert_memory_equal(two[1].out, want.out, (size_t)want.out_count * sizeof *want.out);
    }
    assert_true(after > 6);
    for (int i = 0; i < 2; i++) {
        pm_image_free(&two[i].images[0]);
        pm_buf_free(&two[i].text);
    }
    pm_buf_free(&want.text);
    pm_generate_free(&g);
    pm_tiny_close(&tiny);
}

/* ---- pictures seen before ---- */

/* The same crop under other ids and in company: computed once, the same bits; another one, or one that has
 * left the cache, is computed. */
static void test_reused(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct pm_generate *alone = new_generate(1, 1, 0, 0);
    further.vision_cache_bytes = 1 << 20;
    struct pm_generate *kept = new_generate(1, 3, 0, 0);
    further.vision_cache_bytes = 1;
    struct pm_generate *full = new_generate(1, 3, 0, 0);
    further.vision_cache_bytes = 0;
    struct region r[3], want[3];
    struct pm_error err;
    for (int i = 0; i < 3; i++) {
        uint64_t of_picture = i < 2 ? 40 : 41;
        r[i] = (struct region){.ids = {9 + i, PM_TINY_IMAGE, 7}, .id_count = 3, .image_count = 1};
        r[i].sampling = pm_sampling_default();
        r[i].max_tokens = 9;
        r[i].images[0] = pm_tiny_picture(&of_picture, 90, 60);
        want[i] = r[i];
        run_alone(alone, &want[i]);
    }
    assert_int_equal(pm_generate_counters(alone).pictures, 3);
    for (int round = 0; round < 4; round++) {
        struct pm_generate *g = round < 2 ? kept : full;
        for (int i = 0; i < 3; i++) {
            clear(&r[i]);
            assert_int_equal(admit(g, &r[i], (uint64_t)i + 1, 0, &err), 0);
        }
        while (pm_generate_running(g))
            step(g, r);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(r[i].out_count, want[i].out_count);
            assert_memory_equal(r[i].out, want[i].out, (size_t)want[i].out_count * sizeof *want[i].out);
            assert_memory_equal(r[i].logprobs, want[i].logprobs,
                                (size_t)want[i].out_count * sizeof *want[i].logprobs);
        }
        assert_int_equal(pm_generate_counters(g).pictures, round % 2 ? 6 : 3);
        assert_int_equal(pm_generate_counters(g).pictures_reused, g == full ? 0 : round ? 4 : 1);
    }
    assert_true(pm_generate_counters(kept).vision_slices < pm_generate_counters(full).vision_slices);
    for (int i = 0; i < 3; i++) {
        pm_image_free(&r[i].images[0]);
        clear(&r[i]);
        clear(&want[i]);
    }
    pm_generate_free(&alone);
    pm_generate_free(&kept);
    pm_generate_free(&full);
    pm_tiny_close(&tiny);
}

/* ---- ends ---- */

static void test_ends(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_F32);
    struct pm_generate *g = new_generate(1, 1, 0, 0);
    struct region r = {.ids = {50, 60, 70}, .id_count = 3, .max_tokens = 30}, all;
    r.sampling = pm_sampling_default();
    r.sampling.temperature = 1;
    r.sampling.seed = 3;
    struct pm_logit_bias no_end[] = {{256, -100}, {PM_TINY_END, -100}};
    memcpy(r.biases, no_end, sizeof no_end);
    r.sampling.bias_count = 2;
    run_alone(g, &r);
    all = r;
    all.text = (struct pm_buf){0};
    pm_buf_append(&all.text, r.text.data, r.text.size);
    assert_int_equal(r.end, PM_GENERATE_LENGTH);
    assert_int_equal(r.out_count, 30);
    char *decoded;
    size_t bytes;
    assert_int_equal(
        pm_tokenizer_decode(tiny.tokenizer, r.out, (size_t)r.out_count, true, &decoded, &bytes, NULL), 0);
    assert_int_equal(r.text.size, bytes);
    assert_memory_equal(r.text.data, decoded, bytes);
    free(decoded);
    /* A stop string that is in the text: the text ends before it, and the tokens with the one that completes
     * it. */
    size_t from = 0, length = 0;
    for (size_t i = 8; i + 2 < all.text.size && !length; i++)
        if (all.text.data[i] > ' ' && all.text.data[i] < 127 && all.text.data[i + 1] > ' ' &&
            all.text.data[i + 1] < 127)
            from = i, length = 2;
    assert_true(length);
    char *stop = pm_xstrndup((const char *)all.text.data + from, length);
    char *whole = pm_xstrndup((const char *)all.text.data, all.text.size);
    size_t first = (size_t)(strstr(whole, stop) - whole);
    r.stop = stop;
    run_alone(g, &r);
    assert_int_equal(r.end, PM_GENERATE_STOP);
    assert_int_equal(r.text.size, first);
    assert_true(r.out_count < all.out_count);
    assert_memory_equal(r.out, all.out, (size_t)r.out_count * sizeof *r.out);
    r.stop = NULL;
    /* An end token: the last of the ids, nothing of the text. */
    r.biases[1].bias = 100;
    run_alone(g, &r);
    assert_int_equal(r.end, PM_GENERATE_STOP);
    assert_int_equal(r.out_count, 1);
    assert_int_equal(r.out[0], PM_TINY_END);
    assert_int_equal(r.text.size, 0);
    free(stop);
    free(whole);
    pm_buf_free(&r.text);
    pm_buf_free(&all.text);
    pm_generate_free(&g);
    pm_tiny_close(&tiny);
}

/* The model's positions end a text, with drafts at the same place as without. */
static void test_positions_end(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_BF16);
    struct pm_generate *g = new_generate(1, 1, 0, 0);
    int32_t ids[PM_TINY_POSITIONS];
    uint64_t seed = 9;
    struct region want = {0}, got = {0};
    for (int i = 0; i < PM_TINY_POSITIONS; i++)
        ids[i] = pm_tiny_between(&seed, 0, 255);
    for (int free = 1; free <= 60; free = free < 6 ? free + 1 : free + 27)
        for (int drafts = 0; drafts <= PM_MTP_DRAFTS_MAX; drafts++) {
            struct region *r = drafts ? &got : &want;
            clear(r);
            admit_long(g, 1, ids, PM_TINY_POSITIONS - free, 1 << 30, drafts, NULL);
            while (pm_generate_running(g))
                step(g, r);
            assert_int_equal(r->end, PM_GENERATE_LENGTH);
            assert_int_equal(r->out_count, free);
            assert_memory_equal(r->out, want.out, (size_t)free * sizeof *want.out);
        }
    pm_buf_free(&want.text);
    pm_buf_free(&got.text);
    pm_generate_free(&g);
    pm_tiny_close(&tiny);
}

/* A text that repeats one character is ended when the request asks for that; loops of a few ids, too. */
static void test_loop(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_F32);
    struct pm_generate *g = new_generate(1, 1, 0, 0);
    struct region r = {.ids = {50}, .id_count = 1, .max_tokens = 70};
    r.sampling = pm_sampling_default();
    struct pm_logit_bias one[] = {{'a', 100}};
    memcpy(r.biases, one, sizeof one);
    r.sampling.bias_count = 1;
    for (int loop = 0; loop <= 40; loop += 20) {
        clear(&r);
        r.sampling.biases = r.biases;
        struct pm_generate_request request = {.id = 1,
                                              .ids = r.ids,
                                              .id_count = 1,
                                              .max_tokens = 70,
                                              .sampling = r.sampling,
                                              .loop_tokens = loop};
        assert_int_equal(pm_generate_admit(g, &request, NULL), 0);
        while (pm_generate_running(g))
            step(g, &r);
        assert_int_equal(r.end, PM_GENERATE_LENGTH);
        assert_int_equal(r.out_count, loop ? loop : 70);
    }
    pm_buf_free(&r.text);
    pm_generate_free(&g);
    pm_tiny_close(&tiny);
}

static void test_grammar(void **state)
{
    (void)state;
    pm_tiny_open(&tiny, PM_PRECISION_F32);
    struct pm_generate *g = new_generate(1, 4, 0, 0);
    struct pm_grammar *number;
    struct pm_error err;
    if (pm_grammar_regex("[0-9]{3}-(ab|cd)", &number, &err))
        fail_msg("%s", err.text);
    for (int drafts = 0; drafts <= 4; drafts += 2) {
        struct region r = {.ids = {50, 51}, .id_count = 2, .max_tokens = 40, .grammar = number};
        r.sampling = pm_sampling_default();
        r.sampling.temperature = 2;
        assert_int_equal(admit(g, &r, 1, drafts, &err), 0);
        while (pm_generate_running(g))
            step(g, &r);
        assert_int_equal(r.end, PM_GENERATE_STOP);
        assert_int_equal(r.text.size, 6);
        for (int i = 0; i < 3; i++)
            assert_in_range(r.text.data[i], '0', '9');
        assert_true(!memcmp(r.text.data + 3, "-ab", 3) || !memcmp(r.text.data + 3, "-cd", 3));
        pm_buf_free(&r.text);
    }
    pm_grammar_free(&number);
    /* Where end tokens end nothing they must not be chosen either: no constraint allows them. */
    if (pm_grammar_regex("a{2}b*", &number, &err))
        fail_msg("%s", err.text);
    struct region endless = {0};
    int32_t id = 50;
    admit_long(g, 1, &id, 1, 40, 0, number);
    while (pm_generate_running(g))
        step(g, &endless);
    assert_int_equal(endless.end, PM_GENERATE_LENGTH);
    assert_int_equal(endless.text.size, 40);
    pm_buf_free(&endless.text);
    pm_grammar_free(&number);
    pm_generate_free(&g);
    pm_tiny_close(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_company_f32),    cmocka_unit_test(test_company_bf16),
        cmocka_unit_test(test_company_int8),   cmocka_unit_test(test_company_int4),
        cmocka_unit_test(test_memory),         cmocka_unit_test(test_drafts_see_pictures),
        cmocka_unit_test(test_memory_covered), cmocka_unit_test(test_steps_by_time),
        cmocka_unit_test(test_texts_gather),   cmocka_unit_test(test_company_kv_int8),
        cmocka_unit_test(test_shared),         cmocka_unit_test(test_drafts_when_paying),
        cmocka_unit_test(test_by_hand),        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_cancel),         cmocka_unit_test(test_reused),
        cmocka_unit_test(test_ends),           cmocka_unit_test(test_loop),
        cmocka_unit_test(test_grammar),        cmocka_unit_test(test_positions_end),
    };
    if (pm_grammar_regex("[a-z ]{2,20}", &words, NULL))
        return 1;
    int rc = cmocka_run_group_tests(tests, setup, teardown);
    pm_grammar_free(&words);
    return rc;
}
