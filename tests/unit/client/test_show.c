/* What people see: texts, tables, the screen of top, JSON. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/color.h"
#include "client/cli/doctor.h"
#include "client/cli/screen.h"
#include "client/cli/show.h"
#include "client/cli/top_view.h"

static void test_texts(void **state)
{
    (void)state;
    char text[64];
    static const struct {
        uint64_t count;
        const char *text;
    } counts[] = {{0, "0"},         {9999, "9999"},    {10000, "10k"},
                  {999499, "999k"}, {1250000, "1.2M"}, {UINT64_MAX, "18E"}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        pm_show_count(counts[i].count, text, sizeof text);
        assert_string_equal(text, counts[i].text);
    }
    pm_show_rate(0, text, sizeof text);
    assert_string_equal(text, "");
    pm_show_rate(0.333, text, sizeof text);
    assert_string_equal(text, "0.33/s");
    pm_show_rate(1234, text, sizeof text);
    assert_string_equal(text, "1234/s");
    pm_show_rate(123456, text, sizeof text);
    assert_string_equal(text, "123k/s");
    pm_show_bar(0.5, 12, text, sizeof text);
    assert_string_equal(text, "[#####.....]");
    pm_show_bar(7, 6, text, sizeof text);
    assert_string_equal(text, "[####]");
    pm_show_bar(0.0 / 1, 2, text, sizeof text);
    assert_string_equal(text, "");
}

static void test_columns(void **state)
{
    (void)state;
    assert_int_equal(pm_show_columns("abc"), 3);
    assert_int_equal(pm_show_columns("\xc3\xa9t\xc3\xa9"), 3);
    assert_int_equal(pm_show_columns("e\xcc\x81"), 1);                /* combining */
    assert_int_equal(pm_show_columns("\xe6\x96\x87\xe5\xad\x97"), 4); /* wide */
    assert_int_equal(pm_show_columns("\xff\xc3"), 2);                 /* broken bytes */
    assert_int_equal(pm_show_fit("\xe6\x96\x87\xe5\xad\x97", 3), 3);  /* half a character does not fit */
    assert_int_equal(pm_show_fit("abc", 10), 3);
}

/* ---- top ---- */

static size_t visible(const char *line)
{
    char *plain = malloc(strlen(line) + 1), *out = plain;
    for (const char *p = line; *p;) {
        if (*p == 0x1b)
            p += strcspn(p, "m") + 1;
        else
            *out++ = *p++;
    }
    *out = 0;
    size_t n = (size_t)pm_show_columns(plain);
    free(plain);
    return n;
}

static const char *const readers[] = {"fast"};
static struct pagemill_peer peers[40];
static struct pagemill_job jobs[30];
static const struct pagemill_queue queues[] = {
    {.kind = "page", .reader = "", .queued = 123456789, .leased = 2, .oldest_us = 700000000, .done = 5},
    {.kind = "region",
     .reader = "a-reader-with-a-long-name",
     .queued = 7,
     .leased = 16,
     .done = 400,
     .failed = 1}};
static const struct pagemill_counter counters[] = {
    {"refused_submits", 3}, {"nothing", 0}, {"retries_crash", UINT64_MAX}};
static const struct pagemill_latency latencies[] = {
    {.name = "wait", .label = "page", .count = 9, .p50_us = 1200, .p99_us = 99000000},
    {.name = "sync", .label = "", .count = 9, .p50_us = 300, .p99_us = 1500}};

static struct pagemill_stats full_fleet(void)
{
    for (size_t i = 0; i < 40; i++)
        peers[i] = (struct pagemill_peer){.name = i % 2 ? "worker-with-a-long-name" : "w",
                                          .role = "worker",
                                          .version = "1",
                                          .pid = 4000000 + i,
                                          .leases = 16,
                                          .credit = 4,
                                          .done = 100 * i,
                                          .up_us = 100000000,
                                          .state = i % 3 ? "busy" : "stalled",
                                          .host = "",
                                          .readers = readers,
                                          .reader_count = 1,
                                          .rss_bytes = 150000000,
                                          .task = 5,
                                          .task_us = 90000000};
    return (struct pagemill_stats){.version = "1.2.3",
                                   .epoch = 4,
                                   .up_us = 100000000,
                                   .peers = peers,
                                   .peer_count = 40,
                                   .queues = queues,
                                   .queue_count = 2,
                                   .counters = counters,
                                   .counter_count = 3,
                                   .jobs_running = 30,
                                   .pages_done = 1000,
                                   .regions_done = 40000,
                                   .tokens = 12345678,
                                   .pixel_bytes = 1000,
                                   .pixel_budget_bytes = 1100,
                                   .disk_bytes_free = 1,
                                   .latencies = latencies,
                                   .latency_count = 2,
                                   .rss_bytes = 30000000,
                                   .state_bytes = 5000000,
                                   .clients = 3};
}

static struct pagemill_jobs many_jobs(void)
{
    for (size_t i = 0; i < 30; i++)
        jobs[i] = (struct pagemill_job){
            .job = 100 + i,
            .name = "/a/long/path/to/\xe6\x96\x87\xe5\xad\x97/the document \x1b[31m number.pdf",
            .client = "",
            .batch = "",
            .key = "",
            .stem = "",
            .reader = "",
            .error_code = "",
            .error_text = "",
            .state = i % 2 ? PAGEMILL_JOB_RUNNING : PAGEMILL_JOB_FAILED,
            .pages = 10,
            .pages_done = (uint32_t)i % 10,
            .pages_failed = 1,
            .created_us = 1000000,
            .started_us = 2000000};
    return (struct pagemill_jobs){.jobs = jobs, .count = 30};
}

static void test_top_fits(void **state)
{
    (void)state;
    struct pagemill_stats now = full_fleet(), before = now;
    struct pagemill_jobs list = many_jobs();
    before.pages_done = 900;
    for (int width = 1; width < 220; width += 3)
        for (int color = 0; color < 2; color++) {
            struct pm_top_input in = {.now = &now,
                                      .before = &before,
                                      .seconds = 10,
                                      .jobs = &list,
                                      .now_wall_us = 50000000,
                                      .selected_job = 105,
                                      .width = width,
                                      .is_colored = color};
            struct pm_top_lines out;
            pm_top_make(&in, &out);
            for (size_t i = 0; i < out.count; i++) {
                assert_true(visible(out.lines[i]) <= (size_t)width);
                assert_true(color || !strchr(out.lines[i], 0x1b)); /* nor from a name */
            }
            assert_true(out.head == 4 && out.selected > out.head);
            pm_top_free(&out);
        }
}

static bool has(const struct pm_top_lines *out, const char *text)
{
    for (size_t i = 0; i < out->count; i++)
        if (strstr(out->lines[i], text))
            return true;
    return false;
}

static void test_top_says(void **state)
{
    (void)state;
    struct pagemill_stats now = full_fleet(), before = now;
    struct pagemill_jobs list = many_jobs();
    before.pages_done = 900;
    struct pm_top_input in = {
        .now = &now, .before = &before, .seconds = 10, .jobs = &list, .now_wall_us = 50000000, .width = 160};
    struct pm_top_lines out;
    pm_top_make(&in, &out);
    assert_true(has(&out, "1000 pages 10.0/s"));
    assert_true(has(&out, "1.2 ms / 1:39")); /* wait of pages */
    assert_true(has(&out, "stalled"));
    assert_true(has(&out, "refused_submits 3"));
    assert_false(has(&out, "nothing 0"));
    assert_false(has(&out, "more"));
    size_t all = out.count;
    pm_top_free(&out);
    in.most_jobs = 5;
    in.most_peers = 7;
    in.selected_job = 129; /* the last one stays in sight */
    pm_top_make(&in, &out);
    assert_int_equal(out.count, all - 25 - 33 + 2);
    assert_true(has(&out, ">129") && has(&out, "... 25 more") && has(&out, "... 33 more"));
    pm_top_free(&out);
}

static void test_keys(void **state)
{
    (void)state;
    size_t used;
    const struct {
        const char *bytes;
        int key;
        size_t used;
    } cases[] = {{"q", 'q', 1},
                 {"\033[A", PM_KEY_UP, 3},
                 {"\033OB", PM_KEY_DOWN, 3},
                 {"\033", PM_KEY_ESCAPE, 1},
                 {"\033[5~j", PM_KEY_PAGE_UP, 4},
                 {"\033[1;5Cq", PM_KEY_NONE, 6},
                 {"\033[", PM_KEY_NONE, 2},
                 {"", PM_KEY_NONE, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(pm_screen_key((const unsigned char *)cases[i].bytes, strlen(cases[i].bytes), &used),
                         cases[i].key);
        assert_int_equal(used, cases[i].used);
    }
}

/* ---- jobs ---- */

static char *printed(const struct pagemill_job *job, bool color)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    pm_show_job_details(job, 60000000, color, out);
    fclose(out);
    return text;
}

static void test_details(void **state)
{
    (void)state;
    struct pagemill_job job = many_jobs().jobs[3];
    const struct pagemill_stage stages[] = {{"page", 4, 2000000, 8000000}};
    const struct pagemill_attempt attempts[] = {{.page = 3,
                                                 .region = 2,
                                                 .kind = "region",
                                                 .attempt = 1,
                                                 .cause = "crash",
                                                 .code = "crash",
                                                 .text = "the process died of signal 11",
                                                 .peer = "worker-2",
                                                 .version = "0.1",
                                                 .time_us = 5000000}};
    job.stages = stages;
    job.stage_count = 1;
    job.attempts = attempts;
    job.attempt_count = 1;
    job.pages_known = 2;
    job.eta_us = 90000000;
    job.first_page_us = 4500000;
    char *text = printed(&job, false);
    assert_non_null(strstr(text, "2 of them known from an earlier reading"));
    assert_non_null(strstr(text, "about 1:30 left"));
    assert_non_null(strstr(text, "after 3.5 s"));
    assert_non_null(strstr(text, "page                      4      2.0 s      8.0 s      2.0 s"));
    assert_non_null(
        strstr(text, "page 3 region 2, attempt 1: crash in worker-2 0.1: the process died of signal 11"));
    assert_null(strchr(text, 0x1b));
    free(text);
    text = printed(&job, true);
    assert_non_null(strstr(text, "\033["));
    assert_null(strstr(text, "document \033[31m"));
    free(text);
}

static void test_left(void **state)
{
    (void)state;
    struct pagemill_job job = {
        .state = PAGEMILL_JOB_RUNNING, .pages = 10, .pages_done = 5, .started_us = 10000000};
    assert_true(pm_show_job_left_us(&job, 20000000) == 10000000); /* as long again */
    job.eta_us = 7;
    assert_true(pm_show_job_left_us(&job, 20000000) == 7); /* the fleet knows better */
    job.eta_us = 0;
    job.pages_done = 0;
    assert_true(pm_show_job_left_us(&job, 20000000) == 0);
    job.pages_done = 10;
    job.state = PAGEMILL_JOB_DONE;
    assert_true(pm_show_job_left_us(&job, 20000000) == 0 && pm_show_job_part(&job) == 1);
}

static void test_json(void **state)
{
    (void)state;
    struct pagemill_job job = many_jobs().jobs[3];
    static const char *const keys[] = {
        "job",     "state",        "name",           "stem",     "client",     "batch",        "key",
        "reader",  "priority",     "source_bytes",   "pages",    "pages_done", "pages_failed", "pages_known",
        "regions", "regions_done", "regions_failed", "retries",  "tokens",     "created",      "started",
        "opened",  "first_page",   "finished",       "deadline", "eta_s",      "error",        "error_code",
        "errors",  "attempts",     "stages",         "drafted",  "accepted"};
    job.created_us = 1767608551482000;
    json_t *o = pm_show_job_json(&job);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_non_null(json_object_get(o, keys[i]));
    assert_int_equal(json_object_size(o), sizeof keys / sizeof *keys);
    assert_string_equal(json_string_value(json_object_get(o, "created")), "2026-01-05T10:22:31.482Z");
    assert_true(json_is_null(json_object_get(o, "finished")) && json_is_null(json_object_get(o, "eta_s")));
    json_decref(o);
    struct pagemill_stats s = full_fleet();
    o = pm_show_stats_json(&s);
    assert_int_equal(json_array_size(json_object_get(o, "peers")), 40);
    assert_int_equal(json_array_size(json_object_get(o, "latencies")), 2);
    json_decref(o);
}

/* ---- doctor ---- */

static bool found(const struct pm_doctor *d, enum pm_doctor_level level, const char *text)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->lines[i].level == level && strstr(d->lines[i].text, text) &&
            (level == PM_DOCTOR_OK || d->lines[i].fix))
            return true;
    return false;
}

static void test_judge(void **state)
{
    (void)state;
    struct pagemill_peer well[] = {
        {.name = "layoutd-1", .role = "layoutd", .state = "", .version = PM_VERSION},
        {.name = "worker-1", .role = "worker", .state = "", .version = PM_VERSION},
        {.name = "collector-1", .role = "collector", .state = "", .version = PM_VERSION}};
    struct pagemill_queue queue = {
        .kind = "region", .reader = "glm-ocr", .queued = 4, .oldest_us = 200000000};
    struct pagemill_stats s = {
        .version = PM_VERSION, .peers = well, .peer_count = 3, .disk_bytes_free = (uint64_t)1 << 40};
    struct pm_doctor d = {0};
    pm_doctor_judge(&d, &s);
    assert_int_equal(pm_doctor_worst(&d), PM_DOCTOR_OK);
    pm_doctor_free(&d);
    s.queues = &queue;
    s.queue_count = 1;
    s.peer_count = 2;
    s.disk_bytes_free = 1000;
    s.is_draining = 1;
    well[0].version = "0.0.1";
    well[1].leases = 3;
    well[1].silent_us = 60000000;
    pm_doctor_judge(&d, &s);
    assert_true(found(&d, PM_DOCTOR_FAIL, "no collector is connected"));
    assert_true(found(&d, PM_DOCTOR_WARN, "layoutd-1 is version 0.0.1"));
    assert_true(found(&d, PM_DOCTOR_WARN, "worker-1 holds 3 tasks and made no progress for 1:00"));
    assert_true(found(&d, PM_DOCTOR_FAIL, "4 region of glm-ocr tasks wait for 3:20 and nobody works on any"));
    assert_true(found(&d, PM_DOCTOR_FAIL, "the fleet's disk has 1.0 kB left"));
    assert_true(found(&d, PM_DOCTOR_WARN, "the fleet is stopping"));
    pm_doctor_free(&d);
}

static void test_color(void **state)
{
    (void)state;
    struct pm_error err;
    unsetenv("CLICOLOR_FORCE");
    unsetenv("NO_COLOR");
    assert_int_equal(pm_color_choose("sometimes", &err), PM_EINVAL);
    assert_int_equal(pm_color_choose(NULL, &err), 0);
    assert_false(pm_color_is_on(-1));
    assert_int_equal(pm_color_choose("always", &err), 0);
    assert_true(pm_color_is_on(-1));
    assert_int_equal(pm_color_choose("never", &err), 0);
    assert_false(pm_color_is_on(-1));
    assert_string_equal(pm_color_begin(PM_COLOR_BAD, false), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_texts),    cmocka_unit_test(test_columns),
                                       cmocka_unit_test(test_top_fits), cmocka_unit_test(test_top_says),
                                       cmocka_unit_test(test_keys),     cmocka_unit_test(test_details),
                                       cmocka_unit_test(test_left),     cmocka_unit_test(test_json),
                                       cmocka_unit_test(test_judge),    cmocka_unit_test(test_color)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
