/* SUBMIT: a job from a document that is in the store already. ACCEPTED leaves after the commit. */
#include <string.h>

#include "base/pages.h"
#include "broker/broker.h"
#include "broker/known.h"

#define READERS_COME_US 10000000

static bool is_word(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!(text[i] >= 'a' && text[i] <= 'z') && !(text[i] >= '0' && text[i] <= '9') &&
            !(i && strchr("-_.", text[i])))
            return false;
    return size > 0 && size <= 64;
}

static int check_list(const char *what, const char *list, struct pm_error *err)
{
    while (*list) {
        size_t size = strcspn(list, ",");
        if (!is_word(list, size))
            return pm_fail(err, PM_EINVAL, "%s: \"%.40s\" is not a comma-separated list of names", what,
                           list);
        list += size + (list[size] == ',');
    }
    return 0;
}

static int check_options(const struct pm_options *o, struct pm_error *err)
{
    struct pm_pages pages;
    int rc = pm_pages_parse(o->pages, &pages, err);
    if (!rc && *o->reader && !is_word(o->reader, strlen(o->reader)))
        rc = pm_fail(err, PM_EINVAL, "reader \"%.40s\" is not a name", o->reader);
    if (!rc)
        rc = check_list("formats", o->formats, err);
    if (!rc)
        rc = check_list("labels to leave out", o->drop, err);
    if (!rc && o->dpi && (o->dpi < 36 || o->dpi > 1200))
        rc = pm_fail(err, PM_EINVAL, "%u dpi is outside 36 to 1200", o->dpi);
    if (!rc && (strchr(o->stem, '/') || !strcmp(o->stem, ".") || !strcmp(o->stem, "..")))
        rc = pm_fail(err, PM_EINVAL, "output name \"%.60s\" must not be a path", o->stem);
    return rc;
}

/* Workers need a moment to come; until then any reader may be theirs. */
static int check_reader(struct pm_broker *b, struct pm_msg_submit *s, struct pm_error *err)
{
    int rc = pm_sched_check_reader(b->sched, s->options.reader, err);
    return rc == PM_EUNSUPPORTED && b->now.us - b->started_us < READERS_COME_US ? 0 : rc;
}

static int check(struct pm_broker *b, struct pm_msg_submit *s, struct pm_error *err)
{
    if (!*s->name)
        return pm_fail(err, PM_EINVAL, "a submit needs the document's name");
    if (s->priority >= PM_SCHED_LEVELS)
        return pm_fail(err, PM_EINVAL, "priority %u is outside 0 to %u", s->priority, PM_SCHED_LEVELS - 1);
    if (!pm_blob_is_key(s->source) || s->source[0] != 'd')
        return pm_fail(err, PM_EINVAL, "\"%.80s\" is not the key of a stored document", s->source);
    int rc = check_options(&s->options, err);
    if (!rc)
        rc = check_reader(b, s, err);
    if (!rc && !pm_blob_exists(b->blobs, s->source, &s->source_bytes))
        rc = pm_fail(err, PM_ENOTFOUND, "the document is not in the broker's store: send it first");
    return rc;
}

/* Names are the client's words: quoted, they cannot pass for other keys. */
static void log_accepted(const struct pm_msg_submit *s, const char *client, uint64_t job)
{
    char name[PM_LOG_VALUE], from[PM_LOG_VALUE];
    pm_log(PM_LOG_INFO, "job accepted job=%llu client=%s name=%s", (unsigned long long)job,
           pm_log_value(client, from), pm_log_value(s->name, name));
}

int pm_verb_submit(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    struct pm_msg_submit s = *(const struct pm_msg_submit *)m->record;
    struct pm_msg_accepted accepted = {.ref = s.ref};
    if (!*s.options.reader && !(s.options.reader = pm_known_reader(b, err))) {
        pm_count(b, PM_COUNT_refused_submits);
        return PM_EBUSY;
    }
    if (*s.key == PM_SCHED_OWN_KEY) {
        pm_count(b, PM_COUNT_refused_submits);
        return pm_fail(err, PM_EINVAL, "an idempotency key must not begin with \"%c\"", PM_SCHED_OWN_KEY);
    }
    if (!*s.key)
        s.key = pm_known_key(b, c->client, &s);
    accepted.job = pm_sched_known(b->sched, c->client, s.key);
    accepted.is_duplicate = accepted.job != 0;
    int rc = 0;
    if (!accepted.job)
        rc = check(b, &s, err);
    if (!rc && !accepted.job)
        rc = pm_space_for(b, s.source_bytes, err);
    if (!rc && !accepted.job)
        rc = pm_sched_submit(b->sched, b->now, c->client, &s, &accepted.job, &accepted.is_duplicate, err);
    if (rc) {
        pm_count(b, PM_COUNT_refused_submits);
        return rc;
    }
    if (accepted.is_duplicate) {
        pm_count(b, PM_COUNT_duplicate_submits);
    } else {
        pm_space_add(b, s.source_bytes);
        log_accepted(&s, c->client, accepted.job);
    }
    pm_conn_send(b, c, PM_MSG_ACCEPTED, &accepted);
    return 0;
}
