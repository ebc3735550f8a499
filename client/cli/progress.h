/* The progress line: figures in, text out. Drawing is the caller's; this part is pure and testable.
 * Threads: pure functions. */
#ifndef PM_CLIENT_CLI_PROGRESS_H
#define PM_CLIENT_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pm_progress_view {
    uint64_t documents, documents_done, documents_failed; /* done: finished in any way */
    uint64_t pages, pages_done;                           /* pages: of the documents opened so far */
    bool has_more_pages;                                  /* some documents are not open yet */
    uint64_t regions, regions_done;                       /* of the documents in hand */
    double pages_part;                                    /* read of pages that are not done */
    double pages_per_s;                                   /* of late; 0: none */
    int64_t elapsed_us;
};

/* The regions in hand as a part of pages: known when a document is at its last page, which is what matters to
 * readers that take minutes for one. */
double pm_progress_part(uint32_t pages, uint32_t pages_done, uint32_t regions, uint32_t regions_done);
/* "2.13 pages/s", below 0.1 "79 s/page", "" for 0. */
void pm_progress_rate(double pages_per_s, char *text, size_t text_bytes);

/* Pages a second over the last half minute, from samples a second apart. */
#define PM_RATE_SAMPLES 32
struct pm_rate { /* zero-initialise */
    int64_t time_us[PM_RATE_SAMPLES];
    uint64_t pages[PM_RATE_SAMPLES];
    unsigned count, next;
};
double pm_rate_update(struct pm_rate *rate, int64_t now_us, uint64_t pages_done);

/* One line of at most width-1 columns, ASCII, without control characters. Parts that do not fit are left out,
 * from the right. */
void pm_progress_bar(const struct pm_progress_view *view, int width, char *text, size_t text_bytes);
/* For logs: "12/40 pages, 70 of 200 regions in hand, 3 of 5 documents, 2.10 pages/s, about 0:13 left". */
void pm_progress_line(const struct pm_progress_view *view, char *text, size_t text_bytes);
/* "0:42", "12:05", "3:02:11". */
void pm_progress_time(int64_t us, char *text, size_t text_bytes);

#endif
