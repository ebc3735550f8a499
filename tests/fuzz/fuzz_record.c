/* Any bytes as a record: the first byte chooses the schema, the rest is decoded. What is read must survive
 * being written and read again. */
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "proto/page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct pm_schema *const pages[] = {&pm_page_schema, &pm_region_text_schema, &pm_out_page_schema,
                                                &pm_doc_pages_schema, &pm_manifest_schema};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pm_header header;
    pm_header_get(data, size < PM_FRAME_HEADER_BYTES ? size : PM_FRAME_HEADER_BYTES, &header, NULL);
    if (!size)
        return 0;
    const struct pm_schema *schema = data[0] < 250 ? pm_msg_schema(data[0]) : pages[(data[0] - 250) % 5];
    struct pm_arena arena = {0};
    struct pm_page_texts texts;
    pm_page_texts_decode(data + 1, size - 1, &arena, &texts, NULL);
    if (schema) {
        struct pm_buf first = {0}, second = {0};
        void *record = pm_arena_alloc(&arena, schema->size), *again = pm_arena_alloc(&arena, schema->size);
        struct pm_error err;
        if (!pm_record_decode(schema, data + 1, size - 1, &arena, record, &err)) {
            if (pm_record_try_encode(schema, record, &first, &err) ||
                pm_record_decode(schema, first.data, first.size, &arena, again, &err))
                abort();
            pm_record_encode(schema, again, &second);
            if (first.size != second.size || memcmp(first.data, second.data, first.size))
                abort();
        }
        pm_buf_free(&first);
        pm_buf_free(&second);
    }
    pm_arena_free(&arena);
    return 0;
}
