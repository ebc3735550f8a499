/* The documents of the storms, and what a fleet makes of them: both are functions of one number, so every
 * process of a storm can make them anew and compare, and no two documents of a storm are equal.
 *
 * A document is "storm NUMBER PAGES REGIONS\n" and a few KB of filler. The services of storm_service.c read
 * region R of page P as one line that holds a hash of (NUMBER, P, R). Threads: pure. Errors: false. */
#ifndef PM_FAULTS_DOCUMENT_H
#define PM_FAULTS_DOCUMENT_H

#include <stdbool.h>

#include "base/hash.h"
#include "base/mem.h"

struct document {
    unsigned number, pages, regions; /* regions of each page */
};
struct document document_of(unsigned number);
/* False unless the bytes are exactly those of such a document. */
bool document_parse(const void *data, size_t bytes, struct document *out);
void document_bytes(const struct document *d, struct pm_buf *out); /* appends */
void document_region(const struct document *d, unsigned page, unsigned region,
                     struct pm_buf *out);                           /* a text */
void document_result(const struct document *d, struct pm_buf *out); /* the file "doc.md" */
/* Of a result's files, one after the other: name and bytes. */
void document_hash_file(struct pm_hasher *h, const char *name, const void *data, size_t bytes);
void document_result_hash(unsigned number, char hex[PM_HASH_HEX + 1]);

#endif
