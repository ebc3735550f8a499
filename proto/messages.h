/* The messages of the fleet. A message is a ZeroMQ multipart: [16-byte header][record][payload], see frame.h;
 * the record of each type is one struct below, encoded by its table in messages.c. docs/wire.md describes
 * every field.
 *
 * Directions: peer = layoutd, worker or collector (a service); client = CLI, gateway, library. `ref` is the
 * client's request number, repeated in the answer. Task identity for fencing: (task, attempt, epoch). */
#ifndef PM_PROTO_MESSAGES_H
#define PM_PROTO_MESSAGES_H

#include "proto/record.h"

#define PM_PROTO_MIN 1u
#define PM_PROTO_MAX 2u /* 2: SEEN and KNOWN */

enum pm_msg_type {
    /* any -> broker, broker -> any */
    PM_MSG_HELLO = 1, /* first message of everybody */
    PM_MSG_WELCOME = 2,
    PM_MSG_REFUSE = 3, /* a request or a hello was refused: code, reason, retry_after */
    PM_MSG_GOODBYE = 4,
    PM_MSG_PING = 5, /* either way; answered by PONG with the same ref */
    PM_MSG_PONG = 6,
    /* service peers */
    PM_MSG_CREDIT = 10,
    PM_MSG_LEASE = 11,
    PM_MSG_BEAT = 12,
    PM_MSG_PARTIAL = 13,
    PM_MSG_RESULT = 14, /* payload: kind dependent, see struct pm_msg_result */
    PM_MSG_RESULT_ACK = 15,
    PM_MSG_REVOKE = 16, /* broker -> peer: stop this task, its result is no longer wanted */
    PM_MSG_DRAIN = 17,  /* broker -> peer: take no more, finish, say goodbye */
    PM_MSG_SEEN = 18,   /* layoutd -> broker: has this page been read before? */
    PM_MSG_KNOWN = 19,  /* the answer */
    /* clients */
    PM_MSG_SUBMIT = 30,
    PM_MSG_ACCEPTED = 31,
    PM_MSG_LIST = 32,
    PM_MSG_JOBS = 33,
    PM_MSG_STATUS = 34,
    PM_MSG_JOB = 35,
    PM_MSG_CANCEL = 36,
    PM_MSG_RETRY = 37,
    PM_MSG_FORGET = 38, /* drop a finished job and its results */
    PM_MSG_DONE = 39,   /* answer to CANCEL, RETRY, FORGET, SHUTDOWN, WATCH */
    PM_MSG_WATCH = 40,
    PM_MSG_EVENT = 41,
    PM_MSG_FETCH = 42,
    PM_MSG_MANIFEST = 43,
    PM_MSG_STATS = 44,
    PM_MSG_FLEET = 45,
    PM_MSG_SHUTDOWN = 46,
    /* blobs for clients that do not share the file system; payload: LZ4 block of at most PM_CHUNK_BYTES */
    PM_MSG_BLOB_PUT = 50,
    PM_MSG_BLOB_STORED = 51,
    PM_MSG_BLOB_GET = 52,
    PM_MSG_BLOB_DATA = 53,
};
#define PM_CHUNK_BYTES (256u * 1024)
const char *pm_msg_name(uint32_t type); /* "LEASE"; "?" when unknown */

/* Limits of texts and lists in records, in bytes without NUL or elements. Who makes a record keeps to them.
 */
enum {
    PM_LIMIT_NAME = 255,        /* peers, clients, readers, versions, finish reasons, codes */
    PM_LIMIT_PATH = 4095,       /* names of documents, directories, idempotency keys */
    PM_LIMIT_ERROR_TEXT = 1200, /* a struct pm_error's text after mending fits */
    PM_LIMIT_REGION_TEXT = 1 << 20,
    PM_LIMIT_DOCUMENT_PAGES = 50000,
    PM_LIMIT_PAGE_CROPS = 20000, /* PM_SHEET_MAX_CROPS */
    PM_LIMIT_PAGE_REGIONS = 20000,
    PM_LIMIT_JOB_ERRORS = 1000,
    PM_LIMIT_LIST_JOBS = 1000,
    PM_LIMIT_BLOBS = 50000,
    PM_LIMIT_HELD = 4096, /* leases of one peer */
    PM_LIMIT_PEERS = 4096,
    PM_LIMIT_INNER_RECORD = 3 << 20, /* a record inside a record: manifest, region_text */
    PM_LIMIT_PHASES = 16,
    PM_LIMIT_JOB_ATTEMPTS = 1000,
    PM_LIMIT_LATENCIES = 64,
    PM_FINGERPRINT_CHARS = 64, /* of a page: lower-case hex of a BLAKE2b-256 */
};

enum pm_role { PM_ROLE_CLIENT = 1, PM_ROLE_LAYOUTD, PM_ROLE_WORKER, PM_ROLE_COLLECTOR, PM_ROLE_SUPERVISOR };
const char *pm_role_name(uint32_t role);

enum pm_task_kind {
    PM_KIND_OPEN = 1,
    PM_KIND_PAGE,
    PM_KIND_REGION,
    PM_KIND_ASSEMBLE_PAGE,
    PM_KIND_ASSEMBLE_DOC
};
const char *pm_kind_name(uint32_t kind);
uint32_t pm_kind_role(uint32_t kind); /* which role serves it */

/* ---- connection ---- */
struct pm_held { /* a lease that a peer still works on, or whose result was not acknowledged */
    uint64_t task, epoch;
    uint32_t attempt;
};
struct pm_msg_hello {
    uint32_t role, proto_min, proto_max;
    const char *name;       /* "worker-2" */
    const char *version;    /* of the program */
    const char *host;       /* host id: peers with another one share no file system */
    uint64_t pid, instance; /* instance: random per process start */
    const char **readers;   /* workers: names of readers served */
    uint32_t reader_count;
    uint32_t credit;      /* leases it takes at once */
    struct pm_held *held; /* after a reconnect */
    uint32_t held_count;
    const char *client;  /* clients: name for fair share and lists (default: user name) */
    const char **models; /* workers: identities of the readers' models, as many as readers, or none */
    uint32_t model_count;
};
struct pm_msg_welcome {
    uint32_t proto;
    uint64_t epoch; /* broker's, grows with every start */
    const char *version, *host;
    uint64_t beat_us; /* a peer holding leases beats at least this often */
    const char *disk_dir, *pixel_dir;
    uint64_t pid;
};
struct pm_msg_refuse {
    uint64_t ref;
    const char *code, *text; /* pm_err_name */
    uint64_t retry_after_us; /* with "busy" */
};
struct pm_msg_goodbye {
    const char *reason;
};
struct pm_msg_ping {
    uint64_t ref;
};

/* ---- service peers ---- */
struct pm_msg_credit {
    /* Leases allowed since HELLO, in total, the leases named in HELLO's `held` counted as given already: the
     * broker may send a lease while held_count + leases sent < granted. It starts at HELLO's credit; each
     * lease that ends at the peer raises it by one. */
    uint64_t granted;
};

struct pm_options {    /* of a job; travels in every lease */
    const char *pages; /* "1-20,31"; "" = all */
    const char *password;
    const char *reader;  /* "fast" */
    const char *formats; /* "md,json,txt" */
    const char *drop;    /* labels left out of the output: "header,footer" */
    uint32_t dpi;        /* 0: 200 */
    bool no_orientation, no_deskew, no_images;
    const char *stem;    /* output name */
    bool partial_events; /* stream partial text to watchers */
    /* Readers that write token by token; the others ignore them. */
    uint32_t max_tokens;       /* of one region's text; 0: the model's limit */
    float temperature;         /* 0: always the likeliest token */
    float repetition_penalty;  /* 0 and 1: none */
    uint64_t seed;             /* of the choices at a temperature */
    const char *whole;         /* "text", "table", "formula": each page is one region; "": laid out */
    uint32_t region_timeout_s; /* most time for one region; 0: the fleet's */
    bool again;                /* read anew what was read before: no earlier job or page stands for it */
};
struct pm_msg_lease {
    uint64_t task, epoch, job;
    uint32_t attempt, kind;
    uint32_t page;        /* page number from 1; 0 for open and assemble-document */
    uint32_t region;      /* region tasks: crop index */
    uint64_t deadline_us; /* time the task may take from receipt; 0 = none */
    const char *source;   /* blob: source document (open, page) */
    const char *input;    /* blob: page record (assemble-page) */
    const char *sheet;    /* blob: crop sheet (region, assemble-page) */
    struct pm_options options;
    /* Region leases of a worker on another host bring their crop as payload: an LZ4 block of
     * crop_raw_bytes = crop_width * crop_height * crop_channels bytes when unpacked, rows without padding. */
    uint32_t crop_width, crop_height, crop_channels, crop_task, crop_raw_bytes;
    const char *model; /* page: identity of the model that will read it; "" when its workers differ or are not
                          here: then the page is not to be remembered */
    /* payload: assemble-page: msgpack array of encoded pm_region_text bins; assemble-document: pm_doc_pages
     * record */
};
struct pm_progress {
    uint64_t task;
    uint32_t attempt;
    uint32_t permille;
};
struct pm_msg_beat {
    struct pm_progress *leases;
    uint32_t lease_count;
};
struct pm_msg_partial {
    uint64_t task;
    uint32_t attempt;
    const char *text;
};
struct pm_found_page { /* a child of open */
    uint32_t page;
    uint32_t width, height; /* px as it will be rendered: the broker's cost estimate */
};
struct pm_phase { /* where the time of a task went: "render", "layout", "vision", "prefill", "decode" */
    const char *name;
    uint64_t us;
};
struct pm_msg_result {
    uint64_t task, epoch;
    uint32_t attempt;
    const char *error_code, *error_text; /* "" = success; see pm_err_name */
    bool is_final_error;                 /* trying again cannot help (bad input) */
    /* open */
    uint32_t document_pages; /* in the whole document */
    struct pm_found_page *pages;
    uint32_t page_count; /* selected ones */
    /* page: record and sheet blobs, cost of each region task in order (0: picture, no task) */
    const char *record, *sheet;
    uint64_t sheet_bytes;
    uint32_t *costs;
    uint32_t cost_count;
    /* assemble-page: blob of pm_out_page; assemble-document: the manifest */
    const char *blob;
    struct pm_bytes manifest; /* encoded pm_manifest */
    const char *
        *blobs; /* every other blob the result refers to (pictures), for the broker's reference counts */
    uint32_t blob_count;
    uint32_t failed_regions; /* assemble-page */
    /* region: encoded pm_region_text */
    struct pm_bytes text;
    uint64_t wait_us, run_us; /* where the time went, for the figures */
    struct pm_phase *phases;  /* parts of run_us */
    uint32_t phase_count;
    uint64_t tokens;            /* region: written by a reader that writes token by token */
    const char *fingerprint;    /* page: what its text depends on, all hashed; "" when not asked */
    bool is_known;              /* page: the broker knew the fingerprint, nothing was laid out */
    uint64_t drafted, accepted; /* region: tokens guessed ahead, and how many of them held */
    /* Filled in by the broker, not on the wire. */
    uint32_t known_regions; /* page that is_known: regions that its text was read in */
    uint64_t blob_bytes;    /* assemble-page: what blob and blobs take together */
};
struct pm_msg_seen {
    uint64_t task;
    uint32_t attempt;
    const char *fingerprint;
};
struct pm_msg_known {
    uint64_t task;
    uint32_t attempt;
    bool is_known; /* a result with is_known will be taken */
};
struct pm_msg_result_ack {
    uint64_t task;
    uint32_t attempt;
    bool accepted; /* false: fenced, somebody else has it */
};
struct pm_msg_revoke {
    uint64_t task;
    uint32_t attempt;
    const char *reason; /* "cancelled", "deadline", "fenced" */
};

/* ---- clients ---- */
struct pm_msg_submit {
    uint64_t ref;
    const char *key;    /* idempotency: a second submit with it returns the first job */
    const char *name;   /* what people see: path or file name */
    const char *source; /* blob already in the store (synced) */
    uint64_t source_bytes;
    struct pm_options options;
    uint32_t priority;   /* 0 (background) .. 4 (interactive); 2 is normal */
    const char *batch;   /* groups jobs of one command */
    uint32_t deadline_s; /* the job fails when it has not ended so long after it was accepted; 0: none */
};
struct pm_msg_accepted {
    uint64_t ref, job;
    bool is_duplicate;
};
enum pm_job_state { PM_JOB_QUEUED = 1, PM_JOB_RUNNING, PM_JOB_DONE, PM_JOB_FAILED, PM_JOB_CANCELLED };
const char *pm_job_state_name(uint32_t state);

struct pm_page_error {
    uint32_t page;
    uint32_t region; /* crop + 1; 0: the page itself */
    const char *code, *text;
    uint32_t attempts;
};
struct pm_attempt { /* one that failed */
    uint32_t page, region, kind;
    uint32_t attempt;  /* the lease's */
    const char *cause; /* "crash", "killed", "timeout", "input", "resources", "lost-input", "other" */
    const char *code, *text;
    const char *peer, *version; /* who worked on it */
    int64_t wall_us;
};
struct pm_stage { /* a kind of task, over the job so far */
    const char *kind;
    uint64_t done, wait_us, run_us; /* sums: ready to lease, lease to result */
};
struct pm_job_info {
    uint64_t job;
    const char *name, *client, *batch, *key;
    uint32_t state, priority;
    uint32_t pages, pages_done, pages_failed; /* pages: 0 until the document is open */
    uint32_t regions, regions_done, regions_failed;
    uint32_t retries; /* attempts beyond the first, all tasks */
    int64_t created_wall_us, started_wall_us, finished_wall_us;
    const char *error_code, *error_text; /* failed jobs */
    uint64_t source_bytes;
    const char *stem, *reader;
    struct pm_page_error *errors; /* STATUS only; at most 1000 */
    uint32_t error_count;
    struct pm_attempt *attempts; /* STATUS only; the last 1000 */
    uint32_t attempt_count;
    struct pm_stage *stages; /* STATUS only, jobs that ran under this broker */
    uint32_t stage_count;
    int64_t opened_wall_us, first_page_wall_us; /* 0: not yet */
    int64_t deadline_wall_us;                   /* 0: none */
    uint64_t eta_us;                            /* until its end at the present rate; 0: unknown */
    uint32_t pages_known;                       /* of pages_done: taken from an earlier reading */
    uint64_t tokens;
    uint64_t drafted, accepted; /* tokens guessed ahead, and how many of them held */
};
struct pm_msg_list {
    uint64_t ref;
    uint32_t state; /* 0: any */
    const char *batch;
    uint64_t before; /* job numbers below this; 0: newest */
    uint32_t limit;  /* 0: 100; at most 1000 */
};
struct pm_msg_jobs {
    uint64_t ref;
    struct pm_job_info *jobs;
    uint32_t job_count;
    bool has_more;
};
struct pm_msg_job_ref { /* STATUS, CANCEL, RETRY, FORGET, FETCH */
    uint64_t ref, job;
    /* CANCEL, RETRY, FORGET with job 0: all jobs of this batch that it concerns; "": RETRY, FORGET: of any */
    const char *batch;
};
struct pm_msg_job {
    uint64_t ref;
    struct pm_job_info info;
};
struct pm_msg_done {
    uint64_t ref;
    uint32_t count; /* jobs concerned */
};
struct pm_msg_watch {
    uint64_t ref, job; /* 0: all jobs of batch, or every job */
    const char *batch;
    bool partial; /* also partial text */
};
enum pm_event_kind {
    PM_EVENT_STATE = 1,
    PM_EVENT_PROGRESS,
    PM_EVENT_PAGE,
    PM_EVENT_PARTIAL,
    PM_EVENT_RETRY,
    PM_EVENT_LOST
};
struct pm_msg_event { /* info is a snapshot at sending: a watcher that missed events is right again with the
                         next one */
    uint64_t seq;     /* per connection, without gaps */
    uint32_t kind;
    uint32_t page, region;
    const char *page_blob; /* PAGE: pm_out_page */
    const char *text;      /* PARTIAL text, or a RETRY's reason */
    struct pm_job_info info;
};
struct pm_msg_manifest {
    uint64_t ref, job;
    struct pm_bytes manifest; /* encoded pm_manifest */
};
struct pm_peer_info {
    const char *name, *role, *version;
    uint64_t pid;
    uint32_t leases, credit;
    uint64_t done, failed;
    uint64_t busy_us; /* sum of run_us */
    uint64_t up_us;
    uint64_t silent_us;       /* since its last message */
    const char *host, *state; /* "idle", "busy", "alone" (runs a suspect), "stalled", "away", "draining" */
    const char **readers;     /* workers */
    uint32_t reader_count;
    uint64_t rss_bytes;     /* processes of this host; 0: unknown */
    uint64_t task, task_us; /* its oldest lease and the age of that; 0: none */
    uint64_t tokens;
};
struct pm_queue_info {
    const char *kind;
    uint64_t queued, leased;
    uint64_t oldest_us; /* age of the oldest queued task */
    uint64_t done, failed, retried;
    const char *reader; /* kind region: one entry a reader; "" for the others */
};
struct pm_latency {    /* of what happened since the start: a histogram in short */
    const char *name;  /* "wait", "run", "hop", "sync", "phase" */
    const char *label; /* kind of task, name of a phase, or "" */
    uint64_t count, sum_us, p50_us, p99_us, max_us;
};
struct pm_counter {
    const char *name; /* every refusal, retry, fence, drop has one */
    uint64_t value;
};
struct pm_msg_fleet { /* answer to STATS */
    uint64_t ref, epoch, up_us;
    const char *version;
    struct pm_peer_info *peers;
    uint32_t peer_count;
    struct pm_queue_info *queues;
    uint32_t queue_count;
    struct pm_counter *counters;
    uint32_t counter_count;
    uint64_t jobs_queued, jobs_running, jobs_done, jobs_failed, jobs_cancelled;
    uint64_t pages_done, regions_done;
    uint64_t pixel_bytes, pixel_budget_bytes, disk_bytes_free;
    bool is_draining;
    struct pm_latency *latencies;
    uint32_t latency_count;
    uint64_t tokens, rss_bytes,
        state_bytes;  /* of the broker: its memory, and what its state directory holds */
    uint64_t clients; /* connected */
};
struct pm_msg_stats {
    uint64_t ref;
};
struct pm_msg_shutdown {
    uint64_t ref;
    bool now; /* false: drain first */
};

/* ---- blobs without a shared file system ---- */
struct pm_msg_blob_put {
    uint64_t ref, upload; /* upload: client's number of this file; chunks in order */
    uint64_t offset;
    bool is_last;
    uint32_t raw_bytes; /* of this chunk after LZ4 */
};
struct pm_msg_blob_stored {
    uint64_t ref, upload;
    uint64_t offset;  /* bytes received so far */
    const char *blob; /* after the last chunk */
};
struct pm_msg_blob_get {
    uint64_t ref;
    const char *blob;
    uint64_t offset;
};
struct pm_msg_blob_data {
    uint64_t ref, offset, total;
    uint32_t raw_bytes;
};

/* The table of a message type; NULL when the type is unknown. */
const struct pm_schema *pm_msg_schema(uint32_t type);

#endif
