/* Open decoders of the documents in work, a few, the least recently used one leaving first.
 *
 * Pages of one document come one after the other: its decoder, which has parsed the file, is kept between
 * them. Ownership: the cache owns its decoders; what pm_decoders_get gives is valid until the next call.
 * Threads: one owner, and it must live as long as the process (see decode/client.h). */
#ifndef PM_LAYOUTD_DECODERS_H
#define PM_LAYOUTD_DECODERS_H

#include <stdint.h>

#include "layoutd/decode/client.h"
#include "proto/blob.h"

struct pm_decoders;
/* program: of pagemill-decode; copied. cancel_fd: see struct pm_decode_limits; borrowed. */
struct pm_decoders *pm_decoders_new(const char *program, int cancel_fd);
void pm_decoders_free(struct pm_decoders **decoders);

/* The decoder of a source blob, started when there is none. Errors: as pm_decode_start, and the blob's. */
int pm_decoders_get(struct pm_decoders *decoders, struct pm_blobs *blobs, const char *source,
                    const char *password, int64_t now_us, struct pm_decoder **out, struct pm_error *err);
/* Ends those not used since then. Returns how many are left. */
unsigned pm_decoders_expire(struct pm_decoders *decoders, int64_t unused_since_us);

#endif
