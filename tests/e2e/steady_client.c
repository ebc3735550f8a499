/* A client that does all that clients do, again and again, until its standard input ends: submit (twice with
 * one key), status, watch, wait, fetch, list, stats, cancel, retry, forget. Any call that fails, and any text
 * that is another than in REFERENCE/PAGE.md, ends it with 1 and the reason. For tests/e2e/test_restart.py.
 *
 *     steady_client SOCKET local|remote|pipe NAME DOCUMENT REFERENCE
 *
 * It prints a line a round, and at the end how many documents it read and how many jobs it made. */
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/include/pagemill.h"

#define CALL_MS 60000
#define PAGES   4u

struct client {
    pagemill *pm;
    const char *name, *document, *reference;
    bool by_pipe;
    uint64_t rounds, jobs;
};

static _Noreturn void fail(const struct client *c, const char *what, const char *text)
{
    printf("%s round %llu: %s: %s\n", c->name, (unsigned long long)c->rounds, what, text);
    exit(1);
}

static void check(const struct client *c, int rc, const char *what, const struct pagemill_error *err)
{
    if (rc)
        fail(c, what, err->text);
}

static int submit_pipe(struct client *c, const struct pagemill_submit_options *o, uint64_t *job,
                       struct pagemill_error *err)
{
    char *command = pm_xprintf("exec cat '%s'", c->document);
    FILE *pipe = popen(command, "r");
    int rc = pipe ? pagemill_submit_fd(c->pm, fileno(pipe), o, CALL_MS, job, err) : -1;
    if (pipe)
        pclose(pipe);
    free(command);
    return rc;
}

static uint64_t submit(struct client *c, unsigned page, const char *key)
{
    struct pagemill_submit_options o = PAGEMILL_SUBMIT_OPTIONS_INIT;
    struct pagemill_error err = {0};
    char pages[12];
    uint64_t job = 0;
    snprintf(pages, sizeof pages, "%u", page);
    o.pages = pages;
    o.key = key;
    o.stem = "text";
    o.name = "twenty.pdf";
    o.formats = "md";
    o.batch = c->name;
    o.again = 1; /* real work each time */
    int rc = c->by_pipe ? submit_pipe(c, &o, &job, &err)
                        : pagemill_submit_path(c->pm, c->document, &o, CALL_MS, &job, &err);
    check(c, rc, "submit", &err);
    return job;
}

static void compare(struct client *c, uint64_t job, unsigned page)
{
    struct pagemill_result *result;
    struct pagemill_error err;
    struct pm_error failed = {0};
    struct pm_buf wanted = {0};
    void *data = NULL;
    size_t bytes = 0;
    char *path = pm_xprintf("%s/%u.md", c->reference, page);
    check(c, pagemill_result(c->pm, job, CALL_MS, &result, &err), "result", &err);
    if (result->count != 1)
        fail(c, "result", "another number of files than one");
    check(c, pagemill_result_read(c->pm, result, 0, CALL_MS, &data, &bytes, &err), "read", &err);
    if (pm_fs_read(path, 1 << 20, &wanted, &failed))
        fail(c, "reference", failed.text);
    if (bytes != wanted.size || memcmp(data, wanted.data, bytes))
        fail(c, "the text is another one", data);
    pagemill_free(data);
    pagemill_result_free(&result);
    pm_buf_free(&wanted);
    free(path);
}

/* Cancels a job of its own, runs it again, cancels that, forgets it. */
static void change_mind(struct client *c, unsigned page)
{
    struct pagemill_error err;
    uint64_t job = submit(c, page, NULL);
    int rc = pagemill_cancel(c->pm, job, CALL_MS, &err);
    if (rc == PAGEMILL_EINVAL) /* it was faster */
        return (void)c->jobs++;
    check(c, rc, "cancel", &err);
    check(c, pagemill_retry(c->pm, job, CALL_MS, &err), "retry", &err);
    check(c, pagemill_wait(c->pm, job, CALL_MS, NULL, &err), "wait for the retried", &err);
    compare(c, job, page);
    check(c, pagemill_forget(c->pm, job, CALL_MS, &err), "forget", &err);
}

static void one_round(struct client *c)
{
    struct pagemill_error err = {0};
    struct pagemill_jobs *jobs;
    struct pagemill_stats *stats;
    unsigned page = (unsigned)(c->rounds % PAGES) + 1;
    char key[64];
    snprintf(key, sizeof key, "%s-%llu", c->name, (unsigned long long)c->rounds);
    uint64_t job = submit(c, page, key);
    c->jobs++;
    check(c, pagemill_status(c->pm, job, CALL_MS, &jobs, &err), "status", &err);
    pagemill_jobs_free(&jobs);
    check(c, pagemill_wait(c->pm, job, CALL_MS, &jobs, &err), "wait", &err);
    if (jobs->jobs[0].pages_done != 1 || jobs->jobs[0].pages_failed || jobs->jobs[0].regions_failed)
        fail(c, "wait", "not one page without a failure");
    pagemill_jobs_free(&jobs);
    compare(c, job, page);
    if (submit(c, page, key) != job)
        fail(c, "submit", "one key has two jobs");
    check(c, pagemill_stats(c->pm, CALL_MS, &stats, &err), "stats", &err);
    pagemill_stats_free(&stats);
    check(c, pagemill_list(c->pm, NULL, CALL_MS, &jobs, &err), "list", &err);
    pagemill_jobs_free(&jobs);
    if (c->rounds % 3 == 2)
        change_mind(c, page);
    c->rounds++;
    printf("round %llu\n", (unsigned long long)c->rounds);
    fflush(stdout);
}

static bool is_over(void)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&in, 1, 0) != 0;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    struct client c = {.name = argv[3], .document = argv[4], .reference = argv[5]};
    struct pagemill_connect_options options = PAGEMILL_CONNECT_OPTIONS_INIT;
    struct pagemill_error err;
    c.by_pipe = !strcmp(argv[2], "pipe");
    options.client = c.name;
    options.is_remote = strcmp(argv[2], "local") != 0;
    while (!is_over()) {
        /* Every few rounds a connection of its own: greetings meet restarts, too. */
        check(&c, pagemill_connect(argv[1], &options, CALL_MS, &c.pm, &err), "connect", &err);
        for (int i = 0; i < 3 && !is_over(); i++)
            one_round(&c);
        pagemill_close(&c.pm);
    }
    printf("%llu %llu\n", (unsigned long long)c.rounds, (unsigned long long)c.jobs);
    return 0;
}
