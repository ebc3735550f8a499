/* Byte-level BPE as tokenizer.json states it (huggingface/tokenizers): added tokens are split off first, the
 * rest is cut by the split expression of the pre-tokeniser, mapped to byte characters and merged. No
 * normaliser: ids depend on the exact bytes.
 *
 * Ownership: pm_tokenizer_free; results are the caller's. Threads: read-only after opening. Errors:
 * PM_EFORMAT (file, key, reason) for what tokenizer.json may not hold, PM_EUNSUPPORTED for kinds of tokenizer
 * that this is not, with the name of the part; PM_ELIMIT for texts above PM_TOKENIZER_MAX_BYTES. */
#ifndef PM_ENGINE_TEXT_TOKENIZER_H
#define PM_ENGINE_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PM_TOKENIZER_MAX_BYTES ((size_t)16 << 20)

struct pm_tokenizer;

int pm_tokenizer_open(const char *path, struct pm_tokenizer **out, struct pm_error *err);
/* name is for messages */
int pm_tokenizer_parse(const char *name, const char *json, size_t bytes, struct pm_tokenizer **out,
                       struct pm_error *err);
void pm_tokenizer_free(struct pm_tokenizer **tokenizer);

/* Ids 0..count-1 may occur; there can be holes. */
int pm_tokenizer_size(const struct pm_tokenizer *tokenizer);
/* The id of an added token by its text ("<|user|>"); -1 when there is none. */
int32_t pm_tokenizer_id(const struct pm_tokenizer *tokenizer, const char *text);
bool pm_tokenizer_is_special(const struct pm_tokenizer *tokenizer, int32_t id);
/* The bytes that id stands for (added tokens: their text); NULL for holes. */
const uint8_t *pm_tokenizer_bytes(const struct pm_tokenizer *tokenizer, int32_t id, size_t *bytes_out);

/* Text to ids. parse_special: added tokens in the text become their ids (templates); false: they are plain
 * text (what a user wrote). Bytes that are not UTF-8 are read as U+FFFD, one for each maximal broken part.
 * *ids_out: [*count_out], free(). */
int pm_tokenizer_encode(const struct pm_tokenizer *tokenizer, const char *text, size_t bytes,
                        bool parse_special, int32_t **ids_out, size_t *count_out, struct pm_error *err);

/* Ids to text, U+FFFD for each maximal broken part; free(). Unknown ids are PM_EINVAL. */
int pm_tokenizer_decode(const struct pm_tokenizer *tokenizer, const int32_t *ids, size_t count,
                        bool skip_special, char **text_out, size_t *bytes_out, struct pm_error *err);

/* One id at a time: what each id releases. Text that ends within a character is held back, the whole id's
 * text with it, until it no longer ends with U+FFFD (as the reference's stream does); zero-initialise. */
struct pm_token_stream {
    uint8_t pending[1000]; /* more than this is released as it is */
    int pending_bytes;
};
/* Appends what id releases to out; an unknown id releases nothing. finish: releases what is still held back,
 * with U+FFFD for what is incomplete. */
struct pm_buf;
void pm_token_stream_add(struct pm_token_stream *stream, const struct pm_tokenizer *tokenizer, int32_t id,
                         bool skip_special, struct pm_buf *out);
void pm_token_stream_finish(struct pm_token_stream *stream, struct pm_buf *out);

#endif
