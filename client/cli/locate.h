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
/* given, else $PAGEMILL_MODELS, else ../share/pagemill/models of the program, else models/ of the source
 * tree. */
int pm_locate_models(const char *given, char **out, struct pm_error *err);

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
