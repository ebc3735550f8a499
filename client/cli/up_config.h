/* The settings of `pagemill up`, from its options and a YAML file:
 *
 *     state: /var/lib/pagemill
 *     run: /run/pagemill
 *     workers: 8
 *     reader: fast
 *     keep_results: 7d
 *
 * Threads: reentrant. Errors: PM_EINVAL with file, line and key. */
#ifndef PM_CLIENT_CLI_UP_CONFIG_H
#define PM_CLIENT_CLI_UP_CONFIG_H

#include <stdint.h>

#include "base/error.h"
#include "base/mem.h"

struct pm_up_config { /* NULL and 0: not given */
    const char *state, *run, *pixels, *models, *reader, *log_level, *metrics;
    const char *listen, *join, *server_key, *key, *kv;
    uint32_t max_jobs, min_free_mb, max_store_mb, remember_s, remember_mb;
    uint32_t pixel_budget_mb, result_ttl_s, workers, layouts, threads, credit, drain_s, kv_memory_mb,
        memory_mb;
};

struct pm_up_file; /* owns the texts that a config got from its file */
/* Fills what is not given yet. *file_out lives as long as the config is used. */
int pm_up_config_read(const char *path, struct pm_up_config *config, struct pm_up_file **file_out,
                      struct pm_error *err);
void pm_up_file_free(struct pm_up_file **file);
void pm_up_config_example(struct pm_buf *out); /* a commented file of all defaults */

#endif
