/* After a restart: which services are likely to come back with leases in hand.
 *
 * RUN/services lists the process numbers of the services that are connected, one a line, rewritten (not
 * synced: it is a hint) whenever one joins or leaves. A broker that finds work in progress gives nothing out
 * until those of them that still live have said hello, or the time for that (adopt_us) is over. A number that
 * belongs to a stranger by now costs that time once; a 0 stands for a service on another host, which is
 * waited for as long as that. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "broker/broker.h"

#define LIST_BYTES 65536

static char *list_path(const struct pm_broker *b)
{
    return pm_fs_join(b->config.run_dir, "services");
}

void pm_awaited_read(struct pm_broker *b)
{
    char *path = list_path(b);
    struct pm_buf text = {0};
    if (!pm_fs_read(path, LIST_BYTES, &text, NULL)) {
        pm_buf_text(&text, "");
        for (char *at = (char *)text.data, *end; *at; at = end + (*end == '\n')) {
            unsigned long pid = strtoul(at, &end, 10);
            if (end == at)
                break;
            if (pid > INT32_MAX || (pid && kill((pid_t)pid, 0) && errno == ESRCH))
                continue;
            PM_GROW(b->awaited, b->awaited_count, b->awaited_capacity);
            b->awaited[b->awaited_count++] = pid ? pid : UINT64_MAX;
        }
    }
    pm_buf_free(&text);
    free(path);
    if (!b->awaited_count)
        pm_sched_adopt_end(b->sched);
}

void pm_awaited_came(struct pm_broker *b, uint64_t pid)
{
    for (size_t i = b->awaited_count; i-- > 0;)
        if (b->awaited[i] == pid)
            b->awaited[i] = b->awaited[--b->awaited_count];
    if (!b->awaited_count)
        pm_sched_adopt_end(b->sched);
}

void pm_awaited_write(struct pm_broker *b)
{
    if (!b->services_changed)
        return;
    b->services_changed = false;
    struct pm_buf text = {0};
    for (size_t i = 0; i < b->conn_count; i++)
        if (b->conns[i]->peer)
            pm_buf_printf(&text, "%llu\n",
                          b->conns[i]->pidfd >= 0 ? (unsigned long long)b->conns[i]->pid : 0ull);
    char *path = list_path(b);
    struct pm_error err;
    if (pm_fs_write(path, text.data ? text.data : (const uint8_t *)"", text.size, false, &err))
        pm_log(PM_LOG_DEBUG, "%s", err.text);
    free(path);
    pm_buf_free(&text);
}
