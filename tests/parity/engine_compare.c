/* Values beside expected values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/parity/engine.h"

/* ---- expected tensors ---- */

size_t engine_elements(const struct pm_tensor *t)
{
    return (size_t)(t->bytes / pm_dtype_bytes(t->dtype));
}

/* Tensors lie unaligned in the file. */
float engine_float(const struct pm_tensor *t, size_t index)
{
    float value;
    memcpy(&value, t->data + index * sizeof value, sizeof value);
    return value;
}

int32_t engine_int(const struct pm_tensor *t, size_t index)
{
    int32_t value;
    memcpy(&value, t->data + index * sizeof value, sizeof value);
    return value;
}

static void mark(struct engine_case *c, const struct pm_tensor *t)
{
    for (size_t i = 0; i < pm_safetensors_count(c->expected); i++)
        if (pm_safetensors_at(c->expected, i) == t)
            c->seen[i] = true;
}

const struct pm_tensor *engine_expected(struct engine_case *c, const char *name, enum pm_dtype dtype)
{
    const struct pm_tensor *t = pm_safetensors_find(c->expected, name);
    if (!t || t->dtype != dtype)
        return NULL;
    mark(c, t);
    return t;
}

/* ---- floats ---- */

void engine_compare_floats(struct parity_verdict *v, const char *what, const float *ours,
                           const struct pm_tensor *t, size_t count, double absolute, double relative)
{
    if (engine_elements(t) != count) {
        parity_fail(v, "%s: %zu values, not %zu", what, count, engine_elements(t));
        return;
    }
    double worst = -1, worst_error = 0, worst_limit = absolute;
    for (size_t i = 0; i < count; i++) {
        double x = (double)engine_float(t, i), error = fabs((double)ours[i] - x);
        double limit = absolute + relative * fabs(x), share = isnan(error) ? INFINITY : error / limit;
        if (share > worst) {
            worst = share;
            worst_error = error;
            worst_limit = limit;
        }
    }
    parity_report(v, what, worst_error, worst_limit);
}

/* Where an expected tensor stands among the others. */
static size_t place_of(const struct engine_case *c, const struct pm_tensor *t)
{
    size_t i = 0;
    while (pm_safetensors_at(c->expected, i) != t)
        i++;
    return i;
}

/* The limit of a tensor's distance, which is kept when it is bf16's. */
static double take_limit(struct engine_case *c, const struct pm_tensor *t, enum engine_part part,
                         double distance)
{
    double *kept = &c->bf16_distance[place_of(c, t)];
    if (c->model->precision == PM_PRECISION_BF16)
        *kept = distance;
    return engine_limit(c, part, *kept);
}

void engine_compare_rounded(struct engine_case *c, struct parity_verdict *v, const float *ours,
                            const struct pm_tensor *t, enum engine_part part)
{
    struct engine_distance d = {0};
    for (size_t i = 0; i < engine_elements(t); i++) {
        double x = (double)engine_float(t, i), error = (double)ours[i] - x;
        d.difference += error * error;
        d.size += x * x;
    }
    double distance = engine_distance_of(&d);
    parity_report(v, t->name, distance, take_limit(c, t, part, distance));
}

int32_t engine_argmax(const float *values, int n)
{
    int32_t best = 0;
    for (int i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

void engine_compare_rounded_logits(struct engine_case *c, struct parity_verdict *v, const struct pm_tensor *t)
{
    int vocab = c->model->config.text.vocab;
    size_t count = (size_t)c->id_count * (size_t)vocab;
    if (engine_elements(t) != count) {
        parity_fail(v, "logits: %zu values, not %zu", count, engine_elements(t));
        return;
    }
    struct engine_distance d = {0};
    float *theirs = pm_xalloc((size_t)vocab * sizeof *theirs);
    for (size_t at = 0; at < count; at += (size_t)vocab) {
        memcpy(theirs, t->data + at * sizeof *theirs, (size_t)vocab * sizeof *theirs);
        engine_distance_row(&d, c->logits + at, theirs, vocab);
    }
    free(theirs);
    engine_report_logits(v, &d, take_limit(c, t, ENGINE_TEXT, engine_distance_of(&d)));
}

/* ---- ids ---- */

void engine_compare_ids(struct parity_verdict *v, const char *what, const int32_t *ours, int count,
                        const struct pm_tensor *t)
{
    if (engine_elements(t) != (size_t)count) {
        parity_fail(v, "%s: %d ids, not %zu", what, count, engine_elements(t));
        return;
    }
    for (int i = 0; i < count; i++)
        if (ours[i] != engine_int(t, (size_t)i)) {
            parity_fail(v, "%s: number %d is %d, not %d", what, i, ours[i], engine_int(t, (size_t)i));
            return;
        }
    parity_report(v, what, 0, 0);
}

/* ---- what probes have seen ---- */

struct engine_capture *engine_captured(struct engine_case *c, const char *name)
{
    for (size_t i = 0; i < c->capture_count; i++)
        if (strcmp(c->captures[i].name, name) == 0)
            return &c->captures[i];
    return NULL;
}

void engine_probe(void *ctx, const char *name, const float *values, int rows, int columns)
{
    struct engine_case *c = ctx;
    struct engine_capture *capture = engine_captured(c, name);
    if (!capture) {
        PM_GROW(c->captures, c->capture_count, c->capture_capacity);
        capture = &c->captures[c->capture_count++];
        *capture = (struct engine_capture){.columns = columns};
        snprintf(capture->name, sizeof capture->name, "%s", name);
    }
    PM_ASSERT(capture->columns == columns);
    size_t have = (size_t)capture->rows * (size_t)columns, more = (size_t)rows * (size_t)columns;
    if (have + more > capture->capacity) {
        capture->capacity = 2 * have + more;
        capture->values = pm_xrealloc(capture->values, capture->capacity * sizeof *values);
    }
    memcpy(capture->values + have, values, more * sizeof *values);
    capture->rows += rows;
}

void engine_drop_captures(struct engine_case *c)
{
    for (size_t i = 0; i < c->capture_count; i++)
        free(c->captures[i].values);
    free(c->captures);
    c->captures = NULL;
    c->capture_count = c->capture_capacity = 0;
}

/* Mean or deviation of every row. */
static void summarise(const struct engine_capture *capture, bool is_mean, float *out)
{
    for (int r = 0; r < capture->rows; r++) {
        const float *row = capture->values + (size_t)r * (size_t)capture->columns;
        double sum = 0, square = 0;
        for (int i = 0; i < capture->columns; i++) {
            sum += (double)row[i];
            square += (double)row[i] * (double)row[i];
        }
        double mean = sum / capture->columns, n = capture->columns;
        out[r] = (float)(is_mean ? mean : sqrt((square - sum * mean) / n));
    }
}

/* The part of a capture that an expected tensor NAME.SUFFIX holds; NULL when there is no such part. free().
 */
static float *cut(const struct engine_capture *capture, const char *suffix, const struct pm_tensor *t)
{
    int first = 0, rows = capture->rows, columns = capture->columns;
    size_t count = engine_elements(t);
    float *out = pm_xalloc((count + 1) * sizeof *out);
    bool is_mean = strcmp(suffix, ".row_mean") == 0;
    if (is_mean || strcmp(suffix, ".row_std") == 0) {
        if (count == (size_t)rows) {
            summarise(capture, is_mean, out);
            return out;
        }
    } else {
        if (strncmp(suffix, ".first", 6) == 0 && t->rank == 2) {
            rows = (int)t->shape[0];
            columns = (int)t->shape[1];
        } else if (strcmp(suffix, ".last") == 0) {
            first = rows - 1;
            rows = 1;
        } else if (suffix[0]) {
            rows = -1;
        }
        if (rows > 0 && first + rows <= capture->rows && columns <= capture->columns &&
            count == (size_t)rows * (size_t)columns) {
            for (int r = 0; r < rows; r++)
                memcpy(out + (size_t)r * (size_t)columns,
                       capture->values + (size_t)(first + r) * (size_t)capture->columns,
                       (size_t)columns * sizeof *out);
            return out;
        }
    }
    free(out);
    return NULL;
}

/* The capture whose name begins an expected name; the rest of it is *suffix_out. */
static struct engine_capture *capture_of(struct engine_case *c, const char *name, const char **suffix_out)
{
    struct engine_capture *best = NULL;
    for (size_t i = 0; i < c->capture_count; i++) {
        size_t length = strlen(c->captures[i].name);
        if (strncmp(c->captures[i].name, name, length) == 0 && (name[length] == '.' || name[length] == 0) &&
            (!best || length > strlen(best->name))) {
            best = &c->captures[i];
            *suffix_out = name + length;
        }
    }
    return best;
}

void engine_compare_captured(struct engine_case *c, const char *group, const char *prefix, double absolute,
                             double relative, enum engine_part part)
{
    struct parity_verdict v = {0};
    bool found = false;
    for (size_t i = 0; i < pm_safetensors_count(c->expected); i++) {
        const struct pm_tensor *t = pm_safetensors_at(c->expected, i);
        size_t length = strlen(prefix);
        if (strncmp(t->name, prefix, length) != 0 || (t->name[length] && t->name[length] != '.') ||
            t->dtype != PM_DTYPE_F32)
            continue;
        found = c->seen[i] = true;
        const char *suffix = "";
        const struct engine_capture *capture = capture_of(c, t->name, &suffix);
        float *ours = capture ? cut(capture, suffix, t) : NULL;
        if (!ours)
            parity_fail(&v, "%s: %s", t->name, capture ? "another shape" : "was not computed");
        else if (engine_is_rounded(c))
            engine_compare_rounded(c, &v, ours, t, part);
        else
            engine_compare_floats(&v, t->name, ours, t, engine_elements(t), absolute, relative);
        free(ours);
    }
    if (found)
        engine_line(c, group, 0, &v, NULL);
}
