#include <math.h>
#include <string.h>

#include "engine/text/sampler.h"

enum { BLOCK = 256, LANES = 8 };

/* What may be reported at the very least: -INFINITY has no place in JSON. */
#define LOGPROB_FLOOR (-1e4f)

struct pm_sampling pm_sampling_default(void)
{
    return (struct pm_sampling){.top_p = 1.0f, .repetition_penalty = 1.0f};
}

static int check_range(const char *name, float value, double low, double high, struct pm_error *err)
{
    if (value >= low && value <= high)
        return 0;
    return pm_fail(err, PM_EINVAL, "%s is %g: it must be %g to %g", name, (double)value, low, high);
}

int pm_sampling_check(const struct pm_sampling *s, int vocab, struct pm_error *err)
{
    int rc;
    if ((rc = check_range("temperature", s->temperature, 0, 10, err)) ||
        (rc = check_range("min_p", s->min_p, 0, 1, err)) ||
        (rc = check_range("presence_penalty", s->presence_penalty, -2, 2, err)) ||
        (rc = check_range("frequency_penalty", s->frequency_penalty, -2, 2, err)))
        return rc;
    if (!(s->top_p > 0 && s->top_p <= 1))
        return pm_fail(err, PM_EINVAL, "top_p is %g: it must be above 0 and at most 1", (double)s->top_p);
    if (!(s->repetition_penalty > 0 && s->repetition_penalty <= 1000))
        return pm_fail(err, PM_EINVAL, "repetition_penalty is %g: it must be above 0 and at most 1000",
                       (double)s->repetition_penalty);
    if (s->top_k < 0)
        return pm_fail(err, PM_EINVAL, "top_k is %d: it must be 0 (off) or more", s->top_k);
    if (s->no_repeat_ngram < 0)
        return pm_fail(err, PM_EINVAL, "no_repeat_ngram is %d: it must be 0 (off) or more",
                       s->no_repeat_ngram);
    if (s->top_logprobs < 0 || s->top_logprobs > PM_TOP_LOGPROBS_MAX)
        return pm_fail(err, PM_EINVAL, "top_logprobs is %d: it must be 0 to %d", s->top_logprobs,
                       PM_TOP_LOGPROBS_MAX);
    if (s->bias_count > PM_LOGIT_BIAS_MAX)
        return pm_fail(err, PM_EINVAL, "logit_bias has %zu entries: %d are allowed", s->bias_count,
                       PM_LOGIT_BIAS_MAX);
    for (size_t i = 0; i < s->bias_count; i++) {
        const struct pm_logit_bias *b = &s->biases[i];
        if (b->id < 0 || b->id >= vocab)
            return pm_fail(err, PM_EINVAL, "logit_bias names the id %d: ids are 0 to %d", (int)b->id,
                           vocab - 1);
        if (!(b->bias >= -100 && b->bias <= 100))
            return pm_fail(err, PM_EINVAL, "logit_bias of the id %d is %g: it must be -100 to 100",
                           (int)b->id, (double)b->bias);
    }
    return 0;
}

/* ---- arithmetic ---- */

/* exp for x <= 0 to about 1e-7, without branches, so that compilers turn loops over it into vectors. What is
 * below -87, or NaN, is exp(-87): as whole numbers, the bits of negative floats order by magnitude, NaN last.
 */
static inline float exp_negative(float x)
{
    const int32_t least = (int32_t)0xc2ae0000u; /* -87 */
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits |= INT32_MIN;
    bits = bits < least ? bits : least;
    memcpy(&x, &bits, sizeof x);
    float shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest integer */
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    bits = ((int32_t)n + 127) * (1 << 23);
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

/* Largest of a full block; NaN never counts. */
static float block_max(const float *x)
{
    float lane[LANES];
    for (int l = 0; l < LANES; l++)
        lane[l] = -INFINITY;
    for (int i = 0; i < BLOCK; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    float best = lane[0];
    for (int l = 1; l < LANES; l++)
        best = lane[l] > best ? lane[l] : best;
    return best;
}

static double block_exp_sum(const float *x, float top)
{
    float e[BLOCK], lane[LANES] = {0};
    for (int i = 0; i < BLOCK; i++)
        e[i] = exp_negative(x[i] - top);
    for (int i = 0; i < BLOCK; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += e[i + l];
    double sum = 0;
    for (int l = 0; l < LANES; l++)
        sum += (double)lane[l];
    return sum;
}

struct scan {
    int32_t best; /* first of the highest; -1: none above -INFINITY */
    float top;
    double log_sum; /* log of the sum of exp(x) */
};

/* One pass: each block is still in the first-level cache when its exponentials are summed. */
static struct scan scan_logits(const float *x, int n)
{
    struct scan s = {-1, -INFINITY, 0};
    double sum = 0;
    for (int at = 0; at < n; at += BLOCK) {
        const float *block = x + at;
        float padded[BLOCK];
        if (n - at < BLOCK) {
            for (int i = 0; i < BLOCK; i++)
                padded[i] = i < n - at ? block[i] : -INFINITY;
            block = padded;
        }
        float top = block_max(block);
        if (top > s.top) {
            sum = s.best < 0 ? 0 : sum * exp((double)s.top - (double)top);
            s.top = top;
            for (int i = 0; i < BLOCK; i++)
                if (block[i] == top) { // NOLINT: top is one of them, bit for bit
                    s.best = at + i;
                    break;
                }
        }
        if (s.best >= 0)
            sum += block_exp_sum(block, s.top);
    }
    s.log_sum = (double)s.top + log(sum);
    return s;
}

static int32_t argmax(const float *x, int n, const uint32_t *mask)
{
    int32_t best = -1;
    float top = -INFINITY;
    for (int i = 0; i < n; i++)
        if (x[i] > top && (mask == NULL || (mask[i / 32] >> (i % 32) & 1))) {
            top = x[i];
            best = i;
        }
    return best;
}

/* A number that orders as the float does. */
static inline uint32_t order_key(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* ---- processors ---- */

static void add_biases(const struct pm_sampling *s, float *scores, int vocab)
{
    for (size_t i = 0; i < s->bias_count; i++) {
        int32_t id = s->biases[i].id;
        if (id < 0 || id >= vocab)
            continue;
        if (s->biases[i].bias <= -100)
            scores[id] = -INFINITY;
        else
            scores[id] += s->biases[i].bias;
    }
}

/* counts: [vocab], zero on entry and on return */
static void penalise(const struct pm_sampling *s, const struct pm_history *h, float *scores, int vocab,
                     uint32_t *counts)
{
    float p = s->repetition_penalty;
    if (p != 1.0f) {
        for (int i = 0; i < h->count; i++) {
            int32_t id = h->ids[i];
            if (id < 0 || id >= vocab || counts[id]++)
                continue;
            scores[id] = scores[id] < 0 ? scores[id] * p : scores[id] / p;
        }
        for (int i = 0; i < h->count; i++)
            if (h->ids[i] >= 0 && h->ids[i] < vocab)
                counts[h->ids[i]] = 0;
    }
    if (s->frequency_penalty == 0 && s->presence_penalty == 0)
        return;
    for (int i = h->prompt_count; i < h->count; i++)
        if (h->ids[i] >= 0 && h->ids[i] < vocab)
            counts[h->ids[i]]++;
    for (int i = h->prompt_count; i < h->count; i++) {
        int32_t id = h->ids[i];
        if (id < 0 || id >= vocab || counts[id] == 0)
            continue;
        scores[id] -= s->frequency_penalty * (float)counts[id] + s->presence_penalty;
        counts[id] = 0;
    }
}

/* No id may follow that would repeat the last n - 1 ids and what came after them. */
static void ban_ngrams(int n, const struct pm_history *h, float *scores, int vocab)
{
    if (n <= 0 || h->count < n)
        return;
    const int32_t *tail = h->ids + h->count - (n - 1);
    for (int i = 0; i + n <= h->count; i++) {
        int32_t id = h->ids[i + n - 1];
        if (id >= 0 && id < vocab && memcmp(h->ids + i, tail, (size_t)(n - 1) * sizeof *tail) == 0)
            scores[id] = -INFINITY;
    }
}

static void apply_mask(const uint32_t *mask, float *scores, int vocab)
{
    for (int i = 0; i < vocab; i++)
        if (!(mask[i / 32] >> (i % 32) & 1))
            scores[i] = -INFINITY;
}

static const struct {
    int shift, bits;
} radix[] = {{21, 11}, {10, 11}, {0, 10}};

/* The k-th highest decides; all that equal it stay. Radix selection: three passes whatever the values are. */
static void keep_top_k(int k, float *scores, int vocab)
{
    if (k <= 0 || k >= vocab)
        return;
    uint32_t prefix = 0, left = (uint32_t)k;
    for (int level = 0; level < 3; level++) {
        uint32_t counts[1 << 11] = {0};
        uint32_t low = (1u << radix[level].bits) - 1;
        int shift = radix[level].shift, above = shift + radix[level].bits;
        for (int i = 0; i < vocab; i++) {
            uint32_t key = order_key(scores[i]);
            if (level == 0 || key >> above == prefix)
                counts[key >> shift & low]++;
        }
        uint32_t digit = low;
        while (counts[digit] < left)
            left -= counts[digit--];
        prefix = prefix << radix[level].bits | digit;
    }
    for (int i = 0; i < vocab; i++)
        if (order_key(scores[i]) < prefix)
            scores[i] = -INFINITY;
}

/* weights: exp of each score below the highest; returns their sum */
static double weigh(const float *scores, int vocab, float *weights)
{
    float top = -INFINITY;
    for (int i = 0; i < vocab; i++)
        top = scores[i] > top ? scores[i] : top;
    for (int i = 0; i < vocab; i++) {
        float weight = exp_negative(scores[i] - top);
        weights[i] = scores[i] > -INFINITY ? weight : 0;
    }
    double sum = 0;
    for (int i = 0; i < vocab; i++)
        sum += (double)weights[i];
    return sum;
}

/* Drops the least likely while their sum is at most 1 - p; one stays at least. Which digit of the key the
 * edge lies in is found as in keep_top_k, with sums of weights in place of counts. */
static void keep_top_p(float p, float *scores, int vocab, float *weights)
{
    double limit = (1.0 - (double)p) * weigh(scores, vocab, weights), dropped = 0;
    uint32_t prefix = 0, at_edge = 0;
    bool is_last = true; /* nothing lies above the edge */
    for (int level = 0; level < 3; level++) {
        double sums[1 << 11] = {0};
        uint32_t counts[1 << 11] = {0};
        uint32_t low = (1u << radix[level].bits) - 1;
        int shift = radix[level].shift, above = shift + radix[level].bits;
        for (int i = 0; i < vocab; i++) {
            uint32_t key = order_key(scores[i]);
            if (level == 0 || key >> above == prefix) {
                sums[key >> shift & low] += (double)weights[i];
                counts[key >> shift & low]++;
            }
        }
        uint32_t digit = 0, last = low;
        while (counts[last] == 0 && last)
            last--;
        while (digit < last && dropped + sums[digit] <= limit)
            dropped += sums[digit++];
        is_last = is_last && digit == last;
        at_edge = counts[digit];
        prefix = prefix << radix[level].bits | digit;
    }
    /* of equal scores at the edge those with the higher ids go first */
    uint32_t stay = at_edge;
    for (int i = vocab - 1; i >= 0; i--) {
        uint32_t key = order_key(scores[i]);
        if (key == prefix && stay > (is_last ? 1 : 0) && dropped + (double)weights[i] <= limit) {
            dropped += (double)weights[i];
            scores[i] = -INFINITY;
            stay--;
        } else if (key < prefix) {
            scores[i] = -INFINITY;
        }
    }
}

static void keep_min_p(float p, float *scores, int vocab, float *weights)
{
    weigh(scores, vocab, weights);
    for (int i = 0; i < vocab; i++)
        if (weights[i] < p) /* the highest weighs 1 */
            scores[i] = -INFINITY;
}

/* Those that decide which ids are likely. */
static void process_scores(const struct pm_sampling *s, const struct pm_history *h, const uint32_t *mask,
                           float *scores, int vocab, float *scratch)
{
    for (int i = 0; i < vocab; i++)
        scores[i] = scores[i] >= -INFINITY ? scores[i] : -INFINITY;
    add_biases(s, scores, vocab);
    if (s->repetition_penalty != 1.0f || s->frequency_penalty != 0 || s->presence_penalty != 0) {
        memset(scratch, 0, (size_t)vocab * sizeof *scratch);
        penalise(s, h, scores, vocab, (uint32_t *)(void *)scratch);
    }
    ban_ngrams(s->no_repeat_ngram, h, scores, vocab);
    if (mask)
        apply_mask(mask, scores, vocab);
}

/* Those that shape the distribution; they never change which id is highest. */
static void process_shape(const struct pm_sampling *s, float *scores, int vocab, float *scratch)
{
    if (s->temperature > 0 && s->temperature != 1.0f)
        for (int i = 0; i < vocab; i++)
            scores[i] /= s->temperature;
    keep_top_k(s->top_k, scores, vocab);
    if (s->top_p < 1)
        keep_top_p(s->top_p, scores, vocab, scratch);
    if (s->min_p > 0)
        keep_min_p(s->min_p, scores, vocab, scratch);
}

void pm_sampler_process(const struct pm_sampling *s, const struct pm_history *h, const uint32_t *mask,
                        float *scores, int vocab, float *scratch)
{
    process_scores(s, h, mask, scores, vocab, scratch);
    process_shape(s, scores, vocab, scratch);
}

/* ---- picking ---- */

static uint64_t mix(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* [0, 1), from nothing but the seed and the index of the token */
static double uniform(uint64_t seed, int index)
{
    return (double)(mix(mix(seed) ^ (uint64_t)(uint32_t)index * 0xd1342543de82ef95u) >> 11) * 0x1p-53;
}

static int32_t draw(const float *scores, int vocab, double u, float *weights)
{
    double target = u * weigh(scores, vocab, weights), sum = 0;
    int32_t last = -1;
    for (int i = 0; i < vocab; i++) {
        if (weights[i] <= 0)
            continue;
        last = i;
        sum += (double)weights[i];
        if (sum > target)
            break;
    }
    return last;
}

static float logprob(float logit, double log_sum)
{
    double lp = (double)logit - log_sum;
    return lp > (double)LOGPROB_FLOOR ? (float)(lp < 0 ? lp : 0) : LOGPROB_FLOOR;
}

static void list_top(const float *logits, int vocab, int want, double log_sum, struct pm_sample *out)
{
    float value[PM_TOP_LOGPROBS_MAX + 1];
    int count = 0;
    if (want > PM_TOP_LOGPROBS_MAX)
        want = PM_TOP_LOGPROBS_MAX;
    for (int i = 0; i < vocab && want > 0; i++) {
        if (count == want ? !(logits[i] > value[count - 1]) : !(logits[i] >= -INFINITY))
            continue;
        int at = count < want ? count++ : count - 1;
        for (; at > 0 && logits[i] > value[at - 1]; at--) {
            value[at] = value[at - 1];
            out->top_ids[at] = out->top_ids[at - 1];
        }
        value[at] = logits[i];
        out->top_ids[at] = i;
    }
    for (int i = 0; i < count; i++)
        out->top_logprobs[i] = logprob(value[i], log_sum);
    out->top_count = count;
}

static bool has_processors(const struct pm_sampling *s)
{
    return s->bias_count || s->repetition_penalty != 1.0f || s->frequency_penalty != 0 ||
           s->presence_penalty != 0 || s->no_repeat_ngram > 0;
}

void pm_sampler_pick(const struct pm_sampling *s, const struct pm_history *h, const uint32_t *mask,
                     const float *logits, int vocab, int index, float *scratch, struct pm_sample *out)
{
    struct scan raw = scan_logits(logits, vocab);
    int32_t id = raw.best;
    if (has_processors(s) || s->temperature > 0) {
        memcpy(scratch, logits, (size_t)vocab * sizeof *scratch);
        process_scores(s, h, mask, scratch, vocab, scratch + vocab);
        if (s->temperature > 0) {
            process_shape(s, scratch, vocab, scratch + vocab);
            id = draw(scratch, vocab, uniform(s->seed, index), scratch + vocab);
        } else {
            id = argmax(scratch, vocab, NULL);
        }
        if (id < 0)
            id = argmax(logits, vocab, mask);
    } else if (mask) {
        id = argmax(logits, vocab, mask);
    }
    if (id < 0 && mask)
        for (int i = vocab - 1; i >= 0; i--) /* logits of no use: still only what the mask allows */
            if (mask[i / 32] >> (i % 32) & 1)
                id = i;
    if (id < 0)
        id = raw.best < 0 ? 0 : raw.best;
    memset(out, 0, sizeof *out);
    out->id = id;
    out->logprob = logprob(logits[id], raw.log_sum);
    list_top(logits, vocab, s->top_logprobs, raw.log_sum, out);
}

/* ---- stop strings ---- */

bool pm_stop_find(const struct pm_stop *stop, const char *text, size_t bytes, size_t from, size_t *cut_out)
{
    for (size_t end = from + 1; end <= bytes; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < stop->count; i++) {
            size_t n = strlen(stop->strings[i]);
            if (n <= end && n > longest && memcmp(text + end - n, stop->strings[i], n) == 0)
                longest = n;
        }
        if (longest) {
            *cut_out = end - longest;
            return true;
        }
    }
    size_t held = 0; /* longest tail that begins a stop string */
    for (size_t i = 0; i < stop->count; i++) {
        size_t n = strlen(stop->strings[i]);
        for (size_t tail = n - 1 < bytes ? n - 1 : bytes; n && tail > held; tail--)
            if (memcmp(text + bytes - tail, stop->strings[i], tail) == 0)
                held = tail;
    }
    *cut_out = bytes - held;
    return false;
}
