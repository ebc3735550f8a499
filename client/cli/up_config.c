#include "client/cli/up_config.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/config.h"

struct pm_up_file {
    char *state, *run, *pixels, *models, *reader, *log_level, *metrics, *listen, *join, *server_key, *key,
        *kv;
    int64_t workers, layouts, threads, credit, keep_results_us, drain_us;
    int64_t max_jobs, remember_us;
    uint64_t min_free_bytes, max_store_bytes, remember_bytes;
    uint64_t pixel_budget_bytes, kv_memory_bytes, memory_bytes;
};

#define AT(member) offsetof(struct pm_up_file, member)
static const char *const levels[] = {"debug", "info", "warning", "error", NULL};
static const char *const kv_kinds[] = {"bf16", "int8", NULL};
static const struct pm_setting settings[] = {
    {"state", PM_SETTING_TEXT, AT(state), NULL, 0, 0, NULL,
     "folder of journal, sources and results; empty: the user's"},
    {"run", PM_SETTING_TEXT, AT(run), NULL, 0, 0, NULL, "folder of the sockets; empty: the user's"},
    {"pixels", PM_SETTING_TEXT, AT(pixels), NULL, 0, 0, NULL,
     "folder of page pictures, in memory; empty: in /dev/shm"},
    {"pixel_budget", PM_SETTING_BYTES, AT(pixel_budget_bytes), NULL, 0, 1e16, NULL,
     "most memory for page pictures; 0: half of what is free there"},
    {"keep_results", PM_SETTING_DURATION, AT(keep_results_us), NULL, 0, 1e9, NULL,
     "how long results are kept; 0: the broker's default"},
    {"models", PM_SETTING_TEXT, AT(models), NULL, 0, 0, NULL,
     "folders of models, separated by ':'; empty: those of model add and the installed ones"},
    {"reader", PM_SETTING_TEXT, AT(reader), NULL, 0, 0, NULL,
     "models that the workers run, as in fast:6,glm-ocr:1; empty: fast"},
    {"workers", PM_SETTING_INT, AT(workers), NULL, 0, 1024, NULL,
     "worker processes of each reader; 0: one a core, for readers of blocks one in all"},
    {"layouts", PM_SETTING_INT, AT(layouts), NULL, 0, 1024, NULL,
     "processes that open documents and find lines; 0: half the workers"},
    {"threads", PM_SETTING_INT, AT(threads), NULL, 0, 1024, NULL,
     "compute threads of a worker; 0: 1, for readers of blocks one for each core of their group"},
    {"credit", PM_SETTING_INT, AT(credit), NULL, 0, 4096, NULL,
     "regions a worker holds at once; 0: its default"},
    {"kv_memory", PM_SETTING_BYTES, AT(kv_memory_bytes), NULL, 0, 1e13, NULL,
     "most memory of a worker for texts being written, by readers that write token by token; 0: its default"},
    {"kv", PM_SETTING_CHOICE, AT(kv), "bf16", 0, 0, kv_kinds,
     "how these texts are kept; int8 takes half the room and moves results a little"},
    {"memory", PM_SETTING_BYTES, AT(memory_bytes), NULL, 0, 1e13, NULL,
     "most memory of such a worker beyond the mapped weights; what does not fit waits; 0: no limit"},
    {"listen", PM_SETTING_TEXT, AT(listen), NULL, 0, 0, NULL,
     "where clients and workers of other hosts are served: tcp://HOST:PORT,...; empty: nowhere"},
    {"max_jobs", PM_SETTING_INT, AT(max_jobs), NULL, 0, 10000000, NULL,
     "unfinished jobs at most; 0: the broker's default"},
    {"min_free", PM_SETTING_BYTES, AT(min_free_bytes), NULL, 0, 1e13, NULL,
     "free disk space below which no jobs are accepted; 0: the broker's default"},
    {"max_store", PM_SETTING_BYTES, AT(max_store_bytes), NULL, 0, 4e15, NULL,
     "most disk for sources and results, beyond it no jobs are accepted; 0: the broker's default"},
    {"remember", PM_SETTING_DURATION, AT(remember_us), NULL, 0, 1e9, NULL,
     "how long a page that was read stands for an equal one; 0: the broker's default"},
    {"remember_space", PM_SETTING_BYTES, AT(remember_bytes), NULL, 0, 1e13, NULL,
     "most disk for such pages; 0: the broker's default"},
    {"join", PM_SETTING_TEXT, AT(join), NULL, 0, 0, NULL,
     "run workers only, for the broker at tcp://HOST:PORT; empty: a whole fleet"},
    {"server_key", PM_SETTING_TEXT, AT(server_key), NULL, 0, 0, NULL,
     "join: the broker's public key, or a file that holds it"},
    {"key_file", PM_SETTING_TEXT, AT(key), NULL, 0, 0, NULL, "join: the key file of this host's workers"},
    {"drain", PM_SETTING_DURATION, AT(drain_us), NULL, 0, 1e6, NULL,
     "how long a stop waits for pages in hand; 0: 60 seconds"},
    {"metrics", PM_SETTING_TEXT, AT(metrics), NULL, 0, 0, NULL,
     "where metrics are served: PORT of 127.0.0.1, HOST:PORT or the path of a socket; empty: nowhere"},
    {"log_level", PM_SETTING_CHOICE, AT(log_level), "info", 0, 0, levels, "least severity that is logged"},
};
static const struct pm_config_table table = {settings, sizeof settings / sizeof *settings};

static void fill_text(const char **have, const char *text)
{
    if (!*have && text && *text)
        *have = text;
}

static void fill_number(uint32_t *have, uint64_t value)
{
    if (!*have)
        *have = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

/* Rounded up, so that a small duration does not become "not given". */
static uint64_t seconds(int64_t us)
{
    return us > 0 ? ((uint64_t)us + 999999) / 1000000 : 0;
}

int pm_up_config_read(const char *path, struct pm_up_config *config, struct pm_up_file **file_out,
                      struct pm_error *err)
{
    struct pm_up_file *f = pm_xalloc(sizeof *f);
    int rc = pm_config_defaults(&table, f, err);
    if (!rc)
        rc = pm_config_read(&table, path, f, err);
    if (rc) {
        pm_up_file_free(&f);
        *file_out = NULL;
        return rc;
    }
    fill_text(&config->state, f->state);
    fill_text(&config->run, f->run);
    fill_text(&config->pixels, f->pixels);
    fill_text(&config->models, f->models);
    fill_text(&config->reader, f->reader);
    fill_text(&config->log_level, f->log_level);
    fill_text(&config->metrics, f->metrics);
    fill_text(&config->listen, f->listen);
    fill_text(&config->join, f->join);
    fill_text(&config->server_key, f->server_key);
    fill_text(&config->key, f->key);
    fill_text(&config->kv, f->kv);
    fill_number(&config->max_jobs, (uint64_t)f->max_jobs);
    fill_number(&config->min_free_mb, (f->min_free_bytes + (1u << 20) - 1) >> 20);
    fill_number(&config->max_store_mb, (f->max_store_bytes + (1u << 20) - 1) >> 20);
    fill_number(&config->remember_s, seconds(f->remember_us));
    fill_number(&config->remember_mb, (f->remember_bytes + (1u << 20) - 1) >> 20);
    fill_number(&config->pixel_budget_mb, (f->pixel_budget_bytes + (1u << 20) - 1) >> 20);
    fill_number(&config->kv_memory_mb, (f->kv_memory_bytes + (1u << 20) - 1) >> 20);
    fill_number(&config->memory_mb, (f->memory_bytes + (1u << 20) - 1) >> 20);
    fill_number(&config->result_ttl_s, seconds(f->keep_results_us));
    fill_number(&config->drain_s, seconds(f->drain_us));
    fill_number(&config->workers, (uint64_t)f->workers);
    fill_number(&config->layouts, (uint64_t)f->layouts);
    fill_number(&config->threads, (uint64_t)f->threads);
    fill_number(&config->credit, (uint64_t)f->credit);
    *file_out = f;
    return 0;
}

void pm_up_file_free(struct pm_up_file **file)
{
    if (*file)
        pm_config_free(&table, *file);
    free(*file);
    *file = NULL;
}

void pm_up_config_example(struct pm_buf *out)
{
    pm_config_example(&table, out);
}
