#include "proto/task_log.h"

#include "base/log.h"

struct pm_task_id pm_task_id_of(const struct pm_msg_lease *lease)
{
    return (struct pm_task_id){.job = lease->job,
                               .task = lease->task,
                               .kind = lease->kind,
                               .page = lease->page,
                               .region = lease->kind == PM_KIND_REGION ? lease->region + 1 : 0,
                               .attempt = lease->attempt};
}

void pm_task_log_begin(const struct pm_task_id *id)
{
    pm_log(PM_LOG_DEBUG, "%s begins job=%llu page=%u region=%u task=%llu attempt=%u", pm_kind_name(id->kind),
           (unsigned long long)id->job, id->page, id->region, (unsigned long long)id->task, id->attempt);
}

void pm_task_log_end(const struct pm_task_id *id, const char *how, int64_t run_us, const struct pm_error *err)
{
    bool is_once = id->kind == PM_KIND_OPEN || id->kind == PM_KIND_ASSEMBLE_DOC;
    enum pm_log_level level = err ? PM_LOG_WARNING : is_once ? PM_LOG_INFO : PM_LOG_DEBUG;
    if (!pm_log_is_on(level))
        return;
    pm_log(level, "%s %s job=%llu page=%u region=%u task=%llu attempt=%u%s%s ms=%lld%s%s",
           pm_kind_name(id->kind), how, (unsigned long long)id->job, id->page, id->region,
           (unsigned long long)id->task, id->attempt, err ? " code=" : "", err ? pm_err_name(err->code) : "",
           (long long)(run_us / 1000), err ? ": " : "", err ? err->text : "");
}
