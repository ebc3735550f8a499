#include "engine/vlm/config.h"

#include <stddef.h>
#include <string.h>

static const char *const precisions[PM_PRECISION_COUNT] = {
    [PM_PRECISION_F32] = "f32",
    [PM_PRECISION_BF16] = "bf16",
    [PM_PRECISION_INT8] = "int8",
    [PM_PRECISION_INT4] = "int4",
};

const char *pm_precision_name(enum pm_precision precision)
{
    return precisions[precision];
}

bool pm_precision_parse(const char *name, enum pm_precision *out)
{
    for (size_t i = 0; i < PM_PRECISION_COUNT; i++)
        if (!strcmp(name, precisions[i])) {
            *out = (enum pm_precision)i;
            return true;
        }
    return false;
}
