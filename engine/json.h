/* JSON files of models are objects; keys that are there twice are refused.
 *
 * Ownership: *out is the caller's (json_decref), NULL on failure. Threads: none. Errors: PM_EFORMAT with
 * file, line and reason. */
#ifndef PM_ENGINE_JSON_H
#define PM_ENGINE_JSON_H

#include <jansson.h>

#include "base/error.h"

/* what: the file's name, for messages. */
int pm_json_object(const char *what, const char *text, size_t bytes, json_t **out, struct pm_error *err);

#endif
