#include "engine/measure/peak.h"

#include <time.h>

/* Twelve independent sums hide the latency of any multiply-add unit of today. */
enum { SUMS = 12, STEPS = 200000 };

struct loop {
    const char *instruction;
    void (*run)(void);
    double operations; /* of one step of one sum */
};

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
DEFINE_PEAK(run_int8, "avx512f,avx512vnni", "vpdpbusd", __m512i, _mm512_setzero_si512(), "v")
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

static struct loop choose(enum pm_peak kind)
{
#if defined(__x86_64__)
    if (kind == PM_PEAK_INT8 && __builtin_cpu_supports("avx512vnni"))
        return (struct loop){"vpdpbusd", run_int8, 8 * 16};
    if (kind == PM_PEAK_BF16 && __builtin_cpu_supports("avx512bf16"))
        return (struct loop){"vdpbf16ps", run_bf16, 4 * 16};
    if (__builtin_cpu_supports("avx512f"))
        return (struct loop){"vfmadd231ps zmm", run_avx512, 2 * 16};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct loop){"vfmadd231ps ymm", run_avx2, 2 * 8};
#endif
    (void)kind;
    return (struct loop){"plain C", run_plain, 2};
}

double pm_peak_run(enum pm_peak kind, int64_t (*clock_us)(void), double seconds)
{
    struct loop loop = choose(kind);
    int64_t start = clock_us(), now;
    double operations = 0;
    do {
        loop.run();
        operations += loop.operations * SUMS * STEPS;
        now = clock_us();
    } while ((double)(now - start) < seconds * 1e6);
    return operations / (double)(now - start) / 1e3;
}

const char *pm_peak_instruction(enum pm_peak kind)
{
    return choose(kind).instruction;
}

int64_t pm_peak_thread_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
