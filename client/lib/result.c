#include "client/lib/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "proto/page.h"

#define NAME_BYTES 1024
#define PART_BYTES 255

bool pm_client_is_safe_name(const char *name)
{
    size_t n = strlen(name);
    if (!n || n > NAME_BYTES || !pm_utf8_is_text(name, n))
        return false;
    for (const char *part = name;;) {
        size_t length = strcspn(part, "/");
        if (!length || length > PART_BYTES || (length == 1 && part[0] == '.') ||
            (length == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        for (size_t i = 0; i < length; i++)
            if ((unsigned char)part[i] < 0x20 || part[i] == 0x7f || part[i] == '\\')
                return false;
        if (!part[length])
            return true;
        part += length + 1;
    }
}

struct made_result {
    struct pagemill_result result;
    struct pm_arena arena;
    const char **keys; /* [count], in the arena */
};

static int64_t after(int64_t from_us, uint32_t ms)
{
    return ms ? from_us + (int64_t)ms * 1000 : 0;
}

static void convert_times(struct made_result *made, const struct pm_manifest *m)
{
    struct pagemill_result *r = &made->result;
    uint32_t pages = m->page_time_count / PM_PAGE_TIMES;
    struct pagemill_page_time *of_pages = pm_arena_alloc(&made->arena, (pages + 1) * sizeof *of_pages);
    struct pagemill_part_time *parts = pm_arena_alloc(&made->arena, (m->time_count + 1) * sizeof *parts);
    for (uint32_t i = 0; i < pages; i++) {
        const uint32_t *from = &m->page_times[PM_PAGE_TIMES * i];
        of_pages[i] = (struct pagemill_page_time){from[0], after(m->accepted_wall_us, from[1]),
                                                  after(m->accepted_wall_us, from[2]),
                                                  after(m->accepted_wall_us, from[3])};
    }
    for (uint32_t i = 0; i < m->time_count; i++)
        parts[i] = (struct pagemill_part_time){m->times[i].kind, m->times[i].name, m->times[i].us,
                                               m->times[i].count};
    r->accepted_us = m->accepted_wall_us;
    r->started_us = m->started_wall_us;
    r->opened_us = m->opened_wall_us;
    r->first_page_us = m->first_page_wall_us;
    r->finished_us = m->finished_wall_us;
    r->page_times = of_pages;
    r->page_time_count = pages;
    r->times = parts;
    r->time_count = m->time_count;
    r->tokens = m->tokens;
}

static int convert(struct made_result *made, const struct pm_manifest *manifest, struct pm_error *err)
{
    struct pagemill_file *files = pm_arena_alloc(&made->arena, manifest->file_count * sizeof *files);
    made->keys = pm_arena_alloc(&made->arena, manifest->file_count * sizeof *made->keys);
    for (uint32_t i = 0; i < manifest->file_count; i++) {
        const struct pm_result_file *f = &manifest->files[i];
        if (!pm_client_is_safe_name(f->name) || !pm_blob_is_key(f->blob)) {
            int rc = pm_fail(err, PM_EPROTO, "the fleet names a result file \"%.200s\": refused", f->name);
            if (err)
                pm_sanitize_text(err->text);
            return rc;
        }
        files[i] = (struct pagemill_file){.name = f->name, .bytes = f->bytes};
        made->keys[i] = f->blob;
    }
    made->result = (struct pagemill_result){.files = files,
                                            .count = manifest->file_count,
                                            .pages = manifest->pages,
                                            .pages_failed = manifest->pages_failed,
                                            .regions = manifest->regions,
                                            .regions_failed = manifest->regions_failed,
                                            .confidence = manifest->confidence,
                                            .regions_cut = manifest->regions_cut};
    convert_times(made, manifest);
    return 0;
}

int pagemill_result(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_result **out,
                    struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    struct pm_msg_job_ref m = {.ref = pm_client_ref(pm), .job = job, .batch = ""};
    struct pm_answer answer;
    *out = NULL;
    int rc = pm_client_call(pm, PM_MSG_FETCH, &m, m.ref, PM_MSG_MANIFEST, pm_client_deadline(timeout_ms),
                            &answer, err);
    if (rc)
        return rc;
    const struct pm_msg_manifest *message = answer.message.record;
    struct pm_manifest manifest;
    struct made_result *made = calloc(1, sizeof *made);
    if (!made)
        rc = pm_fail(err, PM_ENOMEM, "no memory for a result");
    else if (!(rc = pm_record_decode(&pm_manifest_schema, message->manifest.data, message->manifest.size,
                                     &made->arena, &manifest, err)))
        rc = convert(made, &manifest, err);
    pm_answer_free(&answer);
    if (rc && made) {
        pm_arena_free(&made->arena);
        free(made);
    }
    if (!rc)
        *out = &made->result;
    return rc;
}

void pagemill_result_free(struct pagemill_result **result)
{
    struct made_result *made = (struct made_result *)*result;
    *result = NULL;
    if (made)
        pm_arena_free(&made->arena);
    free(made);
}

int pagemill_result_read(pagemill *pm, const struct pagemill_result *result, size_t index, int64_t timeout_ms,
                         void **data_out, size_t *bytes_out, struct pagemill_error *public_err)
{
    const struct made_result *made = (const struct made_result *)result;
    struct pm_error *err = pm_client_error(public_err);
    *data_out = NULL;
    *bytes_out = 0;
    if (index >= result->count)
        return pm_fail(err, PM_EINVAL, "the result has %zu files, not %zu", result->count, index + 1);
    return pm_client_load(pm, made->keys[index], pm_client_deadline(timeout_ms), data_out, bytes_out, err);
}

int pagemill_result_save(pagemill *pm, const struct pagemill_result *result, size_t index, const char *dir,
                         int64_t timeout_ms, struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    void *data;
    size_t bytes;
    int rc = pagemill_result_read(pm, result, index, timeout_ms, &data, &bytes, public_err);
    if (rc)
        return rc;
    char *path = pm_fs_join(dir, result->files[index].name);
    char *parent = pm_xstrndup(path, (size_t)(strrchr(path, '/') - path)); /* join puts a slash there */
    rc = pm_fs_mkdir_p(parent, 0777, err);
    if (!rc)
        rc = pm_fs_write(path, data, bytes, false, err);
    free(parent);
    free(path);
    free(data);
    return rc;
}

int pagemill_fetch(pagemill *pm, uint64_t job, const char *dir, int64_t timeout_ms,
                   struct pagemill_error *err)
{
    struct pagemill_result *result;
    int rc = pagemill_result(pm, job, timeout_ms, &result, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < result->count && !rc; i++)
        rc = pagemill_result_save(pm, result, i, dir, timeout_ms, err);
    pagemill_result_free(&result);
    return rc;
}
