/* Attributes that the vector kernels need from both compilers. */
#ifndef PM_ENGINE_KERNELS_VECTOR_COMMON_H
#define PM_ENGINE_KERNELS_VECTOR_COMMON_H

#define PM_INLINE static inline __attribute__((always_inline))

/* Full unrolling of loops with constant bounds; sums in arrays stay in registers only then. */
#if defined(__clang__)
#define PM_UNROLL    _Pragma("clang loop unroll(full)")
#define PM_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define PM_UNROLL    _Pragma("GCC unroll 32")
#define PM_NO_UNROLL _Pragma("GCC unroll 1")
#endif

#endif
