#include "client/lib/internal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/pages.h"
#include "base/utf8.h"

#define KEY_BYTES   16
#define NUMBER_MOST 10
#define SWEPT_US    ((int64_t)60 * 1000000) /* nothing younger is swept */

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static int check_text(const char *what, const char *text, struct pm_error *err)
{
    if (text && !pm_utf8_is_text(text, strlen(text)))
        return pm_fail(err, PM_EINVAL, "the %s is not UTF-8", what);
    return 0;
}

static int check_options(const struct pagemill_submit_options *o, struct pm_error *err)
{
    const struct {
        const char *what, *text;
    } texts[] = {{"name", o->name},       {"key", o->key},   {"password", o->password}, {"reader", o->reader},
                 {"formats", o->formats}, {"drop", o->drop}, {"stem", o->stem},         {"batch", o->batch}};
    struct pm_pages pages;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (check_text(texts[i].what, texts[i].text, err))
            return PM_EINVAL;
    if (o->priority > 4)
        return pm_fail(err, PM_EINVAL, "priority is 0 to 4, not %u", o->priority);
    const char *whole = or_empty(o->whole);
    if (*whole && strcmp(whole, "text") != 0 && strcmp(whole, "table") != 0 && strcmp(whole, "formula") != 0)
        return pm_fail(err, PM_EINVAL, "whole pages are read as text, table or formula");
    if (!(o->temperature >= 0 && o->temperature <= NUMBER_MOST))
        return pm_fail(err, PM_EINVAL, "temperature is 0 to %d, not %g", NUMBER_MOST, (double)o->temperature);
    if (!(o->repetition_penalty >= 0 && o->repetition_penalty <= NUMBER_MOST))
        return pm_fail(err, PM_EINVAL, "repetition penalty is 0 to %d, not %g", NUMBER_MOST,
                       (double)o->repetition_penalty);
    return pm_pages_parse(or_empty(o->pages), &pages, err);
}

/* The last part of a path without its extension. */
static void stem_of(const char *name, char *out, size_t out_bytes)
{
    const char *base = strrchr(name, '/');
    base = base ? base + 1 : name;
    const char *dot = strrchr(base, '.');
    size_t n = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    if (n > out_bytes - 1)
        n = pm_utf8_cut(base, out_bytes - 1);
    memcpy(out, base, n);
    out[n] = 0;
}

static int submit(pagemill *pm, const struct pm_client_source *source,
                  const struct pagemill_submit_options *options, const char *default_name, int64_t timeout_ms,
                  uint64_t *job_out, struct pm_error *err)
{
    struct pagemill_submit_options o = PAGEMILL_SUBMIT_OPTIONS_INIT;
    int64_t deadline = pm_client_deadline(timeout_ms);
    char key[2 * KEY_BYTES + 1], stem[201], blob[PM_BLOB_KEY_SIZE];
    uint8_t random[KEY_BYTES];
    *job_out = 0;
    if (options)
        memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
    if (!o.name)
        o.name = default_name;
    int rc = check_options(&o, err);
    if (rc || (rc = pm_client_random(random, sizeof random, err)))
        return rc;
    for (int i = 0; i < KEY_BYTES; i++) {
        key[2 * i] = "0123456789abcdef"[random[i] >> 4];
        key[2 * i + 1] = "0123456789abcdef"[random[i] & 15];
    }
    key[2 * KEY_BYTES] = 0;
    stem_of(o.name, stem, sizeof stem);
    struct pm_msg_submit m = {.key = or_empty(o.key),
                              .name = o.name,
                              .source = blob,
                              .options = {.pages = or_empty(o.pages),
                                          .password = or_empty(o.password),
                                          .reader = or_empty(o.reader),
                                          .formats = or_empty(o.formats),
                                          .drop = or_empty(o.drop),
                                          .dpi = o.dpi,
                                          .no_orientation = o.no_orientation != 0,
                                          .no_deskew = o.no_deskew != 0,
                                          .no_images = o.no_images != 0,
                                          .stem = o.stem && *o.stem ? o.stem : stem,
                                          .partial_events = o.partial_text != 0,
                                          .max_tokens = o.max_tokens,
                                          .temperature = o.temperature,
                                          .repetition_penalty = o.repetition_penalty,
                                          .seed = o.seed,
                                          .whole = or_empty(o.whole),
                                          .region_timeout_s = o.region_timeout_s,
                                          .again = o.again != 0},
                              .priority = o.priority,
                              .batch = or_empty(o.batch),
                              .deadline_s = o.deadline_s};
    off_t start = source->fd >= 0 ? lseek(source->fd, 0, SEEK_CUR) : 0;
    bool direct = true;
    for (;;) {
        int64_t began_us = pm_clock_us();
        rc = pm_client_store(pm, source, direct, deadline, blob, &m.source_bytes, err);
        if (rc)
            return rc;
        struct pm_answer answer;
        m.ref = pm_client_ref(pm);
        /* Whoever reads anew is not told apart by what it says, and an older broker tells nobody apart:
         * without a key a request that is repeated after a lost answer would be a second job. */
        if ((o.again || pm->proto < 2) && !*m.key)
            m.key = key;
        rc = pm_client_call(pm, PM_MSG_SUBMIT, &m, m.ref, PM_MSG_ACCEPTED, deadline, &answer, err);
        if (!rc) {
            const struct pm_msg_accepted *accepted = answer.message.record;
            *job_out = accepted->job;
            if (o.is_duplicate)
                *o.is_duplicate = accepted->is_duplicate;
            pm_answer_free(&answer);
            return 0;
        }
        bool can_repeat = source->fd < 0 || (start >= 0 && lseek(source->fd, start, SEEK_SET) == start);
        if (rc != PM_ENOTFOUND || !can_repeat)
            return rc;
        /* A fleet that was busy or away for long has swept what nobody referred to: store it again. */
        if (pm_clock_us() - began_us > SWEPT_US)
            continue;
        /* The path was the same and the file system was not (containers): send it through the socket. */
        if (!direct || !pm->blobs)
            return rc;
        direct = false;
    }
}

int pagemill_submit_memory(pagemill *pm, const void *data, size_t bytes,
                           const struct pagemill_submit_options *options, int64_t timeout_ms,
                           uint64_t *job_out, struct pagemill_error *err)
{
    struct pm_client_source source = {.data = data, .bytes = bytes, .fd = -1};
    return submit(pm, &source, options, "document", timeout_ms, job_out, pm_client_error(err));
}

int pagemill_submit_fd(pagemill *pm, int fd, const struct pagemill_submit_options *options,
                       int64_t timeout_ms, uint64_t *job_out, struct pagemill_error *err)
{
    struct pm_client_source source = {.fd = fd};
    if (fd < 0)
        return pm_fail(pm_client_error(err), PM_EINVAL, "%d is not a file descriptor", fd);
    return submit(pm, &source, options, "document", timeout_ms, job_out, pm_client_error(err));
}

int pagemill_submit_path(pagemill *pm, const char *path, const struct pagemill_submit_options *options,
                         int64_t timeout_ms, uint64_t *job_out, struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    struct stat st;
    *job_out = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us before it is refused */
    if (fd < 0)
        return pm_fail_errno(err, "cannot open %s", path);
    int rc = fstat(fd, &st) ? pm_fail_errno(err, "cannot look at %s", path) : 0;
    if (!rc && !S_ISREG(st.st_mode))
        rc = pm_fail(err, PM_EINVAL, "%s is %s, not a file", path,
                     S_ISDIR(st.st_mode) ? "a folder" : "a device or pipe");
    struct pm_client_source source = {.fd = fd};
    if (!rc)
        rc = submit(pm, &source, options, path, timeout_ms, job_out, err);
    close(fd);
    return rc;
}
