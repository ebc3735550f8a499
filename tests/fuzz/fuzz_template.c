/* Any bytes as a chat template. Up to the first NUL they are the template, the rest the variables as JSON; a
 * small conversation stands in when that is none. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}, {\"type\": \"text\", "
    "\"text\": \"a b\"}]},"
    " {\"role\": \"assistant\", \"content\": \"<think>x</think> y\", \"tool_calls\": [{\"name\": \"f\", "
    "\"arguments\":"
    " {\"k\": [1, 2.5, null, true]}}]}], \"tools\": null, \"n\": 3, \"s\": \" \\u00e9 \", \"l\": [3, 1, 2]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t bytes = end ? (size_t)(end - data) : size;
    struct pm_template *t;
    struct pm_error err;
    if (pm_template_parse("fuzz", (const char *)data, bytes, &t, &err))
        return 0;
    json_t *variables =
        end ? json_loadb((const char *)end + 1, size - bytes - 1, JSON_ALLOW_NUL, NULL) : NULL;
    if (!json_is_object(variables)) {
        json_decref(variables);
        variables = json_loads(conversation, 0, NULL);
    }
    char *text;
    size_t text_bytes;
    if (!pm_template_render(t, variables, &text, &text_bytes, &err)) {
        if (!pm_utf8_is_valid(text, text_bytes))
            abort();
        free(text);
    }
    json_decref(variables);
    pm_template_free(&t);
    return 0;
}
