/* What the tests of the language-model kernels share: numbers, exact-sized arrays, the tables to test. */
#ifndef PM_TESTS_UNIT_KERNELS_COMMON_H
#define PM_TESTS_UNIT_KERNELS_COMMON_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kernels/bf16.h"
#include "engine/kernels/kernels.h"

static uint32_t seed = 1;

static inline uint32_t number(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % below;
}

/* -1..1 */
static inline float noise(void)
{
    number(1);
    return (float)(int32_t)seed / 2147483648.0f;
}

/* Exact-sized heap arrays, so that the address sanitizer sees reads and writes outside. */
static inline void *bytes(size_t n)
{
    void *p = malloc(n ? n : 1);
    assert_non_null(p);
    memset(p, 0xa5, n);
    return p;
}

static inline float *floats(size_t n)
{
    float *v = bytes(n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = noise();
    return v;
}

static inline uint16_t *halves(size_t n)
{
    uint16_t *v = bytes(n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = pm_bf16_from_f32(noise());
    return v;
}

static inline void check(const char *kernels, const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s %s: %.9g instead of %.9g (tolerance %.3g)", kernels, what, got, want, tolerance);
}

/* Runs every test with every table that this processor has as its state. */
static inline int run_all(const char *group, const struct CMUnitTest *tests, size_t count)
{
    static const char *const names[] = {"plain", "avx2", "avx512", "avx512vnni", "avx512bf16"};
    int failed = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct pm_kernels *kernels = pm_kernels_get(names[i]);
        if (!kernels)
            continue;
        struct CMUnitTest with[16];
        assert_true(count <= sizeof with / sizeof *with);
        memcpy(with, tests, count * sizeof *with);
        for (size_t t = 0; t < count; t++)
            with[t].initial_state = (void *)(uintptr_t)kernels;
        char title[64];
        snprintf(title, sizeof title, "%s %s", group, names[i]);
        failed += _cmocka_run_group_tests(title, with, count, NULL, NULL);
    }
    return failed;
}

#endif
