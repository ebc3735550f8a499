/* Two clocks. Deadlines and intervals use the monotonic one; the wall clock is only for people and files. */
#ifndef PM_BASE_CLOCK_H
#define PM_BASE_CLOCK_H

#include <stdint.h>

int64_t pm_clock_us(void); /* CLOCK_MONOTONIC, microseconds */
int64_t pm_wall_us(void);  /* CLOCK_REALTIME, microseconds since 1970 */

#endif
