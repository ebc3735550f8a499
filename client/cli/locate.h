/* Where things are: sibling programs, models, runtime and state folders. All results are the caller's to
 * free. Threads: reentrant (getenv). */
#ifndef PM_CLIENT_CLI_LOCATE_H
#define PM_CLIENT_CLI_LOCATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* The file of a program of ours: beside the running one, else in the installed libexec or bin folder. */
int pm_locate_program(const char *name, char **out, struct pm_error *err);
/* The running program's own file. */
char *pm_locate_self(void);
/* The folders of models as a search path, "FIRST:SECOND" (engine/manifest.h): those given, all of which must
 * be there; else the user's, /var/lib/pagemill/models and the installed ones, as far as they are there. */
int pm_locate_models(const char *given, char **out, struct pm_error *err);
/* Where `model add` puts models: the first folder of $PAGEMILL_MODELS, else $XDG_DATA_HOME/pagemill/models,
 * else /var/lib/pagemill/models for root and ~/.local/share/pagemill/models for others. It may not exist yet.
 */
char *pm_locate_user_models(void);
/* The folders of the models that came with the program, a search path: ../share/pagemill/models of it; in a
 * build tree models/ beside it and models/ of the source tree. NULL when there are none. */
char *pm_locate_installed_models(void);

char *pm_locate_temporary(void); /* $TMPDIR or /tmp */
/* `up`: $XDG_RUNTIME_DIR/pagemill, /run/pagemill for root, else TMPDIR/pagemill-UID. */
char *pm_locate_run_dir(void);
/* `up`: $XDG_STATE_HOME/pagemill or ~/.local/state/pagemill; /var/lib/pagemill for root. */
char *pm_locate_state_dir(void);

/* A folder of files mapped in memory: the first of /dev/shm, $XDG_RUNTIME_DIR and TMPDIR that can be written
 * and has at least need_bytes free (the last one in any case). free_bytes_out: what it has. */
char *pm_locate_memory(uint64_t need_bytes, uint64_t *free_bytes_out);

/* Does a process listen on the socket of this ipc endpoint or path? True for every other endpoint. */
bool pm_locate_is_alive(const char *endpoint);

#endif
