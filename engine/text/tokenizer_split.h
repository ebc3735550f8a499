/* Cuts text into words by a split expression (Oniguruma syntax), behaviour Isolated: what matches and what
 * lies between matches are both pieces.
 *
 * Ownership: pm_splitter_free; pieces are views of the text. Threads: a splitter is read-only, a scan belongs
 * to one thread. Errors: PM_EFORMAT for an expression that does not compile; PM_ELIMIT for one that needs too
 * many steps or too much memory on this text. */
#ifndef PM_ENGINE_TEXT_TOKENIZER_SPLIT_H
#define PM_ENGINE_TEXT_TOKENIZER_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct pm_splitter;
int pm_splitter_new(const char *pattern, size_t bytes, struct pm_splitter **out, struct pm_error *err);
void pm_splitter_free(struct pm_splitter **splitter);

/* One pass over one text (valid UTF-8). */
struct pm_split_scan;
struct pm_split_scan *pm_split_scan_new(void);
void pm_split_scan_free(struct pm_split_scan **scan);
void pm_split_start(struct pm_split_scan *scan, const struct pm_splitter *splitter, const uint8_t *text,
                    size_t bytes);
/* The next piece, never empty; PM_ENOTFOUND after the last. */
int pm_split_next(struct pm_split_scan *scan, const uint8_t **piece_out, size_t *bytes_out,
                  struct pm_error *err);

#endif
