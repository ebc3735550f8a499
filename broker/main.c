/* pagemill-broker: accepts jobs, schedules their tasks, keeps the journal. See pagemill-broker(8). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/fs.h"
#include "broker/broker.h"

static const char usage[] =
    "Usage: pagemill-broker --state DIR --run DIR [options]\n"
    "\n"
    "Accepts documents, schedules their pages and regions on the fleet's processes, and keeps\n"
    "every accepted job in a journal that survives kill -9 and power cuts. Usually started by\n"
    "`pagemill up` or `pagemill parse`.\n"
    "\n"
    "  --state DIR          journal and disk blobs; kept between runs (mode 0700)\n"
    "  --run DIR            sockets work.sock and client.sock; one broker at a time (mode 0700)\n"
    "  --pixels DIR         pixel blobs, best on tmpfs (default RUN/pixels)\n"
    "  --pixel-budget MB    pixel blobs in flight at most (default 512)\n"
    "  --result-ttl SEC     results of finished jobs are kept this long (default 604800, 0: for ever)\n"
    "  --max-jobs N         unfinished jobs at most (default 100000)\n"
    "  --min-free MB        free disk space below which no jobs are accepted (default 64)\n"
    "  --stall SEC          a lease without progress for this long is taken back (default 5)\n"
    "  --drain SEC          how long a stop waits for work in hand (default 10)\n"
    "  --parent-pid PID     stop when this process ends\n"
    "  --ready-fd N         write one byte to descriptor N once serving\n"
    "  --log-level LEVEL    debug, info, warning or error (default info)\n"
    "  --help, --version\n"
    "\n"
    "SIGTERM finishes the leases in hand and stops; a second one stops at once. Nothing is lost\n"
    "either way.\n"
    "Exit status: 0 stopped as asked; 64 wrong usage; 75 another broker uses the directories;\n"
    "78 the directories or the journal cannot be used; anything else: start it again.\n";

static int number(const char *option, const char *text, long low, long high, long *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || *end || end == text || v < low || v > high) {
        fprintf(stderr, "pagemill-broker: --%s wants a number from %ld to %ld, not \"%s\"\n", option, low,
                high, text);
        return -1;
    }
    *out = v;
    return 0;
}

enum {
    STATE = 256,
    RUN,
    PIXELS,
    BUDGET,
    TTL,
    MAX_JOBS,
    MIN_FREE,
    STALL,
    DRAIN,
    PARENT,
    READY,
    LEVEL,
    HELP,
    VERSION
};
static const struct option options[] = {{"state", required_argument, NULL, STATE},
                                        {"run", required_argument, NULL, RUN},
                                        {"pixels", required_argument, NULL, PIXELS},
                                        {"pixel-budget", required_argument, NULL, BUDGET},
                                        {"result-ttl", required_argument, NULL, TTL},
                                        {"max-jobs", required_argument, NULL, MAX_JOBS},
                                        {"min-free", required_argument, NULL, MIN_FREE},
                                        {"stall", required_argument, NULL, STALL},
                                        {"drain", required_argument, NULL, DRAIN},
                                        {"parent-pid", required_argument, NULL, PARENT},
                                        {"ready-fd", required_argument, NULL, READY},
                                        {"log-level", required_argument, NULL, LEVEL},
                                        {"help", no_argument, NULL, HELP},
                                        {"version", no_argument, NULL, VERSION},
                                        {NULL, 0, NULL, 0}};

/* One option. 0 go on, 1 done (help, version), negative wrong usage. */
static int take(int c, struct pm_broker_config *s, enum pm_log_level *level)
{
    long v = 0;
    int rc = 0;
    switch (c) {
    case STATE:
        s->state_dir = optarg;
        break;
    case RUN:
        s->run_dir = optarg;
        break;
    case PIXELS:
        s->pixel_dir = optarg;
        break;
    case BUDGET:
        rc = number("pixel-budget", optarg, 1, 1 << 24, &v);
        s->pixel_budget_bytes = (uint64_t)v << 20;
        break;
    case TTL:
        rc = number("result-ttl", optarg, 0, 1L << 32, &v);
        s->result_ttl_us = (int64_t)v * 1000000;
        break;
    case MAX_JOBS:
        rc = number("max-jobs", optarg, 1, 10000000, &v);
        s->max_jobs = (uint32_t)v;
        break;
    case MIN_FREE:
        rc = number("min-free", optarg, 0, 1 << 24, &v);
        s->min_free_bytes = (uint64_t)v << 20;
        break;
    case STALL:
        rc = number("stall", optarg, 1, 86400, &v);
        s->stall_us = (int64_t)v * 1000000;
        break;
    case DRAIN:
        rc = number("drain", optarg, 0, 86400, &v);
        s->drain_us = (int64_t)v * 1000000;
        break;
    case PARENT:
        rc = number("parent-pid", optarg, 1, INT32_MAX, &v);
        s->parent_pid = (int)v;
        break;
    case READY:
        rc = number("ready-fd", optarg, 0, 1 << 20, &v);
        s->ready_fd = (int)v;
        break;
    case LEVEL:
        rc = pm_log_level_parse(optarg);
        if (rc < 0)
            fprintf(stderr, "pagemill-broker: --log-level wants debug, info, warning or error, not \"%s\"\n",
                    optarg);
        else
            *level = (enum pm_log_level)rc;
        return rc < 0 ? -1 : 0;
    case HELP:
        fputs(usage, stdout);
        return 1;
    case VERSION:
        puts("pagemill-broker " PM_VERSION);
        return 1;
    default: /* getopt has said what is wrong */
        return -1;
    }
    return rc;
}

static int parse(int argc, char **argv, struct pm_broker_config *s, enum pm_log_level *level)
{
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        int rc = take(c, s, level);
        if (rc)
            return rc;
    }
    if (optind < argc) {
        fprintf(stderr, "pagemill-broker: what is \"%s\"? See --help\n", argv[optind]);
        return -1;
    }
    if (!s->state_dir || !s->run_dir) {
        fprintf(stderr, "pagemill-broker: --state DIR and --run DIR are needed; see --help\n");
        return -1;
    }
    return 0;
}

static int exit_code(int rc, bool was_open)
{
    if (!rc)
        return 0;
    if (was_open)
        return EX_IOERR; /* start it again: the journal knows everything */
    if (rc == PM_EBUSY)
        return EX_TEMPFAIL;
    return rc == PM_EIO || rc == PM_ENOSPC || rc == PM_ENOMEM ? EX_IOERR : EX_CONFIG;
}

int main(int argc, char **argv)
{
    struct pm_broker_config config = {.pixel_budget_bytes = (uint64_t)512 << 20,
                                      .result_ttl_us = (int64_t)604800 * 1000000,
                                      .stall_us = 5000000,
                                      .drain_us = 10000000,
                                      .adopt_us = 1000000,
                                      .min_free_bytes = (uint64_t)64 << 20,
                                      .ready_fd = -1};
    enum pm_log_level level = PM_LOG_INFO;
    int rc = parse(argc, argv, &config, &level);
    if (rc)
        return rc > 0 ? 0 : EX_USAGE;
    umask(077); /* whatever is made here is nobody else's business */
    pm_log_setup("broker", level);
    char *pixels = config.pixel_dir ? NULL : pm_fs_join(config.run_dir, "pixels");
    if (pixels)
        config.pixel_dir = pixels;
    struct pm_broker *b = NULL;
    struct pm_error err;
    rc = pm_broker_open(&config, &b, &err);
    bool was_open = !rc;
    if (!rc) {
        pm_log(PM_LOG_INFO, "serving run=%s state=%s epoch=%llu", config.run_dir, config.state_dir,
               (unsigned long long)b->epoch);
        rc = pm_broker_run(b, &err);
    }
    if (rc)
        pm_log(PM_LOG_ERROR, "%s", err.text);
    else
        pm_log(PM_LOG_INFO, "stopped");
    pm_broker_free(&b);
    free(pixels);
    return exit_code(rc, was_open);
}
