/* The phases of a vision-language model one by one, each run for its time alone: the vision tower over a
 * picture, a prompt through the layers, steps of sequences that run together, rounds of drafts. Tokens and
 * pictures are made up: the work is the same.
 *
 * Ownership: pm_phases_free; model and pool are borrowed. Threads: the pool's owner. Errors: PM_ELIMIT for
 * what the model cannot hold, PM_ENOMEM; times come out in seconds. */
#ifndef PM_ENGINE_MEASURE_PHASES_H
#define PM_ENGINE_MEASURE_PHASES_H

#include "engine/vlm/model.h"

struct pm_phases;

/* sequences: most that step together; tokens: most of one sequence. */
int pm_phases_new(const struct pm_vlm_model *model, struct pm_pool *pool, int sequences, int tokens,
                  struct pm_phases **out, struct pm_error *err);
void pm_phases_free(struct pm_phases **phases);

/* Patches that a picture of that size has after the model's own resizing. */
int pm_phases_patches(const struct pm_vlm_model *model, int width_px, int height_px, int *patches_out,
                      struct pm_error *err);

int pm_phases_vision(struct pm_phases *phases, int width_px, int height_px, double *out,
                     struct pm_error *err);
/* A prompt of that many tokens into the first sequence, in passes as the generator cuts them. */
int pm_phases_prefill(struct pm_phases *phases, int tokens, double *out, struct pm_error *err);
/* Seconds of one step of so many sequences with `context` tokens each before the first of `steps`. */
int pm_phases_steps(struct pm_phases *phases, int sequences, int context, int steps, double *out,
                    struct pm_error *err);
/* Seconds of one round of a sequence with that many drafts: the pass that verifies them and the extra layer's
 * own passes. PM_EUNSUPPORTED without an extra layer. */
int pm_phases_drafts(struct pm_phases *phases, int drafts, int context, int rounds, double *out,
                     struct pm_error *err);

#endif
