/* The reader of family "glm_ocr": region pictures through the checkpoint's own chat template into the
 * generator; its tokens into text, confidence and partial events. Readers of lines cut long lines into parts
 * (lines.h), each its own request. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/glm_ocr/manifest.h"
#include "engine/glm_ocr/warm.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"
#include "engine/vlm/generate.h"

#define TEMPLATE_BYTES ((size_t)4 << 20)
#define CACHE_BYTES    ((size_t)2 << 30) /* unless the owner of the reader says otherwise */
/* A text whose last so many tokens repeat one short unit will not come to an end by itself; tables of empty
 * cells repeat, too, so it must be many. */
#define LOOP_TOKENS 1024
#define STEP_US     80000
/* Multiply-adds that a core does in half of the 100 ms of a step, so that twice the guess is still short. */
#define STEP_MACS_PLAIN  ((int64_t)100 * 1000 * 1000)
#define STEP_MACS_VECTOR ((int64_t)2000 * 1000 * 1000)
#define STEP_MACS_BF16   ((int64_t)5000 * 1000 * 1000)

struct piece {
    uint64_t request; /* the generator's id; 0: not admitted yet */
    struct pm_line_part part;
    struct pm_image image; /* owned for lines, a view for blocks */
    struct pm_buf text;
    size_t taken; /* bytes that are in the job's text */
    bool is_final, is_cut;
};

struct job {
    struct pm_reader_request request;
    struct pm_sampling sampling;
    struct piece *pieces;
    int piece_count, head; /* head: the first piece that is not final */
    struct pm_buf text;
    size_t shown;
    double probability_sum;
    int64_t tokens, drafted, accepted;
    int64_t begun_us, spent_us[PM_GENERATE_PHASES];
    bool is_failed;
    struct pm_error error;
};

struct prompt {
    int32_t *ids; /* NULL: not a task of this model */
    int count;
};

struct state {
    struct pm_glm_ocr_manifest manifest;
    struct pm_vlm_model *model;
    struct pm_warm *warm;
    struct pm_tokenizer *tokenizer;
    struct prompt prompts[PM_GLM_OCR_TASKS];
    struct pm_generate *generate;
    int drafts, max_running;
    uint64_t next_request;
    struct job **jobs; /* oldest first */
    int count;
    struct pm_reader_event *events; /* [max_running] */
    struct job **reported;          /* finished ones that the last events point to */
    int reported_count;
};

/* ---- life ---- */

static void free_job(struct job *j)
{
    for (int i = 0; i < j->piece_count; i++) {
        pm_image_free(&j->pieces[i].image);
        pm_buf_free(&j->pieces[i].text);
    }
    free(j->pieces);
    pm_buf_free(&j->text);
    free(j);
}

static void free_reported(struct state *s)
{
    for (int i = 0; i < s->reported_count; i++)
        free_job(s->reported[i]);
    s->reported_count = 0;
}

static void reader_free(void *state)
{
    struct state *s = state;
    free_reported(s);
    for (int i = 0; i < s->count; i++)
        free_job(s->jobs[i]);
    for (int t = 0; t < PM_GLM_OCR_TASKS; t++)
        free(s->prompts[t].ids);
    pm_warm_end(&s->warm);
    pm_generate_free(&s->generate);
    pm_tokenizer_free(&s->tokenizer);
    pm_vlm_model_close(&s->model);
    pm_glm_ocr_manifest_free(&s->manifest);
    free(s->jobs);
    free(s->events);
    free(s->reported);
    free(s);
}

/* ---- prompts ---- */

/* The prompt of a task: one picture and its text, as the checkpoint's template writes them. */
static int make_prompt(struct state *s, const struct pm_template *tmpl, const char *dir, int task,
                       struct pm_error *err)
{
    char *text = NULL;
    size_t bytes = 0, count = 0;
    struct prompt *p = &s->prompts[task];
    json_t *variables =
        json_pack("{s:[{s:s, s:[{s:s}, {s:s, s:s}]}], s:b}", "messages", "role", "user", "content", "type",
                  "image", "type", "text", "text", s->manifest.prompts[task], "add_generation_prompt", 1);
    if (!variables)
        return pm_fail(err, PM_EFORMAT, "%s: the prompt of task %d is not UTF-8", dir, task);
    int rc = pm_template_render(tmpl, variables, &text, &bytes, err);
    if (!rc)
        rc = pm_tokenizer_encode(s->tokenizer, text, bytes, true, &p->ids, &count, err);
    free(text);
    json_decref(variables);
    if (rc)
        return pm_fail_prefix(err, "%s: prompt \"%s\"", dir, s->manifest.prompts[task]);
    int places = 0;
    p->count = (int)count;
    for (int i = 0; i < p->count; i++)
        places += p->ids[i] == s->model->config.image_id;
    if (places != 1)
        return pm_fail(err, PM_EFORMAT,
                       "%s: the chat template and the tokenizer give %d places for one picture (id %d)", dir,
                       places, (int)s->model->config.image_id);
    return 0;
}

static int make_prompts(struct state *s, const struct pm_model_manifest *model, struct pm_error *err)
{
    struct pm_buf text = {0};
    struct pm_template *tmpl = NULL;
    char *path = NULL;
    int rc = pm_model_file(model, "template", &path, err);
    if (!rc)
        rc = pm_fs_read(path, TEMPLATE_BYTES, &text, err);
    if (!rc)
        rc = pm_template_parse(path, text.data ? (const char *)text.data : "", text.size, &tmpl, err);
    for (int t = 0; !rc && t < PM_GLM_OCR_TASKS; t++)
        if (s->manifest.prompts[t])
            rc = make_prompt(s, tmpl, model->dir, t, err);
    pm_template_free(&tmpl);
    pm_buf_free(&text);
    free(path);
    return rc;
}

/* ---- opening ---- */

static int64_t step_macs(const struct pm_kernels *kernels, enum pm_precision precision, int threads)
{
    bool has_bf16 = pm_precision_is_bf16(precision) && !strcmp(kernels->name, "avx512bf16");
    int64_t macs = !strcmp(kernels->name, "plain") ? STEP_MACS_PLAIN
                   : has_bf16                      ? STEP_MACS_BF16
                                                   : STEP_MACS_VECTOR;
    return macs * threads;
}

static int open_files(struct state *s, const struct pm_model_manifest *model, struct pm_error *err)
{
    char *weights = NULL, *tokenizer = NULL;
    int rc = pm_model_file(model, "weights", &weights, err);
    if (!rc)
        rc = pm_model_file(model, "tokenizer", &tokenizer, err);
    if (!rc)
        rc = pm_glm_ocr_model_open(weights, &s->model, err);
    if (!rc)
        s->warm = pm_warm_begin(s->model->pack);
    if (!rc)
        rc = pm_tokenizer_open(tokenizer, &s->tokenizer, err);
    if (!rc)
        rc = make_prompts(s, model, err);
    free(weights);
    free(tokenizer);
    return rc;
}

/* The line picture must pass the image processor as it is. */
static int check_lines(const struct state *s, const char *dir, struct pm_error *err)
{
    const struct pm_line_rules *l = &s->manifest.lines;
    const int widths[] = {l->step_px, l->max_width_px};
    for (size_t i = 0; s->manifest.has_lines && i < 2; i++) {
        int width, height;
        int rc = pm_smart_resize(&s->model->config, widths[i], l->height_px, &width, &height, err);
        if (rc)
            return pm_fail_prefix(err, "%s/pagemill.json", dir);
        if (width != widths[i] || height != l->height_px)
            return pm_fail(err, PM_EFORMAT,
                           "%s/pagemill.json: lines of %d x %d px would be made %d x %d by the model's own "
                           "image processor",
                           dir, widths[i], l->height_px, width, height);
    }
    return 0;
}

static int reader_open(const struct pm_reader_config *config, const char *manifest_json, void **state_out,
                       struct pm_reader_info *info_out, struct pm_error *err)
{
    (void)manifest_json;
    (void)info_out;
    struct pm_model_manifest model;
    *state_out = NULL;
    int rc = pm_model_manifest_read(config->model_dir, &model, err);
    if (rc)
        return rc;
    struct state *s = pm_xalloc(sizeof *s);
    s->max_running = config->max_running;
    s->jobs = pm_xalloc((size_t)config->max_running * sizeof(struct job *));
    s->reported = pm_xalloc((size_t)config->max_running * sizeof(struct job *));
    s->events = pm_xalloc((size_t)config->max_running * sizeof *s->events);
    rc = pm_glm_ocr_manifest_read(&model, &s->manifest, err);
    if (!rc)
        rc = open_files(s, &model, err);
    if (!rc)
        rc = check_lines(s, model.dir, err);
    if (!rc) {
        const struct pm_kernels *kernels = pm_kernels_get(NULL);
        s->drafts = config->drafts > 0   ? config->drafts
                    : config->drafts < 0 ? 0
                    : s->manifest.drafts ? s->manifest.drafts
                                         : PM_MTP_DRAFTS_MAX;
        struct pm_generate_config generate = {
            .model = s->model,
            .tokenizer = s->tokenizer,
            .kernels = kernels,
            .threads = config->threads,
            .max_running = config->max_running,
            .kv_bytes = config->cache_bytes ? config->cache_bytes : CACHE_BYTES,
            .memory_bytes = config->memory_bytes,
            .kv_int8 = config->kv_int8,
            .vision_cache_bytes = config->picture_cache_bytes,
            .slice_macs = step_macs(kernels, s->model->precision, config->threads),
            .step_us = STEP_US,
            .drafts_when_paying = !config->drafts,
            .drafts_see_pictures = s->manifest.drafts_see_pictures};
        rc = pm_generate_new(&generate, &s->generate, err);
    }
    pm_model_manifest_free(&model);
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

/* ---- regions in ---- */

/* Tokens that a region's prompt takes. */
static int prompt_tokens(const struct state *s, const struct job *j, const struct pm_image *image,
                         int *count_out, struct pm_error *err)
{
    const struct pm_vision_config *v = &s->model->config.vision;
    int width, height;
    int rc = pm_smart_resize(&s->model->config, image->width_px, image->height_px, &width, &height, err);
    if (!rc)
        *count_out = s->prompts[j->request.task].count - 1 +
                     (width / v->patch) * (height / v->patch) / (v->merge * v->merge);
    return rc;
}

static int check_request(const struct state *s, const struct pm_reader_request *request,
                         struct pm_sampling *out, struct pm_error *err)
{
    const struct pm_image *im = &request->image;
    unsigned long long id = request->id;
    if (!im->pixels || im->width_px < 1 || im->height_px < 1 || (im->channels != 1 && im->channels != 3) ||
        im->stride_bytes < (size_t)im->width_px * (size_t)im->channels)
        return pm_fail(err, PM_EINVAL, "region %llu: a picture of %d x %d with %d channels cannot be read",
                       id, im->width_px, im->height_px, im->channels);
    if (request->max_tokens < 0)
        return pm_fail(err, PM_EINVAL, "region %llu: %d tokens were asked for", id, request->max_tokens);
    *out = pm_sampling_default();
    out->temperature = request->temperature;
    out->seed = request->seed;
    if (request->repetition_penalty != 0)
        out->repetition_penalty = request->repetition_penalty;
    int rc = pm_sampling_check(out, s->model->config.text.vocab, err);
    if (!rc && !s->manifest.has_lines) {
        int width, height;
        rc = pm_smart_resize(&s->model->config, im->width_px, im->height_px, &width, &height, err);
    }
    return rc ? pm_fail_prefix(err, "region %llu", id) : 0;
}

static int reader_admit(void *state, const struct pm_reader_request *request, struct pm_error *err)
{
    struct state *s = state;
    struct pm_sampling sampling;
    free_reported(s);
    for (int i = 0; i < s->count; i++)
        if (s->jobs[i]->request.id == request->id)
            return pm_fail(err, PM_EINVAL, "region %llu is already being read",
                           (unsigned long long)request->id);
    if (s->count == s->max_running)
        return pm_fail(err, PM_EBUSY, "the reader already has its %d regions: admit again when one is done",
                       s->max_running);
    int rc = check_request(s, request, &sampling, err);
    if (rc)
        return rc;
    struct job *j = pm_xalloc(sizeof *j);
    j->request = *request;
    j->sampling = sampling;
    if (s->manifest.has_lines) {
        struct pm_line_part *parts;
        pm_line_cut(&s->manifest.lines, &request->image, &parts, &j->piece_count);
        j->pieces = pm_xalloc((size_t)j->piece_count * sizeof *j->pieces);
        for (int i = 0; i < j->piece_count; i++)
            j->pieces[i].part = parts[i];
        free(parts);
    } else {
        j->piece_count = 1;
        j->pieces = pm_xalloc(sizeof *j->pieces);
    }
    s->jobs[s->count++] = j;
    return 0;
}

static int make_picture(const struct state *s, const struct job *j, struct piece *p, struct pm_error *err)
{
    if (s->manifest.has_lines)
        return pm_line_make(&s->manifest.lines, &j->request.image, &p->part, &p->image, err);
    p->image = j->request.image;
    p->image.owned = NULL;
    return 0;
}

static int start_piece(struct state *s, struct job *j, struct piece *p, struct pm_error *err)
{
    const struct prompt *prompt = &s->prompts[j->request.task];
    int used = 0, rc = make_picture(s, j, p, err);
    if (!rc)
        rc = prompt_tokens(s, j, &p->image, &used, err);
    if (rc)
        return rc;
    int most = s->manifest.max_tokens, room = pm_generate_token_limit(s->generate) - used;
    if (j->request.max_tokens && j->request.max_tokens < most)
        most = j->request.max_tokens;
    if (room > 0 && room < most) /* else it is refused, with the numbers */
        most = room;
    struct pm_generate_request request = {.id = ++s->next_request,
                                          .ids = prompt->ids,
                                          .id_count = prompt->count,
                                          .images = &p->image,
                                          .image_count = 1,
                                          .max_tokens = most,
                                          .sampling = j->sampling,
                                          .drafts = s->drafts,
                                          .loop_tokens = LOOP_TOKENS};
    rc = pm_generate_admit(s->generate, &request, err);
    if (!rc)
        p->request = request.id;
    return rc;
}

/* Gives the generator what it has room for, oldest region first. */
static void feed(struct state *s)
{
    for (int i = 0; i < s->count; i++) {
        struct job *j = s->jobs[i];
        for (int k = 0; k < j->piece_count && !j->is_failed; k++) {
            if (j->pieces[k].request)
                continue;
            if (!pm_generate_room(s->generate))
                return;
            j->is_failed = start_piece(s, j, &j->pieces[k], &j->error) != 0;
        }
    }
}

/* Takes a job out of the list and out of the generator. */
static void detach(struct state *s, int index)
{
    struct job *j = s->jobs[index];
    for (int k = 0; k < j->piece_count; k++)
        if (j->pieces[k].request && !j->pieces[k].is_final)
            pm_generate_cancel(s->generate, j->pieces[k].request, NULL);
    s->count--;
    memmove(s->jobs + index, s->jobs + index + 1, (size_t)(s->count - index) * sizeof *s->jobs);
}

static int reader_cancel(void *state, uint64_t id, struct pm_error *err)
{
    struct state *s = state;
    free_reported(s);
    for (int i = 0; i < s->count; i++) {
        struct job *j = s->jobs[i];
        if (j->request.id != id)
            continue;
        detach(s, i);
        free_job(j);
        return 0;
    }
    return pm_fail(err, PM_ENOTFOUND, "region %llu is not being read", (unsigned long long)id);
}

/* ---- texts out ---- */

static bool is_end_id(const struct state *s, int32_t id)
{
    const struct pm_vlm_config *c = &s->model->config;
    for (int i = 0; i < c->eos_count; i++)
        if (c->eos_ids[i] == id)
            return true;
    return false;
}

static struct piece *find_piece(const struct state *s, uint64_t request, struct job **job_out)
{
    for (int i = 0; i < s->count; i++)
        for (int k = 0; k < s->jobs[i]->piece_count; k++)
            if (s->jobs[i]->pieces[k].request == request) {
                *job_out = s->jobs[i];
                return &s->jobs[i]->pieces[k];
            }
    return NULL;
}

static void take(const struct state *s, const struct pm_generate_event *e)
{
    struct job *j;
    struct piece *p = find_piece(s, e->id, &j);
    if (!p)
        return;
    pm_buf_append(&p->text, e->text, e->text_bytes);
    for (int i = 0; i < e->sample_count; i++) {
        if (is_end_id(s, e->samples[i].id))
            continue;
        j->probability_sum += exp((double)e->samples[i].logprob);
        j->tokens++;
    }
    if (!e->is_final)
        return;
    p->is_final = true;
    if (e->begun_us && (!j->begun_us || e->begun_us < j->begun_us))
        j->begun_us = e->begun_us;
    for (int k = 0; k < PM_GENERATE_PHASES; k++)
        j->spent_us[k] += e->spent_us[k];
    j->drafted += e->drafted_tokens;
    j->accepted += e->accepted_tokens;
    p->is_cut = e->end == PM_GENERATE_LENGTH;
    pm_image_free(&p->image);
    if (e->end == PM_GENERATE_ERROR) {
        j->is_failed = true;
        j->error = e->error;
    }
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Puts the pieces' texts together as far as they are known in order; no blanks at the start of any. */
static void join(struct job *j)
{
    for (; j->head < j->piece_count; j->head++) {
        struct piece *p = &j->pieces[j->head];
        bool is_start = !p->taken;
        while (is_start && p->taken < p->text.size && is_blank(p->text.data[p->taken]))
            p->taken++;
        if (is_start && p->taken == p->text.size) {
            p->taken = 0; /* nothing but blanks so far */
        } else {
            if (is_start && p->part.has_space && j->text.size)
                pm_buf_append(&j->text, " ", 1);
            pm_buf_append(&j->text, p->text.data + p->taken, p->text.size - p->taken);
            p->taken = p->text.size;
        }
        if (!p->is_final)
            return;
    }
}

static struct pm_reader_event final_event(struct job *j)
{
    bool is_cut = false;
    while (j->text.size && is_blank(j->text.data[j->text.size - 1]))
        j->text.size--;
    for (int i = 0; i < j->piece_count; i++)
        is_cut |= j->pieces[i].is_cut;
    pm_buf_text(&j->text, "");
    struct pm_reader_times times = {.begun_us = j->begun_us};
    for (int k = 0; k < PM_GENERATE_PHASES; k++)
        if (j->spent_us[k])
            times.phases[times.phase_count++] =
                (struct pm_reader_phase){pm_generate_phase_name((enum pm_generate_phase)k), j->spent_us[k]};
    return (struct pm_reader_event){.id = j->request.id,
                                    .is_final = true,
                                    .text = (const char *)j->text.data,
                                    .text_bytes = j->text.size,
                                    .confidence =
                                        j->tokens ? (float)(j->probability_sum / (double)j->tokens) : 0.0f,
                                    .finish = j->is_failed   ? PM_FINISH_ERROR
                                              : is_cut       ? PM_FINISH_LENGTH
                                              : j->text.size ? PM_FINISH_STOP
                                                             : PM_FINISH_EMPTY,
                                    .error = j->error,
                                    .times = times,
                                    .tokens = (uint64_t)j->tokens,
                                    .drafted = (uint64_t)j->drafted,
                                    .accepted = (uint64_t)j->accepted};
}

static size_t report(struct state *s)
{
    size_t count = 0;
    for (int i = 0; i < s->count;) {
        struct job *j = s->jobs[i];
        join(j);
        if (j->is_failed || j->head == j->piece_count) {
            detach(s, i);
            s->reported[s->reported_count++] = j;
            s->events[count++] = final_event(j);
            continue;
        }
        if (j->text.size > j->shown)
            s->events[count++] = (struct pm_reader_event){.id = j->request.id,
                                                          .text = (const char *)j->text.data + j->shown,
                                                          .text_bytes = j->text.size - j->shown};
        j->shown = j->text.size;
        i++;
    }
    return count;
}

static int reader_step(void *state, const struct pm_reader_event **events_out, size_t *count_out,
                       struct pm_error *err)
{
    struct state *s = state;
    const struct pm_generate_event *events;
    size_t count;
    free_reported(s);
    feed(s);
    int rc = pm_generate_step(s->generate, &events, &count, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++)
        take(s, &events[i]);
    *count_out = report(s);
    *events_out = s->events;
    return 0;
}

static struct pm_reader_counters reader_counters(const void *state)
{
    struct pm_generate_counters c = pm_generate_counters(((const struct state *)state)->generate);
    return (struct pm_reader_counters){c.pictures, c.pictures_reused};
}

const struct pm_reader_family pm_glm_ocr_reader = {
    .name = "glm_ocr",
    .open = reader_open,
    .free = reader_free,
    .room = reader_room,
    .running = reader_running,
    .admit = reader_admit,
    .cancel = reader_cancel,
    .step = reader_step,
    .counters = reader_counters,
};
