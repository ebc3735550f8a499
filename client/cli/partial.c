#include "client/cli/partial.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/pages.h"
#include "collector/writer.h"
#include "proto/page.h"

#define READ_MS 5000

struct pm_partial {
    char *dir, *path;
    struct pm_pages pages;
    uint32_t next;       /* the page whose turn it is */
    struct pm_map ready; /* page -> key (owned) */
    char *drop;          /* labels left out, as in the options */
    uint32_t written;    /* pages given to the writer */
    struct pm_sink sink;
    void *writer; /* NULL: nothing written yet */
};

static bool has_markdown(const char *formats)
{
    if (!formats || !*formats)
        return true;
    for (const char *p = formats; *p; p += strcspn(p, ","), p += *p == ',')
        if (!strncmp(p, "md", 2) && (!p[2] || p[2] == ','))
            return true;
    return false;
}

/* The first selected page after `page`; UINT32_MAX when none is left. */
static uint32_t page_after(const struct pm_pages *pages, uint32_t page)
{
    if (!pages->range_count)
        return page + 1;
    for (uint32_t i = 0; i < pages->range_count; i++) {
        if (page < pages->ranges[i].first)
            return pages->ranges[i].first;
        if (page < pages->ranges[i].last)
            return page + 1;
    }
    return UINT32_MAX;
}

struct pm_partial *pm_partial_new(const char *dir, const char *stem, const char *pages, const char *formats,
                                  const char *drop)
{
    if (!has_markdown(formats))
        return NULL;
    struct pm_partial *p = pm_xalloc(sizeof *p);
    p->dir = pm_xstrdup(dir);
    p->path = pm_xprintf("%s/%s.partial.md", dir, stem);
    p->drop = pm_xstrdup(drop ? drop : "");
    p->sink.fd = -1;
    if (pm_pages_parse(pages ? pages : "", &p->pages, NULL))
        p->pages.range_count = 0;
    p->next = page_after(&p->pages, 0);
    return p;
}

void pm_partial_page(struct pm_partial *p, uint32_t page, const char *blob)
{
    if (page < p->next || pm_map_get(&p->ready, page))
        return; /* told twice after a lost connection */
    pm_map_put(&p->ready, page, pm_xstrdup(blob));
}

/* Is name in the comma-separated list? */
static bool is_listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !strncmp(p, name, n))
            return true;
    return false;
}

static void drop_regions(const struct pm_partial *p, struct pm_out_page *page)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < page->region_count; i++)
        if (!is_listed(p->drop, pm_label_name((enum pm_label)page->regions[i].label)))
            page->regions[kept++] = page->regions[i];
    page->region_count = kept;
}

/* Pictures are left out: their files are written at the end. */
static int write_page(struct pm_partial *p, struct pm_out_page *page)
{
    if (!p->writer) {
        int rc = pm_fs_mkdir_p(p->dir, 0777, NULL);
        if (rc)
            return rc;
        p->sink.fd = open(p->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (p->sink.fd < 0)
            return PM_EIO;
        p->writer = pm_writer_md.begin(&p->sink);
    }
    drop_regions(p, page);
    struct pm_writer_image *images = pm_xalloc((page->region_count + 1) * sizeof *images);
    struct pm_writer_page turn = {.index = p->written++, .page = page, .images = images};
    pm_writer_md.page(p->writer, &p->sink, &turn);
    free(images);
    int rc = pm_fs_write_all(p->sink.fd, p->sink.buf.data, p->sink.buf.size, NULL);
    pm_buf_clear(&p->sink.buf);
    return rc;
}

/* 0: the page is dealt with. */
static int append(struct pm_partial *p, pagemill *pm, const char *key)
{
    void *data = NULL;
    size_t bytes = 0;
    struct pm_arena arena = {0};
    struct pm_out_page page;
    int rc = *key ? pagemill_blob_read(pm, key, READ_MS, &data, &bytes, NULL) : 0;
    if (*key && !rc && !pm_record_decode(&pm_out_page_schema, data, bytes, &arena, &page, NULL))
        (void)write_page(p, &page); /* a full disk is told when the result is written */
    pm_arena_free(&arena);
    pagemill_free(data);
    return rc == PM_ETIMEOUT || rc == PM_ECANCELLED || rc == PM_EGONE ? rc : 0;
}

void pm_partial_grow(struct pm_partial *p, pagemill *pm)
{
    char *key;
    while ((key = pm_map_get(&p->ready, p->next))) {
        if (append(p, pm, key))
            return; /* tried again with the next event */
        pm_map_remove(&p->ready, p->next);
        free(key);
        p->next = page_after(&p->pages, p->next);
    }
}

static void close_file(struct pm_partial *p)
{
    if (!p->writer)
        return;
    pm_writer_md.end(p->writer, &p->sink); /* what it still holds goes nowhere */
    p->writer = NULL;
    close(p->sink.fd);
    p->sink.fd = -1;
}

void pm_partial_finish(struct pm_partial *p)
{
    if (!p->writer)
        return;
    close_file(p);
    unlink(p->path);
    rmdir(p->dir); /* only when nothing else is there: an interrupted run */
}

void pm_partial_free(struct pm_partial **partial)
{
    struct pm_partial *p = *partial;
    *partial = NULL;
    if (!p)
        return;
    close_file(p);
    pm_sink_free(&p->sink);
    size_t cursor = 0;
    uint64_t page;
    void *key;
    while (pm_map_next(&p->ready, &cursor, &page, &key))
        free(key);
    pm_map_free(&p->ready);
    free(p->dir);
    free(p->path);
    free(p->drop);
    free(p);
}
