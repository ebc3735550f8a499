/* The chat template of a checkpoint (chat_template.jinja): the part of Jinja that such templates use, run
 * over JSON values. Rendering is as with trim_blocks and lstrip_blocks (transformers apply_chat_template).
 *
 * What is not known is refused when the template is parsed, with line and construct: never rendered wrongly.
 * Loops, recursion and output are bounded. Ownership: pm_template_free; the rendered text is the caller's.
 * Threads: read-only after parsing. Errors: PM_EFORMAT (syntax; line named), PM_EUNSUPPORTED (construct
 * named; a few depend on values and come from rendering), PM_EINVAL (rendering: undefined value used, wrong
 * type, raise_exception; line named), PM_ELIMIT. */
#ifndef PM_ENGINE_TEXT_TEMPLATE_H
#define PM_ENGINE_TEXT_TEMPLATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct pm_template;

int pm_template_parse(const char *name, const char *text, size_t bytes, struct pm_template **out,
                      struct pm_error *err);
void pm_template_free(struct pm_template **tmpl);

/* variables: an object: "messages", "add_generation_prompt", "enable_thinking", "tools", ... *text_out:
 * free(). */
int pm_template_render(const struct pm_template *tmpl, const json_t *variables, char **text_out,
                       size_t *bytes_out, struct pm_error *err);

/* The variables that transformers' apply_chat_template hands to a template: messages (an array; each
 * message's "reasoning_content" is filled from "thinking" or "reasoning"), tools (NULL: none, which is null),
 * documents (null), add_generation_prompt, and all of extra (an object or NULL; it wins). json_decref. */
int pm_template_chat_variables(const json_t *messages, const json_t *tools, bool add_generation_prompt,
                               const json_t *extra, json_t **variables_out, struct pm_error *err);

#endif
