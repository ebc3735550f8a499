#include "worker/worker.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "proto/crop.h"
#include "proto/page.h"
#include "proto/sheet.h"
#include "proto/task_log.h"

/* How long to sleep when there is nothing to read; a lease wakes us at once. */
#define IDLE_WAIT_US 1000000
#define PARTIAL_US   100000
#define TELL_US      60000000 /* between two lines about pictures */

/* One page's crops, mapped once for all regions of it that run here. */
struct open_sheet {
    char key[PM_BLOB_KEY_SIZE];
    struct pm_sheet sheet;
    uint32_t users;
};

/* A region between its lease and its result. The task number is the reader's request id. */
struct running {
    uint64_t task;
    int64_t leased_us, deadline_us; /* deadline on the monotonic clock; 0: none */
    uint32_t attempt, crop;
    bool wants_partial;
    struct pm_buf partial;    /* read and not yet sent to watchers */
    int64_t partial_us;       /* when some was sent last */
    bool is_own_deadline;     /* set by the job's owner: another attempt would pass it, too */
    struct open_sheet *sheet; /* NULL: the crop came with the lease, in */
    uint8_t *pixels;
    struct pm_task_id id; /* for the log: the lease is gone when the result is sent */
};

struct pm_worker {
    struct pm_peer *peer;
    struct pm_reader *reader;
    struct pm_map running;   /* task -> struct running */
    struct pm_strmap sheets; /* key -> struct open_sheet */
    struct pm_buf encoded;
    bool is_stopping; /* finishes what it holds */
    uint64_t told_pictures;
    int64_t told_us;
};

struct pm_worker *pm_worker_new(struct pm_peer *peer, struct pm_reader *reader)
{
    struct pm_worker *w = pm_xalloc(sizeof *w);
    w->peer = peer;
    w->reader = reader;
    w->told_us = pm_clock_us();
    return w;
}

static int use_sheet(struct pm_worker *w, const char *key, struct open_sheet **out, struct pm_error *err)
{
    struct open_sheet *s = pm_strmap_get(&w->sheets, key);
    if (!s) {
        s = pm_xalloc(sizeof *s);
        int rc = pm_sheet_open(pm_peer_blobs(w->peer), key, &s->sheet, err);
        if (rc) {
            free(s);
            return rc;
        }
        memcpy(s->key, key, strlen(key) + 1);
        pm_strmap_put(&w->sheets, key, s);
    }
    s->users++;
    *out = s;
    return 0;
}

static void leave_sheet(struct pm_worker *w, struct open_sheet *s)
{
    if (!s || --s->users)
        return;
    pm_strmap_remove(&w->sheets, s->key);
    pm_sheet_close(&s->sheet);
    free(s);
}

/* The crop of a lease: out of the page's sheet, or, far from the broker, out of the lease itself. */
static int get_crop(struct pm_worker *w, const struct pm_peer_event *e, struct open_sheet **sheet_out,
                    struct pm_sheet_crop *crop, struct pm_error *err)
{
    if (pm_crop_is_there(e->lease))
        return pm_crop_unpack(e->lease, e->payload, crop, err);
    if (!pm_peer_blobs(w->peer))
        return pm_fail(err, PM_EPROTO, "the broker is elsewhere and sent no crop along");
    int rc = use_sheet(w, e->lease->sheet, sheet_out, err);
    return rc ? rc : pm_sheet_crop(&(*sheet_out)->sheet, e->lease->region, crop, err);
}

static void forget(struct pm_worker *w, struct running *r)
{
    pm_map_remove(&w->running, r->task);
    leave_sheet(w, r->sheet);
    free(r->pixels);
    pm_buf_free(&r->partial);
    free(r);
}

void pm_worker_free(struct pm_worker **worker)
{
    struct pm_worker *w = *worker;
    if (!w)
        return;
    size_t cursor = 0;
    uint64_t task;
    void *value;
    while (pm_map_next(&w->running, &cursor, &task, &value)) {
        struct running *r = value;
        pm_reader_cancel(w->reader, task, NULL);
        leave_sheet(w, r->sheet);
        free(r->pixels);
        pm_buf_free(&r->partial);
        free(r);
    }
    pm_map_free(&w->running);
    pm_strmap_free(&w->sheets);
    pm_buf_free(&w->encoded);
    free(w);
    *worker = NULL;
}

/* Which failures another attempt may cure. A crop that is not there any more (PM_ENOTFOUND: reboot, tmpfs
 * emptied) is the broker's to restore; a crop that the engine refuses will be refused again. */
static bool is_final(int code)
{
    return code == PM_EFORMAT || code == PM_ELIMIT || code == PM_EINVAL || code == PM_EUNSUPPORTED;
}

/* The earlier of what the broker and what the job's owner allow. */
static void set_deadline(struct running *r, const struct pm_msg_lease *lease)
{
    uint32_t own_s = lease->options.region_timeout_s;
    int64_t own_us = r->leased_us + (int64_t)own_s * 1000000;
    r->deadline_us = pm_peer_deadline_us(lease, r->leased_us);
    r->is_own_deadline = own_s && (!r->deadline_us || own_us < r->deadline_us);
    if (r->is_own_deadline)
        r->deadline_us = own_us;
}

static int token_limit(uint32_t tokens)
{
    return tokens > INT_MAX ? INT_MAX : (int)tokens;
}

static void admit(struct pm_worker *w, const struct pm_peer_event *event)
{
    const struct pm_msg_lease *lease = event->lease;
    struct pm_error err;
    struct pm_sheet_crop crop = {0};
    struct running *r = NULL;
    struct open_sheet *sheet = NULL;
    if (lease->kind != PM_KIND_REGION) {
        pm_fail(&err, PM_EPROTO, "a worker cannot do a task of kind %s", pm_kind_name(lease->kind));
        goto fail;
    }
    if (get_crop(w, event, &sheet, &crop, &err))
        goto fail;
    r = pm_xalloc(sizeof *r);
    *r = (struct running){.task = lease->task,
                          .attempt = lease->attempt,
                          .crop = lease->region,
                          .wants_partial = lease->options.partial_events,
                          .leased_us = pm_clock_us(),
                          .sheet = sheet,
                          .id = pm_task_id_of(lease),
                          .pixels = sheet ? NULL : (uint8_t *)(uintptr_t)crop.image.pixels};
    set_deadline(r, lease);
    struct pm_reader_request request = {.id = lease->task,
                                        .image = crop.image,
                                        .task = (enum pm_task)crop.task,
                                        .max_tokens = token_limit(lease->options.max_tokens),
                                        .temperature = lease->options.temperature,
                                        .repetition_penalty = lease->options.repetition_penalty,
                                        .seed = lease->options.seed};
    if (pm_reader_admit(w->reader, &request, &err))
        goto fail;
    pm_map_put(&w->running, r->task, r);
    pm_task_log_begin(&r->id);
    return;
fail:;
    struct pm_task_id id = pm_task_id_of(lease);
    pm_task_log_end(&id, "refused", 0, &err);
    pm_peer_fail(w->peer, lease->task, &err, is_final(err.code));
    if (!sheet)
        free((void *)(uintptr_t)crop.image.pixels);
    leave_sheet(w, sheet);
    free(r);
}

static const char *finish_name(enum pm_finish finish)
{
    switch (finish) {
    case PM_FINISH_STOP:
        return "stop";
    case PM_FINISH_LENGTH:
        return "length";
    case PM_FINISH_EMPTY:
        return "empty";
    case PM_FINISH_CANCELLED:
        return "cancelled";
    default:
        return "error";
    }
}

static void finish(struct pm_worker *w, struct running *r, const struct pm_reader_event *e)
{
    if (e->finish == PM_FINISH_ERROR) {
        pm_task_log_end(&r->id, "failed", pm_clock_us() - r->leased_us, &e->error);
        pm_peer_fail(w->peer, r->task, &e->error, is_final(e->error.code));
        forget(w, r);
        return;
    }
    struct pm_word *words = pm_xalloc(e->word_count * sizeof *words);
    for (size_t i = 0; i < e->word_count; i++) {
        const struct pm_reader_word *from = &e->words[i];
        words[i] = (struct pm_word){from->start, from->end, from->left, from->right, from->confidence};
    }
    char *text = pm_xstrndup(e->text, e->text_bytes);
    int64_t now_us = pm_clock_us();
    int64_t begun_us = e->times.begun_us > r->leased_us ? e->times.begun_us : r->leased_us;
    struct pm_phase phases[PM_READER_PHASES];
    for (uint32_t i = 0; i < e->times.phase_count; i++)
        phases[i] = (struct pm_phase){e->times.phases[i].name, (uint64_t)e->times.phases[i].us};
    struct pm_region_text answer = {.crop = r->crop,
                                    .text = text,
                                    .confidence = e->confidence,
                                    .finish = finish_name(e->finish),
                                    .words = words,
                                    .word_count = (uint32_t)e->word_count,
                                    .reader = pm_reader_info(w->reader).name,
                                    .error_code = "",
                                    .error_text = ""};
    pm_buf_clear(&w->encoded);
    pm_record_encode(&pm_region_text_schema, &answer, &w->encoded);
    struct pm_msg_result result = {.text = {w->encoded.data, w->encoded.size},
                                   .wait_us = (uint64_t)(begun_us - r->leased_us),
                                   .run_us = (uint64_t)(now_us - begun_us),
                                   .phases = phases,
                                   .phase_count = e->times.phase_count,
                                   .tokens = e->tokens,
                                   .drafted = e->drafted,
                                   .accepted = e->accepted};
    pm_task_log_end(&r->id, "done", (int64_t)result.run_us, NULL);
    pm_peer_result(w->peer, r->task, &result);
    free(text);
    free(words);
    forget(w, r);
}

static void revoke(struct pm_worker *w, uint64_t task)
{
    struct running *r = pm_map_get(&w->running, task);
    if (r) {
        pm_task_log_end(&r->id, "revoked", pm_clock_us() - r->leased_us, NULL);
        pm_reader_cancel(w->reader, task, NULL);
        forget(w, r);
    }
    pm_peer_release(w->peer, task);
}

/* Ends regions whose time is up; they are few, so a walk per step is cheap beside an engine step. */
static void end_overdue(struct pm_worker *w)
{
    int64_t now = pm_clock_us();
    for (bool again = true; again;) {
        size_t cursor = 0;
        uint64_t task;
        void *value;
        again = false;
        while (pm_map_next(&w->running, &cursor, &task, &value)) {
            struct running *r = value;
            if (!r->deadline_us || now < r->deadline_us)
                continue;
            struct pm_error err;
            pm_fail(&err, PM_ETIMEOUT, "reading the region took longer than %.1f s",
                    (double)(r->deadline_us - r->leased_us) / 1e6);
            pm_task_log_end(&r->id, "failed", now - r->leased_us, &err);
            pm_reader_cancel(w->reader, task, NULL);
            pm_peer_fail(w->peer, task, &err, r->is_own_deadline);
            forget(w, r);
            again = true; /* the map moved under the cursor */
            break;
        }
    }
}

/* A token at a time would be thousands of messages a second: people read slower. */
static void send_partial(struct pm_worker *w, struct running *r)
{
    int64_t now = pm_clock_us();
    if (now - r->partial_us < PARTIAL_US)
        return;
    pm_buf_text(&r->partial, "");
    pm_peer_partial(w->peer, r->task, (const char *)r->partial.data);
    pm_buf_clear(&r->partial);
    r->partial_us = now;
}

static int step(struct pm_worker *w, struct pm_error *err)
{
    const struct pm_reader_event *events;
    size_t count;
    int rc = pm_reader_step(w->reader, &events, &count, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++) {
        struct running *r = pm_map_get(&w->running, events[i].id);
        if (!r)
            continue;
        if (events[i].is_final) {
            finish(w, r, &events[i]);
        } else if (r->wants_partial) {
            pm_buf_append(&r->partial, events[i].text, events[i].text_bytes);
            send_partial(w, r);
        }
    }
    /* Every step is progress for everything admitted: the engine is alive and will get to each in turn. */
    size_t cursor = 0;
    uint64_t task;
    void *value;
    while (pm_map_next(&w->running, &cursor, &task, &value))
        pm_peer_progress(w->peer, task, 0);
    return 0;
}

static int take_event(void *ctx, const struct pm_peer_event *e, struct pm_error *err)
{
    struct pm_worker *w = ctx;
    (void)err;
    switch (e->kind) {
    case PM_PEER_LEASE:
        admit(w, e);
        return 0;
    case PM_PEER_REVOKE:
        revoke(w, e->task);
        return 0;
    case PM_PEER_STOP:
        w->is_stopping = true;
        return 0;
    case PM_PEER_READY:
        pm_log(PM_LOG_DEBUG, "ready");
        return 0;
    case PM_PEER_LOST:
        pm_log(PM_LOG_WARNING, "the broker is gone; waiting for it");
        return 0;
    default:
        return 0;
    }
}

/* How many pictures were known from identical ones; nothing when there were no new ones. */
static void tell_pictures(struct pm_worker *w)
{
    struct pm_reader_counters c = pm_reader_counters(w->reader);
    if (c.pictures != w->told_pictures)
        pm_log(PM_LOG_INFO, "pictures since the start read=%llu reused=%llu", (unsigned long long)c.pictures,
               (unsigned long long)c.pictures_reused);
    w->told_pictures = c.pictures;
    w->told_us = pm_clock_us();
}

int pm_worker_run(struct pm_worker *w, struct pm_error *err)
{
    for (;;) {
        /* Take what has arrived without waiting when there is work; wait for a lease when there is none. */
        int rc = pm_peer_each(w->peer, pm_reader_running(w->reader) ? 0 : IDLE_WAIT_US, take_event, w, err);
        if (rc)
            return rc;
        if (w->is_stopping && !pm_peer_can_finish(w->peer)) {
            tell_pictures(w);
            return 0;
        }
        if (pm_clock_us() - w->told_us >= TELL_US)
            tell_pictures(w);
        end_overdue(w);
        if (pm_reader_running(w->reader) && (rc = step(w, err)))
            return rc;
    }
}
