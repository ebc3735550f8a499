/* Reading order: columns, bands and rows from boxes alone.
 *
 * The page is cut recursively. At each step the band with the most content in which a clear gutter parts
 * columns of prose (not cells of a table) is looked for; what lies above it is read first, then its columns
 * from left to right, then what lies below. Where no such band is left, content is read row by row. Pure
 * functions; the caller's arrays. */
#ifndef PM_LAYOUTD_ORDER_H
#define PM_LAYOUTD_ORDER_H

#include "layoutd/lines.h"

struct pm_item {
    struct pm_rect box;        /* tight around the ink */
    float size;                /* height of a line of its type; for blocks the page's */
    bool is_block;             /* a table or picture: never cut, never a row of prose */
    const struct pm_gap *gaps; /* stretches without ink inside, where it may be cut */
    uint32_t gap_count;
};
struct pm_place {
    uint32_t item;   /* index into the items */
    uint32_t leaf;   /* items of one leaf form one column of one band; leaves are numbered in reading order */
    uint32_t column; /* of its band, from 0 */
    uint32_t row;    /* inside the leaf, from 0: items of one row stand on one baseline */
};
struct pm_cut { /* an item that reaches over a gutter and should be cut there */
    uint32_t item;
    float x;
};

/* Writes count places in reading order, and the items that should be cut before asking again: cuts_out
 * [count], *cut_count_out of them. */
void pm_order_find(const struct pm_item *items, uint32_t count, struct pm_place *places_out,
                   struct pm_cut *cuts_out, uint32_t *cut_count_out);

#endif
