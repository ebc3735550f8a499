/* A small random source for tests: splitmix64 under a fixed seed. */
#ifndef PM_TESTS_UNIT_PPOCR_RANDOM_H
#define PM_TESTS_UNIT_PPOCR_RANDOM_H

#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* low <= result < high */
static inline int random_int(uint64_t *state, int low, int high)
{
    return low + (int)(random_next(state) % (uint64_t)(high - low));
}

/* 0 <= result < 1 */
static inline double random_unit(uint64_t *state)
{
    return (double)(random_next(state) >> 11) * 0x1p-53;
}

#endif
