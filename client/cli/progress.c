#include "client/cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BAR_MOST  30
#define BAR_LEAST 8
#define FEW_PAGES 3.0 /* in the window of recent pages: too few to judge by */
#define SLOW      0.1 /* pages a second */

double pm_rate_update(struct pm_rate *rate, int64_t now_us, uint64_t pages_done)
{
    unsigned newest = (rate->next + PM_RATE_SAMPLES - 1) % PM_RATE_SAMPLES;
    if (!rate->count || now_us - rate->time_us[newest] >= 1000000) {
        rate->time_us[rate->next] = now_us;
        rate->pages[rate->next] = pages_done;
        rate->next = (rate->next + 1) % PM_RATE_SAMPLES;
        if (rate->count < PM_RATE_SAMPLES)
            rate->count++;
    }
    unsigned oldest = rate->count < PM_RATE_SAMPLES ? 0 : rate->next;
    int64_t span = now_us - rate->time_us[oldest];
    if (span <= 0 || pages_done <= rate->pages[oldest])
        return 0;
    return (double)(pages_done - rate->pages[oldest]) * 1e6 / (double)span;
}

void pm_progress_time(int64_t us, char *text, size_t text_bytes)
{
    int64_t s = us / 1000000;
    if (s >= 3600)
        snprintf(text, text_bytes, "%" PRId64 ":%02d:%02d", s / 3600, (int)(s / 60 % 60), (int)(s % 60));
    else
        snprintf(text, text_bytes, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

double pm_progress_part(uint32_t pages, uint32_t pages_done, uint32_t regions, uint32_t regions_done)
{
    if (pages <= pages_done || pages - pages_done > 1 || !regions || regions_done > regions)
        return 0;
    double part = (double)pages * regions_done / regions - pages_done;
    return part < 0 ? 0 : part > 0.99 ? 0.99 : part;
}

/* The pace of late; where that is too few pages to judge by, of all. 0: nobody can say. */
static double pace(const struct pm_progress_view *v)
{
    double done = (double)v->pages_done + v->pages_part;
    if (v->pages_per_s * PM_RATE_SAMPLES >= FEW_PAGES || v->elapsed_us <= 0 || done <= 0)
        return v->pages_per_s;
    return done * 1e6 / (double)v->elapsed_us;
}

void pm_progress_rate(double pages_per_s, char *text, size_t text_bytes)
{
    text[0] = 0;
    if (pages_per_s >= SLOW)
        snprintf(text, text_bytes, "%.2f pages/s", pages_per_s);
    else if (pages_per_s > 1e-9)
        snprintf(text, text_bytes, "%.0f s/page", 1 / pages_per_s);
}

/* Time left, "" when nobody can say. */
static void time_left(const struct pm_progress_view *v, char *text, size_t text_bytes)
{
    double rate = pace(v);
    text[0] = 0;
    if (v->has_more_pages || rate <= 0 || v->pages <= v->pages_done)
        return;
    double seconds = ((double)(v->pages - v->pages_done) - v->pages_part) / rate;
    if (seconds >= 0 && seconds < 360000)
        pm_progress_time((int64_t)(seconds * 1e6), text, text_bytes);
}

void pm_progress_bar(const struct pm_progress_view *v, int width, char *text, size_t text_bytes)
{
    char parts[6][64] = {{0}}, left[24], rate[40], elapsed[24];
    bool is_slow = pace(v) < SLOW; /* pages say too little: regions and the clock show that it works */
    time_left(v, left, sizeof left);
    pm_progress_rate(pace(v), rate, sizeof rate);
    pm_progress_time(v->elapsed_us, elapsed, sizeof elapsed);
    snprintf(parts[0], sizeof parts[0], "%" PRIu64 "/%" PRIu64 "%s pages", v->pages_done, v->pages,
             v->has_more_pages ? "+" : "");
    if (is_slow && v->regions)
        snprintf(parts[1], sizeof parts[1], "  %" PRIu64 "/%" PRIu64 " regions", v->regions_done, v->regions);
    if (is_slow)
        snprintf(parts[2], sizeof parts[2], "  %s", elapsed);
    if (*rate)
        snprintf(parts[2] + strlen(parts[2]), sizeof parts[2] - strlen(parts[2]), "  %s", rate);
    if (*left)
        snprintf(parts[3], sizeof parts[3], "  ETA %s", left);
    if (v->documents > 1)
        snprintf(parts[4], sizeof parts[4], "  %" PRIu64 "/%" PRIu64 " files", v->documents_done,
                 v->documents);
    if (v->documents_failed)
        snprintf(parts[4] + strlen(parts[4]), sizeof parts[4] - strlen(parts[4]), "  %" PRIu64 " failed",
                 v->documents_failed);
    if (!is_slow && v->regions > v->regions_done)
        snprintf(parts[5], sizeof parts[5], "  %" PRIu64 " regions queued", v->regions - v->regions_done);
    int room = width - 1, limit = (int)text_bytes - 1;
    if (room > limit)
        room = limit;
    int used = (int)strlen(parts[0]), shown = 1;
    while (shown < 6 && used + (int)strlen(parts[shown]) <= room)
        used += (int)strlen(parts[shown++]);
    int bar = room - used - 3; /* brackets and a blank */
    size_t at = 0;
    text[0] = 0;
    if (room < (int)strlen(parts[0]))
        return;
    if (bar >= BAR_LEAST) {
        bar = bar > BAR_MOST ? BAR_MOST : bar;
        double part = v->pages ? ((double)v->pages_done + v->pages_part) / (double)v->pages : 0;
        int full = (int)(bar * (part < 1 ? part : 1));
        text[at++] = '[';
        for (int i = 0; i < bar; i++)
            text[at++] = i < full ? '#' : '.';
        text[at++] = ']';
        text[at++] = ' ';
    }
    for (int i = 0; i < shown; i++)
        at += (size_t)snprintf(text + at, text_bytes - at, "%s", parts[i]);
}

void pm_progress_line(const struct pm_progress_view *v, char *text, size_t text_bytes)
{
    char left[24], rate[40];
    time_left(v, left, sizeof left);
    pm_progress_rate(pace(v), rate, sizeof rate);
    snprintf(text, text_bytes,
             "%" PRIu64 "/%" PRIu64 "%s pages, %" PRIu64 " of %" PRIu64 " regions in hand, %" PRIu64
             " of %" PRIu64 " documents%s%s%s%s%s",
             v->pages_done, v->pages, v->has_more_pages ? "+" : "", v->regions_done, v->regions,
             v->documents_done, v->documents, *rate ? ", " : "", rate, *left ? ", about " : "", left,
             *left ? " left" : "");
}
