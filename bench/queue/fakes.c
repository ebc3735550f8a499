/* Fake peers: real sockets, real records, no work. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/host.h"
#include "proto/page.h"
#include "rig.h"

#define WAIT_MS 30000

void fake_open(struct fake *f, struct rig *rig, const char *socket_name)
{
    static uint64_t next;
    struct pm_error err;
    *f = (struct fake){.rig = rig, .instance = ((uint64_t)getpid() << 32) + ++next};
    f->socket = zmq_socket(rig->zmq, ZMQ_DEALER);
    char *endpoint = pm_xprintf("ipc://%s/%s", rig->run, socket_name);
    if (!f->socket || pm_socket_options(f->socket, ZMQ_DEALER, &err) || zmq_connect(f->socket, endpoint))
        die("cannot connect to %s", endpoint);
    free(endpoint);
}

void fake_close(struct fake *f)
{
    if (f->socket)
        zmq_close(f->socket);
    pm_arena_free(&f->arena);
    f->socket = NULL;
}

void fake_send(struct fake *f, uint32_t type, const void *record)
{
    struct pm_header h = {.proto = PM_PROTO_MAX, .type = type, .seq = ++f->seq, .epoch = f->epoch};
    struct pm_error err;
    int rc = PM_EAGAIN;
    for (int64_t until = pm_clock_us() + WAIT_MS * 1000;;) {
        rc = pm_message_send(f->socket, NULL, 0, &h, record, NULL, 0, &err);
        if (rc != PM_EAGAIN || pm_clock_us() > until)
            break;
        zmq_pollitem_t item = {.socket = f->socket, .events = ZMQ_POLLOUT};
        zmq_poll(&item, 1, 100);
    }
    if (rc)
        die("sending %s: %s", pm_msg_name(type), err.text);
}

bool fake_receive(struct fake *f, int ms)
{
    for (;;) {
        struct pm_error err;
        pm_arena_clear(&f->arena);
        int rc = pm_message_receive(f->socket, false, &f->arena, &f->last, &err);
        if (!rc && f->last.header.type != PM_MSG_PING)
            return true;
        if (!rc) {
            fake_send(f, PM_MSG_PONG, f->last.record);
            continue;
        }
        if (rc != PM_EAGAIN)
            die("receiving: %s", err.text);
        if (!ms)
            return false;
        zmq_pollitem_t item = {.socket = f->socket, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, ms) == 0)
            return false;
    }
}

const void *fake_expect(struct fake *f, uint32_t type)
{
    while (fake_receive(f, WAIT_MS)) {
        if (f->last.header.type == type)
            return f->last.record;
        if (f->last.header.type == PM_MSG_REFUSE)
            die("waiting for %s: refused: %s", pm_msg_name(type),
                ((const struct pm_msg_refuse *)f->last.record)->text);
    }
    die("%s did not come", pm_msg_name(type));
}

void fake_hello(struct fake *f, enum pm_role role, const char *reader, uint32_t credit,
                const struct pm_held *held, uint32_t held_count)
{
    const char *readers[] = {reader};
    bool is_worker = role == PM_ROLE_WORKER;
    char *host = pm_host_id();
    struct pm_msg_hello h = {.role = role,
                             .proto_min = PM_PROTO_MIN,
                             .proto_max = PM_PROTO_MAX,
                             .name = reader,
                             .version = "bench",
                             .host = host,
                             .pid = (uint64_t)getpid(),
                             .instance = f->instance,
                             .readers = is_worker ? readers : NULL,
                             .reader_count = is_worker,
                             .credit = credit,
                             .held = (struct pm_held *)(uintptr_t)held,
                             .held_count = held_count,
                             .client = role == PM_ROLE_CLIENT ? reader : ""};
    f->granted = credit;
    fake_send(f, PM_MSG_HELLO, &h);
    f->epoch = ((const struct pm_msg_welcome *)fake_expect(f, PM_MSG_WELCOME))->epoch;
    free(host);
}

void fake_client(struct fake *f, struct rig *rig, const char *name)
{
    fake_open(f, rig, "client.sock");
    fake_hello(f, PM_ROLE_CLIENT, name, 0, NULL, 0);
}

void fake_service(struct fake *f, struct rig *rig, enum pm_role role, const char *reader, uint32_t credit)
{
    fake_open(f, rig, "work.sock");
    fake_hello(f, role, reader, credit, NULL, 0);
}

void fake_credit(struct fake *f)
{
    struct pm_msg_credit c = {.granted = f->granted};
    fake_send(f, PM_MSG_CREDIT, &c);
}

/* ---- results ---- */

static void put(struct rig *rig, const char *text, char key[PM_BLOB_KEY_SIZE])
{
    struct pm_error err;
    if (pm_blob_put(rig->blobs, PM_BLOB_DISK, text, strlen(text), key, &err))
        die("%s", err.text);
}

/* The number of the crop is one byte of the record: encoded once, it is changed there. */
static void make_text(struct goods *g)
{
    struct pm_region_text t = {.text =
                                   "The quick brown fox jumps over the lazy dog, and then it does so again.",
                               .confidence = 0.987f,
                               .finish = "stop",
                               .reader = "fast",
                               .read_us = 51234,
                               .error_code = "",
                               .error_text = ""};
    struct pm_buf other = {0};
    t.crop = 1;
    pm_record_encode(&pm_region_text_schema, &t, &g->text);
    t.crop = 2;
    pm_record_encode(&pm_region_text_schema, &t, &other);
    while (g->text.data[g->crop_at] == other.data[g->crop_at])
        g->crop_at++;
    pm_buf_free(&other);
}

void goods_make(struct goods *g, struct rig *rig)
{
    *g = (struct goods){.source = ""};
    put(rig, "a document", g->source);
    put(rig, "the record of a page", g->record);
    put(rig, "an assembled page", g->page);
    make_text(g);
    struct pm_result_file file = {.name = "doc.md", .blob = g->page, .bytes = 17};
    struct pm_manifest m = {.files = &file, .file_count = 1, .pages = 1};
    pm_record_encode(&pm_manifest_schema, &m, &g->manifest);
    for (size_t i = 0; i < sizeof g->costs / sizeof g->costs[0]; i++)
        g->costs[i] = 10;
}

void goods_free(struct goods *g)
{
    pm_buf_free(&g->text);
    pm_buf_free(&g->manifest);
}

struct pm_msg_submit goods_submit(const struct goods *g, const char *reader)
{
    return (struct pm_msg_submit){.ref = 1,
                                  .key = "",
                                  .name = "report-2026-11.pdf",
                                  .source = g->source,
                                  .priority = 2,
                                  .batch = "bench",
                                  .options = {.pages = "",
                                              .password = "",
                                              .reader = reader,
                                              .formats = "md,json",
                                              .drop = "",
                                              .stem = "report-2026-11",
                                              .partial_events = true,
                                              .again = true}};
}

void goods_answer(struct goods *g, struct fake *f, const struct pm_msg_lease *lease, uint32_t pages,
                  uint32_t regions)
{
    struct pm_msg_result r = {.task = lease->task,
                              .epoch = lease->epoch,
                              .attempt = lease->attempt,
                              .error_code = "",
                              .error_text = "",
                              .record = "",
                              .sheet = "",
                              .blob = "",
                              .wait_us = 100,
                              .run_us = 51000};
    struct pm_found_page found[2000];
    switch (lease->kind) {
    case PM_KIND_OPEN:
        for (uint32_t i = 0; i < pages && i < 2000; i++)
            found[i] = (struct pm_found_page){i + 1, 1654, 2339};
        r.document_pages = r.page_count = pages;
        r.pages = found;
        break;
    case PM_KIND_PAGE:
        r.record = g->record;
        r.costs = g->costs;
        r.cost_count = regions;
        break;
    case PM_KIND_REGION:
        g->text.data[g->crop_at] = (uint8_t)lease->region;
        r.text = (struct pm_bytes){g->text.data, g->text.size};
        break;
    case PM_KIND_ASSEMBLE_PAGE:
        r.blob = g->page;
        break;
    case PM_KIND_ASSEMBLE_DOC:
        r.manifest = (struct pm_bytes){g->manifest.data, g->manifest.size};
        break;
    default:
        die("a lease of kind %u", lease->kind);
    }
    f->granted++;
    fake_send(f, PM_MSG_RESULT, &r);
}
