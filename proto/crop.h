/* A crop that travels inside a LEASE, for a worker that shares no file system with the broker.
 *
 * The payload is one LZ4 block: rows of width * channels bytes without gaps, top to bottom. The record says
 * the sizes. Both sides check everything: a crop comes from a file of layoutd on one side, from the network
 * on the other.
 *
 * Ownership: outputs are the caller's. Threads: pure functions. Errors: PM_ELIMIT for a crop over the limits,
 * PM_EPROTO for a payload that is not what its record says. */
#ifndef PM_PROTO_CROP_H
#define PM_PROTO_CROP_H

#include "base/image.h"
#include "proto/frame.h"
#include "proto/sheet.h"

#define PM_CROP_RAW_BYTES (128u << 20) /* unpacked, at most */

/* Fills the crop_* fields of the lease and appends the block to out. */
int pm_crop_pack(const struct pm_sheet_crop *crop, struct pm_msg_lease *lease, struct pm_buf *out,
                 struct pm_error *err);
/* Does this lease bring its crop along? */
bool pm_crop_is_there(const struct pm_msg_lease *lease);
/* out->image.pixels is allocated: free it. */
int pm_crop_unpack(const struct pm_msg_lease *lease, struct pm_bytes payload, struct pm_sheet_crop *out,
                   struct pm_error *err);

#endif
