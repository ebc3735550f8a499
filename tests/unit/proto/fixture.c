#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/host.h"

#define PATIENCE_US 20000000

char *scratch_make(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = pm_xprintf("%s/pm-proto-XXXXXX", base && strlen(base) < 60 ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

void scratch_remove(char *dir)
{
    assert_int_equal(pm_fs_remove_tree(dir, NULL), 0);
    free(dir);
}

void fake_init(struct fake_broker *fake)
{
    memset(fake, 0, sizeof *fake);
    fake->dir = scratch_make();
    fake->endpoint = pm_xprintf("ipc://%s/work.sock", fake->dir);
    fake->disk = pm_fs_join(fake->dir, "disk");
    fake->pixels = pm_fs_join(fake->dir, "pixels");
    fake->epoch = 10;
    fake->beat_ms = 300;
    fake->proto = PM_PROTO_MAX;
}

void fake_start(struct fake_broker *fake)
{
    struct pm_error err = {0};
    fake->context = zmq_ctx_new();
    fake->socket = zmq_socket(fake->context, ZMQ_ROUTER);
    if (pm_socket_options(fake->socket, ZMQ_ROUTER, &err))
        fail_msg("%s", err.text);
    assert_int_equal(zmq_bind(fake->socket, fake->endpoint), 0);
    fake->epoch++;
    fake->seq = 0;
    fake->route_bytes = 0;
}

void fake_stop(struct fake_broker *fake)
{
    if (!fake->socket)
        return;
    zmq_close(fake->socket);
    zmq_ctx_term(fake->context);
    fake->socket = fake->context = NULL;
}

void fake_end(struct fake_broker *fake)
{
    fake_stop(fake);
    pm_arena_free(&fake->hello_arena);
    scratch_remove(fake->dir);
    free(fake->endpoint);
    free(fake->disk);
    free(fake->pixels);
}

int fake_send(struct fake_broker *fake, uint32_t type, const void *record, const void *payload, size_t bytes)
{
    struct pm_header header = {.proto = fake->proto, .type = type, .seq = ++fake->seq, .epoch = fake->epoch};
    struct pm_error err = {0};
    int rc =
        pm_message_send(fake->socket, fake->route, fake->route_bytes, &header, record, payload, bytes, &err);
    if (rc && rc != PM_EAGAIN && rc != PM_EGONE)
        fail_msg("%s", err.text);
    return rc;
}

void fake_lease(struct fake_broker *fake, uint64_t task, uint32_t attempt)
{
    struct pm_msg_lease lease = {
        .task = task,
        .epoch = fake->epoch,
        .job = 1,
        .attempt = attempt,
        .kind = PM_KIND_PAGE,
        .page = 3,
        .source = "d0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        .options = {.reader = "fast"},
    };
    assert_int_equal(fake_send(fake, PM_MSG_LEASE, &lease, "extra", 5), 0);
    fake->given++;
}

static struct fake_seen *note(struct fake_broker *fake, uint32_t type)
{
    assert_true(fake->seen_count < FAKE_LOG);
    struct fake_seen *s = &fake->seen[fake->seen_count++];
    memset(s, 0, sizeof *s);
    s->type = type;
    return s;
}

static void on_hello(struct fake_broker *fake, const struct pm_message *m, struct pm_arena *arena)
{
    fake->hello = *(const struct pm_msg_hello *)m->record;
    pm_arena_free(&fake->hello_arena);
    fake->hello_arena = *arena;
    *arena = (struct pm_arena){0};
    memcpy(fake->route, m->route, m->route_bytes);
    fake->route_bytes = m->route_bytes;
    fake->hellos++;
    fake->granted = fake->hello.credit;
    fake->given = fake->hello.held_count;
    if (fake->is_silent)
        return;
    char *host = pm_host_id();
    struct pm_msg_welcome welcome = {
        .proto = fake->proto,
        .epoch = fake->epoch,
        .version = "test",
        .host = host,
        .beat_us = fake->beat_ms * 1000,
        .disk_dir = fake->disk,
        .pixel_dir = fake->pixels,
    };
    fake_send(fake, PM_MSG_WELCOME, &welcome, NULL, 0);
    free(host);
}

static void on_result(struct fake_broker *fake, const struct pm_msg_result *r)
{
    struct fake_seen *s = note(fake, PM_MSG_RESULT);
    s->task = r->task;
    s->attempt = r->attempt;
    s->epoch = r->epoch;
    snprintf(s->text, sizeof s->text, "%s:%.100s", r->error_code, r->error_text);
    struct pm_msg_result_ack ack = {.task = r->task, .attempt = r->attempt, .accepted = true};
    if (!fake->no_ack && !fake->is_silent)
        fake_send(fake, PM_MSG_RESULT_ACK, &ack, NULL, 0);
}

static void on_beat(struct fake_broker *fake, const struct pm_msg_beat *beat)
{
    for (uint32_t i = 0; i < beat->lease_count; i++) {
        struct fake_seen *s = note(fake, PM_MSG_BEAT);
        s->task = beat->leases[i].task;
        s->attempt = beat->leases[i].attempt;
        s->number = beat->leases[i].permille;
    }
}

void fake_turn(struct fake_broker *fake)
{
    struct pm_arena arena = {0};
    struct pm_message m;
    struct pm_error err = {0};
    while (fake->socket && !fake->is_deaf) {
        int rc = pm_message_receive(fake->socket, true, &arena, &m, &err);
        if (rc == PM_EAGAIN)
            break;
        if (rc)
            fail_msg("the peer sent: %s", err.text);
        if (m.header.type == PM_MSG_HELLO)
            fake->heard_seq = 0;                           /* a new connection counts from 1 */
        assert_int_equal(m.header.seq, ++fake->heard_seq); /* nothing lost, nothing out of order */
        if (m.header.type == PM_MSG_HELLO) {
            on_hello(fake, &m, &arena);
        } else if (m.header.type == PM_MSG_RESULT) {
            on_result(fake, m.record);
        } else if (m.header.type == PM_MSG_BEAT) {
            on_beat(fake, m.record);
        } else if (m.header.type == PM_MSG_CREDIT) {
            const struct pm_msg_credit *credit = m.record;
            assert_true(credit->granted >= fake->granted); /* a cumulative number never falls */
            fake->granted = credit->granted;
        } else if (m.header.type == PM_MSG_PARTIAL) {
            const struct pm_msg_partial *partial = m.record;
            struct fake_seen *s = note(fake, PM_MSG_PARTIAL);
            s->task = partial->task;
            snprintf(s->text, sizeof s->text, "%s", partial->text);
        } else if (m.header.type == PM_MSG_PING || m.header.type == PM_MSG_PONG) {
            note(fake, m.header.type)->number = ((const struct pm_msg_ping *)m.record)->ref;
            if (m.header.type == PM_MSG_PING && !fake->is_silent)
                fake_send(fake, PM_MSG_PONG, m.record, NULL, 0);
        } else if (m.header.type == PM_MSG_SEEN) {
            const struct pm_msg_seen *seen = m.record;
            struct fake_seen *s = note(fake, PM_MSG_SEEN);
            s->task = seen->task;
            s->attempt = seen->attempt;
            snprintf(s->text, sizeof s->text, "%s", seen->fingerprint);
        } else {
            note(fake, m.header.type);
        }
        pm_arena_clear(&arena);
    }
    pm_arena_free(&arena);
}

uint32_t fake_count(const struct fake_broker *fake, uint32_t type)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < fake->seen_count; i++)
        n += fake->seen[i].type == type;
    return n;
}

const struct fake_seen *fake_last(const struct fake_broker *fake, uint32_t type)
{
    for (uint32_t i = fake->seen_count; i > 0; i--)
        if (fake->seen[i - 1].type == type)
            return &fake->seen[i - 1];
    return NULL;
}

bool fake_pump_event(struct fake_broker *fake, struct pm_peer *peer, enum pm_peer_event_kind kind,
                     struct pm_peer_event *out)
{
    int64_t end = pm_clock_us() + PATIENCE_US;
    struct pm_error err = {0};
    do {
        fake_turn(fake);
        if (pm_peer_next(peer, 2000, out, &err))
            fail_msg("pm_peer_next: %s", err.text);
        if (out->kind == kind)
            return true;
        if (out->kind != PM_PEER_IDLE)
            fail_msg("event %d came, not %d", (int)out->kind, (int)kind);
    } while (pm_clock_us() < end);
    return false;
}

bool fake_pump_count(struct fake_broker *fake, struct pm_peer *peer, uint32_t type, uint32_t count)
{
    int64_t end = pm_clock_us() + PATIENCE_US;
    struct pm_error err = {0};
    struct pm_peer_event event;
    do {
        fake_turn(fake);
        if (fake_count(fake, type) >= count)
            return true;
        if (pm_peer_next(peer, 2000, &event, &err))
            fail_msg("pm_peer_next: %s", err.text);
        if (event.kind != PM_PEER_IDLE)
            fail_msg("event %d came unexpectedly", (int)event.kind);
    } while (pm_clock_us() < end);
    return false;
}
