/* The machine's peak of multiply-adds, as a loop that does nothing else: what the engine's rate is a share
 * of. */
#ifndef PM_BENCH_ENGINE_PEAK_H
#define PM_BENCH_ENGINE_PEAK_H

#include <stdbool.h>
#include <stdint.h>

/* Runs about that long on the calling thread; GFLOP/s (2 a multiply-add). */
double pm_bench_peak_gflops(double seconds);

/* The same, or (is_bf16, where the processor has it) with dot products of bf16 pairs (vdpbf16ps), by a clock
 * of the caller's choice. */
double pm_bench_peak_by(bool is_bf16, int64_t (*clock_us)(void), double seconds);

/* CPU time of the calling thread: unmoved by other work on the machine, except through caches and memory. */
int64_t pm_bench_thread_us(void);

#endif
