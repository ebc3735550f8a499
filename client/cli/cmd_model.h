/* The verbs of `pagemill model`: each prints what it finds, complains itself and returns an exit code. */
#ifndef PM_CLIENT_CLI_CMD_MODEL_H
#define PM_CLIENT_CLI_CMD_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct pm_model_settings {
    const char *out, *models, *name, *precision, *crop;
    bool replaces, is_json;
    uint32_t threads;
};

/* cmd_model_add.c */
int pm_cli_model_add(const struct pm_model_settings *s, const char *source);
int pm_cli_model_pack(const struct pm_model_settings *s, const char *source);
int pm_cli_model_remove(const struct pm_model_settings *s, const char *name);

/* cmd_model_show.c */
int pm_cli_model_list(const struct pm_model_settings *s);
int pm_cli_model_show(const struct pm_model_settings *s, const char *name);
/* what: a model's name, a folder, a file; NULL: all models. */
int pm_cli_model_verify(const struct pm_model_settings *s, const char *what);

/* cmd_model_bench.c */
int pm_cli_model_bench(const struct pm_model_settings *s, const char *name);

#endif
