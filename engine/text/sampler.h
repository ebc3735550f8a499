/* From logits to the next token. Pure: randomness is a seed and the index of the token, so that the same seed
 * gives the same text whatever else is in the batch.
 *
 * Order of the processors, as in transformers: logit bias, repetition penalty (once for each distinct id of
 * prompt and text; s < 0 ? s * p : s / p), frequency and presence penalty (generated ids), no-repeat n-gram,
 * constraint mask, temperature, top-k (ties at the edge all stay), top-p, min-p. Temperature 0 is greedy: the
 * first of the highest.
 *
 * Ownership: the caller's. Threads: reentrant. Errors: PM_EINVAL names the setting and its range. */
#ifndef PM_ENGINE_TEXT_SAMPLER_H
#define PM_ENGINE_TEXT_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { PM_TOP_LOGPROBS_MAX = 20, PM_LOGIT_BIAS_MAX = 1024 };

struct pm_logit_bias {
    int32_t id;
    float bias; /* -100..100; -100 forbids */
};

/* pm_sampling_default() is plain greedy decoding. */
struct pm_sampling {
    float temperature;        /* 0 (greedy) .. 10 */
    int top_k;                /* 0: off */
    float top_p;              /* (0, 1]; 1: off */
    float min_p;              /* [0, 1]; 0: off */
    float repetition_penalty; /* > 0; 1: off */
    float presence_penalty;   /* -2..2; 0: off */
    float frequency_penalty;  /* -2..2; 0: off */
    int no_repeat_ngram;      /* 0: off */
    uint64_t seed;
    const struct pm_logit_bias *biases; /* borrowed */
    size_t bias_count;
    int top_logprobs; /* 0..PM_TOP_LOGPROBS_MAX */
};
struct pm_sampling pm_sampling_default(void);
int pm_sampling_check(const struct pm_sampling *sampling, int vocab, struct pm_error *err);

/* What a sequence has said so far. */
struct pm_history {
    const int32_t *ids; /* prompt (image placeholders included) and generated ids */
    int count, prompt_count;
};

struct pm_sample {
    int32_t id;
    float logprob; /* of id under the model's own distribution: log softmax of the raw logits */
    int top_count;
    int32_t top_ids[PM_TOP_LOGPROBS_MAX]; /* most likely first, of the raw logits */
    float top_logprobs[PM_TOP_LOGPROBS_MAX];
};

/* Applies the processors in place: scores [vocab]; what is removed becomes -INFINITY, NaN too. mask: NULL or
 * one bit an id. Temperature 0 leaves the scale as it is here. The parity test calls this; pm_sampler_pick
 * does both. scratch: [vocab] floats. */
void pm_sampler_process(const struct pm_sampling *sampling, const struct pm_history *history,
                        const uint32_t *mask, float *scores, int vocab, float *scratch);

/* The next token. logits [vocab] are kept; index: how many tokens were generated before. scratch: [2 * vocab]
 * floats. Greedy without processors touches the logits once. Where the processors leave nothing (a mask and
 * an n-gram rule that exclude each other), the mask alone decides, greedily. */
void pm_sampler_pick(const struct pm_sampling *sampling, const struct pm_history *history,
                     const uint32_t *mask, const float *logits, int vocab, int index, float *scratch,
                     struct pm_sample *out);

/* ---- stop strings ---- */

/* Finds the first stop string in the text as it grows, and how much of the text is safe to show: the tail
 * that may still become a stop string is held back. */
struct pm_stop {
    const char *const *strings; /* borrowed, none empty */
    size_t count;
};
/* text: all so far. Returns true when a stop string begins at *cut_out (the text ends there); else *cut_out
 * is how many bytes may be released. from: bytes already searched. Of several the one that is complete first
 * counts (at the same end: the longest), so that the result does not depend on how the text was cut up. */
bool pm_stop_find(const struct pm_stop *stop, const char *text, size_t bytes, size_t from, size_t *cut_out);

#endif
