/* How many tokens the extra layer should guess ahead, from what guessing has cost and brought so far.
 *
 * A draft costs a row of the next pass and a part of a step of the extra layer, and brings a token when it
 * and all drafts before it are right. Passes of few rows wait for the weights, so rows are nearly free; at
 * some batch size they no longer are. Where that lies depends on the machine and on what else runs on it:
 * passes and draft steps are timed as they happen (moving averages by number of rows), each text's drafts are
 * counted, and for every next pass the drafts are chosen that promise most tokens a second. A text that has
 * had none so far owes the layer its prompt: what that takes is divided among the passes that it will need,
 * by the length of texts before it. Now and then one draft is made although none pays, so that a text that
 * has become easy is noticed; seldom where they would not pay if they all held, which is a matter of the
 * machine. And now and then none is made although they pay, so that what a pass without them takes stays
 * known.
 *
 * Drafts never change a text, so nothing here does.
 *
 * Pure: times are arguments. Ownership: plain values. Threads: one owner. Errors: none. */
#ifndef PM_ENGINE_VLM_DRAFT_PLAN_H
#define PM_ENGINE_VLM_DRAFT_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum { PM_DRAFT_PLAN_ROWS = 128, PM_DRAFT_PLAN_DEPTH = 4 };

struct pm_draft_times {
    double us[PM_DRAFT_PLAN_ROWS + 1];     /* moving average by rows */
    uint64_t seen[PM_DRAFT_PLAN_ROWS + 1]; /* when last, in passes; 0: never */
};

struct pm_draft_plan {
    struct pm_draft_times passes, steps;
    uint64_t now;     /* passes observed */
    double rate;      /* share of drafts that hold, given that the ones before them did: of all texts */
    uint64_t tried;   /* drafts that were looked at: the first ones count for more */
    int quiet, probe; /* choices without a draft; after how many one is made all the same */
    uint64_t choices, looked; /* the last one without drafts so that such a pass is timed */
    int look;                 /* choices between two of those */
    double fill_us;           /* a slot of the layer's cache, many at once: moving average; 0: never seen */
    double length;            /* tokens of a text: moving average; 0: none has ended */
};

/* One text in the next pass. */
struct pm_draft_text {
    double rate; /* its own share */
    int most;    /* drafts that it could have, 0..PM_DRAFT_PLAN_DEPTH */
    int drafts;  /* out */
    int behind;  /* slots of its prompt and text that the layer has not seen */
    int written; /* tokens so far */
};

void pm_draft_plan_begin(struct pm_draft_plan *plan);
/* A pass of that many rows, none of them of a prompt. */
void pm_draft_plan_pass(struct pm_draft_plan *plan, int rows, int64_t us);
/* One step of the extra layer that made that many drafts and nothing else. */
void pm_draft_plan_step(struct pm_draft_plan *plan, int rows, int64_t us);
/* A step that did nothing but fill the layer's cache, or nearly. */
void pm_draft_plan_fill(struct pm_draft_plan *plan, int slots, int64_t us);
/* A text has ended. */
void pm_draft_plan_end(struct pm_draft_plan *plan, int tokens);
/* Of a text's drafts so many held; its own rate is moved, too (begin it with plan->rate). */
void pm_draft_plan_outcome(struct pm_draft_plan *plan, double *rate, int drafted, int accepted);
/* What a pass of that many rows will take, in us: seen, between two seen ones, or guessed from the nearest. 0
 * when nothing was seen. */
double pm_draft_plan_guess(const struct pm_draft_plan *plan, int rows);
/* Chooses for all texts that are in the next pass; true when any drafts. */
bool pm_draft_plan_choose(struct pm_draft_plan *plan, struct pm_draft_text *texts, int count);

#endif
