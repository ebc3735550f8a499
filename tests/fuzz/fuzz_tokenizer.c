/* Any bytes as tokenizer.json and as a text. Up to the first NUL they are the file; when it opens, it encodes
 * the rest. The rest also goes through a tokenizer of plain bytes, which must give it back. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_unicode.h"

enum { TEXT_BYTES_MAX = 2048 }; /* longer texts find nothing more and cost most of the time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every byte is a token, "th", "he" and "the" are too, and <x> is added. */
static struct pm_tokenizer *bytes_tokenizer(void)
{
    struct pm_buf json = {0};
    struct pm_tokenizer *t;
    pm_buf_text(&json,
                "{\"added_tokens\":[{\"id\":300,\"content\":\"<x>\",\"special\":true}],\"decoder\":{\"type\":"
                "\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                "\"model\":{\"type\":\"BPE\",\"merges\":[\"t h\",\"h e\",\"th e\",\"t he\"],\"vocab\":{"
                "\"th\":256,\"he\":257,\"the\":258");
    for (int b = 0, next = 256; b < 256; b++) {
        int is_own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        pm_buf_printf(&json, ",\"\\u%04x\":%d", is_own ? b : next++, b);
    }
    pm_buf_text(&json, "}}}");
    if (pm_tokenizer_parse("fuzz", (char *)json.data, json.size, &t, NULL))
        abort();
    pm_buf_free(&json);
    return t;
}

static void encode(const struct pm_tokenizer *t, const uint8_t *text, size_t bytes, int must_return)
{
    int32_t *ids;
    size_t count, back_bytes;
    char *back;
    struct pm_buf mended = {0};
    bytes = bytes < TEXT_BYTES_MAX ? bytes : TEXT_BYTES_MAX;
    for (int special = 0; special < 2; special++) {
        if (pm_tokenizer_encode(t, (const char *)text, bytes, special, &ids, &count, NULL))
            continue;
        struct pm_token_stream stream = {0};
        struct pm_buf streamed = {0};
        if (pm_tokenizer_decode(t, ids, count, 0, &back, &back_bytes, NULL))
            abort();
        for (size_t i = 0; i < count; i++)
            pm_token_stream_add(&stream, t, ids[i], 0, &streamed);
        pm_token_stream_finish(&stream, &streamed);
        pm_buf_clear(&mended);
        pm_unicode_mend(text, bytes, &mended);
        if (must_return &&
            (back_bytes != mended.size || (back_bytes && memcmp(back, mended.data, back_bytes) != 0) ||
             streamed.size != back_bytes || (back_bytes && memcmp(back, streamed.data, back_bytes) != 0)))
            abort();
        pm_buf_free(&streamed);
        free(back);
        free(ids);
    }
    pm_buf_free(&mended);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pm_tokenizer *plain;
    if (!plain)
        plain = bytes_tokenizer();
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t file = end ? (size_t)(end - data) : size, text = end ? file + 1 : size;
    struct pm_tokenizer *t;
    if (!pm_tokenizer_parse("fuzz", (const char *)data, file, &t, NULL)) {
        encode(t, data + text, size - text, 0);
        pm_tokenizer_free(&t);
    }
    encode(plain, data, size, 1);
    return 0;
}
