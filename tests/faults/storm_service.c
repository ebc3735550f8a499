/* layoutd, worker or collector of a storm: the real loop of a service (proto/peer.h) around work that takes
 * no time, so that a storm can kill several processes a second and every result is known beforehand. What it
 * is given is compared with what it must be: a damaged source, sheet, record or text is reported and ends the
 * job, which the storm then finds.
 *
 *   storm_service ROLE --endpoint URL --name NAME
 *
 * WEDGE=FILE in the environment: when FILE can be removed, the next task is its victim; the process then goes
 * on as the word in it says: "spin" (never comes back, beats stop), "stop" (SIGSTOP; goes on after SIGCONT),
 * "linger" (beats for ever, never ends, does not let go when told to). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "proto/page.h"
#include "proto/peer.h"
#include "tests/faults/document.h"

#define MOST_REGIONS 64
#define MOST_PAGES   64

struct service {
    struct pm_peer *peer;
    struct pm_arena arena;
    uint64_t lingers; /* a task that only beats; 0: none */
};

static const char *value_of(int argc, char **argv, const char *option, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], option))
            return argv[i + 1];
    return otherwise;
}

/* A small text blob. */
static int read_text(struct service *s, const char *key, char *out, size_t out_bytes, struct pm_error *err)
{
    struct pm_blob_map map;
    int rc = pm_blob_map(pm_peer_blobs(s->peer), key, &map, err);
    if (rc)
        return rc;
    if (map.bytes >= out_bytes)
        rc = pm_fail(err, PM_EFORMAT, "blob %s has %zu bytes", key, map.bytes);
    else
        memcpy(out, map.data, map.bytes);
    out[rc ? 0 : map.bytes] = 0;
    pm_blob_unmap(&map);
    return rc;
}

static int read_document(struct service *s, const char *key, struct document *out, struct pm_error *err)
{
    struct pm_blob_map map;
    int rc = pm_blob_map(pm_peer_blobs(s->peer), key, &map, err);
    if (rc)
        return rc;
    if (!document_parse(map.data, map.bytes, out))
        rc = pm_fail(err, PM_EFORMAT, "the source %s is damaged", key);
    pm_blob_unmap(&map);
    return rc;
}

static int do_open(struct service *s, const struct pm_msg_lease *lease, struct pm_msg_result *r,
                   struct pm_error *err)
{
    struct document d;
    int rc = read_document(s, lease->source, &d, err);
    if (rc)
        return rc;
    r->pages = pm_arena_alloc(&s->arena, d.pages * sizeof *r->pages);
    for (uint32_t i = 0; i < d.pages; i++)
        r->pages[i] = (struct pm_found_page){i + 1, 100, 140};
    r->document_pages = r->page_count = d.pages;
    return 0;
}

static int do_page(struct service *s, const struct pm_msg_lease *lease, struct pm_msg_result *r,
                   struct pm_error *err)
{
    struct document d;
    char *key = pm_arena_alloc(&s->arena, PM_BLOB_KEY_SIZE),
         *sheet = pm_arena_alloc(&s->arena, PM_BLOB_KEY_SIZE);
    int rc = read_document(s, lease->source, &d, err);
    if (rc)
        return rc;
    char text[128];
    int n = snprintf(text, sizeof text, "record %u %u", d.number, lease->page);
    rc = pm_blob_put(pm_peer_blobs(s->peer), PM_BLOB_DISK, text, (size_t)n, key, err);
    if (!rc) {
        n = snprintf(text, sizeof text, "sheet %u %u %llu %u", d.number, lease->page,
                     (unsigned long long)lease->task, lease->attempt);
        rc = pm_blob_put(pm_peer_blobs(s->peer), PM_BLOB_PIXELS, text, (size_t)n, sheet, err);
    }
    if (rc)
        return rc;
    r->costs = pm_arena_alloc(&s->arena, d.regions * sizeof *r->costs);
    for (uint32_t i = 0; i < d.regions; i++)
        r->costs[i] = 10;
    r->cost_count = d.regions;
    r->record = key;
    r->sheet = sheet;
    r->sheet_bytes = (uint64_t)n;
    return 0;
}

static int do_region(struct service *s, const struct pm_msg_lease *lease, struct pm_msg_result *r,
                     struct pm_error *err)
{
    char text[128];
    unsigned number, page;
    int rc = read_text(s, lease->sheet, text, sizeof text, err);
    if (rc)
        return rc;
    if (sscanf(text, "sheet %u %u", &number, &page) != 2 || page != lease->page)
        return pm_fail(err, PM_EFORMAT, "the sheet of page %u says \"%s\"", lease->page, text);
    struct document d = document_of(number);
    struct pm_buf line = {0}, record = {0};
    document_region(&d, page, lease->region, &line);
    struct pm_region_text t = {.crop = lease->region,
                               .text = (const char *)line.data,
                               .confidence = 1,
                               .finish = "stop",
                               .reader = "fast",
                               .error_code = "",
                               .error_text = ""};
    pm_record_encode(&pm_region_text_schema, &t, &record);
    r->text = (struct pm_bytes){
        (const uint8_t *)pm_arena_text(&s->arena, (const char *)record.data, record.size), record.size};
    pm_buf_free(&line);
    pm_buf_free(&record);
    return 0;
}

static int check_texts(struct service *s, const struct document *d, unsigned page, struct pm_bytes payload,
                       struct pm_error *err)
{
    struct pm_page_texts raw = {0};
    bool seen[MOST_REGIONS] = {false};
    int rc = pm_page_texts_decode(payload.data, payload.size, &s->arena, &raw, err);
    if (!rc && raw.text_count != d->regions)
        rc = pm_fail(err, PM_EFORMAT, "page %u of document %u came with %u texts", page, d->number,
                     raw.text_count);
    for (uint32_t i = 0; i < raw.text_count && !rc; i++) {
        struct pm_region_text t;
        struct pm_buf want = {0};
        rc = pm_record_decode(&pm_region_text_schema, raw.texts[i].data, raw.texts[i].size, &s->arena, &t,
                              err);
        if (rc)
            return rc;
        document_region(d, page, t.crop, &want);
        if (t.crop >= d->regions || seen[t.crop] || strcmp(t.text, (const char *)want.data) != 0)
            rc = pm_fail(err, PM_EFORMAT, "text %u of page %u of document %u is \"%.100s\" (%s)", t.crop,
                         page, d->number, t.text, t.error_text);
        else
            seen[t.crop] = true;
        pm_buf_free(&want);
    }
    return rc;
}

static int do_assemble_page(struct service *s, const struct pm_msg_lease *lease, struct pm_bytes payload,
                            struct pm_msg_result *r, struct pm_error *err)
{
    char text[128], *key = pm_arena_alloc(&s->arena, PM_BLOB_KEY_SIZE);
    unsigned number, page;
    int rc = read_text(s, lease->input, text, sizeof text, err);
    if (rc)
        return rc;
    if (sscanf(text, "record %u %u", &number, &page) != 2 || page != lease->page)
        return pm_fail(err, PM_EFORMAT, "the record of page %u says \"%s\"", lease->page, text);
    struct document d = document_of(number);
    rc = check_texts(s, &d, page, payload, err);
    if (!rc) {
        int n = snprintf(text, sizeof text, "page %u %u", number, page);
        rc = pm_blob_put(pm_peer_blobs(s->peer), PM_BLOB_DISK, text, (size_t)n, key, err);
    }
    r->blob = key;
    return rc;
}

static int do_assemble_document(struct service *s, struct pm_bytes payload, struct pm_msg_result *r,
                                struct pm_error *err)
{
    struct pm_doc_pages pages;
    char text[128], *key = pm_arena_alloc(&s->arena, PM_BLOB_KEY_SIZE);
    struct document d = {0};
    int rc = pm_record_decode(&pm_doc_pages_schema, payload.data, payload.size, &s->arena, &pages, err);
    for (uint32_t i = 0; i < pages.page_count && !rc; i++) {
        unsigned number, page;
        rc = read_text(s, pages.pages[i].blob, text, sizeof text, err);
        if (!rc && (sscanf(text, "page %u %u", &number, &page) != 2 || page != i + 1 ||
                    pages.pages[i].page != page || (i && number != d.number)))
            rc = pm_fail(err, PM_EFORMAT, "page %u of a document says \"%s\"", i + 1, text);
        if (!rc)
            d = document_of(number);
    }
    if (!rc && pages.page_count != d.pages)
        rc = pm_fail(err, PM_EFORMAT, "document %u came with %u pages", d.number, pages.page_count);
    if (rc)
        return rc;
    struct pm_buf all = {0}, manifest = {0};
    document_result(&d, &all);
    rc = pm_blob_put(pm_peer_blobs(s->peer), PM_BLOB_DISK, all.data, all.size, key, err);
    struct pm_result_file file = {.name = "doc.md", .blob = key, .bytes = all.size};
    struct pm_manifest m = {
        .files = &file, .file_count = 1, .pages = d.pages, .regions = d.pages * d.regions};
    pm_record_encode(&pm_manifest_schema, &m, &manifest);
    r->manifest = (struct pm_bytes){
        (const uint8_t *)pm_arena_text(&s->arena, (const char *)manifest.data, manifest.size), manifest.size};
    pm_buf_free(&all);
    pm_buf_free(&manifest);
    return rc;
}

/* Is this process to go wrong now? Whoever removes the file is the one. */
static bool is_chosen(struct service *s, const struct pm_msg_lease *lease)
{
    const char *file = getenv("WEDGE");
    char word[16] = "";
    FILE *f = file ? fopen(file, "r") : NULL;
    if (!f)
        return false;
    size_t n = fread(word, 1, sizeof word - 1, f);
    fclose(f);
    word[n] = 0;
    if (unlink(file))
        return false;
    pm_log(PM_LOG_WARNING, "wedged: %s task=%llu", word, (unsigned long long)lease->task);
    while (!strcmp(word, "spin"))
        ;
    if (!strcmp(word, "stop")) {
        raise(SIGSTOP);
        return false;
    }
    s->lingers = lease->task;
    return true;
}

static int take(void *context, const struct pm_peer_event *e, struct pm_error *why)
{
    struct service *s = context;
    struct pm_msg_result r = {0};
    struct pm_error err;
    int rc = 0;
    (void)why;
    if (e->kind == PM_PEER_STOP)
        return 1;
    if (e->kind == PM_PEER_REVOKE && e->task != s->lingers)
        pm_peer_release(s->peer, e->task);
    if (e->kind != PM_PEER_LEASE || is_chosen(s, e->lease))
        return 0;
    pm_arena_clear(&s->arena);
    switch (e->lease->kind) {
    case PM_KIND_OPEN:
        rc = do_open(s, e->lease, &r, &err);
        break;
    case PM_KIND_PAGE:
        rc = do_page(s, e->lease, &r, &err);
        break;
    case PM_KIND_REGION:
        rc = do_region(s, e->lease, &r, &err);
        break;
    case PM_KIND_ASSEMBLE_PAGE:
        rc = do_assemble_page(s, e->lease, e->payload, &r, &err);
        break;
    default:
        rc = do_assemble_document(s, e->payload, &r, &err);
    }
    r.run_us = 100;
    if (rc) {
        pm_log(PM_LOG_WARNING, "task=%llu failed: %s", (unsigned long long)e->lease->task, err.text);
        pm_peer_fail(s->peer, e->lease->task, &err, rc == PM_EFORMAT);
    } else {
        pm_peer_result(s->peer, e->lease->task, &r);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const readers[] = {"fast"};
    const char *role = argc > 1 ? argv[1] : "";
    struct pm_peer_config config = {.endpoint = value_of(argc, argv, "--endpoint", ""),
                                    .name = value_of(argc, argv, "--name", role),
                                    .credit = 4};
    struct service s = {0};
    struct pm_error err;
    config.role = !strcmp(role, "layoutd")  ? PM_ROLE_LAYOUTD
                  : !strcmp(role, "worker") ? PM_ROLE_WORKER
                                            : PM_ROLE_COLLECTOR;
    if (config.role == PM_ROLE_WORKER) {
        config.readers = readers;
        config.reader_count = 1;
    }
    pm_log_setup(config.name, PM_LOG_INFO);
    int rc = pm_peer_open(&config, &s.peer, &err);
    while (!rc) {
        rc = pm_peer_each(s.peer, s.lingers ? 100000 : 1000000, take, &s, &err);
        if (s.lingers)
            pm_peer_progress(s.peer, s.lingers, 500);
    }
    if (rc < 0)
        pm_log(PM_LOG_ERROR, "%s", err.text);
    pm_peer_free(&s.peer);
    pm_arena_free(&s.arena);
    return rc < 0;
}
