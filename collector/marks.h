/* Marks at the start of a row that make it an item of a list: bullets, "1.", "1)", "(a)", "a)", "iv.", and
 * "[12]" of bibliographies.
 *
 * Recognising a mark says only that the row looks like an item; prose.c decides by position and sequence.
 * Threads: pure functions. Errors: none. */
#ifndef PM_COLLECTOR_MARKS_H
#define PM_COLLECTOR_MARKS_H

#include "collector/rows.h"

enum pm_mark_kind {
    PM_MARK_NONE,
    PM_MARK_BULLET,   /* • ◦ ▪ ... and - – * + followed by a blank */
    PM_MARK_ORDERED,  /* 1. 1) */
    PM_MARK_LABELLED, /* (1) (a) a) a. iv) */
    PM_MARK_BRACKET,  /* [1] [Knu84] */
};
struct pm_mark {
    enum pm_mark_kind kind;
    bool is_certain; /* a bullet character that text has no other use for */
    bool is_letter;  /* a. b. A) */
    unsigned value;  /* number, or place of the letter in the alphabet, or roman number */
    char closing;    /* '.' or ')' */
    size_t bytes;    /* of the mark, without the blanks after it */
};

/* in_list: the region is known to be a list, so that misread bullets (o, e, ., °) and missing blanks count.
 */
struct pm_mark pm_mark_parse(const struct pm_row *row, bool in_list);

#endif
