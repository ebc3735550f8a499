/* The extra layer at work: how many drafts each sequence shall have in the next pass, the layer's cache
 * filled up to what is computed, and the drafts.
 *
 * While drafts do not pay, the layer does not run at all: hidden states that it would need wait with their
 * sequence, and are run in one go when drafts are wanted. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/vlm/generate_internal.h"

#define FILL_ROWS 8 /* slots of each text, at least, by which the layer's filling is timed */

void pm_gen_drafts_forget(struct pm_gen_seq *s)
{
    s->draft_count = s->filled = 0;
}

static bool is_drafting(const struct pm_gen_seq *s)
{
    return s->row_count && s->drafts && !s->is_finished;
}

/* Most drafts that the sequence could use in the next pass. */
static int most_drafts(const struct pm_gen_seq *s)
{
    int room = s->end_count - s->count - 1;
    if (!is_drafting(s) || s->computed < s->count - 1 || room < 1)
        return 0;
    return s->drafts < room ? s->drafts : room;
}

/* ---- hidden states that wait ---- */

/* Those of the slots that this pass computed: [first row's slot, computed). */
static int keep_hidden(struct pm_generate *g, struct pm_gen_seq *s, struct pm_error *err)
{
    size_t hidden = (size_t)g->model->text.hidden;
    int first = g->rows[s->first_row].slot, wanted = s->computed - s->filled;
    if (wanted > s->waiting_capacity) {
        int capacity = wanted > 2 * s->waiting_capacity ? wanted : 2 * s->waiting_capacity;
        void *memory;
        int rc = pm_alloc_array((size_t)capacity, hidden * sizeof(float), &memory, err);
        if (rc)
            return rc;
        if (first > s->filled)
            memcpy(memory, s->waiting, (size_t)(first - s->filled) * hidden * sizeof(float));
        free(s->waiting);
        s->waiting = memory;
        s->waiting_capacity = capacity;
    }
    for (int slot = first; slot < s->computed; slot++)
        memcpy(s->waiting + (size_t)(slot - s->filled) * hidden,
               pm_decoder_hidden(g->decoder, s->first_row + slot - first), hidden * sizeof(float));
    return 0;
}

int pm_gen_drafts_take_over(struct pm_generate *g, const struct pm_gen_seq *from, struct pm_gen_seq *s,
                            int slots)
{
    size_t hidden = (size_t)g->model->text.hidden;
    int filled = from->filled < slots ? from->filled : slots, waiting = slots - filled;
    if (waiting > s->waiting_capacity) {
        void *memory;
        int rc = pm_alloc_array((size_t)waiting, hidden * sizeof(float), &memory, NULL);
        if (rc)
            return rc;
        free(s->waiting);
        s->waiting = memory;
        s->waiting_capacity = waiting;
    }
    s->filled = filled;
    if (waiting)
        memcpy(s->waiting, from->waiting, (size_t)waiting * hidden * sizeof(float));
    return 0;
}

/* Puts waiting slots behind g->mtp_rows[at], as many as there is room for; the last one that is computed asks
 * for logits when the sequence wants a draft. */
static int put_waiting(struct pm_generate *g, struct pm_gen_seq *s, int at)
{
    size_t hidden = (size_t)g->model->text.hidden;
    int n = s->computed - s->filled;
    n = n < g->max_rows - at ? n : g->max_rows - at;
    for (int i = 0; i < n; i++) {
        struct pm_mtp_row *row = &g->mtp_rows[at + i];
        int slot = s->filled + i;
        *row = (struct pm_mtp_row){.kv = &s->kv,
                                   .slot = slot,
                                   .hidden = s->waiting + (size_t)i * hidden,
                                   .token = s->ids[slot + 1],
                                   .wants_logits = slot == s->computed - 1 && s->draft_goal > 0};
        if (g->config.drafts_see_pictures && slot + 1 < s->prompt_count)
            row->embedding = pm_gen_embedding(g, s, slot + 1);
        pm_gen_position(s, slot, row->position);
    }
    return n;
}

/* The first n waiting slots are in the layer's cache now. */
static void drop_waiting(const struct pm_generate *g, struct pm_gen_seq *s, int n)
{
    size_t hidden = (size_t)g->model->text.hidden;
    s->filled += n;
    if (n && s->filled < s->computed)
        memmove(s->waiting, s->waiting + (size_t)n * hidden,
                (size_t)(s->computed - s->filled) * hidden * sizeof(float));
}

/* ---- drafts ---- */

static int32_t best_of(const float *logits, int vocab)
{
    int best = 0;
    for (int i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Keeps what one more draft needs: its token and the hidden state that the next one goes on from. */
static void keep_draft(struct pm_generate *g, struct pm_gen_seq *s, int row, int keep)
{
    size_t hidden = (size_t)g->model->text.hidden;
    int32_t token = best_of(pm_mtp_logits(g->mtp, row), g->model->text.vocab);
    if (g->config.draft_hook)
        g->config.draft_hook(g->config.draft_hook_ctx, s->id, s->count + s->draft_count, &token);
    s->draft[s->draft_count++] = token;
    memcpy(g->draft_hidden + (size_t)keep * hidden, pm_mtp_hidden(g->mtp, row), hidden * sizeof(float));
}

/* Fills the extra layer's cache over what waits, one pass of it; the last slot of a sequence gives its first
 * draft. *count_out: how many sequences g->drafting has. */
static int first_drafts(struct pm_generate *g, int *count_out, struct pm_error *err)
{
    int rows = 0, end = 0, taken = 0, rc = 0;
    int64_t start_us = pm_clock_us();
    *count_out = 0;
    for (int i = 0; i < g->count; i++)
        if (is_drafting(g->seqs[i]) && g->seqs[i]->draft_goal >= 0)
            rows += put_waiting(g, g->seqs[i], rows);
    if (!rows || (rc = pm_mtp_run(g->mtp, g->mtp_rows, rows, err)))
        return rc;
    for (int i = 0; i < g->count; i++) {
        struct pm_gen_seq *s = g->seqs[i];
        if (!is_drafting(s) || s->draft_goal < 0 || end == rows)
            continue;
        int n = s->computed - s->filled < rows - end ? s->computed - s->filled : rows - end;
        end += n;
        taken += n > 0;
        drop_waiting(g, s, n);
        if (!n || !g->mtp_rows[end - 1].wants_logits)
            continue;
        keep_draft(g, s, end - 1, *count_out);
        g->drafting[(*count_out)++] = s;
    }
    if (taken == *count_out && rows <= 2 * taken) /* one or two slots each: what going on costs */
        pm_draft_plan_step(&g->draft_plan, taken, pm_clock_us() - start_us);
    else if (rows >= FILL_ROWS * taken)
        pm_draft_plan_fill(&g->draft_plan, rows, pm_clock_us() - start_us);
    return 0;
}

static bool wants_more(struct pm_generate *g, struct pm_gen_seq *s)
{
    return s->draft_count < s->draft_goal &&
           !pm_kv_reserve(g->kv_pool, &s->kv, s->computed + s->draft_count, NULL);
}

static int next_drafts(struct pm_generate *g, int count, struct pm_error *err)
{
    size_t hidden = (size_t)g->model->text.hidden;
    int rc = 0;
    while (!rc && count) {
        int64_t start_us = pm_clock_us();
        int kept = 0;
        for (int i = 0; i < count; i++) {
            struct pm_gen_seq *s = g->drafting[i];
            if (!wants_more(g, s))
                continue;
            float *from = g->draft_hidden + (size_t)kept * hidden;
            if (kept != i)
                memcpy(from, g->draft_hidden + (size_t)i * hidden, hidden * sizeof(float));
            struct pm_mtp_row *row = &g->mtp_rows[kept];
            *row = (struct pm_mtp_row){.kv = &s->kv,
                                       .slot = s->computed + s->draft_count - 1,
                                       .hidden = from,
                                       .token = s->draft[s->draft_count - 1],
                                       .wants_logits = true};
            pm_gen_position(s, row->slot, row->position);
            g->drafting[kept++] = s;
        }
        count = kept;
        if (count)
            rc = pm_mtp_run(g->mtp, g->mtp_rows, count, err);
        for (int i = 0; !rc && i < count; i++)
            keep_draft(g, g->drafting[i], i, i);
        if (count && !rc)
            pm_draft_plan_step(&g->draft_plan, count, pm_clock_us() - start_us);
    }
    return rc;
}

/* ---- how many ---- */

/* draft_goal: drafts to make; 0: only the cache is filled; -1: not even that, hidden states wait. */
static bool choose(struct pm_generate *g)
{
    bool any = false;
    int count = 0;
    for (int i = 0; i < g->count; i++) {
        struct pm_gen_seq *s = g->seqs[i];
        s->draft_goal = most_drafts(s);
        if (g->config.drafts_when_paying && s->row_count && !s->is_finished)
            g->draft_texts[count++] = (struct pm_draft_text){.rate = s->draft_rate,
                                                             .most = s->draft_goal,
                                                             .behind = s->computed - s->filled,
                                                             .written = s->count - s->prompt_count};
        any |= is_drafting(s);
    }
    if (!g->config.drafts_when_paying)
        return any;
    any = pm_draft_plan_choose(&g->draft_plan, g->draft_texts, count);
    count = 0;
    for (int i = 0; i < g->count; i++) {
        struct pm_gen_seq *s = g->seqs[i];
        if (!s->row_count || s->is_finished)
            continue;
        s->draft_goal = g->draft_texts[count++].drafts;
        if (!s->draft_goal)
            s->draft_goal = -1;
    }
    return any;
}

/* The time of drafts, divided by who wanted some. */
static void share(struct pm_generate *g, int64_t us)
{
    int count = 0;
    for (int i = 0; i < g->count; i++)
        count += is_drafting(g->seqs[i]) && g->seqs[i]->draft_goal >= 0;
    for (int i = 0; i < g->count; i++)
        if (is_drafting(g->seqs[i]) && g->seqs[i]->draft_goal >= 0)
            g->seqs[i]->spent_us[PM_GENERATE_DRAFT] += us / count;
}

int pm_gen_drafts_run(struct pm_generate *g, int64_t pass_us, int rows, struct pm_error *err)
{
    int64_t start_us = pm_clock_us();
    bool has_prompt = false, any = false;
    int count = 0, rc = 0;
    for (int i = 0; i < g->count && !rc; i++) {
        struct pm_gen_seq *s = g->seqs[i];
        has_prompt |= s->row_count && s->is_prefill;
        if (is_drafting(s)) {
            rc = keep_hidden(g, s, err);
            any = true;
        }
    }
    if (!has_prompt)
        pm_draft_plan_pass(&g->draft_plan, rows, pass_us);
    for (int i = 0; i < g->count; i++)
        if (g->seqs[i]->row_count && g->seqs[i]->is_finished && g->seqs[i]->end != PM_GENERATE_ERROR)
            pm_draft_plan_end(&g->draft_plan, g->seqs[i]->count - g->seqs[i]->prompt_count);
    if (rc || !any || !choose(g))
        return rc;
    rc = first_drafts(g, &count, err);
    if (!rc)
        rc = next_drafts(g, count, err);
    share(g, pm_clock_us() - start_us);
    return rc;
}
