#include "bench/engine/glm_regions.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/reader.h"

enum { CHILD_ARGUMENTS = 7, TEXT_BYTES = 64 };

#define CACHE_BYTES ((size_t)2 << 30)

/* ---- the process that reads ---- */

/* Dark strokes on paper; every region another one, so that nothing can be reused. */
static int make_picture(int width, int height, uint32_t seed, struct pm_image *out, struct pm_error *err)
{
    int rc = pm_image_alloc(width, height, 3, out, err);
    uint32_t state = 2463534242u + 7919u * seed;
    for (size_t i = 0; !rc && i < (size_t)width * (size_t)height * 3; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        out->owned[i] = (uint8_t)(state % 7 ? 255 : state >> 24);
    }
    return rc;
}

static double status_mb(const char *key)
{
    char line[256];
    double mb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            mb = strtod(line + strlen(key) + 1, NULL) / 1024;
    if (f)
        fclose(f);
    return mb;
}

static double phase_s(const struct pm_reader_event *e, const char *name)
{
    for (uint32_t i = 0; i < e->times.phase_count; i++)
        if (!strcmp(e->times.phases[i].name, name))
            return (double)e->times.phases[i].us / 1e6;
    return 0;
}

struct reading {
    struct regions what;
    int64_t start_us, begin_us, first_us, end_us;
    struct regions_result result;
    int done;
};

static int take(struct reading *r, const struct pm_reader_event *e, struct pm_error *err)
{
    if (!r->first_us)
        r->first_us = pm_clock_us();
    if (!e->is_final)
        return 0;
    if (e->finish == PM_FINISH_ERROR) {
        *err = e->error;
        return e->error.code ? e->error.code : PM_EINTERNAL;
    }
    if (e->tokens != (uint64_t)r->what.tokens)
        return pm_fail(err, PM_EUNSUPPORTED,
                       "a text ended by itself after %" PRIu64 " of %d tokens: other weights are needed",
                       e->tokens, r->what.tokens);
    r->result.vision_s += phase_s(e, "vision");
    r->result.prefill_s += phase_s(e, "prefill");
    r->result.decode_s += phase_s(e, "decode");
    r->done++;
    return 0;
}

static int read_all(struct reading *r, struct pm_reader *reader, const struct pm_image *pictures,
                    struct pm_error *err)
{
    int rc = 0;
    r->begin_us = pm_clock_us();
    for (int i = 0; i < r->what.count && !rc; i++) {
        struct pm_reader_request request = {
            .id = (uint64_t)i + 1, .image = pictures[i], .task = PM_TASK_TEXT, .max_tokens = r->what.tokens};
        rc = pm_reader_admit(reader, &request, err);
    }
    while (!rc && r->done < r->what.count) {
        const struct pm_reader_event *events;
        size_t count = 0;
        rc = pm_reader_step(reader, &events, &count, err);
        for (size_t i = 0; i < count && !rc; i++)
            rc = take(r, &events[i], err);
    }
    r->end_us = pm_clock_us();
    return rc;
}

static int read_regions(struct reading *r, const char *dir, struct pm_error *err)
{
    struct pm_reader *reader = NULL;
    struct pm_image *pictures = pm_xalloc((size_t)r->what.count * sizeof *pictures);
    struct pm_reader_config config = {.model_dir = dir,
                                      .threads = r->what.threads,
                                      .max_running = r->what.count,
                                      .cache_bytes = CACHE_BYTES,
                                      .drafts = -1};
    int rc = pm_reader_open(&config, &reader, err);
    for (int i = 0; i < r->what.count && !rc; i++)
        rc = make_picture(r->what.width_px, r->what.height_px, (uint32_t)i, &pictures[i], err);
    if (!rc)
        rc = read_all(r, reader, pictures, err);
    r->result.first_s = (double)(r->first_us - r->start_us) / 1e6;
    r->result.total_s = (double)(r->end_us - r->begin_us) / 1e6;
    r->result.peak_mb = status_mb("VmHWM:");
    r->result.own_mb = r->result.peak_mb - status_mb("RssFile:");
    pm_reader_free(&reader);
    for (int i = 0; i < r->what.count; i++)
        pm_image_free(&pictures[i]);
    free(pictures);
    return rc;
}

int regions_child(int argc, char **argv)
{
    struct pm_error err = {0};
    if (argc != CHILD_ARGUMENTS)
        return 2;
    struct reading r = {.what = {.width_px = atoi(argv[1]),
                                 .height_px = atoi(argv[2]),
                                 .tokens = atoi(argv[3]),
                                 .count = atoi(argv[4]),
                                 .threads = atoi(argv[5])},
                        .start_us = atoll(argv[6])};
    if (read_regions(&r, argv[0], &err)) {
        printf("error %s\n", err.text);
        return 1;
    }
    const struct regions_result *o = &r.result;
    printf("ok %.6f %.6f %.6f %.6f %.6f %.3f %.3f\n", o->first_s, o->total_s, o->vision_s, o->prefill_s,
           o->decode_s, o->peak_mb, o->own_mb);
    return 0;
}

/* ---- the process that measures ---- */

static int read_answer(FILE *from, struct regions_result *out, struct pm_error *err)
{
    char line[sizeof err->text + TEXT_BYTES] = "";
    bool has_line = fgets(line, sizeof line, from) != NULL;
    line[strcspn(line, "\n")] = '\0';
    if (has_line && sscanf(line, "ok %lf %lf %lf %lf %lf %lf %lf", &out->first_s, &out->total_s,
                           &out->vision_s, &out->prefill_s, &out->decode_s, &out->peak_mb, &out->own_mb) == 7)
        return 0;
    return pm_fail(err, PM_EIO, "the reading process: %s", has_line ? line : "ended without an answer");
}

int regions_run(const char *model_dir, const struct regions *what, struct regions_result *out,
                struct pm_error *err)
{
    int ends[2];
    char numbers[6][TEXT_BYTES];
    snprintf(numbers[0], TEXT_BYTES, "%d", what->width_px);
    snprintf(numbers[1], TEXT_BYTES, "%d", what->height_px);
    snprintf(numbers[2], TEXT_BYTES, "%d", what->tokens);
    snprintf(numbers[3], TEXT_BYTES, "%d", what->count);
    snprintf(numbers[4], TEXT_BYTES, "%d", what->threads);
    if (pipe2(ends, O_CLOEXEC))
        return pm_fail(err, PM_EIO, "no pipe: %s", strerror(errno));
    snprintf(numbers[5], TEXT_BYTES, "%" PRId64, pm_clock_us());
    pid_t pid = fork();
    if (!pid) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "bench_glm", "--child", model_dir, numbers[0], numbers[1], numbers[2],
              numbers[3], numbers[4], numbers[5], (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *from = fdopen(ends[0], "r");
    int rc = pid < 0 || !from ? pm_fail(err, PM_EIO, "cannot start a process: %s", strerror(errno))
                              : read_answer(from, out, err);
    if (from)
        fclose(from);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return rc;
}
