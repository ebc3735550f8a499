/* Damaged files of every format: the row that a format adds to the table in mutants.c. */
#ifndef PM_TESTS_UNIT_WEIGHTS_MUTANTS_H
#define PM_TESTS_UNIT_WEIGHTS_MUTANTS_H

#include "base/error.h"
#include "tests/unit/weights/build.h"

struct mutant_format {
    const char *name;
    void (*make)(struct files *files); /* a valid set of files */
    /* Reads everything of the files, which lie in folder, too. 0: accepted; an error of enum pm_err and its
     * text: refused. Anything else that happens (a crash, a sanitizer's report, an error without a text) is
     * what the mutants look for. */
    int (*try)(const char *folder, const struct files *files, struct pm_error *err);
};

/* mutants_json.c: one change that leaves JSON (a file's, or a safetensors header's) well-formed; false when b
 * holds none. */
bool mutate_json(struct pm_buf *b, uint64_t dice);

/* mutants_documents.c */
void documents_config(struct files *files);
int try_config(const char *folder, const struct files *files, struct pm_error *err);
void documents_tokenizer(struct files *files);
int try_tokenizer(const char *folder, const struct files *files, struct pm_error *err);
void documents_template(struct files *files);
int try_template(const char *folder, const struct files *files, struct pm_error *err);

#endif
