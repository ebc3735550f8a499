/* What is measured and how it is told: results that lie, times of jobs, the text of the metrics page, and its
 * HTTP server under well and badly meant requests. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "broker/exposition.h"
#include "broker/metrics_http.h"
#include "broker/metrics_text.h"
#include "broker/times.h"
#include "exposition_check.h"

#define LONG_PATH                                                                                            \
    "/a/path/that/is/longer/than/the/hundred/and/seven/bytes/that/a/socket/may/have/as/its/name/in/the/"     \
    "file/system"

/* ---- results ---- */

static void what_peers_say_is_corrected(void **state)
{
    (void)state;
    struct pm_metrics *m = pm_metrics_new();
    struct pm_phase phases[] = {{"vision", 400}, {"Decode \"x\"", UINT64_MAX}, {"draft", 5}};
    struct pm_msg_result r = {
        .wait_us = 300, .run_us = 600, .phases = phases, .phase_count = 3, .tokens = 12};
    pm_metrics_result(m, PM_KIND_REGION, "glm-ocr", 50, 1000, &r);
    assert_int_equal(r.run_us, 600);
    assert_int_equal(r.wait_us, 300);
    assert_int_equal(phases[0].us, 400);
    assert_int_equal(phases[1].us, 200); /* what is left of the run */
    assert_int_equal(phases[2].us, 0);
    assert_int_equal(m->hop[PM_KIND_REGION - 1].sum_us, 100);
    assert_int_equal(m->wait[PM_KIND_REGION - 1].sum_us, 50);
    assert_int_equal(m->run[PM_KIND_REGION - 1].sum_us, 1000);
    assert_string_equal(m->phases[1].name, "decode__x_");
    assert_int_equal(m->tokens, 12);
    r = (struct pm_msg_result){.wait_us = UINT64_MAX, .run_us = UINT64_MAX, .tokens = UINT64_MAX};
    pm_metrics_result(m, PM_KIND_REGION, "glm-ocr", -1, 70, &r);
    assert_int_equal(r.run_us, 70);
    assert_int_equal(r.wait_us, 0);
    assert_int_equal(r.tokens, PM_METRICS_TOKENS);
    assert_int_equal(m->wait[PM_KIND_REGION - 1].count, 1); /* unknown: not counted */
    assert_int_equal(m->readers[0].tokens, 12 + PM_METRICS_TOKENS);
    r = (struct pm_msg_result){.tokens = 5}; /* a page has none */
    pm_metrics_result(m, PM_KIND_PAGE, "glm-ocr", 0, 70, &r);
    assert_int_equal(r.tokens, 0);
    pm_metrics_free(&m);
}

static void names_are_bounded(void **state)
{
    (void)state;
    struct pm_metrics *m = pm_metrics_new();
    for (unsigned i = 0; i < 3 * PM_METRICS_PHASES; i++) {
        char name[300];
        struct pm_phase phase = {name, 10};
        struct pm_msg_result r = {.run_us = 10, .phases = &phase, .phase_count = 1};
        snprintf(name, sizeof name, "phase-%u-%0250d", i, 0);
        pm_metrics_result(m, PM_KIND_REGION, name, 0, 20, &r);
    }
    assert_int_equal(m->phase_count, PM_METRICS_PHASES);
    assert_int_equal(m->reader_count, PM_METRICS_READERS);
    assert_string_equal(m->phases[PM_METRICS_PHASES - 1].name, "other");
    assert_string_equal(m->readers[PM_METRICS_READERS - 1].name, "other");
    uint64_t count = 0;
    for (unsigned i = 0; i < PM_METRICS_PHASES; i++)
        count += m->phases[i].times.count;
    assert_int_equal(count, 3 * PM_METRICS_PHASES);
    pm_metrics_free(&m);
}

/* ---- times of jobs ---- */

static void follow(struct pm_times *t, int64_t wall_us, enum pm_op_kind kind, uint64_t job, uint32_t page)
{
    static const struct pm_found_page pages[] = {{.page = 2}, {.page = 5}, {.page = 9}};
    struct pm_op op = {.kind = kind, .job = job, .page = page, .pages = pages, .page_count = 3};
    pm_times_follow(t, wall_us, &op, 1);
}

static void a_job_s_times(void **state)
{
    (void)state;
    struct pm_times *t = pm_times_new();
    struct pm_arena arena = {0};
    struct pm_job_info info = {.job = 7, .created_wall_us = 1000000, .started_wall_us = 1200000};
    follow(t, 2000000, PM_OP_JOB_OPEN, 7, 0);
    follow(t, 3000000, PM_OP_PAGE_LAID, 7, 5);
    follow(t, 3500000, PM_OP_REGION_DONE, 7, 5);
    follow(t, 3600000, PM_OP_REGION_FAIL, 7, 5);
    follow(t, 4000000, PM_OP_PAGE_DONE, 7, 5);
    follow(t, 5000000, PM_OP_PAGE_LAID, 7, 2);
    follow(t, 5100000, PM_OP_PAGE_RESET, 7, 2);
    follow(t, 6000000, PM_OP_PAGE_LAID, 7, 2);
    follow(t, 6000001, PM_OP_PAGE_LAID, 7, 11); /* one that the open did not name: all the same */
    struct pm_phase phase = {"recognise", 30};
    struct pm_msg_result r = {.task = pm_task_id(7, 5, 3), .phases = &phase, .phase_count = 1, .tokens = 4};
    pm_times_result(t, 10, 40, &r);
    pm_times_result(t, -1, 60, &r);
    pm_times_info(t, &arena, &info);
    assert_int_equal(info.opened_wall_us, 2000000);
    assert_int_equal(info.first_page_wall_us, 4000000);
    assert_int_equal(info.tokens, 8);
    assert_int_equal(info.stage_count, 1);
    assert_string_equal(info.stages[0].kind, "region");
    assert_int_equal(info.stages[0].done, 2);
    assert_int_equal(info.stages[0].wait_us, 10);
    assert_int_equal(info.stages[0].run_us, 100);

    struct pm_manifest manifest = {.opened_wall_us = 1, .time_count = 77, .page_time_count = 77};
    pm_times_manifest(t, 9000000, &info, &arena, &manifest);
    static const uint32_t pages[] = {2, 5000, 0, 0, 5, 2000, 2600, 3000, 9, 0, 0, 0, 11, 5000, 0, 0};
    assert_int_equal(manifest.page_time_count, sizeof pages / sizeof *pages);
    assert_memory_equal(manifest.page_times, pages, sizeof pages);
    assert_int_equal(manifest.accepted_wall_us, 1000000);
    assert_int_equal(manifest.started_wall_us, 1200000);
    assert_int_equal(manifest.opened_wall_us, 2000000);
    assert_int_equal(manifest.finished_wall_us, 9000000);
    assert_int_equal(manifest.time_count, 3); /* wait, run, recognise */
    assert_string_equal(manifest.times[2].name, "recognise");
    assert_int_equal(manifest.times[2].us, 60);

    struct pm_job_info again = {.job = 7};
    pm_times_of_manifest(&manifest, &arena, &again);
    assert_int_equal(again.first_page_wall_us, 4000000);
    assert_int_equal(again.tokens, 8);
    assert_int_equal(again.stage_count, 1);
    assert_int_equal(again.stages[0].done, 2);
    assert_int_equal(again.stages[0].run_us, 100);
    pm_times_free(&t);
    pm_arena_free(&arena);
}

/* Those that ended are remembered for a while, those that run always, the dropped ones not. */
static void ended_jobs_are_forgotten_in_their_order(void **state)
{
    (void)state;
    struct pm_times *t = pm_times_new();
    struct pm_job_info info;
    follow(t, 5, PM_OP_JOB_OPEN, 1, 0);
    for (uint64_t job = 2; job < 3 * PM_TIMES_ENDED; job++) {
        follow(t, 5, PM_OP_JOB_OPEN, job, 0);
        follow(t, 6, PM_OP_JOB_FINISH, job, 0);
    }
    for (uint64_t job = 1; job < 3 * PM_TIMES_ENDED; job++) {
        info = (struct pm_job_info){.job = job};
        pm_times_info(t, NULL, &info);
        assert_int_equal(info.opened_wall_us, job == 1 || job >= 2 * PM_TIMES_ENDED ? 5 : 0);
    }
    uint64_t last = 3 * PM_TIMES_ENDED - 1;
    follow(t, 7, PM_OP_JOB_DROP, last, 0);
    info = (struct pm_job_info){.job = last};
    pm_times_info(t, NULL, &info);
    assert_int_equal(info.opened_wall_us, 0);
    follow(t, 8, PM_OP_PAGE_LAID, last - 1, 4); /* a retry */
    follow(t, 9, PM_OP_JOB_FINISH, last - 1, 0);
    follow(t, 9, PM_OP_JOB_FINISH, 4711, 0); /* cancelled before it was opened */
    pm_times_free(&t);
}

/* ---- the text ---- */

static void labels_and_help_are_escaped(void **state)
{
    (void)state;
    struct pm_buf out = {0};
    const struct pm_expo_label labels[] = {{"a", "quote \" slash \\ feed \n end"}, {"b", "\xff\xc3\xa4\x80"}};
    pm_expo_family(&out, "x_total", "counter", "a \\ b\nc \"d\"");
    pm_expo_count(&out, "x_total", labels, 2, 7);
    pm_buf_text(&out, "");
    assert_string_equal(
        (const char *)out.data,
        "# HELP x_total a \\\\ b\\nc \"d\"\n# TYPE x_total counter\n"
        "x_total{a=\"quote \\\" slash \\\\ feed \\n end\",b=\"\xef\xbf\xbd\xc3\xa4\xef\xbf\xbd\"} 7\n");
    assert_int_equal(exposition_check((const char *)out.data), 1);
    pm_buf_free(&out);
}

static void histograms_are_cumulative(void **state)
{
    (void)state;
    struct pm_buf out = {0};
    struct pm_histogram h = {0};
    const int64_t times[] = {0, 64, 65, 1 << 20, (1 << 20) + 1, (int64_t)1 << 30, ((int64_t)1 << 30) + 1};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        pm_histogram_add(&h, times[i]);
    pm_expo_family(&out, "y_seconds", "histogram", "y");
    pm_expo_histogram(&out, "y_seconds", NULL, 0, &h);
    pm_buf_text(&out, "");
    const char *text = (const char *)out.data;
    exposition_check(text);
    assert_true(exposition_value(text, "y_seconds_bucket{le=\"0.000064\"}") == 2);
    assert_true(exposition_value(text, "y_seconds_bucket{le=\"0.000128\"}") == 3);
    assert_true(exposition_value(text, "y_seconds_bucket{le=\"1.048576\"}") == 4);
    assert_true(exposition_value(text, "y_seconds_bucket{le=\"1073.741824\"}") == 6);
    assert_true(exposition_value(text, "y_seconds_bucket{le=\"+Inf\"}") == 7);
    assert_true(exposition_value(text, "y_seconds_count") == 7);
    pm_buf_free(&out);
}

static void the_whole_page(void **state)
{
    (void)state;
    struct pm_metrics *m = pm_metrics_new();
    struct pm_arena arena = {0};
    struct pm_buf out = {0};
    struct pm_phase phase = {"recognise", 1500000};
    struct pm_msg_result r = {.run_us = 1500000, .phases = &phase, .phase_count = 1, .tokens = 40};
    pm_metrics_result(m, PM_KIND_REGION, "fa\"st", 250000, 2000000, &r);
    pm_metrics_refused(m, PM_EBUSY);
    pm_metrics_refused(m, -999);
    struct pm_peer_info peers[] = {
        {.name = "worker-1",
         .role = "worker",
         .host = "here",
         .state = "busy",
         .leases = 3,
         .busy_us = 1500000},
        {.name = "worker-1", .role = "worker", .host = "here", .state = "idle"}, /* a name twice */
        {.name = "worker-1", .role = "worker", .host = "there", .state = "idle"},
        {.name = "l\n\"\\", .role = "layoutd", .host = "here", .state = "stalled"}};
    struct pm_queue_info queues[] = {{.kind = "page", .queued = 12, .oldest_us = 3500000, .reader = ""},
                                     {.kind = "region", .queued = 5, .reader = "fast"},
                                     {.kind = "region", .queued = 6, .reader = "glm-ocr", .retried = 2}};
    struct pm_counter counters[] = {{"results_fenced", 4}, {"journal_commits", 9}};
    struct pm_msg_fleet fleet = {.version = "1.2.3",
                                 .epoch = 3,
                                 .peers = peers,
                                 .peer_count = 4,
                                 .queues = queues,
                                 .queue_count = 3,
                                 .counters = counters,
                                 .counter_count = 2,
                                 .jobs_running = 2,
                                 .pages_done = 77};
    const struct pm_metrics_facts facts = {.host = "here", .health = "no \"layoutd\" is connected"};
    pm_metrics_text(&fleet, m, &facts, &arena, &out);
    pm_buf_text(&out, "");
    const char *text = (const char *)out.data;
    assert_true(exposition_check(text) > 500);
    static const struct {
        const char *series;
        double value;
    } known[] = {
        {"pagemill_build_info{version=\"1.2.3\"}", 1},
        {"pagemill_healthy{reason=\"no \\\"layoutd\\\" is connected\"}", 0},
        {"pagemill_epoch", 3},
        {"pagemill_tasks_queued{kind=\"region\",reader=\"glm-ocr\"}", 6},
        {"pagemill_retries_total{kind=\"region\",reader=\"glm-ocr\"}", 2},
        {"pagemill_oldest_task_age_seconds{kind=\"page\",reader=\"\"}", 3.5},
        {"pagemill_jobs{state=\"running\"}", 2},
        {"pagemill_pages_total", 77},
        {"pagemill_tokens_total{reader=\"fa\\\"st\"}", 40},
        {"pagemill_task_wait_seconds_bucket{kind=\"region\",le=\"0.262144\"}", 1},
        {"pagemill_task_wait_seconds_bucket{kind=\"region\",le=\"0.131072\"}", 0},
        {"pagemill_task_run_seconds_sum{kind=\"region\"}", 2},
        {"pagemill_hop_seconds_sum{kind=\"region\"}", 0.5},
        {"pagemill_phase_seconds_total{kind=\"region\",phase=\"recognise\"}", 1.5},
        {"pagemill_refusals_total{reason=\"busy\"}", 1},
        {"pagemill_refusals_total{reason=\"other\"}", 1},
        {"pagemill_events_total{event=\"results_fenced\"}", 4},
        {"pagemill_peers{role=\"worker\",state=\"idle\"}", 2},
        {"pagemill_peers{role=\"collector\",state=\"idle\"}", 0},
        {"pagemill_peer_leases{role=\"worker\",name=\"worker-1\",host=\"\"}", 3},
        {"pagemill_peer_leases{role=\"worker\",name=\"worker-1#1\",host=\"\"}", 0},
        {"pagemill_peer_leases{role=\"worker\",name=\"worker-1\",host=\"there\"}", 0},
        {"pagemill_peer_leases{role=\"layoutd\",name=\"l\\n\\\"\\\\\",host=\"\"}", 0},
        {"pagemill_peer_busy_seconds_total{role=\"worker\",name=\"worker-1\",host=\"\"}", 1.5},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_true(exposition_value(text, known[i].series) == known[i].value);
    pm_buf_free(&out);
    pm_arena_free(&arena);
    pm_metrics_free(&m);
}

/* ---- HTTP ---- */

struct site {
    struct pm_http *http;
    unsigned made;
    const char *health;
};

static void make_page(void *context, struct pm_buf *out)
{
    struct site *s = context;
    pm_buf_printf(out, "page %u\n", ++s->made);
    for (int i = 0; i < 20000; i++) /* more than fits the socket at once */
        pm_buf_append(out, "0123456789abcde\n", 16);
}

static const char *tell_health(void *context)
{
    return ((struct site *)context)->health;
}

static struct site *open_site(const char *address)
{
    struct site *s = pm_xalloc(sizeof *s);
    const struct pm_http_pages pages = {s, make_page, tell_health};
    struct pm_error err;
    s->health = "";
    if (pm_http_open(address, &pages, &s->http, &err))
        fail_msg("%s", err.text);
    return s;
}

static void close_site(struct site *s)
{
    pm_http_free(&s->http);
    free(s);
}

static int dial(const struct site *s)
{
    const char *address = pm_http_address(s->http);
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    bool is_unix = *address == '/';
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (is_unix) {
        strcpy(un.sun_path, address);
    } else {
        in.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    assert_int_equal(connect(fd, is_unix ? (void *)&un : (void *)&in, is_unix ? sizeof un : sizeof in), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* What comes back until the end; *now_us walks on, as the loop's clock does. */
static char *ask(struct site *s, const char *request, size_t bytes, int64_t *now_us)
{
    int fd = dial(s);
    struct pm_buf in = {0};
    char part[65536];
    ssize_t n;
    assert_int_equal(send(fd, request, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
    shutdown(fd, SHUT_WR);
    for (int i = 0;; i++) {
        assert_true(i < 10000);
        pm_http_turn(s->http, *now_us += PM_HTTP_REST_US);
        n = recv(fd, part, sizeof part, 0);
        if (n > 0)
            pm_buf_append(&in, part, (size_t)n);
        else if (!n || errno != EAGAIN)
            break;
        else
            usleep(100);
    }
    close(fd);
    pm_buf_text(&in, "");
    return (char *)in.data;
}

static void expect(struct site *s, const char *request, const char *status, const char *body, int64_t *now_us)
{
    char *answer = ask(s, request, strlen(request), now_us);
    if (strncmp(answer, status, strlen(status)) || !strstr(answer, body))
        fail_msg("%.60s -> %.200s", request, answer);
    free(answer);
}

static void pages_are_served(void **state)
{
    (void)state;
    struct site *s = open_site("0");
    int64_t now = 1000000;
    char *answer = ask(s, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 34, &now);
    assert_non_null(strstr(answer, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    const char *body = strstr(answer, "\r\n\r\npage 1\n");
    assert_non_null(body);
    assert_int_equal(strlen(body), 4 + 7 + 20000 * 16);
    free(answer);
    expect(s, "GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", "\r\n\r\nok\n", &now);
    s->health = "the disk is full";
    expect(s, "GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.1 503 ", "\r\n\r\nthe disk is full\n", &now);
    expect(s, "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 404 ", "/metrics", &now);
    expect(s, "GET /metrics/../../etc/passwd HTTP/1.0\r\n\r\n", "HTTP/1.1 404 ", "/metrics", &now);
    expect(s, "DELETE /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 404 ", "", &now);
    expect(s, "POST /metrics HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 404 ", "", &now);
    close_site(s);
}

/* However many ask: a page is made four times a second at most. */
static void pages_are_shared(void **state)
{
    (void)state;
    struct site *s = open_site("127.0.0.1:0");
    int64_t now = 1000000, start = now;
    for (int i = 0; i < 100; i++)
        expect(s, "GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", "page ", &now);
    assert_true(s->made <= (unsigned)((now - start) / PM_HTTP_FRESH_US) + 1 && s->made > 1);
    close_site(s);
}

static void bad_requests_do_no_harm(void **state)
{
    (void)state;
    struct site *s = open_site("[::1]:0");
    close_site(s);
    s = open_site("127.0.0.1:0");
    int64_t now = 1000000;
    static const char *const bad[] = {
        "GET /metrics HTTP/9.9\r\n\r\n", "GET /%00%ff%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        free(ask(s, bad[i], strlen(bad[i]), &now));
    static const char *const unfinished[] = {"", "\r\n", "GET", "GET /metrics", "\x16\x03\x01\x02\x00\x01"};
    for (size_t i = 0; i < sizeof unfinished / sizeof *unfinished; i++) {
        int fd = dial(s);
        assert_true(send(fd, unfinished[i], strlen(unfinished[i]), MSG_NOSIGNAL) >= 0);
        for (int k = 0; k < 5; k++)
            pm_http_turn(s->http, now += PM_HTTP_REST_US);
        close(fd);
    }
    size_t bytes = 1 << 20; /* a header without end */
    char *large = pm_xalloc(bytes);
    memset(large, 'a', bytes);
    memcpy(large, "GET /metrics HTTP/1.1\r\nX: ", 26);
    int fd = dial(s);
    ssize_t sent = send(fd, large, bytes, MSG_NOSIGNAL);
    assert_true(sent > 0);
    for (int i = 0; i < 50; i++)
        pm_http_turn(s->http, now += PM_HTTP_REST_US);
    close(fd);
    memset(large + 4, 'b', 5000); /* a URL beyond what is taken */
    free(ask(s, large, 60000, &now));
    free(large);
    /* more connections than there may be, all of them silent */
    int fds[3 * PM_HTTP_CONNECTIONS];
    size_t count = 0;
    for (; count < PM_HTTP_CONNECTIONS + 40; count++) {
        fds[count] = dial(s);
        pm_http_turn(s->http, now += PM_HTTP_REST_US);
    }
    while (count)
        close(fds[--count]);
    expect(s, "GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", "page ", &now);
    close_site(s);
}

/* Between two turns it rests, so that the loop has time for other things. */
static void it_rests(void **state)
{
    (void)state;
    struct site *s = open_site("127.0.0.1:0");
    int64_t now = 1000000;
    assert_true(pm_http_fd(s->http, now) >= 0);
    assert_true(pm_http_next_us(s->http, now) == INT64_MAX);
    pm_http_turn(s->http, now);
    assert_int_equal(pm_http_fd(s->http, now + PM_HTTP_REST_US - 1), -1);
    assert_int_equal(pm_http_next_us(s->http, now + 1), now + PM_HTTP_REST_US);
    assert_true(pm_http_fd(s->http, now + PM_HTTP_REST_US) >= 0);
    close_site(s);
}

static void addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      ":",
                                      "x",
                                      "1.2.3.4",
                                      "1.2.3.4:",
                                      ":80",
                                      "127.0.0.1:65536",
                                      "host.example:80",
                                      "127.0.0.1:8o",
                                      "[::1",
                                      "9999999999",
                                      "-1",
                                      LONG_PATH};
    static const char *const good[] = {"80",      "127.0.0.1:80", "localhost:1", "0.0.0.0:9464",
                                       "[::]:80", "::1:80",       "/run/m.sock"};
    struct pm_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (pm_http_check(bad[i], &err) != PM_EINVAL)
            fail_msg("\"%s\" is an address", bad[i]);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (pm_http_check(good[i], &err))
            fail_msg("%s", err.text);
    struct site *s = open_site("0");
    assert_false(pm_http_is_public(s->http));
    assert_int_equal(strncmp(pm_http_address(s->http), "127.0.0.1:", 10), 0);
    struct pm_http *second;
    const struct pm_http_pages pages = {s, make_page, tell_health};
    assert_int_equal(pm_http_open(pm_http_address(s->http), &pages, &second, &err), PM_EIO); /* taken */
    assert_null(second);
    close_site(s);
    s = open_site("0.0.0.0:0");
    assert_true(pm_http_is_public(s->http));
    close_site(s);
    char dir[] = "/tmp/pm-metrics-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = pm_xprintf("%s/m.sock", dir);
    int64_t now = 1000000;
    for (int i = 0; i < 2; i++) {
        s = open_site(path);
        expect(s, "GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", "ok", &now);
        close_site(s);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* somebody's file */
    assert_true(pm_http_open(path, &pages, &second, &err) < 0);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    rmdir(dir);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_peers_say_is_corrected),
        cmocka_unit_test(names_are_bounded),
        cmocka_unit_test(a_job_s_times),
        cmocka_unit_test(ended_jobs_are_forgotten_in_their_order),
        cmocka_unit_test(labels_and_help_are_escaped),
        cmocka_unit_test(histograms_are_cumulative),
        cmocka_unit_test(the_whole_page),
        cmocka_unit_test(pages_are_served),
        cmocka_unit_test(pages_are_shared),
        cmocka_unit_test(bad_requests_do_no_harm),
        cmocka_unit_test(it_rests),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
