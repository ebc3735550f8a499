/* parity engine: one case folder of the reference (transformers glm_ocr) through our packer, image processor,
 * vision tower, decoder, sampler and extra layer.
 *
 * A case is a folder with case.json, expected.safetensors and a model beside them (or the full-size model
 * given by --model). It runs in f32, held to the tolerances of a reference engine, and in bf16, int8 and
 * int4, held to what rounding allows. Every tensor that the folder expects must be compared by somebody: one
 * that is not is a failure.
 *
 * Ownership: a struct engine_case owns everything in it until engine_case_close. Threads: one; the engine's
 * own pool inside. */
#ifndef PM_TESTS_PARITY_ENGINE_H
#define PM_TESTS_PARITY_ENGINE_H

#include "engine/text/sampler.h"
#include "engine/vlm/decoder.h"
#include "engine/vlm/mtp.h"
#include "tests/parity/parity.h"

enum { ENGINE_THREADS = 2, ENGINE_ROWS = 512, ENGINE_IMAGES_MAX = 64 };

/* What a limit is for. */
enum engine_part {
    ENGINE_TOWER, /* in 8 bits in int4, too */
    ENGINE_TEXT,
};

/* What a probe has seen under one name: pieces one below the other. */
struct engine_capture {
    char name[40];
    float *values; /* [rows, columns] */
    int rows, columns;
    size_t capacity;
};

struct engine_case {
    const char *folder;
    char name[64];  /* of the folder */
    char label[80]; /* "tiny_a f32": first column of the lines */
    struct parity_counts *counts;
    json_t *object; /* case.json */
    struct pm_safetensors *expected;
    bool *seen; /* of expected's tensors */
    const char *model_dir;
    float *exact; /* [id_count, vocab]: logits in f32 */
    /* What bf16 is away from it, and from each of expected's tensors. */
    double bf16_logits, *bf16_distance;
    /* of one precision */
    char *pack_dir;
    struct pm_vlm_model *model;
    const struct pm_kernels *kernels;
    struct pm_pool *pool;
    struct pm_kv_pool *kv_pool;
    struct pm_vision *vision;
    struct pm_decoder *decoder;
    struct pm_mtp *mtp; /* NULL without the extra layer */
    /* the prompt */
    int32_t *ids;
    int id_count;
    struct pm_image images[ENGINE_IMAGES_MAX];
    struct pm_patches patches[ENGINE_IMAGES_MAX];
    struct pm_image_grid grids[ENGINE_IMAGES_MAX];
    int image_count;
    int32_t (*positions)[3]; /* [id_count] */
    int32_t delta;
    /* what came out */
    struct engine_capture *captures;
    size_t capture_count, capture_capacity;
    struct pm_kv kv;
    float *logits; /* [id_count, vocab] */
    float *hidden; /* [id_count + generated, hidden]: after the final norm */
    int hidden_rows;
    int32_t *generated; /* greedy ids */
    int generated_count;
};

/* ---- engine.c ---- */

/* One line: rc and err, or the verdict. */
void engine_line(const struct engine_case *c, const char *group, int rc, const struct parity_verdict *v,
                 const struct pm_error *err);
/* Whether the precision is another than f32: compared with what its rounding allows. */
bool engine_is_rounded(const struct engine_case *c);

/* ---- engine_compare.c ---- */

/* An expected tensor of that type (and marks it as compared); NULL when the case has none. */
const struct pm_tensor *engine_expected(struct engine_case *c, const char *name, enum pm_dtype dtype);
float engine_float(const struct pm_tensor *t, size_t index);
int32_t engine_int(const struct pm_tensor *t, size_t index);
size_t engine_elements(const struct pm_tensor *t);

/* |error| <= absolute + relative * |expected| for every value. */
void engine_compare_floats(struct parity_verdict *v, const char *what, const float *ours,
                           const struct pm_tensor *t, size_t count, double absolute, double relative);
/* The distance of a rounded precision (engine_limits.c) from an expected tensor; bf16's is kept. */
void engine_compare_rounded(struct engine_case *c, struct parity_verdict *v, const float *ours,
                            const struct pm_tensor *t, enum engine_part part);
void engine_compare_ids(struct parity_verdict *v, const char *what, const int32_t *ours, int count,
                        const struct pm_tensor *t);
/* The same for all logits. */
void engine_compare_rounded_logits(struct engine_case *c, struct parity_verdict *v,
                                   const struct pm_tensor *t);

struct engine_capture *engine_captured(struct engine_case *c, const char *name);
void engine_probe(void *ctx, const char *name, const float *values, int rows, int columns);
void engine_drop_captures(struct engine_case *c);

/* All expected tensors NAME, NAME.N and NAME.first4, .last, ... whose values were captured. */
void engine_compare_captured(struct engine_case *c, const char *group, const char *prefix, double absolute,
                             double relative, enum engine_part part);
int32_t engine_argmax(const float *values, int n);

/* ---- engine_limits.c ---- */

struct engine_distance {
    double difference, size; /* sums of squares */
    double error, deviation; /* sums of magnitudes */
    double worst;            /* |error| */
    double lead; /* largest that a best entry had before another one that became the best, in deviations */
    size_t values;
    int rows, same; /* same: with the same best entry */
};
/* One more row of logits. */
void engine_distance_row(struct engine_distance *d, const float *ours, const float *exact, int n);
double engine_distance_of(const struct engine_distance *d);
/* What the case's precision may be away; bf16_distance: what bf16 is. */
double engine_limit(const struct engine_case *c, enum engine_part part, double bf16_distance);
double engine_limit_kv8(double bf16_distance);
double engine_limit_lead(double limit);
void engine_report_logits(struct parity_verdict *v, const struct engine_distance *d, double limit);

/* ---- engine_run.c, engine_mtp.c, engine_prompt.c, engine_sampling.c, engine_summary.c ---- */

/* Prompt ids, pictures and positions, each beside the reference's. */
int engine_prepare(struct engine_case *c, struct pm_error *err);
/* Vision tower and prefill; every prompt position's logits. */
int engine_prefill(struct engine_case *c, struct pm_error *err);
/* Lines of everything that prefill gave. */
void engine_check_prefill(struct engine_case *c);
/* Greedy decoding in all ways that the case has. */
void engine_check_greedy(struct engine_case *c);
void engine_check_mtp(struct engine_case *c);
/* What only the full-size case has: summaries of logits instead of all of them. */
void engine_check_summaries(struct engine_case *c);
/* All logits beside those of our own f32, which this keeps for the other precisions. */
void engine_check_beside_f32(struct engine_case *c);
/* Prefill again with keys and values in 8 bits. */
void engine_check_kv8(struct engine_case *c);
/* Messages through template and tokenizer beside the ids. */
void engine_check_prompt(struct engine_case *c);

/* A folder of logits and what the processors make of them. */
void engine_run_sampling(struct engine_case *c);

#endif
