/* Fake peers and clients for the broker's tests: a real broker process, and sockets that say exactly what the
 * test wants. Every wait has a limit; failures end the test. */
#ifndef PM_TEST_BROKER_FAKE_H
#define PM_TEST_BROKER_FAKE_H

#include "base/mem.h"
#include "base/supervise.h"
#include "proto/blob.h"
#include "proto/frame.h"

struct fixture { /* one broker and its directories */
    char dir[64], *state, *run, *pixels;
    struct pm_child broker;
    int keep_fd; /* 0: none; another descriptor that the broker gets */
    struct pm_blobs *blobs;
    void *zmq;
};
void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);
/* extra: more options, NULL-terminated; may be NULL. Waits until it serves. */
void broker_start(struct fixture *f, const char *const *extra);
void broker_kill(struct fixture *f); /* kill -9 */
int broker_stop(struct fixture *f);  /* SIGTERM; the exit code */
/* Runs a second broker on the same directories; its exit code. */
int broker_run_again(struct fixture *f, const char *state, const char *run);

struct link {
    struct fixture *f;
    void *socket;
    uint32_t seq;
    uint64_t epoch, instance, granted;
    struct pm_arena arena;
    struct pm_message last;
    struct fake_lease {
        uint64_t task, epoch, job;
        uint32_t attempt, kind, page, region;
    } kept[64]; /* leases that came while something else was waited for */
    size_t kept_count;
    const char *model;  /* workers: identity of their reader's model; NULL: not told */
    const char *reader; /* workers; NULL: "fast" */
};
void link_open(struct link *l, struct fixture *f, const char *socket_name);
void link_close(struct link *l);
void link_send(struct link *l, uint32_t type, const void *record);
void link_send_payload(struct link *l, uint32_t type, const void *record, const void *payload, size_t bytes);
/* The next message within 5 s (others of type PING are skipped); its record. Fails the test when none. */
const void *link_receive(struct link *l, uint32_t *type_out);
/* Waits for this type, passing over others (leases are kept for take_lease). */
const void *link_expect(struct link *l, uint32_t type);
/* True when nothing comes for ms milliseconds. */
bool link_is_silent(struct link *l, int ms);
bool link_try(struct link *l, int ms); /* anything within ms: in last */

/* Says hello and waits for the welcome. */
void client_open(struct link *l, struct fixture *f, const char *client);
void service_open(struct link *l, struct fixture *f, enum pm_role role, const char *name, uint32_t credit);
void service_hello(struct link *l, enum pm_role role, const char *name, uint32_t credit, uint64_t pid,
                   const struct pm_held *held, uint32_t held_count);

void put_blob(struct fixture *f, enum pm_blob_class cls, const char *text, char key[PM_BLOB_KEY_SIZE]);
uint64_t submit(struct link *client, const char *source_text, const char *key, bool *duplicate_out);
struct pm_job_info job_status(struct link *client, uint64_t job); /* strings until the next receive */
uint64_t counter(struct link *client, const char *name);

/* The next lease: its identity and what is needed to answer it. */
struct fake_lease take_lease(struct link *l);
bool try_lease(struct link *l, int ms, struct fake_lease *out);
/* Answers as a good peer would: open finds `pages` pages, a page has `regions` regions. accepted of the ack.
 */
bool answer_lease(struct link *l, const struct fake_lease *lease, uint32_t pages, uint32_t regions);
void send_answer(struct link *l, const struct fake_lease *lease, uint32_t pages, uint32_t regions);
bool fail_lease(struct link *l, const struct fake_lease *lease, const char *code, const char *text,
                bool is_final);

/* A broker and one fake peer of each kind. */
struct fleet {
    struct fixture f;
    struct link client, layoutd, worker, collector;
};
void fleet_open(struct fleet *t);
void fleet_close(struct fleet *t);
/* Serves whatever comes until the job has ended. */
struct pm_job_info serve_until_done(struct fleet *t, uint64_t job, uint32_t pages, uint32_t regions);
size_t files_below(const char *dir);
/* Crop sheets go with their pages, a moment later. */
void pixels_are_gone_soon(struct fleet *t);
/* A process that can be killed: the test says hello for it. */
pid_t start_victim(void);
void expect_refusal(struct link *l, const char *code, const char *text);

#endif
