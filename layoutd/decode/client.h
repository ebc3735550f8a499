/* Decoding of source files in a sandboxed child: the side that layoutd (or any other program) links.
 *
 * A decoder is one `pagemill-decode` process that holds one source file. It gets the file as an open
 * descriptor and a socket, enters its sandbox, and answers requests; pixels come back in a sealed memfd that
 * is mapped here. The child is not trusted: every field, descriptor, size and seal of an answer is checked.
 *
 * Ownership: pm_decode_start makes a decoder, pm_decode_stop kills and reaps it. Pictures from
 * pm_decode_render belong to the caller, outlive the decoder and are released by pm_decode_image_free.
 * Threads: a decoder is used by one thread at a time. The kernel kills the child when the THREAD that started
 * it ends (PR_SET_PDEATHSIG), so start decoders from a thread that lives as long as they do. The process must
 * not ignore SIGCHLD nor reap unknown children with wait(-1).
 * Errors: texts are the end of a sentence about the file ("is empty", "is encrypted: ..."), made to be
 * prefixed with its name by pm_fail_prefix. After PM_ECRASH, PM_ETIMEOUT, PM_ELIMIT (memory), PM_EPROTO and
 * PM_ECANCELLED the child is gone and the next request starts a fresh one; after every other error it goes
 * on, and other pages may be well. */
#ifndef PM_LAYOUTD_DECODE_CLIENT_H
#define PM_LAYOUTD_DECODE_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/image.h"
#include "base/sniff.h"

struct pm_decoder;

struct pm_decode_limits {
    int64_t timeout_us;     /* for each request; 60 s */
    uint64_t memory_bytes;  /* address space of the child above its libraries; 2 GB */
    int max_pages;          /* documents with more are refused; 20,000 */
    uint64_t max_source_px; /* a picture whose header says more is refused; 120 million */
    int pdf_longest_px;     /* PDF pages are rendered smaller to fit; 3,500 */
    int picture_longest_px; /* pictures are reduced to fit; 10,000 */
    uint64_t max_page_px;   /* both are reduced to fit; 60 million */
    int cancel_fd;          /* becomes readable: give up with PM_ECANCELLED; -1 for none */
};
void pm_decode_limits_default(struct pm_decode_limits *limits_out);

struct pm_decode_info {
    enum pm_format format;
    int page_count;  /* >= 1 */
    char title[256]; /* UTF-8 without control characters, "" when the document has none */
};

struct pm_decode_size {
    int width_px, height_px;    /* as pm_decode_render would deliver at this dpi */
    double width_pt, height_pt; /* 1/72 inch; 0 when the file states no believable resolution */
};

/* The program beside the running one ("/usr/bin/pagemill-decode" for /usr/bin/pagemill-layoutd), or the
 * installed one when there is none beside. Free it. */
char *pm_decode_default_program(void);

/* Starts `program` on a regular file and opens the document in it. The descriptor is borrowed for the call;
 * its bytes must not change while the decoder lives (blobs never do). password may be NULL. limits may be
 * NULL (defaults) and are copied.
 * PM_EFORMAT: empty, damaged, or no format that we read; PM_EPASSWORD; PM_ELIMIT; PM_ECRASH; PM_ETIMEOUT. */
int pm_decode_start(const char *program, int source_fd, const char *password,
                    const struct pm_decode_limits *limits, struct pm_decoder **decoder_out,
                    struct pm_error *err);
/* The same for a path (a blob's). */
int pm_decode_start_path(const char *program, const char *source_path, const char *password,
                         const struct pm_decode_limits *limits, struct pm_decoder **decoder_out,
                         struct pm_error *err);

const struct pm_decode_info *pm_decode_info(const struct pm_decoder *decoder);

/* Size of page 0..page_count-1 at this dpi (0 means 200; pictures ignore it) without rendering it. */
int pm_decode_page_size(struct pm_decoder *decoder, int page, double dpi, struct pm_decode_size *out,
                        struct pm_error *err);

/* Renders a page: upright as the file says (PDF rotation, EXIF and TIFF orientation), transparency over
 * white, 1 channel when every pixel is grey and 3 (B, G, R) otherwise. dpi as above; *dpi_out is the
 * resolution of the result in pixels an inch, 0 when the file states none that is believable. */
int pm_decode_render(struct pm_decoder *decoder, int page, double dpi, struct pm_image *out, double *dpi_out,
                     struct pm_error *err);

/* What was wrong with the last page that was delivered all the same ("the data ends early: rows 812 to 1199
 * are missing"), or "". Valid until the next call. */
const char *pm_decode_warning(const struct pm_decoder *decoder);

void pm_decode_image_free(struct pm_image *image); /* only for images of pm_decode_render */

/* The child's process id (0 when none runs) for tests and for `top`. */
int pm_decode_pid(const struct pm_decoder *decoder);

/* Ends and reaps the child; *decoder becomes NULL. NULL is fine. */
void pm_decode_stop(struct pm_decoder **decoder);

#endif
