/* Continuous batching: requests (a prompt with pictures, how to sample) in, tokens out, one short step at a
 * time. Each step does one slice of work: a slice of a picture's vision tower, or one pass of the decoder in
 * which every running sequence has its decode row (and drafts to verify) and the rest of the rows is prefill
 * of the sequences that wait. A request's tokens never depend on what else runs.
 *
 * Memory: the KV cache is one pool of pages. A sequence starts when its prompt fits; when the pool runs out
 * later, the youngest sequence gives its pages back, waits, and is computed again from its ids (the same
 * numbers: rows do not depend on how they are cut). So the oldest one always gets on, and nothing fails that
 * could run alone.
 *
 * Ownership: requests are copied, pictures are borrowed until the request's vision part is done (final event
 * at the latest). Events are valid until the next call. Threads: one owner. Errors: PM_EINVAL, PM_ELIMIT
 * (prompt too long: with the numbers), PM_EBUSY (full). */
#ifndef PM_ENGINE_VLM_GENERATE_H
#define PM_ENGINE_VLM_GENERATE_H

#include "engine/text/grammar.h"
#include "engine/text/sampler.h"
#include "engine/vlm/model.h"
#include "engine/vlm/mtp.h"

enum { PM_GENERATE_LOOP_UNIT = 64 };

enum pm_generate_end {
    PM_GENERATE_STOP,   /* an end token, or a stop string */
    PM_GENERATE_LENGTH, /* max_tokens or the model's positions */
    PM_GENERATE_ERROR,
};

struct pm_generate_config {
    const struct pm_vlm_model *model;     /* borrowed */
    const struct pm_tokenizer *tokenizer; /* borrowed; NULL: ids only, no text, no grammar */
    const struct pm_kernels *kernels;
    int threads;
    int max_running;  /* sequences at once */
    int prefill_rows; /* most prefill rows of one pass; 0: 256 */
    size_t kv_bytes;  /* most memory of the KV cache; 0: enough for max_running x 4096 tokens */
    /* How long a step shall take, about: slices and prefill rows follow what was measured, and pictures make
     * way so that a text in the middle waits a little less than three steps for its next token. While none is
     * in the middle, texts wait for the pictures of others, so that eight begin together. slice_macs is the
     * first guess. 0: slices are always slice_macs. */
    int64_t step_us;
    /* Most memory of the process beyond mapped files, all together; 0: no limit. What a request needs of it
     * is known when it is admitted; while it is not free, pictures and sequences wait. */
    size_t memory_bytes;
    bool kv_int8; /* the cache in 8 bits; not with a model of f32 */
    /* Most memory for what the tower made of the last pictures, for identical ones; 0: 64 MB; -1: none */
    int64_t vision_cache_bytes;
    int64_t slice_macs; /* work of one step, about; 0: 20e9 (100 ms on two cores) */
    /* A request's drafts are the most that are made: how many, is chosen for every pass by what they cost and
     * bring (draft_plan.h). False: always all of them. */
    bool drafts_when_paying;
    /* The extra layer gets the tower's tokens at a picture's places; else the placeholder's row. */
    bool drafts_see_pictures;
    /* For benches: called with each draft of the extra layer, which it may replace. slot: where the draft
     * would stand in the request's ids. NULL in production. */
    void (*draft_hook)(void *ctx, uint64_t id, int slot, int32_t *token);
    void *draft_hook_ctx;
};

struct pm_generate_request {
    uint64_t id;
    const int32_t *ids; /* the prompt; one placeholder id an image, expanded here to its token count */
    int id_count;
    const struct pm_image *images; /* in the order of their placeholders */
    int image_count;
    int max_tokens; /* >= 1 */
    struct pm_sampling sampling;
    struct pm_stop stop;
    const struct pm_grammar *grammar; /* borrowed until the final event; NULL: free text */
    int drafts;                       /* 0..PM_MTP_DRAFTS_MAX from the extra layer, when the model has it */
    bool ignores_eos;                 /* benches and parity: run to max_tokens */
    /* Ends (as PM_GENERATE_LENGTH) when the last so many generated ids repeat one unit of at most
     * PM_GENERATE_LOOP_UNIT ids: a model that has lost its way. 0: off, as the reference. */
    int loop_tokens;
};

/* Where a request's time goes. What requests do together is divided among them. */
enum pm_generate_phase {
    PM_GENERATE_PREPROCESS,
    PM_GENERATE_VISION,
    PM_GENERATE_PREFILL,
    PM_GENERATE_DECODE,
    PM_GENERATE_DRAFT,
    PM_GENERATE_PHASES
};
const char *pm_generate_phase_name(enum pm_generate_phase phase);

struct pm_generate_event {
    uint64_t id;
    bool is_final;
    const struct pm_sample *samples; /* since the last event */
    int sample_count;
    const char *text; /* released since the last event, UTF-8; final: the rest */
    size_t text_bytes;
    /* final */
    enum pm_generate_end end;
    struct pm_error error;
    int prompt_tokens, generated_tokens, drafted_tokens, accepted_tokens;
    int64_t begun_us; /* pm_clock_us: its first work; 0: none */
    int64_t spent_us[PM_GENERATE_PHASES];
};

/* What was done since the start, for benches and tests. */
struct pm_generate_counters {
    uint64_t pictures, pictures_reused;   /* read; of these from the cache of features */
    uint64_t vision_slices, passes, rows; /* passes: of the decoder; rows: of all passes */
    int64_t longest_gap_us;               /* between two tokens of a text that was not paused */
    uint64_t waits;                       /* steps in which a picture waited for memory */
    uint64_t shared_slots;                /* of prompts, taken over from another one that began alike */
    uint64_t pauses;                      /* sequences that gave their cache to an older one */
};

struct pm_generate;

int pm_generate_new(const struct pm_generate_config *config, struct pm_generate **out, struct pm_error *err);
void pm_generate_free(struct pm_generate **generate);

int pm_generate_room(const struct pm_generate *generate);
int pm_generate_running(const struct pm_generate *generate);
struct pm_generate_counters pm_generate_counters(const struct pm_generate *generate);
/* Most tokens (prompt and text) that one sequence can have: the model's positions or the cache, whichever is
 * less. */
int pm_generate_token_limit(const struct pm_generate *generate);
/* Of config.memory_bytes, what requests have in all; SIZE_MAX without a limit. */
size_t pm_generate_memory(const struct pm_generate *generate);
/* PM_EINVAL for a request that makes no sense (an id already running, as many placeholders as pictures, ids
 * outside the vocabulary, a sampling setting), PM_ELIMIT for one that can never fit, PM_EBUSY when full. */
int pm_generate_admit(struct pm_generate *generate, const struct pm_generate_request *request,
                      struct pm_error *err);
/* Drops a request at once, without an event, whatever it was doing. PM_ENOTFOUND. */
int pm_generate_cancel(struct pm_generate *generate, uint64_t id, struct pm_error *err);
/* One slice of work; events_out: [count_out], one for each request that got on. Errors are of the engine as a
 * whole; what goes wrong with one request is its final event. */
int pm_generate_step(struct pm_generate *generate, const struct pm_generate_event **events_out,
                     size_t *count_out, struct pm_error *err);

#endif
