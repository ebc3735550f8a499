/* The collector's two kinds of task, on blobs: a page's texts -> its pm_out_page and pictures; a document's
 * pages -> its files and their manifest.
 *
 * Both may be repeated at will: the same input gives the same blobs. Memory: one page at a time; files grow
 * on disk. Ownership: results lie in the arena. Threads: reentrant. Errors: PM_ENOSPC says which directory is
 * full and can be retried; PM_EFORMAT and PM_EINVAL cannot. */
#ifndef PM_COLLECTOR_ASSEMBLE_H
#define PM_COLLECTOR_ASSEMBLE_H

#include "base/arena.h"
#include "proto/blob.h"
#include "proto/messages.h"
#include "proto/page.h"
#include "proto/phases.h"

/* Pictures of one document that are kept; those behind them are left out with a visible reason (the list must
 * fit into one message). */
#define PM_DOCUMENT_PICTURES 16000u

struct pm_assembled {
    char blob[PM_BLOB_KEY_SIZE]; /* page: the pm_out_page */
    uint32_t failed_regions;     /* page */
    struct pm_manifest manifest; /* document */
    const char **blobs;          /* everything else that the result refers to, each once */
    uint32_t blob_count;
    struct pm_phases phases; /* "assemble", "pictures", "write" */
};

/* page_blob: pm_page record; sheet_blob: its crop sheet ("" when there are no crops); texts: the payload of
 * the lease. */
int pm_assemble_page(struct pm_blobs *blobs, const char *page_blob, const char *sheet_blob, const void *texts,
                     size_t text_bytes, const struct pm_options *options, struct pm_arena *arena,
                     struct pm_assembled *out, struct pm_error *err);

/* Called between pages; a negative answer (with err filled) stops the work. */
typedef int (*pm_assemble_tick)(void *ctx, uint32_t permille, struct pm_error *err);

int pm_assemble_document(struct pm_blobs *blobs, const struct pm_doc_pages *pages,
                         const struct pm_options *options, pm_assemble_tick tick, void *ctx,
                         struct pm_arena *arena, struct pm_assembled *out, struct pm_error *err);

#endif
