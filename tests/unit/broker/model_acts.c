/* What peers and clients of the model do, and restarts. */
#include <stdio.h>
#include <string.h>

#include "model_internal.h"
#include "proto/page.h"

static const enum pm_role roles[PEERS] = {PM_ROLE_LAYOUTD,  PM_ROLE_LAYOUTD, PM_ROLE_WORKER,
                                          PM_ROLE_WORKER,   PM_ROLE_WORKER,  PM_ROLE_COLLECTOR,
                                          PM_ROLE_COLLECTOR};

/* ---- peers ---- */

static void name_of(int index, char out[16])
{
    snprintf(out, 16, "peer-%d", index);
}

/* Says hello: for the first time to this broker, or again over a new connection. */
void model_greet(struct world *w, struct fake *p, bool is_known)
{
    static const char *const readers[] = {"fast"};
    int index = (int)(p - w->peers);
    char name[16];
    struct pm_held held[MAX_HELD];
    uint32_t count = p->held_count;
    memcpy(held, p->held, sizeof held);
    name_of(index, name);
    p->granted = count + 1 + model_below(w, 5);
    struct pm_sched_peer facts = {.role = roles[index],
                                  .name = name,
                                  .version = "1",
                                  .readers = readers,
                                  .reader_count = roles[index] == PM_ROLE_WORKER,
                                  .granted = p->granted,
                                  .leased = count};
    if (is_known) {
        pm_sched_peer_rejoin(w->sched, p->id, p->granted, count);
        pm_sched_alive(w->sched, p->id);
        pm_sched_unheld(w->sched, w->now, p->id, held, count);
    } else {
        p->id = pm_sched_peer_join(w->sched, w->now, &facts);
    }
    p->is_there = true;
    p->has_lost = false;
    ref_join(&w->ref, p->id, roles[index], name, p->granted, count);
    if (is_known)
        ref_unheld(&w->ref, p->id, held, count);
    model_tell(w, "peer %d greets%s, credit %llu, holds %u", index, is_known ? " again" : "",
               (unsigned long long)p->granted, count);
    for (uint32_t i = count; i-- > 0;) {
        bool is_kept = pm_sched_held(w->sched, w->now, p->id, &held[i]);
        if (is_kept != ref_held(&w->ref, p->id, &held[i]))
            ref_broken("attempt %u of task %llx, epoch %llu, was presented and %s", held[i].attempt,
                       (unsigned long long)held[i].task, (unsigned long long)held[i].epoch,
                       is_kept ? "taken over" : "refused");
        model_tell(w, "  holds %llx attempt %u: %s", (unsigned long long)held[i].task, held[i].attempt,
                   is_kept ? "keeps it" : "refused");
        if (is_kept)
            continue;
        model_drop_held(w, p, i);
        model_give_credit(w, p);
    }
}

void model_is_heard(struct world *w, const struct fake *p)
{
    struct ref_peer *r = ref_peer(&w->ref, p->id);
    pm_sched_alive(w->sched, p->id);
    if (r)
        r->is_stalled = r->is_mute = false;
}

static void fill_result(struct world *w, const struct pm_held *h, struct pm_msg_result *r)
{
    *r = (struct pm_msg_result){.task = h->task,
                                .epoch = h->epoch,
                                .attempt = h->attempt,
                                .error_code = "",
                                .error_text = "",
                                .record = BLOB,
                                .sheet = SHEET,
                                .sheet_bytes = 1000 + model_below(w, 100000),
                                .blob = BLOB,
                                .fingerprint = "",
                                .run_us = 1000 + model_below(w, 50000)};
    switch (pm_task_kind(h->task)) {
    case PM_KIND_OPEN:
        r->page_count = model_page_count_of(pm_task_job(h->task));
        r->pages = pm_arena_alloc(&w->arena, r->page_count * sizeof *r->pages);
        for (uint32_t i = 0; i < r->page_count; i++)
            r->pages[i] = (struct pm_found_page){1 + 2 * i, 1000, 1400};
        break;
    case PM_KIND_PAGE:
        r->cost_count = model_region_count_of(h->task);
        r->costs = pm_arena_alloc(&w->arena, r->cost_count * sizeof *r->costs + 1);
        for (uint32_t i = 0; i < r->cost_count; i++)
            r->costs[i] = i % 4 == 3 ? 0 : 1 + i;
        break;
    case PM_KIND_REGION:
        r->text = (struct pm_bytes){(const uint8_t *)"text", 4};
        break;
    case PM_KIND_ASSEMBLE_PAGE:
        break;
    case PM_KIND_ASSEMBLE_DOC: {
        struct pm_manifest m = {.pages = 1};
        struct pm_buf b = {0};
        pm_record_encode(&pm_manifest_schema, &m, &b);
        r->manifest = (struct pm_bytes){(uint8_t *)pm_arena_text(&w->arena, (char *)b.data, b.size), b.size};
        pm_buf_free(&b);
        break;
    }
    }
}

/* A success that cannot be. */
static void spoil(struct pm_msg_result *r)
{
    if (pm_task_kind(r->task) == PM_KIND_PAGE && r->attempt % 2)
        r->cost_count = PM_TASK_MAX_REGIONS + 1;
    r->page_count = 0;
    r->record = r->blob = "";
    r->text.size = r->manifest.size = 0;
}

static void send_result(struct world *w, const struct fake *p, const struct pm_msg_result *r)
{
    struct pm_error err;
    int expected = ref_result(&w->ref, p->id, r);
    int rc = pm_sched_result(w->sched, w->now, p->id, r, &err);
    model_tell(w, "peer %d: %llx attempt %u epoch %llu: %s: %d", (int)(p - w->peers),
               (unsigned long long)r->task, r->attempt, (unsigned long long)r->epoch,
               *r->error_code ? r->error_code : "done", rc);
    if (rc != expected)
        ref_broken(
            "the result of attempt %u of task %llx, epoch %llu, from peer %u was answered with %d, not %d",
            r->attempt, (unsigned long long)r->task, (unsigned long long)r->epoch, p->id, rc, expected);
}

/* What the peer says of one of its leases. False: it dies of it. */
static bool make_answer(struct world *w, const struct fake *p, const struct pm_held *h,
                        struct pm_msg_result *r)
{
    static const char *const soft[] = {"io",        "timeout",  "no-memory", "not-found",
                                       "not-found", "internal", "no-space",  "crash"};
    enum fate fate = model_fate_of(h->task, h->attempt);
    fill_result(w, h, r);
    if (fate == POISON)
        return false;
    if (fate == LOSING) {
        r->error_code = "not-found";
        r->error_text = "the crops are gone";
    } else if (fate == BAD_INPUT || (fate == HEAVY && p->held_count > 1)) {
        r->error_code = fate == HEAVY ? "no-memory" : "format";
        r->error_text = "as its fate wants it";
        r->is_final_error = fate == BAD_INPUT && h->task % 2;
    } else if (fate == STUBBORN || model_one_in(w, 40)) {
        r->error_code = soft[model_below(w, 8)];
        r->error_text = "bad luck";
    } else if (model_one_in(w, 200)) {
        spoil(r);
    }
    return true;
}

void model_answer(struct world *w, struct fake *p, bool twice)
{
    uint32_t i = model_below(w, p->held_count);
    struct pm_msg_result r;
    if (p->is_stuck[i])
        return;
    if (!make_answer(w, p, &p->held[i], &r)) {
        model_leave(w, p, PM_PEER_CRASHED);
        return;
    }
    model_is_heard(w, p);
    send_result(w, p, &r);
    model_drop_held(w, p, i);
    model_give_credit(w, p);
    if (twice)
        send_result(w, p, &r);
}

/* Answers that must not count: of the past, of somebody else's lease, with a forged number. */
void model_answer_wrongly(struct world *w, struct fake *p)
{
    struct pm_held h = {0};
    const struct fake *other = &w->peers[model_below(w, PEERS)];
    if (model_one_in(w, 2) && w->old_count)
        h = w->old[model_below(w, w->old_count)];
    else if (other->held_count)
        h = other->held[model_below(w, other->held_count)];
    else
        return;
    uint32_t dice = model_below(w, 6);
    h.attempt += dice == 0;
    h.attempt += dice == 1 ? 256 : 0;
    h.epoch += dice == 2;
    h.epoch -= dice == 3;
    h.task ^= dice == 4;
    /* Its own current lease would count, of course. */
    if (ref_is_current(&w->ref, p->id, h.task, h.epoch, h.attempt))
        return;
    struct pm_msg_result r;
    fill_result(w, &h, &r);
    model_is_heard(w, p);
    send_result(w, p, &r);
}

/* ---- restarts ---- */

/* The broker ends without a word. BEFORE_COMMIT: in a turn, of which nothing is left. */
void model_restart(struct world *w, enum crash when)
{
    struct fake *p = &w->peers[model_below(w, PEERS)];
    struct pm_msg_result r;
    if (when == BEFORE_COMMIT && w->is_pending)
        when = BETWEEN_TURNS;
    model_tell(w, "the broker is killed (%d)", when);
    if (when == BEFORE_COMMIT && p->is_there && p->held_count && make_answer(w, p, &p->held[0], &r)) {
        pm_sched_result(w->sched, w->now, p->id, &r, NULL);
        pm_sched_tick(w->sched, w->now);
        pm_sched_assign(w->sched, w->now);
        w->figures.lost_turns++;
    } else if (when == AFTER_COMMIT || w->is_pending) { /* committed, and nobody was told */
        model_decide(w);
        model_write_ops(w, pm_sched_actions(w->sched));
    }
    w->is_pending = false;
    w->figures.restarts++;
    w->news_count = 0;
    pm_sched_free(&w->sched);
    model_start_broker(w);
    ref_restart(&w->ref, w->book.epoch, ADOPT_US);
    for (int i = 0; i < PEERS; i++) {
        p = &w->peers[i];
        bool was_there = p->is_there;
        p->is_there = false;
        if (was_there && !model_one_in(w, 4))
            model_greet(w, p, false);
    }
    if (model_one_in(w, 2)) {
        pm_sched_adopt_end(w->sched);
        w->ref.adopt_until_us = 0;
    }
}

/* Peers that were away come with leases of long ago; so do liars. */
void model_present_old(struct world *w, struct fake *p)
{
    struct pm_held h;
    const struct fake *other = &w->peers[model_below(w, PEERS)];
    if (!w->old_count || p->held_count == MAX_HELD)
        return;
    h = w->old[model_below(w, w->old_count)];
    if (model_one_in(w, 3) && other != p && other->held_count)
        h = other->held[model_below(w, other->held_count)];
    if (ref_is_current(&w->ref, p->id, h.task, h.epoch, h.attempt))
        return;
    bool is_kept = pm_sched_held(w->sched, w->now, p->id, &h);
    if (is_kept != ref_held(&w->ref, p->id, &h))
        ref_broken("attempt %u of task %llx, epoch %llu, was presented late and %s", h.attempt,
                   (unsigned long long)h.task, (unsigned long long)h.epoch,
                   is_kept ? "taken over" : "refused");
    model_tell(w, "peer %d presents %llx attempt %u of long ago: %s", (int)(p - w->peers),
               (unsigned long long)h.task, h.attempt, is_kept ? "keeps it" : "refused");
    if (!is_kept)
        return;
    p->is_stuck[p->held_count] = false;
    p->held[p->held_count++] = h;
}

/* ---- clients ---- */

void model_expect_code(const char *what, uint64_t job, int rc, int expected)
{
    if (rc != expected)
        ref_broken("%s of job %llu was answered with %d, not %d", what, (unsigned long long)job, rc,
                   expected);
}

void model_submit(struct world *w)
{
    char client[8], key[16] = "";
    uint64_t job = 0, expected = 0;
    bool duplicate = false;
    snprintf(client, sizeof client, "c%u", model_below(w, 3));
    if (!model_one_in(w, 8))
        snprintf(key, sizeof key, "k%u", model_below(w, 400));
    struct pm_msg_submit m = {
        .key = key, .name = "x.pdf", .source = BLOB, .batch = "b", .priority = model_below(w, 5)};
    int rc = pm_sched_submit(w->sched, w->now, client, &m, &job, &duplicate, NULL);
    int expected_rc = ref_submit(&w->ref, duplicate ? 0 : job, client, key, &expected);
    model_tell(w, "submit %s/%s: %d, job %llu%s", client, key, rc, (unsigned long long)job,
               duplicate ? ", a duplicate" : "");
    model_expect_code("submit", job, rc, expected_rc);
    if (!rc && job != expected)
        ref_broken("submit gave job %llu, not %llu", (unsigned long long)job, (unsigned long long)expected);
    w->figures.jobs += !rc && !duplicate;
}

int model_job_count(const struct world *w)
{
    int count = 0;
    for (int i = 0; i < REF_JOBS; i++)
        count += w->ref.jobs[i].id != 0;
    return count;
}

static uint64_t some_job(struct world *w)
{
    if (model_one_in(w, 40))
        return 1 + model_below(w, 1000); /* most likely not there */
    for (int tries = 0; tries < 8; tries++) {
        uint64_t id = w->ref.jobs[model_below(w, REF_JOBS)].id;
        if (id)
            return id;
    }
    return 0;
}

void model_retry(struct world *w, uint64_t job)
{
    struct pm_job_image image = {.job = job};
    model_end_turn(w); /* the journal is asked */
    bool is_there = model_load_one(w, job, &image, NULL) == 0;
    if (is_there != (ref_job(&w->ref, job) != NULL))
        ref_broken("job %llu is%s in the journal", (unsigned long long)job, is_there ? "" : " not");
    int rc = pm_sched_retry(w->sched, w->now, &image, NULL);
    model_tell(w, "retry %llu: %d", (unsigned long long)job, rc);
    w->figures.retried += !rc;
    model_expect_code("retry", job, rc, ref_retry(&w->ref, job));
}

void model_meddle(struct world *w)
{
    uint64_t job = some_job(w);
    uint32_t dice = model_below(w, 8);
    int rc;
    if (!job)
        return;
    if (dice < 1) {
        rc = pm_sched_cancel(w->sched, w->now, job, NULL);
        model_tell(w, "cancel %llu: %d", (unsigned long long)job, rc);
        model_expect_code("cancel", job, rc, ref_cancel(&w->ref, job));
    } else if (dice < 3) {
        model_retry(w, job);
    } else if (dice < 6) {
        model_end_turn(w); /* a job whose rows are written in this turn cannot be forgotten */
        if (w->is_pending)
            return;
        rc = pm_sched_forget(w->sched, job, NULL);
        model_tell(w, "forget %llu: %d", (unsigned long long)job, rc);
        model_expect_code("forget", job, rc, ref_forget(&w->ref, job));
    } else {
        uint32_t page = 1 + 2 * model_below(w, REF_PAGES);
        model_tell(w, "page %u of job %llu is lost", page, (unsigned long long)job);
        pm_sched_page_lost(w->sched, w->now, job, page);
        ref_page_lost(&w->ref, job, page);
    }
}
