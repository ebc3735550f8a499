/* pagemill-broker: accepts jobs, schedules their tasks, keeps the journal. See pagemill-broker(8). */
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/daemon.h"
#include "base/fs.h"
#include "broker/broker.h"

#define US_A_SECOND 1000000

struct settings {
    struct pm_daemon_settings daemon;
    const char *state, *run, *pixels, *listen;
    uint32_t pixel_budget_mb, min_free_mb, max_jobs, max_store_mb;
    uint32_t result_ttl_s, stall_s, drain_s, known_ttl_s, known_mb;
    const char *metrics;
    uint32_t parent_pid;          /* 0: none */
    uint32_t ready_fd, deaths_fd; /* UINT32_MAX: none */
    uint32_t work_fd, client_fd;  /* the same */
};
#define AT(member) offsetof(struct settings, member)
static const struct pm_option options[] = {
    {"state", 0, PM_OPTION_NEED_TEXT, "DIR",
     "Journal and disk blobs, kept between runs. Must belong to the user and be closed to others (mode "
     "0700).",
     AT(state), 0, 0},
    {"run", 0, PM_OPTION_NEED_TEXT, "DIR",
     "The sockets work.sock and client.sock. The same rules; one broker at a time.", AT(run), 0, 0},
    {"pixels", 0, PM_OPTION_TEXT, "DIR",
     "Pixel blobs (crops of pages in work), best on tmpfs. Default: RUN/pixels.", AT(pixels), 0, 0},
    {"listen", 0, PM_OPTION_TEXT, "URL,...",
     "Also serve services and clients of other hosts at tcp://HOST:PORT (* for every address), encrypted, "
     "and only "
     "for keys that `pagemill keys allow` has let in.",
     AT(listen), 0, 0},
    {"pixel-budget", 0, PM_OPTION_UINT, "MB",
     "Pixel blobs in flight at most; pages wait when it is used up. Default: 512.", AT(pixel_budget_mb), 1,
     1 << 24},
    {"result-ttl", 0, PM_OPTION_UINT, "SEC",
     "Results of finished jobs are kept this long. Default: 604800 (a week); 0 for ever.", AT(result_ttl_s),
     0, UINT32_MAX},
    {"remember", 0, PM_OPTION_UINT, "SEC",
     "A page that was read is remembered this long after its last use: an equal page of another document is "
     "taken "
     "from there and not read again. Default: 604800 (a week); 0 for ever.",
     AT(known_ttl_s), 0, UINT32_MAX},
    {"remember-mb", 0, PM_OPTION_UINT, "MB",
     "What the remembered pages may take on disk; the ones not used for longest go first. Default: 1024; 0: "
     "none "
     "is remembered.",
     AT(known_mb), 0, 1 << 24},
    {"max-jobs", 0, PM_OPTION_UINT, "N",
     "Unfinished jobs at most; beyond that submits are answered with busy. Default: 2000000.", AT(max_jobs),
     1, 10000000},
    {"min-free", 0, PM_OPTION_UINT, "MB", "Free disk space below which no jobs are accepted. Default: 64.",
     AT(min_free_mb), 0, 1 << 24},
    {"max-store", 0, PM_OPTION_UINT, "MB",
     "Stored sources and results at most; beyond that submits are answered with no-space. Default: 0, no "
     "limit but "
     "--min-free.",
     AT(max_store_mb), 0, UINT32_MAX},
    {"stall", 0, PM_OPTION_UINT, "SEC",
     "A lease without a sign of progress for this long (or four times its predicted time, if that is longer) "
     "is taken back. Default: 5.",
     AT(stall_s), 1, 86400},
    {"drain", 0, PM_OPTION_UINT, "SEC", "How long a stop waits for the leases in hand. Default: 10.",
     AT(drain_s), 0, 86400},
    {"metrics", 0, PM_OPTION_TEXT, "ADDRESS",
     "Serve /metrics (Prometheus text) and /healthz over HTTP: PORT (of 127.0.0.1), HOST:PORT, or the path "
     "of a "
     "socket. Anybody who reaches the address may read them. Default: nowhere.",
     AT(metrics), 0, 0},
    {"parent-pid", 0, PM_OPTION_UINT, "PID", "Stop when this process ends.", AT(parent_pid), 1, INT32_MAX},
    {"ready-fd", 0, PM_OPTION_UINT, "N", "Write one byte to descriptor N once serving.", AT(ready_fd), 0,
     1 << 20},
    {"deaths-fd", 0, PM_OPTION_UINT, "N",
     "Read from descriptor N how services ended: lines of process number and wait status.", AT(deaths_fd), 0,
     1 << 20},
    {"work-fd", 0, PM_OPTION_UINT, "N",
     "Serve RUN/work.sock on descriptor N, which is bound to it and listens. It stays when the broker ends, "
     "and connections wait there for the next one.",
     AT(work_fd), 0, 1 << 20},
    {"client-fd", 0, PM_OPTION_UINT, "N", "The same for RUN/client.sock.", AT(client_fd), 0, 1 << 20},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, pm_daemon_options, NULL};

static int exit_status(int rc, bool was_open)
{
    if (!rc)
        return EX_OK;
    if (was_open)
        return EX_IOERR; /* start it again: the journal knows everything */
    if (rc == PM_EBUSY)
        return EX_TEMPFAIL;
    return rc == PM_EIO || rc == PM_ENOSPC || rc == PM_ENOMEM ? EX_IOERR : EX_CONFIG;
}

static int run(void *settings, struct pm_error *err)
{
    const struct settings *s = settings;
    char *pixels = s->pixels ? pm_xstrdup(s->pixels) : pm_fs_join(s->run, "pixels");
    struct pm_broker_config config = {.state_dir = s->state,
                                      .run_dir = s->run,
                                      .listen = s->listen,
                                      .pixel_dir = pixels,
                                      .pixel_budget_bytes = (uint64_t)s->pixel_budget_mb << 20,
                                      .result_ttl_us = (int64_t)s->result_ttl_s * US_A_SECOND,
                                      .known_ttl_us = (int64_t)s->known_ttl_s * US_A_SECOND,
                                      .known_bytes = (uint64_t)s->known_mb << 20,
                                      .stall_us = (int64_t)s->stall_s * US_A_SECOND,
                                      .drain_us = (int64_t)s->drain_s * US_A_SECOND,
                                      .adopt_us = US_A_SECOND,
                                      .min_free_bytes = (uint64_t)s->min_free_mb << 20,
                                      .max_store_bytes = (uint64_t)s->max_store_mb << 20,
                                      .max_jobs = s->max_jobs,
                                      .metrics = s->metrics,
                                      .ready_fd = s->ready_fd == UINT32_MAX ? -1 : (int)s->ready_fd,
                                      .deaths_fd = s->deaths_fd == UINT32_MAX ? -1 : (int)s->deaths_fd,
                                      .parent_pid = (int)s->parent_pid,
                                      .listen_fds = {s->work_fd == UINT32_MAX ? -1 : (int)s->work_fd,
                                                     s->client_fd == UINT32_MAX ? -1 : (int)s->client_fd}};
    struct pm_broker *b = NULL;
    umask(077); /* whatever is made here is nobody else's business */
    int rc = pm_broker_open(&config, &b, err);
    bool was_open = !rc;
    if (!rc) {
        pm_log(PM_LOG_INFO, "serving run=%s state=%s epoch=%llu", config.run_dir, config.state_dir,
               (unsigned long long)b->epoch);
        rc = pm_broker_run(b, err);
    }
    if (!rc)
        pm_log(PM_LOG_INFO, "stopped");
    pm_broker_free(&b);
    free(pixels);
    return exit_status(rc, was_open);
}

static const struct pm_daemon broker = {
    .usage =
        {.name = "pagemill-broker",
         .summary = "accept documents, schedule their tasks, keep the journal",
         .about =
             "The one process of a fleet that remembers: it accepts documents from clients, hands their "
             "pages and regions to pagemill-layoutd(8), pagemill-worker(8) and pagemill-collector(8), and "
             "keeps every accepted job in a journal that survives kill -9 and power cuts. It never "
             "touches a pixel. It is usually started by `pagemill up` or `pagemill parse`.\n"
             "\n"
             "A task whose process ends is leased again at once; one whose process makes no progress is "
             "taken back after --stall seconds, and the process is ended when it stays silent. A region "
             "or page that ends its process twice is set aside; the rest of the document is delivered. "
             "Late answers are refused: every page and region has one committed result.\n",
         .more = "SIGNALS\nSIGTERM and SIGINT: take no new jobs and begin no new pages, finish the leases in "
                 "hand, stop. A second one stops at once. Nothing is lost either way. SIGHUP: write what is "
                 "decided and make room for another broker, which is given what is in hand.\n"
                 "\fFILES\n"
                 " STATE/journal.db  every job; docs/journal.md describes it\n"
                 " STATE/blobs       sources and results, named by their content\n"
                 " STATE/keys        the key for tcp and the list of keys that are let in\n"
                 " STATE/reserve     given up when the disk is full, so that the ends of\n"
                 "                   jobs can still be written\n"
                 " STATE/state.lock, RUN/run.lock\n"
                 "                   keep a second broker away\n"
                 " RUN/services      which services are connected: a restarted broker\n"
                 "                   waits for them before it gives work out\n"
                 "\fEXIT STATUS\n 0   stopped as asked\n 64  wrong usage\n"
                 " 74  the disk or the journal failed: start it again\n"
                 " 75  another broker uses the directories\n"
                 " 78  the directories or the journal cannot be used; the message says what\n"
                 "     to do\n",
         .tables = tables},
    .see_also = "pagemill(1), pagemill-layoutd(8), pagemill-worker(8), pagemill-collector(8)",
    .run = run};

int main(int argc, char **argv)
{
    struct settings s = {.daemon = {.name = "broker", .log_level = PM_LOG_INFO},
                         .pixel_budget_mb = 512,
                         .min_free_mb = 64,
                         .max_jobs = 2000000,
                         .result_ttl_s = 604800,
                         .known_ttl_s = 604800,
                         .known_mb = 1024,
                         .stall_s = 5,
                         .drain_s = 10,
                         .ready_fd = UINT32_MAX,
                         .deaths_fd = UINT32_MAX,
                         .work_fd = UINT32_MAX,
                         .client_fd = UINT32_MAX};
    return pm_daemon_main(&broker, argc, argv, &s);
}
