/* The parity program: golden cases of a reference, run through our code, a line a case.
 *
 * A kind (ppocr, ...) is a row of the table in main.c; a check is a row of its kind's table and owns one
 * golden file, NAME.jsonl with NAME.safetensors beside it when it needs tensors. A check reads one case,
 * computes, and reports one verdict; what cannot be read or computed is a failed case, never a skipped one.
 *
 * Ownership: a struct parity_case and everything in it lives until the check returns; pictures from
 * parity_page stay until the end of the file. Threads: one. Errors: a check fills err and returns its code
 * when the case could not be run at all; a difference above the tolerance is reported with parity_report. */
#ifndef PM_TESTS_PARITY_PARITY_H
#define PM_TESTS_PARITY_PARITY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/image.h"
#include "engine/safetensors.h"

struct parity_file; /* a golden file being run: opened tensors, pages, models */

struct parity_case {
    struct parity_file *file;
    const json_t *object;                 /* the case's line */
    const struct pm_safetensors *tensors; /* of the file; NULL when it has none */
    char name[64];                        /* the "case" number or the page: prefix of its tensors' names */
};

/* What a check found: the largest error over its limit decides. Zero-initialise. */
struct parity_verdict {
    double error, limit; /* of the worst quantity */
    char what[96];       /* its name, "map", "corners", ... */
    char note[200];      /* anything more to print */
    bool failed;
};

/* One quantity: fails when error > limit or is not a number; keeps the one with the largest error / limit. */
void parity_report(struct parity_verdict *v, const char *what, double error, double limit)
    __attribute__((nonnull));
/* A plain failure ("12 boxes instead of 13"). */
void parity_fail(struct parity_verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
void parity_note(struct parity_verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));

struct parity_check {
    const char *name; /* golden file without extension: "det_network" */
    bool needs_tensors;
    int (*run)(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err);
};

/* Passed and failed cases of a run. */
struct parity_counts {
    int passed, failed;
};
/* Prints one case's line and counts it: rc and err when it could not be run, else the verdict. */
void parity_print(struct parity_counts *counts, const char *check, const char *name, int rc,
                  const struct parity_verdict *v, const struct pm_error *err);

struct parity_kind {
    const char *name;
    /* Kinds whose cases are folders or JSON files of their own bring this: runs all cases of PATH, returns
     * how many it found there. NULL: golden files by the table of checks. */
    int (*run_path)(const char *path, struct parity_counts *counts);
    /* The same for kinds that --model means something to (NULL: not given). */
    int (*run_model_path)(const char *path, const char *model_dir, struct parity_counts *counts);
    const char
        *default_model; /* folder under the source tree or beside the program: "models/ppocr"; NULL: none */
    const struct parity_check *checks;
    size_t check_count;
    void (*close)(void *state); /* releases what parity_state holds; may be NULL */
};

/* Kinds, one file (or a few) each. */
extern const struct parity_kind parity_ppocr;
extern const struct parity_kind parity_engine;     /* engine.c */
extern const struct parity_kind parity_tokenizer;  /* tokenizer.c: with chat templates */
extern const struct parity_kind parity_preprocess; /* of the reader models: preprocess.c */

/* Network checks of ppocr (ppocr_network.c), rows of parity_ppocr's table. */
int parity_det_network(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err);
int parity_rec_network(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err);
int parity_cls_network(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err);

/* ---- for checks ---- */

/* Model folder of this run (--model, or the kind's default). */
const char *parity_model_dir(const struct parity_case *c);
/* Folder of the golden file. */
const char *parity_folder(const struct parity_case *c);
/* A pointer that lives through all files of a run, for opened models; NULL at first. The kind's close frees
 * it. */
void **parity_state(const struct parity_case *c);
/* At most one page a case: another may move it. Page STEM.png of --pages or of the folders tried by default:
 * grey, or B, G, R when the file has colour. */
int parity_page(const struct parity_case *c, const char *stem, const struct pm_image **out,
                struct pm_error *err);

/* Tensor "CASE.NAME"; PM_ENOTFOUND when it is not there, PM_EFORMAT when it is not of that type. */
int parity_tensor(const struct parity_case *c, const char *name, enum pm_dtype dtype,
                  const struct pm_tensor **out, struct pm_error *err);
/* The tensor "CASE.NAME" or "CASE.NAME_bgr" as a picture, a view of the file. */
int parity_picture(const struct parity_case *c, const char *name, struct pm_image *out, struct pm_error *err);

/* Members of the case; PM_EFORMAT when missing or of another type. */
int parity_int(const json_t *object, const char *key, int *out, struct pm_error *err);
int parity_number(const json_t *object, const char *key, double *out, struct pm_error *err);
int parity_text(const json_t *object, const char *key, const char **out, struct pm_error *err);
int parity_array(const json_t *object, const char *key, const json_t **out, struct pm_error *err);
/* [[x, y] * 4] */
struct pm_quad;
int parity_quad(const json_t *array, struct pm_quad *out, struct pm_error *err);

#endif
