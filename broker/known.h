/* What was read before and need not be read again: pages by their fingerprint, documents by what a submit
 * says.
 *
 * A page. layoutd hashes all that the text of a page depends on, the model included, and asks (verbs/seen.c)
 * before it lays the page out; its result then says only that the page is known, and pm_known_fill puts the
 * assembled page in. When a page is assembled without a failed region the journal keeps it under its
 * fingerprint, until it was not used for a set time or there is too much of them.
 *
 * A document. A submit without an idempotency key gets one made of who submits, the document's content, its
 * name, options and model: submitting the same again gives the first job, while that is on its way or was
 * read well. Such keys begin with PM_KNOWN_KEY; the scheduler gives them up when a job does not end well.
 *
 * Threads: the broker's. */
#ifndef PM_BROKER_KNOWN_H
#define PM_BROKER_KNOWN_H

#include "broker/broker.h"
#include "broker/journal_known.h"

/* PM_ENOTFOUND: not known, or a blob of it is gone (then it is forgotten). */
int pm_known_find(struct pm_broker *b, const char *fingerprint, struct pm_known_page *out,
                  struct pm_error *err);
/* Completes a page result that says is_known: blob, blobs and the number of regions in failed_regions' place
 * (cost_count). PM_ENOTFOUND: the page has to be laid out after all. */
int pm_known_fill(struct pm_broker *b, struct pm_msg_result *r, struct pm_error *err);
/* Housekeeping: drops what was not used for long, and the oldest while there is too much; a few at a time. */
void pm_known_expire(struct pm_broker *b);

/* The identity of the model that workers read with under this name; "" when none is here or they differ. */
const char *pm_known_model(const struct pm_broker *b, const char *reader);

/* Which model a reader's workers had last, kept in the journal: so the key of a document is the same before
 * and after a restart, and another one once its reader has another model. */
int pm_known_open(struct pm_broker *b, struct pm_error *err);
void pm_known_worker_came(struct pm_broker *b, const struct pm_conn *c);
void pm_known_free(struct pm_broker *b);

/* What a submit without a reader means: as before the restart, also before the workers are back. NULL,
 * PM_EBUSY: some are back, and that one is not. */
const char *pm_known_reader(struct pm_broker *b, struct pm_error *err);

/* The key of a submit that has none; in the turn's arena. "" when it is to be read again in any case. */
const char *pm_known_key(struct pm_broker *b, const char *client, const struct pm_msg_submit *submit);

#endif
