/* Shared by reference.c (what follows from what) and reference_peers.c (peers, leases, what is checked). */
#ifndef PM_TEST_BROKER_REFERENCE_INTERNAL_H
#define PM_TEST_BROKER_REFERENCE_INTERNAL_H

#include "reference.h"

#define REF_MAX_FAILS      5
#define REF_MAX_CRASHES    2
#define REF_KILLS_PER_FAIL 4
#define REF_MAX_RERUNS     3

/* One task with all that it belongs to. */
struct ref_place {
    struct ref_job *job;
    struct ref_page *page;
    struct ref_task *t;
    enum pm_task_kind kind;
    uint32_t slot, generation;
    uint64_t task;
};

bool ref_find(struct reference *r, uint64_t task, struct ref_place *out);
bool ref_is_live(const struct ref_job *j);
void ref_each_task(struct reference *r, struct ref_job *j,
                   void (*fn)(struct reference *, struct ref_task *, uint64_t, void *), void *ctx);
void ref_each_live(struct reference *r, void (*fn)(struct reference *, struct ref_task *, uint64_t, void *),
                   void *ctx);
struct ref_line *ref_expect(struct reference *r, enum pm_op_kind kind, uint64_t task);
void ref_make_open(struct ref_task *t);
void ref_stop(struct reference *r, struct ref_task *t, uint64_t task);
void ref_finish(struct reference *r, struct ref_job *j, uint32_t state);
void ref_page_check(struct ref_page *p);
void ref_job_check(struct reference *r, struct ref_job *j);
void ref_page_rerun(struct reference *r, struct ref_job *j, struct ref_page *p);
void ref_give_up(struct reference *r, const struct ref_place *at);
void ref_put_tries(struct reference *r, const struct ref_place *at);
void ref_fail(struct reference *r, const struct ref_place *at, enum ref_cause cause, uint32_t attempt,
              uint32_t peer);
void ref_count(struct ref_job *j);
struct ref_page *ref_page_of(struct ref_job *j, uint32_t number);
enum ref_cause ref_cause_of(const struct pm_msg_result *m);

#endif
