/* The reader of family glm_ocr, from model folder to texts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/lines.h"
#include "engine/reader.h"
#include "engine/vlm/generate.h"
#include "tiny_model.h"

enum { REGIONS = 14, BLOCK_TOKENS = 48 };

static struct pm_tiny blocks, lines;

static int setup(void **state)
{
    (void)state;
    pm_tiny_make(&blocks, PM_TINY_BLOCK);
    pm_tiny_make(&lines, PM_TINY_LINE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pm_tiny_remove(&blocks);
    pm_tiny_remove(&lines);
    return 0;
}

static struct pm_reader *open_reader(const struct pm_tiny *tiny, enum pm_precision precision, int threads,
                                     int running, int drafts)
{
    struct pm_reader *reader;
    struct pm_error err;
    char *dir = pm_tiny_folder(tiny, precision);
    struct pm_reader_config config = {
        .model_dir = dir, .threads = threads, .max_running = running, .drafts = drafts};
    if (pm_reader_open(&config, &reader, &err))
        fail_msg("%s", err.text);
    free(dir);
    return reader;
}

struct region {
    struct pm_reader_request request;
    struct pm_buf text, partial;
    float confidence;
    enum pm_finish finish;
    struct pm_error error;
    uint64_t tokens;
    int64_t spent_us;
    uint32_t phases;
    bool is_done;
};

static void forget(struct region *r)
{
    pm_buf_free(&r->text);
    pm_buf_free(&r->partial);
    *r = (struct region){.request = r->request};
}

static void step(struct pm_reader *reader, struct region *all, int count)
{
    const struct pm_reader_event *events;
    size_t n;
    struct pm_error err;
    if (pm_reader_step(reader, &events, &n, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++) {
        struct region *r = all;
        while (r < all + count && r->request.id != events[i].id)
            r++;
        assert_true(r < all + count && !r->is_done);
        if (!events[i].is_final) {
            assert_true(events[i].text_bytes > 0);
            pm_buf_append(&r->partial, events[i].text, events[i].text_bytes);
            continue;
        }
        r->is_done = true;
        pm_buf_append(&r->text, events[i].text, events[i].text_bytes);
        r->confidence = events[i].confidence;
        r->finish = events[i].finish;
        r->error = events[i].error;
        r->tokens = events[i].tokens;
        for (uint32_t p = 0; p < events[i].times.phase_count; p++)
            r->spent_us += events[i].times.phases[p].us;
        r->phases = events[i].times.phase_count;
        assert_int_equal(events[i].word_count, 0);
    }
}

static void read_all(struct pm_reader *reader, struct region *all, int count)
{
    struct pm_error err;
    int64_t start_us = pm_clock_us(), spent_us = 0;
    int next = 0;
    while (next < count || pm_reader_running(reader)) {
        while (next < count && pm_reader_room(reader))
            if (pm_reader_admit(reader, &all[next++].request, &err))
                fail_msg("%s", err.text);
        step(reader, all, count);
    }
    for (int i = 0; i < count; i++) {
        spent_us += all[i].spent_us;
        if (all[i].finish == PM_FINISH_STOP || all[i].finish == PM_FINISH_LENGTH)
            assert_true(all[i].tokens > 0 &&
                        all[i].phases >= 3); /* preprocess, prefill, decode; vision of a new picture */
    }
    assert_true(spent_us > 0 && spent_us <= pm_clock_us() - start_us);
}

static void make_regions(struct region *all, uint64_t seed, int width_most, int height_most)
{
    for (int i = 0; i < REGIONS; i++)
        all[i] = (struct region){
            .request = {.id = (uint64_t)i + 100,
                        .image = pm_tiny_picture(&seed, pm_tiny_between(&seed, 12, width_most),
                                                 pm_tiny_between(&seed, 12, height_most)),
                        .task = (enum pm_task)(i % 3),
                        .max_tokens = i % 4 ? 0 : 7}};
}

static void free_regions(struct region *all)
{
    for (int i = 0; i < REGIONS; i++) {
        pm_image_free(&all[i].request.image);
        forget(&all[i]);
    }
}

static void expect_same(const struct region *a, const struct region *b)
{
    assert_true(a->is_done && b->is_done);
    assert_int_equal(a->finish, b->finish);
    assert_true(a->confidence == b->confidence);
    assert_int_equal(a->text.size, b->text.size);
    if (a->text.size)
        assert_memory_equal(a->text.data, b->text.data, a->text.size);
}

/* ---- blocks ---- */

static const char *const prompts[] = {"Text Recognition:", "Table Recognition:", "Formula Recognition:"};

/* What the generator says to the same prompt, by hand. */
static void expect_generated(struct pm_generate *g, const struct region *r)
{
    struct pm_buf prompt = {0}, text = {0};
    int32_t *ids;
    size_t count;
    double sum = 0;
    int tokens = 0;
    enum pm_generate_end end = PM_GENERATE_ERROR;
    pm_buf_printf(&prompt,
                  "[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>%s<|assistant|>\n",
                  prompts[r->request.task]);
    assert_int_equal(pm_tokenizer_encode(blocks.tokenizer, (const char *)prompt.data, prompt.size, true, &ids,
                                         &count, NULL),
                     0);
    struct pm_generate_request request = {.id = 1,
                                          .ids = ids,
                                          .id_count = (int)count,
                                          .images = &r->request.image,
                                          .image_count = 1,
                                          .max_tokens =
                                              r->request.max_tokens ? r->request.max_tokens : BLOCK_TOKENS,
                                          .sampling = pm_sampling_default()};
    assert_int_equal(pm_generate_admit(g, &request, NULL), 0);
    while (pm_generate_running(g)) {
        const struct pm_generate_event *events;
        size_t n;
        assert_int_equal(pm_generate_step(g, &events, &n, NULL), 0);
        for (size_t i = 0; i < n; i++) {
            pm_buf_append(&text, events[i].text, events[i].text_bytes);
            for (int k = 0; k < events[i].sample_count; k++) {
                int32_t id = events[i].samples[k].id;
                if (id == 256 || id == PM_TINY_END)
                    continue;
                sum += exp((double)events[i].samples[k].logprob);
                tokens++;
            }
            end = events[i].end;
        }
    }
    size_t from = 0;
    while (text.size && strchr(" \n\r\t", text.data[text.size - 1]))
        text.size--;
    while (from < text.size && strchr(" \n\r\t", text.data[from]))
        from++;
    assert_int_equal(r->text.size, text.size - from);
    if (r->text.size)
        assert_memory_equal(r->text.data, text.data + from, r->text.size);
    assert_float_equal(r->confidence, tokens ? sum / tokens : 0, 1e-6);
    assert_int_equal(r->finish, end == PM_GENERATE_LENGTH ? PM_FINISH_LENGTH
                                : r->text.size            ? PM_FINISH_STOP
                                                          : PM_FINISH_EMPTY);
    pm_buf_free(&prompt);
    pm_buf_free(&text);
    free(ids);
}

static void check_blocks(enum pm_precision precision)
{
    struct region alone[REGIONS], together[REGIONS];
    make_regions(alone, 1, 120, 60);
    make_regions(together, 1, 120, 60);
    struct pm_reader *reader = open_reader(&blocks, precision, 1, 1, -1);
    struct pm_reader_info info = pm_reader_info(reader);
    assert_string_equal(info.name, "tiny");
    assert_string_equal(info.family, "glm_ocr");
    assert_int_equal(info.region_kind, PM_REGION_BLOCK);
    assert_int_equal(info.tasks, 7);
    read_all(reader, alone, REGIONS);
    pm_reader_free(&reader);
    reader = open_reader(&blocks, precision, 2, 5, 3);
    read_all(reader, together, REGIONS);
    pm_reader_free(&reader);
    pm_tiny_open(&blocks, precision);
    struct pm_generate *g;
    struct pm_generate_config config = {.model = blocks.model,
                                        .tokenizer = blocks.tokenizer,
                                        .kernels = pm_kernels_get(NULL),
                                        .threads = 1,
                                        .max_running = 1};
    assert_int_equal(pm_generate_new(&config, &g, NULL), 0);
    for (int i = 0; i < REGIONS; i++) {
        expect_same(&alone[i], &together[i]);
        expect_generated(g, &alone[i]);
        /* partial text grew to the final one, but for blanks at its end */
        const struct region *r = &alone[i];
        assert_true(r->partial.size <= r->text.size + 8);
        size_t common = r->partial.size < r->text.size ? r->partial.size : r->text.size;
        if (common)
            assert_memory_equal(r->partial.data, r->text.data, common);
        assert_true(r->finish == PM_FINISH_EMPTY || r->text.size < 2 || r->partial.size > 0);
    }
    pm_generate_free(&g);
    pm_tiny_close(&blocks);
    free_regions(alone);
    free_regions(together);
}

static void test_blocks_f32(void **state)
{
    (void)state;
    check_blocks(PM_PRECISION_F32);
}

static void test_blocks_bf16(void **state)
{
    (void)state;
    check_blocks(PM_PRECISION_BF16);
}

static void test_sampling(void **state)
{
    (void)state;
    struct pm_reader *reader = open_reader(&blocks, PM_PRECISION_BF16, 1, 4, 0);
    uint64_t seed = 3;
    struct pm_image image = pm_tiny_picture(&seed, 60, 40);
    struct region four[4];
    for (int i = 0; i < 4; i++)
        four[i] = (struct region){.request = {.id = (uint64_t)i, .image = image}};
    four[0].request.temperature = four[1].request.temperature = four[2].request.temperature = 1.5f;
    four[0].request.seed = four[1].request.seed = 5;
    four[2].request.seed = 6;
    four[3].request.repetition_penalty = 1.5f;
    read_all(reader, four, 4);
    expect_same(&four[0], &four[1]);
    assert_false(four[0].text.size == four[2].text.size &&
                 !memcmp(four[0].text.data, four[2].text.data, four[0].text.size));
    struct region plain = {.request = {.id = 9, .image = image}};
    read_all(reader, &plain, 1);
    assert_false(plain.text.size == four[3].text.size &&
                 !memcmp(plain.text.data, four[3].text.data, plain.text.size));
    for (int i = 0; i < 4; i++)
        forget(&four[i]);
    forget(&plain);
    pm_image_free(&image);
    pm_reader_free(&reader);
}

static void test_refusals_and_cancel(void **state)
{
    (void)state;
    struct pm_reader *reader = open_reader(&blocks, PM_PRECISION_BF16, 1, 2, 0);
    uint64_t seed = 3;
    struct pm_error err;
    struct pm_image image = pm_tiny_picture(&seed, 60, 40), sliver = pm_tiny_picture(&seed, 4000, 10);
    struct pm_reader_request r = {.id = 1, .image = sliver};
    assert_int_equal(pm_reader_admit(reader, &r, &err), PM_ELIMIT);
    assert_non_null(strstr(err.text, "region 1: "));
    r.image = (struct pm_image){0};
    assert_int_equal(pm_reader_admit(reader, &r, &err), PM_EINVAL);
    r.image = image;
    r.temperature = -1;
    assert_int_equal(pm_reader_admit(reader, &r, &err), PM_EINVAL);
    r.temperature = 0;
    r.max_tokens = -1;
    assert_int_equal(pm_reader_admit(reader, &r, &err), PM_EINVAL);
    r.max_tokens = 0;
    assert_int_equal(pm_reader_running(reader), 0);
    struct region two[2] = {{.request = r}, {.request = r}}, want = {.request = r};
    want.request.id = two[1].request.id = 2;
    read_all(reader, &want, 1);
    /* After any number of steps: the other one is read as if nothing had been there. */
    for (int steps = 0; steps < 12; steps++) {
        forget(&two[1]);
        assert_int_equal(pm_reader_admit(reader, &two[0].request, &err), 0);
        assert_int_equal(pm_reader_admit(reader, &two[0].request, &err), PM_EINVAL);
        assert_int_equal(pm_reader_admit(reader, &two[1].request, &err), 0);
        r.id = 3;
        assert_int_equal(pm_reader_admit(reader, &r, &err), PM_EBUSY);
        for (int i = 0; i < steps; i++)
            step(reader, two, 2);
        assert_int_equal(pm_reader_cancel(reader, 1, &err), two[0].is_done ? PM_ENOTFOUND : 0);
        assert_int_equal(pm_reader_cancel(reader, 1, &err), PM_ENOTFOUND);
        while (pm_reader_running(reader))
            step(reader, two, 2);
        expect_same(&two[1], &want);
        forget(&two[0]);
    }
    forget(&two[1]);
    forget(&want);
    pm_image_free(&image);
    pm_image_free(&sliver);
    pm_reader_free(&reader);
}

/* A crop seen before is read from what the tower made of it then, as far as it is kept; the text is the same.
 */
static void test_pictures_reused(void **state)
{
    (void)state;
    static const struct {
        int64_t bytes;
        uint64_t reused; /* of five: the first picture twice more, the second once */
    } sizes[] = {{0, 3}, {-1, 0}, {1 << 20, 3}, {64, 0}};
    char *dir = pm_tiny_folder(&blocks, PM_PRECISION_BF16);
    uint64_t seed = 77;
    struct pm_image first = pm_tiny_picture(&seed, 60, 40), second = pm_tiny_picture(&seed, 60, 40);
    struct region want[2] = {{.request = {.id = 1, .image = first}}, {.request = {.id = 2, .image = second}}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct pm_reader_config config = {
            .model_dir = dir, .threads = 1, .max_running = 1, .picture_cache_bytes = sizes[i].bytes};
        struct pm_reader *reader;
        struct pm_error err;
        if (pm_reader_open(&config, &reader, &err))
            fail_msg("%s", err.text);
        assert_int_equal(pm_reader_counters(reader).pictures, 0);
        for (int k = 0; k < 5; k++) {
            struct region r = {.request = want[k % 2].request};
            read_all(reader, &r, 1);
            if (i || k > 1) {
                expect_same(&r, &want[k % 2]);
                forget(&r);
            } else {
                want[k] = r;
            }
        }
        assert_int_equal(pm_reader_counters(reader).pictures, 5);
        assert_int_equal(pm_reader_counters(reader).pictures_reused, sizes[i].reused);
        pm_reader_free(&reader);
    }
    forget(&want[0]);
    forget(&want[1]);
    pm_image_free(&first);
    pm_image_free(&second);
    free(dir);
}

/* ---- lines ---- */

static void test_lines(void **state)
{
    (void)state;
    static const struct pm_line_rules rules = {32, 16, 256};
    struct pm_reader *reader = open_reader(&lines, PM_PRECISION_F32, 2, 3, 1);
    assert_int_equal(pm_reader_info(reader).region_kind, PM_REGION_LINE);
    assert_int_equal(pm_reader_info(reader).tasks, 1u << PM_TASK_TEXT);
    struct region all[REGIONS];
    make_regions(all, 8, 1500, 50);
    for (int i = 0; i < REGIONS; i++)
        all[i].request.task = PM_TASK_TEXT;
    read_all(reader, all, REGIONS);
    int longest = 0;
    for (int i = 0; i < REGIONS; i++) {
        struct pm_line_part *parts;
        struct pm_buf text = {0};
        int count;
        bool is_cut = false;
        pm_line_cut(&rules, &all[i].request.image, &parts, &count);
        for (int k = 0; k < count; k++) {
            struct region part = {.request = {.id = 1, .max_tokens = all[i].request.max_tokens}};
            assert_int_equal(
                pm_line_make(&rules, &all[i].request.image, &parts[k], &part.request.image, NULL), 0);
            read_all(reader, &part, 1);
            if (parts[k].has_space && text.size && part.text.size)
                pm_buf_append(&text, " ", 1);
            pm_buf_append(&text, part.text.data, part.text.size);
            is_cut |= part.finish == PM_FINISH_LENGTH;
            pm_image_free(&part.request.image);
            forget(&part);
        }
        longest = count > longest ? count : longest;
        assert_int_equal(all[i].finish, is_cut      ? PM_FINISH_LENGTH
                                        : text.size ? PM_FINISH_STOP
                                                    : PM_FINISH_EMPTY);
        if (count == 1) { /* blanks inside may come from the ends of parts */
            assert_int_equal(all[i].text.size, text.size);
            if (text.size)
                assert_memory_equal(all[i].text.data, text.data, text.size);
        } else {
            assert_true(all[i].text.size >= text.size);
        }
        assert_true(all[i].confidence > 0 && all[i].confidence <= 1);
        pm_buf_free(&text);
        free(parts);
    }
    assert_true(longest >= 4);
    free_regions(all);
    pm_reader_free(&reader);
}

/* ---- folders that are not right ---- */

static void refused(const struct pm_tiny *tiny, const char *file, const char *from, const char *to, int code,
                    const char *why)
{
    char *dir = pm_tiny_folder(tiny, PM_PRECISION_F32), *path = pm_fs_join(dir, file);
    struct pm_buf text = {0}, changed = {0};
    struct pm_error err;
    struct pm_reader *reader;
    struct pm_reader_config config = {.model_dir = dir, .threads = 1, .max_running = 1};
    assert_int_equal(pm_fs_read(path, 1 << 24, &text, NULL), 0);
    pm_buf_text(&text, "");
    char *at = strstr((char *)text.data, from);
    assert_non_null(at);
    pm_buf_append(&changed, text.data, (size_t)(at - (char *)text.data));
    pm_buf_text(&changed, to);
    pm_buf_text(&changed, at + strlen(from));
    assert_int_equal(pm_fs_write(path, changed.data, changed.size, false, NULL), 0);
    assert_int_equal(pm_reader_open(&config, &reader, &err), code);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    assert_int_equal(pm_fs_write(path, text.data, text.size, false, NULL), 0);
    pm_buf_free(&text);
    pm_buf_free(&changed);
    free(path);
    free(dir);
}

static void test_folders(void **state)
{
    (void)state;
    static const char m[] = "pagemill.json";
    refused(&blocks, "chat_template.jinja", "<|image|>", "", PM_EFORMAT, "0 places for one picture");
    refused(&blocks, "chat_template.jinja", "<|image|>", "<|image|><|image|>", PM_EFORMAT, "2 places");
    refused(&blocks, m, "\"tokenizer.json\"", "\"other.json\"", PM_ENOTFOUND, "other.json");
    refused(&blocks, m, "\"model.pmw\"", "\"../model.pmw\"", PM_EFORMAT, "weights");
    refused(&blocks, m, "48", "0", PM_EFORMAT, "\"max_tokens\" must be a whole number, 1 to");
    refused(&blocks, m, "48", "\"many\"", PM_EFORMAT, "\"max_tokens\"");
    refused(&blocks, m, "\"Table Recognition:\"", "7", PM_EFORMAT, "the prompt of task table");
    refused(&blocks, "tokenizer.json", "<|image|>", "<|bild|>", PM_EFORMAT, "0 places");
    refused(&lines, m, "256", "250", PM_EFORMAT, "\"max_width_px\", a multiple of it");
    refused(&lines, m, "\"line_height_px\"", "\"line_height\"", PM_EFORMAT, "needs \"line_height_px\"");
    refused(&lines, m, "256", "4096", PM_EFORMAT, "image processor");
    refused(&lines, m, ": 32", ": 24", PM_EFORMAT, "lines of 16 x 24 px would be made 16 x 32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_f32),      cmocka_unit_test(test_blocks_bf16),
        cmocka_unit_test(test_sampling),        cmocka_unit_test(test_refusals_and_cancel),
        cmocka_unit_test(test_lines),           cmocka_unit_test(test_folders),
        cmocka_unit_test(test_pictures_reused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
