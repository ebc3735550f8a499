/* The chat template of a checkpoint (chat_template.jinja): the part of Jinja that such templates use, run
 * over JSON values. Rendering is as with trim_blocks and lstrip_blocks (transformers apply_chat_template).
 *
 * What is not known is refused when the template is parsed, with line and construct: never rendered wrongly.
 * Loops, recursion and output are bounded. Ownership: pm_template_free; the rendered text is the caller's.
 * Threads: read-only after parsing. Errors: PM_EFORMAT (syntax; line named), PM_EUNSUPPORTED (construct
 * named), PM_EINVAL (rendering: undefined value used, wrong type; line named), PM_ELIMIT. */
#ifndef PM_ENGINE_TEXT_TEMPLATE_H
#define PM_ENGINE_TEXT_TEMPLATE_H

#include <jansson.h>
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

#endif
