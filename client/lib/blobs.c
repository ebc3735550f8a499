#include "client/lib/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "proto/chunk.h"

#define WINDOW       8u /* chunks of an upload or a download under way */
#define SOURCE_LIMIT ((uint64_t)4 << 30)
#define BLOB_LIMIT   ((uint64_t)4 << 30) /* a download larger than this is refused */

/* ---- storing ---- */

struct upload {
    const struct pm_client_source *source;
    off_t start;     /* of fd */
    uint64_t id;     /* number of this upload */
    uint64_t sent;   /* bytes */
    uint64_t stored; /* bytes that the fleet has confirmed */
    uint64_t first_ref;
    bool is_all_sent;
    uint8_t raw[PM_CHUNK_BYTES];
    struct pm_buf packed;
    /* The chunk being sent. */
    size_t raw_bytes;
    bool has_chunk, is_last;
};

/* Fills raw with up to a chunk from the descriptor; fewer bytes only at the end. */
static int read_chunk(struct upload *u, struct pm_error *err)
{
    u->raw_bytes = 0;
    while (u->raw_bytes < sizeof u->raw) {
        ssize_t n = read(u->source->fd, u->raw + u->raw_bytes, sizeof u->raw - u->raw_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pm_fail_errno(err, "cannot read the document");
        if (n == 0)
            break;
        u->raw_bytes += (size_t)n;
    }
    return 0;
}

static int next_chunk(struct upload *u, struct pm_error *err)
{
    const uint8_t *data = u->raw;
    if (u->source->fd >= 0) {
        int rc = read_chunk(u, err);
        if (rc)
            return rc;
        u->is_last = u->raw_bytes < sizeof u->raw;
    } else {
        uint64_t left = u->source->bytes - u->sent;
        u->raw_bytes = left < PM_CHUNK_BYTES ? (size_t)left : PM_CHUNK_BYTES;
        data = u->raw_bytes ? u->source->data + u->sent : u->raw;
        u->is_last = u->raw_bytes == left;
    }
    if (u->sent + u->raw_bytes > SOURCE_LIMIT)
        return pm_fail(err, PM_ELIMIT, "the document is larger than %llu bytes",
                       (unsigned long long)SOURCE_LIMIT);
    pm_buf_clear(&u->packed);
    pm_chunk_pack(data, u->raw_bytes, &u->packed);
    u->has_chunk = true;
    return 0;
}

static int rewind_upload(pagemill *pm, struct upload *u, struct pm_error *err)
{
    if (u->source->fd >= 0 && u->sent && lseek(u->source->fd, u->start, SEEK_SET) < 0)
        return pm_fail_errno(err, "cannot read the document again after a lost connection");
    u->id = pm_client_ref(pm);
    u->sent = u->stored = 0;
    u->is_all_sent = u->has_chunk = false;
    u->first_ref = u->id;
    return 0;
}

/* Sends as much as the window allows. 0, PM_EAGAIN (the socket is full or lost), or an error. */
static int send_window(pagemill *pm, struct upload *u, struct pm_error *err)
{
    while (!u->is_all_sent && u->sent - u->stored < (uint64_t)WINDOW * PM_CHUNK_BYTES) {
        int rc = u->has_chunk ? 0 : next_chunk(u, err);
        if (rc)
            return rc;
        struct pm_msg_blob_put put = {.ref = pm->last_ref + 1,
                                      .upload = u->id,
                                      .offset = u->sent,
                                      .is_last = u->is_last,
                                      .raw_bytes = (uint32_t)u->raw_bytes};
        rc = pm_client_send(pm, PM_MSG_BLOB_PUT, &put, u->packed.data, u->packed.size, err);
        if (rc)
            return rc;
        pm->want_high = pm_client_ref(pm);
        u->sent += u->raw_bytes;
        u->has_chunk = false;
        u->is_all_sent = u->is_last;
    }
    return 0;
}

/* Looks at one confirmation. 1: the upload is complete. */
static int take_stored(pagemill *pm, struct upload *u, char key_out[PM_BLOB_KEY_SIZE], struct pm_error *err)
{
    const struct pm_message *m = &pm->answer.message;
    int rc = 0;
    if (m->header.type == PM_MSG_REFUSE) {
        rc = pm_client_refusal(m->record, err);
    } else if (m->header.type != PM_MSG_BLOB_STORED) {
        rc = pm_fail(err, PM_EPROTO, "the fleet answered an upload with message type %u", m->header.type);
    } else {
        const struct pm_msg_blob_stored *stored = m->record;
        if (stored->upload == u->id && stored->offset <= u->sent && stored->offset > u->stored)
            u->stored = stored->offset;
        if (stored->upload == u->id && u->is_all_sent && *stored->blob) {
            if (!pm_blob_is_key(stored->blob))
                rc = pm_fail(err, PM_EPROTO, "the fleet gave a malformed blob key");
            else
                memcpy(key_out, stored->blob, PM_BLOB_KEY_SIZE);
            rc = rc ? rc : 1;
        }
    }
    pm_answer_free(&pm->answer);
    return rc;
}

static int run_upload(pagemill *pm, struct upload *u, int64_t deadline_us, char key_out[PM_BLOB_KEY_SIZE],
                      struct pm_error *err)
{
    uint64_t connection = 0; /* of this attempt */
    int rc;
    for (;;) {
        if ((rc = pm_client_wait_ready(pm, deadline_us, err)))
            return rc;
        if (pm->connection != connection) {
            if ((rc = rewind_upload(pm, u, err)))
                return rc;
            connection = pm->connection;
            pm->want_low = u->first_ref;
            pm->want_high = u->first_ref;
        }
        rc = send_window(pm, u, err);
        bool is_full = rc == PM_EAGAIN;
        if (rc && !is_full)
            return rc;
        if ((rc = pm_client_pump(pm, err)))
            return rc;
        if (pm->answer.is_there) {
            if ((rc = take_stored(pm, u, key_out, err)))
                return rc < 0 ? rc : 0;
            continue;
        }
        if ((rc = pm_client_wait_io(pm, deadline_us, is_full, err)))
            return rc;
    }
}

/* What cannot be read twice, from its place on, in a nameless file: an upload begins anew when the connection
 * is lost. */
static int spool(int fd, int *out, struct pm_error *err)
{
    const char *dir = getenv("TMPDIR");
    uint8_t bytes[65536];
    uint64_t total = 0;
    int rc = 0, file = open(dir && *dir ? dir : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
        file = memfd_create("document", MFD_CLOEXEC);
    if (file < 0)
        return pm_fail_errno(err, "cannot make room for the document");
    for (ssize_t n = 1; n && !rc;) {
        n = read(fd, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR)
            continue;
        total += n > 0 ? (uint64_t)n : 0;
        if (n < 0)
            rc = pm_fail_errno(err, "cannot read the document");
        else if (total > SOURCE_LIMIT)
            rc = pm_fail(err, PM_ELIMIT, "the document is larger than %llu bytes",
                         (unsigned long long)SOURCE_LIMIT);
        else
            rc = pm_fs_write_all(file, bytes, (size_t)n, err);
    }
    if (!rc && lseek(file, 0, SEEK_SET))
        rc = pm_fail_errno(err, "cannot read the document again");
    if (rc)
        close(file);
    else
        *out = file;
    return rc;
}

static int upload(pagemill *pm, const struct pm_client_source *source, int64_t deadline_us,
                  char key_out[PM_BLOB_KEY_SIZE], uint64_t *bytes_out, struct pm_error *err)
{
    struct upload *u = calloc(1, sizeof *u);
    if (!u)
        return pm_fail(err, PM_ENOMEM, "no memory for an upload");
    struct pm_client_source copy = *source;
    int spooled = -1, rc = 0;
    u->source = &copy;
    u->start = source->fd >= 0 ? lseek(source->fd, 0, SEEK_CUR) : 0;
    if (u->start < 0 && !(rc = spool(source->fd, &spooled, err))) {
        copy.fd = spooled;
        u->start = 0;
    }
    pm_answer_free(&pm->answer);
    if (!rc)
        rc = run_upload(pm, u, deadline_us, key_out, err);
    if (spooled >= 0)
        close(spooled);
    pm->want_low = pm->want_high = 0;
    pm_answer_free(&pm->answer);
    *bytes_out = u->sent;
    pm_buf_free(&u->packed);
    free(u);
    return rc;
}

int pm_client_store(pagemill *pm, const struct pm_client_source *source, bool direct, int64_t deadline_us,
                    char key_out[PM_BLOB_KEY_SIZE], uint64_t *bytes_out, struct pm_error *err)
{
    int rc = pm_client_wait_ready(pm, deadline_us, err);
    if (rc)
        return rc;
    if (!direct || !pm->blobs)
        return upload(pm, source, deadline_us, key_out, bytes_out, err);
    *bytes_out = source->bytes;
    if (source->fd >= 0)
        return pm_blob_put_fd(pm->blobs, PM_BLOB_DISK, source->fd, SOURCE_LIMIT, key_out, bytes_out, err);
    return pm_blob_put(pm->blobs, PM_BLOB_DISK, source->data, source->bytes, key_out, err);
}

/* ---- loading ---- */

struct download {
    uint8_t *data; /* NULL until the first answer tells the size */
    uint64_t bytes, total;
    uint64_t asked; /* bytes that were asked for */
    bool was_asked; /* the first part was */
};

static int take_data(const struct pm_message *m, struct download *d, struct pm_error *err)
{
    const struct pm_msg_blob_data *part = m->record;
    if (!d->data) {
        if (part->total > BLOB_LIMIT || part->total >= SIZE_MAX)
            return pm_fail(err, PM_ELIMIT, "a result of %llu bytes is larger than the limit",
                           (unsigned long long)part->total);
        d->total = part->total;
        d->data = malloc((size_t)d->total + 1);
        if (!d->data)
            return pm_fail(err, PM_ENOMEM, "no memory for a result of %llu bytes",
                           (unsigned long long)d->total);
    }
    bool is_progress = part->raw_bytes > 0 || d->total == 0;
    if (part->total != d->total || part->offset != d->bytes || part->raw_bytes > d->total - d->bytes ||
        part->raw_bytes > PM_CHUNK_BYTES || !is_progress)
        return pm_fail(err, PM_EPROTO, "the fleet sent a part of a result that does not fit");
    int rc = pm_chunk_unpack(m->payload, part->raw_bytes, d->data + d->bytes, err);
    if (rc)
        return rc;
    d->bytes += part->raw_bytes;
    return 0;
}

static int check_key(const char *key, const struct download *d, struct pm_error *err)
{
    uint8_t hash[PM_HASH_BYTES];
    char hex[PM_HASH_HEX + 1];
    pm_hash(d->data, (size_t)d->bytes, hash);
    pm_hash_hex(hash, hex);
    if (strcmp(hex, key + 1) != 0)
        return pm_fail(err, PM_EFORMAT, "a result arrived with other bytes than its checksum says");
    return 0;
}

/* Asks for as many parts as the window allows. 0, PM_EAGAIN (the socket is full or lost), or an error. */
static int ask_window(pagemill *pm, const char *key, struct download *d, struct pm_error *err)
{
    while (d->data ? d->asked < d->total && d->asked - d->bytes < (uint64_t)WINDOW * PM_CHUNK_BYTES
                   : !d->was_asked) {
        struct pm_msg_blob_get get = {.ref = pm->last_ref + 1, .blob = key, .offset = d->asked};
        int rc = pm_client_send(pm, PM_MSG_BLOB_GET, &get, NULL, 0, err);
        if (rc)
            return rc;
        pm->want_high = pm_client_ref(pm);
        d->was_asked = true;
        if (d->data)
            d->asked += d->total - d->asked < PM_CHUNK_BYTES ? d->total - d->asked : PM_CHUNK_BYTES;
    }
    return 0;
}

/* From here on only answers to what is asked next are of interest. */
static void ask_anew(pagemill *pm, struct download *d)
{
    d->asked = d->bytes;
    d->was_asked = d->data != NULL;
    pm->want_low = pm->last_ref + 1;
    pm->want_high = pm->last_ref;
}

static int take_part(pagemill *pm, struct download *d, struct pm_error *err)
{
    const struct pm_message *m = &pm->answer.message;
    int rc =
        m->header.type == PM_MSG_REFUSE ? pm_client_refusal(m->record, err)
        : m->header.type == PM_MSG_BLOB_DATA
            ? take_data(m, d, err)
            : pm_fail(err, PM_EPROTO, "the fleet answered a download with message type %u", m->header.type);
    pm_answer_free(&pm->answer);
    /* The first part, or one shorter than we expected: what was asked for behind it does not fit. */
    if (!rc && (d->asked < d->bytes || (d->bytes < d->total && d->bytes % PM_CHUNK_BYTES)))
        ask_anew(pm, d);
    return rc;
}

static int run_download(pagemill *pm, const char *key, int64_t deadline_us, struct download *d,
                        struct pm_error *err)
{
    uint64_t connection = 0; /* of this attempt */
    int rc;
    do {
        if ((rc = pm_client_wait_ready(pm, deadline_us, err)))
            return rc;
        if (pm->connection != connection) {
            ask_anew(pm, d);
            connection = pm->connection;
        }
        rc = ask_window(pm, key, d, err);
        bool is_full = rc == PM_EAGAIN;
        if (rc && !is_full)
            return rc;
        if ((rc = pm_client_pump(pm, err)))
            return rc;
        if (pm->answer.is_there)
            rc = take_part(pm, d, err);
        else
            rc = pm_client_wait_io(pm, deadline_us, is_full, err);
        if (rc)
            return rc;
    } while (!d->data || d->bytes < d->total);
    return 0;
}

static int download(pagemill *pm, const char *key, int64_t deadline_us, struct download *d,
                    struct pm_error *err)
{
    pm_answer_free(&pm->answer);
    int rc = run_download(pm, key, deadline_us, d, err);
    pm->want_low = pm->want_high = 0;
    pm_answer_free(&pm->answer);
    return rc ? rc : check_key(key, d, err);
}

int pm_client_load(pagemill *pm, const char *key, int64_t deadline_us, void **data_out, size_t *bytes_out,
                   struct pm_error *err)
{
    *data_out = NULL;
    *bytes_out = 0;
    if (!pm_blob_is_key(key))
        return pm_fail(err, PM_EINVAL, "\"%.80s\" is not a blob key", key);
    int rc = pm_client_wait_ready(pm, deadline_us, err);
    if (rc)
        return rc;
    struct pm_blob_map map;
    if (pm->blobs && !pm_blob_map(pm->blobs, key, &map, NULL)) {
        uint8_t *copy = malloc(map.bytes + 1);
        if (copy && map.bytes)
            memcpy(copy, map.data, map.bytes);
        size_t bytes = map.bytes;
        pm_blob_unmap(&map);
        if (!copy)
            return pm_fail(err, PM_ENOMEM, "no memory for a result of %zu bytes", bytes);
        copy[bytes] = 0;
        *data_out = copy;
        *bytes_out = bytes;
        return 0;
    }
    struct download d = {0};
    rc = download(pm, key, deadline_us, &d, err);
    if (rc) {
        free(d.data);
        return rc;
    }
    d.data[d.bytes] = 0;
    *data_out = d.data;
    *bytes_out = (size_t)d.bytes;
    return 0;
}

int pagemill_blob_read(pagemill *pm, const char *key, int64_t timeout_ms, void **data_out, size_t *bytes_out,
                       struct pagemill_error *err)
{
    return pm_client_load(pm, key, pm_client_deadline(timeout_ms), data_out, bytes_out, pm_client_error(err));
}

void pagemill_free(void *data)
{
    free(data);
}
