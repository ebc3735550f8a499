/* Shared by model_world.c (the broker's side, the run) and model_acts.c (peers, restarts, clients). */
#ifndef PM_TEST_BROKER_MODEL_INTERNAL_H
#define PM_TEST_BROKER_MODEL_INTERNAL_H

#include "base/mem.h"
#include "broker/journal.h"
#include "model_book.h"
#include "model_world.h"

#define PEERS    7
#define MAX_HELD 32
#define OLD      128
#define MAX_JOBS 14 /* unfinished */
#define ADOPT_US 300000
#define SLACK_US 20000000 /* a slow task may take longer before it counts as stalled */
#define BLOB     "d00000000000000000000000000000000000000000000000000000000000000aa"
#define SHEET    "p00000000000000000000000000000000000000000000000000000000000000bb"

struct fake {
    bool is_there, is_silent; /* silent: stopped, it neither beats nor answers */
    uint32_t id;
    uint64_t granted;
    struct pm_held held[MAX_HELD];
    bool is_stuck[MAX_HELD]; /* beats, and never ends */
    uint32_t held_count;
    bool has_lost; /* a lease that was sent never came: its credit does not come back */
};
struct world {
    const struct model_run *run;
    uint64_t random;
    struct pm_sched *sched;
    struct reference ref;
    struct book book;
    struct pm_journal *journal;
    struct pm_now now;
    struct fake peers[PEERS];
    struct pm_held old[OLD]; /* leases of the past */
    uint32_t old_count;
    uint64_t news[MAX_HELD]; /* tasks of a killed process, of which it will be said that it crashed */
    uint32_t news_count;
    bool is_pending; /* something was decided after the last commit */
    struct pm_arena arena;
    struct model_figures figures;
};

enum fate { GOOD, BAD_INPUT, POISON, HEAVY, STUBBORN, LOSING /* the crops of its page vanish */ };
enum crash { BETWEEN_TURNS, BEFORE_COMMIT, AFTER_COMMIT };
uint32_t model_below(struct world *w, uint32_t n);
void model_decide(struct world *w);
void model_drop_held(struct world *w, struct fake *p, uint32_t i);
void model_end_turn(struct world *w);
enum fate model_fate_of(uint64_t task, uint32_t attempt);
void model_give_credit(struct world *w, struct fake *p);
void model_leave(struct world *w, struct fake *p, enum pm_peer_end how);
int model_load_one(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err);
bool model_one_in(struct world *w, uint32_t n);
uint32_t model_page_count_of(uint64_t job);
uint32_t model_region_count_of(uint64_t task);
void model_start_broker(struct world *w);
void model_write_ops(struct world *w, const struct pm_actions *a);
void model_answer(struct world *w, struct fake *p, bool twice);
void model_answer_wrongly(struct world *w, struct fake *p);
void model_expect_code(const char *what, uint64_t job, int rc, int expected);
void model_greet(struct world *w, struct fake *p, bool is_known);
void model_is_heard(struct world *w, const struct fake *p);
int model_job_count(const struct world *w);
void model_meddle(struct world *w);
void model_present_old(struct world *w, struct fake *p);
void model_restart(struct world *w, enum crash when);
void model_retry(struct world *w, uint64_t job);
void model_submit(struct world *w);
void model_tell(const struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
