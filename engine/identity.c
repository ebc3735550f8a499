#include "engine/identity.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/json.h"
#include "engine/pack.h"

#define SIDE_FILE_LIMIT_BYTES ((size_t)256 << 20)

/* With its length, so that what ends where is part of the hash. */
static void add(struct pm_hasher *h, const void *data, size_t bytes)
{
    uint64_t length = bytes;
    pm_hasher_add(h, &length, sizeof length);
    pm_hasher_add(h, data, bytes);
}

static int add_packed(struct pm_hasher *h, const char *path, bool *is_packed_out, struct pm_error *err)
{
    uint8_t head[PM_PACK_HEADER_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno(err, "cannot open %s", path);
    ssize_t n = read(fd, head, sizeof head);
    close(fd);
    if (n < 0)
        return pm_fail_errno(err, "cannot read %s", path);
    *is_packed_out = n == (ssize_t)sizeof head && !memcmp(head, PM_PACK_MAGIC, 8);
    if (*is_packed_out)
        add(h, head, sizeof head);
    return 0;
}

static int add_file(struct pm_hasher *h, const char *path, struct pm_error *err)
{
    bool is_packed = false;
    int rc = add_packed(h, path, &is_packed, err);
    if (rc || is_packed)
        return rc;
    struct pm_buf text = {0};
    rc = pm_fs_read(path, SIDE_FILE_LIMIT_BYTES, &text, err);
    if (!rc)
        add(h, text.data, text.size);
    pm_buf_free(&text);
    return rc;
}

int pm_model_identity(const struct pm_model_manifest *manifest, char out[PM_HASH_HEX + 1],
                      struct pm_error *err)
{
    struct pm_hasher h;
    uint8_t hash[PM_HASH_BYTES];
    json_t *root = NULL;
    const char *role;
    json_t *file;
    *out = 0;
    int rc = pm_json_object(manifest->dir, manifest->json, strlen(manifest->json), &root, err);
    if (rc)
        return rc;
    pm_hasher_start(&h);
    add(&h, PM_VERSION, strlen(PM_VERSION));
    add(&h, manifest->json, strlen(manifest->json));
    json_object_foreach(json_object_get(root, "files"), role, file)
    {
        char *path = NULL;
        rc = pm_model_file(manifest, role, &path, err);
        if (!rc)
            rc = add_file(&h, path, err);
        free(path);
        if (rc)
            break;
    }
    json_decref(root);
    pm_hasher_finish(&h, hash);
    if (!rc)
        pm_hash_hex(hash, out);
    return rc;
}
