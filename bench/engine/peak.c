#include "bench/engine/peak.h"

#include <stdint.h>
#include <time.h>

#include "base/clock.h"
#include "engine/kernels/kernels.h"

/* Twelve independent sums hide the latency of any multiply-add unit of today. */
enum { SUMS = 12, STEPS = 200000 };

#if defined(__x86_64__)
#include <immintrin.h>

#define DEFINE_PEAK(name, isa, op, type, zero, constraint)                                                   \
    __attribute__((target(isa), noinline)) static void name(void)                                            \
    {                                                                                                        \
        type a = zero, s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a,       \
             s10 = a, s11 = a;                                                                               \
        for (int i = 0; i < STEPS; i++)                                                                      \
            __asm__ volatile(op " %[a], %[a], %0\n\t" op " %[a], %[a], %1\n\t" op " %[a], %[a], %2\n\t" op   \
                                " %[a], %[a], %3\n\t" op " %[a], %[a], %4\n\t" op " %[a], %[a], %5\n\t" op   \
                                " %[a], %[a], %6\n\t" op " %[a], %[a], %7\n\t" op " %[a], %[a], %8\n\t" op   \
                                " %[a], %[a], %9\n\t" op " %[a], %[a], %10\n\t" op " %[a], %[a], %11"        \
                             : "+" constraint(s0), "+" constraint(s1), "+" constraint(s2),                   \
                               "+" constraint(s3), "+" constraint(s4), "+" constraint(s5),                   \
                               "+" constraint(s6), "+" constraint(s7), "+" constraint(s8),                   \
                               "+" constraint(s9), "+" constraint(s10), "+" constraint(s11)                  \
                             : [a] constraint(a));                                                           \
    }

DEFINE_PEAK(run_avx512, "avx512f", "vfmadd231ps", __m512, _mm512_setzero_ps(), "v")
DEFINE_PEAK(run_avx2, "avx2,fma", "vfmadd231ps", __m256, _mm256_setzero_ps(), "x")
DEFINE_PEAK(run_bf16, "avx512f,avx512bf16", "vdpbf16ps", __m512, _mm512_setzero_ps(), "v")
#endif

static void run_plain(void)
{
    static volatile float start = 0.0f;
    float sum[SUMS], a = start;
    for (int i = 0; i < SUMS; i++)
        sum[i] = a;
    for (int k = 0; k < STEPS; k++)
        for (int i = 0; i < SUMS; i++)
            sum[i] += a * a;
    for (int i = 0; i < SUMS; i++)
        start = sum[i];
}

double pm_bench_peak_by(bool is_bf16, int64_t (*clock_us)(void), double seconds)
{
    void (*run)(void) = run_plain;
    double flops_a_step = 2; /* of one sum */
#if defined(__x86_64__)
    if (is_bf16 && pm_kernels_get("avx512bf16")) {
        run = run_bf16;
        flops_a_step = 4 * 16;
    } else if (pm_kernels_get("avx512")) {
        run = run_avx512;
        flops_a_step = 2 * 16;
    } else if (pm_kernels_get("avx2")) {
        run = run_avx2;
        flops_a_step = 2 * 8;
    }
#endif
    int64_t start = clock_us(), now;
    double flops = 0;
    do {
        run();
        flops += flops_a_step * SUMS * STEPS;
        now = clock_us();
    } while ((double)(now - start) < seconds * 1e6);
    return flops / (double)(now - start) / 1e3;
}

double pm_bench_peak_gflops(double seconds)
{
    return pm_bench_peak_by(false, pm_clock_us, seconds);
}

int64_t pm_bench_thread_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
