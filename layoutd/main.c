/* pagemill-layoutd: opens documents and finds what is on their pages. Started by the supervisor; see
 * pagemill-layoutd(8). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/fs.h"
#include "base/log.h"
#include "layoutd/daemon.h"
#include "layoutd/decode/client.h"

static const char usage[] =
    "Usage: pagemill-layoutd --endpoint URL --model DIR [options]\n"
    "\n"
    "Opens documents, renders their pages, turns them upright, finds the lines of text\n"
    "and their order, and cuts them out for the workers. Usually started by\n"
    "`pagemill up` or `pagemill parse`.\n"
    "\n"
    "  --endpoint URL     the broker's socket for services, ipc:///RUN/work.sock\n"
    "  --model DIR        folder of the text detector and line classifier (models/ppocr);\n"
    "                     manifests of other readers are looked for beside it\n"
    "  --threads N        compute threads of the detector (default 1)\n"
    "  --decode PATH      the decoder program (default: pagemill-decode beside this one)\n"
    "  --credit N         tasks held at once; one is worked on at a time (default 2)\n"
    "  --name NAME        name in lists and logs (default layoutd)\n"
    "  --give-up SECONDS  leave when no broker answers for this long (default: never)\n"
    "  --log-level LEVEL  debug, info, warning or error (default info)\n"
    "  --help, --version\n"
    "\n"
    "SIGTERM ends it; what it held is given to the next one. Exit status: 0 stopped as\n"
    "asked; 64 wrong usage; 78 the model cannot be loaded (do not restart); anything\n"
    "else: start it again.\n";

struct settings {
    const char *endpoint, *model, *decode, *name;
    int threads, credit, give_up_s;
    enum pm_log_level level;
};

static int number(const char *option, const char *text, int low, int high, int *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || *end || end == text || v < low || v > high) {
        fprintf(stderr, "pagemill-layoutd: --%s wants a number from %d to %d, not \"%s\"\n", option, low,
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
        fprintf(stderr, "pagemill-layoutd: --log-level is debug, info, warning or error, not \"%s\"\n", text);
        return -1;
    }
    *out = (enum pm_log_level)l;
    return 0;
}

/* 0 go on, 1 done (help, version), negative wrong usage. */
static int parse(int argc, char **argv, struct settings *s)
{
    enum { ENDPOINT = 256, MODEL, THREADS, DECODE, CREDIT, NAME, GIVE_UP, LEVEL, HELP, VERSION };
    static const struct option options[] = {{"endpoint", required_argument, NULL, ENDPOINT},
                                            {"model", required_argument, NULL, MODEL},
                                            {"threads", required_argument, NULL, THREADS},
                                            {"decode", required_argument, NULL, DECODE},
                                            {"credit", required_argument, NULL, CREDIT},
                                            {"name", required_argument, NULL, NAME},
                                            {"give-up", required_argument, NULL, GIVE_UP},
                                            {"log-level", required_argument, NULL, LEVEL},
                                            {"help", no_argument, NULL, HELP},
                                            {"version", no_argument, NULL, VERSION},
                                            {NULL, 0, NULL, 0}};
    int c, rc = 0;
    while (!rc && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case ENDPOINT:
            s->endpoint = optarg;
            break;
        case MODEL:
            s->model = optarg;
            break;
        case DECODE:
            s->decode = optarg;
            break;
        case NAME:
            s->name = optarg;
            break;
        case THREADS:
            rc = number("threads", optarg, 1, 1024, &s->threads);
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
            puts("pagemill-layoutd " PM_VERSION);
            return 1;
        default:
            return -1;
        }
    }
    if (rc)
        return rc;
    if (optind < argc) {
        fprintf(stderr, "pagemill-layoutd: unexpected argument \"%s\"\n", argv[optind]);
        return -1;
    }
    if (!s->endpoint || !s->model) {
        fputs("pagemill-layoutd: --endpoint and --model are required; see --help\n", stderr);
        return -1;
    }
    return 0;
}

struct networks {
    struct pm_det *det;
    struct pm_cls *cls;
};

static int detect(void *context, const struct pm_image *image, int limit_px, struct pm_det_box **boxes_out,
                  size_t *count_out, struct pm_error *err)
{
    struct networks *n = context;
    struct pm_det_params params = pm_det_params_default();
    params.max_candidates = PM_SHEET_MAX_CROPS / 2; /* the reference's 1000 lose the top of dense pages */
    return pm_det_run(n->det, image, limit_px, &params, boxes_out, count_out, err);
}

static int is_turned(void *context, const struct pm_image *line, float *turned_out, struct pm_error *err)
{
    struct networks *n = context;
    return pm_cls_run(n->cls, line, turned_out, err);
}

static char *parent_of(const char *dir)
{
    char *copy = pm_xstrdup(dir);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = 0;
    char *slash = strrchr(copy, '/');
    char *parent = !slash          ? pm_xstrdup(".")
                   : slash == copy ? pm_xstrdup("/")
                                   : pm_xstrndup(copy, (size_t)(slash - copy));
    free(copy);
    return parent;
}

int main(int argc, char **argv)
{
    struct settings s = {.name = "layoutd", .threads = 1, .credit = 2, .level = PM_LOG_INFO};
    int rc = parse(argc, argv, &s);
    if (rc)
        return rc < 0 ? EX_USAGE : 0;
    pm_log_setup(s.name, s.level);

    struct pm_error err = {0};
    struct networks networks = {0};
    struct pm_peer *peer = NULL;
    char *decode = s.decode ? pm_xstrdup(s.decode) : pm_decode_default_program(),
         *models = parent_of(s.model);
    int status = EX_CONFIG;
    if (pm_det_open(s.model, s.threads, &networks.det, &err) ||
        pm_cls_open(s.model, s.threads, &networks.cls, &err))
        goto out;
    status = 1;
    struct pm_peer_config peer_config = {.endpoint = s.endpoint,
                                         .role = PM_ROLE_LAYOUTD,
                                         .name = s.name,
                                         .credit = (uint32_t)s.credit,
                                         .give_up_us = (int64_t)s.give_up_s * 1000000};
    if (pm_peer_open(&peer_config, &peer, &err))
        goto out;
    struct pm_layoutd_config config = {
        .decode_program = decode, .models_dir = models, .tools = {detect, is_turned, &networks, NULL, NULL}};
    if (pm_layoutd_run(peer, &config, &err))
        goto out;
    status = 0;
out:
    if (status)
        pm_log(PM_LOG_ERROR, "%s", err.text);
    pm_peer_free(&peer);
    pm_cls_free(&networks.cls);
    pm_det_free(&networks.det);
    free(decode);
    free(models);
    return status;
}
