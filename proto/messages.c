#include "proto/messages.h"

#include "proto/schema_tables.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* By number; a gap has no schema. */
static const struct pm_schema *const message_schemas[] = {
    [PM_MSG_HELLO] = &pm_schema_hello,
    [PM_MSG_WELCOME] = &pm_schema_welcome,
    [PM_MSG_REFUSE] = &pm_schema_refuse,
    [PM_MSG_GOODBYE] = &pm_schema_goodbye,
    [PM_MSG_PING] = &pm_schema_ping,
    [PM_MSG_PONG] = &pm_schema_pong,
    [PM_MSG_CREDIT] = &pm_schema_credit,
    [PM_MSG_LEASE] = &pm_schema_lease,
    [PM_MSG_BEAT] = &pm_schema_beat,
    [PM_MSG_PARTIAL] = &pm_schema_partial,
    [PM_MSG_RESULT] = &pm_schema_result,
    [PM_MSG_RESULT_ACK] = &pm_schema_result_ack,
    [PM_MSG_REVOKE] = &pm_schema_revoke,
    [PM_MSG_DRAIN] = &pm_schema_drain,
    [PM_MSG_SEEN] = &pm_schema_seen,
    [PM_MSG_KNOWN] = &pm_schema_known,
    [PM_MSG_SUBMIT] = &pm_schema_submit,
    [PM_MSG_ACCEPTED] = &pm_schema_accepted,
    [PM_MSG_LIST] = &pm_schema_list,
    [PM_MSG_JOBS] = &pm_schema_jobs,
    [PM_MSG_STATUS] = &pm_schema_status,
    [PM_MSG_JOB] = &pm_schema_job,
    [PM_MSG_CANCEL] = &pm_schema_cancel,
    [PM_MSG_RETRY] = &pm_schema_retry,
    [PM_MSG_FORGET] = &pm_schema_forget,
    [PM_MSG_DONE] = &pm_schema_done,
    [PM_MSG_WATCH] = &pm_schema_watch,
    [PM_MSG_EVENT] = &pm_schema_event,
    [PM_MSG_FETCH] = &pm_schema_fetch,
    [PM_MSG_MANIFEST] = &pm_schema_manifest_message,
    [PM_MSG_STATS] = &pm_schema_stats,
    [PM_MSG_FLEET] = &pm_schema_fleet,
    [PM_MSG_SHUTDOWN] = &pm_schema_shutdown,
    [PM_MSG_BLOB_PUT] = &pm_schema_blob_put,
    [PM_MSG_BLOB_STORED] = &pm_schema_blob_stored,
    [PM_MSG_BLOB_GET] = &pm_schema_blob_get,
    [PM_MSG_BLOB_DATA] = &pm_schema_blob_data,
};

const struct pm_schema *pm_msg_schema(uint32_t type)
{
    return type < COUNT(message_schemas) ? message_schemas[type] : NULL;
}

const char *pm_msg_name(uint32_t type)
{
    const struct pm_schema *schema = pm_msg_schema(type);
    return schema ? schema->name : "?";
}

static const char *name_of(const char *const *names, size_t count, uint32_t number)
{
    return number < count && names[number] ? names[number] : "?";
}

const char *pm_role_name(uint32_t role)
{
    static const char *const names[] = {
        [PM_ROLE_CLIENT] = "client",       [PM_ROLE_LAYOUTD] = "layoutd",       [PM_ROLE_WORKER] = "worker",
        [PM_ROLE_COLLECTOR] = "collector", [PM_ROLE_SUPERVISOR] = "supervisor",
    };
    return name_of(names, COUNT(names), role);
}

const char *pm_kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [PM_KIND_OPEN] = "open",
        [PM_KIND_PAGE] = "page",
        [PM_KIND_REGION] = "region",
        [PM_KIND_ASSEMBLE_PAGE] = "assemble-page",
        [PM_KIND_ASSEMBLE_DOC] = "assemble-document",
    };
    return name_of(names, COUNT(names), kind);
}

uint32_t pm_kind_role(uint32_t kind)
{
    switch (kind) {
    case PM_KIND_OPEN:
    case PM_KIND_PAGE:
        return PM_ROLE_LAYOUTD;
    case PM_KIND_REGION:
        return PM_ROLE_WORKER;
    case PM_KIND_ASSEMBLE_PAGE:
    case PM_KIND_ASSEMBLE_DOC:
        return PM_ROLE_COLLECTOR;
    default:
        return 0;
    }
}

const char *pm_job_state_name(uint32_t state)
{
    static const char *const names[] = {
        [PM_JOB_QUEUED] = "queued", [PM_JOB_RUNNING] = "running",     [PM_JOB_DONE] = "done",
        [PM_JOB_FAILED] = "failed", [PM_JOB_CANCELLED] = "cancelled",
    };
    return name_of(names, COUNT(names), state);
}
