#include "engine/json.h"

int pm_json_object(const char *what, const char *text, size_t bytes, json_t **out, struct pm_error *err)
{
    json_error_t why = {.line = 1};
    json_t *root = json_loadb(text ? text : "", bytes, JSON_REJECT_DUPLICATES, &why);
    *out = json_is_object(root) ? root : NULL;
    if (*out)
        return 0;
    int rc = pm_fail(err, PM_EFORMAT, "%s line %d: not a JSON object%s%s", what, root ? 1 : why.line,
                     root ? "" : ": ", root ? "" : why.text);
    json_decref(root);
    return rc;
}
