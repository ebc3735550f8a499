#include "broker/known.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define MODELS_MOST  256
#define COME_BACK_US 3000000 /* after a start, until the readers that there were are there again */
#define DROP_MOST    64      /* pages a second: housekeeping must not hold up the loop */

static bool has_blobs(struct pm_broker *b, const struct pm_known_page *page)
{
    bool has_all = pm_blob_exists(b->blobs, page->blob, NULL);
    for (uint32_t i = 0; i < page->blob_count && has_all; i++)
        has_all = pm_blob_exists(b->blobs, page->blobs[i], NULL);
    return has_all;
}

static void forget(struct pm_broker *b, const char *fingerprint)
{
    struct pm_actions *a = pm_sched_actions(b->sched);
    pm_actions_op(a, PM_OP_KNOWN_DROP, 0)->fingerprint = pm_actions_text(a, fingerprint);
    pm_count(b, PM_COUNT_known_pages_dropped);
}

int pm_known_find(struct pm_broker *b, const char *fingerprint, struct pm_known_page *out,
                  struct pm_error *err)
{
    int rc = pm_journal_known(b->journal, fingerprint, &b->arena, out, err);
    if (rc || has_blobs(b, out))
        return rc;
    pm_log(PM_LOG_WARNING, "a page that was read before has lost its blob blob=%s", out->blob);
    forget(b, fingerprint);
    return pm_fail(err, PM_ENOTFOUND, "what was read of the page before is gone");
}

int pm_known_fill(struct pm_broker *b, struct pm_msg_result *r, struct pm_error *err)
{
    struct pm_known_page page;
    int rc = pm_known_find(b, r->fingerprint, &page, err);
    if (rc)
        return rc;
    r->blob = page.blob;
    r->blobs = page.blobs;
    r->blob_count = page.blob_count;
    r->known_regions = page.regions;
    pm_count(b, PM_COUNT_known_pages_used);
    return 0;
}

void pm_known_expire(struct pm_broker *b)
{
    struct pm_known_old old[DROP_MOST];
    struct pm_known_total total;
    struct pm_error err;
    uint32_t count = 0;
    int64_t before = b->config.known_ttl_us ? b->now.wall_us - b->config.known_ttl_us : INT64_MIN;
    int rc = pm_journal_known_total(b->journal, &total, &err);
    if (!rc && total.pages)
        rc = pm_journal_known_oldest(b->journal, old, DROP_MOST, &count, &err);
    if (rc) {
        pm_log(PM_LOG_WARNING, "cannot look for old pages: %s", err.text);
        return;
    }
    /* What is remembered gives way to new work. */
    bool is_short =
        b->is_full || (b->config.max_store_bytes && pm_space_stored(b) >= b->config.max_store_bytes);
    for (uint32_t i = 0; i < count; i++) {
        if (old[i].used_us >= before && total.bytes <= b->config.known_bytes && !is_short)
            return;
        total.bytes -= old[i].bytes < total.bytes ? old[i].bytes : total.bytes;
        forget(b, old[i].fingerprint);
    }
}

const char *pm_known_model(const struct pm_broker *b, const char *reader)
{
    const char *model = NULL;
    if (!b->config.known_bytes)
        return "";
    for (size_t i = 0; i < b->conn_count; i++) {
        const struct pm_conn *c = b->conns[i];
        if (c->is_dead || c->role != PM_ROLE_WORKER)
            continue;
        for (uint32_t k = 0; k < c->reader_count; k++) {
            if (strcmp(c->readers[k], reader))
                continue;
            const char *one = k < c->model_count ? c->models[k] : "";
            if (!*one || (model && strcmp(model, one)))
                return "";
            model = one;
        }
    }
    return model ? model : "";
}

/* ---- the models that readers had last ---- */

static struct pm_known_model *note_of(const struct pm_broker *b, const char *reader)
{
    for (size_t i = 0; i < b->model_count; i++)
        if (!strcmp(b->models[i].reader, reader))
            return &b->models[i];
    return NULL;
}

static void take_note(void *broker, const char *reader, const char *identity)
{
    struct pm_broker *b = broker;
    struct pm_known_model *note = note_of(b, reader);
    if (!note) {
        PM_GROW(b->models, b->model_count, b->model_capacity);
        note = &b->models[b->model_count++];
        *note = (struct pm_known_model){.reader = pm_xstrdup(reader)};
    }
    free(note->identity);
    note->identity = pm_xstrdup(identity);
}

int pm_known_open(struct pm_broker *b, struct pm_error *err)
{
    return pm_journal_models(b->journal, take_note, b, err);
}

/* As take_note, and for the next broker, too. */
static void note_down(struct pm_broker *b, const char *reader, const char *identity)
{
    const struct pm_known_model *note = note_of(b, reader);
    if (note ? !strcmp(note->identity, identity) : b->model_count >= MODELS_MOST)
        return;
    struct pm_actions *a = pm_sched_actions(b->sched);
    struct pm_op *op = pm_actions_op(a, PM_OP_MODEL, 0);
    op->client = pm_actions_text(a, reader);
    op->text = pm_actions_text(a, identity);
    take_note(b, reader, identity);
}

void pm_known_worker_came(struct pm_broker *b, const struct pm_conn *c)
{
    for (uint32_t i = 0; i < c->reader_count; i++) {
        const char *reader = c->readers[i], *model = pm_known_model(b, reader);
        const struct pm_known_model *note = note_of(b, reader);
        /* Pages that were to be read by the model before may be read by this one. */
        if (!*model || (note && strcmp(note->identity, model) != 0))
            pm_sched_model_changed(b->sched, b->now, reader);
        if (*model)
            note_down(b, reader, model);
    }
}

/* The default is noted under the name "", which no reader has. */
const char *pm_known_reader(struct pm_broker *b, struct pm_error *err)
{
    const struct pm_known_model *note = note_of(b, "");
    bool any = pm_sched_has_readers(b->sched), is_early = b->now.us - b->started_us < COME_BACK_US;
    if (note && (!any || (is_early && !pm_sched_check_reader(b->sched, note->identity, NULL))))
        return note->identity;
    if (note && is_early) {
        pm_fail(err, PM_EBUSY, "the workers with reader \"%.64s\" are not back yet", note->identity);
        return NULL;
    }
    const char *reader = pm_sched_default_reader(b->sched);
    if (any)
        note_down(b, "", reader);
    return reader;
}

void pm_known_free(struct pm_broker *b)
{
    for (size_t i = 0; i < b->model_count; i++) {
        free(b->models[i].reader);
        free(b->models[i].identity);
    }
    free(b->models);
}

/* ---- documents ---- */

static void add_text(struct pm_hasher *h, const char *text)
{
    pm_hasher_add(h, text, strlen(text) + 1);
}

const char *pm_known_key(struct pm_broker *b, const char *client, const struct pm_msg_submit *submit)
{
    struct pm_hasher h;
    uint8_t hash[PM_HASH_BYTES];
    char hex[PM_HASH_HEX + 1];
    if (submit->options.again)
        return "";
    /* The options as they travel: what is new in them later is part of the key by itself. */
    struct pm_msg_submit same = {
        .key = "", .name = submit->name, .source = submit->source, .options = submit->options, .batch = ""};
    pm_buf_clear(&b->scratch);
    pm_record_encode(pm_msg_schema(PM_MSG_SUBMIT), &same, &b->scratch);
    pm_hasher_start(&h);
    add_text(&h, client);
    const char *reader = submit->options.reader, *model = pm_known_model(b, reader);
    if (*model)
        note_down(b, reader, model);
    const struct pm_known_model *note = note_of(b, reader);
    add_text(&h, note ? note->identity : "");
    pm_hasher_add(&h, b->scratch.data, b->scratch.size);
    pm_hasher_finish(&h, hash);
    pm_hash_hex(hash, hex);
    char *key = pm_arena_alloc(&b->arena, sizeof hex + 1);
    key[0] = PM_SCHED_OWN_KEY;
    memcpy(key + 1, hex, sizeof hex);
    return key;
}
