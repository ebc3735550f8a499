/* Output formats: one small table of functions a format, each in a file of its own (writer_md.c, ...).
 *
 * The document is streamed: begin, one call a page in order, end. A writer keeps what it must between pages,
 * never the pages. Output goes to a sink, a buffered file; its first error sticks and is asked for by the
 * document, so writers do not check. Bytes depend on nothing but the pages. Threads: one owner. */
#ifndef PM_COLLECTOR_WRITER_H
#define PM_COLLECTOR_WRITER_H

#include "base/mem.h"
#include "proto/page.h"

struct pm_sink {
    int fd; /* borrowed */
    struct pm_buf buf;
    uint64_t bytes; /* given so far */
    struct pm_error err;
};
void pm_sink_put(struct pm_sink *s, const void *data, size_t bytes);
void pm_sink_text(struct pm_sink *s, const char *text);
int pm_sink_finish(struct pm_sink *s, struct pm_error *err); /* writes the rest; the first error of all */
void pm_sink_free(struct pm_sink *s);

struct pm_writer_image {
    const char *path; /* "imgs/cropped_page0_idx3.jpg"; NULL: the region has no picture */
    uint32_t number;  /* 3 */
};
struct pm_writer_page {
    uint32_t index;                       /* place in the output, from 0 */
    const struct pm_out_page *page;       /* regions that are left out are gone already */
    const struct pm_writer_image *images; /* one a region */
};
struct pm_writer {
    const char *format; /* as in --format */
    const char *suffix; /* ".md" */
    void *(*begin)(struct pm_sink *out);
    void (*page)(void *state, struct pm_sink *out, const struct pm_writer_page *page);
    void (*end)(void *state, struct pm_sink *out); /* finishes the file and frees the state */
};
extern const struct pm_writer pm_writer_md, pm_writer_json, pm_writer_txt;

const struct pm_writer *pm_writer_find(const char *format, size_t bytes); /* NULL: unknown */
const char *pm_writer_formats(void);                                      /* "md, json, txt" for messages */

#endif
