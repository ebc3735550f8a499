/* `pagemill doctor`: looks at the machine, the folders, the models and the running fleet, and says what to
 * change. One file a subject; each check adds one line: what was looked at, how it is, and the command that
 * mends it. Nothing is changed: what must be tried (a write, a sync) is done in a file of its own that goes.
 *
 * Threads: one owner. Ownership: a report owns its texts. Errors: none; what cannot be found out is a
 * warning.
 */
#ifndef PM_CLIENT_CLI_DOCTOR_H
#define PM_CLIENT_CLI_DOCTOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "client/cli/cli.h"
#include "client/cli/up_config.h"

enum pm_doctor_level { PM_DOCTOR_OK, PM_DOCTOR_WARN, PM_DOCTOR_FAIL }; /* also the exit codes */

struct pm_doctor_line {
    const char *subject; /* static: "limits", "state", ... */
    enum pm_doctor_level level;
    char *text, *fix; /* fix: NULL or what to do */
};
struct pm_doctor {
    /* what to look at */
    char *state, *run, *models; /* models: NULL when none could be found */
    const struct pm_up_config *up;
    const struct pm_cli_fleet *where;
    bool is_full; /* checksums of the weights */
    /* what came out */
    struct pm_doctor_line *lines;
    size_t count, capacity;
};

/* fix: NULL, or a text; it may be used up when level is OK. */
void pm_doctor_add(struct pm_doctor *d, const char *subject, enum pm_doctor_level level, const char *fix,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));
enum pm_doctor_level pm_doctor_worst(const struct pm_doctor *d);
void pm_doctor_show(const struct pm_doctor *d, int width, bool is_colored, FILE *out);
json_t *pm_doctor_json(const struct pm_doctor *d);
void pm_doctor_free(struct pm_doctor *d);

/* ---- doctor_host.c ---- */
void pm_doctor_limits(struct pm_doctor *d);
void pm_doctor_machine(struct pm_doctor *d); /* processor, memory, clock, libraries, sandbox, systemd */
/* ---- doctor_folders.c ---- */
void pm_doctor_folders(struct pm_doctor *d);
/* ---- doctor_models.c ---- */
void pm_doctor_models(struct pm_doctor *d);
/* ---- doctor_fleet.c ---- */
void pm_doctor_fleet(struct pm_doctor *d);
/* What is wrong with a fleet that answers; pure. */
void pm_doctor_judge(struct pm_doctor *d, const struct pagemill_stats *stats);

#endif
