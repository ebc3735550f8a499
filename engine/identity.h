/* What a model is, as a short text: two model folders of equal identity read equal pictures alike.
 *
 * The BLAKE2b-256, in hex, of the manifest and of the files that it names: of packed weights the header,
 * which holds the checksums of all the rest, of other files every byte. So it costs microseconds, however
 * large the model. The version of the program is part of it: another version may compute another text.
 *
 * Threads: reentrant. Errors: PM_ENOTFOUND, PM_EFORMAT, PM_ELIMIT (a side file over 256 MB), with the file's
 * path. */
#ifndef PM_ENGINE_IDENTITY_H
#define PM_ENGINE_IDENTITY_H

#include "base/hash.h"
#include "engine/manifest.h"

int pm_model_identity(const struct pm_model_manifest *manifest, char out[PM_HASH_HEX + 1],
                      struct pm_error *err);

#endif
