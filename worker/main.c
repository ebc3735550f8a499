/* pagemill-worker: reads regions. Started by the supervisor; see pagemill-worker(8). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/fs.h"
#include "base/log.h"
#include "engine/manifest.h"
#include "worker/worker.h"

static const char usage[] =
    "Usage: pagemill-worker --endpoint URL --models DIR [options]\n"
    "\n"
    "Reads page regions: takes region tasks from the broker, runs one model over them\n"
    "and returns text, confidence and word positions. Usually started by `pagemill up`\n"
    "or `pagemill parse`; start it by hand to add a reader to a running fleet.\n"
    "\n"
    "  --endpoint URL     the broker's socket for services, ipc:///RUN/work.sock\n"
    "  --models DIR       folder of model folders; the reader is DIR/MODEL/pagemill.json\n"
    "  --reader NAME      the reader to serve (default fast)\n"
    "  --threads N        compute threads (default 1)\n"
    "  --credit N         regions held at once (default 16)\n"
    "  --name NAME        name in lists and logs (default worker)\n"
    "  --give-up SECONDS  leave when no broker answers for this long (default: never)\n"
    "  --log-level LEVEL  debug, info, warning or error (default info)\n"
    "  --help, --version\n"
    "\n"
    "SIGTERM finishes the regions in hand and leaves; a second one leaves at once.\n"
    "Exit status: 0 stopped as asked; 64 wrong usage; 78 the model cannot be loaded\n"
    "(do not restart); anything else: start it again.\n";

struct settings {
    const char *endpoint, *models, *reader, *name;
    int threads, credit, give_up_s;
    enum pm_log_level level;
};

static int number(const char *option, const char *text, int low, int high, int *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || *end || end == text || v < low || v > high) {
        fprintf(stderr, "pagemill-worker: --%s wants a number from %d to %d, not \"%s\"\n", option, low, high,
                text);
        return -1;
    }
    *out = (int)v;
    return 0;
}

/* 0 go on, 1 done (help, version), negative wrong usage. */
static int parse(int argc, char **argv, struct settings *s)
{
    enum { ENDPOINT = 256, MODELS, READER, THREADS, CREDIT, NAME, GIVE_UP, LEVEL, HELP, VERSION };
    static const struct option options[] = {{"endpoint", required_argument, NULL, ENDPOINT},
                                            {"models", required_argument, NULL, MODELS},
                                            {"reader", required_argument, NULL, READER},
                                            {"threads", required_argument, NULL, THREADS},
                                            {"credit", required_argument, NULL, CREDIT},
                                            {"name", required_argument, NULL, NAME},
                                            {"give-up", required_argument, NULL, GIVE_UP},
                                            {"log-level", required_argument, NULL, LEVEL},
                                            {"help", no_argument, NULL, HELP},
                                            {"version", no_argument, NULL, VERSION},
                                            {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        int rc = 0;
        switch (c) {
        case ENDPOINT:
            s->endpoint = optarg;
            break;
        case MODELS:
            s->models = optarg;
            break;
        case READER:
            s->reader = optarg;
            break;
        case NAME:
            s->name = optarg;
            break;
        case THREADS:
            rc = number("threads", optarg, 1, 1024, &s->threads);
            break;
        case CREDIT:
            rc = number("credit", optarg, 1, 4096, &s->credit);
            break;
        case GIVE_UP:
            rc = number("give-up", optarg, 1, 1 << 30, &s->give_up_s);
            break;
        case LEVEL: {
            int level = pm_log_level_parse(optarg);
            if (level < 0) {
                fprintf(stderr, "pagemill-worker: --log-level is debug, info, warning or error, not \"%s\"\n",
                        optarg);
                return -1;
            }
            s->level = (enum pm_log_level)level;
            break;
        }
        case HELP:
            fputs(usage, stdout);
            return 1;
        case VERSION:
            puts("pagemill-worker " PM_VERSION);
            return 1;
        default:
            return -1;
        }
        if (rc)
            return rc;
    }
    if (optind < argc) {
        fprintf(stderr, "pagemill-worker: unexpected argument \"%s\"\n", argv[optind]);
        return -1;
    }
    if (!s->endpoint || !s->models) {
        fputs("pagemill-worker: --endpoint and --models are required; see --help\n", stderr);
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct settings s = {
        .reader = "fast", .name = "worker", .threads = 1, .credit = 16, .level = PM_LOG_INFO};
    int rc = parse(argc, argv, &s);
    if (rc)
        return rc < 0 ? EX_USAGE : 0;
    pm_log_setup(s.name, s.level);

    struct pm_error err = {0};
    struct pm_reader *reader = NULL;
    struct pm_peer *peer = NULL;
    struct pm_worker *worker = NULL;
    struct pm_model_manifest model = {0};
    int status = EX_CONFIG;
    if (pm_model_find(s.models, s.reader, &model, &err))
        goto out;
    struct pm_reader_config reader_config = {
        .model_dir = model.dir, .threads = s.threads, .max_running = s.credit};
    if (pm_reader_open(&reader_config, &reader, &err))
        goto out;
    status = 1;
    struct pm_peer_config peer_config = {.endpoint = s.endpoint,
                                         .role = PM_ROLE_WORKER,
                                         .name = s.name,
                                         .readers = &s.reader,
                                         .reader_count = 1,
                                         .credit = (uint32_t)s.credit,
                                         .give_up_us = (int64_t)s.give_up_s * 1000000};
    if (pm_peer_open(&peer_config, &peer, &err))
        goto out;
    worker = pm_worker_new(peer, reader);
    if (pm_worker_run(worker, &err))
        goto out;
    status = 0;
out:
    if (status)
        pm_log(PM_LOG_ERROR, "%s", err.text);
    pm_worker_free(&worker);
    pm_peer_free(&peer);
    pm_reader_free(&reader);
    pm_model_manifest_free(&model);
    return status;
}
