/* A broker in a thread, for tests of the client: answers every request from a small table of jobs and does
 * wrong what a test asks for. Control fields are set before the request that they are about. */
#ifndef PM_TESTS_FAKE_BROKER_H
#define PM_TESTS_FAKE_BROKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "proto/blob.h"
#include "proto/frame.h"
#include "proto/page.h"

#define FAKE_JOBS 64

struct fake_job {
    uint64_t job;
    char key[80], name[200], stem[200], batch[80], source[PM_BLOB_KEY_SIZE];
    _Atomic uint32_t state;
};
struct fake_broker {
    char dir[64], endpoint[128];
    struct pm_blobs *blobs;
    /* what goes wrong */
    _Atomic int swallow;         /* requests left unanswered */
    _Atomic int busy;            /* submits refused with "busy" */
    _Atomic int lose_link;       /* restart instead of answering the next request */
    _Atomic int garbage;         /* malformed messages sent before the next answer */
    _Atomic int corrupt_data;    /* BLOB_DATA carries other bytes */
    _Atomic int wrong_answer;    /* answer of another type */
    _Atomic int forget_sources;  /* SUBMIT says not-found while the source was not uploaded */
    _Atomic int finish_on_watch; /* a watched job becomes DONE, with a PAGE event, right after WATCH */
    _Atomic int progress_events; /* that many PROGRESS events come before */
    const char *manifest_name;   /* of the one result file, "STEM.md" by default */
    char result_blob[PM_BLOB_KEY_SIZE];
    /* what it saw */
    _Atomic int submits, uploads, hellos, watches, cancels;
    struct pm_msg_submit last_submit; /* numbers and flags only */
    struct fake_job jobs[FAKE_JOBS];
    _Atomic uint32_t job_count;
    /* private */
    pthread_t thread;
    _Atomic int stop;
    void *context, *socket;
    uint64_t epoch, event_seq;
    uint32_t seq;
    struct pm_buf upload;
};

void fake_start(struct fake_broker *fake);
void fake_stop(struct fake_broker *fake);

#endif
