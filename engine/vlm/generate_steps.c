/* Whose turn it is, and how much of it: slices of pictures, passes of what runs.
 *
 * A pass costs the same for one text as for six, so pictures are looked at first and texts gather. But a text
 * in the middle gets its next token before PATIENCE steps are over, and a prompt is computed as soon as it is
 * there: its rows gain nothing by waiting, and the tokens of others ride along. Only while no text is in the
 * middle do texts that are ready to begin wait for others whose pictures come next: eight that begin together
 * share all their passes. */
#include "base/clock.h"
#include "engine/vlm/generate_internal.h"

#define SLICES_IN_ROW 4    /* without step_us */
#define PATIENCE      2.6  /* steps between two passes; of 80 ms: a fifth more is less than 250 ms */
#define ROWS_STEPS    1.5  /* a pass with rows of prompts may take so many steps */
#define ALONE_STEPS   4    /* when no text waits for its next token */
#define GATHER_TEXTS  8    /* for so many a pass costs little more than for one */
#define GATHER_STEPS  600  /* after so many since its first picture was begun, a text waits for no other */
#define LEAST_ROWS    16   /* below that a pass over the weights is mostly waiting for memory */
#define NEW           0.25 /* weight of a new observation */
#define MACS_SPAN     16   /* a slice is at most so much larger or smaller than first guessed */

void pm_gen_steps_begin(struct pm_generate *g)
{
    g->slice_macs = g->config.slice_macs;
    g->slice_us = g->pass_us = (double)g->config.step_us;
    g->row_us = 0;
}

/* Ready to begin: pictures looked at, prompt to be computed. */
static bool has_prompt(const struct pm_gen_seq *s)
{
    return pm_gen_seq_is_ready(s) && s->count - s->computed > 1;
}

/* Is it better to look at the next picture than to begin with the texts that are ready? */
static bool gathers(const struct pm_generate *g)
{
    int64_t now_us = pm_clock_us();
    int ready = 0;
    for (int i = 0; i < g->count; i++) {
        const struct pm_gen_seq *s = g->seqs[i];
        if (s->token_us || (has_prompt(s) && now_us - s->begun_us > GATHER_STEPS * g->config.step_us))
            return false;
        ready += has_prompt(s);
    }
    return ready < GATHER_TEXTS;
}

bool pm_gen_steps_pass_first(const struct pm_generate *g)
{
    if (!g->config.step_us)
        return g->slices_in_row >= SLICES_IN_ROW;
    if (gathers(g))
        return false;
    for (int i = 0; i < g->count; i++)
        if (has_prompt(g->seqs[i]))
            return true;
    double waited = (double)(pm_clock_us() - g->pass_end_us);
    return waited + g->slice_us + g->pass_us > PATIENCE * (double)g->config.step_us;
}

void pm_gen_steps_slice(struct pm_generate *g, int64_t us)
{
    if (!g->config.step_us || us < 1)
        return;
    g->slice_us += NEW * ((double)us - g->slice_us);
    double macs = (double)g->slice_macs * (double)g->config.step_us / (double)us;
    double next = (double)g->slice_macs + NEW * (macs - (double)g->slice_macs);
    double least = (double)g->config.slice_macs / MACS_SPAN, most = (double)g->config.slice_macs * MACS_SPAN;
    g->slice_macs = (int64_t)(next < least ? least : next > most ? most : next) + 1;
}

void pm_gen_steps_pass(struct pm_generate *g, int64_t us, int rows, int prompt_rows)
{
    if (!g->config.step_us)
        return;
    if (!prompt_rows) {
        g->pass_us += NEW * ((double)us - g->pass_us);
    } else if (prompt_rows >= LEAST_ROWS) {
        double row = (double)us / rows;
        g->row_us = g->row_us > 0 ? g->row_us + NEW * (row - g->row_us) : row;
    }
}

/* Of the texts in the middle: since their last token. -1: there is none. */
static int64_t longest_wait_us(const struct pm_generate *g)
{
    int64_t now_us = pm_clock_us(), longest_us = -1;
    for (int i = 0; i < g->count; i++) {
        const struct pm_gen_seq *s = g->seqs[i];
        if (!s->is_finished && s->token_us && now_us - s->token_us > longest_us)
            longest_us = now_us - s->token_us;
    }
    return longest_us;
}

/* What a pass may take for its prompts' sake. What texts have waited already is taken from it. */
static double prompt_us(const struct pm_generate *g, double waited_us)
{
    double step = (double)g->config.step_us, left = PATIENCE * step - waited_us;
    if (waited_us < 0)
        return ALONE_STEPS * step;
    return left < ROWS_STEPS * step ? left : ROWS_STEPS * step;
}

int pm_gen_steps_rows(const struct pm_generate *g)
{
    if (!g->config.step_us)
        return g->prefill_rows;
    int rows = LEAST_ROWS;
    if (g->row_us > 0) {
        double waited_us = (double)longest_wait_us(g), fit = prompt_us(g, waited_us) / g->row_us;
        if (fit < LEAST_ROWS && waited_us > (double)g->config.step_us)
            return 0; /* texts first: the next pass, right after this one, has all the time */
        rows = fit > g->prefill_rows ? g->prefill_rows : (int)fit; /* 0 at least: see above */
    }
    rows = rows < LEAST_ROWS ? LEAST_ROWS : rows;
    return rows < g->prefill_rows ? rows : g->prefill_rows;
}
