/* One pass of the decoder: which rows of which sequences, and what becomes of their logits.
 *
 * With drafts d1..dk behind the token t sampled last, the pass runs t, d1..dk. Row t's logits give the
 * sequence's own next token s1 by all its rules; when s1 is d1, the row of d1 is what plain decoding would
 * have run next, and its logits give s2; and so on until the first that differs. What the rows of wrong
 * drafts left in the cache is overwritten by the rows that come later: nothing looks beyond its own slot. So
 * drafts change how many passes a text takes and nothing else. */
#include <string.h>

#include "base/clock.h"
#include "engine/vlm/generate_internal.h"

#define LEAST_PREFILL 8
#define LEAST_SHARED  2                       /* slots: copying a page takes less than computing one */
#define START_ROOM    (PM_KV_PAGE_TOKENS / 2) /* tokens beyond its ids that a sequence wants to start with */

bool pm_gen_pass_has_work(const struct pm_generate *g)
{
    for (int i = 0; i < g->count; i++)
        if (pm_gen_seq_is_ready(g->seqs[i]))
            return true;
    return false;
}

/* ---- pages ---- */

/* Gives back the pages of the youngest sequence behind `from` that has any. */
static bool pause_youngest(struct pm_generate *g, int from)
{
    for (int i = g->count - 1; i > from; i--) {
        struct pm_gen_seq *s = g->seqs[i];
        if (!s->kv.page_count)
            continue;
        pm_kv_release(g->kv_pool, &s->kv);
        s->computed = 0;
        s->token_us = 0;
        pm_gen_drafts_forget(s);
        g->counters.pauses++;
        return true;
    }
    return false;
}

static bool can_start(const struct pm_generate *g, const struct pm_gen_seq *s)
{
    int used = pm_kv_pool_used(g->kv_pool), free_pages = pm_kv_pool_pages(g->kv_pool) - used;
    int want = s->count + START_ROOM < s->end_count ? s->count + START_ROOM : s->end_count;
    return !used || free_pages >= (want + PM_KV_PAGE_TOKENS - 1) / PM_KV_PAGE_TOKENS;
}

/* Room for that many tokens in the cache of sequence `index`; younger ones make way. False: not now. */
static bool make_room(struct pm_generate *g, int index, int tokens, struct pm_error *why)
{
    struct pm_gen_seq *s = g->seqs[index];
    while (pm_kv_reserve(g->kv_pool, &s->kv, tokens, why))
        if (!pause_youngest(g, index))
            return false;
    return true;
}

/* ---- what begins alike ---- */

/* Slots at the beginning that are the same in both: the same ids before any picture. */
static int common_slots(const struct pm_gen_seq *a, const struct pm_gen_seq *b)
{
    int n = 0, most = a->count < b->count ? a->count : b->count;
    if (a->image_count && a->images[0].first < most)
        most = a->images[0].first;
    if (b->image_count && b->images[0].first < most)
        most = b->images[0].first;
    while (n < most && a->ids[n] == b->ids[n])
        n++;
    return n;
}

/* A sequence that begins as another one that is further on takes over what that one has computed; the last
 * common slot is computed anew, since the extra layer has met another token behind it. */
static void take_over(struct pm_generate *g, struct pm_gen_seq *s)
{
    const struct pm_gen_seq *from = NULL;
    int most = LEAST_SHARED - 1;
    for (int i = 0; i < g->count; i++) {
        const struct pm_gen_seq *other = g->seqs[i];
        if (other == s || !other->kv.page_count)
            continue;
        int n = common_slots(other, s) - 1;
        n = n < other->computed ? n : other->computed;
        n = n < s->count - 1 ? n : s->count - 1;
        /* The extra layer of one that wants drafts goes on from the other one's, too. */
        n = !s->drafts || other->filled >= n || other->drafts ? n : other->filled;
        if (n > most) {
            most = n;
            from = other;
        }
    }
    if (!from || pm_kv_share(g->kv_pool, &from->kv, &s->kv, most, NULL))
        return;
    if (s->drafts && pm_gen_drafts_take_over(g, from, s, most)) {
        pm_kv_release(g->kv_pool, &s->kv);
        return;
    }
    s->computed = most;
    g->counters.shared_slots += (uint64_t)most;
}

/* ---- rows ---- */

const float *pm_gen_embedding(const struct pm_generate *g, const struct pm_gen_seq *s, int slot)
{
    for (int i = 0; i < s->image_count; i++) {
        const struct pm_gen_image *image = &s->images[i];
        if (slot >= image->first && slot < image->first + image->count)
            return image->embeddings + (size_t)(slot - image->first) * (size_t)g->model->text.hidden;
    }
    return NULL;
}

void pm_gen_position(const struct pm_gen_seq *s, int slot, int32_t out[3])
{
    for (int k = 0; k < 3; k++)
        out[k] = slot < s->prompt_count ? s->positions[slot][k] : slot + s->delta;
}

static void put_rows(struct pm_generate *g, struct pm_gen_seq *s, int at)
{
    s->first_row = at;
    for (int i = 0; i < s->row_count; i++) {
        struct pm_decoder_row *row = &g->rows[at + i];
        int slot = s->computed + i;
        *row = (struct pm_decoder_row){.kv = &s->kv, .slot = slot, .wants_logits = slot >= s->count - 1};
        row->token = slot < s->count ? s->ids[slot] : s->draft[slot - s->count];
        if (slot < s->prompt_count)
            row->embedding = pm_gen_embedding(g, s, slot);
        pm_gen_position(s, slot, row->position);
    }
}

/* Drafts that may be verified now: never beyond the last token that the sequence may have. */
static int usable_drafts(const struct pm_gen_seq *s)
{
    int most = s->end_count - s->count - 1;
    return s->draft_count < most ? s->draft_count : most > 0 ? most : 0;
}

/* Prefill rows of a pass: what the running sequences leave of it, yet enough to get on; none where running
 * ones have waited too long for more. */
static int prefill_rows(const struct pm_generate *g)
{
    int rows = pm_gen_steps_rows(g), running = 0;
    for (int i = 0; i < g->count; i++)
        if (pm_gen_seq_is_ready(g->seqs[i]) && g->seqs[i]->computed == g->seqs[i]->count - 1)
            running += 1 + usable_drafts(g->seqs[i]);
    if (!rows && running)
        return 0;
    int least = g->prefill_rows < LEAST_PREFILL ? g->prefill_rows : LEAST_PREFILL;
    return rows - running > least ? rows - running : least;
}

/* Chooses the rows of this pass, oldest sequence first: each running one its next token and drafts, then
 * prompts as far as the prefill rows go. */
static int plan(struct pm_generate *g, struct pm_error *why)
{
    int rows = 0, prefill = prefill_rows(g);
    bool may_start = true;
    for (int i = 0; i < g->count; i++) {
        struct pm_gen_seq *s = g->seqs[i];
        int need = s->count - s->computed;
        s->row_count = s->draft_rows = 0;
        if (!pm_gen_seq_is_ready(s))
            continue;
        if (!s->kv.page_count && !(may_start = may_start && can_start(g, s)))
            continue; /* none overtakes: a long prompt must get its turn */
        if (!s->kv.page_count) {
            take_over(g, s);
            need = s->count - s->computed;
        }
        bool is_prefill = need > 1;
        int take = !is_prefill ? 1 : need < prefill ? need : prefill;
        int drafts = is_prefill ? 0 : usable_drafts(s);
        if (!take)
            continue;
        /* Drafts are worth nobody's pages. */
        if (drafts && pm_kv_reserve(g->kv_pool, &s->kv, s->computed + take + drafts, NULL))
            drafts = 0;
        if (!drafts && !make_room(g, i, s->computed + take, why))
            continue;
        prefill -= is_prefill ? take : 0;
        s->is_prefill = is_prefill;
        s->row_count = take + drafts;
        s->draft_rows = drafts;
        put_rows(g, s, rows);
        rows += s->row_count;
    }
    return rows;
}

/* ---- what comes out ---- */

/* Samples from the rows that have logits, as long as the drafts hold. Leaves `computed` at the last slot that
 * holds a token of the sequence. */
static void take_logits(struct pm_generate *g, struct pm_gen_seq *s)
{
    int plain = s->row_count - s->draft_rows, row = s->first_row + plain - 1;
    s->computed += plain;
    if (s->computed < s->count)
        return; /* a prompt that goes on in the next pass */
    int held = 0;
    pm_gen_seq_sample(g, s, pm_decoder_logits(g->decoder, row));
    for (; held < s->draft_rows && !s->is_finished && s->ids[s->count - 1] == s->draft[held]; held++) {
        s->computed++;
        pm_gen_seq_sample(g, s, pm_decoder_logits(g->decoder, row + 1 + held));
    }
    s->drafted += s->draft_rows;
    s->accepted += held;
    /* What was left when the text ended is neither right nor wrong. */
    pm_draft_plan_outcome(&g->draft_plan, &s->draft_rate, s->is_finished ? held : s->draft_rows, held);
    s->draft_count = 0;
}

/* The time of a pass, divided by rows; that of drafts, by who wanted some. */
static void share_pass(struct pm_generate *g, int64_t start_us, int64_t pass_us, int rows)
{
    int prompt_rows = 0;
    for (int i = 0; i < g->count; i++)
        prompt_rows += g->seqs[i]->is_prefill ? g->seqs[i]->row_count : 0;
    pm_gen_steps_pass(g, pass_us, rows, prompt_rows);
    for (int i = 0; i < g->count; i++) {
        struct pm_gen_seq *s = g->seqs[i];
        if (!s->row_count)
            continue;
        if (s->sample_count) {
            int64_t gap_us = s->token_us ? start_us + pass_us - s->token_us : 0;
            if (gap_us > g->counters.longest_gap_us)
                g->counters.longest_gap_us = gap_us;
            s->token_us = start_us + pass_us;
        }
        s->begun_us = s->begun_us ? s->begun_us : start_us;
        s->spent_us[s->is_prefill ? PM_GENERATE_PREFILL : PM_GENERATE_DECODE] +=
            pass_us * s->row_count / rows;
    }
}

int pm_gen_pass_run(struct pm_generate *g, bool *ran_out, struct pm_error *err)
{
    int64_t start_us = pm_clock_us();
    struct pm_error why = {.code = PM_EINTERNAL, .text = "there is no reason"};
    int rc = pm_gen_memory_set_pages(g, err);
    if (rc)
        return rc;
    int rows = plan(g, &why);
    *ran_out = rows > 0;
    if (!rows && g->picture_of)
        return 0;
    if (!rows) /* memory that was promised is not there: for the oldest, alone, the pool has room */
        return pm_fail(err, why.code, "%d sequences run and none of them can go on: %s", g->count, why.text);
    rc = pm_decoder_run(g->decoder, g->rows, rows, err);
    if (rc)
        return rc;
    g->counters.passes++;
    g->counters.rows += (uint64_t)rows;
    for (int i = 0; i < g->count; i++)
        if (g->seqs[i]->row_count)
            take_logits(g, g->seqs[i]);
    int64_t sampled_us = pm_clock_us();
    share_pass(g, start_us, sampled_us - start_us, rows);
    if (g->mtp)
        rc = pm_gen_drafts_run(g, sampled_us - start_us, rows, err);
    for (int i = 0; i < g->count; i++)
        g->seqs[i]->row_count = 0;
    g->pass_end_us = pm_clock_us();
    return rc;
}
