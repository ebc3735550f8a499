/* What to read: files, folders (walked), lists and stdin become a list of inputs in a fixed order.
 *
 * A folder's files come sorted bytewise by their path below it; hidden ones (".git") and the output folder
 * are left out, links to files are followed, links to folders are not. Only documents are taken, told by
 * their first bytes. In very large folders those are looked at later, by pm_intake_is_document, so that
 * reading can begin. A name given by itself is always an input, and fails as one when it is no document.
 * Ownership: the intake owns all strings. Threads: one owner. */
#ifndef PM_CLIENT_CLI_INTAKE_H
#define PM_CLIENT_CLI_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct pm_input {
    char *path;     /* NULL: stdin */
    char *folder;   /* where it stood below the walked folder, "" at its top; no slash at the ends */
    char *error;    /* NULL, or why this cannot be read at all ("no documents in this folder") */
    uint32_t root;  /* index into roots */
    bool must_look; /* from a folder, and its bytes were not looked at yet */
};
struct pm_intake_root {
    char *path;
    uint64_t documents;
};
struct pm_intake { /* zero-initialise */
    struct pm_input *items;
    size_t count, capacity;
    struct pm_intake_root *roots;
    size_t root_count, root_capacity;
    size_t looked;
    dev_t skip_device; /* the output folder */
    ino_t skip_inode;
    bool has_skip, has_stdin;
};

/* The output folder, left out of walks when it exists. */
void pm_intake_skip(struct pm_intake *intake, const char *dir);
/* A file, a folder or "-". Errors are only of our own making (two times stdin). */
int pm_intake_add(struct pm_intake *intake, const char *path, struct pm_error *err);
/* One path a line; "-": from stdin. Empty lines are left out. */
int pm_intake_add_list(struct pm_intake *intake, const char *list_path, struct pm_error *err);
/* Do the first bytes look like a document? A file that cannot be opened is judged by its name, so that it
 * fails with its own error. */
bool pm_intake_is_document(const char *path);
void pm_intake_free(struct pm_intake *intake);

/* ---- names of results ---- */

struct pm_names; /* folders given out in this run */
struct pm_names *pm_names_new(void);
void pm_names_free(struct pm_names **names);
/* The stem of an input ("scan" of "a/scan.pdf", "stdin"): a clean file name in UTF-8; a second one in the
 * same folder gets "-2", a third "-3". Caller frees. */
char *pm_names_claim(struct pm_names *names, const char *folder, const char *path);
void pm_names_release(struct pm_names *names, const char *folder, const char *stem); /* not used after all */

#endif
