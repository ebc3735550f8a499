/* Pages that were read before: fingerprint -> the assembled page, so that an equal page of a later document
 * is taken as it is. A cache: losing it costs time, never text.
 *
 *   known   fingerprint, blob, blobs, regions, bytes, used_us (wall clock of the last use)
 *   model   reader, identity: the model that its workers had last
 *
 * Only pages without a failed region come in. The keys count as references to their blobs like those of
 * pages. What is old or too much is found with pm_journal_known_oldest and dropped by ops. Ownership and
 * threads as in journal.h. */
#ifndef PM_BROKER_JOURNAL_KNOWN_H
#define PM_BROKER_JOURNAL_KNOWN_H

#include "broker/journal.h"

struct pm_known_page {
    const char *blob;
    const char **blobs; /* pictures that it refers to */
    uint32_t blob_count, regions;
};
/* PM_ENOTFOUND when the page is not known. */
int pm_journal_known(struct pm_journal *j, const char *fingerprint, struct pm_arena *arena,
                     struct pm_known_page *out, struct pm_error *err);

struct pm_known_total {
    uint64_t pages, bytes;
};
int pm_journal_known_total(struct pm_journal *j, struct pm_known_total *out, struct pm_error *err);

struct pm_known_old {
    char fingerprint[PM_FINGERPRINT_CHARS + 1];
    uint64_t bytes;
    int64_t used_us;
};
/* Those whose last use lies furthest back, at most `most` of them. */
int pm_journal_known_oldest(struct pm_journal *j, struct pm_known_old *out, uint32_t most,
                            uint32_t *count_out, struct pm_error *err);

int pm_journal_models(struct pm_journal *j,
                      void (*visit)(void *ctx, const char *reader, const char *identity), void *ctx,
                      struct pm_error *err);

#endif
