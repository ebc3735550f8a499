#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/map.h"
#include "collector/assemble.h"
#include "collector/format.h"
#include "collector/headings.h"
#include "collector/writer.h"

#define MOST_FORMATS 8
#define MOST_BYTES   (UINT64_C(1) << 40) /* of one file */

struct output {
    const struct pm_writer *writer;
    void *state;
    struct pm_sink sink; /* fd < 0: not open */
};

struct document {
    struct pm_blobs *blobs;
    struct pm_arena *arena; /* of the result */
    struct pm_assembled *result;
    struct output outputs[MOST_FORMATS];
    size_t output_count;
    bool drop[PM_LABEL_COUNT];
    bool no_images;
    const char *stem;
    uint32_t pictures;
    size_t file_capacity, blob_capacity; /* of result->manifest.files, result->blobs; both on the heap */
    struct pm_strmap known;              /* blobs already listed */
    struct pm_headings headings;
    double confidence, characters;
};

/* ---- options --------------------------------------------------------------------------------------------
 */

/* The next name of a comma-separated list; false at its end. Empty names are passed over. */
static bool next_name(const char **list, const char **name_out, size_t *bytes_out)
{
    const char *p = *list;
    p += strspn(p, ", \t");
    size_t n = strcspn(p, ",");
    *list = p + n;
    while (n && (p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    *name_out = p;
    *bytes_out = n;
    return n > 0;
}

static int parse_formats(struct document *d, const char *formats, struct pm_error *err)
{
    if (!formats || !*formats)
        formats = "md,json";
    const char *name;
    size_t bytes;
    while (next_name(&formats, &name, &bytes)) {
        const struct pm_writer *w = pm_writer_find(name, bytes);
        if (!w)
            return pm_fail(err, PM_EINVAL, "unknown output format \"%.*s\"; known are %s", (int)bytes, name,
                           pm_writer_formats());
        bool is_known = false;
        for (size_t i = 0; i < d->output_count; i++)
            is_known |= d->outputs[i].writer == w;
        if (!is_known && d->output_count < MOST_FORMATS)
            d->outputs[d->output_count++] = (struct output){.writer = w, .sink = {.fd = -1}};
    }
    if (!d->output_count)
        return pm_fail(err, PM_EINVAL, "no output format named; known are %s", pm_writer_formats());
    return 0;
}

static int parse_drop(struct document *d, const char *drop, struct pm_error *err)
{
    const char *name;
    size_t bytes;
    drop = drop ? drop : "";
    while (next_name(&drop, &name, &bytes)) {
        int label = pm_label_from_name(name, bytes);
        if (label < 0)
            return pm_fail(err, PM_EINVAL, "cannot leave out \"%.*s\": no such label", (int)bytes, name);
        d->drop[label] = true;
    }
    return 0;
}

/* ---- files ------------------------------------------------------------------------------------------------
 */

/* A file without a name beside the blobs, so that what does not fit is known before anything is promised. */
static int open_scratch(struct pm_blobs *blobs, int *fd_out, struct pm_error *err)
{
    const char *dir = pm_blobs_dir(blobs, PM_BLOB_DISK);
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        char *path = pm_xprintf("%s/tmp/collect-XXXXXX", dir);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            unlink(path);
        free(path);
    }
    if (fd < 0)
        return pm_fail_errno(err, "cannot write in %s", dir);
    *fd_out = fd;
    return 0;
}

static const char *list_blob(struct document *d, const char *key)
{
    const char *known = pm_strmap_get(&d->known, key);
    if (known)
        return known;
    struct pm_assembled *r = d->result;
    char *copy = pm_arena_text(d->arena, key, strlen(key));
    pm_strmap_put(&d->known, key, copy);
    PM_GROW(r->blobs, r->blob_count, d->blob_capacity);
    r->blobs[r->blob_count++] = copy;
    return copy;
}

/* Adds a file; returns its name in the arena. */
static const char *list_file(struct document *d, const char *name, const char *key, uint64_t bytes)
{
    struct pm_manifest *m = &d->result->manifest;
    const char *copy = pm_arena_text(d->arena, name, strlen(name));
    PM_GROW(m->files, m->file_count, d->file_capacity);
    m->files[m->file_count++] = (struct pm_result_file){copy, list_blob(d, key), bytes};
    return copy;
}

static int begin(struct document *d, struct pm_error *err)
{
    for (size_t i = 0; i < d->output_count; i++) {
        struct output *o = &d->outputs[i];
        int rc = open_scratch(d->blobs, &o->sink.fd, err);
        if (rc)
            return rc;
        o->state = o->writer->begin(&o->sink);
    }
    return 0;
}

static int finish(struct document *d, struct pm_error *err)
{
    for (size_t i = 0; i < d->output_count; i++) {
        struct output *o = &d->outputs[i];
        char key[PM_BLOB_KEY_SIZE];
        uint64_t bytes;
        o->writer->end(o->state, &o->sink);
        o->state = NULL;
        int rc = pm_sink_finish(&o->sink, err);
        if (!rc && lseek(o->sink.fd, 0, SEEK_SET) < 0)
            rc = pm_fail_errno(err, "cannot read back what was written");
        if (!rc)
            rc = pm_blob_put_fd(d->blobs, PM_BLOB_DISK, o->sink.fd, MOST_BYTES, key, &bytes, err);
        char *name = pm_xprintf("%s%s", d->stem, o->writer->suffix);
        if (!rc)
            list_file(d, name, key, bytes);
        else
            pm_fail_prefix(err, "%s", name);
        free(name);
        if (rc)
            return rc;
    }
    return 0;
}

static void release(struct document *d)
{
    for (size_t i = 0; i < d->output_count; i++) {
        struct output *o = &d->outputs[i];
        if (o->state)
            o->writer->end(o->state, &o->sink);
        if (o->sink.fd >= 0)
            close(o->sink.fd);
        pm_sink_free(&o->sink);
    }
    pm_strmap_free(&d->known);
}

/* ---- pages ----------------------------------------------------------------------------------------------
 */

/* A page record into the page's arena. What is damaged becomes a page that says so; what is missing or cannot
 * be read may come back, so that is an error of the task. */
static int load_page(struct document *d, const struct pm_doc_page *p, struct pm_arena *arena,
                     struct pm_out_page *out, struct pm_error *err)
{
    *out = (struct pm_out_page){.page = p->page, .error_code = "", .error_text = ""};
    if (!*p->blob || *p->error_code) {
        out->error_code = *p->error_code ? p->error_code : "internal";
        out->error_text = *p->error_text ? p->error_text : "the page was not read";
        return 0;
    }
    struct pm_blob_map map = {0};
    struct pm_error why = {0};
    int rc = pm_blob_map(d->blobs, p->blob, &map, err);
    if (rc)
        return pm_fail_prefix(err, "page %u", p->page);
    rc = pm_record_decode(&pm_out_page_schema, map.data, map.bytes, arena, out, &why);
    pm_blob_unmap(&map);
    if (rc) {
        *out = (struct pm_out_page){.page = p->page};
        out->error_code = pm_err_name(rc);
        out->error_text = pm_arena_text(arena, why.text, strlen(why.text));
    }
    out->page = p->page;
    return 0;
}

/* Names a region's picture; a reason in the region when that is not possible. */
static void place_picture(struct document *d, uint32_t index, struct pm_out_region *r,
                          struct pm_writer_image *image, struct pm_arena *arena)
{
    uint64_t bytes;
    if (d->no_images || !*r->image_blob)
        return;
    if (!pm_blob_is_key(r->image_blob) || !pm_blob_exists(d->blobs, r->image_blob, &bytes)) {
        r->error_code = "not-found";
        r->error_text = "the picture is gone from the blob store";
        return;
    }
    if (d->pictures >= PM_DOCUMENT_PICTURES) {
        struct pm_buf why = {0};
        pm_buf_printf(&why, "picture left out: a document keeps %u at most", PM_DOCUMENT_PICTURES);
        r->error_code = pm_err_name(PM_ELIMIT);
        r->error_text = pm_arena_text(arena, (const char *)why.data, why.size);
        pm_buf_free(&why);
        return;
    }
    image->number = d->pictures++;
    char name[80];
    snprintf(name, sizeof name, "imgs/cropped_page%u_idx%u.jpg", index, image->number);
    image->path = list_file(d, name, r->image_blob, bytes);
}

static void count_page(struct document *d, const struct pm_out_page *page)
{
    struct pm_manifest *m = &d->result->manifest;
    uint64_t characters;
    m->pages++;
    m->pages_failed += *page->error_code != 0;
    m->regions += page->region_count;
    for (uint32_t i = 0; i < page->region_count; i++) {
        m->regions_failed += *page->regions[i].error_code != 0;
        m->regions_cut += page->regions[i].was_cut && !*page->regions[i].error_code;
    }
    float confidence = pm_page_confidence(page, &characters);
    d->confidence += (double)confidence * (double)characters;
    d->characters += (double)characters;
}

static int write_page(struct document *d, uint32_t index, struct pm_out_page *page, struct pm_arena *arena,
                      struct pm_error *err)
{
    uint32_t kept = 0;
    struct pm_writer_image *images = pm_arena_alloc(arena, ((size_t)page->region_count + 1) * sizeof *images);
    uint32_t all = page->region_count;
    for (uint32_t i = 0; i < all; i++) {
        struct pm_out_region *r = &page->regions[i];
        if (!d->drop[r->label])
            place_picture(d, index, r, &images[i], arena);
    }
    count_page(d, page);
    for (uint32_t i = 0; i < all; i++) {
        if (d->drop[page->regions[i].label])
            continue;
        page->regions[kept] = page->regions[i];
        images[kept++] = images[i];
    }
    page->region_count = kept;
    pm_headings_apply(&d->headings, page, arena);
    struct pm_writer_page view = {.index = index, .page = page, .images = images};
    for (size_t i = 0; i < d->output_count; i++) {
        struct output *o = &d->outputs[i];
        o->writer->page(o->state, &o->sink, &view);
        if (o->sink.err.code) {
            if (err)
                *err = o->sink.err;
            return pm_fail_prefix(err, "%s%s, page %u", d->stem, o->writer->suffix, page->page);
        }
    }
    return 0;
}

static int write_pages(struct document *d, const struct pm_doc_pages *pages, pm_assemble_tick tick, void *ctx,
                       struct pm_error *err)
{
    struct pm_arena arena = {0};
    int rc = 0;
    for (uint32_t i = 0; !rc && i < pages->page_count; i++) { /* what headings there are */
        struct pm_out_page page;
        pm_arena_clear(&arena);
        rc = load_page(d, &pages->pages[i], &arena, &page, err);
        if (!rc)
            pm_headings_count(&d->headings, &page);
        if (!rc && tick && i % 64 == 63)
            rc = tick(ctx, 0, err);
    }
    for (uint32_t i = 0; !rc && i < pages->page_count; i++) {
        struct pm_out_page page;
        pm_arena_clear(&arena);
        rc = load_page(d, &pages->pages[i], &arena, &page, err);
        if (!rc)
            rc = write_page(d, i, &page, &arena, err);
        if (!rc && tick)
            rc = tick(ctx, (uint32_t)((uint64_t)(i + 1) * 990 / pages->page_count), err);
    }
    pm_arena_free(&arena);
    return rc;
}

/* What grew on the heap moves to the arena, in the order in which people look for it: text files first. */
static void hand_over(struct document *d, uint32_t text_files)
{
    struct pm_assembled *r = d->result;
    struct pm_manifest *m = &r->manifest;
    struct pm_result_file *files = pm_arena_alloc(d->arena, ((size_t)m->file_count + 1) * sizeof *files);
    uint32_t pictures = m->file_count - text_files;
    if (m->file_count) {
        memcpy(files, m->files + pictures, text_files * sizeof *files);
        memcpy(files + text_files, m->files, pictures * sizeof *files);
    }
    free(m->files);
    m->files = files;
    const char **blobs = pm_arena_alloc(d->arena, ((size_t)r->blob_count + 1) * sizeof *blobs);
    if (r->blob_count)
        memcpy(blobs, r->blobs, r->blob_count * sizeof *blobs);
    free(r->blobs);
    r->blobs = blobs;
    m->confidence = d->characters > 0 ? (float)(d->confidence / d->characters) : 0;
}

int pm_assemble_document(struct pm_blobs *blobs, const struct pm_doc_pages *pages,
                         const struct pm_options *options, pm_assemble_tick tick, void *ctx,
                         struct pm_arena *arena, struct pm_assembled *out, struct pm_error *err)
{
    *out = (struct pm_assembled){0};
    pm_phases_begin(&out->phases);
    struct document d = {.blobs = blobs, .arena = arena, .result = out, .no_images = options->no_images};
    char *stem = pm_fs_clean_name(options->stem ? options->stem : "");
    d.stem = stem;
    int rc = parse_formats(&d, options->formats, err);
    if (!rc)
        rc = parse_drop(&d, options->drop, err);
    if (!rc)
        rc = begin(&d, err);
    if (!rc)
        rc = write_pages(&d, pages, tick, ctx, err);
    pm_phases_end(&out->phases, "assemble");
    if (!rc)
        rc = finish(&d, err);
    pm_phases_end(&out->phases, "write");
    if (rc) {
        free(out->manifest.files);
        free(out->blobs);
        *out = (struct pm_assembled){0};
    } else {
        hand_over(&d, (uint32_t)d.output_count);
    }
    release(&d);
    free(stem);
    return rc;
}
