/* What generate.c (life, admission, steps), generate_sequence.c (one request), generate_picture.c
 * (pictures), generate_pass.c (one pass of the decoder) and generate_drafts.c (the extra layer) share. */
#ifndef PM_ENGINE_VLM_GENERATE_INTERNAL_H
#define PM_ENGINE_VLM_GENERATE_INTERNAL_H

#include "base/mem.h"
#include "engine/vlm/draft_plan.h"
#include "engine/vlm/features.h"
#include "engine/vlm/generate.h"

enum { PM_GEN_SAMPLES = PM_MTP_DRAFTS_MAX + 1 }; /* most new tokens of a sequence in one pass */

/* A picture of the prompt: where its placeholders lie and what the tower made of it. */
struct pm_gen_image {
    struct pm_image image; /* borrowed until `embeddings` is there */
    int first, count;      /* slots */
    float *embeddings;     /* [count, hidden]; kept until the end: a paused sequence is computed again */
};

struct pm_gen_seq {
    uint64_t id;
    /* ids[0..count): the prompt with its placeholders, then what was generated; the cache holds the first
     * `computed` of them. What is to be run next is always [computed, count): a prompt, its rest, the token
     * sampled last, or all of it after a pause. */
    int32_t *ids;
    int count, prompt_count, end_count; /* end_count: prompt + max_tokens */
    int computed;
    struct pm_kv kv;
    int32_t (*positions)[3]; /* [prompt_count] */
    int32_t delta;           /* position of a later slot = slot + delta */
    struct pm_gen_image *images;
    int image_count, images_done;
    int64_t patches; /* of its largest picture */

    struct pm_sampling sampling; /* biases owned */
    char **stop_strings;         /* owned */
    struct pm_stop stop;
    struct pm_grammar_state *grammar; /* NULL: free */
    bool ignores_eos;
    int loop_tokens, loop_runs[PM_GENERATE_LOOP_UNIT + 1]; /* [u]: ids in a row equal to the one u before */

    int drafts; /* asked for; 0 without an extra layer */
    int32_t draft[PM_MTP_DRAFTS_MAX];
    int draft_count;
    int draft_goal;    /* how many to make after this pass */
    double draft_rate; /* of its drafts, what part holds */
    /* The extra layer's cache holds the first `filled` slots; the hidden states of slots [filled, computed)
     * wait here until drafts are wanted: [hidden] each. */
    float *waiting;
    int filled, waiting_capacity;

    /* This pass: rows [first_row, first_row + row_count), the last draft_rows of them drafts. */
    int first_row, row_count, draft_rows;
    bool is_prefill;

    struct pm_token_stream stream;
    struct pm_buf text; /* all of it */
    size_t released;    /* bytes that may be shown: no stop string can begin there */
    size_t shown;       /* bytes that events have shown */

    struct pm_sample samples[PM_GEN_SAMPLES]; /* of this step */
    int sample_count;
    bool is_finished;
    enum pm_generate_end end;
    struct pm_error error;
    int drafted, accepted;
    int64_t begun_us, spent_us[PM_GENERATE_PHASES];
    int64_t token_us; /* when it got its last token; 0: none yet, or paused since */
};

/* May have rows in a pass: its pictures have been looked at. */
static inline bool pm_gen_seq_is_ready(const struct pm_gen_seq *s)
{
    return !s->is_finished && s->images_done == s->image_count;
}

struct pm_generate {
    struct pm_generate_config config;
    const struct pm_vlm_config *model;
    struct pm_pool *pool;
    struct pm_kv_pool *kv_pool;
    struct pm_vision *vision;
    struct pm_features *features; /* NULL: none are kept */
    struct pm_decoder *decoder;
    struct pm_mtp *mtp; /* NULL without an extra layer */
    struct pm_token_trie *trie;
    struct pm_draft_plan draft_plan;
    size_t memory;         /* that requests have; SIZE_MAX: no limit */
    int64_t tower_patches; /* with a limit: of the largest picture since the tower's scratch is there */
    int max_rows, prefill_rows;

    struct pm_gen_seq **seqs; /* oldest first */
    int count;
    struct pm_gen_seq *picture_of; /* whose picture is in the tower; NULL: none */
    struct pm_features_key picture_key;
    int slices_in_row;
    /* With config.step_us: the size of a slice, what slices, passes of tokens only, and a row of a prompt
     * take (moving averages), and when the last pass ended. */
    int64_t slice_macs;
    double slice_us, pass_us, row_us;
    int64_t pass_end_us;

    struct pm_decoder_row *rows;       /* [max_rows] */
    struct pm_mtp_row *mtp_rows;       /* [max_rows] */
    float *scratch;                    /* [2 * vocab], the sampler's */
    float *draft_hidden;               /* [max_running, hidden] */
    struct pm_gen_seq **drafting;      /* [max_running] */
    struct pm_draft_text *draft_texts; /* [max_running] */
    uint32_t *mask;                    /* [(vocab + 31) / 32] */

    struct pm_generate_event *events; /* [max_running] */
    struct pm_gen_seq **ended;        /* of the last events: freed by the next call */
    int ended_count;
    struct pm_generate_counters counters;
};

/* ---- generate_sequence.c ---- */
int pm_gen_seq_new(struct pm_generate *g, const struct pm_generate_request *request, struct pm_gen_seq **out,
                   struct pm_error *err);
void pm_gen_seq_free(struct pm_generate *g, struct pm_gen_seq *seq);
/* The token after seq->ids, by the sequence's own rules, from its logits: appended, its text released, the
 * sequence ended where it ends. */
void pm_gen_seq_sample(struct pm_generate *g, struct pm_gen_seq *seq, const float *logits);
void pm_gen_seq_end(struct pm_generate *g, struct pm_gen_seq *seq, enum pm_generate_end end);
void pm_gen_seq_fail(struct pm_gen_seq *seq, const struct pm_error *error);

/* Work of a phase that began at start_us has ended. Returns now. */
int64_t pm_gen_seq_spend(struct pm_gen_seq *seq, enum pm_generate_phase phase, int64_t start_us);

/* ---- generate_steps.c ---- */
void pm_gen_steps_begin(struct pm_generate *g);
/* Is it the turn of the pass, when there is a picture to go on with, too? */
bool pm_gen_steps_pass_first(const struct pm_generate *g);
/* What a slice of the tower, or a pass, has taken. */
void pm_gen_steps_slice(struct pm_generate *g, int64_t us);
void pm_gen_steps_pass(struct pm_generate *g, int64_t us, int rows, int prompt_rows);
/* Most rows of prompts in a pass now; 0: texts in the middle have waited too long for any. */
int pm_gen_steps_rows(const struct pm_generate *g);

/* ---- generate_memory.c ---- */
/* Before and after the generator's own parts are made. PM_ELIMIT when nothing would be left for requests. */
void pm_gen_memory_begin(struct pm_generate *g);
int pm_gen_memory_ready(struct pm_generate *g, struct pm_error *err);
/* PM_ELIMIT when a request can never have what it needs. */
int pm_gen_memory_check(const struct pm_generate *g, int64_t patches, int64_t tokens, struct pm_error *err);
/* Most tokens of a sequence. */
int64_t pm_gen_memory_tokens(const struct pm_generate *g);
/* May the next picture of that sequence go into the tower now? */
bool pm_gen_memory_may_begin(const struct pm_generate *g, const struct pm_gen_seq *seq);
/* The picture goes into the tower, or is in it. */
void pm_gen_memory_use_tower(struct pm_generate *g, const struct pm_gen_seq *seq);
/* Lets the cache have what is left now: what an empty tower held, too. */
int pm_gen_memory_set_pages(struct pm_generate *g, struct pm_error *err);
/* How large the cache of features may be. */
size_t pm_gen_memory_features(const struct pm_generate *g);

/* ---- generate_drafts.c ---- */
/* Drafts for the next pass, of all sequences that had rows in this one. pass_us, rows: what this pass took.
 */
int pm_gen_drafts_run(struct pm_generate *g, int64_t pass_us, int rows, struct pm_error *err);
/* seq takes the first slots of from's cache over: what of them waits for the extra layer comes along. */
int pm_gen_drafts_take_over(struct pm_generate *g, const struct pm_gen_seq *from, struct pm_gen_seq *seq,
                            int slots);
/* The sequence's cache is gone. */
void pm_gen_drafts_forget(struct pm_gen_seq *seq);

/* ---- generate_picture.c ---- */
/* Whose picture is in the tower, or comes next; NULL: none. */
struct pm_gen_seq *pm_gen_picture_next(const struct pm_generate *g);
/* One slice of the picture in the tower, or the next picture into it. What goes wrong is that request's. */
void pm_gen_picture_slice(struct pm_generate *g, struct pm_gen_seq *seq);

/* ---- generate_pass.c ---- */
/* The image token at a slot of the prompt; NULL: it has none. */
const float *pm_gen_embedding(const struct pm_generate *g, const struct pm_gen_seq *s, int slot);
void pm_gen_position(const struct pm_gen_seq *seq, int slot, int32_t out[3]);
bool pm_gen_pass_has_work(const struct pm_generate *g);
/* One pass of the decoder over all sequences that can run, sampling, and the drafts for the next pass. False
 * in *ran_out: there is no room for any before the picture in the tower is done. */
int pm_gen_pass_run(struct pm_generate *g, bool *ran_out, struct pm_error *err);

#endif
