/* A client of a storm: submits document after document with idempotency keys, waits for the results, hashes
 * them, and writes what it knows into a ledger. Killed at any moment and started again, it goes on from
 * there: what was accepted is waited for, what may have been is submitted again under the same key.
 *
 *   storm_client --socket S --ledger FILE --name NAME --seed N [--window N] [--document FILE] [--remote]
 *                [--first N] [--jobs N] [--finish FILE] [--check N]
 *   storm_client --forget --socket S --ledger FILE
 *
 * Ends with 0 once FILE of --finish exists and all it submitted has ended, or after --jobs. --check: looks at
 * the last N results again first. --document: real documents, a page of FILE each, instead of those of
 * document.h. */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "client/include/pagemill.h"
#include "tests/faults/document.h"
#include "tests/faults/ledger.h"

#define CALL_MS       60000
#define PAUSE_US      20000 /* before something is tried again */
#define DOCUMENT_MOST ((size_t)16 << 20)

struct client {
    const char *socket, *ledger_path, *name, *finish, *document;
    unsigned first, jobs, window, seed, check, real_pages, region_timeout_s;
    int remote, fd;
    struct ledger ledger;
    size_t capacity;
    pagemill *pm;
    struct pm_buf real;
    bool is_broken;
};

static void complain(const char *doing, unsigned number, const struct pagemill_error *err)
{
    fprintf(stderr, "storm_client: %s %u: %s\n", doing, number, err->text);
}

static struct ledger_entry *entry(struct client *c, unsigned number)
{
    while (c->ledger.count <= number) {
        if (c->capacity < c->ledger.count)
            c->capacity = c->ledger.count;
        PM_GROW(c->ledger.entries, c->ledger.count, c->capacity);
        c->ledger.entries[c->ledger.count++] = (struct ledger_entry){0};
    }
    return &c->ledger.entries[number];
}

static int submit(struct client *c, unsigned number, uint64_t *job_out)
{
    struct pagemill_submit_options o = PAGEMILL_SUBMIT_OPTIONS_INIT;
    struct pagemill_error err;
    struct pm_buf bytes = {0};
    char key[64], pages[16];
    snprintf(key, sizeof key, "%s-%u", c->name, number);
    o.key = key;
    o.name = key;
    o.stem = "doc";
    o.formats = "md,json,txt";
    o.priority = number % 5;
    o.region_timeout_s = c->region_timeout_s;
    if (c->document) { /* a comment behind its end makes every document another one */
        snprintf(pages, sizeof pages, "%u", 1 + number % c->real_pages);
        o.pages = pages;
        o.dpi = 80;
        o.again = number % 4 != 0; /* a page that is known needs no worker */
        pm_buf_append(&bytes, c->real.data, c->real.size);
        pm_buf_printf(&bytes, "\n%% %s\n", key);
    } else {
        struct document d = document_of(c->seed + number);
        document_bytes(&d, &bytes);
    }
    int rc = pagemill_submit_memory(c->pm, bytes.data, bytes.size, &o, CALL_MS, job_out, &err);
    if (rc) {
        complain("submitting", number, &err);
        usleep(PAUSE_US);
    }
    pm_buf_free(&bytes);
    return rc;
}

/* The hash of all files of a result. */
static int hash_result(struct client *c, uint64_t job, char hex[PM_HASH_HEX + 1], struct pagemill_error *err)
{
    struct pagemill_result *result;
    struct pm_hasher h;
    uint8_t hash[PM_HASH_BYTES];
    int rc = pagemill_result(c->pm, job, CALL_MS, &result, err);
    if (rc)
        return rc;
    pm_hasher_start(&h);
    for (size_t i = 0; i < result->count && !rc; i++) {
        void *data;
        size_t bytes;
        rc = pagemill_result_read(c->pm, result, i, CALL_MS, &data, &bytes, err);
        if (!rc) {
            document_hash_file(&h, result->files[i].name, data, bytes);
            pagemill_free(data);
        }
    }
    pagemill_result_free(&result);
    pm_hasher_finish(&h, hash);
    pm_hash_hex(hash, hex);
    return rc;
}

static bool may_pass(int code)
{
    return code == PAGEMILL_ETIMEOUT || code == PAGEMILL_EBUSY || code == PAGEMILL_EGONE ||
           code == PAGEMILL_ENOSPC || code == PAGEMILL_EIO || code == PAGEMILL_ENOMEM;
}

static void note(struct client *c, char kind, unsigned number, uint64_t job, const char *text)
{
    c->is_broken |= !ledger_write(c->fd, kind, number, job, text);
}

/* Waits for one job and takes its result; false when it has to be looked at again later. */
static bool finish_one(struct client *c, unsigned number)
{
    struct ledger_entry *e = entry(c, number);
    struct pagemill_error err;
    struct pagemill_jobs *status = NULL;
    char hex[PM_HASH_HEX + 1];
    int rc = pagemill_wait(c->pm, e->job, CALL_MS, &status, &err);
    bool is_final = status && pagemill_job_is_final((int)status->jobs[0].state) &&
                    status->jobs[0].state != PAGEMILL_JOB_DONE;
    bool is_whole = status && !status->jobs[0].pages_failed && !status->jobs[0].regions_failed;
    pagemill_jobs_free(&status);
    if (!rc && is_whole)
        rc = hash_result(c, e->job, hex, &err);
    if (rc && !is_final && may_pass(rc)) {
        complain("waiting for", number, &err);
        usleep(PAUSE_US);
        return false;
    }
    if (rc || !is_whole) {
        const char *text = rc ? err.text : "parts of it failed";
        snprintf(e->failure, sizeof e->failure, "%.190s", text);
        note(c, 'F', number, e->job, e->failure);
    } else {
        e->results++;
        note(c, 'R', number, e->job, hex);
    }
    return true;
}

static bool has_ended(const struct ledger_entry *e)
{
    return e->results || *e->failure;
}

/* Keys that were used are used again now and then: the first job is the answer, for ever. */
static void submit_again(struct client *c)
{
    unsigned number = c->first + (unsigned)rand() % ((unsigned)c->ledger.count - c->first);
    uint64_t job;
    if (entry(c, number)->job && !submit(c, number, &job))
        note(c, 'D', number, job, "");
}

static void check_results(struct client *c)
{
    for (size_t i = c->ledger.count > c->check ? c->ledger.count - c->check : 0; i < c->ledger.count; i++) {
        struct ledger_entry *e = &c->ledger.entries[i];
        struct pagemill_error err;
        char hex[PM_HASH_HEX + 1];
        if (!e->results)
            continue;
        int rc = hash_result(c, e->job, hex, &err);
        if (rc && !may_pass(rc))
            note(c, 'F', (unsigned)i, e->job, err.text);
        else if (!rc)
            note(c, 'R', (unsigned)i, e->job, hex);
    }
}

static int work(struct client *c)
{
    unsigned oldest = c->first, next = c->first;
    check_results(c);
    while (!c->is_broken) {
        while (next < c->ledger.count && entry(c, next)->job)
            next++;
        bool is_ending = (c->finish && !access(c->finish, F_OK)) || (c->jobs && next >= c->first + c->jobs);
        while (oldest < next && has_ended(entry(c, oldest)))
            oldest++;
        if (!is_ending && next - oldest < c->window) {
            uint64_t job;
            if (!submit(c, next, &job)) {
                entry(c, next)->job = job;
                note(c, 'A', next++, job, "");
            }
        } else if (oldest < next) {
            finish_one(c, oldest);
        } else if (is_ending) {
            return 0;
        }
        if (rand() % 8 == 0 && c->ledger.count > c->first)
            submit_again(c);
    }
    return 1;
}

static int forget(struct client *c)
{
    int failed = 0;
    for (unsigned i = 0; i < c->ledger.count; i++) {
        struct pagemill_error err;
        if (entry(c, i)->job && pagemill_forget(c->pm, entry(c, i)->job, CALL_MS, &err) &&
            err.code != PAGEMILL_ENOTFOUND) {
            complain("forgetting", i, &err);
            failed = 1;
        }
    }
    return failed;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"socket", required_argument, NULL, 's'},
                                            {"ledger", required_argument, NULL, 'l'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 'S'},
                                            {"window", required_argument, NULL, 'w'},
                                            {"first", required_argument, NULL, 'f'},
                                            {"jobs", required_argument, NULL, 'j'},
                                            {"finish", required_argument, NULL, 'F'},
                                            {"check", required_argument, NULL, 'c'},
                                            {"document", required_argument, NULL, 'd'},
                                            {"pages", required_argument, NULL, 'p'},
                                            {"remote", no_argument, NULL, 'r'},
                                            {"forget", no_argument, NULL, 'o'},
                                            {"region-timeout", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    struct client c = {.window = 8, .name = "client", .real_pages = 20};
    struct pagemill_connect_options connect = PAGEMILL_CONNECT_OPTIONS_INIT;
    struct pagemill_error err = {0};
    int is_forgetting = 0, rc;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        unsigned number = optarg ? (unsigned)atoi(optarg) : 0;
        switch (o) {
        case 's':
            c.socket = optarg;
            break;
        case 'l':
            c.ledger_path = optarg;
            break;
        case 'n':
            c.name = optarg;
            break;
        case 'S':
            c.seed = number;
            break;
        case 'w':
            c.window = number;
            break;
        case 'f':
            c.first = number;
            break;
        case 'j':
            c.jobs = number;
            break;
        case 'F':
            c.finish = optarg;
            break;
        case 'c':
            c.check = number;
            break;
        case 'd':
            c.document = optarg;
            break;
        case 'p':
            c.real_pages = number;
            break;
        case 'r':
            c.remote = 1;
            break;
        case 'o':
            is_forgetting = 1;
            break;
        case 't':
            c.region_timeout_s = number;
            break;
        default:
            return 2;
        }
    }
    if (!c.socket || !c.ledger_path)
        return 2;
    srand((unsigned)getpid());
    struct pm_error why;
    if (c.document && pm_fs_read(c.document, DOCUMENT_MOST, &c.real, &why)) {
        fprintf(stderr, "storm_client: %s\n", why.text);
        return 1;
    }
    ledger_read(c.ledger_path, &c.ledger);
    c.capacity = c.ledger.count;
    c.fd = open(c.ledger_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    connect.client = c.name;
    connect.is_remote = c.remote;
    /* The broker may be dead just now. */
    do {
        rc = pagemill_connect(c.socket, &connect, 2000, &c.pm, &err);
        if (rc)
            usleep(10000);
    } while (rc && may_pass(rc));
    if (c.fd < 0 || rc) {
        complain("connecting as", c.seed, &err);
        return 1;
    }
    rc = is_forgetting ? forget(&c) : work(&c);
    pagemill_close(&c.pm);
    close(c.fd);
    ledger_free(&c.ledger);
    pm_buf_free(&c.real);
    return rc;
}
