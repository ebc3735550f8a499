/* Markdown and HTML around text as it was read: escaping so that the rendered text is exactly that text, and
 * the way back for the plain-text writer.
 *
 * Only characters that would change the meaning where they stand are escaped: `a_b` and `2 * 3` stay as they
 * are. A backslash escapes punctuation; `<` before a letter and `&` before a name become entities, because
 * tools that strip tags do not look at backslashes. Threads: pure functions. Errors: none. */
#ifndef PM_COLLECTOR_ESCAPE_H
#define PM_COLLECTOR_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/mem.h"

enum pm_escape_place {
    PM_ESCAPE_PARAGRAPH, /* starts a block: marks of lists, headings, quotes and rules are escaped too */
    PM_ESCAPE_HEADING,   /* after "# ": closing #s are escaped too */
    PM_ESCAPE_ITEM,      /* after a list mark: as a paragraph, and task boxes */
};

/* Appends one paragraph's text (one line, no newlines). */
void pm_escape_markdown(struct pm_buf *out, const char *text, size_t bytes, enum pm_escape_place place);
/* Appends text for the inside of an HTML element. */
void pm_escape_html(struct pm_buf *out, const char *text, size_t bytes);

/* An HTML table as a model wrote it -> one that holds nothing but table, thead, tbody, tr, td, th, br, sub,
 * sup, with rowspan and colspan of 1..1000; any other markup becomes text. Blank lines go (they would end the
 * HTML block in Markdown). */
void pm_escape_table(struct pm_buf *out, const char *html, size_t bytes);

/* Appends the plain text of Markdown as this project writes it: marks of headings, fences, formulas and
 * escapes gone; rows of HTML tables as lines, cells separated by tabs; list marks stay. */
void pm_plain_text(struct pm_buf *out, const char *markdown, size_t bytes);

#endif
