/* The machine's peak of f32 multiply-adds, as a loop that does nothing else: what the engine's rate is a
 * share of. */
#ifndef PM_BENCH_ENGINE_PEAK_H
#define PM_BENCH_ENGINE_PEAK_H

/* Runs about that long on the calling thread; GFLOP/s (2 a multiply-add). */
double pm_bench_peak_gflops(double seconds);

#endif
