#include "client/cli/top_view.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "client/cli/color.h"

#define NAME_LEAST 12 /* columns of the last cell of a row */

/* ---- a line of cells ---- */

struct line {
    struct pm_buf text;
    int used, width;
    bool is_colored;
};

/* A text that is cut where the line ends. columns: at least so many, negative: aligned to the right. */
static void cell(struct line *l, enum pm_color color, int columns, const char *text)
{
    int want = columns < 0 ? -columns : columns, have = pm_show_columns(text), room = l->width - l->used;
    int blanks = want > have ? want - have : 0;
    if (room <= 0)
        return;
    if (columns < 0)
        for (; blanks && room; blanks--, room--, l->used++)
            pm_buf_append(&l->text, " ", 1);
    size_t bytes = pm_show_fit(text, room);
    pm_buf_printf(&l->text, "%s", pm_color_begin(color, l->is_colored));
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        pm_buf_append(&l->text, c < 0x20 || c == 0x7f ? "?" : &text[i], 1);
    }
    pm_buf_printf(&l->text, "%s", pm_color_end(color, l->is_colored));
    have = have < room ? have : room;
    l->used += have;
    for (room -= have; columns > 0 && blanks && room; blanks--, room--, l->used++)
        pm_buf_append(&l->text, " ", 1);
}

static void cellf(struct line *l, enum pm_color color, int columns, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void cellf(struct line *l, enum pm_color color, int columns, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cell(l, color, columns, text);
}

static struct line begin(const struct pm_top_input *in)
{
    return (struct line){.width = in->width, .is_colored = in->is_colored};
}

static void end(struct pm_top_lines *out, struct line *l)
{
    PM_GROW(out->lines, out->count, out->capacity);
    out->lines[out->count++] = pm_xstrndup(l->text.data ? (const char *)l->text.data : "", l->text.size);
    pm_buf_free(&l->text);
    l->used = 0;
}

static void title(const struct pm_top_input *in, struct pm_top_lines *out, const char *text)
{
    struct line l = begin(in);
    end(out, &l);
    cell(&l, PM_COLOR_STRONG, 0, text);
    end(out, &l);
}

/* ---- rates ---- */

static double rate(const struct pm_top_input *in, uint64_t now, uint64_t before)
{
    if (!in->before)
        return in->now->up_us ? (double)now * 1e6 / (double)in->now->up_us : 0;
    return in->seconds > 0 && now >= before ? (double)(now - before) / in->seconds : 0;
}

static uint64_t queue_before(const struct pm_top_input *in, const struct pagemill_queue *q)
{
    for (size_t i = 0; in->before && i < in->before->queue_count; i++) {
        const struct pagemill_queue *b = &in->before->queues[i];
        if (!strcmp(b->kind, q->kind) && !strcmp(b->reader, q->reader))
            return b->done;
    }
    return in->before ? q->done : 0;
}

static const struct pagemill_peer *peer_before(const struct pm_top_input *in, const struct pagemill_peer *p)
{
    for (size_t i = 0; in->before && i < in->before->peer_count; i++)
        if (!strcmp(in->before->peers[i].name, p->name) && in->before->peers[i].pid == p->pid)
            return &in->before->peers[i];
    return NULL;
}

static const struct pagemill_latency *latency(const struct pagemill_stats *s, const char *name,
                                              const char *label)
{
    for (size_t i = 0; i < s->latency_count; i++)
        if (!strcmp(s->latencies[i].name, name) && !strcmp(s->latencies[i].label, label))
            return &s->latencies[i];
    return NULL;
}

/* "1.2/35 ms": half of them and 99 of 100; "" when nothing is known. */
static void show_spread(const struct pagemill_latency *l, char *text, size_t bytes)
{
    char half[24], most[24];
    text[0] = 0;
    if (!l || !l->count)
        return;
    pm_show_duration((int64_t)l->p50_us, half, sizeof half);
    pm_show_duration((int64_t)l->p99_us, most, sizeof most);
    snprintf(text, bytes, "%s / %s", half, most);
}

/* ---- the head ---- */

static void add_head(const struct pm_top_input *in, struct pm_top_lines *out)
{
    const struct pagemill_stats *s = in->now;
    struct line l = begin(in);
    char text[64], more[24];
    pm_show_duration((int64_t)s->up_us, text, sizeof text);
    cellf(&l, PM_COLOR_STRONG, 0, "pagemill %s", s->version);
    cellf(&l, PM_COLOR_NONE, 0, "  up %s", text);
    if (s->is_draining)
        cell(&l, PM_COLOR_WARN, 0, "  DRAINING: takes no more jobs");
    cellf(&l, PM_COLOR_NONE, 0, "  epoch %" PRIu64, s->epoch);
    if (s->clients)
        cellf(&l, PM_COLOR_NONE, 0, "  %" PRIu64 " client%s", s->clients, s->clients == 1 ? "" : "s");
    end(out, &l);

    cellf(&l, PM_COLOR_NONE, 0, "jobs     %" PRIu64 " queued, ", s->jobs_queued);
    cellf(&l, s->jobs_running ? PM_COLOR_BUSY : PM_COLOR_NONE, 0, "%" PRIu64 " running", s->jobs_running);
    cellf(&l, PM_COLOR_NONE, 0, ", %" PRIu64 " done, ", s->jobs_done);
    cellf(&l, s->jobs_failed ? PM_COLOR_BAD : PM_COLOR_NONE, 0, "%" PRIu64 " failed", s->jobs_failed);
    cellf(&l, PM_COLOR_NONE, 0, ", %" PRIu64 " cancelled", s->jobs_cancelled);
    end(out, &l);

    const struct pagemill_stats *b = in->before;
    pm_show_rate(rate(in, s->pages_done, b ? b->pages_done : 0), text, sizeof text);
    cellf(&l, PM_COLOR_NONE, 0, "read     %" PRIu64 " pages ", s->pages_done);
    cell(&l, PM_COLOR_GOOD, 0, text);
    pm_show_rate(rate(in, s->regions_done, b ? b->regions_done : 0), text, sizeof text);
    cellf(&l, PM_COLOR_NONE, 0, "%s%" PRIu64 " regions ", *text ? "   " : "  ", s->regions_done);
    cell(&l, PM_COLOR_GOOD, 0, text);
    if (s->tokens) {
        pm_show_rate(rate(in, s->tokens, b ? b->tokens : 0), text, sizeof text);
        cellf(&l, PM_COLOR_NONE, 0, "   %" PRIu64 " tokens %s", s->tokens, text);
    }
    end(out, &l);

    double full = s->pixel_budget_bytes ? (double)s->pixel_bytes / (double)s->pixel_budget_bytes : 0;
    pm_show_bar(full, 14, text, sizeof text);
    cell(&l, PM_COLOR_NONE, 0, "pictures ");
    cell(&l, full > 0.9 ? PM_COLOR_WARN : PM_COLOR_BUSY, 0, text);
    pm_show_bytes(s->pixel_bytes, text, sizeof text);
    pm_show_bytes(s->pixel_budget_bytes, more, sizeof more);
    cellf(&l, PM_COLOR_NONE, 0, " %s of %s", text, more);
    pm_show_bytes(s->disk_bytes_free, text, sizeof text);
    cellf(&l, s->disk_bytes_free < (uint64_t)2 << 30 ? PM_COLOR_WARN : PM_COLOR_NONE, 0, "   disk %s free",
          text);
    if (s->state_bytes) {
        pm_show_bytes(s->state_bytes, text, sizeof text);
        cellf(&l, PM_COLOR_NONE, 0, ", %s in use", text);
    }
    if (s->rss_bytes) {
        pm_show_bytes(s->rss_bytes, text, sizeof text);
        cellf(&l, PM_COLOR_NONE, 0, "   broker %s", text);
    }
    show_spread(latency(s, "sync", ""), text, sizeof text);
    if (*text)
        cellf(&l, PM_COLOR_NONE, 0, "   sync %s", text);
    end(out, &l);
    out->head = out->count;
}

/* ---- queues ---- */

static void add_queues(const struct pm_top_input *in, struct pm_top_lines *out)
{
    const struct pagemill_stats *s = in->now;
    bool has_spread = in->width >= 105 && s->latency_count;
    char text[64];
    struct line l = begin(in);
    end(out, &l);
    cellf(&l, PM_COLOR_STRONG, 0, "%-18s %7s %7s %8s", "QUEUE", "WAITING", "IN HAND", "OLDEST");
    if (in->width >= 61)
        cellf(&l, PM_COLOR_STRONG, 0, " %8s %8s", "RATE", "DONE");
    if (in->width >= 76)
        cellf(&l, PM_COLOR_STRONG, 0, " %6s %6s", "FAILED", "RETRY");
    if (has_spread)
        cellf(&l, PM_COLOR_STRONG, 0, "  %-20s %-20s", "WAIT p50 / p99", "RUN p50 / p99");
    end(out, &l);
    for (size_t i = 0; i < s->queue_count; i++) {
        const struct pagemill_queue *q = &s->queues[i];
        enum pm_color color = q->queued || q->leased ? PM_COLOR_NONE : PM_COLOR_FAINT;
        snprintf(text, sizeof text, "%s%s%.40s", q->kind, *q->reader ? " " : "", q->reader);
        text[pm_show_fit(text, 18)] = 0;
        cell(&l, color, 18, text);
        pm_show_count(q->queued, text, sizeof text);
        cellf(&l, color, -8, "%s", text);
        pm_show_count(q->leased, text, sizeof text);
        cellf(&l, q->leased ? PM_COLOR_BUSY : color, -8, "%s", text);
        pm_show_duration((int64_t)q->oldest_us, text, sizeof text);
        cell(&l, q->queued && q->oldest_us > 600000000 ? PM_COLOR_WARN : color, -9, q->queued ? text : "-");
        if (in->width >= 61) {
            pm_show_rate(rate(in, q->done, queue_before(in, q)), text, sizeof text);
            cell(&l, color, -9, *text ? text : "-");
            pm_show_count(q->done, text, sizeof text);
            cell(&l, color, -9, text);
        }
        if (in->width >= 76) {
            cellf(&l, q->failed ? PM_COLOR_BAD : color, -7, "%" PRIu64, q->failed);
            cellf(&l, q->retried ? PM_COLOR_WARN : color, -7, "%" PRIu64, q->retried);
        }
        if (has_spread) {
            show_spread(latency(s, "wait", q->kind), text, sizeof text);
            cellf(&l, color, 22, "  %s", text);
            show_spread(latency(s, "run", q->kind), text, sizeof text);
            cellf(&l, color, 21, " %s", text);
        }
        end(out, &l);
    }
}

/* ---- lists that may be folded ---- */

/* How many of them are shown: a list is not folded for the sake of one line. */
static size_t folded(size_t count, size_t most)
{
    return most && count > most + 1 ? most : count;
}

static void add_more(const struct pm_top_input *in, struct pm_top_lines *out, size_t count)
{
    struct line l = begin(in);
    if (!count)
        return;
    cellf(&l, PM_COLOR_FAINT, 0, " ... %zu more", count);
    end(out, &l);
}

/* ---- jobs ---- */

static void add_job(const struct pm_top_input *in, const struct pagemill_job *j, struct pm_top_lines *out)
{
    struct line l = begin(in);
    const char *state = pagemill_job_state_name((int)j->state);
    char text[64];
    bool is_selected = in->selected_job == j->job;
    uint64_t left = pm_show_job_left_us(j, in->now_wall_us);
    if (is_selected)
        out->selected = out->count;
    cellf(&l, is_selected ? PM_COLOR_STRONG : PM_COLOR_NONE, 9, "%c%" PRIu64, is_selected ? '>' : ' ',
          j->job);
    cell(&l, pm_color_of_state(state), 10, state);
    if (in->width >= 72) {
        pm_show_bar(pm_show_job_part(j), in->width >= 100 ? 22 : 12, text, sizeof text);
        cell(&l, PM_COLOR_BUSY, 0, text);
    }
    snprintf(text, sizeof text, "%u/%u", j->pages_done + j->pages_failed, j->pages);
    cell(&l, PM_COLOR_NONE, -11, j->pages ? text : "-");
    if (in->width >= 60)
        cellf(&l, j->pages_failed ? PM_COLOR_BAD : PM_COLOR_FAINT, -7, "%u", j->pages_failed);
    pm_show_duration((int64_t)left, text, sizeof text);
    cell(&l, PM_COLOR_NONE, -9, left ? text : "-");
    if (in->width >= 100) {
        cellf(&l, PM_COLOR_NONE, -4, "%u", j->priority);
        pm_show_duration(in->now_wall_us - j->created_us, text, sizeof text);
        cell(&l, PM_COLOR_NONE, -9, text);
    }
    cell(&l, PM_COLOR_NONE, 0, "  ");
    int room = l.width - l.used, have = pm_show_columns(j->name);
    const char *name = j->name, *slash = strrchr(name, '/');
    if (have > room && slash && slash[1]) {
        name = slash + 1;
        have = pm_show_columns(name);
    }
    if (have > room && room >= NAME_LEAST) { /* the end tells files apart */
        name += pm_show_fit(name, have - room + 3);
        cell(&l, PM_COLOR_FAINT, 0, "...");
    }
    cell(&l, PM_COLOR_NONE, 0, name);
    end(out, &l);
}

static void add_jobs(const struct pm_top_input *in, struct pm_top_lines *out)
{
    struct line l = begin(in);
    if (!in->jobs || !in->jobs->count)
        return;
    end(out, &l);
    cellf(&l, PM_COLOR_STRONG, 0, "%-9s%-10s", " JOB", "STATE");
    if (in->width >= 72)
        cellf(&l, PM_COLOR_STRONG, in->width >= 100 ? 22 : 12, "PROGRESS");
    cellf(&l, PM_COLOR_STRONG, -11, "PAGES");
    if (in->width >= 60)
        cellf(&l, PM_COLOR_STRONG, -7, "FAILED");
    cellf(&l, PM_COLOR_STRONG, -9, "LEFT");
    if (in->width >= 100)
        cellf(&l, PM_COLOR_STRONG, 0, "%4s%9s", "PRI", "AGE");
    cell(&l, PM_COLOR_STRONG, 0, "  NAME");
    end(out, &l);
    size_t count = in->jobs->count, first = 0, last = folded(count, in->most_jobs);
    for (size_t i = last; i < count; i++)
        if (in->jobs->jobs[i].job == in->selected_job) { /* is always in sight */
            first += i + 1 - last;
            last = i + 1;
        }
    for (size_t i = first; i < last; i++)
        add_job(in, &in->jobs->jobs[i], out);
    add_more(in, out, count - (last - first));
}

/* ---- processes ---- */

static void add_peer(const struct pm_top_input *in, const struct pagemill_peer *p, struct pm_top_lines *out)
{
    struct line l = begin(in);
    const struct pagemill_peer *b = peer_before(in, p);
    char text[64];
    const char *state = *p->state ? p->state : p->leases ? "busy" : "idle";
    enum pm_color color = pm_color_of_state(state);
    uint64_t done = in->before ? (b ? b->done : p->done) : 0;
    double per_s = in->before ? rate(in, p->done, done)
                   : p->up_us ? (double)p->done * 1e6 / (double)p->up_us
                              : 0;
    snprintf(text, sizeof text, "%s", p->name);
    text[pm_show_fit(text, 14)] = 0;
    cell(&l, PM_COLOR_NONE, 15, text);
    cell(&l, color, 9, state);
    snprintf(text, sizeof text, "%u/%u", p->leases, p->leases + p->credit);
    cell(&l, PM_COLOR_NONE, -7, text);
    pm_show_rate(per_s, text, sizeof text);
    cell(&l, PM_COLOR_NONE, -8, *text ? text : "-");
    if (in->width >= 52) {
        pm_show_duration((int64_t)p->task_us, text, sizeof text);
        cell(&l, p->task && p->task_us > 60000000 ? PM_COLOR_WARN : PM_COLOR_NONE, -9, p->task ? text : "-");
    }
    if (in->width >= 61) {
        pm_show_bytes(p->rss_bytes, text, sizeof text);
        cell(&l, PM_COLOR_NONE, -8, p->rss_bytes ? text : "-");
    }
    if (in->width >= 78) {
        /* A process that holds several tasks at once is busier than the clock. */
        double busy = p->up_us ? 100.0 * (double)p->busy_us / (double)p->up_us : 0;
        cellf(&l, PM_COLOR_NONE, -6, "%.0f%%", busy > 100 ? 100 : busy);
        pm_show_duration((int64_t)p->silent_us, text, sizeof text);
        cell(&l, p->leases && p->silent_us > 5000000 ? PM_COLOR_WARN : PM_COLOR_NONE, -9, text);
    }
    if (in->width >= 104) {
        cellf(&l, PM_COLOR_NONE, -9, "%" PRIu64, p->pid);
        pm_show_count(p->done, text, sizeof text);
        cell(&l, PM_COLOR_NONE, -8, text);
        cellf(&l, p->failed ? PM_COLOR_BAD : PM_COLOR_NONE, -7, "%" PRIu64, p->failed);
    }
    if (in->width >= 134) {
        char task[24] = "-";
        if (p->task)
            snprintf(task, sizeof task, "%" PRIu64, p->task);
        cell(&l, PM_COLOR_NONE, -16, task);
    }
    if (in->width >= 116) {
        cell(&l, PM_COLOR_NONE, 0, "  ");
        for (size_t i = 0; i < p->reader_count; i++)
            cellf(&l, PM_COLOR_NONE, 0, "%s%s", i ? "," : "", p->readers[i]);
    }
    end(out, &l);
}

static void add_peers(const struct pm_top_input *in, struct pm_top_lines *out)
{
    struct line l = begin(in);
    end(out, &l);
    cellf(&l, PM_COLOR_STRONG, 0, "%-15s%-9s%7s%8s", "PROCESS", "STATE", "TASKS", "RATE");
    if (in->width >= 52)
        cellf(&l, PM_COLOR_STRONG, -9, "TASK AGE");
    if (in->width >= 61)
        cellf(&l, PM_COLOR_STRONG, -8, "MEMORY");
    if (in->width >= 78)
        cellf(&l, PM_COLOR_STRONG, 0, "%6s%9s", "BUSY", "SILENT");
    if (in->width >= 104)
        cellf(&l, PM_COLOR_STRONG, 0, "%9s%8s%7s", "PID", "DONE", "FAILED");
    if (in->width >= 134)
        cell(&l, PM_COLOR_STRONG, -16, "OLDEST TASK");
    if (in->width >= 116)
        cell(&l, PM_COLOR_STRONG, 0, "  READER");
    end(out, &l);
    size_t count = folded(in->now->peer_count, in->most_peers);
    for (size_t i = 0; i < count; i++)
        add_peer(in, &in->now->peers[i], out);
    add_more(in, out, in->now->peer_count - count);
    if (!in->now->peer_count) {
        cell(&l, PM_COLOR_BAD, 0, "none: nothing is read until layoutd, workers and collector are back");
        end(out, &l);
    }
}

/* ---- counters ---- */

static void add_counters(const struct pm_top_input *in, struct pm_top_lines *out)
{
    struct line l = begin(in);
    bool has_title = false;
    for (size_t i = 0; i < in->now->counter_count; i++) {
        const struct pagemill_counter *c = &in->now->counters[i];
        char text[96];
        if (!c->value)
            continue;
        if (!has_title)
            title(in, out, "COUNTERS");
        has_title = true;
        int n = snprintf(text, sizeof text, "%.64s %" PRIu64, c->name, c->value);
        if (l.used && l.used + n + 3 > l.width)
            end(out, &l);
        cellf(&l, PM_COLOR_NONE, 0, "%s%s", l.used ? "   " : "", text);
    }
    if (l.used)
        end(out, &l);
    pm_buf_free(&l.text);
}

void pm_top_make(const struct pm_top_input *input, struct pm_top_lines *out)
{
    *out = (struct pm_top_lines){0};
    add_head(input, out);
    add_queues(input, out);
    size_t before = out->count;
    add_jobs(input, out);
    add_peers(input, out);
    size_t lists = out->count - before;
    add_counters(input, out);
    out->fixed = out->count - lists;
}

void pm_top_free(struct pm_top_lines *lines)
{
    for (size_t i = 0; i < lines->count; i++)
        free(lines->lines[i]);
    free(lines->lines);
    *lines = (struct pm_top_lines){0};
}
