/* Records filled by rule, for every schema there is: each value follows from the field's name and a seed, so
 * that goldens of all messages need no hand-written values and a mixed-up field is noticed. */
#ifndef PM_TESTS_PROTO_SAMPLE_H
#define PM_TESTS_PROTO_SAMPLE_H

#include <stdbool.h>

#include "proto/record.h"

/* Fills record ([schema->size], zeroed) with every field set; memory from the arena. */
void sample_fill(const struct pm_schema *schema, struct pm_arena *arena, void *record, uint32_t seed);
/* NULL when equal, else the name of the first field that differs. */
const char *sample_difference(const struct pm_schema *schema, const void *a, const void *b);

/* The records that travel inside messages or blobs, by name; the messages are pm_msg_schema's. */
extern const struct pm_schema *const sample_page_schemas[];
extern const size_t sample_page_schema_count;

#endif
