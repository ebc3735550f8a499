/* Word spaces against the ink (spacing.h).
 *
 * Three rules, each measured on pages that it was not made from; rules that mended less than ten times what
 * they broke are not here (spaces by gap width alone, by letters, by pitch where there was none).
 *   narrow  a doubtful space much narrower than the line's spaces, between letters that stand as wide apart
 *           as that themselves and at the pitch of their neighbours: not a space
 *   pitch   a doubtful space between characters exactly as far apart as their neighbours are: not a space
 *           (a monospaced run; between words of one the distance would be twice that)
 *   missed  a step of doubt in a gap as wide as the line's spaces, far wider than the gaps beside it: a space
 */
#include "engine/ppocr/spacing.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    ROWS_MAX = 256,
    WINDOW_PX = 40,    /* paper is judged over this many columns to either side */
    CONTRAST_MIN = 10, /* grey levels; less is noise */
    REACH = 3,         /* neighbouring distances looked at on either side */
    SPACES_MIN = 3,    /* spaces a line needs before its own width of a space is trusted */
    SPACE_MIN_PX = 5,  /* narrower ones are not measured gaps but touching letters */
};
#define INK_SHARE       0.35f /* of the contrast: this much darker than the paper is ink */
#define SURE_NARROW     0.97f /* spaces that the network gives more are left alone */
#define SURE_PITCH      0.97f
#define SURE_PITCH_MARK 0.92f
#define SURE_BLANK      0.75f
#define GUESS           0.5f /* probability of a space that is put in */

struct glyph {
    const char *text;
    int column;
    bool spaced;            /* a space stands before it */
    float certainty;        /* of that space: its best step */
    int gap_begin, gap_end; /* empty columns between the one before and this; end 0: none */
    float centre;           /* negative: touches a neighbour, unknown */
};

struct line { /* one line while it is looked at */
    int width, height;
    uint8_t *grey; /* [height][width], dark ink */
    bool *ink;     /* [width] columns */
    struct glyph *glyphs;
    int count;
    int space_px, spaces; /* the line's median space, and how many there are */
};

/* ---- ink ---- */

static int rank_of(const int *histogram, int total, int percent)
{
    int need = (int)((int64_t)total * percent / 100), sum = 0;
    for (int v = 0; v < 256; v++) {
        sum += histogram[v];
        if (sum > need)
            return v;
    }
    return 255;
}

/* Grey values with dark ink on bright paper. */
static void take_grey(const struct pm_image *im, struct line *l)
{
    int histogram[256] = {0}, total = l->width * l->height;
    for (int y = 0; y < l->height; y++)
        for (int x = 0; x < l->width; x++) {
            const uint8_t *p = im->pixels + (size_t)y * im->stride_bytes + (size_t)x * (size_t)im->channels;
            int v = im->channels == 3 ? (p[0] + 2 * p[1] + p[2]) / 4 : p[0];
            l->grey[(size_t)y * (size_t)l->width + (size_t)x] = (uint8_t)v;
            histogram[v]++;
        }
    int low = rank_of(histogram, total, 1), middle = rank_of(histogram, total, 50),
        high = rank_of(histogram, total, 99);
    if (middle - low >= high - middle)
        return;
    for (int i = 0; i < total; i++)
        l->grey[i] = (uint8_t)(255 - l->grey[i]);
}

/* Brightness of the paper at each column: upper quartiles of columns, and of those over a window, so that
 * neither ink nor uneven light decides. */
static void find_paper(const struct line *l, uint8_t *column, uint8_t *paper)
{
    for (int x = 0; x < l->width; x++) {
        int histogram[256] = {0};
        for (int y = 0; y < l->height; y++)
            histogram[l->grey[(size_t)y * (size_t)l->width + (size_t)x]]++;
        column[x] = (uint8_t)rank_of(histogram, l->height, 75);
    }
    int window[256] = {0}, total = 0;
    for (int x = 0; x < l->width && x < WINDOW_PX; x++, total++)
        window[column[x]]++;
    for (int x = 0; x < l->width; x++) {
        if (x + WINDOW_PX < l->width) {
            window[column[x + WINDOW_PX]]++;
            total++;
        }
        if (x > WINDOW_PX) {
            window[column[x - WINDOW_PX - 1]]--;
            total--;
        }
        paper[x] = (uint8_t)rank_of(window, total, 75);
    }
}

static int find_ink(struct line *l, struct pm_error *err)
{
    void *storage;
    int rc = pm_alloc_array((size_t)l->width, 2, &storage, err);
    if (rc)
        return rc;
    uint8_t *paper = storage;
    find_paper(l, paper + l->width, paper);
    int histogram[256] = {0};
    for (int y = 0; y < l->height; y++)
        for (int x = 0; x < l->width; x++) {
            int d = paper[x] - l->grey[(size_t)y * (size_t)l->width + (size_t)x];
            histogram[d > 0 ? d : 0]++;
        }
    float level = INK_SHARE * (float)rank_of(histogram, l->width * l->height, 97);
    int least = level > CONTRAST_MIN ? (int)level : CONTRAST_MIN;
    for (int x = 0; x < l->width; x++)
        for (int y = 0; y < l->height && !l->ink[x]; y++)
            l->ink[x] = paper[x] - l->grey[(size_t)y * (size_t)l->width + (size_t)x] > least;
    free(storage);
    return 0;
}

/* ---- characters ---- */

static int middle_px(int column)
{
    return column * PM_SPACING_STEP_PX + PM_SPACING_STEP_PX / 2;
}

/* Best probability of the run of equal steps that begins there. */
static float best_of_run(const struct pm_ctc_step *steps, int step_count, int begin)
{
    float best = 0;
    for (int t = begin; t < step_count && steps[t].index == steps[begin].index; t++)
        best = steps[t].probability > best ? steps[t].probability : best;
    return best;
}

static void take_glyphs(struct line *l, const struct pm_charset *charset, const struct pm_ctc_line *decoded,
                        const struct pm_ctc_step *steps, int step_count)
{
    bool spaced = false;
    float certainty = 0;
    for (size_t i = 0; i < decoded->char_count; i++) {
        const struct pm_ctc_char *c = &decoded->chars[i];
        const char *text = charset->entries[c->index];
        if (strcmp(text, " ") == 0) {
            float best = best_of_run(steps, step_count, c->column);
            certainty = spaced && certainty > best ? certainty : best;
            spaced = true;
            continue;
        }
        l->glyphs[l->count++] = (struct glyph){
            .text = text, .column = c->column, .spaced = spaced, .certainty = certainty, .centre = -1};
        spaced = false;
    }
}

/* The widest run of empty columns whose middle lies between the middles of two characters. */
static void find_gap(const struct line *l, int first, int last, const struct glyph *before, struct glyph *g)
{
    int from = middle_px(before->column) - 2, to = middle_px(g->column) + 2;
    int x = from < first ? first : from > last ? last : from;
    while (x > first && !l->ink[x - 1])
        x--;
    for (; x < last && x <= to; x++) {
        int begin = x;
        while (x < last && !l->ink[x])
            x++;
        int sum = begin + x;
        if (x > begin && x - begin > g->gap_end - g->gap_begin && sum >= 2 * from && sum <= 2 * to) {
            g->gap_begin = begin;
            g->gap_end = x;
        }
    }
}

/* A gap that two pairs claim belongs to the nearer one. */
static void share_gaps(struct line *l)
{
    for (int i = 2; i < l->count; i++) {
        struct glyph *a = &l->glyphs[i - 1], *b = &l->glyphs[i];
        if (!a->gap_end || a->gap_end != b->gap_end)
            continue;
        int twice = a->gap_begin + a->gap_end;
        int to_a = abs(twice - middle_px(l->glyphs[i - 2].column) - middle_px(a->column));
        int to_b = abs(twice - middle_px(a->column) - middle_px(b->column));
        struct glyph *loser = to_a <= to_b ? b : a;
        loser->gap_begin = loser->gap_end = 0;
    }
}

static void find_gaps(struct line *l)
{
    int first = 0, last = l->width;
    while (first < last && !l->ink[first])
        first++;
    while (last > first && !l->ink[last - 1])
        last--;
    for (int i = 1; i < l->count; i++)
        find_gap(l, first, last, &l->glyphs[i - 1], &l->glyphs[i]);
    share_gaps(l);
    for (int i = 0; i < l->count; i++) {
        struct glyph *g = &l->glyphs[i];
        bool is_last = i + 1 == l->count;
        if ((i && !g->gap_end) || (!is_last && !g[1].gap_end))
            continue;
        g->centre = (float)((i ? g->gap_end : first) + (is_last ? last : g[1].gap_begin)) / 2;
    }
}

static int gap_px(const struct line *l, int i)
{
    return l->glyphs[i].gap_end - l->glyphs[i].gap_begin;
}

/* Median of the gaps where the network sees spaces. */
static void measure_space(struct line *l)
{
    int histogram[256] = {0};
    for (int i = 1; i < l->count; i++) {
        if (!l->glyphs[i].spaced)
            continue;
        int gap = gap_px(l, i);
        histogram[gap < 255 ? gap : 255]++;
        l->spaces++;
    }
    l->space_px = l->spaces ? rank_of(histogram, l->spaces, 50) : 0;
}

/* ---- rules ---- */

/* Distance of the middles of character i and the one before; negative when unknown. */
static float distance(const struct line *l, int i)
{
    if (i < 1 || i >= l->count || l->glyphs[i].centre < 0 || l->glyphs[i - 1].centre < 0)
        return -1;
    return l->glyphs[i].centre - l->glyphs[i - 1].centre;
}

/* How many distances next to i, going in that direction, equal its own. */
static int equal_neighbours(const struct line *l, int i, int direction)
{
    float own = distance(l, i), slack = own * 0.09f > 1.5f ? own * 0.09f : 1.5f;
    int n = 0;
    while (own > 0 && n < REACH) {
        float d = distance(l, i + (n + 1) * direction);
        if (d < 0 || fabsf(d - own) > slack)
            break;
        n++;
    }
    return n;
}

/* Widest of the gaps near i that are not spaces; -1 when there is none. */
static int widest_letter_gap(const struct line *l, int i)
{
    int widest = -1;
    for (int j = i - 2; j <= i + 2; j++) {
        if (j < 1 || j >= l->count || j == i || l->glyphs[j].spaced)
            continue;
        widest = gap_px(l, j) > widest ? gap_px(l, j) : widest;
    }
    return widest;
}

static float median_distance(const struct line *l, int i)
{
    float sorted[2 * REACH];
    int n = 0;
    for (int j = i - REACH; j <= i + REACH; j++) {
        float d = j == i ? -1 : distance(l, j);
        if (d <= 0)
            continue;
        int at = n++;
        for (; at > 0 && sorted[at - 1] > d; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = d;
    }
    return n ? sorted[n / 2] : 0;
}

static bool is_narrow(const struct line *l, int i)
{
    float gap = (float)gap_px(l, i), space = (float)l->space_px, own = distance(l, i);
    return l->spaces >= SPACES_MIN && l->glyphs[i].certainty < SURE_NARROW && gap >= 0.3f * space &&
           gap < 0.75f * space && (float)widest_letter_gap(l, i) >= 0.55f * gap && own > 0 &&
           own <= 1.2f * median_distance(l, i);
}

/* One of that character, alone. */
static bool is_one_of(const char *text, const char *marks)
{
    return text[0] && text[1] == 0 && strchr(marks, text[0]);
}

/* Where writing sets words apart however narrow the gap came out: after a comma, about an operator. */
static bool belongs_there(const struct line *l, int i)
{
    const char *before = l->glyphs[i - 1].text, *after = l->glyphs[i].text;
    return is_one_of(before, ",;!?+-=") || is_one_of(after, "+-=");
}

static bool is_at_pitch(const struct line *l, int i)
{
    const struct glyph *g = &l->glyphs[i];
    int left = equal_neighbours(l, i, -1), right = equal_neighbours(l, i, 1);
    if (left + right < 3)
        return false;
    if (left && right && g->certainty < SURE_PITCH)
        return true;
    return g->certainty < SURE_PITCH_MARK && (is_one_of(g->text, ".:/") || is_one_of(g[-1].text, ".:/"));
}

/* The step between two characters where a space may have been missed, or -1: a blank in doubt. */
static int doubtful_blank(const struct line *l, int i, const struct pm_ctc_step *steps)
{
    int best = -1;
    for (int t = l->glyphs[i - 1].column + 1; t < l->glyphs[i].column; t++)
        if (steps[t].index == 0 && steps[t].probability < SURE_BLANK &&
            (best < 0 || steps[t].probability < steps[best].probability))
            best = t;
    return best;
}

static bool is_missed(const struct line *l, int i)
{
    const char *text = l->glyphs[i].text;
    int beside = widest_letter_gap(l, i);
    float gap = (float)gap_px(l, i);
    if (is_one_of(text, ".,")) /* no language sets them apart */
        return false;
    return l->space_px >= SPACE_MIN_PX && gap >= 0.9f * (float)l->space_px && beside >= 0 &&
           (float)beside <= 0.4f * gap && !equal_neighbours(l, i, -1) && !equal_neighbours(l, i, 1);
}

/* ---- the whole ---- */

static bool has_doubt(const struct line *l, const struct pm_ctc_step *steps)
{
    for (int i = 1; i < l->count; i++)
        if (l->glyphs[i].spaced ? l->glyphs[i].certainty < SURE_PITCH : doubtful_blank(l, i, steps) >= 0)
            return true;
    return false;
}

static void remove_space(const struct line *l, const struct pm_charset *charset, int i,
                         struct pm_ctc_step *steps)
{
    for (int t = l->glyphs[i - 1].column + 1; t < l->glyphs[i].column; t++)
        if (strcmp(charset->entries[steps[t].index], " ") == 0)
            steps[t].index = 0;
}

static int revise(const struct line *l, const struct pm_charset *charset, int32_t space,
                  struct pm_ctc_step *steps)
{
    int changes = 0;
    for (int i = 1; i < l->count; i++) {
        if (l->glyphs[i].spaced) {
            if (belongs_there(l, i) || (!is_narrow(l, i) && !is_at_pitch(l, i)))
                continue;
            remove_space(l, charset, i, steps);
            changes++;
            continue;
        }
        int t = doubtful_blank(l, i, steps);
        if (t < 0 || !is_missed(l, i))
            continue;
        steps[t] = (struct pm_ctc_step){space, GUESS};
        changes++;
    }
    return changes;
}

int pm_spacing_revise(const struct pm_image *line, const struct pm_charset *charset,
                      const struct pm_ctc_line *decoded, struct pm_ctc_step *steps, int step_count,
                      int *changes_out, struct pm_error *err)
{
    *changes_out = 0;
    if (!line->pixels || line->width_px < 1 || line->height_px < 1 || line->height_px > ROWS_MAX ||
        (line->channels != 1 && line->channels != 3))
        return pm_fail(err, PM_EINVAL, "word spaces: a line picture of %d x %d with %d channels",
                       line->width_px, line->height_px, line->channels);
    int32_t space = -1;
    for (size_t i = 0; i < decoded->char_count && space < 0; i++)
        if (strcmp(charset->entries[decoded->chars[i].index], " ") == 0)
            space = decoded->chars[i].index;
    if (space < 0) /* no width of a space to compare with */
        return 0;
    struct line l = {.width = line->width_px, .height = line->height_px};
    void *glyphs = NULL, *grey = NULL, *ink = NULL;
    int rc = pm_alloc_array(decoded->char_count, sizeof *l.glyphs, &glyphs, err);
    l.glyphs = glyphs;
    if (!rc)
        take_glyphs(&l, charset, decoded, steps, step_count);
    if (!rc && has_doubt(&l, steps)) {
        rc = pm_alloc_array((size_t)l.width, (size_t)l.height, &grey, err);
        if (!rc)
            rc = pm_alloc_array((size_t)l.width, sizeof(bool), &ink, err);
        l.grey = grey;
        l.ink = ink;
        if (!rc) {
            memset(ink, 0, (size_t)l.width * sizeof(bool));
            take_grey(line, &l);
            rc = find_ink(&l, err);
        }
        if (!rc) {
            find_gaps(&l);
            measure_space(&l);
            *changes_out = revise(&l, charset, space, steps);
        }
    }
    free(glyphs);
    free(grey);
    free(ink);
    return rc;
}
