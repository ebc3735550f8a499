/* libpagemill: submit documents to a Pagemill fleet and get Markdown, JSON and text back.
 *
 *     pagemill *pm = NULL;
 *     uint64_t job;
 *     struct pagemill_error err;
 *     if (pagemill_connect(NULL, NULL, 5000, &pm, &err) ||
 *         pagemill_submit_path(pm, "scan.pdf", NULL, 30000, &job, &err) ||
 *         pagemill_wait(pm, job, -1, NULL, &err) ||
 *         pagemill_fetch(pm, job, "out/scan", 30000, &err))
 *         fprintf(stderr, "%s\n", err.text);
 *     pagemill_close(&pm);
 *
 * Results    Every fallible function returns 0 or a negative PAGEMILL_E..., and fills *err (may be NULL) with
 *            a line that a person can act on. The library never prints, never exits, installs no signal
 *            handler and starts no process. Memory for a document, a result or a list that cannot be had is
 *            PAGEMILL_ENOMEM; where not even a few kilobytes can be had, abort() ends the program.
 * Deadlines  timeout_ms: -1 waits for ever, 0 only tries. PAGEMILL_ETIMEOUT leaves the handle usable; a
 *            request that timed out may still be carried out. Calls made before a lost connection is back
 *            wait for it inside their deadline and are repeated: submit cannot make a second job that way,
 *            because every submit carries a key.
 * Threads    A handle belongs to one thread at a time. Different handles are independent. Do not use a handle
 *            in a forked child; there, only exec or _exit.
 * Event loop Poll pagemill_fd() for reading, then call pagemill_process() and take events with
 *            pagemill_next_event(pm, 0, ...) until PAGEMILL_ETIMEOUT.
 * Growing    Structs that you fill start with struct_size and have an _INIT value: they may be extended at
 *            their end. Structs that the library gives change only together with its soname. Borrowed
 *            pointers say how long they live.
 */
#ifndef PAGEMILL_H
#define PAGEMILL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PAGEMILL_API __attribute__((visibility("default")))
#else
#define PAGEMILL_API
#endif

#define PAGEMILL_API_VERSION 1

/* ---- errors ---- */
enum pagemill_code {
    PAGEMILL_OK = 0,
    PAGEMILL_EINVAL = -1,        /* impossible option, range or name */
    PAGEMILL_ENOMEM = -2,        /* memory for a document, a result or a list could not be had */
    PAGEMILL_EIO = -3,           /* the operating system refused: open, read, write */
    PAGEMILL_ENOTFOUND = -4,     /* file, job or result: not there */
    PAGEMILL_EFORMAT = -5,       /* damaged bytes */
    PAGEMILL_ELIMIT = -6,        /* larger than a documented limit */
    PAGEMILL_EBUSY = -7,         /* the fleet is full: try again later */
    PAGEMILL_ETIMEOUT = -8,      /* the deadline passed */
    PAGEMILL_ECANCELLED = -9,    /* cancel_fd became readable, or the job was cancelled */
    PAGEMILL_EPROTO = -10,       /* the other side does not speak our protocol */
    PAGEMILL_EDENIED = -11,      /* permission refused */
    PAGEMILL_EUNSUPPORTED = -12, /* known and not served */
    PAGEMILL_ENOSPC = -13,       /* the disk is full */
    PAGEMILL_EPASSWORD = -14,    /* the document's password is missing or wrong */
    PAGEMILL_EGONE = -15,        /* the fleet has left */
    PAGEMILL_ECRASH = -16,       /* the process that did the work died of it */
    PAGEMILL_EAGAIN = -17,
    PAGEMILL_EINTERNAL = -18 /* a bug of Pagemill */
};
struct pagemill_error {
    int code; /* enum pagemill_code */
    char text[400];
};
PAGEMILL_API const char *pagemill_error_name(int code); /* "no-space", ... static */
PAGEMILL_API const char *pagemill_version(void);        /* of the library; static */

/* ---- connection ---- */
typedef struct pagemill pagemill;

struct pagemill_connect_options {
    size_t struct_size;
    const char *client; /* name for fair shares and lists; NULL: the user's name */
    int cancel_fd; /* -1 or a descriptor: blocking calls return PAGEMILL_ECANCELLED while it is readable */
    int is_remote; /* 1: send sources and results through the socket even on the same host */
    /* For tcp, which is always encrypted. NULL: $PAGEMILL_SERVER_KEY, $PAGEMILL_KEY. */
    const char
        *server_key;      /* the broker's public key (`pagemill keys server` prints it), or a file with it */
    const char *key_file; /* one's own, made by `pagemill keys new` and allowed there */
};
#define PAGEMILL_CONNECT_OPTIONS_INIT                                                                        \
    {                                                                                                        \
        sizeof(struct pagemill_connect_options), 0, -1, 0, 0, 0                                              \
    }

/* Connects to a fleet and waits for its welcome. endpoint: "ipc:///run/pagemill/client.sock",
 * "tcp://host:port", the path of a socket, or NULL: $PAGEMILL_BROKER, $PAGEMILL_SOCKET, else the first
 * existing one of $XDG_RUNTIME_DIR/pagemill/client.sock, $TMPDIR/pagemill-UID/client.sock and
 * /run/pagemill/client.sock. PAGEMILL_EGONE when no fleet is there, PAGEMILL_EDENIED when it does not allow
 * our key. */
PAGEMILL_API int pagemill_connect(const char *endpoint, const struct pagemill_connect_options *options,
                                  int64_t timeout_ms, pagemill **out, struct pagemill_error *err);
PAGEMILL_API void pagemill_close(pagemill **pm); /* *pm = NULL; jobs go on */
PAGEMILL_API int pagemill_is_connected(const pagemill *pm);

/* For event loops. The descriptor is readable when pagemill_process has something to do or an event waits; it
 * belongs to the handle. */
PAGEMILL_API int pagemill_fd(const pagemill *pm);
PAGEMILL_API int pagemill_process(pagemill *pm, struct pagemill_error *err); /* never blocks */

/* ---- submitting ---- */
struct pagemill_submit_options {
    size_t struct_size;
    const char *name; /* what people see; default: the path */
    /* Idempotency: a second submit with it gives the first job. Default: the same document under the same
     * name with the same options and model is the same job, unless that did not end well. */
    const char *key;
    const char *pages;    /* "1-20,31"; default: all */
    const char *password; /* of encrypted PDFs */
    const char *reader;   /* "fast"; default: the fleet's */
    const char *formats;  /* "md,json,txt"; default "md,json" */
    const char *drop;     /* labels left out of the output: "header,footer,number" */
    const char *stem;     /* output name; default: from name */
    const char *batch;    /* groups jobs */
    unsigned dpi;         /* 0: 200 */
    unsigned priority;    /* 0 (background) .. 4 (interactive); 2 is normal */
    int no_orientation;   /* 1: pages are not turned upright */
    int no_deskew;        /* 1: pages are not straightened */
    int no_images;        /* 1: pictures are not cut out */
    int partial_text;     /* 1: watchers may get text while it is read */
    /* Readers that write token by token; the others ignore them. */
    unsigned max_tokens;       /* of one region's text; 0: the model's limit */
    float temperature;         /* 0: always the likeliest token; at most 10 */
    float repetition_penalty;  /* 0 and 1: none; at most 10 */
    uint64_t seed;             /* of the choices at a temperature */
    const char *whole;         /* "text", "table", "formula": each page is one region; default: laid out */
    unsigned region_timeout_s; /* most seconds for one region; 0: the fleet's limit */
    unsigned deadline_s; /* the job fails when it has not ended so long after it was accepted; 0: never */
    int again;           /* 1: read everything anew; no earlier reading of the same document stands for it */
    int *is_duplicate;   /* if not NULL: set to 1 when the job is an earlier one, else to 0 */
};
#define PAGEMILL_SUBMIT_OPTIONS_INIT                                                                         \
    {                                                                                                        \
        sizeof(struct pagemill_submit_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0,  \
            0, 0, 0, 0                                                                                       \
    }

/* Stores the document with the fleet and submits it. When this returns 0 the job survives a power cut. A
 * busy fleet is asked again inside the deadline. */
PAGEMILL_API int pagemill_submit_path(pagemill *pm, const char *path,
                                      const struct pagemill_submit_options *options, int64_t timeout_ms,
                                      uint64_t *job_out, struct pagemill_error *err);
PAGEMILL_API int pagemill_submit_memory(pagemill *pm, const void *data, size_t bytes,
                                        const struct pagemill_submit_options *options, int64_t timeout_ms,
                                        uint64_t *job_out, struct pagemill_error *err);
/* From fd's current offset to its end; a pipe is fine. fd stays the caller's. */
PAGEMILL_API int pagemill_submit_fd(pagemill *pm, int fd, const struct pagemill_submit_options *options,
                                    int64_t timeout_ms, uint64_t *job_out, struct pagemill_error *err);

/* ---- jobs ---- */
enum pagemill_job_state {
    PAGEMILL_JOB_QUEUED = 1,
    PAGEMILL_JOB_RUNNING,
    PAGEMILL_JOB_DONE, /* results are there; pages_failed and regions_failed say whether all of them */
    PAGEMILL_JOB_FAILED,
    PAGEMILL_JOB_CANCELLED
};
PAGEMILL_API const char *pagemill_job_state_name(int state); /* static */
PAGEMILL_API int pagemill_job_is_final(int state);

struct pagemill_page_error {
    uint32_t page;
    uint32_t region; /* 0: the page itself */
    const char *code, *text;
    uint32_t attempts;
};
struct pagemill_attempt {  /* one that failed */
    uint32_t page, region; /* 0: the document; 0: the page itself */
    const char *kind;      /* of the task: "open", "page", "region", "assemble-page", "assemble-document" */
    uint32_t attempt;
    const char *cause; /* "crash", "killed", "timeout", "input", "resources", "lost-input", "other" */
    const char *code, *text;
    const char *peer, *version; /* the process that had it, and its program's version */
    int64_t time_us;            /* since 1970 */
};
struct pagemill_stage { /* a kind of task, summed over the job so far */
    const char *kind;
    uint64_t done, wait_us, run_us; /* ready to taken, taken to result */
};
struct pagemill_job { /* strings are never NULL */
    uint64_t job;
    const char *name, *client, *batch, *key, *stem, *reader;
    uint32_t state, priority;
    uint32_t pages, pages_done, pages_failed; /* pages: 0 until the document is open */
    uint32_t regions, regions_done, regions_failed;
    uint32_t retries;                            /* attempts beyond the first */
    int64_t created_us, started_us, finished_us; /* since 1970; 0: not yet */
    const char *error_code, *error_text;         /* failed jobs */
    uint64_t source_bytes;
    const struct pagemill_page_error *errors; /* pagemill_status only */
    size_t error_count;
    int64_t opened_us, first_page_us, deadline_us; /* since 1970; 0: not yet, none */
    uint64_t eta_us;                               /* until its end at the present rate; 0: unknown */
    uint32_t pages_known;                          /* of pages_done: taken from an earlier reading */
    uint64_t tokens;                               /* written by its reader */
    const struct pagemill_attempt *attempts;       /* pagemill_status only; the last 1000 that failed */
    size_t attempt_count;
    const struct pagemill_stage *stages; /* pagemill_status only */
    size_t stage_count;
    uint64_t drafted, accepted; /* tokens that its reader guessed ahead, and how many of them held */
};

struct pagemill_jobs { /* a list that the library made; newest first */
    const struct pagemill_job *jobs;
    size_t count;
    int has_more; /* ask again with before = the last one's number */
};
struct pagemill_list_options {
    size_t struct_size;
    int state;         /* 0: any */
    const char *batch; /* NULL: any */
    uint64_t before;   /* 0: the newest */
    unsigned limit;    /* 0: 100; at most 1000 */
};
#define PAGEMILL_LIST_OPTIONS_INIT                                                                           \
    {                                                                                                        \
        sizeof(struct pagemill_list_options), 0, 0, 0, 0                                                     \
    }
PAGEMILL_API int pagemill_list(pagemill *pm, const struct pagemill_list_options *options, int64_t timeout_ms,
                               struct pagemill_jobs **out, struct pagemill_error *err);
/* One job with its page errors, as a list of one. */
PAGEMILL_API int pagemill_status(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_jobs **out,
                                 struct pagemill_error *err);
PAGEMILL_API void pagemill_jobs_free(struct pagemill_jobs **jobs);

PAGEMILL_API int pagemill_cancel(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_error *err);
/* All unfinished jobs of a batch; *count_out (may be NULL) says how many. */
PAGEMILL_API int pagemill_cancel_batch(pagemill *pm, const char *batch, int64_t timeout_ms,
                                       uint32_t *count_out, struct pagemill_error *err);
/* Runs a failed or cancelled job, or the failed pages of a done one, again. */
PAGEMILL_API int pagemill_retry(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_error *err);
/* The same for every job of a batch that has failed parts, or with NULL for every such job; *count_out (may
 * be NULL) says how many. Cancelled ones stay. */
PAGEMILL_API int pagemill_retry_batch(pagemill *pm, const char *batch, int64_t timeout_ms,
                                      uint32_t *count_out, struct pagemill_error *err);
/* Drops a finished job and its results. */
PAGEMILL_API int pagemill_forget(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_error *err);
/* Drops the failed jobs of a batch, or with NULL all failed ones. Jobs that have results stay. */
PAGEMILL_API int pagemill_forget_failed(pagemill *pm, const char *batch, int64_t timeout_ms,
                                        uint32_t *count_out, struct pagemill_error *err);

/* ---- watching ---- */
enum pagemill_event_kind {
    PAGEMILL_EVENT_STATE = 1, /* the job's state changed */
    PAGEMILL_EVENT_PROGRESS,  /* counters changed; queued ones of one job are merged into the newest */
    PAGEMILL_EVENT_PAGE,      /* a page is complete */
    PAGEMILL_EVENT_PARTIAL,   /* text of a region that is being read */
    PAGEMILL_EVENT_RETRY,     /* a task is tried again; text says why */
    PAGEMILL_EVENT_LOST,      /* the fleet could not keep up with this watcher */
    PAGEMILL_EVENT_RESYNC     /* events may have been missed (lost connection): ask status or list again */
};
struct pagemill_event {
    int kind;
    uint32_t page, region;
    const char *page_blob;   /* PAGE: key for pagemill_blob_read; "" when the page failed */
    const char *text;        /* PARTIAL, RETRY */
    struct pagemill_job job; /* snapshot at sending; job.job is 0 for LOST and RESYNC */
};
/* job: that one; else batch: all its jobs, also future ones; both 0/NULL: every job. partial: 1 for PARTIAL
 * events. Renewed by itself after a lost connection. */
PAGEMILL_API int pagemill_watch(pagemill *pm, uint64_t job, const char *batch, int partial,
                                int64_t timeout_ms, struct pagemill_error *err);
/* The next event; valid until the next call of this function on the handle. */
PAGEMILL_API int pagemill_next_event(pagemill *pm, int64_t timeout_ms, const struct pagemill_event **out,
                                     struct pagemill_error *err);
/* Watches one job until it is final. 0 when its results can be fetched; else its own error
 * (PAGEMILL_ECANCELLED, PAGEMILL_EPASSWORD, ...) or that of waiting. *out (may be NULL; free it): its last
 * status, in either case when known. Events of other jobs stay queued. */
PAGEMILL_API int pagemill_wait(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_jobs **out,
                               struct pagemill_error *err);

/* ---- results ---- */
struct pagemill_file {
    const char
        *name; /* relative: "STEM.md", "imgs/cropped_page0_idx3.jpg"; checked: never absolute, no ".." */
    uint64_t bytes;
};
struct pagemill_page_time { /* since 1970; 0: unknown, another broker was there then */
    uint32_t page;
    int64_t laid_us, read_us, done_us; /* laid out; all its regions read; put together */
};
struct pagemill_part_time { /* where the job's time went: its tasks of a kind together */
    const char *kind;       /* "open", "page", "region", "assemble-page", "assemble-document" */
    const char *name;       /* "wait" (ready to taken), "run" (taken to result), or a phase of the work */
    uint64_t us, count;     /* count: of tasks */
};
struct pagemill_result {
    const struct pagemill_file *files;
    size_t count;
    uint32_t pages, pages_failed, regions, regions_failed;
    float confidence;     /* 0..1, mean over characters */
    uint32_t regions_cut; /* read, but only up to the token limit; not among regions_failed */
    /* When it was accepted, taken, opened, had its first page, was done: since 1970; 0: unknown. */
    int64_t accepted_us, started_us, opened_us, first_page_us, finished_us;
    const struct pagemill_page_time *page_times;
    size_t page_time_count;
    const struct pagemill_part_time *times;
    size_t time_count;
    uint64_t tokens; /* of readers that write token by token */
};
PAGEMILL_API int pagemill_result(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_result **out,
                                 struct pagemill_error *err);
PAGEMILL_API void pagemill_result_free(struct pagemill_result **result);
/* The bytes of files[index], with a NUL behind them that bytes_out does not count. Free with pagemill_free.
 */
PAGEMILL_API int pagemill_result_read(pagemill *pm, const struct pagemill_result *result, size_t index,
                                      int64_t timeout_ms, void **data_out, size_t *bytes_out,
                                      struct pagemill_error *err);
/* Writes files[index] below dir (made when missing): whole or not at all, by renaming a temporary. */
PAGEMILL_API int pagemill_result_save(pagemill *pm, const struct pagemill_result *result, size_t index,
                                      const char *dir, int64_t timeout_ms, struct pagemill_error *err);
/* All files of a finished job into dir. */
PAGEMILL_API int pagemill_fetch(pagemill *pm, uint64_t job, const char *dir, int64_t timeout_ms,
                                struct pagemill_error *err);
/* A blob of the fleet by its key, as in PAGE events. Free with pagemill_free. */
PAGEMILL_API int pagemill_blob_read(pagemill *pm, const char *key, int64_t timeout_ms, void **data_out,
                                    size_t *bytes_out, struct pagemill_error *err);
PAGEMILL_API void pagemill_free(void *data);

/* ---- the fleet ---- */
struct pagemill_peer {
    const char *name, *role, *version;
    uint64_t pid;
    uint32_t leases, credit;
    uint64_t done, failed, busy_us, up_us, silent_us;
    const char *host, *state;   /* "idle", "busy", "alone", "stalled", "away", "draining", or "" */
    const char *const *readers; /* workers */
    size_t reader_count;
    uint64_t rss_bytes;     /* 0: unknown */
    uint64_t task, task_us; /* its oldest task and the age of that; 0: none */
    uint64_t tokens;
};
struct pagemill_queue {
    const char *kind;
    uint64_t queued, leased, oldest_us, done, failed, retried;
    const char *reader; /* kind "region": one entry a reader; else "" */
};
struct pagemill_latency { /* of what happened since the start */
    const char *name;     /* "wait", "run", "hop", "sync", "phase" */
    const char *label;    /* kind of task, name of a phase, or "" */
    uint64_t count, sum_us, p50_us, p99_us, max_us;
};
struct pagemill_counter {
    const char *name;
    uint64_t value;
};
struct pagemill_stats {
    uint64_t epoch, up_us;
    const char *version;
    const struct pagemill_peer *peers;
    size_t peer_count;
    const struct pagemill_queue *queues;
    size_t queue_count;
    const struct pagemill_counter *counters;
    size_t counter_count;
    uint64_t jobs_queued, jobs_running, jobs_done, jobs_failed, jobs_cancelled;
    uint64_t pages_done, regions_done;
    uint64_t pixel_bytes, pixel_budget_bytes, disk_bytes_free;
    int is_draining;
    const struct pagemill_latency *latencies;
    size_t latency_count;
    uint64_t tokens;
    uint64_t rss_bytes, state_bytes; /* the broker's memory; its journal and blobs on disk; 0: unknown */
    uint64_t clients;
};
PAGEMILL_API int pagemill_stats(pagemill *pm, int64_t timeout_ms, struct pagemill_stats **out,
                                struct pagemill_error *err);
PAGEMILL_API void pagemill_stats_free(struct pagemill_stats **stats);
/* Stops the fleet: after the work in hand (now = 0), or at once. Queued jobs stay in its journal. */
PAGEMILL_API int pagemill_shutdown(pagemill *pm, int now, int64_t timeout_ms, struct pagemill_error *err);

#ifdef __cplusplus
}
#endif
#endif
