#if defined(__x86_64__)
#define KV8(name) kv8_avx512_##name
#include "engine/kernels/kv8_body.h"

const struct pm_kv8_kernels pm_kv8_avx512 = {kv8_avx512_put, kv8_avx512_expand};
#else
typedef int pm_kv8_avx512_is_for_x86; /* a file may not be empty */
#endif
