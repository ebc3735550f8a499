/* The machine's peak of multiply-adds, as a loop that does nothing else: what the engine's rate is a share
 * of. Where the processor lacks the instruction of a kind, the next best one that does such sums stands in:
 * bf16 widens to f32, and so does int8.
 *
 * Ownership: nothing is kept. Threads: reentrant. Errors: none. */
#ifndef PM_ENGINE_MEASURE_PEAK_H
#define PM_ENGINE_MEASURE_PEAK_H

#include <stdint.h>

enum pm_peak {
    PM_PEAK_F32,  /* vfmadd231ps */
    PM_PEAK_BF16, /* vdpbf16ps */
    PM_PEAK_INT8, /* vpdpbusd */
    PM_PEAKS
};

/* Runs about that long on the calling thread; GOP/s, two operations a multiply-add, by a clock of the
 * caller's choice (pm_clock_us, pm_peak_thread_us). */
double pm_peak_run(enum pm_peak kind, int64_t (*clock_us)(void), double seconds);

/* The instruction that stands for it on this processor. */
const char *pm_peak_instruction(enum pm_peak kind);

/* CPU time of the calling thread: unmoved by other work on the machine, except through caches and memory. */
int64_t pm_peak_thread_us(void);

#endif
