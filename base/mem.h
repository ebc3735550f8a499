/* Allocation with checked products, and growing arrays.
 *
 * pm_xalloc & co. abort when memory is out: for small things in daemons, which are restarted and lose
 * nothing. Large buffers (pages, weights, frames of peers) use pm_alloc_array and report PM_ENOMEM. */
#ifndef PM_BASE_MEM_H
#define PM_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

void *pm_xalloc(size_t bytes);              /* zeroed, never NULL */
void *pm_xrealloc(void *old, size_t bytes); /* never NULL */
char *pm_xstrdup(const char *text);         /* never NULL; text may not be NULL */
char *pm_xstrndup(const char *text, size_t n);
char *pm_xprintf(const char *format, ...) __attribute__((format(printf, 1, 2))); /* caller frees */

/* count * size bytes, 64-byte aligned (large arrays on huge pages where there are some), not zeroed, or
 * PM_ENOMEM (also when the product overflows). free() it. */
int pm_alloc_array(size_t count, size_t size, void **out, struct pm_error *err);

/* A growing byte buffer. Zero-initialise; pm_buf_free when done. data is not NUL-terminated unless
 * pm_buf_text made it so. */
struct pm_buf {
    uint8_t *data;
    size_t size;
    size_t capacity;
};
void pm_buf_append(struct pm_buf *b, const void *data, size_t bytes);
void pm_buf_text(struct pm_buf *b, const char *text); /* appends and keeps a NUL after size */
void pm_buf_printf(struct pm_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pm_buf_clear(struct pm_buf *b); /* size = 0, memory kept */
void pm_buf_free(struct pm_buf *b);

/* Makes room for one more element in `type *items` with `count` used and `capacity` allocated. */
#define PM_GROW(items, count, capacity)                                                                      \
    do {                                                                                                     \
        if ((count) >= (capacity)) {                                                                         \
            (capacity) = (capacity) ? (capacity)*2 : 8;                                                      \
            (items) = pm_xrealloc((items), (size_t)(capacity) * sizeof *(items));                            \
        }                                                                                                    \
    } while (0)

#endif
