#include "engine/vlm/draft_plan.h"

#include <stdlib.h>

#include "base/mem.h"

/* Before anything is measured: rows up to here cost nothing, more cost their share; a step of the extra layer
 * costs this part of a pass. */
#define FREE_ROWS    6
#define STEP_PART    0.2
#define FIRST_RATE   0.7
#define NEW_TIME     0.125 /* weight of a new observation */
#define NEW_FASTER   0.25  /* of one that took less: what comes between can only add */
#define NEW_LENGTH   0.1
#define NEW_OUTCOME  0.03
#define OWN_OUTCOME  0.05
#define STALE_PASSES 4096 /* an average that was not renewed for so long counts as unseen */
#define GAIN         1.03 /* what drafts must promise: less is noise */
#define PROBE_FIRST  64
#define PROBE_AGAIN  4 /* after one that held */
#define PROBE_LAST   1024
#define PROBE_TIMES  512 /* where no rate would do */
#define FIRST_LENGTH 64
#define LOOK_FIRST   4
#define LOOK_LAST    128

void pm_draft_plan_begin(struct pm_draft_plan *p)
{
    *p = (struct pm_draft_plan){.rate = FIRST_RATE, .probe = PROBE_FIRST, .look = LOOK_FIRST};
}

static void observe(struct pm_draft_times *t, uint64_t now, int rows, int64_t us)
{
    if (rows < 1 || us < 1)
        return;
    int at = rows > PM_DRAFT_PLAN_ROWS ? PM_DRAFT_PLAN_ROWS : rows; /* as if it had so many */
    double took = (double)us * at / rows;
    bool is_fresh = t->seen[at] && now - t->seen[at] < STALE_PASSES;
    t->us[at] = is_fresh ? t->us[at] + (took < t->us[at] ? NEW_FASTER : NEW_TIME) * (took - t->us[at]) : took;
    t->seen[at] = now;
    /* Fewer rows take no longer: what says so was seen in a worse moment. */
    for (int r = 1; r < at; r++)
        if (t->us[r] > t->us[at])
            t->us[r] = (t->us[r] + t->us[at]) / 2;
}

void pm_draft_plan_pass(struct pm_draft_plan *p, int rows, int64_t us)
{
    p->now++;
    observe(&p->passes, p->now, rows, us);
}

void pm_draft_plan_step(struct pm_draft_plan *p, int rows, int64_t us)
{
    observe(&p->steps, p->now ? p->now : 1, rows, us);
}

void pm_draft_plan_fill(struct pm_draft_plan *p, int slots, int64_t us)
{
    if (slots < 1 || us < 1)
        return;
    double took = (double)us / slots;
    p->fill_us = p->fill_us > 0 ? p->fill_us + NEW_TIME * (took - p->fill_us) : took;
}

void pm_draft_plan_end(struct pm_draft_plan *p, int tokens)
{
    p->length = p->length > 0 ? p->length + NEW_LENGTH * (tokens - p->length) : tokens;
}

void pm_draft_plan_outcome(struct pm_draft_plan *p, double *rate, int drafted, int accepted)
{
    int tried = accepted < drafted ? accepted + 1 : drafted; /* those after the first wrong one say nothing */
    for (int i = 0; i < tried; i++) {
        double held = i < accepted ? 1 : 0, early = 1 / (2 + (double)p->tried++);
        p->rate += (early > NEW_OUTCOME ? early : NEW_OUTCOME) * (held - p->rate);
        *rate += (early > OWN_OUTCOME ? early : OWN_OUTCOME) * (held - *rate);
    }
    if (accepted)
        p->probe = PROBE_AGAIN;
}

/* ---- what things take ---- */

static double shape(int rows)
{
    return rows <= FREE_ROWS ? 1 : (double)rows / FREE_ROWS;
}

static bool is_known(const struct pm_draft_times *t, uint64_t now, int rows)
{
    return t->seen[rows] && now - t->seen[rows] < STALE_PASSES;
}

static double guess(const struct pm_draft_times *t, uint64_t now, int rows)
{
    int at = rows > PM_DRAFT_PLAN_ROWS ? PM_DRAFT_PLAN_ROWS : rows, below = at, above = at;
    while (below > 0 && !is_known(t, now, below))
        below--;
    while (above <= PM_DRAFT_PLAN_ROWS && !is_known(t, now, above))
        above++;
    bool has_above = above <= PM_DRAFT_PLAN_ROWS;
    if (below && has_above && above > below && rows <= above)
        return t->us[below] +
               (t->us[above] - t->us[below]) * (double)(rows - below) / (double)(above - below);
    if (below)
        return t->us[below] * shape(rows) / shape(below);
    return has_above ? t->us[above] * shape(rows) / shape(above) : 0;
}

double pm_draft_plan_guess(const struct pm_draft_plan *p, int rows)
{
    return guess(&p->passes, p->now, rows);
}

/* ---- the choice ---- */

struct candidate {
    double hope; /* that it and all before it hold */
    int text, depth;
};

/* Hopeful ones first; of equals the shallow, then the older: so a text's drafts come in order. */
static int compare(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->hope != y->hope)
        return x->hope > y->hope ? -1 : 1;
    if (x->depth != y->depth)
        return x->depth < y->depth ? -1 : 1;
    return x->text < y->text ? -1 : x->text > y->text;
}

/* are_right: as if every draft would hold. */
static int list(const struct pm_draft_text *texts, int count, bool are_right, struct candidate *out)
{
    int n = 0;
    for (int i = 0; i < count; i++) {
        double hope = 1;
        for (int depth = 1; depth <= texts[i].most; depth++) {
            hope *= are_right ? 1 : texts[i].rate;
            out[n++] = (struct candidate){hope, i, depth};
        }
    }
    qsort(out, (size_t)n, sizeof *out, compare);
    return n;
}

/* What a text that is drafted for costs each pass for what the layer has not seen of it. Half of what is left
 * to write are its passes, about; one that is longer than usual has half the usual length before it. */
static double fill_us(const struct pm_draft_plan *p, const struct pm_draft_text *t)
{
    double length = p->length > 0 ? p->length : FIRST_LENGTH, left = length - t->written;
    left = left < length / 2 ? length / 2 : left;
    return p->fill_us * (t->behind > 1 ? t->behind - 1 : 0) / (left / 2 > 1 ? left / 2 : 1);
}

/* The number of candidates, most hopeful first, with which tokens come fastest. */
static int best_prefix(const struct pm_draft_plan *p, const struct pm_draft_text *texts,
                       const struct candidate *c, int n, int count)
{
    double alone = guess(&p->passes, p->now, count);
    if (alone <= 0)
        return 0; /* a pass without drafts must be known first */
    double tokens = count, best = GAIN * count / alone, fill = 0;
    int at_depth[PM_DRAFT_PLAN_DEPTH + 1] = {0}, chosen = 0;
    for (int i = 0; i < n; i++) {
        tokens += c[i].hope;
        at_depth[c[i].depth]++;
        if (c[i].depth == 1)
            fill += fill_us(p, &texts[c[i].text]);
        double us = guess(&p->passes, p->now, count + i + 1) + fill;
        for (int d = 1; d <= PM_DRAFT_PLAN_DEPTH; d++)
            if (at_depth[d]) {
                double step = guess(&p->steps, p->now, at_depth[d]);
                us += step > 0 ? step : STEP_PART * alone * shape(at_depth[d]);
            }
        if (tokens / us > best) {
            best = tokens / us;
            chosen = i + 1;
        }
    }
    return chosen;
}

/* Has a pass of so many rows without drafts not been timed for long? */
static bool look_is_due(struct pm_draft_plan *p, int count)
{
    int at = count > PM_DRAFT_PLAN_ROWS ? PM_DRAFT_PLAN_ROWS : count;
    if (p->choices - p->looked < (uint64_t)p->look || p->now - p->passes.seen[at] < (uint64_t)p->look)
        return false;
    p->looked = p->choices;
    p->look = 2 * p->look < LOOK_LAST ? 2 * p->look : LOOK_LAST;
    return true;
}

bool pm_draft_plan_choose(struct pm_draft_plan *p, struct pm_draft_text *texts, int count)
{
    int able = -1;
    p->choices++;
    for (int i = 0; i < count; i++) {
        PM_ASSERT(texts[i].most >= 0 && texts[i].most <= PM_DRAFT_PLAN_DEPTH);
        texts[i].drafts = 0;
        if (texts[i].most && (able < 0 || texts[i].behind < texts[able].behind))
            able = i;
    }
    if (able < 0)
        return false;
    struct candidate *c = pm_xalloc((size_t)count * PM_DRAFT_PLAN_DEPTH * sizeof *c);
    int chosen = best_prefix(p, texts, c, list(texts, count, false, c), count);
    for (int i = 0; i < chosen; i++)
        texts[c[i].text].drafts++;
    bool could = chosen || best_prefix(p, texts, c, list(texts, count, true, c), count) > 0;
    free(c);
    if (chosen) {
        p->quiet = 0;
        if (!look_is_due(p, count))
            return true;
        for (int i = 0; i < count; i++)
            texts[i].drafts = 0;
        return false;
    }
    if (++p->quiet < (could || p->probe > PROBE_TIMES ? p->probe : PROBE_TIMES))
        return false;
    p->quiet = 0;
    p->probe = p->probe < PROBE_LAST ? 2 * p->probe : PROBE_LAST;
    texts[able].drafts = 1;
    return true;
}
