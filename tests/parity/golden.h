/* Golden files and page pictures of a parity run; parity.h is what checks see of it.
 * Threads: one. Errors name the file. */
#ifndef PM_TESTS_PARITY_GOLDEN_H
#define PM_TESTS_PARITY_GOLDEN_H

#include "tests/parity/parity.h"

struct parity_page_entry {
    char *path;
    struct pm_image image;
};

struct parity_run {
    const char *pages_dir; /* --pages or NULL */
    const char *model_dir;
    void *state;                     /* of the kind */
    struct parity_page_entry *pages; /* pictures loaded so far */
    size_t page_count, page_capacity;
};
void parity_run_close(struct parity_run *run);

int parity_file_open(struct parity_run *run, const char *path, bool needs_tensors, struct parity_file **out,
                     struct pm_error *err);
/* The next case; PM_ENOTFOUND at the end; another error is about this line alone. */
int parity_file_next(struct parity_file *file, struct parity_case *out, struct pm_error *err);
void parity_file_close(struct parity_file **file);

/* Reads bytes of a PNG into 8-bit grey or B, G, R, without any gamma. */
int parity_read_png(const char *path, struct pm_image *out, struct pm_error *err);

#endif
