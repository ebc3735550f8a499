/* How the engine grows with threads, workers and batch, beside the roofline's model of the same machine; and
 * what that model says of a larger one. `bench_scale --help`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/host.h"
#include "base/mem.h"
#include "base/options.h"
#include "bench/scale/worker.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/manifest.h"
#include "engine/measure/phases.h"
#include "engine/measure/work.h"

enum { CONTEXT = 520, WIDTH_PX = 1008, HEIGHT_PX = 392, PROMPT_TOKENS = 16, SETUPS_MAX = 8, TOKENS = 200 };

static const int batches[] = {1, 2, 4, 8, 16, 32};
enum { BATCHES = sizeof batches / sizeof *batches };

struct settings {
    uint32_t seconds, cores, domain_cores, channels, channel_gb;
};

struct setup {
    int workers, threads;
    struct pm_limit_figures limits; /* of all its threads together */
    struct pm_limit_figures best;   /* that this run has seen */
    double share;                   /* of the compute limit that tower and prompt reach */
    double steps_share[BATCHES];    /* of what the model allows, by batch */
};

struct bench {
    struct settings settings;
    char *weights;
    struct pm_vlm_model *model;
    struct setup setups[SETUPS_MAX];
    int setup_count;
};

/* ---- the model ---- */

/* Every worker streams the weights for itself and all share the memory; multiply-adds are shared evenly. So
 * a step of all workers together lasts as long as the longer of both. Tokens a second. */
static double model_steps(const struct pm_vlm_model *model, int workers, int batch,
                          const struct pm_limit_figures *limits)
{
    struct pm_work one = pm_work_step(model, batch, CONTEXT), all = pm_work_times(&one, workers);
    return workers * batch / pm_work_floor_s(&all, limits);
}

static struct pm_work region_work(const struct pm_vlm_model *model)
{
    int patches = 0, merge = model->config.vision.merge;
    if (pm_phases_patches(model, WIDTH_PX, HEIGHT_PX, &patches, NULL))
        return (struct pm_work){0};
    struct pm_work vision = pm_work_vision(model, patches),
                   prefill = pm_work_prefill(model, patches / (merge * merge) + PROMPT_TOKENS);
    return pm_work_sum(&vision, &prefill);
}

/* ---- measured ---- */

static void keep_best(struct pm_limit_figures *best, const struct pm_limit_figures *seen)
{
    for (int kind = 0; kind < PM_PEAKS; kind++)
        best->gops[kind] = seen->gops[kind] > best->gops[kind] ? seen->gops[kind] : best->gops[kind];
    best->read_gb_s = seen->read_gb_s > best->read_gb_s ? seen->read_gb_s : best->read_gb_s;
}

/* The limits of its threads, before and after the load. */
static int measure(struct setup *s, const struct load *load, double *rate_out, struct pm_error *err)
{
    struct pm_pool *pool = NULL;
    struct pm_limits *limits = NULL;
    int rc = pm_pool_new(s->workers * s->threads, &pool, err);
    if (!rc)
        rc = pm_limits_new(pool, &limits, err);
    if (!rc) {
        struct pm_limit_figures before = pm_limits_take(limits), after;
        rc = load_run(load, rate_out, err);
        after = pm_limits_take(limits);
        s->limits = pm_limits_mean(&before, &after);
        keep_best(&s->best, &before);
        keep_best(&s->best, &after);
    }
    pm_limits_free(&limits);
    pm_pool_free(&pool);
    return rc;
}

static int run_regions(struct bench *b, struct setup *s, struct pm_error *err)
{
    struct load load = {.weights = b->weights,
                        .workers = s->workers,
                        .threads = s->threads,
                        .context = CONTEXT,
                        .width_px = WIDTH_PX,
                        .height_px = HEIGHT_PX,
                        .seconds = b->settings.seconds};
    struct pm_work work = region_work(b->model);
    double rate;
    int rc = measure(s, &load, &rate, err);
    if (rc)
        return rc;
    s->share = rate * pm_work_compute_s(&work, &s->limits);
    printf("| %d x %d | tower and prompt of %dx%d, regions/s | %.3f | %.3f | %.0f %% |\n", s->workers,
           s->threads, WIDTH_PX, HEIGHT_PX, rate, rate / s->share, 100 * s->share);
    return 0;
}

static int run_steps(struct bench *b, struct setup *s, int index, struct pm_error *err)
{
    int batch = batches[index];
    struct load load = {.weights = b->weights,
                        .workers = s->workers,
                        .threads = s->threads,
                        .batch = batch,
                        .context = CONTEXT,
                        .seconds = b->settings.seconds};
    double rate;
    int rc = measure(s, &load, &rate, err);
    if (rc)
        return rc;
    double model = model_steps(b->model, s->workers, batch, &s->limits), share = rate / model;
    struct pm_work work = pm_work_step(b->model, batch, CONTEXT);
    bool is_memory = pm_work_memory_s(&work, &s->limits) > pm_work_compute_s(&work, &s->limits);
    s->steps_share[index] = share;
    printf("| %d x %d | decode, %d each, tokens/s | %.1f | %.1f, %s | %.0f %% |\n", s->workers, s->threads,
           batch, rate, model, is_memory ? "memory" : "multiply-adds", 100 * share);
    fflush(stdout);
    return 0;
}

static int run_all(struct bench *b, struct pm_error *err)
{
    int rc = 0;
    printf("| workers x threads | what | measured | the model allows | share |\n|---|---|---:|---:|---:|\n");
    for (int i = 0; i < b->setup_count && !rc; i++) {
        struct setup *s = &b->setups[i];
        rc = run_regions(b, s, err);
        for (int k = 0; k < BATCHES && !rc; k++)
            rc = run_steps(b, s, k, err);
    }
    return rc;
}

/* ---- a larger machine ---- */

/* One engine a memory domain, its cores' peak as here; what it reaches of the limits as here with all cores.
 * Its memory: the smaller of what one domain reads here and its part of the channels. */
static void tell_larger(const struct bench *b)
{
    const struct settings *o = &b->settings;
    const struct setup *base = &b->setups[0], *full = &b->setups[b->setup_count - 1];
    int engines = (int)(o->cores / o->domain_cores);
    double channels = (double)o->channels * o->channel_gb, here = full->best.read_gb_s,
           part = channels / engines;
    struct pm_limit_figures limits = {.read_gb_s = here < part ? here : part};
    for (int kind = 0; kind < PM_PEAKS; kind++)
        limits.gops[kind] = base->best.gops[kind] / base->threads * o->domain_cores;
    struct pm_work region = region_work(b->model);
    double front_s = pm_work_compute_s(&region, &limits) / full->share;
    printf("\nA machine of %u cores and %u channels: %d engines of %u threads.\n\n", o->cores, o->channels,
           engines, o->domain_cores);
    printf("| term | value | |\n|---|---:|---|\n");
    printf("| bf16 peak of a core, GOP/s | %.0f | measured here; the same clock with all cores busy is "
           "assumed |\n",
           base->best.gops[PM_PEAK_BF16] / base->threads);
    printf("| memory of a domain, GB/s | %.0f | the smaller of %.0f, read here, and %.0f, its part of the "
           "channels |\n",
           limits.read_gb_s, here, part);
    printf("| a channel, GB/s | %u | assumed: DDR5-4800 at 85 %% |\n", o->channel_gb);
    printf("| share of the peak, tower and prompt | %.0f %% | measured here with %d threads; the same with "
           "%u is "
           "assumed |\n",
           100 * full->share, full->threads, o->domain_cores);
    printf("| share of the model, decode | | by batch, as measured here with %d threads; the same is assumed "
           "|\n",
           full->threads);
    printf("\n| batch of an engine | decode, tokens/s, all engines | bound by | regions of %dx%d with %d "
           "tokens, a second |\n"
           "|---:|---:|---|---:|\n",
           WIDTH_PX, HEIGHT_PX, TOKENS);
    for (int k = 0; k < BATCHES; k++) {
        struct pm_work work = pm_work_step(b->model, batches[k], CONTEXT);
        double rate = model_steps(b->model, 1, batches[k], &limits) * full->steps_share[k];
        bool is_memory = pm_work_memory_s(&work, &limits) > pm_work_compute_s(&work, &limits);
        printf("| %d | %.0f | %s | %.1f |\n", batches[k], rate * engines,
               is_memory ? "memory" : "multiply-adds", engines / (front_s + TOKENS / rate));
    }
}

/* ---- the command ---- */

static const struct pm_option options[] = {
    {"seconds", 0, PM_OPTION_UINT, "N", "Length of each measurement. Default: 3.",
     offsetof(struct settings, seconds), 1, 600},
    {"cores", 0, PM_OPTION_UINT, "N", "Cores of the larger machine. Default: 64.",
     offsetof(struct settings, cores), 1, 4096},
    {"domain-cores", 0, PM_OPTION_UINT, "N", "Its cores a memory domain. Default: 8.",
     offsetof(struct settings, domain_cores), 1, 4096},
    {"channels", 0, PM_OPTION_UINT, "N", "Its memory channels. Default: 8.",
     offsetof(struct settings, channels), 1, 64},
    {"channel-gb", 0, PM_OPTION_UINT, "N", "What one of them reads, GB/s. Default: 33.",
     offsetof(struct settings, channel_gb), 1, 1000},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};
static const struct pm_usage usage = {
    .name = "bench_scale",
    .arguments = "MODEL",
    .summary = "how GLM-OCR grows with threads, workers and batch",
    .about =
        "MODEL is a packed model folder. Runs 1 worker of 1 thread, 2 workers of 1 thread, and 1 worker of 2 "
        "threads (all cores where there are more); workers are processes that map the same weights. Beside "
        "each "
        "figure stands what the roofline's model allows: every worker reads its weights, keys and values "
        "once "
        "a step, all share the memory; multiply-adds are divided evenly; limits measured just before.\n",
    .tables = tables,
    .least = 1,
    .most = 1};

static int run(struct bench *b, const char *dir, struct pm_error *err)
{
    struct pm_model_manifest m = {0};
    int cores = pm_host_cores();
    const struct setup setups[] = {{.workers = 1, .threads = 1},
                                   {.workers = 2, .threads = cores > 3 ? cores / 2 : 1},
                                   {.workers = 1, .threads = cores}};
    for (size_t i = 0; i < sizeof setups / sizeof *setups; i++)
        if (setups[i].workers * setups[i].threads <= cores && (!i || cores > 1))
            b->setups[b->setup_count++] = setups[i];
    int rc = pm_model_manifest_read(dir, &m, err);
    if (!rc)
        rc = pm_model_file(&m, "weights", &b->weights, err);
    if (!rc)
        rc = pm_glm_ocr_model_open(b->weights, &b->model, err);
    if (!rc)
        printf("%s, kernels %s, %d cores\n\n", pm_precision_name(b->model->precision),
               pm_kernels_get(NULL)->name, cores);
    if (!rc)
        rc = run_all(b, err);
    if (!rc)
        tell_larger(b);
    pm_model_manifest_free(&m);
    return rc;
}

int main(int argc, char **argv)
{
    struct pm_error err = {0};
    struct pm_arguments arguments;
    if (argc > 1 && !strcmp(argv[1], "--child"))
        return load_child(argc - 2, argv + 2);
    struct bench *b = pm_xalloc(sizeof *b);
    b->settings =
        (struct settings){.seconds = 3, .cores = 64, .domain_cores = 8, .channels = 8, .channel_gb = 33};
    int rc = pm_options_parse(&usage, argc, argv, &b->settings, &arguments, &err);
    if (!rc && b->settings.domain_cores > b->settings.cores)
        rc = pm_fail(&err, PM_EINVAL, "--domain-cores %u: there are %u cores", b->settings.domain_cores,
                     b->settings.cores);
    if (!rc && arguments.wants_help)
        pm_options_help(&usage, 100, stdout);
    else if (!rc)
        rc = run(b, arguments.items[0], &err);
    if (rc)
        fprintf(stderr, "bench_scale: %s\n", err.text);
    pm_vlm_model_close(&b->model);
    free(b->weights);
    free(arguments.items);
    free(b);
    return rc == PM_EINVAL ? 2 : rc ? 1 : 0;
}
