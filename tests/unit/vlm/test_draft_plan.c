/* When drafts pay: played on machines whose times are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/vlm/draft_plan.h"

/* A machine: passes of up to `flat` rows take 30 ms, more their share; a draft step a fifth. */
static int64_t pass_us(int rows, int flat)
{
    return rows <= flat ? 30000 : 30000 * rows / flat;
}

struct run {
    double tokens, us;
    int drafts, probes;
};

/* `passes` passes of `count` texts whose drafts are wrong one time in n by the dice (0: never, 1: always).
 * fixed: so many drafts always; -1: as the plan says. */
static struct run play(int count, int flat, int wrong_each, int fixed, int passes)
{
    struct pm_draft_plan plan;
    struct pm_draft_text texts[32];
    struct run out = {0};
    double rates[32];
    uint64_t dice = 1;
    pm_draft_plan_begin(&plan);
    for (int i = 0; i < count; i++)
        rates[i] = plan.rate;
    for (int p = 0; p < passes; p++) {
        int at_depth[PM_DRAFT_PLAN_DEPTH + 1] = {0}, rows = count, depth = 0;
        for (int i = 0; i < count; i++)
            texts[i] = (struct pm_draft_text){.rate = rates[i], .most = PM_DRAFT_PLAN_DEPTH};
        if (fixed < 0)
            pm_draft_plan_choose(&plan, texts, count);
        for (int i = 0; i < count; i++) {
            if (fixed >= 0)
                texts[i].drafts = fixed;
            rows += texts[i].drafts;
            for (int d = 1; d <= texts[i].drafts; d++)
                at_depth[d]++;
            depth = texts[i].drafts > depth ? texts[i].drafts : depth;
        }
        for (int d = 1; d <= depth; d++) {
            int64_t us = pass_us(at_depth[d], flat) / 5;
            pm_draft_plan_step(&plan, at_depth[d], us);
            out.us += (double)us;
        }
        pm_draft_plan_pass(&plan, rows, pass_us(rows, flat));
        out.us += (double)pass_us(rows, flat);
        for (int i = 0; i < count; i++) {
            int held = 0;
            for (bool holds = true; held < texts[i].drafts && holds; held += holds) {
                dice = dice * 6364136223846793005u + 1442695040888963407u;
                holds = !wrong_each || (dice >> 33) % (unsigned)wrong_each;
            }
            pm_draft_plan_outcome(&plan, &rates[i], texts[i].drafts, held);
            out.tokens += 1 + held;
            out.drafts += texts[i].drafts;
        }
    }
    return out;
}

static double speed(int count, int flat, int wrong_each, int fixed)
{
    struct run r = play(count, flat, wrong_each, fixed, 2000);
    return r.tokens / r.us;
}

/* Whatever the rate and the batch, it is about as fast as the best fixed number of drafts. */
static void test_near_best(void **state)
{
    (void)state;
    static const int counts[] = {1, 2, 4, 8, 16, 32}, wrong[] = {0, 10, 5, 3, 2, 1};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
            double best = 0, own = speed(counts[c], 6, wrong[w], -1);
            for (int fixed = 0; fixed <= PM_DRAFT_PLAN_DEPTH; fixed++) {
                double with = speed(counts[c], 6, wrong[w], fixed);
                best = with > best ? with : best;
            }
            if (own < 0.9 * best)
                fail_msg("%d texts, wrong each %d: %.1f tokens/s, %.1f are possible", counts[c], wrong[w],
                         own * 1e6, best * 1e6);
        }
}

/* At a rate of four in five, one text alone is worth drafts, and a large batch is not. */
static void test_crossover(void **state)
{
    (void)state;
    assert_true(speed(1, 6, 5, -1) > 1.6 * speed(1, 6, 5, 0));
    struct run many = play(32, 6, 5, -1, 400);
    assert_true(many.drafts < 400 * 32 / 50);
    assert_true(many.tokens / many.us > 0.97 * speed(32, 6, 5, 0));
}

/* Drafts that never hold are given up, looked at again ever more rarely, and taken up when they hold. */
static void test_probes(void **state)
{
    (void)state;
    struct pm_draft_plan plan;
    struct pm_draft_text text;
    pm_draft_plan_begin(&plan);
    double rate = plan.rate;
    int drafts[4] = {0};
    for (int p = 0; p < 8000; p++) {
        text = (struct pm_draft_text){.rate = rate, .most = 2};
        pm_draft_plan_choose(&plan, &text, 1);
        pm_draft_plan_pass(&plan, 1 + text.drafts, 30000);
        if (text.drafts)
            pm_draft_plan_step(&plan, 1, 6000);
        bool holds = p >= 4000; /* the text becomes an easy one */
        pm_draft_plan_outcome(&plan, &rate, text.drafts, holds ? text.drafts : 0);
        drafts[p / 2000] += text.drafts;
    }
    assert_in_range(drafts[1], 1, 20);
    assert_in_range(drafts[3], 3900, 4000);
    assert_in_range(drafts[0], drafts[1], 200);
}

/* A small model in the processor's cache: rows cost, a step of the layer takes more than half a pass, and
 * what was timed while the process began is ten times too long. Nine of ten drafts hold and none pays. */
static void test_slow_beginning(void **state)
{
    (void)state;
    struct pm_draft_plan plan;
    double rate, us = 0, tokens = 0;
    uint64_t dice = 1;
    pm_draft_plan_begin(&plan);
    rate = plan.rate;
    for (int p = 0; p < 4000; p++) {
        struct pm_draft_text text = {.rate = rate, .most = 4};
        pm_draft_plan_choose(&plan, &text, 1);
        int64_t step = 40, pass = (40 + 25 * (1 + text.drafts)) * (p < 3 ? 10 : 1);
        for (int d = 0; d < text.drafts; d++)
            pm_draft_plan_step(&plan, 1, step);
        pm_draft_plan_pass(&plan, 1 + text.drafts, pass);
        int held = 0;
        for (bool holds = true; held < text.drafts && holds; held += holds) {
            dice = dice * 6364136223846793005u + 1442695040888963407u;
            holds = (dice >> 33) % 10 > 0;
        }
        pm_draft_plan_outcome(&plan, &rate, text.drafts, held);
        us += (double)(pass + step * text.drafts);
        tokens += 1 + held;
    }
    assert_true(tokens / us > 0.97 / 65); /* without drafts: 65 us a token */
}

/* Drafts that would pay, but for the prompt of 200 slots that the layer must see first: not for texts of 10
 * tokens, for those of 1000. */
static void test_prompt_first(void **state)
{
    (void)state;
    static const int lengths[] = {10, 1000};
    for (int k = 0; k < 2; k++) {
        struct pm_draft_plan plan;
        double rate;
        int drafts = 0, passes = 0;
        pm_draft_plan_begin(&plan);
        rate = plan.rate;
        pm_draft_plan_fill(&plan, 200, 200 * 2000);
        for (int n = 0; n < 20000 / lengths[k]; n++) {
            int behind = 200;
            for (int written = 0; written < lengths[k]; written++) {
                struct pm_draft_text text = {.rate = rate, .most = 1, .behind = behind, .written = written};
                pm_draft_plan_choose(&plan, &text, 1);
                pm_draft_plan_pass(&plan, 1 + text.drafts, 30000);
                if (text.drafts)
                    pm_draft_plan_step(&plan, 1, 6000);
                behind = text.drafts ? 1 : behind + 1;
                pm_draft_plan_outcome(&plan, &rate, text.drafts, text.drafts);
                written += text.drafts;
                drafts += text.drafts;
                passes++;
            }
            pm_draft_plan_end(&plan, lengths[k]);
        }
        if (k)
            assert_in_range(drafts, passes * 9 / 10, passes);
        else
            assert_in_range(drafts, 1, passes / 50);
    }
}

/* What it says about times: seen, between, beyond. */
static void test_guess(void **state)
{
    (void)state;
    struct pm_draft_plan plan;
    pm_draft_plan_begin(&plan);
    assert_true(pm_draft_plan_guess(&plan, 3) == 0);
    pm_draft_plan_pass(&plan, 2, 1000);
    assert_true(pm_draft_plan_guess(&plan, 2) == 1000 && pm_draft_plan_guess(&plan, 6) == 1000);
    assert_true(pm_draft_plan_guess(&plan, 12) == 2000);
    pm_draft_plan_pass(&plan, 12, 4000);
    assert_true(pm_draft_plan_guess(&plan, 7) == 2500 && pm_draft_plan_guess(&plan, 24) == 8000);
    pm_draft_plan_pass(&plan, 0, 1);
    pm_draft_plan_pass(&plan, 2, 0);
    assert_true(pm_draft_plan_guess(&plan, 2) == 1000);
    pm_draft_plan_pass(&plan, 4 * PM_DRAFT_PLAN_ROWS, 400000); /* more than it tells apart */
    assert_in_range(pm_draft_plan_guess(&plan, PM_DRAFT_PLAN_ROWS), 99990, 100010);
    assert_true(pm_draft_plan_guess(&plan, 2 * PM_DRAFT_PLAN_ROWS) > 199000);
    for (int i = 0; i < 100; i++)
        pm_draft_plan_pass(&plan, 2, 5000);
    assert_true(pm_draft_plan_guess(&plan, 2) > 4990); /* the machine has become slower */
    struct pm_draft_text none = {.rate = 1, .drafts = 7};
    assert_false(pm_draft_plan_choose(&plan, &none, 1));
    assert_int_equal(none.drafts, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_near_best),      cmocka_unit_test(test_crossover),
        cmocka_unit_test(test_probes),         cmocka_unit_test(test_guess),
        cmocka_unit_test(test_slow_beginning), cmocka_unit_test(test_prompt_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
