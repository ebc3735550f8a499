#include "layoutd/decoders.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define KEPT 4u

struct entry {
    struct pm_decoder *decoder; /* NULL: free */
    char *source, *password;
    int64_t used_us;
};

struct pm_decoders {
    struct entry entries[KEPT];
    struct pm_decode_limits limits;
    char *program;
};

struct pm_decoders *pm_decoders_new(const char *program, int cancel_fd)
{
    struct pm_decoders *d = pm_xalloc(sizeof *d);
    pm_decode_limits_default(&d->limits);
    d->limits.cancel_fd = cancel_fd;
    d->program = pm_xstrdup(program);
    return d;
}

static void end(struct entry *e)
{
    pm_decode_stop(&e->decoder);
    free(e->source);
    free(e->password);
    *e = (struct entry){0};
}

void pm_decoders_free(struct pm_decoders **decoders)
{
    struct pm_decoders *d = *decoders;
    if (!d)
        return;
    for (unsigned i = 0; i < KEPT; i++)
        end(&d->entries[i]);
    free(d->program);
    free(d);
    *decoders = NULL;
}

int pm_decoders_get(struct pm_decoders *d, struct pm_blobs *blobs, const char *source, const char *password,
                    int64_t now_us, struct pm_decoder **out, struct pm_error *err)
{
    struct entry *oldest = &d->entries[0];
    for (unsigned i = 0; i < KEPT; i++) {
        struct entry *e = &d->entries[i];
        if (e->decoder && !strcmp(e->source, source) && !strcmp(e->password, password)) {
            e->used_us = now_us;
            *out = e->decoder;
            return 0;
        }
        if (!e->decoder || (oldest->decoder && e->used_us < oldest->used_us))
            oldest = e;
    }
    end(oldest);
    int fd = -1;
    uint64_t bytes;
    int rc = pm_blob_open(blobs, source, &fd, &bytes, err);
    if (rc)
        return rc;
    struct entry fresh = {.used_us = now_us};
    rc = pm_decode_start(d->program, fd, *password ? password : NULL, &d->limits, &fresh.decoder, err);
    close(fd);
    if (rc)
        return rc;
    fresh.source = pm_xstrdup(source);
    fresh.password = pm_xstrdup(password);
    *oldest = fresh;
    *out = fresh.decoder;
    return 0;
}

unsigned pm_decoders_expire(struct pm_decoders *d, int64_t unused_since_us)
{
    unsigned left = 0;
    for (unsigned i = 0; i < KEPT; i++) {
        if (d->entries[i].decoder && d->entries[i].used_us < unused_since_us)
            end(&d->entries[i]);
        left += d->entries[i].decoder != NULL;
    }
    return left;
}
