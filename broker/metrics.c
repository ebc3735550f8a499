#include "broker/metrics.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct pm_metrics *pm_metrics_new(void)
{
    struct pm_metrics *m = pm_xalloc(sizeof *m);
    m->phases = pm_xalloc(PM_METRICS_PHASES * sizeof *m->phases);
    m->readers = pm_xalloc(PM_METRICS_READERS * sizeof *m->readers);
    return m;
}

void pm_metrics_free(struct pm_metrics **metrics)
{
    struct pm_metrics *m = *metrics;
    if (!m)
        return;
    for (uint32_t i = 0; i < m->reader_count; i++)
        free(m->readers[i].name);
    free(m->readers);
    free(m->phases);
    free(m);
    *metrics = NULL;
}

/* Peers name their phases: what comes out is a word. */
static void clean_name(const char *from, char out[PM_METRICS_NAME])
{
    size_t i = 0;
    for (; from && from[i] && i < PM_METRICS_NAME - 1; i++) {
        char c = from[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        out[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : is_word ? c : '_';
    }
    out[i] = 0;
}

static struct pm_metrics_phase *phase_of(struct pm_metrics *m, enum pm_task_kind kind, const char *name)
{
    char clean[PM_METRICS_NAME];
    for (uint32_t i = 0; name && i < m->phase_count; i++)
        if (m->phases[i].kind == kind && !strcmp(m->phases[i].name, name))
            return &m->phases[i]; /* nearly always: names are words */
    clean_name(name, clean);
    for (uint32_t i = 0; i < m->phase_count; i++)
        if (m->phases[i].kind == kind && !strcmp(m->phases[i].name, clean))
            return &m->phases[i];
    uint32_t at = m->phase_count;
    if (at < PM_METRICS_PHASES)
        m->phase_count++;
    else
        return &m->phases[PM_METRICS_PHASES - 1];
    m->phases[at].kind = kind;
    strcpy(m->phases[at].name, at < PM_METRICS_PHASES - 1 ? clean : "other");
    return &m->phases[at];
}

static struct pm_metrics_reader *reader_of(struct pm_metrics *m, const char *name)
{
    for (uint32_t i = 0; i < m->reader_count; i++)
        if (!strcmp(m->readers[i].name, name))
            return &m->readers[i];
    if (m->reader_count == PM_METRICS_READERS)
        return &m->readers[PM_METRICS_READERS - 1];
    bool is_last = m->reader_count == PM_METRICS_READERS - 1;
    m->readers[m->reader_count].name = pm_xstrdup(is_last ? "other" : name);
    return &m->readers[m->reader_count++];
}

static uint64_t at_most(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
}

void pm_metrics_result(struct pm_metrics *m, enum pm_task_kind kind, const char *reader, int64_t wait_us,
                       int64_t run_us, struct pm_msg_result *r)
{
    uint32_t k = (uint32_t)kind - 1;
    uint64_t whole = run_us > 0 ? (uint64_t)run_us : 0, left;
    if (wait_us >= 0)
        pm_histogram_add(&m->wait[k], wait_us);
    pm_histogram_add(&m->run[k], run_us);
    r->run_us = at_most(r->run_us, whole);
    r->wait_us = at_most(r->wait_us, whole - r->run_us);
    pm_histogram_add(&m->hop[k], (int64_t)(whole - r->run_us - r->wait_us));
    left = r->run_us;
    for (uint32_t i = 0; i < r->phase_count; i++) {
        r->phases[i].us = at_most(r->phases[i].us, left);
        left -= r->phases[i].us;
        struct pm_metrics_phase *phase = phase_of(m, kind, r->phases[i].name);
        r->phases[i].name = phase->name;
        pm_histogram_add(&phase->times, (int64_t)r->phases[i].us);
    }
    r->tokens = kind == PM_KIND_REGION ? at_most(r->tokens, PM_METRICS_TOKENS) : 0;
    r->drafted = kind == PM_KIND_REGION ? at_most(r->drafted, PM_METRICS_TOKENS) : 0;
    r->accepted = at_most(r->accepted, r->drafted);
    if (kind != PM_KIND_REGION)
        return;
    struct pm_metrics_reader *of = reader_of(m, reader);
    of->regions++;
    of->tokens += r->tokens;
    m->tokens += r->tokens;
}
