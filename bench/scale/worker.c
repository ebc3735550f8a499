#include "bench/scale/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/measure/phases.h"

enum { WORKERS_MAX = 64, CHILD_ARGUMENTS = 7, STEPS = 8, ANSWER_BYTES = 400, NUMBER_BYTES = 32 };

/* ---- the worker ---- */

/* Does it once: tokens or regions that came of it. */
static int once(struct pm_phases *phases, const struct load *l, double *made_out, struct pm_error *err)
{
    double unused;
    if (l->batch) {
        *made_out = (double)l->batch * STEPS;
        return pm_phases_steps(phases, l->batch, l->context, STEPS, &unused, err);
    }
    *made_out = 1;
    int rc = pm_phases_vision(phases, l->width_px, l->height_px, &unused, err);
    return rc ? rc : pm_phases_prefill(phases, l->context, &unused, err);
}

/* Says that it is ready, waits for the word, works, tells its rate. */
static int work(struct pm_phases *phases, const struct load *l, struct pm_error *err)
{
    double made, all = 0;
    char word;
    int rc = once(phases, l, &made, err);
    if (rc)
        return rc;
    printf("ready\n");
    fflush(stdout);
    if (read(STDIN_FILENO, &word, 1) != 1)
        return pm_fail(err, PM_EIO, "nobody gave the word");
    int64_t start = pm_clock_us();
    double passed = 0;
    while (!rc && passed < l->seconds) {
        rc = once(phases, l, &made, err);
        all += made;
        passed = (double)(pm_clock_us() - start) / 1e6;
    }
    if (!rc)
        printf("rate %.6f\n", all / passed);
    return rc;
}

int load_child(int argc, char **argv)
{
    struct pm_error err = {0};
    struct pm_vlm_model *model = NULL;
    struct pm_pool *pool = NULL;
    struct pm_phases *phases = NULL;
    if (argc != CHILD_ARGUMENTS)
        return 2;
    struct load l = {.weights = argv[0],
                     .threads = atoi(argv[1]),
                     .batch = atoi(argv[2]),
                     .context = atoi(argv[3]),
                     .width_px = atoi(argv[4]),
                     .height_px = atoi(argv[5]),
                     .seconds = atof(argv[6])};
    int rc = pm_glm_ocr_model_open(l.weights, &model, &err);
    if (!rc)
        rc = pm_pool_new(l.threads, &pool, &err);
    if (!rc)
        rc = pm_phases_new(model, pool, l.batch ? l.batch : 1, l.context + STEPS, &phases, &err);
    if (!rc)
        rc = work(phases, &l, &err);
    if (rc)
        printf("error %s\n", err.text);
    pm_phases_free(&phases);
    pm_pool_free(&pool);
    pm_vlm_model_close(&model);
    return rc ? 1 : 0;
}

/* ---- those who wait for it ---- */

struct worker {
    pid_t pid;
    FILE *from;
    int to;
};

static int start_worker(const struct load *l, struct worker *out, struct pm_error *err)
{
    char numbers[6][NUMBER_BYTES];
    int up[2], down[2];
    const int values[] = {l->threads, l->batch, l->context, l->width_px, l->height_px};
    for (size_t i = 0; i < 5; i++)
        snprintf(numbers[i], NUMBER_BYTES, "%d", values[i]);
    snprintf(numbers[5], NUMBER_BYTES, "%f", l->seconds);
    if (pipe2(up, O_CLOEXEC))
        return pm_fail(err, PM_EIO, "no pipe: %s", strerror(errno));
    if (pipe2(down, O_CLOEXEC)) {
        close(up[0]);
        close(up[1]);
        return pm_fail(err, PM_EIO, "no pipe: %s", strerror(errno));
    }
    out->pid = fork();
    if (!out->pid) {
        dup2(up[1], STDOUT_FILENO);
        dup2(down[0], STDIN_FILENO);
        execl("/proc/self/exe", "bench_scale", "--child", l->weights, numbers[0], numbers[1], numbers[2],
              numbers[3], numbers[4], numbers[5], (char *)NULL);
        _exit(127);
    }
    close(up[1]);
    close(down[0]);
    out->from = fdopen(up[0], "r");
    out->to = down[1];
    return out->pid < 0 || !out->from ? pm_fail(err, PM_EIO, "no worker: %s", strerror(errno)) : 0;
}

static int hear(struct worker *w, char answer[ANSWER_BYTES], struct pm_error *err)
{
    answer[0] = '\0';
    bool has_line = fgets(answer, ANSWER_BYTES, w->from) != NULL;
    answer[strcspn(answer, "\n")] = '\0';
    if (!has_line || !strncmp(answer, "error", 5))
        return pm_fail(err, PM_EIO, "a worker: %s", has_line ? answer : "ended without an answer");
    return 0;
}

static void stop_worker(struct worker *w)
{
    if (w->to >= 0)
        close(w->to);
    if (w->from)
        fclose(w->from);
    if (w->pid > 0)
        waitpid(w->pid, NULL, 0);
}

int load_run(const struct load *load, double *rate_out, struct pm_error *err)
{
    struct worker workers[WORKERS_MAX] = {0};
    char answer[ANSWER_BYTES];
    int rc = 0, started = 0;
    double rate;
    *rate_out = 0;
    if (load->workers > WORKERS_MAX)
        return pm_fail(err, PM_EINVAL, "%d workers: at most %d", load->workers, WORKERS_MAX);
    for (; started < load->workers && !rc; started++)
        rc = start_worker(load, &workers[started], err);
    for (int i = 0; i < started && !rc; i++)
        rc = hear(&workers[i], answer, err);
    for (int i = 0; i < started && !rc; i++)
        if (write(workers[i].to, "g", 1) != 1)
            rc = pm_fail(err, PM_EIO, "a worker does not listen");
    for (int i = 0; i < started && !rc; i++) {
        rc = hear(&workers[i], answer, err);
        if (!rc && sscanf(answer, "rate %lf", &rate) == 1)
            *rate_out += rate;
    }
    for (int i = 0; i < started; i++)
        stop_worker(&workers[i]);
    return rc;
}
