/* Manual pages (roff, man macros) from the tables of base/options.h, so that help, manual and program cannot
 * differ: docs/man/make writes them and a test compares. Threads: pure functions. */
#ifndef PM_BASE_ROFF_H
#define PM_BASE_ROFF_H

#include "base/options.h"

struct pm_roff {
    int section;
    const char *manual;   /* of the page's head: "User Commands" */
    const char *made_by;  /* the command that writes the page, for its first line */
    const char *see_also; /* "pagemill(1), pagemill-up(1)" */
};
/* The whole page of a program or command. */
void pm_roff_page(const struct pm_usage *usage, const struct pm_roff *page, FILE *out);

/* Parts, for pages that have more than that. Paragraphs and sections as in pm_usage.about and more. */
void pm_roff_title(const char *name, const struct pm_roff *page, FILE *out);
void pm_roff_paragraphs(const char *text, FILE *out);
void pm_roff_sections(const char *more, FILE *out);
void pm_roff_see_also(const char *pages, FILE *out);

#endif
