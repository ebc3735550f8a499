/* The Prometheus text format, version 0.0.4: families with HELP and TYPE, samples with labels, histograms.
 * Knows nothing of the broker.
 *
 * Names and label names are literals of the caller and must be valid; label values and HELP texts may be
 * anything: they are escaped, and what is not UTF-8 is mended. Ownership: appends to the caller's buffer.
 * Threads: reentrant. Errors: none. */
#ifndef PM_BROKER_EXPOSITION_H
#define PM_BROKER_EXPOSITION_H

#include "base/histogram.h"
#include "base/mem.h"

#define PM_EXPO_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct pm_expo_label {
    const char *name, *value;
};

/* Begins a family; its samples follow. type: "counter", "gauge", "histogram". */
void pm_expo_family(struct pm_buf *out, const char *name, const char *type, const char *help);
void pm_expo_count(struct pm_buf *out, const char *name, const struct pm_expo_label *labels,
                   size_t label_count, uint64_t value);
/* Microseconds, told in seconds. */
void pm_expo_seconds(struct pm_buf *out, const char *name, const struct pm_expo_label *labels,
                     size_t label_count, uint64_t us);
/* The samples NAME_bucket, NAME_sum and NAME_count; bounds 64 us, then each double up to 18 minutes. */
void pm_expo_histogram(struct pm_buf *out, const char *name, const struct pm_expo_label *labels,
                       size_t label_count, const struct pm_histogram *h);

#endif
