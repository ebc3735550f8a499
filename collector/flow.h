/* Running text: puts the halves of paragraphs together that a column or page break divided. What stood
 * between them (page numbers, headers, footnotes) follows after the paragraph.
 *
 * Blocks are given in reading order and come out through `emit` in writing order. At most one paragraph and
 * 64 KiB of furniture are held. Threads: one owner. */
#ifndef PM_COLLECTOR_FLOW_H
#define PM_COLLECTOR_FLOW_H

#include "base/mem.h"
#include "proto/page.h"

struct pm_flow {
    void (*emit)(void *ctx, const char *text, size_t bytes);
    void *ctx;
    /* private */
    bool is_open;
    struct pm_buf text; /* the paragraph that may go on */
    struct pm_out_region last;
    struct pm_out_line line; /* of last: only its height counts */
    struct pm_buf held;      /* furniture behind it, each block NUL-terminated */
};

/* One block: the text of a region (not empty). */
void pm_flow_add(struct pm_flow *flow, const struct pm_out_region *region, const char *text, size_t bytes);
void pm_flow_flush(struct pm_flow *flow); /* nothing goes on over this point */
void pm_flow_free(struct pm_flow *flow);

#endif
