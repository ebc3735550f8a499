/* The read crops of one region (or one table cell) as rows of text: crops of equal row number stand on one
 * baseline and are joined from left to right.
 *
 * Ownership: everything made here lives in the arena. Threads: pure. Errors: none; the page was checked
 * before (pm_format_page). */
#ifndef PM_COLLECTOR_ROWS_H
#define PM_COLLECTOR_ROWS_H

#include <stdbool.h>

#include "base/arena.h"
#include "proto/page.h"

struct pm_row_piece { /* one crop */
    const char *text; /* cleaned; "" when nothing was legible */
    size_t bytes;
    float left, right; /* of its text: of the first and last word where the reader gave them */
    float crop_px;     /* width of the crop, of which words are shares */
    const struct pm_page_crop *crop;
    const struct pm_region_text *read; /* NULL: no answer came */
};
struct pm_row {
    const char *text; /* pieces joined */
    size_t bytes;
    float left, right, top, bottom;
    float height; /* of its type: median of the pieces' line heights */
    struct pm_row_piece *pieces;
    uint32_t piece_count;
    bool is_failed; /* text holds a mark instead of what could not be read */
};

/* Where the crops of each region and cell are. */
struct pm_crop_key {
    uint32_t region, cell, row;
    float left;
    uint32_t index; /* of the crop */
};
struct pm_crop_index {
    const struct pm_page *page;
    const struct pm_region_text *const *reads; /* one a crop, NULL when no answer came */
    struct pm_crop_key *keys;                  /* sorted; pictures are no text and are left out */
    uint32_t count;
};
/* Crops of a region that is not a table count as outside cells. */
void pm_crop_index_make(const struct pm_page *page, const struct pm_region_text *const *reads,
                        struct pm_arena *arena, struct pm_crop_index *out);

/* Rows of the crops of `region` in its cell `cell` (0: those outside cells); rows without text are left out.
 * *rows_out: [returned count]. */
uint32_t pm_rows_collect(const struct pm_crop_index *index, uint32_t region, uint32_t cell,
                         struct pm_arena *arena, struct pm_row **rows_out);

/* Why a crop has no text: code and text of its answer; false when it was read. An answer that never came is
 * "internal". */
bool pm_read_failed(const struct pm_region_text *read, const char **code_out, const char **text_out);

float pm_rows_median_height(const struct pm_row *rows, uint32_t count);
/* Median distance between the centres of neighbouring rows; 0 with fewer than 3 rows. */
float pm_rows_pitch(const struct pm_row *rows, uint32_t count);
/* Mean width of a character over the rows, in pixels; 0 when there is none. */
float pm_rows_character_px(const struct pm_row *rows, uint32_t count);

#endif
