/* Where the time of a task goes: a stopwatch that is told at the end of each phase what it was. For a
 * service's result; one clock reading a phase.
 *
 * Ownership: plain data; names are borrowed (literals). Threads: one owner. Errors: none; phases beyond the
 * list are added to the last one. */
#ifndef PM_PROTO_PHASES_H
#define PM_PROTO_PHASES_H

#include <string.h>

#include "base/clock.h"
#include "proto/messages.h"

struct pm_phases {
    struct pm_phase list[PM_LIMIT_PHASES];
    uint32_t count;
    int64_t at_us;
};

static inline void pm_phases_begin(struct pm_phases *p)
{
    p->count = 0;
    p->at_us = pm_clock_us();
}

/* What was done since the last call was `name`; a name may come again. */
static inline void pm_phases_end(struct pm_phases *p, const char *name)
{
    int64_t now_us = pm_clock_us();
    uint32_t i = 0;
    while (i < p->count && strcmp(p->list[i].name, name))
        i++;
    if (i == p->count && i == PM_LIMIT_PHASES)
        i--;
    else if (i == p->count)
        p->list[p->count++] = (struct pm_phase){name, 0};
    p->list[i].us += now_us > p->at_us ? (uint64_t)(now_us - p->at_us) : 0;
    p->at_us = now_us;
}

#endif
