/* Rows of text -> Markdown: paragraphs, lists, entries of bibliographies.
 *
 * What is known of a row is its text and where it stands, so: a gap, an indent or a line that ends early
 * starts a new paragraph; a mark at a place where an item can begin starts an item; depth follows from the
 * position of the mark. Anything doubtful stays one paragraph. Threads: pure functions. Errors: none. */
#ifndef PM_COLLECTOR_PROSE_H
#define PM_COLLECTOR_PROSE_H

#include "collector/marks.h"
#include "collector/rows.h"

enum pm_prose_style {
    PM_PROSE_TEXT,       /* paragraphs, lists where they are evident */
    PM_PROSE_LIST,       /* the region is a list */
    PM_PROSE_REFERENCES, /* entries with hanging indent or [1] */
    PM_PROSE_LINES,      /* every row stands alone: tables of contents */
    PM_PROSE_PLAIN,      /* paragraphs, never lists: captions, headers, page numbers */
};
/* The lists that are open where a region ends: an item in the next region may be nested in them. */
#define PM_PROSE_DEEPEST 6
struct pm_prose_level {
    float x;         /* of its marks */
    float text_x;    /* where the text of the current item stands */
    unsigned indent; /* blanks before the mark */
    unsigned inside; /* blanks before what belongs to the current item */
    struct pm_mark mark;
};
struct pm_prose_list { /* one that is open in the Markdown written so far */
    unsigned indent, value;
    char closing; /* '-' for bullets */
};
struct pm_prose_lists { /* zero: none */
    struct pm_prose_level levels[PM_PROSE_DEEPEST];
    struct pm_prose_list written[PM_PROSE_DEEPEST];
    int depth, written_count;
};

/* Appends Markdown without a newline at the end. lists: those that the region before left open, updated to
 * those that this one leaves open; may be NULL. */
void pm_prose_format(struct pm_buf *out, const struct pm_row *rows, uint32_t count, enum pm_prose_style style,
                     struct pm_prose_lists *lists);

/* Rows whose ends are meant: an address, the head of a letter, a signature. All are much shorter than text is
 * set there (width_px), and none begins or ends as if a sentence ran over it. */
bool pm_prose_is_broken(const struct pm_row *rows, uint32_t count, float width_px);
/* Appends the rows as one paragraph with its line breaks. */
#define PM_PROSE_HARD_BREAK "  \n"
void pm_prose_lines(struct pm_buf *out, const struct pm_row *rows, uint32_t count);

/* Appends all rows joined to one line of raw text, not escaped (headings). */
void pm_prose_join(struct pm_buf *out, const struct pm_row *rows, uint32_t count);

/* Would the first word of `next` have fitted behind `row` before right_px? Then the line was ended on
 * purpose. */
bool pm_prose_fits(const struct pm_row *row, const struct pm_row *next, float right_px, float character_px);

#endif
