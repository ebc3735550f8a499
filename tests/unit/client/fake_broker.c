#include "tests/unit/client/fake_broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/fs.h"
#include "base/host.h"
#include "base/mem.h"
#include "proto/chunk.h"

static void must(int is_true, const char *what)
{
    if (!is_true) {
        fprintf(stderr, "fake broker: %s\n", what);
        abort();
    }
}

static void bind_socket(struct fake_broker *f)
{
    char path[128];
    snprintf(path, sizeof path, "%s", f->endpoint + strlen("ipc://"));
    f->socket = zmq_socket(f->context, ZMQ_ROUTER);
    must(f->socket && !pm_socket_options(f->socket, ZMQ_ROUTER, NULL), "socket");
    must(!zmq_bind(f->socket, f->endpoint), "bind");
}

static void send_record(struct fake_broker *f, const struct pm_message *to, uint32_t type, const void *record,
                        const void *payload, size_t bytes)
{
    struct pm_header header = {.proto = PM_PROTO_MIN, .type = type, .seq = ++f->seq, .epoch = f->epoch};
    (void)pm_message_send(f->socket, to->route, to->route_bytes, &header, record, payload, bytes, NULL);
}

static void refuse(struct fake_broker *f, const struct pm_message *to, uint64_t ref, const char *code,
                   const char *text)
{
    struct pm_msg_refuse m = {.ref = ref, .code = code, .text = text, .retry_after_us = 20000};
    send_record(f, to, PM_MSG_REFUSE, &m, NULL, 0);
}

static void done(struct fake_broker *f, const struct pm_message *to, uint64_t ref)
{
    struct pm_msg_done m = {.ref = ref, .count = 1};
    send_record(f, to, PM_MSG_DONE, &m, NULL, 0);
}

static struct fake_job *find(struct fake_broker *f, uint64_t job)
{
    return job && job <= f->job_count ? &f->jobs[job - 1] : NULL;
}

static struct pm_job_info info_of(const struct fake_job *j)
{
    return (struct pm_job_info){.job = j->job,
                                .name = j->name,
                                .client = "test",
                                .batch = j->batch,
                                .key = j->key,
                                .state = j->state,
                                .pages = 1,
                                .pages_done = j->state == PM_JOB_DONE,
                                .created_wall_us = 1,
                                .error_code = j->state == PM_JOB_FAILED ? "password" : "",
                                .error_text = j->state == PM_JOB_FAILED ? "the password is wrong" : "",
                                .stem = j->stem,
                                .reader = "fast"};
}

static void send_event(struct fake_broker *f, const struct pm_message *to, struct fake_job *j, uint32_t kind)
{
    struct pm_msg_event e = {.seq = ++f->event_seq,
                             .kind = kind,
                             .page = kind == PM_EVENT_PAGE ? 1 : 0,
                             .page_blob = kind == PM_EVENT_PAGE ? f->result_blob : "",
                             .text = "",
                             .info = info_of(j)};
    send_record(f, to, PM_MSG_EVENT, &e, NULL, 0);
}

static void on_submit(struct fake_broker *f, const struct pm_message *m)
{
    const struct pm_msg_submit *s = m->record;
    f->submits++;
    if (f->busy > 0) {
        f->busy--;
        refuse(f, m, s->ref, "busy", "the queue is full");
        return;
    }
    if (!pm_blob_exists(f->blobs, s->source, NULL) || (f->forget_sources && !f->uploads)) {
        refuse(f, m, s->ref, "not-found", "the source is not in the store");
        return;
    }
    struct pm_msg_accepted a = {.ref = s->ref};
    for (uint32_t i = 0; i < f->job_count; i++)
        if (!strcmp(f->jobs[i].key, s->key)) {
            a.job = i + 1;
            a.is_duplicate = true;
        }
    if (!a.job) {
        struct fake_job *j = &f->jobs[f->job_count];
        must(f->job_count < FAKE_JOBS, "too many jobs");
        j->job = a.job = f->job_count + 1;
        j->state = PM_JOB_RUNNING;
        snprintf(j->key, sizeof j->key, "%s", s->key);
        snprintf(j->name, sizeof j->name, "%s", s->name);
        snprintf(j->stem, sizeof j->stem, "%s", s->options.stem);
        snprintf(j->batch, sizeof j->batch, "%s", s->batch);
        snprintf(j->source, sizeof j->source, "%s", s->source);
        f->job_count++;
    }
    f->last_submit = *s;
    send_record(f, m, PM_MSG_ACCEPTED, &a, NULL, 0);
}

static void on_watch(struct fake_broker *f, const struct pm_message *m)
{
    const struct pm_msg_watch *w = m->record;
    struct fake_job *j = find(f, w->job);
    f->watches++;
    done(f, m, w->ref);
    if (!j || !f->finish_on_watch)
        return;
    for (int i = 0; i < f->progress_events; i++)
        send_event(f, m, j, PM_EVENT_PROGRESS);
    send_event(f, m, j, PM_EVENT_PAGE);
    j->state = PM_JOB_DONE;
    send_event(f, m, j, PM_EVENT_STATE);
}

static void on_fetch(struct fake_broker *f, const struct pm_message *m)
{
    const struct pm_msg_job_ref *r = m->record;
    struct pm_result_file file = {.name = f->manifest_name, .blob = f->result_blob, .bytes = 5};
    struct pm_manifest manifest = {.files = &file, .file_count = 1, .pages = 1, .confidence = 0.9f};
    struct pm_buf bytes = {0};
    pm_record_encode(&pm_manifest_schema, &manifest, &bytes);
    struct pm_msg_manifest out = {.ref = r->ref, .job = r->job, .manifest = {bytes.data, bytes.size}};
    send_record(f, m, PM_MSG_MANIFEST, &out, NULL, 0);
    pm_buf_free(&bytes);
}

static void on_put(struct fake_broker *f, const struct pm_message *m)
{
    const struct pm_msg_blob_put *p = m->record;
    char key[PM_BLOB_KEY_SIZE] = "";
    uint8_t raw[PM_CHUNK_BYTES];
    if (p->offset == 0)
        pm_buf_clear(&f->upload);
    must(p->offset == f->upload.size && p->raw_bytes <= sizeof raw, "upload out of order");
    must(!pm_chunk_unpack(m->payload, p->raw_bytes, raw, NULL), "chunk");
    pm_buf_append(&f->upload, raw, p->raw_bytes);
    if (p->is_last) {
        f->uploads++;
        must(!pm_blob_put(f->blobs, PM_BLOB_DISK, f->upload.data, f->upload.size, key, NULL), "blob put");
    }
    struct pm_msg_blob_stored s = {.ref = p->ref, .upload = p->upload, .offset = f->upload.size, .blob = key};
    send_record(f, m, PM_MSG_BLOB_STORED, &s, NULL, 0);
}

static void on_get(struct fake_broker *f, const struct pm_message *m)
{
    const struct pm_msg_blob_get *g = m->record;
    struct pm_blob_map map;
    if (pm_blob_map(f->blobs, g->blob, &map, NULL)) {
        refuse(f, m, g->ref, "not-found", "no such blob");
        return;
    }
    size_t n = map.bytes - (size_t)g->offset;
    n = n > PM_CHUNK_BYTES ? PM_CHUNK_BYTES : n;
    uint8_t *copy = pm_xalloc(n);
    if (n)
        memcpy(copy, map.data + g->offset, n);
    if (f->corrupt_data && n)
        copy[0] ^= 1;
    struct pm_buf block = {0};
    pm_chunk_pack(copy, n, &block);
    struct pm_msg_blob_data d = {
        .ref = g->ref, .offset = g->offset, .total = map.bytes, .raw_bytes = (uint32_t)n};
    send_record(f, m, PM_MSG_BLOB_DATA, &d, block.data, block.size);
    pm_buf_free(&block);
    free(copy);
    pm_blob_unmap(&map);
}

static void on_stats(struct fake_broker *f, const struct pm_message *m)
{
    const struct pm_msg_stats *s = m->record;
    struct pm_peer_info peer = {.name = "worker-1", .role = "worker", .version = "1", .pid = 7, .credit = 16};
    struct pm_queue_info queue = {.kind = "region", .queued = 3};
    struct pm_counter counter = {.name = "fenced", .value = 2};
    struct pm_msg_fleet fleet = {.ref = s->ref,
                                 .epoch = f->epoch,
                                 .version = "1",
                                 .peers = &peer,
                                 .peer_count = 1,
                                 .queues = &queue,
                                 .queue_count = 1,
                                 .counters = &counter,
                                 .counter_count = 1,
                                 .jobs_running = f->job_count};
    send_record(f, m, PM_MSG_FLEET, &fleet, NULL, 0);
}

static void on_query(struct fake_broker *f, const struct pm_message *m)
{
    if (m->header.type == PM_MSG_LIST) {
        const struct pm_msg_list *l = m->record;
        struct pm_job_info infos[FAKE_JOBS];
        struct pm_msg_jobs jobs = {.ref = l->ref, .jobs = infos};
        for (uint32_t i = f->job_count; i-- > 0;)
            if ((!*l->batch || !strcmp(l->batch, f->jobs[i].batch)) &&
                (!l->before || f->jobs[i].job < l->before)) {
                if (l->limit && jobs.job_count == l->limit) {
                    jobs.has_more = true;
                    break;
                }
                infos[jobs.job_count++] = info_of(&f->jobs[i]);
            }
        send_record(f, m, PM_MSG_JOBS, &jobs, NULL, 0);
        return;
    }
    const struct pm_msg_job_ref *r = m->record;
    struct fake_job *j = find(f, r->job);
    if (!j && !*r->batch) {
        refuse(f, m, r->ref, "not-found", "there is no such job");
        return;
    }
    if (m->header.type == PM_MSG_STATUS) {
        struct pm_page_error error = {.page = 1, .code = "limit", .text = "too large", .attempts = 2};
        struct pm_msg_job job = {.ref = r->ref, .info = info_of(j)};
        job.info.errors = &error;
        job.info.error_count = 1;
        send_record(f, m, PM_MSG_JOB, &job, NULL, 0);
        return;
    }
    if (m->header.type == PM_MSG_CANCEL) {
        f->cancels++;
        for (uint32_t i = 0; i < f->job_count; i++)
            if (&f->jobs[i] == j || (*r->batch && !strcmp(r->batch, f->jobs[i].batch)))
                f->jobs[i].state = PM_JOB_CANCELLED;
    }
    done(f, m, r->ref);
}

static void on_hello(struct fake_broker *f, const struct pm_message *m)
{
    char *host = pm_host_id();
    struct pm_msg_welcome w = {.proto = PM_PROTO_MIN,
                               .epoch = f->epoch,
                               .version = "fake",
                               .host = host,
                               .beat_us = 1000000,
                               .disk_dir = pm_blobs_dir(f->blobs, PM_BLOB_DISK),
                               .pixel_dir = pm_blobs_dir(f->blobs, PM_BLOB_PIXELS),
                               .pid = 1};
    f->hellos++;
    f->event_seq = 0;
    send_record(f, m, PM_MSG_WELCOME, &w, NULL, 0);
    free(host);
}

/* Closes the socket, as a killed broker would, and comes back with a new epoch and no memory of clients. */
static void restart(struct fake_broker *f)
{
    zmq_close(f->socket);
    f->epoch++;
    f->seq = 0;
    /* The old socket unlinks its path when the context's thread reaps it, which may be after a new bind. */
    zmq_ctx_term(f->context);
    f->context = zmq_ctx_new();
    bind_socket(f);
}

static void send_garbage(struct fake_broker *f, const struct pm_message *to)
{
    (void)zmq_send(f->socket, to->route, to->route_bytes, ZMQ_SNDMORE);
    (void)zmq_send(f->socket, "this is no frame of ours", 24, 0);
}

static void on_message(struct fake_broker *f, const struct pm_message *m)
{
    uint32_t type = m->header.type;
    if (type == PM_MSG_GOODBYE)
        return;
    if (type == PM_MSG_HELLO) {
        on_hello(f, m);
        return;
    }
    if (f->lose_link > 0) {
        f->lose_link--;
        restart(f);
        return;
    }
    if (f->swallow > 0) {
        f->swallow--;
        return;
    }
    for (; f->garbage > 0; f->garbage--)
        send_garbage(f, m);
    if (f->wrong_answer > 0) {
        f->wrong_answer--;
        struct pm_msg_done wrong = {.ref = *(const uint64_t *)m->record};
        send_record(f, m, PM_MSG_DONE, &wrong, NULL, 0);
        return;
    }
    switch (type) {
    case PM_MSG_SUBMIT:
        on_submit(f, m);
        break;
    case PM_MSG_WATCH:
        on_watch(f, m);
        break;
    case PM_MSG_FETCH:
        on_fetch(f, m);
        break;
    case PM_MSG_BLOB_PUT:
        on_put(f, m);
        break;
    case PM_MSG_BLOB_GET:
        on_get(f, m);
        break;
    case PM_MSG_STATS:
        on_stats(f, m);
        break;
    case PM_MSG_SHUTDOWN:
        done(f, m, ((const struct pm_msg_shutdown *)m->record)->ref);
        break;
    default:
        on_query(f, m);
    }
}

static void *serve(void *ctx)
{
    struct fake_broker *f = ctx;
    while (!f->stop) {
        struct pm_arena arena = {0};
        struct pm_message m = {0};
        zmq_pollitem_t item = {.socket = f->socket, .events = ZMQ_POLLIN};
        (void)zmq_poll(&item, 1, 20);
        if (!pm_message_receive(f->socket, true, &arena, &m, NULL))
            on_message(f, &m);
        pm_arena_free(&arena);
    }
    return NULL;
}

void fake_start(struct fake_broker *f)
{
    char disk[96], pixels[96];
    memset(f, 0, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/pm-fake-XXXXXX");
    must(mkdtemp(f->dir) != NULL, "mkdtemp");
    snprintf(f->endpoint, sizeof f->endpoint, "ipc://%s/client.sock", f->dir);
    snprintf(disk, sizeof disk, "%s/disk", f->dir);
    snprintf(pixels, sizeof pixels, "%s/pixels", f->dir);
    must(!pm_blobs_open(disk, pixels, &f->blobs, NULL), "blobs");
    must(!pm_blob_put(f->blobs, PM_BLOB_DISK, "hello", 5, f->result_blob, NULL), "result");
    f->manifest_name = "doc.md";
    f->epoch = 1;
    f->context = zmq_ctx_new();
    bind_socket(f);
    must(!pthread_create(&f->thread, NULL, serve, f), "thread");
}

void fake_stop(struct fake_broker *f)
{
    f->stop = 1;
    pthread_join(f->thread, NULL);
    zmq_close(f->socket);
    zmq_ctx_term(f->context);
    pm_blobs_free(&f->blobs);
    pm_buf_free(&f->upload);
    pm_fs_remove_tree(f->dir, NULL);
}
