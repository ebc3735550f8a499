/* Any bytes as an allow-list and as a key file: read and written again the same, or refused with a line. */
#include <stdlib.h>
#include <string.h>

#include "proto/allowed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pm_allowed list;
    struct pm_key key, again;
    struct pm_error err = {0};
    char rights[PM_RIGHTS_TEXT];
    if (pm_allowed_parse("f", data, size, &list, &err)) {
        if (list.count || strncmp(err.text, "f", 1) != 0)
            abort();
    } else {
        for (size_t i = 0; i < list.count; i++) {
            unsigned parsed;
            if (pm_rights_parse(pm_rights_text(list.keys[i].rights, rights), &parsed, &err) ||
                parsed != list.keys[i].rights || pm_allowed_find(&list, list.keys[i].key) != &list.keys[i] ||
                pm_allowed_named(&list, list.keys[i].name) != &list.keys[i])
                abort();
        }
        pm_allowed_free(&list);
    }
    if (!pm_key_parse("f", data, size, &key, &err)) {
        struct pm_buf text = {0};
        pm_key_print(&key, true, &text);
        if (pm_key_parse("f", text.data, text.size, &again, &err) || memcmp(&key, &again, sizeof key) != 0)
            abort();
        pm_buf_free(&text);
    }
    return 0;
}
