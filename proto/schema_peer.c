/* Field tables of the messages between the broker and its service processes, and of the handshake that
 * everybody makes. docs/wire.md is generated from them. */
#include "proto/schema_tables.h"

#define VERSION   100u
#define VERSION_2 101u /* since protocol 2 */
#define BLOB_SIZE 65u  /* a blob key without NUL */

#define T struct pm_held
static const struct pm_field held_rows[] = {
    PM_ROW_U64(T, task, true, "task number"),
    PM_ROW_U64(T, epoch, true, "epoch of the lease"),
    PM_ROW_U32(T, attempt, true, "attempt of the lease"),
};
#undef T
static const struct pm_schema held = PM_SCHEMA_OF("held", VERSION, struct pm_held, held_rows);

#define T struct pm_msg_hello
static const struct pm_field hello_rows[] = {
    PM_ROW_MAX(T, role, PM_ROLE_SUPERVISOR, true, "1 client, 2 layoutd, 3 worker, 4 collector, 5 supervisor"),
    PM_ROW_U32(T, proto_min, true, "lowest protocol version spoken"),
    PM_ROW_U32(T, proto_max, true, "highest protocol version spoken"),
    PM_ROW_STR(T, name, PM_LIMIT_NAME, true, "name of the process, for people and logs"),
    PM_ROW_STR(T, version, PM_LIMIT_NAME, false, "version of the program"),
    PM_ROW_STR(T, host, PM_LIMIT_NAME, false, "host id; another one shares no file system"),
    PM_ROW_U64(T, pid, false, "process number on its host"),
    PM_ROW_U64(T, instance, true, "random number of this process start"),
    PM_ROW_STRS(T, readers, reader_count, 64, false, "workers: readers served"),
    PM_ROW_U32(T, credit, false, "leases it takes at once"),
    PM_ROW_RECS(T, held, held_count, struct pm_held, &held, PM_LIMIT_HELD, false,
                "leases still worked on, and those whose result was not acknowledged"),
    PM_ROW_STR(T, client, PM_LIMIT_NAME, false, "clients: name for fair share and lists"),
    PM_ROW_STRS(T, models, model_count, 64, false,
                "workers: identities of the readers' models, in their order"),
};
#undef T
const struct pm_schema pm_schema_hello = PM_SCHEMA_OF("HELLO", VERSION_2, struct pm_msg_hello, hello_rows);

#define T struct pm_msg_welcome
static const struct pm_field welcome_rows[] = {
    PM_ROW_U32(T, proto, true, "protocol version chosen; all further headers carry it"),
    PM_ROW_U64(T, epoch, true, "the broker's epoch; grows with every start"),
    PM_ROW_STR(T, version, PM_LIMIT_NAME, false, "version of the broker"),
    PM_ROW_STR(T, host, PM_LIMIT_NAME, false, "host id of the broker"),
    PM_ROW_U64(T, beat_us, false, "a peer holding leases beats at least this often"),
    PM_ROW_STR(T, disk_dir, PM_LIMIT_PATH, false, "directory of durable blobs"),
    PM_ROW_STR(T, pixel_dir, PM_LIMIT_PATH, false, "directory of pixel blobs"),
    PM_ROW_U64(T, pid, false, "process number of the broker"),
};
#undef T
const struct pm_schema pm_schema_welcome =
    PM_SCHEMA_OF("WELCOME", VERSION, struct pm_msg_welcome, welcome_rows);

#define T struct pm_msg_refuse
static const struct pm_field refuse_rows[] = {
    PM_ROW_U64(T, ref, false, "request refused; 0: the HELLO, or a message without ref"),
    PM_ROW_STR(T, code, PM_LIMIT_NAME, true, "error name"),
    PM_ROW_STR(T, text, PM_LIMIT_ERROR_TEXT, false, "why, for people"),
    PM_ROW_U64(T, retry_after_us, false, "with code busy: when to try again"),
};
#undef T
const struct pm_schema pm_schema_refuse = PM_SCHEMA_OF("REFUSE", VERSION, struct pm_msg_refuse, refuse_rows);

#define T struct pm_msg_goodbye
static const struct pm_field goodbye_rows[] = {
    PM_ROW_STR(T, reason, PM_LIMIT_ERROR_TEXT, false, "why it leaves, for people"),
};
#undef T
const struct pm_schema pm_schema_goodbye =
    PM_SCHEMA_OF("GOODBYE", VERSION, struct pm_msg_goodbye, goodbye_rows);

#define T struct pm_msg_ping
static const struct pm_field ping_rows[] = {
    PM_ROW_U64(T, ref, false, "repeated in the PONG"),
};
#undef T
const struct pm_schema pm_schema_ping = PM_SCHEMA_OF("PING", VERSION, struct pm_msg_ping, ping_rows);
const struct pm_schema pm_schema_pong = PM_SCHEMA_OF("PONG", VERSION, struct pm_msg_ping, ping_rows);

#define T struct pm_msg_credit
static const struct pm_field credit_rows[] = {
    PM_ROW_U64(T, granted, true, "leases allowed since HELLO, in total, held ones included"),
};
#undef T
const struct pm_schema pm_schema_credit = PM_SCHEMA_OF("CREDIT", VERSION, struct pm_msg_credit, credit_rows);

#define T struct pm_options
static const struct pm_field options_rows[] = {
    PM_ROW_STR(T, pages, PM_LIMIT_PATH, false, "selected pages, as in 1-20,31; empty: all"),
    PM_ROW_STR(T, password, 1024, false, "of an encrypted document"),
    PM_ROW_STR(T, reader, PM_LIMIT_NAME, false, "name of the reader"),
    PM_ROW_STR(T, formats, PM_LIMIT_NAME, false, "md,json,txt"),
    PM_ROW_STR(T, drop, PM_LIMIT_PATH, false, "labels left out of the output"),
    PM_ROW_U32(T, dpi, false, "raster resolution; 0: 200"),
    PM_ROW_BOOL(T, no_orientation, false, "pages are not turned upright"),
    PM_ROW_BOOL(T, no_deskew, false, "pages are not straightened"),
    PM_ROW_BOOL(T, no_images, false, "no pictures are written"),
    PM_ROW_STR(T, stem, PM_LIMIT_NAME, false, "name of the output files"),
    PM_ROW_BOOL(T, partial_events, false, "partial text goes to watchers"),
    PM_ROW_U32(T, max_tokens, false, "most tokens of one region's text; 0: the model's limit"),
    PM_ROW_F32(T, temperature, false, "0: always the likeliest token"),
    PM_ROW_F32(T, repetition_penalty, false, "0 and 1: none"),
    PM_ROW_U64(T, seed, false, "of the choices at a temperature"),
    PM_ROW_STR(T, whole, PM_LIMIT_NAME, false,
               "text, table, formula: each page is one region; empty: laid out"),
    PM_ROW_U32(T, region_timeout_s, false, "most time for one region; 0: the fleet's"),
    PM_ROW_BOOL(T, again, false, "no earlier job or page stands for this one"),
};
#undef T
const struct pm_schema pm_schema_options =
    PM_SCHEMA_OF("options", VERSION_2, struct pm_options, options_rows);

#define T struct pm_msg_lease
static const struct pm_field lease_rows[] = {
    PM_ROW_U64(T, task, true, "task number"),
    PM_ROW_U64(T, epoch, true, "epoch in which the lease was given"),
    PM_ROW_U64(T, job, true, "job number"),
    PM_ROW_U32(T, attempt, true, "which try of the task this is, from 1"),
    PM_ROW_MAX(T, kind, PM_KIND_ASSEMBLE_DOC, true,
               "1 open, 2 page, 3 region, 4 assemble-page, 5 assemble-document"),
    PM_ROW_U32(T, page, false, "page number from 1; 0 for open and assemble-document"),
    PM_ROW_U32(T, region, false, "region tasks: crop index"),
    PM_ROW_U64(T, deadline_us, false, "time the task may take from receipt; 0: no limit"),
    PM_ROW_STR(T, source, BLOB_SIZE, false, "blob of the source document (open, page)"),
    PM_ROW_STR(T, input, BLOB_SIZE, false, "blob of the page record (assemble-page)"),
    PM_ROW_STR(T, sheet, BLOB_SIZE, false, "blob of the crop sheet (region, assemble-page)"),
    PM_ROW_REC(T, options, struct pm_options, &pm_schema_options, false, "options of the job"),
    PM_ROW_MAX(T, crop_width, 65535, false,
               "region, worker on another host: pixels of the crop in the payload"),
    PM_ROW_MAX(T, crop_height, 65535, false, "rows of it"),
    PM_ROW_MAX(T, crop_channels, 3, false, "1 grey, 3 RGB"),
    PM_ROW_MAX(T, crop_task, 255, false, "what is to be read in it"),
    PM_ROW_U32(T, crop_raw_bytes, false, "size of the payload when unpacked"),
    PM_ROW_STR(T, model, PM_LIMIT_NAME, false,
               "page: identity of the model that will read it; empty: do not remember the page"),
};
#undef T
const struct pm_schema pm_schema_lease = PM_SCHEMA_OF("LEASE", VERSION_2, struct pm_msg_lease, lease_rows);

#define T struct pm_progress
static const struct pm_field progress_rows[] = {
    PM_ROW_U64(T, task, true, "task number"),
    PM_ROW_U32(T, attempt, true, "attempt of the lease"),
    PM_ROW_MAX(T, permille, 1000, false, "how far, in thousandths"),
};
#undef T
static const struct pm_schema progress = PM_SCHEMA_OF("progress", VERSION, struct pm_progress, progress_rows);

#define T struct pm_msg_beat
static const struct pm_field beat_rows[] = {
    PM_ROW_RECS(T, leases, lease_count, struct pm_progress, &progress, PM_LIMIT_HELD, false,
                "leases that made progress since the last beat"),
};
#undef T
const struct pm_schema pm_schema_beat = PM_SCHEMA_OF("BEAT", VERSION, struct pm_msg_beat, beat_rows);

#define T struct pm_msg_partial
static const struct pm_field partial_rows[] = {
    PM_ROW_U64(T, task, true, "task number"),
    PM_ROW_U32(T, attempt, true, "attempt of the lease"),
    PM_ROW_STR(T, text, PM_LIMIT_REGION_TEXT, false, "text added since the last PARTIAL"),
};
#undef T
const struct pm_schema pm_schema_partial =
    PM_SCHEMA_OF("PARTIAL", VERSION, struct pm_msg_partial, partial_rows);

#define T struct pm_found_page
static const struct pm_field found_page_rows[] = {
    PM_ROW_U32(T, page, true, "page number from 1"),
    PM_ROW_U32(T, width, false, "pixels as it will be rendered"),
    PM_ROW_U32(T, height, false, "pixels as it will be rendered"),
};
#undef T
static const struct pm_schema found_page =
    PM_SCHEMA_OF("found_page", VERSION, struct pm_found_page, found_page_rows);

#define T struct pm_phase
static const struct pm_field phase_rows[] = {
    PM_ROW_STR(T, name, PM_LIMIT_NAME, true, "render, layout, vision, prefill, decode and so on"),
    PM_ROW_U64(T, us, false, "time in it"),
};
#undef T
static const struct pm_schema phase = PM_SCHEMA_OF("phase", VERSION, struct pm_phase, phase_rows);

#define T struct pm_msg_result
static const struct pm_field result_rows[] = {
    PM_ROW_U64(T, task, true, "task number"),
    PM_ROW_U64(T, epoch, true, "epoch of the lease"),
    PM_ROW_U32(T, attempt, true, "attempt of the lease"),
    PM_ROW_STR(T, error_code, PM_LIMIT_NAME, false, "error name; empty: success"),
    PM_ROW_STR(T, error_text, PM_LIMIT_ERROR_TEXT, false, "what went wrong, for people"),
    PM_ROW_BOOL(T, is_final_error, false, "trying again cannot help"),
    PM_ROW_U32(T, document_pages, false, "open: pages in the whole document"),
    PM_ROW_RECS(T, pages, page_count, struct pm_found_page, &found_page, PM_LIMIT_DOCUMENT_PAGES, false,
                "open: selected pages"),
    PM_ROW_STR(T, record, BLOB_SIZE, false, "page: blob of the page record"),
    PM_ROW_STR(T, sheet, BLOB_SIZE, false, "page: blob of the crop sheet"),
    PM_ROW_U64(T, sheet_bytes, false, "page: size of the crop sheet"),
    PM_ROW_U32S(T, costs, cost_count, PM_LIMIT_PAGE_CROPS, false,
                "page: cost of each crop's task; 0: a picture, no task"),
    PM_ROW_STR(T, blob, BLOB_SIZE, false, "assemble-page: blob of the out_page record"),
    PM_ROW_BIN(T, manifest, PM_LIMIT_INNER_RECORD, false, "assemble-document: encoded manifest record"),
    PM_ROW_STRS(T, blobs, blob_count, PM_LIMIT_BLOBS, false, "every other blob the result refers to"),
    PM_ROW_U32(T, failed_regions, false, "assemble-page: regions without text"),
    PM_ROW_BIN(T, text, PM_LIMIT_INNER_RECORD, false, "region: encoded region_text record"),
    PM_ROW_U64(T, wait_us, false, "time between receipt and start"),
    PM_ROW_U64(T, run_us, false, "time of the work itself"),
    PM_ROW_RECS(T, phases, phase_count, struct pm_phase, &phase, PM_LIMIT_PHASES, false, "parts of run_us"),
    PM_ROW_U64(T, tokens, false, "region: tokens written"),
    PM_ROW_STR(T, fingerprint, PM_FINGERPRINT_CHARS, false,
               "page: hash of all that its text depends on; empty: it is not to be remembered"),
    PM_ROW_BOOL(T, is_known, false, "page: the broker knew the fingerprint, nothing was laid out"),
    PM_ROW_U64(T, drafted, false, "region: tokens guessed ahead"),
    PM_ROW_U64(T, accepted, false, "region: how many of them held"),
};
#undef T
const struct pm_schema pm_schema_result =
    PM_SCHEMA_OF("RESULT", VERSION_2, struct pm_msg_result, result_rows);

#define T struct pm_msg_result_ack
static const struct pm_field result_ack_rows[] = {
    PM_ROW_U64(T, task, true, "task number"),
    PM_ROW_U32(T, attempt, true, "attempt of the lease"),
    PM_ROW_BOOL(T, accepted, false, "false: fenced, somebody else has it"),
};
#undef T
const struct pm_schema pm_schema_result_ack =
    PM_SCHEMA_OF("RESULT_ACK", VERSION, struct pm_msg_result_ack, result_ack_rows);

#define T struct pm_msg_revoke
static const struct pm_field revoke_rows[] = {
    PM_ROW_U64(T, task, true, "task number"),
    PM_ROW_U32(T, attempt, true, "attempt of the lease"),
    PM_ROW_STR(T, reason, PM_LIMIT_NAME, false, "cancelled, deadline or fenced"),
};
#undef T
const struct pm_schema pm_schema_revoke = PM_SCHEMA_OF("REVOKE", VERSION, struct pm_msg_revoke, revoke_rows);

/* DRAIN says nothing; a struct cannot be empty, so a byte that no row names stands in for it. */
struct drain {
    char unused;
};
const struct pm_schema pm_schema_drain = {.name = "DRAIN", .version = VERSION, .size = sizeof(struct drain)};

#define T struct pm_msg_seen
static const struct pm_field seen_rows[] = {
    PM_ROW_U64(T, task, true, "page task"),
    PM_ROW_U32(T, attempt, true, "attempt of the lease"),
    PM_ROW_STR(T, fingerprint, PM_FINGERPRINT_CHARS, true, "64 hex digits"),
};
#undef T
const struct pm_schema pm_schema_seen = PM_SCHEMA_OF("SEEN", VERSION, struct pm_msg_seen, seen_rows);

#define T struct pm_msg_known
static const struct pm_field known_rows[] = {
    PM_ROW_U64(T, task, true, "page task"),
    PM_ROW_U32(T, attempt, true, "attempt of the lease"),
    PM_ROW_BOOL(T, is_known, false, "a result with is_known will be taken"),
};
#undef T
const struct pm_schema pm_schema_known = PM_SCHEMA_OF("KNOWN", VERSION, struct pm_msg_known, known_rows);
