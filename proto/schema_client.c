/* Field tables of the messages between the broker and its clients. docs/wire.md is generated from them. */
#include "proto/schema_tables.h"

#define VERSION   100u
#define VERSION_2 101u /* since protocol 2 */
#define BLOB_SIZE 65u  /* a blob key without NUL */

#define T struct pm_msg_submit
static const struct pm_field submit_rows[] = {
    PM_ROW_U64(T, ref, true, "request number, repeated in the answer"),
    PM_ROW_STR(T, key, PM_LIMIT_PATH, false, "idempotency: a second submit with it returns the first job"),
    PM_ROW_STR(T, name, PM_LIMIT_PATH, false, "what people see: path or file name"),
    PM_ROW_STR(T, source, BLOB_SIZE, true, "blob of the document, already stored and synced"),
    PM_ROW_U64(T, source_bytes, false, "size of the document"),
    PM_ROW_REC(T, options, struct pm_options, &pm_schema_options, false, "how to read it"),
    PM_ROW_MAX(T, priority, 4, false, "0 background .. 4 interactive; 2 is normal"),
    PM_ROW_STR(T, batch, PM_LIMIT_NAME, false, "groups the jobs of one command"),
    PM_ROW_U32(T, deadline_s, false, "the job fails when it has not ended by then; 0: none"),
};
#undef T
const struct pm_schema pm_schema_submit =
    PM_SCHEMA_OF("SUBMIT", VERSION_2, struct pm_msg_submit, submit_rows);

#define T struct pm_msg_accepted
static const struct pm_field accepted_rows[] = {
    PM_ROW_U64(T, ref, true, "request answered"),
    PM_ROW_U64(T, job, true, "job number"),
    PM_ROW_BOOL(T, is_duplicate, false, "the key was known: this is the earlier job"),
};
#undef T
const struct pm_schema pm_schema_accepted =
    PM_SCHEMA_OF("ACCEPTED", VERSION, struct pm_msg_accepted, accepted_rows);

#define T struct pm_page_error
static const struct pm_field page_error_rows[] = {
    PM_ROW_U32(T, page, false, "page number from 1; 0: the document"),
    PM_ROW_U32(T, region, false, "crop + 1; 0: the page itself"),
    PM_ROW_STR(T, code, PM_LIMIT_NAME, false, "error name"),
    PM_ROW_STR(T, text, PM_LIMIT_ERROR_TEXT, false, "what went wrong, for people"),
    PM_ROW_U32(T, attempts, false, "how often it was tried"),
};
#undef T
static const struct pm_schema page_error =
    PM_SCHEMA_OF("page_error", VERSION, struct pm_page_error, page_error_rows);

#define T struct pm_attempt
static const struct pm_field attempt_rows[] = {
    PM_ROW_U32(T, page, false, "page number from 1; 0: the document"),
    PM_ROW_U32(T, region, false, "crop + 1; 0: the page itself"),
    PM_ROW_MAX(T, kind, PM_KIND_ASSEMBLE_DOC, false, "kind of the task"),
    PM_ROW_U32(T, attempt, false, "of the lease"),
    PM_ROW_STR(T, cause, PM_LIMIT_NAME, false, "crash, killed, timeout, input, resources, lost-input, other"),
    PM_ROW_STR(T, code, PM_LIMIT_NAME, false, "error name"),
    PM_ROW_STR(T, text, PM_LIMIT_ERROR_TEXT, false, "what went wrong, for people"),
    PM_ROW_STR(T, peer, PM_LIMIT_NAME, false, "who worked on it"),
    PM_ROW_STR(T, version, PM_LIMIT_NAME, false, "of its program"),
    PM_ROW_I64(T, wall_us, false, "microseconds since 1970"),
};
#undef T
static const struct pm_schema attempt = PM_SCHEMA_OF("attempt", VERSION, struct pm_attempt, attempt_rows);

#define T struct pm_stage
static const struct pm_field stage_rows[] = {
    PM_ROW_STR(T, kind, PM_LIMIT_NAME, true, "kind of the tasks"),
    PM_ROW_U64(T, done, false, "how many ended well"),
    PM_ROW_U64(T, wait_us, false, "sum of ready to lease"),
    PM_ROW_U64(T, run_us, false, "sum of lease to result"),
};
#undef T
static const struct pm_schema stage = PM_SCHEMA_OF("stage", VERSION, struct pm_stage, stage_rows);

#define T struct pm_job_info
static const struct pm_field job_info_rows[] = {
    PM_ROW_U64(T, job, true, "job number"),
    PM_ROW_STR(T, name, PM_LIMIT_PATH, false, "what people see"),
    PM_ROW_STR(T, client, PM_LIMIT_NAME, false, "who submitted it"),
    PM_ROW_STR(T, batch, PM_LIMIT_NAME, false, "group"),
    PM_ROW_STR(T, key, PM_LIMIT_PATH, false, "idempotency key"),
    PM_ROW_MAX(T, state, PM_JOB_CANCELLED, true, "1 queued, 2 running, 3 done, 4 failed, 5 cancelled"),
    PM_ROW_MAX(T, priority, 4, false, "0 background .. 4 interactive"),
    PM_ROW_U32(T, pages, false, "selected pages; 0 until the document is open"),
    PM_ROW_U32(T, pages_done, false, ""),
    PM_ROW_U32(T, pages_failed, false, ""),
    PM_ROW_U32(T, regions, false, "found so far"),
    PM_ROW_U32(T, regions_done, false, ""),
    PM_ROW_U32(T, regions_failed, false, ""),
    PM_ROW_U32(T, retries, false, "attempts beyond the first, all tasks"),
    PM_ROW_I64(T, created_wall_us, false, "microseconds since 1970"),
    PM_ROW_I64(T, started_wall_us, false, "first lease; 0: not yet"),
    PM_ROW_I64(T, finished_wall_us, false, "0: not yet"),
    PM_ROW_STR(T, error_code, PM_LIMIT_NAME, false, "failed jobs: error name"),
    PM_ROW_STR(T, error_text, PM_LIMIT_ERROR_TEXT, false, "failed jobs: what went wrong"),
    PM_ROW_U64(T, source_bytes, false, "size of the document"),
    PM_ROW_STR(T, stem, PM_LIMIT_NAME, false, "name of the output files"),
    PM_ROW_STR(T, reader, PM_LIMIT_NAME, false, "reader asked for"),
    PM_ROW_RECS(T, errors, error_count, struct pm_page_error, &page_error, PM_LIMIT_JOB_ERRORS, false,
                "STATUS only: pages and regions that failed"),
    PM_ROW_RECS(T, attempts, attempt_count, struct pm_attempt, &attempt, PM_LIMIT_JOB_ATTEMPTS, false,
                "STATUS only: attempts that failed, the last ones"),
    PM_ROW_RECS(T, stages, stage_count, struct pm_stage, &stage, 16, false,
                "STATUS only: where the time went, by kind of task"),
    PM_ROW_I64(T, opened_wall_us, false, "pages are known; 0: not yet"),
    PM_ROW_I64(T, first_page_wall_us, false, "first page done; 0: not yet"),
    PM_ROW_I64(T, deadline_wall_us, false, "0: none"),
    PM_ROW_U64(T, eta_us, false, "until its end at the present rate; 0: unknown"),
    PM_ROW_U32(T, pages_known, false, "of pages_done: taken from an earlier reading"),
    PM_ROW_U64(T, tokens, false, "written by its reader"),
    PM_ROW_U64(T, drafted, false, "tokens guessed ahead"),
    PM_ROW_U64(T, accepted, false, "how many of them held"),
};
#undef T
static const struct pm_schema job_info =
    PM_SCHEMA_OF("job_info", VERSION_2, struct pm_job_info, job_info_rows);

#define T struct pm_msg_list
static const struct pm_field list_rows[] = {
    PM_ROW_U64(T, ref, true, "request number"),
    PM_ROW_MAX(T, state, PM_JOB_CANCELLED, false, "only jobs in this state; 0: any"),
    PM_ROW_STR(T, batch, PM_LIMIT_NAME, false, "only jobs of this batch"),
    PM_ROW_U64(T, before, false, "only job numbers below this; 0: newest"),
    PM_ROW_MAX(T, limit, PM_LIMIT_LIST_JOBS, false, "most jobs in the answer; 0: 100"),
};
#undef T
const struct pm_schema pm_schema_list = PM_SCHEMA_OF("LIST", VERSION, struct pm_msg_list, list_rows);

#define T struct pm_msg_jobs
static const struct pm_field jobs_rows[] = {
    PM_ROW_U64(T, ref, true, "request answered"),
    PM_ROW_RECS(T, jobs, job_count, struct pm_job_info, &job_info, PM_LIMIT_LIST_JOBS, false, "newest first"),
    PM_ROW_BOOL(T, has_more, false, "older ones exist"),
};
#undef T
const struct pm_schema pm_schema_jobs = PM_SCHEMA_OF("JOBS", VERSION_2, struct pm_msg_jobs, jobs_rows);

#define T struct pm_msg_job_ref
static const struct pm_field job_ref_rows[] = {
    PM_ROW_U64(T, ref, true, "request number"),
    PM_ROW_U64(T, job, false, "job number"),
    PM_ROW_STR(T, batch, PM_LIMIT_NAME, false,
               "CANCEL, RETRY, FORGET with job 0: the jobs of this batch that it concerns; empty: RETRY, "
               "FORGET: of any batch"),
};
#undef T
const struct pm_schema pm_schema_status =
    PM_SCHEMA_OF("STATUS", VERSION, struct pm_msg_job_ref, job_ref_rows);
const struct pm_schema pm_schema_cancel =
    PM_SCHEMA_OF("CANCEL", VERSION, struct pm_msg_job_ref, job_ref_rows);
const struct pm_schema pm_schema_retry = PM_SCHEMA_OF("RETRY", VERSION, struct pm_msg_job_ref, job_ref_rows);
const struct pm_schema pm_schema_forget =
    PM_SCHEMA_OF("FORGET", VERSION, struct pm_msg_job_ref, job_ref_rows);
const struct pm_schema pm_schema_fetch = PM_SCHEMA_OF("FETCH", VERSION, struct pm_msg_job_ref, job_ref_rows);

#define T struct pm_msg_job
static const struct pm_field job_rows[] = {
    PM_ROW_U64(T, ref, true, "request answered"),
    PM_ROW_REC(T, info, struct pm_job_info, &job_info, true, "the job"),
};
#undef T
const struct pm_schema pm_schema_job = PM_SCHEMA_OF("JOB", VERSION_2, struct pm_msg_job, job_rows);

#define T struct pm_msg_done
static const struct pm_field done_rows[] = {
    PM_ROW_U64(T, ref, true, "request answered"),
    PM_ROW_U32(T, count, false, "jobs concerned"),
};
#undef T
const struct pm_schema pm_schema_done = PM_SCHEMA_OF("DONE", VERSION, struct pm_msg_done, done_rows);

#define T struct pm_msg_watch
static const struct pm_field watch_rows[] = {
    PM_ROW_U64(T, ref, true, "request number"),
    PM_ROW_U64(T, job, false, "0: all jobs of the batch, or every job"),
    PM_ROW_STR(T, batch, PM_LIMIT_NAME, false, "group"),
    PM_ROW_BOOL(T, partial, false, "partial text too"),
};
#undef T
const struct pm_schema pm_schema_watch = PM_SCHEMA_OF("WATCH", VERSION, struct pm_msg_watch, watch_rows);

#define T struct pm_msg_event
static const struct pm_field event_rows[] = {
    PM_ROW_U64(T, seq, true, "per connection, without gaps"),
    PM_ROW_MAX(T, kind, PM_EVENT_LOST, true, "1 state, 2 progress, 3 page, 4 partial, 5 retry, 6 lost"),
    PM_ROW_U32(T, page, false, "page number from 1"),
    PM_ROW_U32(T, region, false, "crop + 1"),
    PM_ROW_STR(T, page_blob, BLOB_SIZE, false, "page: blob of the out_page record"),
    PM_ROW_STR(T, text, PM_LIMIT_REGION_TEXT, false, "partial text, or the reason of a retry"),
    PM_ROW_REC(T, info, struct pm_job_info, &job_info, false, "the job as it is now"),
};
#undef T
const struct pm_schema pm_schema_event = PM_SCHEMA_OF("EVENT", VERSION_2, struct pm_msg_event, event_rows);

#define T struct pm_msg_manifest
static const struct pm_field manifest_rows[] = {
    PM_ROW_U64(T, ref, true, "request answered"),
    PM_ROW_U64(T, job, true, "job number"),
    PM_ROW_BIN(T, manifest, PM_LIMIT_INNER_RECORD, false, "encoded manifest record"),
};
#undef T
const struct pm_schema pm_schema_manifest_message =
    PM_SCHEMA_OF("MANIFEST", VERSION, struct pm_msg_manifest, manifest_rows);

#define T struct pm_msg_stats
static const struct pm_field stats_rows[] = {
    PM_ROW_U64(T, ref, true, "request number"),
};
#undef T
const struct pm_schema pm_schema_stats = PM_SCHEMA_OF("STATS", VERSION, struct pm_msg_stats, stats_rows);

#define T struct pm_peer_info
static const struct pm_field peer_info_rows[] = {
    PM_ROW_STR(T, name, PM_LIMIT_NAME, false, "as in its HELLO"),
    PM_ROW_STR(T, role, PM_LIMIT_NAME, false, "name of its role"),
    PM_ROW_STR(T, version, PM_LIMIT_NAME, false, "version of its program"),
    PM_ROW_U64(T, pid, false, "process number"),
    PM_ROW_U32(T, leases, false, "held now"),
    PM_ROW_U32(T, credit, false, "leases it takes at once"),
    PM_ROW_U64(T, done, false, "results accepted"),
    PM_ROW_U64(T, failed, false, "results that were errors"),
    PM_ROW_U64(T, busy_us, false, "sum of run_us"),
    PM_ROW_U64(T, up_us, false, "since its HELLO"),
    PM_ROW_U64(T, silent_us, false, "since its last message"),
    PM_ROW_STR(T, host, PM_LIMIT_NAME, false, "host id"),
    PM_ROW_STR(T, state, PM_LIMIT_NAME, false, "idle, busy, alone, stalled, away, draining"),
    PM_ROW_STRS(T, readers, reader_count, 64, false, "workers: readers served"),
    PM_ROW_U64(T, rss_bytes, false, "its memory; 0: unknown"),
    PM_ROW_U64(T, task, false, "its oldest lease"),
    PM_ROW_U64(T, task_us, false, "age of that"),
    PM_ROW_U64(T, tokens, false, "written so far"),
};
#undef T
static const struct pm_schema peer_info =
    PM_SCHEMA_OF("peer_info", VERSION_2, struct pm_peer_info, peer_info_rows);

#define T struct pm_queue_info
static const struct pm_field queue_info_rows[] = {
    PM_ROW_STR(T, kind, PM_LIMIT_NAME, false, "kind of the tasks"),
    PM_ROW_U64(T, queued, false, "waiting"),
    PM_ROW_U64(T, leased, false, "being worked on"),
    PM_ROW_U64(T, oldest_us, false, "age of the oldest waiting task"),
    PM_ROW_U64(T, done, false, "since the start"),
    PM_ROW_U64(T, failed, false, "since the start, for good"),
    PM_ROW_U64(T, retried, false, "since the start"),
    PM_ROW_STR(T, reader, PM_LIMIT_NAME, false, "region queues: of which reader"),
};
#undef T
static const struct pm_schema queue_info =
    PM_SCHEMA_OF("queue_info", VERSION_2, struct pm_queue_info, queue_info_rows);

#define T struct pm_latency
static const struct pm_field latency_rows[] = {
    PM_ROW_STR(T, name, PM_LIMIT_NAME, true, "wait, run, hop, sync, phase"),
    PM_ROW_STR(T, label, PM_LIMIT_NAME, false, "kind of task or name of a phase"),
    PM_ROW_U64(T, count, false, "since the start"),
    PM_ROW_U64(T, sum_us, false, ""),
    PM_ROW_U64(T, p50_us, false, "half of them took at most this"),
    PM_ROW_U64(T, p99_us, false, "99 of 100 took at most this"),
    PM_ROW_U64(T, max_us, false, "the longest"),
};
#undef T
static const struct pm_schema latency = PM_SCHEMA_OF("latency", VERSION, struct pm_latency, latency_rows);

#define T struct pm_counter
static const struct pm_field counter_rows[] = {
    PM_ROW_STR(T, name, PM_LIMIT_NAME, true, "what is counted"),
    PM_ROW_U64(T, value, false, "since the start"),
};
#undef T
static const struct pm_schema counter = PM_SCHEMA_OF("counter", VERSION, struct pm_counter, counter_rows);

#define T struct pm_msg_fleet
static const struct pm_field fleet_rows[] = {
    PM_ROW_U64(T, ref, true, "request answered"),
    PM_ROW_U64(T, epoch, true, "the broker's epoch"),
    PM_ROW_U64(T, up_us, false, "since the broker started"),
    PM_ROW_STR(T, version, PM_LIMIT_NAME, false, "of the broker"),
    PM_ROW_RECS(T, peers, peer_count, struct pm_peer_info, &peer_info, PM_LIMIT_PEERS, false,
                "connected service processes"),
    PM_ROW_RECS(T, queues, queue_count, struct pm_queue_info, &queue_info, 64, false, "one a task kind"),
    PM_ROW_RECS(T, counters, counter_count, struct pm_counter, &counter, 1024, false,
                "every refusal, retry, fence and drop"),
    PM_ROW_U64(T, jobs_queued, false, ""),
    PM_ROW_U64(T, jobs_running, false, ""),
    PM_ROW_U64(T, jobs_done, false, ""),
    PM_ROW_U64(T, jobs_failed, false, ""),
    PM_ROW_U64(T, jobs_cancelled, false, ""),
    PM_ROW_U64(T, pages_done, false, ""),
    PM_ROW_U64(T, regions_done, false, ""),
    PM_ROW_U64(T, pixel_bytes, false, "pixel blobs alive"),
    PM_ROW_U64(T, pixel_budget_bytes, false, "how many may be"),
    PM_ROW_U64(T, disk_bytes_free, false, "on the disk of durable blobs"),
    PM_ROW_BOOL(T, is_draining, false, "takes no more jobs"),
    PM_ROW_RECS(T, latencies, latency_count, struct pm_latency, &latency, PM_LIMIT_LATENCIES, false,
                "how long things took"),
    PM_ROW_U64(T, tokens, false, "written since the start"),
    PM_ROW_U64(T, rss_bytes, false, "memory of the broker"),
    PM_ROW_U64(T, state_bytes, false, "what its journal and blobs take on disk"),
    PM_ROW_U64(T, clients, false, "connected"),
};
#undef T
const struct pm_schema pm_schema_fleet = PM_SCHEMA_OF("FLEET", VERSION_2, struct pm_msg_fleet, fleet_rows);

#define T struct pm_msg_shutdown
static const struct pm_field shutdown_rows[] = {
    PM_ROW_U64(T, ref, true, "request number"),
    PM_ROW_BOOL(T, now, false, "false: finish what runs first"),
};
#undef T
const struct pm_schema pm_schema_shutdown =
    PM_SCHEMA_OF("SHUTDOWN", VERSION, struct pm_msg_shutdown, shutdown_rows);

#define T struct pm_msg_blob_put
static const struct pm_field blob_put_rows[] = {
    PM_ROW_U64(T, ref, true, "request number"),
    PM_ROW_U64(T, upload, true, "client's number of this file; chunks come in order"),
    PM_ROW_U64(T, offset, false, "of this chunk in the file"),
    PM_ROW_BOOL(T, is_last, false, "the file ends with this chunk"),
    PM_ROW_MAX(T, raw_bytes, PM_CHUNK_BYTES, false, "size of this chunk when unpacked"),
};
#undef T
const struct pm_schema pm_schema_blob_put =
    PM_SCHEMA_OF("BLOB_PUT", VERSION, struct pm_msg_blob_put, blob_put_rows);

#define T struct pm_msg_blob_stored
static const struct pm_field blob_stored_rows[] = {
    PM_ROW_U64(T, ref, true, "request answered"),
    PM_ROW_U64(T, upload, true, "which file"),
    PM_ROW_U64(T, offset, false, "bytes received so far"),
    PM_ROW_STR(T, blob, BLOB_SIZE, false, "after the last chunk: the key"),
};
#undef T
const struct pm_schema pm_schema_blob_stored =
    PM_SCHEMA_OF("BLOB_STORED", VERSION, struct pm_msg_blob_stored, blob_stored_rows);

#define T struct pm_msg_blob_get
static const struct pm_field blob_get_rows[] = {
    PM_ROW_U64(T, ref, true, "request number"),
    PM_ROW_STR(T, blob, BLOB_SIZE, true, "key"),
    PM_ROW_U64(T, offset, false, "where to start"),
};
#undef T
const struct pm_schema pm_schema_blob_get =
    PM_SCHEMA_OF("BLOB_GET", VERSION, struct pm_msg_blob_get, blob_get_rows);

#define T struct pm_msg_blob_data
static const struct pm_field blob_data_rows[] = {
    PM_ROW_U64(T, ref, true, "request answered"),
    PM_ROW_U64(T, offset, false, "of this chunk"),
    PM_ROW_U64(T, total, false, "size of the blob"),
    PM_ROW_MAX(T, raw_bytes, PM_CHUNK_BYTES, false, "size of this chunk when unpacked"),
};
#undef T
const struct pm_schema pm_schema_blob_data =
    PM_SCHEMA_OF("BLOB_DATA", VERSION, struct pm_msg_blob_data, blob_data_rows);
