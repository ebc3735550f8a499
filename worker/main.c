/* pagemill-worker: reads regions. Started by the supervisor; see pagemill-worker(8). */
#include <malloc.h>
#include <string.h>
#include <sysexits.h>

#include "base/domains.h"
#include "base/log.h"
#include "engine/identity.h"
#include "engine/kernels/kernels.h"
#include "engine/manifest.h"
#include "proto/peer_options.h"
#include "worker/worker.h"

#define NOT_GIVEN UINT32_MAX /* where 0 means something */

struct settings {
    struct pm_peer_settings peer;
    const char *models, *reader, *kv, *cpus;
    uint32_t threads, cache_mb, memory_mb, vision_cache_mb, drafts;
};
static const struct pm_option options[] = {
    {"models", 0, PM_OPTION_NEED_TEXT, "DIR[:DIR...]",
     "The folders of model folders; the reader is the first whose pagemill.json has its name.",
     offsetof(struct settings, models), 0, 0},
    {"reader", 0, PM_OPTION_TEXT, "NAME", "The reader to serve. Default: fast.",
     offsetof(struct settings, reader), 0, 0},
    {"threads", 0, PM_OPTION_UINT, "N",
     "Compute threads. Default: 1; one single-threaded worker a core is the usual setting.",
     offsetof(struct settings, threads), 1, 1024},
    {"cpus", 0, PM_OPTION_TEXT, "LIST",
     "The cores to run on, as 0-7,64-71: those of one memory domain. Default: all that it may use.",
     offsetof(struct settings, cpus), 0, 0},
    {"credit", 0, PM_OPTION_UINT, "N", "Regions held at once. Default: 16.",
     offsetof(struct settings, peer.credit), 1, 4096},
    {"kv-memory", 0, PM_OPTION_UINT, "MB",
     "Readers that write token by token: most memory for the texts being written; when it is full, regions "
     "wait for each other. Default: 2048.",
     offsetof(struct settings, cache_mb), 1, 1u << 24},
    {"kv", 0, PM_OPTION_TEXT, "bf16|int8",
     "How these texts are kept: int8 takes half the room and moves results a little. Default: bf16.",
     offsetof(struct settings, kv), 0, 0},
    {"memory", 0, PM_OPTION_UINT, "MB",
     "Readers that write token by token: most memory of this process beyond the mapped weights, all of it "
     "together. Regions wait until what they need is free; one that needs more than there is is refused, "
     "with "
     "the numbers. Default: no limit but --kv-memory.",
     offsetof(struct settings, memory_mb), 1, 1u << 24},
    {"vision-cache", 0, PM_OPTION_UINT, "MB",
     "Readers that look at pictures with a vision tower: most memory for what it made of the last ones, so "
     "that an "
     "identical crop is not computed again; 0: none is kept. Under --memory at most a sixteenth of it. "
     "Default: 64.",
     offsetof(struct settings, vision_cache_mb), 0, 1u << 20},
    {"drafts", 0, PM_OPTION_UINT, "N",
     "Readers that write token by token: always so many tokens guessed ahead, when the model can; the text "
     "is "
     "the same. Default: as many as pay, by what they cost and bring while the worker runs.",
     offsetof(struct settings, drafts), 0, 4},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {pm_peer_options, options, pm_daemon_options, NULL};

static int serve(const struct settings *s, struct pm_reader *reader, const char *model, struct pm_error *err)
{
    struct pm_peer_config config = pm_peer_config_of(&s->peer, PM_ROLE_WORKER);
    struct pm_peer *peer = NULL;
    config.readers = &s->reader;
    config.models = &model;
    config.reader_count = 1;
    int rc = pm_peer_open(&config, &peer, err);
    bool is_wrong = rc == PM_EINVAL; /* endpoint or key file */
    if (!rc) {
        struct pm_worker *worker = pm_worker_new(peer, reader);
        rc = pm_worker_run(worker, err);
        pm_worker_free(&worker);
    }
    pm_peer_free(&peer);
    /* A key that is not allowed is not allowed next time either. */
    return !rc ? EX_OK : is_wrong || rc == PM_EDENIED ? EX_CONFIG : 1;
}

/* As a reader is told. */
static int64_t picture_cache(uint32_t mb)
{
    return mb == NOT_GIVEN ? 0 : mb ? (int64_t)mb << 20 : -1;
}

static int run(void *settings, struct pm_error *err)
{
    const struct settings *s = settings;
    struct pm_model_manifest model = {0};
    struct pm_reader *reader = NULL;
    char identity[PM_HASH_HEX + 1];
    const char *missing = pm_kernels_missing();
    if (missing)
        pm_log(PM_LOG_WARNING,
               "PAGEMILL_ISA asks for \"%s\", which this processor or program does not have: using \"%s\"",
               missing, pm_kernels_get(NULL)->name);
    if (s->kv && strcmp(s->kv, "int8") != 0 && strcmp(s->kv, "bf16") != 0) {
        pm_fail(err, PM_EINVAL, "--kv %.40s: must be bf16 or int8", s->kv);
        return EX_USAGE;
    }
    /* Freed arrays go back to the system at once: what is given back must not count against --memory. */
    if (s->memory_mb)
        mallopt(M_MMAP_THRESHOLD, 1 << 20);
    int rc = s->cpus ? pm_domain_pin(s->cpus, err) : 0;
    if (rc == PM_EINVAL)
        return EX_USAGE;
    if (!rc)
        rc = pm_model_find(s->models, s->reader, &model, err);
    if (!rc) {
        struct pm_reader_config config = {.model_dir = model.dir,
                                          .threads = (int)s->threads,
                                          .max_running = (int)s->peer.credit,
                                          .cache_bytes = (size_t)s->cache_mb << 20,
                                          .memory_bytes = (size_t)s->memory_mb << 20,
                                          .kv_int8 = s->kv && !strcmp(s->kv, "int8"),
                                          .picture_cache_bytes = picture_cache(s->vision_cache_mb),
                                          .drafts = s->drafts == NOT_GIVEN ? 0
                                                    : s->drafts            ? (int)s->drafts
                                                                           : -1};
        rc = pm_reader_open(&config, &reader, err);
    }
    if (!rc)
        rc = pm_model_identity(&model, identity, err);
    int status = rc ? EX_CONFIG : serve(s, reader, identity, err);
    pm_reader_free(&reader);
    pm_model_manifest_free(&model);
    return status;
}

static const struct pm_daemon worker = {
    .usage =
        {.name = "pagemill-worker",
         .summary = "read page regions with one model",
         .about = "Takes region tasks from the broker, runs one reader over their crops and returns text, "
                  "confidence and the places of words. Started by `pagemill up` and `pagemill parse`; "
                  "start it by hand to add a reader to a running fleet, and stop it again at any time: "
                  "what it had in hand is given to another worker.\n"
                  "\n"
                  "All workers of a machine map the same weight files, so that each further one costs "
                  "only its working memory.\n",
         .more =
             "SIGNALS\nSIGTERM and SIGINT finish the regions in hand and leave; a second one leaves "
             "at once.\n"
             "\fENVIRONMENT\nPAGEMILL_ISA chooses the instructions to compute with: avx512bf16, avx512vnni, "
             "avx512, avx2 or plain. Default: the best that the processor has.\n"
             "\fEXIT STATUS\n 0      stopped as asked\n 64     wrong usage\n"
             " 78     the model cannot be loaded, or the broker does not let this key in; starting\n"
             "        again cannot help\n"
             " other  start it again\n",
         .tables = tables},
    .see_also = "pagemill(1), pagemill-up(1), pagemill-broker(8), pagemill-layoutd(8)",
    .run = run};

int main(int argc, char **argv)
{
    struct settings s = {.peer = {.daemon = {.name = "worker", .log_level = PM_LOG_INFO}, .credit = 16},
                         .reader = "fast",
                         .threads = 1,
                         .vision_cache_mb = NOT_GIVEN,
                         .drafts = NOT_GIVEN};
    return pm_daemon_main(&worker, argc, argv, &s);
}
