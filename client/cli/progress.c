#include "client/cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BAR_MOST  30
#define BAR_LEAST 8

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

/* Time left, "" when nobody can say. */
static void time_left(const struct pm_progress_view *v, char *text, size_t text_bytes)
{
    text[0] = 0;
    if (v->has_more_pages || v->pages_per_s <= 0 || v->pages <= v->pages_done)
        return;
    double seconds = (double)(v->pages - v->pages_done) / v->pages_per_s;
    if (seconds < 360000)
        pm_progress_time((int64_t)(seconds * 1e6), text, text_bytes);
}

void pm_progress_bar(const struct pm_progress_view *v, int width, char *text, size_t text_bytes)
{
    char parts[5][64] = {{0}}, left[24];
    time_left(v, left, sizeof left);
    snprintf(parts[0], sizeof parts[0], "%" PRIu64 "/%" PRIu64 "%s pages", v->pages_done, v->pages,
             v->has_more_pages ? "+" : "");
    snprintf(parts[1], sizeof parts[1], "  %.2f pages/s", v->pages_per_s);
    if (*left)
        snprintf(parts[2], sizeof parts[2], "  ETA %s", left);
    if (v->documents > 1)
        snprintf(parts[3], sizeof parts[3], "  %" PRIu64 "/%" PRIu64 " files", v->documents_done,
                 v->documents);
    if (v->documents_failed)
        snprintf(parts[3] + strlen(parts[3]), sizeof parts[3] - strlen(parts[3]), "  %" PRIu64 " failed",
                 v->documents_failed);
    snprintf(parts[4], sizeof parts[4], "  %" PRIu64 " regions queued", v->regions_waiting);
    int room = width - 1, limit = (int)text_bytes - 1;
    if (room > limit)
        room = limit;
    int used = (int)strlen(parts[0]), shown = 1;
    while (shown < 5 && used + (int)strlen(parts[shown]) <= room)
        used += (int)strlen(parts[shown++]);
    int bar = room - used - 3; /* brackets and a blank */
    size_t at = 0;
    text[0] = 0;
    if (room < (int)strlen(parts[0]))
        return;
    if (bar >= BAR_LEAST) {
        bar = bar > BAR_MOST ? BAR_MOST : bar;
        int full =
            v->pages ? (int)((uint64_t)bar * (v->pages_done < v->pages ? v->pages_done : v->pages) / v->pages)
                     : 0;
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
    char left[24];
    time_left(v, left, sizeof left);
    snprintf(text, text_bytes,
             "%" PRIu64 "/%" PRIu64 "%s pages, %" PRIu64 " of %" PRIu64 " documents, %" PRIu64
             " regions waiting, %.2f pages/s%s%s%s",
             v->pages_done, v->pages, v->has_more_pages ? "+" : "", v->documents_done, v->documents,
             v->regions_waiting, v->pages_per_s, *left ? ", about " : "", left, *left ? " left" : "");
}
