/* Pages drawn as text: every row of the drawing is a line of type, its column the place on the page.
 *
 * A character is 10 pixels wide, a row 30 apart, type 20 high. A tab divides a row into crops: the text
 * behind it stands where the drawing has it (a tab counts as one blank). Empty rows leave a gap. */
#ifndef PM_TEST_COLLECTOR_FIXTURE_H
#define PM_TEST_COLLECTOR_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "collector/format.h"
#include "proto/blob.h"
#include "proto/sheet.h"

#define CHARACTER_PX 10
#define ROW_PX       30
#define TYPE_PX      20

struct drawn {
    struct pm_arena arena;
    struct pm_page page;
    struct pm_region_text *texts;
    uint32_t text_count;
    size_t region_capacity, crop_capacity, text_capacity;
};
void drawn_init(struct drawn *d); /* page 1, 1000 x 1000, line reader */
void drawn_free(struct drawn *d);
/* Adds a region whose drawing begins at left, top; returns its index. */
uint32_t drawn_region(struct drawn *d, enum pm_label label, float left, float top, const char *art);
/* Adds one crop with its text (NULL: a picture) and returns its index. */
uint32_t drawn_crop(struct drawn *d, uint32_t region, uint32_t cell, float left, float top, float right,
                    float bottom, const char *text);
/* Adds a cell to a table region. */
uint32_t drawn_cell(struct drawn *d, uint32_t region, uint32_t row, uint32_t column, uint32_t row_span,
                    uint32_t column_span, const char *text);
struct pm_out_page drawn_format(struct drawn *d);
/* The content of one region with that drawing; in the arena. */
const char *drawn_content(struct drawn *d, enum pm_label label, const char *art);

/* A blob store in a fresh directory, and its removal. */
struct store {
    char dir[64];
    struct pm_blobs *blobs;
};
void store_open(struct store *s);
void store_close(struct store *s);
/* The blob's content, NUL-terminated; the caller frees. */
char *store_text(struct store *s, const char *key, size_t *bytes_out);
void store_page(struct store *s, const struct pm_out_page *page, char *key_out);

#endif
