#include "layoutd/lines.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SLACK_SHARE                                                                                          \
    0.28f /* of the height: how far the detector's boxes reach beyond the ink at either end                  \
           */

#define CAPITALS 1.45f /* height of capitals over x-height */
#define EM       2.25f /* type size over x-height */
#define VERTICAL_RATIO                                                                                       \
    2.6f /* higher than wide by this: not a lone letter or digit but a line that stands                      \
          */

static void assume(struct pm_line *line)
{
    line->baseline = line->box.bottom - 0.27f * line->height;
    line->x_height = 0.33f * line->height;
    line->size = 0.75f * line->height;
    line->stroke = 0;
}

static void free_line(struct pm_line *line)
{
    free(line->gaps);
    free(line->marks);
}

void pm_lines_add(struct pm_lines *lines, const struct pm_det_box *boxes, size_t count,
                  const struct pm_map3 *to_upright)
{
    for (size_t i = 0; i < count; i++) {
        struct pm_line line = {.quad = pm_quad_map(&boxes[i].quad, to_upright),
                               .score = boxes[i].score,
                               .table = -1,
                               .cell = -1};
        const struct pm_quad *q = &line.quad;
        line.height = pm_quad_height(q);
        if (!(line.height >= 2) || !(pm_quad_length(q) >= 2))
            continue;
        line.box = pm_quad_bounds(q);
        if (line.height > VERTICAL_RATIO * pm_quad_length(q) || fabsf(pm_quad_degrees(q)) > 45) {
            line.is_vertical = true;
            line.height = fminf(line.height, pm_quad_length(q));
        } else if (fabsf(pm_quad_degrees(q)) < 20) { /* lying lines: the middle of the leaning edges */
            line.box.top = 0.5f * (q->y[0] + q->y[1]);
            line.box.bottom = 0.5f * (q->y[2] + q->y[3]);
        }
        float slack = SLACK_SHARE * line.height, width = pm_rect_width(&line.box);
        slack = line.is_vertical ? 0 : fminf(slack, 0.2f * width);
        line.box.left += slack;
        line.box.right -= slack;
        assume(&line);
        PM_GROW(lines->items, lines->count, lines->capacity);
        lines->items[lines->count++] = line;
    }
}

/* First and one past the last index with at least `least`. */
static bool extent(const uint16_t *values, int count, int least, int *first_out, int *end_out)
{
    int first = 0, end = count;
    while (first < end && values[first] < least)
        first++;
    while (end > first && values[end - 1] < least)
        end--;
    *first_out = first;
    *end_out = end;
    return first < end;
}

/* The band of the small letters: from where the ink of the rows rises most to where it falls most. Steps are
 * taken over two rows, for scans are blurred. */
static bool find_band(const uint16_t *rows, int count, int *first_out, int *end_out)
{
    int fall = 0, rise = 0, end = -1, first = -1;
    for (int i = count / 3; i < count; i++) { /* row i is the first below the baseline */
        int below = i + 1 < count ? rows[i + 1] : 0,
            step = rows[i - 1] + (i > 1 ? rows[i - 2] : 0) - rows[i] - below;
        if (step > fall) {
            fall = step;
            end = i;
        }
    }
    for (int i = 0; i < end - 2; i++) { /* row i is the first of the band */
        int step = rows[i] + rows[i + 1] - (i > 0 ? rows[i - 1] : 0) - (i > 1 ? rows[i - 2] : 0);
        if (step > rise) {
            rise = step;
            first = i;
        }
    }
    *first_out = first;
    *end_out = end;
    return first >= 0 && end - first >= 3;
}

static void measure_rows(struct pm_line *line, uint16_t *rows, int top, int count)
{
    int first, end;
    for (int i = 0; i < count;
         i++) /* no row of letters is that full: an underline, or the edge of a ground */
        if ((float)rows[i] > 0.86f * pm_rect_width(&line->box))
            rows[i] = 0;
    if (count < 6 || !find_band(rows, count, &first, &end))
        return;
    line->x_height = (float)(end - first);
    line->baseline = (float)(top + end);
    /* A band without ascenders above it is one of capitals or digits. */
    int above = first;
    while (above > 0 && rows[above - 1] > 1)
        above--;
    if ((float)(first - above) < 0.2f * line->x_height)
        line->x_height /= CAPITALS;
    line->x_height = fminf(fmaxf(line->x_height, 0.24f * line->height), 0.6f * line->height);
    line->size = fminf(fmaxf(EM * line->x_height, 0.6f * line->height), 0.9f * line->height);
}

/* Do the characters stand on a grid? The narrow gaps between them do so then: their phases at the right pitch
 * agree. */
static void measure_pitch(struct pm_line *line, const uint16_t *columns, int left, int first, int end)
{
    enum { MAX_GAPS = 160, TURN = 256 };
    float places[MAX_GAPS], cosine[TURN];
    int n = 0;
    for (int x = first, from = -1; x < end && n < MAX_GAPS; x++) {
        if (!columns[x]) {
            from = from < 0 ? x : from;
        } else if (from >= 0) {
            if ((float)(x - from) < 0.33f * line->size)
                places[n++] = 0.5f * (float)(from + x);
            from = -1;
        }
    }
    line->mono_pitch = line->mono_strength = 0;
    line->is_mono = false;
    free(line->marks);
    line->marks = pm_xalloc(sizeof *line->marks * (size_t)(n + 1));
    line->mark_count = (uint32_t)n;
    for (int i = 0; i < n; i++)
        line->marks[i] = (float)left + places[i];
    if (n < 4)
        return;
    for (int i = 0; i < TURN; i++)
        cosine[i] = cosf((float)i * (6.2831853f / TURN));
    float best = 0, best_pitch = 0;
    for (float pitch = 0.42f * line->size; pitch < 0.75f * line->size; pitch *= 1.0025f) {
        float c = 0, s = 0, per = (float)TURN / pitch;
        for (int i = 0; i < n; i++) {
            unsigned phase = (unsigned)(places[i] * per);
            c += cosine[phase % TURN];
            s += cosine[(phase + TURN - TURN / 4) % TURN];
        }
        float agreement = (c * c + s * s) / (float)(n * n);
        if (agreement > best) {
            best = agreement;
            best_pitch = pitch;
        }
    }
    line->mono_pitch = best_pitch;
    line->mono_strength = sqrtf(best);
    /* chance alone reaches more with few gaps */
    line->is_mono = n >= 8 && line->mono_strength > 0.58f + 2.4f / (float)n;
}

static bool has_same_pitch(const struct pm_line *a, const struct pm_line *b)
{
    float slack = 0.0025f + 0.05f / (float)(a->mark_count < b->mark_count ? a->mark_count : b->mark_count);
    return fabsf(a->mono_pitch - b->mono_pitch) < slack * a->mono_pitch;
}

/* Letters of prose may happen to stand on a grid. One line proves a fixed pitch only when it agrees very
 * well; a weaker one, or one of few letters, needs another line of the page on the same pitch. */
static void settle_mono(struct pm_lines *lines)
{
    bool *sure = pm_xalloc(sizeof *sure * (2 * (size_t)lines->count + 1)), *proven = sure + lines->count;
    for (uint32_t i = 0; i < lines->count; i++) {
        const struct pm_line *l = &lines->items[i];
        sure[i] = l->is_mono && l->mono_strength > 0.82f + 1.2f / (float)l->mark_count;
    }
    for (uint32_t i = 0; i < lines->count; i++) {
        const struct pm_line *a = &lines->items[i];
        bool is_short = !a->is_mono && a->mark_count >= 5 && a->mark_count < 8 && a->mono_strength > 0.93f;
        proven[i] = sure[i];
        for (uint32_t k = 0; k < lines->count && (a->is_mono || is_short) && !proven[i]; k++) {
            const struct pm_line *b = &lines->items[k];
            float least = sure[k] ? 0.64f : 0.74f;
            proven[i] = k != i && b->is_mono && (sure[k] || !is_short) && a->mono_strength > least &&
                        b->mono_strength > least && has_same_pitch(a, b);
        }
    }
    for (uint32_t i = 0; i < lines->count; i++)
        lines->items[i].is_mono = proven[i];
    free(sure);
}

static void measure_gaps(struct pm_line *line, const uint16_t *columns, int left, int first, int end)
{
    int least = (int)fmaxf(2, 0.12f * line->height), from = first;
    uint32_t capacity = 0;
    free(line->gaps);
    line->gaps = NULL;
    line->gap_count = 0;
    for (int x = first; x < end; x++) {
        if (columns[x]) {
            if (x - from >= least) {
                PM_GROW(line->gaps, line->gap_count, capacity);
                line->gaps[line->gap_count++] = (struct pm_gap){(float)(left + from), (float)(left + x)};
            }
            from = x + 1;
        }
    }
}

#define MAX_SHIFT 6 /* px between the ends of a line; more than that was seen by the detector */

/* By how many px the ink of rows b lies lower than that of rows a: least difference, refined by a parabola.
 * False when it lies outside the range or nothing stands out. */
static bool find_shift(const uint16_t *a, const uint16_t *b, int count, float *shift_out)
{
    long cost[2 * MAX_SHIFT + 1], total = 0;
    int best = 0;
    for (int s = -MAX_SHIFT; s <= MAX_SHIFT; s++) {
        long sum = 0;
        for (int i = MAX_SHIFT; i < count - MAX_SHIFT; i++)
            sum += labs((long)a[i] - (long)b[i + s]);
        cost[s + MAX_SHIFT] = sum;
        if (sum < cost[best])
            best = s + MAX_SHIFT;
    }
    for (int i = 0; i < count; i++)
        total += a[i];
    if (best == 0 || best == 2 * MAX_SHIFT || cost[best] * 2 > total)
        return false;
    float down = (float)(cost[best - 1] - cost[best]), up = (float)(cost[best + 1] - cost[best]);
    float between = down + up > 0 ? 0.5f * (down - up) / (down + up) : 0;
    *shift_out = (float)(best - MAX_SHIFT) + between;
    return true;
}

float pm_lines_lean(const struct pm_lines *lines, const struct pm_ink *ink)
{
    float *leans = pm_xalloc(sizeof *leans * (lines->count + 1u));
    uint16_t *columns = pm_xalloc(sizeof *columns * (size_t)(ink->width_px + 2 * ink->height_px + 2));
    uint16_t *left_rows = columns + ink->width_px, *right_rows = left_rows + ink->height_px;
    int n = 0;
    for (uint32_t i = 0; i < lines->count; i++) {
        const struct pm_line *l = &lines->items[i];
        int left = (int)l->box.left, right = (int)l->box.right, part = (right - left) * 3 / 10;
        int top = (int)l->box.top - MAX_SHIFT, bottom = (int)l->box.bottom + MAX_SHIFT;
        if (l->is_vertical || (float)(right - left) < 12 * l->height || left < 0 || right > ink->width_px ||
            top < 0 || bottom > ink->height_px || bottom - top < 4 * MAX_SHIFT)
            continue;
        size_t bytes = sizeof *left_rows * (size_t)(bottom - top);
        memset(left_rows, 0, bytes);
        memset(right_rows, 0, bytes);
        pm_ink_profile(ink, left, top, left + part, bottom, columns, left_rows);
        pm_ink_profile(ink, right - part, top, right, bottom, columns, right_rows);
        float shift;
        if (find_shift(left_rows, right_rows, bottom - top, &shift))
            leans[n++] = 57.29578f * atan2f(shift, (float)(right - left - part));
    }
    float lean = n >= 4 ? pm_quantile(leans, n, 0.5f) : 0, sum = 0;
    int near = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(leans[i] - lean) < 0.1f) {
            sum += leans[i];
            near++;
        }
    free(columns);
    free(leans);
    return near >= 4 && near * 2 >= n ? sum / (float)near : 0;
}

/* Height of the ink between left and right, and its last row; 0 for none. */
static float ink_height(const struct pm_ink *ink, int left, int right, int top, int bottom, int *last_out)
{
    int first = -1;
    for (int y = top < 0 ? 0 : top; y < bottom && y < ink->height_px; y++)
        if (pm_ink_count(ink, left, y, right, y + 1)) {
            first = first < 0 ? y : first;
            *last_out = y;
        }
    return first < 0 ? 0 : (float)(*last_out - first + 1);
}

static bool is_mark(const struct pm_line *line, const struct pm_ink *ink, int left, int right)
{
    int last = 0, top = (int)line->box.top, bottom = (int)line->box.bottom, trim = (bottom - top) / 6;
    float high = ink_height(ink, left, right, top + trim, bottom - trim, &last),
          width = (float)(right - left);
    if (high < 2 || width < 2)
        return false;
    bool is_low = high < 0.62f * line->x_height + 2 && (float)last < line->baseline - 1;
    bool is_square = high < 1.15f * line->x_height && width < 1.3f * line->x_height;
    return is_low || (is_square && (float)last < line->baseline - 0.1f * line->x_height);
}

/* A bullet that the detector left out: a small mark before the line with clear space on both sides. */
static void measure_outer_bullet(struct pm_line *line, const struct pm_ink *ink, uint16_t *columns)
{
    int right = (int)line->box.left, left = right - (int)(3 * line->size), top = (int)line->box.top,
        bottom = (int)line->box.bottom;
    int trim = (bottom - top) / 6;
    left = left < 0 ? 0 : left;
    top = top + trim < 0 ? 0 : top + trim,
    bottom = bottom - trim > ink->height_px ? ink->height_px : bottom - trim;
    if (right - left < (int)line->size || right > ink->width_px || bottom <= top)
        return;
    memset(columns, 0, (size_t)(right - left) * sizeof *columns);
    pm_ink_profile(ink, left, top, right, bottom, columns, NULL);
    int end = right - left, first;
    while (end > 0 && !columns[end - 1])
        end--;
    for (first = end; first > 0 && columns[first - 1]; first--)
        ;
    int clear = first;
    while (clear > 0 && !columns[clear - 1])
        clear--;
    float space = (float)(right - left - end), width = (float)(end - first), before = (float)(first - clear);
    bool is_free = before > 0.7f * line->size || clear == 0;
    if (end > 0 && space > 0.25f * line->size && space < 2 * line->size && width < 0.9f * line->size &&
        is_free && is_mark(line, ink, left + first, left + end))
        line->bullet_right = (float)(left + end);
}

/* A bullet or dash: the ink before the first gap is small, alone and followed by a clear space. */
static void measure_bullet(struct pm_line *line, const struct pm_ink *ink)
{
    line->bullet_right = 0;
    for (uint32_t i = 0; i < line->gap_count && i < 2; i++) {
        const struct pm_gap *g = &line->gaps[i];
        float width = g->left - line->box.left;
        if (width > 1.3f * line->height || width < 2)
            return;
        if (g->right - g->left < 0.3f * line->height)
            continue;
        if (is_mark(line, ink, (int)line->box.left, (int)g->left))
            line->bullet_right = g->left;
        return;
    }
}

static bool measure(struct pm_line *line, const struct pm_ink *ink, uint16_t *columns, uint16_t *rows)
{
    float width = pm_rect_width(&line->box), slack = fminf(SLACK_SHARE * line->height, width);
    int left = (int)floorf(line->box.left - slack), right = (int)ceilf(line->box.right + slack);
    int top = (int)floorf(line->box.top), bottom = (int)ceilf(line->box.bottom);
    left = left < 0 ? 0 : left, right = right > ink->width_px ? ink->width_px : right;
    top = top < 0 ? 0 : top, bottom = bottom > ink->height_px ? ink->height_px : bottom;
    if (right - left < 1 || bottom - top < 1)
        return false;
    memset(columns, 0, (size_t)(right - left) * sizeof *columns);
    memset(rows, 0, (size_t)(bottom - top) * sizeof *rows);
    /* the outer sixths belong to the neighbours above and below as much as to this line */
    int trim = (bottom - top) / 6;
    pm_ink_profile(ink, left, top, right, bottom, columns, rows);
    measure_rows(line, rows, top, bottom - top);
    memset(columns, 0, (size_t)(right - left) * sizeof *columns);
    memset(rows, 0, (size_t)(bottom - top) * sizeof *rows);
    pm_ink_profile(ink, left, top + trim, right, bottom - trim, columns, rows);
    int first, end;
    if (!extent(columns, right - left, 1, &first, &end))
        return false;
    line->box.left = (float)(left + first);
    line->box.right = (float)(left + end);
    measure_gaps(line, columns, left, first, end);
    measure_pitch(line, columns, left, first, end);
    int band = (int)(line->baseline - line->x_height);
    long runs = 0, area = pm_ink_runs(ink, left + first, band, left + end, (int)line->baseline, &runs);
    line->stroke = runs ? (float)area / (float)runs / line->x_height : 0;
    measure_bullet(line, ink);
    if (line->bullet_right == 0)
        measure_outer_bullet(line, ink, columns);
    return true;
}

void pm_lines_measure(struct pm_lines *lines, const struct pm_ink *ink)
{
    uint16_t *columns = pm_xalloc(sizeof *columns * (size_t)(ink->width_px + ink->height_px + 2));
    uint16_t *rows = columns + ink->width_px + 1;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < lines->count; i++) {
        struct pm_line line = lines->items[i];
        if (line.is_vertical || measure(&line, ink, columns, rows))
            lines->items[kept++] = line;
        else
            free_line(&line);
    }
    lines->count = kept;
    free(columns);
    settle_mono(lines);
}

float pm_line_fit(const struct pm_line *line, const struct pm_line *grid)
{
    if (!line->mark_count || !grid->mark_count || grid->mono_pitch <= 0)
        return 0;
    float c = 0, s = 0, sum = 0, turn = 6.2831853f / grid->mono_pitch, origin = line->marks[0];
    for (uint32_t i = 0; i < grid->mark_count; i++) {
        c += cosf((grid->marks[i] - origin) * turn);
        s += sinf((grid->marks[i] - origin) * turn);
    }
    float phase = atan2f(s, c);
    for (uint32_t i = 0; i < line->mark_count; i++)
        sum += cosf((line->marks[i] - origin) * turn - phase);
    return sum / (float)line->mark_count;
}

bool pm_lines_split(struct pm_lines *lines, uint32_t index, float x)
{
    struct pm_line left = lines->items[index];
    struct pm_rect all = pm_quad_bounds(&left.quad);
    float share = (x - all.left) / fmaxf(1, pm_rect_width(&all));
    if (!(share > 0.01f && share < 0.99f))
        return false;
    struct pm_line right = left;
    right.quad = pm_quad_part(&left.quad, share, 1);
    left.quad = pm_quad_part(&left.quad, 0, share);
    left.box.right = fminf(left.box.right, x);
    right.box.left = fmaxf(right.box.left, x);
    right.bullet_right = 0;
    right.marks = pm_xalloc(sizeof *right.marks * (left.mark_count + 1u));
    right.mark_count = 0;
    uint32_t marks_kept = 0;
    for (uint32_t i = 0; i < left.mark_count; i++) {
        if (left.marks[i] < x)
            left.marks[marks_kept++] = left.marks[i];
        else
            right.marks[right.mark_count++] = left.marks[i];
    }
    left.mark_count = marks_kept;
    right.gaps = pm_xalloc(sizeof *right.gaps * (left.gap_count + 1u));
    right.gap_count = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < left.gap_count; i++) {
        const struct pm_gap g = left.gaps[i];
        if (g.right <= x)
            left.gaps[kept++] = g;
        else if (g.left >= x)
            right.gaps[right.gap_count++] = g;
        else {
            left.box.right = fminf(left.box.right, g.left);
            right.box.left = fmaxf(right.box.left, g.right);
        }
    }
    left.gap_count = kept;
    lines->items[index] = left;
    PM_GROW(lines->items, lines->count, lines->capacity);
    lines->items[lines->count++] = right;
    return true;
}

void pm_lines_free(struct pm_lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++)
        free_line(&lines->items[i]);
    free(lines->items);
    *lines = (struct pm_lines){0};
}

float pm_lines_typical_height(const struct pm_lines *lines, float fallback)
{
    if (!lines->count)
        return fallback;
    float *heights = pm_xalloc(sizeof *heights * lines->count);
    for (uint32_t i = 0; i < lines->count; i++)
        heights[i] = lines->items[i].height;
    float h = pm_quantile(heights, (int)lines->count, 0.5f);
    free(heights);
    return h;
}
