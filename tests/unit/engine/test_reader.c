/* The reader of text lines over the shipped model: right text, the same bits in any company and on any number
 * of threads, bounded steps, cancel, wide lines cut and joined. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/ppocr/cls.h"
#include "engine/ppocr/det.h"
#include "engine/ppocr/det_run.h"
#include "engine/ppocr/reader.h"
#include "engine/ppocr/rec_run.h"
#include "engine/reader.h"
#include "engine/safetensors.h"

#define MODEL PM_SOURCE_DIR "/models/ppocr"

static struct pm_safetensors *pictures;
static const struct {
    const char *name, *text;
} lines[] = {
    {"cat", "cat"},
    {"find", "find(a)"},
    {"header", "2. Header line"},
    {"string", "heximdecimal string from rgb pen]"},
    {"odd", "find"},
};
enum { LINES = sizeof lines / sizeof *lines };

static struct pm_image picture(const char *name)
{
    const struct pm_tensor *t = pm_safetensors_find(pictures, name);
    assert_non_null(t);
    return (struct pm_image){.pixels = t->data,
                             .width_px = (int)t->shape[1],
                             .height_px = (int)t->shape[0],
                             .channels = 1,
                             .stride_bytes = t->shape[1]};
}

struct result {
    char text[600];
    float confidence;
    enum pm_finish finish;
    size_t words;
    struct pm_reader_word word[16];
};

static struct pm_reader *open_reader(int threads, int room)
{
    struct pm_reader *r;
    struct pm_error err;
    struct pm_reader_config config = {.model_dir = MODEL, .threads = threads, .max_running = room};
    if (pm_reader_open(&config, &r, &err))
        fail_msg("%s", err.text);
    return r;
}

static void admit(struct pm_reader *r, uint64_t id, struct pm_image image)
{
    struct pm_reader_request request = {.id = id, .image = image, .task = PM_TASK_TEXT};
    struct pm_error err;
    if (pm_reader_admit(r, &request, &err))
        fail_msg("%s", err.text);
}

/* Steps until nothing runs; results by id. Returns the number of steps. */
static int drain(struct pm_reader *r, struct result *results, uint64_t ids)
{
    int steps = 0;
    int64_t start_us = pm_clock_us(), spent_us = 0;
    while (pm_reader_running(r)) {
        const struct pm_reader_event *e;
        size_t n;
        assert_int_equal(pm_reader_step(r, &e, &n, NULL), 0);
        for (size_t i = 0; i < n; i++) {
            assert_true(e[i].id < ids && e[i].is_final);
            if (e[i].finish == PM_FINISH_STOP) {
                assert_int_equal(e[i].times.phase_count, 3);
                assert_true(e[i].times.begun_us >= start_us && e[i].times.begun_us <= pm_clock_us());
                assert_string_equal(e[i].times.phases[1].name, "recognise");
                assert_true(e[i].times.phases[1].us > 0);
            }
            for (uint32_t p = 0; p < e[i].times.phase_count; p++)
                spent_us += e[i].times.phases[p].us;
            struct result *to = &results[e[i].id];
            assert_int_equal(to->text[0], 0); /* once only */
            snprintf(to->text, sizeof to->text, "%s", e[i].text);
            assert_int_equal(strlen(e[i].text), e[i].text_bytes);
            to->confidence = e[i].confidence;
            to->finish = e[i].finish;
            to->words = e[i].word_count;
            for (size_t w = 0; w < e[i].word_count && w < 16; w++)
                to->word[w] = e[i].words[w];
        }
        assert_true(++steps < 1000);
    }
    assert_true(spent_us <= pm_clock_us() - start_us); /* all of them together */
    return steps;
}

static void test_reads(void **state)
{
    (void)state;
    struct pm_reader *r = open_reader(1, LINES);
    struct pm_reader_info info = pm_reader_info(r);
    assert_string_equal(info.name, "fast");
    assert_int_equal(info.region_kind, PM_REGION_LINE);
    struct result results[LINES] = {0};
    assert_int_equal(pm_reader_room(r), LINES);
    for (uint64_t i = 0; i < LINES; i++)
        admit(r, i, picture(lines[i].name));
    assert_int_equal(pm_reader_room(r), 0);
    drain(r, results, LINES);
    for (int i = 0; i < LINES; i++) {
        assert_string_equal(results[i].text, lines[i].text);
        assert_int_equal(results[i].finish, PM_FINISH_STOP);
        assert_true(results[i].confidence > 0.9f && results[i].confidence <= 1.0f);
    }
    const struct result *two = &results[2]; /* "2. Header line" */
    assert_int_equal(two->words, 3);
    assert_memory_equal(two->text + two->word[1].start, "Header", 6);
    float end = 0;
    for (int w = 0; w < 3; w++) {
        assert_true(two->word[w].left >= end && two->word[w].right > two->word[w].left);
        end = two->word[w].right;
    }
    assert_true(end <= 1.0f);
    pm_reader_free(&r);
}

/* One after the other on one thread, all together, in another order, and on two and three threads: the same
 * bits. */
static void test_independence(void **state)
{
    (void)state;
    struct result alone[LINES] = {0};
    struct pm_reader *r = open_reader(1, LINES);
    for (uint64_t i = 0; i < LINES; i++) {
        admit(r, i, picture(lines[i].name));
        drain(r, alone, LINES);
    }
    pm_reader_free(&r);
    for (int threads = 1; threads <= 3; threads++) {
        struct result together[LINES] = {0};
        r = open_reader(threads, LINES);
        for (uint64_t i = LINES; i-- > 0;)
            admit(r, i, picture(lines[i].name));
        drain(r, together, LINES);
        pm_reader_free(&r);
        for (int i = 0; i < LINES; i++) {
            assert_string_equal(together[i].text, alone[i].text);
            assert_true(together[i].confidence == alone[i].confidence);
            assert_int_equal(together[i].words, alone[i].words);
            for (size_t w = 0; w < alone[i].words && w < 16; w++)
                assert_true(together[i].word[w].confidence == alone[i].word[w].confidence);
        }
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct pm_reader *r = open_reader(1, 2);
    struct pm_reader_request request = {.id = 7, .image = picture("cat"), .task = PM_TASK_TABLE};
    assert_int_equal(pm_reader_admit(r, &request, NULL), PM_EINVAL);
    request.task = PM_TASK_TEXT;
    assert_int_equal(pm_reader_admit(r, &request, NULL), 0);
    assert_int_equal(pm_reader_admit(r, &request, NULL), PM_EINVAL); /* same id */
    request.id = 8;
    request.image.channels = 2;
    assert_int_equal(pm_reader_admit(r, &request, NULL), PM_EINVAL);
    request.image = (struct pm_image){.pixels = request.image.pixels,
                                      .width_px = 60000,
                                      .height_px = 1,
                                      .channels = 1,
                                      .stride_bytes = 60000};
    assert_int_equal(pm_reader_admit(r, &request, NULL), PM_ELIMIT);
    request.image = picture("find");
    assert_int_equal(pm_reader_admit(r, &request, NULL), 0);
    request.id = 9;
    assert_int_equal(pm_reader_admit(r, &request, NULL), PM_EBUSY);
    assert_int_equal(pm_reader_cancel(r, 9, NULL), PM_ENOTFOUND);
    assert_int_equal(pm_reader_cancel(r, 7, NULL), 0);
    assert_int_equal(pm_reader_running(r), 1);
    struct result results[9] = {0};
    drain(r, results, 9);
    assert_string_equal(results[8].text, "find(a)");
    pm_reader_free(&r);
    struct pm_reader_config config = {.model_dir = PM_SOURCE_DIR "/tests", .threads = 1, .max_running = 1};
    assert_int_equal(pm_reader_open(&config, &r, NULL), PM_ENOTFOUND);
    assert_null(r);
}

static void test_blank(void **state)
{
    (void)state;
    struct pm_reader *r = open_reader(1, 3);
    static uint8_t white[300 * 30 * 3];
    memset(white, 255, sizeof white);
    struct result results[3] = {0};
    admit(r, 0,
          (struct pm_image){
              .pixels = white, .width_px = 300, .height_px = 30, .channels = 3, .stride_bytes = 900});
    admit(
        r, 1,
        (struct pm_image){.pixels = white, .width_px = 1, .height_px = 1, .channels = 1, .stride_bytes = 1});
    admit(r, 2,
          (struct pm_image){
              .pixels = white, .width_px = 2, .height_px = 2000, .channels = 1, .stride_bytes = 2});
    drain(r, results, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(results[i].finish, PM_FINISH_EMPTY);
    pm_reader_free(&r);
}

/* A strip of height 48 with the given lines one after the other, white between them. */
static struct pm_image strip(const char *const *names, int count, int gap)
{
    int width = 0, at = 0;
    for (int i = 0; i < count; i++)
        width += picture(names[i]).width_px + gap;
    struct pm_image out;
    assert_int_equal(pm_image_alloc(width, 48, 1, &out, NULL), 0);
    memset(out.owned, 255, (size_t)width * 48);
    for (int i = 0; i < count; i++) {
        struct pm_image p = picture(names[i]);
        for (int y = 0; y < 48; y++)
            memcpy(out.owned + (size_t)y * (size_t)width + at, p.pixels + (size_t)y * p.stride_bytes,
                   (size_t)p.width_px);
        at += p.width_px + gap;
    }
    return out;
}

/* A line of 11 sentences, over 6000 columns: cut between words, read in several bounded steps, cancelled in
 * the middle without a trace. */
static void test_wide(void **state)
{
    (void)state;
    static const char *const names[] = {"string", "string", "header", "string", "string", "string",
                                        "string", "string", "string", "string", "find"};
    struct pm_image wide = strip(names, 11, 30);
    assert_true(wide.width_px > 2 * PM_PPOCR_PIECE_PX);
    struct pm_reader *r = open_reader(1, 4);
    struct pm_reader_request request = {.id = 1, .image = wide, .task = PM_TASK_TEXT};
    const struct pm_reader_event *e;
    size_t n;
    assert_int_equal(pm_reader_admit(r, &request, NULL), 0);
    assert_int_equal(pm_reader_step(r, &e, &n, NULL), 0);
    assert_int_equal(n, 0); /* too much for one step */
    assert_int_equal(pm_reader_cancel(r, 1, NULL), 0);
    struct result results[4] = {0};
    admit(r, 1, wide);
    admit(r, 2, picture("cat"));
    assert_true(drain(r, results, 4) >= 6);
    assert_string_equal(results[2].text, "cat");
    static const char want[] = "heximdecimal string from rgb pen]";
    int found = 0;
    for (const char *p = results[1].text; (p = strstr(p, want)); p++)
        found++;
    if (found != 9)
        fail_msg("%d of 9: %s", found, results[1].text);
    assert_non_null(strstr(results[1].text, "pen] 2. Header line heximdecimal"));
    assert_int_equal(results[1].words, 49);
    pm_reader_free(&r);
    pm_image_free(&wide);
}

/* Cuts go through the middle of a gap, never beyond the limit, and always forward. */
static void test_cut(void **state)
{
    (void)state;
    enum { W = 1000 };
    static uint8_t grey[48 * W];
    struct pm_image line = {.pixels = grey, .width_px = W, .height_px = 48, .channels = 1, .stride_bytes = W};
    int gap;
    memset(grey, 255, sizeof grey);
    assert_int_equal(pm_ppocr_cut(&line, 0, W, &gap), W);
    for (int x = 0; x < W; x++)
        if (x < 470 || x >= 500)
            for (int y = 10; y < 30; y++)
                grey[y * W + x] = x % 2 ? 0 : 255;
    for (int y = 10; y < 30; y++) /* no column without ink but in the gap */
        for (int x = 0; x < W; x++)
            if ((x < 470 || x >= 500) && y % 2)
                grey[y * W + x] = 0;
    int cut = pm_ppocr_cut(&line, 0, 600, &gap);
    assert_int_equal(gap, 30);
    assert_true(cut >= 480 && cut <= 490);
    for (int limit = 10; limit < W; limit += 37)
        for (int at = 0, turns = 0; at < W; turns++) {
            int next = pm_ppocr_cut(&line, at, limit, &gap);
            assert_true(next > at && next - at <= limit && turns < W);
            at = next;
        }
}

static void test_widths(void **state)
{
    (void)state;
    assert_int_equal(pm_rec_steps(8), 1);
    assert_int_equal(pm_rec_steps(101), 13);
    assert_int_equal(pm_rec_steps(320), 40);
    assert_int_equal(pm_rec_width(100, 48), 100);
    assert_int_equal(pm_rec_width(1, 1000), 8);
    assert_int_equal(pm_rec_width(100, 33), 146);
    /* the model's description: 1.092 and 4.102 G, 7.474 G for the detector */
    assert_int_equal((pm_rec_line_macs(320) + pm_rec_head_macs(40) + 500000) / 1000000, 1092);
    assert_int_equal((pm_rec_line_macs(1200) + pm_rec_head_macs(150) + 500000) / 1000000, 4102);
    assert_int_equal((pm_det_macs(960, 736) + 500000) / 1000000, 7474);
}

/* Detector and classifier open, run and refuse: their numbers are the parity program's matter. */
static void test_other_networks(void **state)
{
    (void)state;
    static const char *const names[] = {"string"};
    struct pm_image line = picture("string"), wide = strip(names, 1, 0);
    static uint8_t page[96 * 704];
    static float map[96 * 704], other[96 * 704];
    memset(page, 255, sizeof page);
    for (int y = 0; y < 48; y++)
        memcpy(page + (size_t)(y + 24) * 704 + 32, line.pixels + (size_t)y * line.stride_bytes,
               (size_t)line.width_px);
    struct pm_image image = {
        .pixels = page, .width_px = 704, .height_px = 96, .channels = 1, .stride_bytes = 704};
    for (int threads = 1; threads <= 2; threads++) {
        struct pm_det *det;
        assert_int_equal(pm_det_open(MODEL, threads, &det, NULL), 0);
        assert_int_equal(pm_det_map(det, &image, threads == 1 ? map : other, NULL), 0);
        struct pm_image odd = image;
        odd.width_px = 700;
        assert_int_equal(pm_det_map(det, &odd, other, NULL), PM_EINVAL);
        struct pm_det_params params = pm_det_params_default();
        struct pm_det_box *boxes;
        size_t count;
        assert_int_equal(pm_det_run(det, &odd, 0, &params, &boxes, &count, NULL), 0);
        assert_true(count >= 1 && boxes[0].score > 0.5f);
        free(boxes);
        if (threads == 2)
            assert_int_equal(pm_det_map(det, &image, other, NULL), 0);
        pm_det_free(&det);
    }
    assert_memory_equal(map, other, sizeof map);
    assert_true(map[48 * 704 + 352] > 0.5f && map[0] < 0.1f);
    struct pm_cls *cls;
    float turned;
    assert_int_equal(pm_cls_open(MODEL, 1, &cls, NULL), 0);
    assert_int_equal(pm_cls_run(cls, &wide, &turned, NULL), 0);
    assert_true(turned < 0.5f);
    for (int i = 0; i < 48 * wide.width_px / 2; i++) { /* by 180 degrees */
        uint8_t *a = wide.owned + i, *b = wide.owned + 48 * wide.width_px - 1 - i, t = *a;
        *a = *b;
        *b = t;
    }
    assert_int_equal(pm_cls_run(cls, &wide, &turned, NULL), 0);
    assert_true(turned > 0.5f);
    pm_cls_free(&cls);
    pm_image_free(&wide);
}

int main(void)
{
    struct pm_error err;
    if (pm_safetensors_open(PM_TEST_DATA "/engine/lines.safetensors", &pictures, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),  cmocka_unit_test(test_independence),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_blank),  cmocka_unit_test(test_wide),           cmocka_unit_test(test_cut),
        cmocka_unit_test(test_widths), cmocka_unit_test(test_other_networks),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pm_safetensors_free(&pictures);
    return failed;
}
