/* How much a phase of a vision-language model has to do, counted from the opened model: multiply-adds by the
 * arithmetic they are done in, bytes that must come from memory. With the machine's limits that is the least
 * time the phase can take.
 *
 * Not counted: norms, turning, gates, softmax, sampling, and rows of the embedding table. They are a few
 * percent and keep a share of the limit below one.
 *
 * Ownership: plain values. Threads: reentrant. Errors: none. */
#ifndef PM_ENGINE_MEASURE_WORK_H
#define PM_ENGINE_MEASURE_WORK_H

#include "engine/measure/limits.h"
#include "engine/vlm/model.h"

struct pm_work {
    double macs[PM_PEAKS];
    double bytes;
};

/* One picture of that many patches through the tower. */
struct pm_work pm_work_vision(const struct pm_vlm_model *model, int patches);
/* A prompt of that many tokens through the layers, logits of the last one. */
struct pm_work pm_work_prefill(const struct pm_vlm_model *model, int tokens);
/* One step of so many sequences, each with `context` tokens before it: weights, keys and values. */
struct pm_work pm_work_step(const struct pm_vlm_model *model, int sequences, int context);

struct pm_work pm_work_sum(const struct pm_work *a, const struct pm_work *b);
struct pm_work pm_work_times(const struct pm_work *work, double factor);

/* Seconds that the multiply-adds take, that the bytes take, and the larger of both. */
double pm_work_compute_s(const struct pm_work *work, const struct pm_limit_figures *limits);
double pm_work_memory_s(const struct pm_work *work, const struct pm_limit_figures *limits);
double pm_work_floor_s(const struct pm_work *work, const struct pm_limit_figures *limits);

#endif
