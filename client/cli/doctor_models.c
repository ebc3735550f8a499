/* doctor: the installed models, the readers that the fleet is to run, and whether memory is enough for them.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/doctor.h"
#include "client/cli/locate.h"
#include "client/cli/memory.h"
#include "client/cli/readers.h"
#include "client/cli/show.h"
#include "engine/manifest.h"
#include "engine/pack.h"

#define LINE_WORKER_BYTES ((uint64_t)250 << 20) /* scratch of a worker that reads lines, and a layoutd */
#define KV_DEFAULT_MB     2048u

static bool is_packed(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && !strcmp(name + n - 4, ".pmw");
}

static int check_weights(const char *path, bool is_full, struct pm_error *err)
{
    struct pm_pack *pack = NULL;
    if (is_full)
        return pm_pack_verify(path, err);
    int rc = pm_pack_open(path, &pack, err);
    pm_pack_free(&pack);
    return rc;
}

/* The packed files of a model folder; their sizes are added up. */
static int check_files(const struct pm_doctor *d, const char *dir, uint64_t *bytes_out, struct pm_error *err)
{
    struct dirent **entries = NULL;
    int rc = 0, n = scandir(dir, &entries, NULL, alphasort);
    *bytes_out = 0;
    for (int i = 0; i < n; i++) {
        struct stat st;
        char *path = pm_fs_join(dir, entries[i]->d_name);
        if (!rc && is_packed(entries[i]->d_name)) {
            rc = check_weights(path, d->is_full, err);
            *bytes_out += stat(path, &st) ? 0 : (uint64_t)st.st_size;
        }
        free(path);
        free(entries[i]);
    }
    free(entries);
    return rc;
}

static void check_model(struct pm_doctor *d, const char *dir)
{
    struct pm_error err;
    struct pm_model_manifest m = {0};
    uint64_t bytes = 0;
    char text[24];
    int rc = pm_model_manifest_read(dir, &m, &err);
    if (!rc)
        rc = check_files(d, dir, &bytes, &err);
    pm_show_bytes(bytes, text, sizeof text);
    if (rc)
        pm_doctor_add(d, "models", PM_DOCTOR_FAIL,
                      "fetch it again and `pagemill model add PATH --name NAME`, or remove its folder", "%s",
                      err.text);
    else
        pm_doctor_add(d, "models", PM_DOCTOR_OK, NULL, "%s: %s, %s%s", m.name, dir, text,
                      d->is_full ? ", checksums are right" : "");
    pm_model_manifest_free(&m);
}

static uint64_t model_bytes(const char *models, const char *name)
{
    struct pm_model_manifest m = {0};
    struct dirent **entries = NULL;
    uint64_t bytes = 0;
    if (pm_model_find(models, name, &m, NULL))
        return 0;
    int n = scandir(m.dir, &entries, NULL, NULL);
    for (int i = 0; i < n; i++) {
        struct stat st;
        char *path = pm_fs_join(m.dir, entries[i]->d_name);
        if (is_packed(entries[i]->d_name) && !stat(path, &st))
            bytes += (uint64_t)st.st_size;
        free(path);
        free(entries[i]);
    }
    free(entries);
    pm_model_manifest_free(&m);
    return bytes;
}

static bool is_block_reader(const char *models, const char *name)
{
    struct pm_model_manifest m = {0};
    bool is = !pm_model_find(models, name, &m, NULL) && m.region_kind == PM_REGION_BLOCK;
    pm_model_manifest_free(&m);
    return is;
}

static void check_memory(struct pm_doctor *d, const struct pm_readers *readers)
{
    uint64_t need = 0, have = pm_memory_available(),
             kv_mb = d->up->kv_memory_mb ? d->up->kv_memory_mb : KV_DEFAULT_MB;
    char need_text[24], have_text[24];
    uint32_t processes = pm_readers_layouts(readers->items, readers->count);
    for (uint32_t i = 0; i < readers->count; i++) {
        const struct pm_fleet_reader *r = &readers->items[i];
        need += model_bytes(d->models, r->name); /* one copy for all of them */
        if (is_block_reader(d->models, r->name))
            need += r->workers * (kv_mb << 20);
        processes += r->workers;
    }
    need += processes * LINE_WORKER_BYTES;
    pm_show_bytes(need, need_text, sizeof need_text);
    pm_show_bytes(have, have_text, sizeof have_text);
    if (!have)
        pm_doctor_add(d, "memory", PM_DOCTOR_WARN, NULL, "cannot tell how much is free");
    else
        pm_doctor_add(d, "memory", have < need ? PM_DOCTOR_WARN : PM_DOCTOR_OK,
                      "fewer workers (`pagemill up --workers N`), less for texts being written (--kv-memory "
                      "MB), or more memory",
                      "%s free, a fleet of these readers may take %s", have_text, need_text);
}

void pm_doctor_models(struct pm_doctor *d)
{
    struct pm_error err;
    struct pm_readers readers = {0};
    struct pm_model_manifest layout = {0};
    char **dirs = NULL;
    size_t count = 0;
    static const char fix[] =
        "`pagemill model list` shows what is there; `pagemill model add PATH --name NAME` installs one; "
        "--models or PAGEMILL_MODELS names other folders";
    if (!d->models && pm_locate_models(d->up->models, &d->models, &err)) {
        pm_doctor_add(d, "models", PM_DOCTOR_FAIL, fix, "%s", err.text);
        return;
    }
    if (pm_model_list(d->models, &dirs, &count, &err) || !count)
        pm_doctor_add(d, "models", PM_DOCTOR_FAIL, fix, "%s", count ? err.text : "there are none");
    for (size_t i = 0; i < count; i++) {
        check_model(d, dirs[i]);
        free(dirs[i]);
    }
    free(dirs);
    if (pm_model_find_family(d->models, "ppocr", &layout, &err))
        pm_doctor_add(d, "models", PM_DOCTOR_FAIL, fix,
                      "finding lines and blocks needs the line reader's networks: %s", err.text);
    pm_model_manifest_free(&layout);
    if (pm_readers_parse(d->up->reader ? d->up->reader : "fast", d->models, d->up->workers, d->up->threads,
                         &readers, &err))
        pm_doctor_add(d, "models", PM_DOCTOR_FAIL, fix, "%s", err.text);
    else
        check_memory(d, &readers);
    pm_readers_free(&readers);
}
