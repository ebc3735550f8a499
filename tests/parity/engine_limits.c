/* How far a rounded precision may be from the exact one.
 *
 * A distance is the root mean square of the differences over that of the exact values, of logits less the
 * mean of their row: 0 is equal, sqrt(2) are rows that know nothing of each other.
 *
 * bf16 is held to what the reference itself loses in bf16: at the end of the full-size tower 1.9 %; in
 * logits, at its worst on the small models, a mean error of 0.22 at a deviation of 4.9, which as a root mean
 * square of normal errors is 5.6 %. (Ours, at worst: 1.2 % and 3.3 %.)
 *
 * int8 is held to bf16's own distance in the same case, tensor by tensor, times twice what one product says.
 * A product in bf16 rounds its inputs to 8 significant bits: an error of 2^-8 / sqrt(3) of the power of two
 * below, 0.15 % of the value on average. One in int8 rounds inputs and weights to steps of 1/127 of the
 * largest of 64, which of normal numbers is 2.6 deviations: 0.59 % each, 0.84 % both. That is 5.5 times as
 * much, and the limit 11 times. (Ours: 3 to 7.4 times.)
 *
 * int4 has weights in steps of 1/8 of the largest of 64, an error of 9 % each: random models of a few layers
 * are moved half way to noise by that, so the limit is half the distance of what has nothing in common.
 * (Ours: 0.40 to 0.50.) Its tower and head are in 8 bits, so there the rule of int8 holds.
 *
 * Keys and values in 8 bits are measured beside the same model with a cache in bf16. They are rounded to
 * steps of 1/127 of their largest, 0.59 %, where bf16 rounds to 0.15 %: 3.9 times as coarse, and nothing else
 * changes. So the limit is 4 times bf16's own distance in the same case. (Ours: 0.7 to 1.6 times in a model
 * of bf16; in int8, whose products round what was moved a little to another step, up to 3.3 times.)
 */
#include <math.h>

#include "tests/parity/engine.h"

#define BF16_TOWER 0.019
#define BF16_TEXT  0.056
#define INT8       11
#define UNRELATED  1.4142135623730951
#define KV8        4

double engine_limit(const struct engine_case *c, enum engine_part part, double bf16_distance)
{
    switch (c->model->precision) {
    case PM_PRECISION_F32:
        return 0;
    case PM_PRECISION_BF16:
        return part == ENGINE_TOWER ? BF16_TOWER : BF16_TEXT;
    case PM_PRECISION_INT4:
        if (part == ENGINE_TEXT)
            return UNRELATED / 2;
        break;
    default:
        break;
    }
    return fmin(INT8 * bf16_distance, UNRELATED / 2);
}

double engine_limit_kv8(double bf16_distance)
{
    return KV8 * bf16_distance;
}

/* The error of one logit that is allowed is limit x deviation; that of a difference sqrt(2) times as much;
 * and four of these are as far as chance goes. */
double engine_limit_lead(double limit)
{
    return 4 * sqrt(2) * limit;
}

double engine_distance_of(const struct engine_distance *d)
{
    return d->size > 0 ? sqrt(d->difference / d->size) : d->difference > 0 ? INFINITY : 0;
}

void engine_distance_row(struct engine_distance *d, const float *ours, const float *exact, int n)
{
    double mean = 0, size = 0, sum = 0;
    for (int i = 0; i < n; i++)
        mean += (double)exact[i] / n;
    for (int i = 0; i < n; i++) {
        double error = (double)ours[i] - (double)exact[i], x = (double)exact[i] - mean;
        d->difference += error * error;
        d->worst = isnan(error) ? INFINITY : fmax(d->worst, fabs(error));
        sum += fabs(error);
        size += x * x;
        d->deviation += fabs(x);
    }
    d->error += sum;
    d->size += size;
    d->values += (size_t)n;
    int32_t best = engine_argmax(exact, n), other = engine_argmax(ours, n);
    double lead = ((double)exact[best] - (double)exact[other]) / sqrt(size / n + 1e-30);
    d->lead = fmax(d->lead, lead);
    d->rows++;
    d->same += best == other;
}

void engine_report_logits(struct parity_verdict *v, const struct engine_distance *d, double limit)
{
    parity_report(v, "distance of logits", engine_distance_of(d), limit);
    parity_report(v, "lead of a best id that was lost", d->lead, engine_limit_lead(limit));
    parity_note(
        v,
        "distance %.4f; mean |error| %.3g, largest %.3g, mean deviation %.3g; best id the same in %d of %d",
        engine_distance_of(d), d->error / (double)d->values, d->worst, d->deviation / (double)d->values,
        d->same, d->rows);
}
