#include "fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/host.h"
#include "proto/page.h"

#define WAIT_MS 10000

void fixture_open(struct fixture *f)
{
    *f = (struct fixture){0};
    strcpy(f->dir, "/tmp/pm-broker-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->state = pm_fs_join(f->dir, "state");
    f->run = pm_fs_join(f->dir, "run");
    f->pixels = pm_fs_join(f->run, "pixels");
    char *disk = pm_xprintf("%s/blobs", f->state);
    assert_int_equal(pm_fs_mkdir_p(f->state, 0700, NULL), 0);
    assert_int_equal(pm_fs_mkdir_p(f->run, 0700, NULL), 0);
    assert_int_equal(pm_blobs_open(disk, f->pixels, &f->blobs, NULL), 0);
    free(disk);
    f->zmq = zmq_ctx_new();
}

void fixture_close(struct fixture *f)
{
    if (f->broker.pid)
        broker_kill(f);
    zmq_ctx_term(f->zmq);
    pm_blobs_free(&f->blobs);
    pm_fs_remove_tree(f->dir, NULL);
    free(f->state);
    free(f->run);
    free(f->pixels);
}

static void spawn(const char *state, const char *run, const char *const *extra, int ready_fd, int keep_fd,
                  struct pm_child *out)
{
    char *path = pm_fs_join(PM_BUILD_DIR, "pagemill-broker");
    const char *argv[32] = {"pagemill-broker", "--state", state, "--run", run, "--log-level", "error"};
    size_t count = 7;
    char fd_text[16];
    if (ready_fd >= 0) {
        snprintf(fd_text, sizeof fd_text, "%d", ready_fd);
        argv[count++] = "--ready-fd";
        argv[count++] = fd_text;
    }
    for (; extra && *extra; extra++)
        argv[count++] = *extra;
    const int keep[2] = {ready_fd, keep_fd};
    struct pm_spawn spec = {.path = path,
                            .argv = argv,
                            .keep_fds = keep,
                            .keep_count = ready_fd < 0  ? 0
                                          : keep_fd > 0 ? 2
                                                        : 1,
                            .stdin_fd = -1,
                            .stdout_fd = STDERR_FILENO,
                            .stderr_fd = ready_fd >= 0 ? STDERR_FILENO : -1,
                            .die_with_parent = true};
    struct pm_error err;
    if (pm_spawn(&spec, out, &err))
        fail_msg("%s", err.text);
    free(path);
}

void broker_start(struct fixture *f, const char *const *extra)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    spawn(f->state, f->run, extra, fds[1], f->keep_fd, &f->broker);
    close(fds[1]);
    struct pollfd p = {.fd = fds[0], .events = POLLIN};
    char byte = 0;
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    if (read(fds[0], &byte, 1) != 1)
        fail_msg("the broker ended before it was ready");
    close(fds[0]);
}

void broker_kill(struct fixture *f)
{
    pm_child_signal(&f->broker, SIGKILL);
    pm_child_reap(&f->broker, NULL);
}

static int exit_code_of(struct pm_child *c)
{
    int status = 0;
    struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    pm_child_reap(c, &status);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

int broker_stop(struct fixture *f)
{
    pm_child_signal(&f->broker, SIGTERM);
    return exit_code_of(&f->broker);
}

int broker_run_again(struct fixture *f, const char *state, const char *run)
{
    (void)f;
    struct pm_child second;
    spawn(state, run, NULL, -1, 0, &second);
    return exit_code_of(&second);
}

/* ---- links ---- */

void link_open(struct link *l, struct fixture *f, const char *socket_name)
{
    static uint64_t next_instance;
    *l = (struct link){.f = f};
    l->instance = ((uint64_t)getpid() << 32) + ++next_instance;
    l->socket = zmq_socket(f->zmq, ZMQ_DEALER);
    assert_int_equal(pm_socket_options(l->socket, ZMQ_DEALER, NULL), 0);
    char *endpoint = pm_xprintf("ipc://%s/%s", f->run, socket_name);
    assert_int_equal(zmq_connect(l->socket, endpoint), 0);
    free(endpoint);
}

void link_close(struct link *l)
{
    zmq_close(l->socket);
    pm_arena_free(&l->arena);
    l->socket = NULL;
}

void link_send_payload(struct link *l, uint32_t type, const void *record, const void *payload, size_t bytes)
{
    struct pm_header h = {.proto = PM_PROTO_MAX, .type = type, .seq = ++l->seq, .epoch = l->epoch};
    struct pm_error err;
    int rc = PM_EAGAIN;
    for (int64_t until = pm_clock_us() + WAIT_MS * 1000; rc == PM_EAGAIN && pm_clock_us() < until;) {
        rc = pm_message_send(l->socket, NULL, 0, &h, record, payload, bytes, &err);
        if (rc == PM_EAGAIN) { /* IMMEDIATE: not connected yet */
            zmq_pollitem_t item = {.socket = l->socket, .events = ZMQ_POLLOUT};
            zmq_poll(&item, 1, 100);
        }
    }
    if (rc)
        fail_msg("sending %s: %s", pm_msg_name(type), err.text);
}

void link_send(struct link *l, uint32_t type, const void *record)
{
    link_send_payload(l, type, record, NULL, 0);
}

bool link_try(struct link *l, int ms)
{
    int64_t until = pm_clock_us() + (int64_t)ms * 1000;
    for (;;) {
        struct pm_error err;
        pm_arena_clear(&l->arena);
        int rc = pm_message_receive(l->socket, false, &l->arena, &l->last, &err);
        if (!rc && l->last.header.type != PM_MSG_PING)
            return true;
        if (rc && rc != PM_EAGAIN)
            fail_msg("receiving: %s", err.text);
        int64_t left = until - pm_clock_us();
        if (left <= 0)
            return false;
        zmq_pollitem_t item = {.socket = l->socket, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, (long)(left + 999) / 1000);
    }
}

const void *link_receive(struct link *l, uint32_t *type_out)
{
    if (!link_try(l, WAIT_MS))
        fail_msg("no message came");
    *type_out = l->last.header.type;
    return l->last.record;
}

static struct fake_lease lease_of(const struct pm_msg_lease *m)
{
    return (struct fake_lease){m->task, m->epoch, m->job, m->attempt, m->kind, m->page, m->region};
}

static void keep_lease(struct link *l, const struct pm_msg_lease *m)
{
    assert_true(l->kept_count < 64);
    l->kept[l->kept_count++] = lease_of(m);
}

const void *link_expect(struct link *l, uint32_t type)
{
    int64_t until = pm_clock_us() + WAIT_MS * 1000;
    while (pm_clock_us() < until) {
        uint32_t got;
        const void *record = link_receive(l, &got);
        if (got == type)
            return record;
        if (got == PM_MSG_LEASE)
            keep_lease(l, record);
        if (got == PM_MSG_REFUSE)
            fail_msg("waiting for %s: refused: %s", pm_msg_name(type),
                     ((const struct pm_msg_refuse *)record)->text);
    }
    fail_msg("%s did not come", pm_msg_name(type));
    return NULL;
}

bool link_is_silent(struct link *l, int ms)
{
    return !link_try(l, ms);
}

/* ---- who they are ---- */

void client_open(struct link *l, struct fixture *f, const char *client)
{
    link_open(l, f, "client.sock");
    char *host = pm_host_id();
    struct pm_msg_hello h = {.role = PM_ROLE_CLIENT,
                             .proto_min = PM_PROTO_MIN,
                             .proto_max = PM_PROTO_MAX,
                             .name = client,
                             .version = "test",
                             .host = host,
                             .pid = (uint64_t)getpid(),
                             .instance = l->instance,
                             .client = client};
    link_send(l, PM_MSG_HELLO, &h);
    l->epoch = ((const struct pm_msg_welcome *)link_expect(l, PM_MSG_WELCOME))->epoch;
    free(host);
}

void service_hello(struct link *l, enum pm_role role, const char *name, uint32_t credit, uint64_t pid,
                   const struct pm_held *held, uint32_t held_count)
{
    const char *readers[] = {l->reader ? l->reader : "fast"};
    const char *models[] = {l->model};
    char *host = pm_host_id();
    struct pm_msg_hello h = {.role = role,
                             .proto_min = PM_PROTO_MIN,
                             .proto_max = PM_PROTO_MAX,
                             .name = name,
                             .version = "test",
                             .host = host,
                             .pid = pid,
                             .instance = l->instance,
                             .readers = readers,
                             .reader_count = role == PM_ROLE_WORKER,
                             .models = models,
                             .model_count = l->model != NULL,
                             .credit = credit,
                             .held = (struct pm_held *)(uintptr_t)held,
                             .held_count = held_count,
                             .client = ""};
    l->granted = credit;
    l->kept_count = 0;
    link_send(l, PM_MSG_HELLO, &h);
    l->epoch = ((const struct pm_msg_welcome *)link_expect(l, PM_MSG_WELCOME))->epoch;
    free(host);
}

void service_open(struct link *l, struct fixture *f, enum pm_role role, const char *name, uint32_t credit)
{
    link_open(l, f, "work.sock");
    service_hello(l, role, name, credit, 0, NULL, 0);
}

/* ---- clients ---- */

void put_blob(struct fixture *f, enum pm_blob_class cls, const char *text, char key[PM_BLOB_KEY_SIZE])
{
    struct pm_error err;
    if (pm_blob_put(f->blobs, cls, text, strlen(text), key, &err))
        fail_msg("%s", err.text);
}

uint64_t submit(struct link *client, const char *source_text, const char *key, bool *duplicate_out)
{
    char source[PM_BLOB_KEY_SIZE];
    put_blob(client->f, PM_BLOB_DISK, source_text, source);
    struct pm_msg_submit m = {.ref = 7,
                              .key = key,
                              .name = "doc.pdf",
                              .source = source,
                              .priority = 2,
                              .batch = "batch",
                              .options = {.pages = "",
                                          .password = "",
                                          .reader = "fast",
                                          .formats = "md,json",
                                          .drop = "",
                                          .stem = "doc",
                                          .partial_events = true}};
    link_send(client, PM_MSG_SUBMIT, &m);
    const struct pm_msg_accepted *a = link_expect(client, PM_MSG_ACCEPTED);
    assert_int_equal(a->ref, 7);
    if (duplicate_out)
        *duplicate_out = a->is_duplicate;
    return a->job;
}

struct pm_job_info job_status(struct link *client, uint64_t job)
{
    struct pm_msg_job_ref q = {.ref = 9, .job = job, .batch = ""};
    link_send(client, PM_MSG_STATUS, &q);
    return ((const struct pm_msg_job *)link_expect(client, PM_MSG_JOB))->info;
}

uint64_t counter(struct link *client, const char *name)
{
    struct pm_msg_stats q = {.ref = 11};
    link_send(client, PM_MSG_STATS, &q);
    const struct pm_msg_fleet *fleet = link_expect(client, PM_MSG_FLEET);
    for (uint32_t i = 0; i < fleet->counter_count; i++)
        if (!strcmp(fleet->counters[i].name, name))
            return fleet->counters[i].value;
    fail_msg("there is no counter %s", name);
    return 0;
}

/* ---- services ---- */

static bool take_kept(struct link *l, struct fake_lease *out)
{
    if (!l->kept_count)
        return false;
    *out = l->kept[0];
    memmove(l->kept, l->kept + 1, --l->kept_count * sizeof l->kept[0]);
    return true;
}

struct fake_lease take_lease(struct link *l)
{
    struct fake_lease lease;
    return take_kept(l, &lease) ? lease : lease_of(link_expect(l, PM_MSG_LEASE));
}

bool try_lease(struct link *l, int ms, struct fake_lease *out)
{
    if (take_kept(l, out))
        return true;
    while (link_try(l, ms))
        if (l->last.header.type == PM_MSG_LEASE) {
            *out = lease_of(l->last.record);
            return true;
        }
    return false;
}

static void give_credit(struct link *l)
{
    struct pm_msg_credit c = {.granted = ++l->granted};
    link_send(l, PM_MSG_CREDIT, &c);
}

static struct pm_bytes encoded(const struct pm_schema *schema, const void *record, struct pm_buf *buf)
{
    pm_record_encode(schema, record, buf);
    return (struct pm_bytes){buf->data, buf->size};
}

void send_answer(struct link *l, const struct fake_lease *lease, uint32_t pages, uint32_t regions)
{
    struct pm_msg_result r = {.task = lease->task,
                              .epoch = lease->epoch,
                              .attempt = lease->attempt,
                              .error_code = "",
                              .error_text = "",
                              .record = "",
                              .sheet = "",
                              .blob = "",
                              .run_us = 100};
    struct pm_found_page found[64];
    uint32_t costs[64];
    char key[PM_BLOB_KEY_SIZE], sheet[PM_BLOB_KEY_SIZE], text[100];
    struct pm_buf buf = {0};
    snprintf(text, sizeof text, "%llu %u %u", (unsigned long long)lease->job, lease->page, lease->kind);
    switch (lease->kind) {
    case PM_KIND_OPEN:
        for (uint32_t i = 0; i < pages; i++)
            found[i] = (struct pm_found_page){i + 1, 100, 140};
        r.document_pages = r.page_count = pages;
        r.pages = found;
        break;
    case PM_KIND_PAGE:
        for (uint32_t i = 0; i < regions; i++)
            costs[i] = 10;
        put_blob(l->f, PM_BLOB_DISK, text, key);
        snprintf(text, sizeof text, "sheet %llu %u", (unsigned long long)lease->task, lease->attempt);
        put_blob(l->f, PM_BLOB_PIXELS, text, sheet);
        r.record = key;
        r.sheet = sheet;
        r.sheet_bytes = 1000;
        r.costs = costs;
        r.cost_count = regions;
        break;
    case PM_KIND_REGION: {
        struct pm_region_text t = {.crop = lease->region,
                                   .text = "hello",
                                   .finish = "stop",
                                   .reader = "fast",
                                   .error_code = "",
                                   .error_text = ""};
        r.text = encoded(&pm_region_text_schema, &t, &buf);
        break;
    }
    case PM_KIND_ASSEMBLE_PAGE:
        put_blob(l->f, PM_BLOB_DISK, text, key);
        r.blob = key;
        break;
    case PM_KIND_ASSEMBLE_DOC: {
        put_blob(l->f, PM_BLOB_DISK, text, key);
        struct pm_result_file file = {.name = "doc.md", .blob = key, .bytes = strlen(text)};
        struct pm_manifest m = {.files = &file, .file_count = 1, .pages = pages};
        r.manifest = encoded(&pm_manifest_schema, &m, &buf);
        break;
    }
    default:
        fail_msg("a lease of kind %u", lease->kind);
    }
    link_send(l, PM_MSG_RESULT, &r);
    pm_buf_free(&buf);
    give_credit(l);
}

static bool take_ack(struct link *l, const struct fake_lease *lease)
{
    for (;;) {
        const struct pm_msg_result_ack *ack = link_expect(l, PM_MSG_RESULT_ACK);
        if (ack->task == lease->task && ack->attempt == lease->attempt)
            return ack->accepted;
    }
}

bool answer_lease(struct link *l, const struct fake_lease *lease, uint32_t pages, uint32_t regions)
{
    send_answer(l, lease, pages, regions);
    return take_ack(l, lease);
}

bool fail_lease(struct link *l, const struct fake_lease *lease, const char *code, const char *text,
                bool is_final)
{
    struct pm_msg_result r = {.task = lease->task,
                              .epoch = lease->epoch,
                              .attempt = lease->attempt,
                              .error_code = code,
                              .error_text = text,
                              .is_final_error = is_final};
    link_send(l, PM_MSG_RESULT, &r);
    give_credit(l);
    return take_ack(l, lease);
}

/* ---- a whole fleet ---- */

void fleet_open(struct fleet *t)
{
    fixture_open(&t->f);
    broker_start(&t->f, NULL);
    client_open(&t->client, &t->f, "alice");
    service_open(&t->layoutd, &t->f, PM_ROLE_LAYOUTD, "layoutd-1", 1);
    service_open(&t->worker, &t->f, PM_ROLE_WORKER, "worker-1", 4);
    service_open(&t->collector, &t->f, PM_ROLE_COLLECTOR, "collector-1", 1);
}

void fleet_close(struct fleet *t)
{
    link_close(&t->client);
    link_close(&t->layoutd);
    link_close(&t->worker);
    link_close(&t->collector);
    fixture_close(&t->f);
}

/* Serves whatever comes until the job has ended; returns its state. */
struct pm_job_info serve_until_done(struct fleet *t, uint64_t job, uint32_t pages, uint32_t regions)
{
    struct link *all[] = {&t->layoutd, &t->worker, &t->collector};
    int64_t until = pm_clock_us() + 20000000;
    while (pm_clock_us() < until) {
        for (int i = 0; i < 3; i++) {
            struct fake_lease lease;
            while (try_lease(all[i], 1, &lease))
                send_answer(all[i], &lease, pages, regions);
        }
        struct pm_job_info info = job_status(&t->client, job);
        if (info.state > PM_JOB_RUNNING)
            return info;
    }
    fail_msg("job %llu does not end", (unsigned long long)job);
    return (struct pm_job_info){0};
}

size_t files_below(const char *dir)
{
    size_t count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        char *path = pm_fs_join(dir, e->d_name);
        count += pm_fs_is_dir(path) ? files_below(path) : 1;
        free(path);
    }
    if (d)
        closedir(d);
    return count;
}

/* Crop sheets go with their pages, a moment later. */
void pixels_are_gone_soon(struct fleet *t)
{
    for (int64_t until = pm_clock_us() + 10000000; files_below(t->f.pixels) && pm_clock_us() < until;)
        usleep(20000);
    assert_int_equal(files_below(t->f.pixels), 0);
}

/* A process that can be killed: it says hello for the test and takes one lease. */
pid_t start_victim(void)
{
    pid_t pid = fork();
    if (!pid) {
        pause();
        _exit(0);
    }
    return pid;
}

void expect_refusal(struct link *l, const char *code, const char *text)
{
    uint32_t type;
    const struct pm_msg_refuse *r = link_receive(l, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    assert_non_null(r);
    assert_string_equal(r->code, code);
    if (!strstr(r->text, text))
        fail_msg("refused with \"%s\", not with \"%s\"", r->text, text);
}
