/* Any bytes as a pattern and as a schema. What compiles is followed at random: every mask must leave a way
 * on, every token of it must be accepted, and what JSON ends in must be JSON. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/grammar.h"

enum { TOKENS = 255 + 6, WORDS = (TOKENS + 31) / 32, STEPS = 60 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pm_token_trie *vocabulary(const uint8_t **bytes, size_t *sizes)
{
    static const char *const longer[] = {"ab", "\": ", "[[", "true", "12", "\xc3\xa9"};
    static uint8_t single[255];
    struct pm_token_trie *trie = NULL;
    for (int i = 0; i < TOKENS; i++) {
        if (i < 255)
            single[i] = (uint8_t)(i + 1);
        bytes[i] = i < 255 ? &single[i] : (const uint8_t *)longer[i - 255];
        sizes[i] = i < 255 ? 1 : strlen(longer[i - 255]);
    }
    if (pm_token_trie_new_bytes(bytes, sizes, TOKENS, &trie, NULL))
        abort();
    return trie;
}

static void follow(const struct pm_grammar *g, const uint8_t *choices, size_t count, bool is_json)
{
    const uint8_t *bytes[TOKENS];
    size_t sizes[TOKENS];
    struct pm_token_trie *trie = vocabulary(bytes, sizes);
    struct pm_grammar_state *s = pm_grammar_begin(g);
    struct pm_buf text = {0};
    for (size_t step = 0; step < STEPS && !pm_grammar_is_finished(s); step++) {
        uint32_t mask[WORDS];
        pm_grammar_mask(s, trie, NULL, 0, TOKENS, mask);
        int wanted = count ? choices[step % count] * 7 + (int)step : 0, id = -1;
        for (int i = 0; i < TOKENS && id < 0; i++)
            if (mask[(wanted + i) % TOKENS / 32] >> ((wanted + i) % TOKENS % 32) & 1)
                id = (wanted + i) % TOKENS;
        if (id < 0 || !pm_grammar_accept(s, bytes[id], sizes[id]))
            abort();
        pm_buf_append(&text, bytes[id], sizes[id]);
        if (is_json && pm_grammar_is_complete(s)) {
            json_t *value = json_loadb((const char *)text.data, text.size, JSON_DECODE_ANY, NULL);
            if (value == NULL)
                abort();
            json_decref(value);
        }
    }
    pm_buf_free(&text);
    pm_grammar_end(&s);
    pm_token_trie_free(&trie);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = pm_xstrndup((const char *)data, size);
    for (int is_json = 0; is_json < 2; is_json++) {
        struct pm_grammar *g = NULL;
        struct pm_error err;
        if ((is_json ? pm_grammar_json_schema : pm_grammar_regex)(text, &g, &err))
            continue;
        follow(g, data, size, is_json);
        pm_grammar_free(&g);
    }
    free(text);
    return 0;
}
