/* pagemill-layoutd: opens documents and finds what is on their pages. Started by the supervisor; see
 * pagemill-layoutd(8). */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/mem.h"
#include "engine/identity.h"
#include "layoutd/daemon.h"
#include "layoutd/decode/client.h"
#include "proto/peer_options.h"

struct settings {
    struct pm_peer_settings peer;
    const char *model, *models, *decode;
    uint32_t threads;
};
static const struct pm_option options[] = {
    {"model", 0, PM_OPTION_NEED_TEXT, "DIR",
     "The folder of the text detector and line classifier (models/ppocr).", offsetof(struct settings, model),
     0, 0},
    {"models", 0, PM_OPTION_TEXT, "DIR[:DIR...]",
     "Where manifests of readers are looked for: a reader whose manifest says \"region\": \"block\" gets one "
     "crop a region instead of one a line. Default: the folder that holds that of --model.",
     offsetof(struct settings, models), 0, 0},
    {"threads", 0, PM_OPTION_UINT, "N",
     "Compute threads of the detector. Default: 1; workers use the other cores.",
     offsetof(struct settings, threads), 1, 1024},
    {"decode", 0, PM_OPTION_TEXT, "PATH", "The decoder program. Default: pagemill-decode beside this one.",
     offsetof(struct settings, decode), 0, 0},
    {"credit", 0, PM_OPTION_UINT, "N",
     "Tasks held at once; one is worked on at a time, the next is at hand when it ends. Default: 2.",
     offsetof(struct settings, peer.credit), 1, 64},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {pm_peer_options, options, pm_daemon_options, NULL};

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

static int identify(const char *dir, char out[PM_HASH_HEX + 1], struct pm_error *err)
{
    struct pm_model_manifest manifest;
    int rc = pm_model_manifest_read(dir, &manifest, err);
    if (rc)
        return rc;
    rc = pm_model_identity(&manifest, out, err);
    pm_model_manifest_free(&manifest);
    return rc;
}

static int serve(const struct settings *s, struct networks *networks, const char *identity,
                 struct pm_error *err)
{
    struct pm_peer_config peer_config = pm_peer_config_of(&s->peer, PM_ROLE_LAYOUTD);
    struct pm_peer *peer = NULL;
    char *decode = s->decode ? pm_xstrdup(s->decode) : pm_decode_default_program(),
         *models = s->models ? pm_xstrdup(s->models) : parent_of(s->model);
    struct pm_layoutd_config config = {.decode_program = decode,
                                       .models_dir = models,
                                       .layout_model = identity,
                                       .tools = {detect, is_turned, networks, NULL, NULL}};
    int rc = pm_peer_open(&peer_config, &peer, err);
    if (!rc)
        rc = pm_layoutd_run(peer, &config, err);
    pm_peer_free(&peer);
    free(decode);
    free(models);
    return rc ? 1 : EX_OK;
}

static int run(void *settings, struct pm_error *err)
{
    const struct settings *s = settings;
    struct networks networks = {0};
    char identity[PM_HASH_HEX + 1];
    int rc = pm_det_open(s->model, (int)s->threads, &networks.det, err);
    if (!rc)
        rc = pm_cls_open(s->model, (int)s->threads, &networks.cls, err);
    if (!rc)
        rc = identify(s->model, identity, err);
    int status = rc ? EX_CONFIG : serve(s, &networks, identity, err);
    pm_cls_free(&networks.cls);
    pm_det_free(&networks.det);
    return status;
}

static const struct pm_daemon layoutd = {
    .usage =
        {.name = "pagemill-layoutd",
         .summary = "open documents and find what is on their pages",
         .about =
             "Takes two kinds of tasks from the broker. Open tells how many pages a document has and how "
             "large they are, or why it cannot be read. Page renders one page, cuts the page out of a "
             "photo, turns it upright, removes its skew, detects the lines of text, puts them into "
             "paragraphs, headings, lists, tables and pictures in reading order, and cuts out what the "
             "workers read. Usually started by `pagemill up` or `pagemill parse`; several may run in one "
             "fleet.\n"
             "\n"
             "Documents are opened by pagemill-decode(8) in a sandbox, one process a document. Up to "
             "four stay open, each for 30 seconds after its last use, so that the pages of one document "
             "are not parsed again and again.\n",
         .more = "SIGNALS\nSIGTERM and SIGINT stop it; what is in hand is given to the next layoutd. A "
                 "second one ends the process at once.\n"
                 "\fEXIT STATUS\n 0      stopped as asked\n 64     wrong usage\n"
                 " 78     the model cannot be loaded; starting again cannot help\n"
                 " other  something failed; start it again\n"
                 "\fERRORS\nA document that is encrypted, damaged or of an unknown kind, and a page that it "
                 "does not have, are final: they are reported with the document and not tried again. A crash "
                 "or a timeout of the decoder is tried again.\n"
                 "\fFILES\ndocs/layout.md tells how regions are found.\n",
         .tables = tables},
    .see_also = "pagemill(1), pagemill-up(1), pagemill-decode(8), pagemill-broker(8), pagemill-worker(8)",
    .run = run};

int main(int argc, char **argv)
{
    struct settings s = {.peer = {.daemon = {.name = "layoutd", .log_level = PM_LOG_INFO}, .credit = 2},
                         .threads = 1};
    return pm_daemon_main(&layoutd, argc, argv, &s);
}
