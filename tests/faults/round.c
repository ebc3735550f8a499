#include "tests/faults/round.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "tests/faults/document.h"

#define NUMBERS         1000000u /* documents of different rounds and clients never have the same number */
#define FORGET_LIMIT_US 120000000

void round_begin(struct round *c, struct rig *rig, uint64_t number, const char *document)
{
    *c = (struct round){.rig = rig, .document = document};
    c->finish = pm_xprintf("%s/round-%llu-finish", rig->setup.dir, (unsigned long long)number);
    unlink(c->finish);
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++) {
        size_t n = 0;
        c->base[i] = (unsigned)(number % 2000 * ROUND_CLIENTS + i) * NUMBERS;
        c->name[i] = pm_xprintf("round-%llu-%u", (unsigned long long)number, i);
        c->ledger[i] = pm_xprintf("%s/ledgers/%s", rig->setup.dir, c->name[i]);
        c->seed[i] = pm_xprintf("%u", c->base[i]);
        const char *const fixed[] = {
            "storm_client", "--socket", rig->socket, "--ledger", c->ledger[i], "--name", c->name[i],
            "--seed",       c->seed[i], "--check",   "4",        "--finish",   c->finish};
        for (; n < sizeof fixed / sizeof *fixed; n++)
            c->argv[i][n] = fixed[n];
        if (document) {
            c->argv[i][n++] = "--document";
            c->argv[i][n++] = document;
        }
        if (i == 2) /* one that does not share the file system */
            c->argv[i][n++] = "--remote";
        c->argv[i][n] = NULL;
        rig->client_argv[i] = c->argv[i];
        rig_find(rig, RIG_CLIENT, i)->has_ended = false;
    }
}

void round_free(struct round *c)
{
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++) {
        free(c->name[i]);
        free(c->ledger[i]);
        free(c->seed[i]);
    }
    free(c->finish);
}

void round_finish(struct round *c)
{
    struct pm_error err;
    if (pm_fs_write(c->finish, "", 0, false, &err))
        rig_give_up("%s", err.text);
}

bool round_is_over(const struct round *c)
{
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++)
        if (!rig_find(c->rig, RIG_CLIENT, i)->has_ended)
            return false;
    return true;
}

off_t round_knowledge(const struct round *c)
{
    off_t sum = 0;
    struct stat st;
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++)
        if (!stat(c->ledger[i], &st))
            sum += st.st_size;
    return sum;
}

static void judge_results(const struct ledger *l, const struct ledger *calm, unsigned base, bool is_over,
                          struct verdict *v)
{
    for (unsigned i = 0; i < l->count; i++) {
        const struct ledger_entry *e = &l->entries[i];
        char want[PM_HASH_HEX + 1];
        if (is_over) {
            v->jobs += e->job != 0;
            v->results += e->results;
            v->resubmits += e->again;
        }
        if (calm)
            memcpy(want, calm->entries[i % ROUND_REAL_PAGES].hash, sizeof want);
        else
            document_result_hash(base + i, want);
        if (*e->failure || e->differs || (e->results && strcmp(e->hash, want) != 0)) {
            printf("wrong: document %u, job %llu: %s\n", i, (unsigned long long)e->job,
                   *e->failure ? e->failure : "its result is not that of an undisturbed run");
            v->wrong++;
        }
        if (is_over && e->job && !e->results && !*e->failure) {
            printf("lost: document %u, job %llu: no result came\n", i, (unsigned long long)e->job);
            v->lost++;
        }
    }
}

void round_judge(struct round *c, const struct ledger *calm, bool is_over, struct verdict *v)
{
    struct audit a = {0};
    char *blobs = pm_fs_join(c->rig->state, "blobs"), *journal = pm_fs_join(c->rig->state, "journal.db");
    if (is_over)
        audit_commits(journal, &a);
    audit_blobs(journal, blobs, &a);
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++) {
        struct ledger l;
        ledger_read(c->ledger[i], &l);
        audit_ledger(journal, c->name[i], &l, is_over, &a);
        judge_results(&l, calm, c->base[i], is_over, v);
        ledger_free(&l);
    }
    v->pages += a.pages;
    v->regions += a.regions;
    v->lost += a.lost;
    v->doubled += a.doubled;
    v->wrong += a.wrong + a.damaged;
    v->unfinished += a.unfinished;
    free(blobs);
    free(journal);
}

bool round_forget(struct round *c)
{
    char *program = rig_program(c->rig, "tests/storm_client");
    bool is_done = true;
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++) {
        const char *argv[] = {"storm_client", "--forget",   "--socket", c->rig->socket,
                              "--ledger",     c->ledger[i], NULL};
        is_done &= !rig_run(c->rig, program, argv, FORGET_LIMIT_US);
        unlink(c->ledger[i]);
    }
    unlink(c->finish);
    free(program);
    return is_done;
}
