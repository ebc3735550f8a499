#include "client/cli/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

#define FILE_BYTES 65536

/* The number behind NAME in a file of lines "NAME: 123 kB", in bytes; 0: not there. */
static uint64_t field(const char *path, const char *name)
{
    struct pm_buf text = {0};
    uint64_t value = 0;
    if (!pm_fs_read(path, FILE_BYTES, &text, NULL)) {
        pm_buf_text(&text, "");
        const char *at = strstr((const char *)text.data, name);
        if (at)
            value = strtoull(at + strlen(name), NULL, 10) << 10;
    }
    pm_buf_free(&text);
    return value;
}

/* A file that holds one number of bytes, or "max". */
static uint64_t whole(const char *path)
{
    struct pm_buf text = {0};
    uint64_t value = 0;
    if (!pm_fs_read(path, 256, &text, NULL)) {
        pm_buf_text(&text, "");
        value = strtoull((const char *)text.data, NULL, 10);
    }
    pm_buf_free(&text);
    return value;
}

uint64_t pm_memory_available(void)
{
    uint64_t machine = field("/proc/meminfo", "MemAvailable:");
    /* In a container the root of the tree is its own group. */
    uint64_t most = whole("/sys/fs/cgroup/memory.max"), used = whole("/sys/fs/cgroup/memory.current");
    uint64_t left = most > used ? most - used : 0;
    return most && left < machine ? left : machine;
}

uint64_t pm_memory_of_process(pid_t pid)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    return field(path, "RssAnon:");
}
