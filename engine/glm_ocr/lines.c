#include "engine/glm_ocr/lines.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/vlm/image.h"

#define WINDOW_SHARE   6    /* a cut may be that share of the longest part away from its ideal place */
#define FIRST_SHARE    4    /* no part is shorter than that share of the longest, but the last */
#define INK_SHARE      0.35 /* of the line's contrast: what differs that much from the paper is ink */
#define SPACE_SHARE    0.17 /* of the line's height: a gap at least that wide stands between words */
#define SKIPPED_SHARE  8    /* that share of the height above and below may show the neighbours' ink */
#define LEAST_CONTRAST 24

int64_t pm_line_width(const struct pm_line_rules *rules, int width_px, int height_px)
{
    double steps =
        rint((double)width_px * (double)rules->height_px / (double)height_px / (double)rules->step_px);
    int64_t n = steps < 1 ? 1 : (int64_t)steps;
    return n * rules->step_px;
}

/* ---- ink ---- */

struct ink {
    const struct pm_image *line;
    int top, bottom; /* rows looked at */
    int paper, limit;
};

static int brightness(const struct pm_image *line, int x, int y)
{
    const uint8_t *p = line->pixels + (size_t)y * line->stride_bytes + (size_t)x * (size_t)line->channels;
    return line->channels == 1 ? p[0] : (p[0] + 2 * p[1] + p[2]) / 4;
}

/* Paper is the brightness that most pixels have; ink is far from it. */
static struct ink ink_of(const struct pm_image *line)
{
    struct ink k = {.line = line};
    uint32_t histogram[32] = {0};
    int low = 255, high = 0, most = 0;
    int skipped = line->height_px / SKIPPED_SHARE;
    k.top = skipped;
    k.bottom = line->height_px - skipped;
    for (int y = k.top; y < k.bottom; y++)
        for (int x = 0; x < line->width_px; x++) {
            int b = brightness(line, x, y);
            histogram[b / 8]++;
            low = b < low ? b : low;
            high = b > high ? b : high;
        }
    for (int i = 1; i < 32; i++)
        most = histogram[i] > histogram[most] ? i : most;
    k.paper = most * 8 + 4;
    int limit = (int)(INK_SHARE * (high - low));
    k.limit = limit > LEAST_CONTRAST ? limit : LEAST_CONTRAST;
    return k;
}

static int ink_in_column(const struct ink *k, int x)
{
    int count = 0;
    for (int y = k->top; y < k->bottom; y++)
        count += abs(brightness(k->line, x, y) - k->paper) >= k->limit;
    return count;
}

/* ---- cuts ---- */

/* The best place in [from, to): the middle of the widest gap; without one, the column with the least ink. */
static int best_cut(const struct ink *k, int from, int to, int *gap_out)
{
    to = to > from ? to : from + 1;
    int gap = 0, cut = from, run = 0, least = -1, least_at = from;
    for (int x = from; x < to; x++) {
        int ink = ink_in_column(k, x);
        run = ink ? 0 : run + 1;
        if (run && run >= gap) {
            gap = run;
            cut = x - run / 2;
        }
        if (least < 0 || ink < least) {
            least = ink;
            least_at = x;
        }
    }
    *gap_out = gap;
    return gap ? cut : least_at;
}

/* Columns of the line's own picture that still fit. */
static int longest_part(const struct pm_line_rules *rules, int height_px)
{
    double columns = (double)rules->max_width_px * (double)height_px / (double)rules->height_px;
    return columns < 2 ? 2 : columns > PM_IMAGE_MAX_SIDE_PX ? PM_IMAGE_MAX_SIDE_PX : (int)columns;
}

void pm_line_cut(const struct pm_line_rules *rules, const struct pm_image *line,
                 struct pm_line_part **parts_out, int *count_out)
{
    int width = line->width_px, capacity = 0, count = 0, begin = 0;
    struct pm_line_part *parts = NULL;
    bool has_space = false;
    struct ink ink = {0};
    int longest = longest_part(rules, line->height_px);
    bool fits = pm_line_width(rules, width, line->height_px) <= rules->max_width_px;
    if (!fits)
        ink = ink_of(line);
    for (;;) {
        PM_GROW(parts, count, capacity);
        parts[count] = (struct pm_line_part){begin, width, has_space};
        if (fits || width - begin <= longest) {
            count++;
            break;
        }
        int rest = width - begin, pieces = (rest + longest - 1) / longest;
        int ideal = begin + rest / pieces, window = longest / WINDOW_SHARE, gap;
        int end = begin + longest;
        int cut = best_cut(&ink, ideal - window, ideal + window < end ? ideal + window : end, &gap);
        if (gap < SPACE_SHARE * line->height_px) /* in the middle of a long word */
            cut = best_cut(&ink, begin + 1 + longest / FIRST_SHARE, end, &gap);
        has_space = gap >= SPACE_SHARE * line->height_px;
        parts[count++].end = cut;
        begin = cut;
    }
    *parts_out = parts;
    *count_out = count;
}

int pm_line_make(const struct pm_line_rules *rules, const struct pm_image *line,
                 const struct pm_line_part *part, struct pm_image *out, struct pm_error *err)
{
    struct pm_image view = pm_image_view(line, part->begin, 0, part->end - part->begin, line->height_px);
    int64_t width = pm_line_width(rules, view.width_px, view.height_px);
    if (width > rules->max_width_px)
        width = rules->max_width_px;
    return pm_resize_bicubic(&view, (int)width, rules->height_px, out, err);
}
