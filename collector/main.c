/* pagemill-collector: puts pages and documents together. Started by the supervisor; see
 * pagemill-collector(8). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/log.h"
#include "collector/collector.h"

static const char usage[] =
    "Usage: pagemill-collector --endpoint URL [options]\n"
    "\n"
    "Turns what was read into documents: lines into paragraphs, lists, headings, code\n"
    "and tables, page by page; pages into Markdown, JSON and plain text files. Usually\n"
    "started by `pagemill up` or `pagemill parse`.\n"
    "\n"
    "  --endpoint URL     the broker's socket for services, ipc:///RUN/work.sock\n"
    "  --credit N         tasks held at once (default 4)\n"
    "  --name NAME        name in lists and logs (default collector)\n"
    "  --give-up SECONDS  leave when no broker answers for this long (default: never)\n"
    "  --log-level LEVEL  debug, info, warning or error (default info)\n"
    "  --help, --version\n"
    "\n"
    "SIGTERM ends it after the page in hand; a second one ends it at once. Nothing is\n"
    "lost: the broker gives the work to the next collector.\n"
    "Exit status: 0 stopped as asked; 64 wrong usage; anything else: start it again.\n";

struct settings {
    const char *endpoint, *name;
    int credit, give_up_s;
    enum pm_log_level level;
};

static int number(const char *option, const char *text, int low, int high, int *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || *end || end == text || v < low || v > high) {
        fprintf(stderr, "pagemill-collector: --%s wants a number from %d to %d, not \"%s\"\n", option, low,
                high, text);
        return -1;
    }
    *out = (int)v;
    return 0;
}

static int level(const char *text, enum pm_log_level *out)
{
    int l = pm_log_level_parse(text);
    if (l < 0) {
        fprintf(stderr, "pagemill-collector: --log-level is debug, info, warning or error, not \"%s\"\n",
                text);
        return -1;
    }
    *out = (enum pm_log_level)l;
    return 0;
}

/* 0 go on, 1 done (help, version), negative wrong usage. */
static int parse(int argc, char **argv, struct settings *s)
{
    enum { ENDPOINT = 256, CREDIT, NAME, GIVE_UP, LEVEL, HELP, VERSION };
    static const struct option options[] = {
        {"endpoint", required_argument, NULL, ENDPOINT}, {"credit", required_argument, NULL, CREDIT},
        {"name", required_argument, NULL, NAME},         {"give-up", required_argument, NULL, GIVE_UP},
        {"log-level", required_argument, NULL, LEVEL},   {"help", no_argument, NULL, HELP},
        {"version", no_argument, NULL, VERSION},         {NULL, 0, NULL, 0}};
    int c, rc = 0;
    while (!rc && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case ENDPOINT:
            s->endpoint = optarg;
            break;
        case NAME:
            s->name = optarg;
            break;
        case CREDIT:
            rc = number("credit", optarg, 1, 64, &s->credit);
            break;
        case GIVE_UP:
            rc = number("give-up", optarg, 1, 1 << 30, &s->give_up_s);
            break;
        case LEVEL:
            rc = level(optarg, &s->level);
            break;
        case HELP:
            fputs(usage, stdout);
            return 1;
        case VERSION:
            puts("pagemill-collector " PM_VERSION);
            return 1;
        default:
            rc = -1;
        }
    }
    if (!rc && optind < argc) {
        fprintf(stderr, "pagemill-collector: unexpected argument \"%s\"\n", argv[optind]);
        rc = -1;
    }
    if (!rc && !s->endpoint) {
        fputs("pagemill-collector: --endpoint is required; see --help\n", stderr);
        rc = -1;
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct settings s = {.name = "collector", .credit = 4, .level = PM_LOG_INFO};
    int rc = parse(argc, argv, &s);
    if (rc)
        return rc < 0 ? EX_USAGE : 0;
    pm_log_setup(s.name, s.level);

    struct pm_error err = {0};
    struct pm_peer *peer = NULL;
    struct pm_collector *collector = NULL;
    struct pm_peer_config config = {.endpoint = s.endpoint,
                                    .role = PM_ROLE_COLLECTOR,
                                    .name = s.name,
                                    .credit = (uint32_t)s.credit,
                                    .give_up_us = (int64_t)s.give_up_s * 1000000};
    rc = pm_peer_open(&config, &peer, &err);
    if (!rc) {
        collector = pm_collector_new(peer);
        rc = pm_collector_run(collector, &err);
    }
    if (rc)
        pm_log(PM_LOG_ERROR, "%s", err.text);
    pm_collector_free(&collector);
    pm_peer_free(&peer);
    return rc ? 1 : 0;
}
