/* Task numbers say which task they are: no table from number to task, and the same number after a restart.
 *
 *   63           32 31         15 14        0
 *   +--------------+-------------+-----------+
 *   | job (31 bit) | page number | slot      |
 *   +--------------+-------------+-----------+
 *
 *   page 0: slot PAGE = open, slot ASSEMBLE = assemble-document
 *   page n: slot PAGE = page, slot ASSEMBLE = assemble-page, any other = region task (crop) of that number
 *
 * Pure functions. */
#ifndef PM_BROKER_TASK_H
#define PM_BROKER_TASK_H

#include <stdint.h>

#include "proto/messages.h"

#define PM_TASK_MAX_JOB       0x7fffffffu
#define PM_TASK_MAX_PAGE      0x1ffffu /* 131,071 */
#define PM_TASK_MAX_REGIONS   32000u
#define PM_TASK_SLOT_PAGE     0x7fffu
#define PM_TASK_SLOT_ASSEMBLE 0x7ffeu

static inline uint64_t pm_task_id(uint64_t job, uint32_t page, uint32_t slot)
{
    return job << 32 | (uint64_t)page << 15 | slot;
}
static inline uint64_t pm_task_job(uint64_t task)
{
    return task >> 32;
}
static inline uint32_t pm_task_page(uint64_t task)
{
    return (uint32_t)(task >> 15) & PM_TASK_MAX_PAGE;
}
static inline uint32_t pm_task_slot(uint64_t task)
{
    return (uint32_t)task & 0x7fffu;
}
static inline enum pm_task_kind pm_task_kind(uint64_t task)
{
    uint32_t page = pm_task_page(task), slot = pm_task_slot(task);
    if (slot == PM_TASK_SLOT_PAGE)
        return page ? PM_KIND_PAGE : PM_KIND_OPEN;
    if (slot == PM_TASK_SLOT_ASSEMBLE)
        return page ? PM_KIND_ASSEMBLE_PAGE : PM_KIND_ASSEMBLE_DOC;
    return PM_KIND_REGION;
}

#endif
