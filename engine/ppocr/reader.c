#include "engine/ppocr/reader.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "engine/ppocr/crop.h"
#include "engine/ppocr/rec_run.h"
#include "engine/ppocr/spacing.h"

/* Multiply-adds of a step and thread: some 60 ms at the rate of one Zen 4 core. A phase of the network is
 * never cut, which adds up to 30 ms for the widest piece. */
#define STEP_MACS       ((int64_t)3000000000)
#define STEP_MACS_PLAIN ((int64_t)100000000) /* the plain C kernels are that much slower */

enum {
    SPACE_PX = 7,      /* a gap of that many columns at height 48 is a space between words */
    SHRINK_PX = 96,    /* higher crops are shrunk by averaging: bilinear would skip pixels */
    INK_CONTRAST = 40, /* a column whose values differ by more has ink */
    CHARS_BYTES = 4 << 20,
};

enum phase { PREPARE, RECOGNISE, DECODE, PHASES };
static const char *const phase_names[PHASES] = {"prepare", "recognise", "decode"};

struct job {
    uint64_t id;
    struct pm_image image; /* borrowed */
    struct pm_image line;  /* at height 48, once work on it has begun */
    int at;                /* first column of the piece in work, or of the next one */
    int gap_px;            /* empty columns before that piece */
    struct pm_buf text;
    struct pm_reader_word *words;
    size_t word_count, word_capacity, char_count;
    double confidence_sum; /* over characters */
    struct pm_error error;
    int64_t begun_us, spent_us[PHASES];
};

/* A piece whose sequence waits for the head. */
struct finished {
    struct job *job;
    int begin, width, steps, gap_px;
    bool is_last;
};

struct state {
    struct pm_rec *rec;
    struct pm_charset charset;
    int64_t step_macs;
    int max_running;
    struct job **jobs; /* admitted and unfinished, oldest first */
    int count;
    struct job *current;   /* the one with a line in pm_rec, or NULL */
    struct pm_image piece; /* its part that is in work */
    int piece_width, piece_gap;

    float *sequences; /* of the pieces that ended in this step, one after the other */
    size_t sequence_steps, sequence_capacity;
    struct finished *finished;
    size_t finished_count, finished_capacity;
    struct pm_ctc_step *steps;
    size_t step_capacity;

    struct pm_reader_event *events;
    struct job **reported; /* owners of what the last events point to */
    size_t event_count, event_capacity, reported_capacity;
};

/* ---- life ---- */

static void free_job(struct job *j)
{
    pm_image_free(&j->line);
    pm_buf_free(&j->text);
    free(j->words);
    free(j);
}

static void free_events(struct state *s)
{
    for (size_t i = 0; i < s->event_count; i++)
        free_job(s->reported[i]);
    s->event_count = 0;
}

static void reader_free(void *state)
{
    struct state *s = state;
    free_events(s);
    for (int i = 0; i < s->count; i++)
        free_job(s->jobs[i]);
    pm_rec_free(&s->rec);
    pm_charset_free(&s->charset);
    free(s->jobs);
    free(s->sequences);
    free(s->finished);
    free(s->steps);
    free(s->events);
    free(s->reported);
    free(s);
}

static int reader_open(const struct pm_reader_config *config, const char *manifest_json, void **state_out,
                       struct pm_reader_info *info_out, struct pm_error *err)
{
    (void)manifest_json;
    (void)info_out;
    *state_out = NULL;
    struct state *s = pm_xalloc(sizeof *s);
    struct pm_buf text = {0};
    char *path = NULL;
    s->max_running = config->max_running;
    s->jobs = pm_xalloc((size_t)config->max_running * sizeof(struct job *));
    const struct pm_kernels *plain = pm_kernels_get("plain");
    s->step_macs = (pm_kernels_get(NULL) == plain ? STEP_MACS_PLAIN : STEP_MACS) * config->threads;
    int rc = pm_rec_open(config->model_dir, config->threads, &s->rec, err);
    if (!rc)
        rc = pm_ppocr_path(config->model_dir, "characters", &path, err);
    if (!rc)
        rc = pm_fs_read(path, CHARS_BYTES, &text, err);
    if (!rc)
        rc = pm_charset_parse((const char *)text.data, text.size, PM_REC_CLASSES, &s->charset, err);
    pm_buf_free(&text);
    free(path);
    if (rc)
        reader_free(s);
    else
        *state_out = s;
    return rc;
}

static int reader_room(const void *state)
{
    const struct state *s = state;
    return s->max_running - s->count;
}

static int reader_running(const void *state)
{
    return ((const struct state *)state)->count;
}

static int reader_admit(void *state, const struct pm_reader_request *request, struct pm_error *err)
{
    struct state *s = state;
    const struct pm_image *im = &request->image;
    free_events(s);
    for (int i = 0; i < s->count; i++)
        if (s->jobs[i]->id == request->id)
            return pm_fail(err, PM_EINVAL, "region %llu is already being read",
                           (unsigned long long)request->id);
    if (s->count == s->max_running)
        return pm_fail(err, PM_EBUSY, "the reader already has its %d regions: admit again when one is done",
                       s->max_running);
    if (!im->pixels || im->width_px < 1 || im->height_px < 1 || (im->channels != 1 && im->channels != 3) ||
        im->stride_bytes < (size_t)im->width_px * (size_t)im->channels)
        return pm_fail(err, PM_EINVAL, "region %llu: a picture of %d x %d with %d channels cannot be read",
                       (unsigned long long)request->id, im->width_px, im->height_px, im->channels);
    if (pm_rec_width(im->width_px, im->height_px) > PM_PPOCR_LINE_PX_MAX)
        return pm_fail(err, PM_ELIMIT,
                       "region %llu: a line of %d x %d is more than %d times as wide as high: cut it first",
                       (unsigned long long)request->id, im->width_px, im->height_px,
                       PM_PPOCR_LINE_PX_MAX / PM_REC_HEIGHT);
    struct job *j = pm_xalloc(sizeof *j);
    j->id = request->id;
    j->image = *im;
    s->jobs[s->count++] = j;
    return 0;
}

/* Takes a job out of the list of running ones. */
static void detach(struct state *s, const struct job *j)
{
    int i = 0;
    while (s->jobs[i] != j)
        i++;
    memmove(s->jobs + i, s->jobs + i + 1, (size_t)(s->count - i - 1) * sizeof *s->jobs);
    s->count--;
    if (s->current == j) {
        s->current = NULL;
        pm_rec_drop(s->rec);
    }
}

static int reader_cancel(void *state, uint64_t id, struct pm_error *err)
{
    struct state *s = state;
    free_events(s);
    for (int i = 0; i < s->count; i++) {
        struct job *j = s->jobs[i];
        if (j->id != id)
            continue;
        detach(s, j);
        free_job(j);
        return 0;
    }
    return pm_fail(err, PM_ENOTFOUND, "region %llu is not being read", (unsigned long long)id);
}

/* ---- lines and pieces ---- */

/* Distance between the darkest and the brightest value of a column (first channel group together). */
static int column_contrast(const struct pm_image *line, int x)
{
    int low = 255, high = 0;
    for (int y = 0; y < line->height_px; y++) {
        const uint8_t *p = line->pixels + (size_t)y * line->stride_bytes + (size_t)x * (size_t)line->channels;
        for (int c = 0; c < line->channels; c++) {
            low = p[c] < low ? p[c] : low;
            high = p[c] > high ? p[c] : high;
        }
    }
    return high - low;
}

int pm_ppocr_cut(const struct pm_image *line, int begin, int max_px, int *gap_px_out)
{
    *gap_px_out = 0;
    if (line->width_px - begin <= max_px)
        return line->width_px;
    /* Pieces of about equal width; each cut in the middle of the widest gap near its place. */
    int rest = line->width_px - begin, pieces = (rest + max_px - 1) / max_px, ideal = rest / pieces;
    int from = begin + (ideal > max_px / 6 ? ideal - max_px / 6 : 1);
    int to = ideal + max_px / 6 < max_px ? begin + ideal + max_px / 6 : begin + max_px;
    int best = 0, cut = begin + ideal, run = 0;
    for (int x = from; x < to; x++) {
        run = column_contrast(line, x) <= INK_CONTRAST ? run + 1 : 0;
        if (run && run >= best) {
            best = run;
            cut = x - run / 2;
        }
    }
    *gap_px_out = best;
    return cut;
}

static int make_line(struct job *j, struct pm_error *err)
{
    int width = pm_rec_width(j->image.width_px, j->image.height_px);
    if (j->image.height_px == PM_REC_HEIGHT && j->image.width_px == width) {
        j->line = pm_image_view(&j->image, 0, 0, width, PM_REC_HEIGHT);
        return 0;
    }
    if (j->image.height_px > SHRINK_PX && j->image.width_px >= width)
        return pm_resize_area(&j->image, width, PM_REC_HEIGHT, &j->line, err);
    return pm_resize_bilinear(&j->image, width, PM_REC_HEIGHT, &j->line, err);
}

/* Gives the recogniser the next piece of the current job. */
static int start_piece(struct state *s, struct pm_error *err)
{
    struct job *j = s->current;
    s->piece_width = pm_ppocr_cut(&j->line, j->at, PM_PPOCR_PIECE_PX, &s->piece_gap) - j->at;
    s->piece = pm_image_view(&j->line, j->at, 0, s->piece_width, PM_REC_HEIGHT);
    return pm_rec_start(s->rec, &s->piece, s->piece_width < 8 ? 8 : s->piece_width, err);
}

/* The current piece is through the neck: keep its sequence for the head and move on. */
static int keep_sequence(struct state *s, const float *sequence, int steps, struct pm_error *err)
{
    struct job *j = s->current;
    size_t need = s->sequence_steps + (size_t)steps;
    if (need > s->sequence_capacity) {
        size_t capacity = need * 2;
        void *grown;
        int rc = pm_alloc_array(capacity, PM_REC_FEATURES * sizeof(float), &grown, err);
        if (rc)
            return rc;
        if (s->sequence_steps)
            memcpy(grown, s->sequences, s->sequence_steps * PM_REC_FEATURES * sizeof(float));
        free(s->sequences);
        s->sequences = grown;
        s->sequence_capacity = capacity;
    }
    memcpy(s->sequences + s->sequence_steps * PM_REC_FEATURES, sequence,
           (size_t)steps * PM_REC_FEATURES * sizeof(float));
    s->sequence_steps = need;
    int end = j->at + s->piece_width;
    PM_GROW(s->finished, s->finished_count, s->finished_capacity);
    s->finished[s->finished_count++] =
        (struct finished){j, j->at, s->piece_width, steps, j->gap_px, end >= j->line.width_px};
    j->at = end;
    j->gap_px = s->piece_gap;
    s->current = NULL;
    return 0;
}

/* ---- text ---- */

/* Adds a piece's text and words to its job's. */
static void append_piece(struct job *j, const struct finished *f, const struct pm_ctc_line *line)
{
    bool joined = j->text.size && line->text.size && f->gap_px < SPACE_PX;
    if (j->text.size && line->text.size && !joined)
        pm_buf_append(&j->text, " ", 1);
    uint32_t offset = (uint32_t)j->text.size;
    pm_buf_append(&j->text, line->text.data, line->text.size);
    float all = (float)j->line.width_px, share = (float)f->width / all, start = (float)f->begin / all;
    for (size_t i = 0; i < line->word_count; i++) {
        struct pm_reader_word w = line->words[i];
        w.start += offset;
        w.end += offset;
        w.left = start + w.left * share;
        w.right = start + w.right * share;
        struct pm_reader_word *last = j->word_count ? &j->words[j->word_count - 1] : NULL;
        if (joined && !i && last && last->end == w.start) { /* one word, cut in two */
            float a = (float)(last->end - last->start), b = (float)(w.end - w.start);
            last->confidence = (last->confidence * a + w.confidence * b) / (a + b);
            last->end = w.end;
            last->right = w.right;
            continue;
        }
        PM_GROW(j->words, j->word_count, j->word_capacity);
        j->words[j->word_count++] = w;
    }
    j->confidence_sum += (double)line->confidence * (double)line->char_count;
    j->char_count += line->char_count;
}

static void report(struct state *s, struct job *j)
{
    pm_buf_text(&j->text, "");
    struct pm_reader_event e = {.id = j->id,
                                .is_final = true,
                                .text = (const char *)j->text.data,
                                .text_bytes = j->text.size,
                                .words = j->words,
                                .word_count = j->word_count,
                                .error = j->error,
                                .times = {.begun_us = j->begun_us, .phase_count = PHASES}};
    for (int p = 0; p < PHASES; p++)
        e.times.phases[p] = (struct pm_reader_phase){phase_names[p], j->spent_us[p]};
    e.finish = j->error.code ? PM_FINISH_ERROR : j->text.size ? PM_FINISH_STOP : PM_FINISH_EMPTY;
    e.confidence = j->char_count ? (float)(j->confidence_sum / (double)j->char_count) : 0.0f;
    detach(s, j);
    size_t count = s->event_count;
    PM_GROW(s->events, count, s->event_capacity);
    PM_GROW(s->reported, count, s->reported_capacity);
    s->events[count] = e;
    s->reported[count] = j;
    s->event_count++;
}

/* Text and words of a piece, its spaces checked against the ink. */
static int decode_piece(const struct state *s, const struct finished *f, struct pm_ctc_step *steps,
                        struct pm_ctc_line *out, struct pm_error *err)
{
    const struct pm_image piece = pm_image_view(&f->job->line, f->begin, 0, f->width, PM_REC_HEIGHT);
    int changes = 0, rc = pm_ctc_decode(steps, f->steps, &s->charset, out, err);
    if (!rc)
        rc = pm_spacing_revise(&piece, &s->charset, out, steps, f->steps, &changes, err);
    if (rc || !changes)
        return rc;
    pm_ctc_line_free(out);
    return pm_ctc_decode(steps, f->steps, &s->charset, out, err);
}

/* One pass of the head over all pieces that ended in this step. */
static int finish_pieces(struct state *s, struct pm_error *err)
{
    if (!s->finished_count)
        return 0;
    if (s->sequence_steps > s->step_capacity) {
        void *grown;
        int rc = pm_alloc_array(s->sequence_steps, sizeof *s->steps, &grown, err);
        if (rc)
            return rc;
        free(s->steps);
        s->steps = grown;
        s->step_capacity = s->sequence_steps;
    }
    int64_t start_us = pm_clock_us();
    int rc = pm_rec_head(s->rec, s->sequences, (int)s->sequence_steps, s->steps, err);
    int64_t head_us = pm_clock_us() - start_us;
    struct pm_ctc_step *at = s->steps;
    for (size_t i = 0; !rc && i < s->finished_count; i++) {
        const struct finished *f = &s->finished[i];
        struct pm_ctc_line line = {0};
        start_us = pm_clock_us();
        f->job->spent_us[RECOGNISE] += head_us * f->steps / (int64_t)s->sequence_steps; /* its share */
        rc = decode_piece(s, f, at, &line, err);
        if (!rc)
            append_piece(f->job, f, &line);
        pm_ctc_line_free(&line);
        f->job->spent_us[DECODE] += pm_clock_us() - start_us;
        if (!rc && f->is_last)
            report(s, f->job);
        at += f->steps;
    }
    s->finished_count = 0;
    s->sequence_steps = 0;
    return rc;
}

/* The next job that has a piece to be started: the oldest one not waiting for the head with its last piece.
 */
static struct job *next_job(const struct state *s)
{
    for (int i = 0; i < s->count; i++)
        if (!s->jobs[i]->line.pixels || s->jobs[i]->at < s->jobs[i]->line.width_px)
            return s->jobs[i];
    return NULL;
}

/* Makes sure that a piece is in work. *none_out: nothing is left to start. */
static int ensure_piece(struct state *s, bool *none_out, struct pm_error *err)
{
    *none_out = false;
    while (!s->current) {
        struct job *j = next_job(s);
        if (!j) {
            *none_out = true;
            return 0;
        }
        int64_t start_us = pm_clock_us();
        j->begun_us = j->begun_us ? j->begun_us : start_us;
        int rc = j->line.pixels ? 0 : make_line(j, &j->error);
        if (rc == PM_ENOMEM)
            return pm_fail(err, PM_ENOMEM, "%s", j->error.text);
        if (rc) {
            report(s, j); /* this picture only */
            continue;
        }
        s->current = j;
        rc = start_piece(s, err);
        if (rc)
            return rc;
        j->spent_us[PREPARE] += pm_clock_us() - start_us;
    }
    return 0;
}

static int reader_step(void *state, const struct pm_reader_event **events_out, size_t *count_out,
                       struct pm_error *err)
{
    struct state *s = state;
    int64_t budget = s->step_macs;
    free_events(s);
    s->finished_count = 0; /* of a step that failed */
    s->sequence_steps = 0;
    while (budget > 0) {
        bool none, done;
        const float *sequence;
        int steps, rc = ensure_piece(s, &none, err);
        if (rc)
            return rc;
        if (none)
            break;
        int64_t before = pm_rec_macs_left(s->rec), start_us = pm_clock_us();
        struct job *j = s->current;
        rc = pm_rec_continue(s->rec, budget, &done, &sequence, &steps, err);
        if (!rc && done)
            rc = keep_sequence(s, sequence, steps, err);
        if (rc)
            return rc;
        j->spent_us[RECOGNISE] += pm_clock_us() - start_us;
        budget -= before - pm_rec_macs_left(s->rec) + (done ? pm_rec_head_macs(steps) : 0);
    }
    int rc = finish_pieces(s, err);
    *events_out = s->events;
    *count_out = s->event_count;
    return rc;
}

const struct pm_reader_family pm_ppocr_reader = {
    .name = "ppocr",
    .open = reader_open,
    .free = reader_free,
    .room = reader_room,
    .running = reader_running,
    .admit = reader_admit,
    .cancel = reader_cancel,
    .step = reader_step,
};
