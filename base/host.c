#include "base/host.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"

/* First line of a small file, "" when it cannot be read. */
static void first_line(const char *path, char *text, size_t text_bytes)
{
    text[0] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, text_bytes - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
}

char *pm_host_id(void)
{
    const char *given = getenv("PAGEMILL_HOST_ID");
    if (given && *given && strlen(given) < 200) {
        char *id = pm_xstrdup(given);
        pm_sanitize_text(id);
        return id;
    }
    char boot[64], name[256] = "";
    first_line("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    if (gethostname(name, sizeof name - 1))
        name[0] = 0;
    pm_sanitize_text(boot);
    for (unsigned char *p = (unsigned char *)name; *p; p++)
        if (*p < 0x20 || *p >= 0x7f)
            *p = '?';
    return pm_xprintf("%s/%s", boot, name);
}

uint64_t pm_host_rss_bytes(uint64_t pid)
{
    char path[48], line[128];
    unsigned long long all, resident;
    snprintf(path, sizeof path, "/proc/%llu/statm", (unsigned long long)pid);
    first_line(path, line, sizeof line);
    return sscanf(line, "%llu %llu", &all, &resident) == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

uint64_t pm_host_own_bytes(void)
{
    char line[128];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && !kb && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %llu kB", &kb) != 1)
            kb = 0;
    if (f)
        fclose(f);
    return (uint64_t)kb * 1024;
}

int pm_host_cores(void)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    /* cgroup v2: "max 100000" or "150000 100000" (quota and period in microseconds). */
    char quota[64];
    long allowed, period;
    first_line("/sys/fs/cgroup/cpu.max", quota, sizeof quota);
    if (sscanf(quota, "%ld %ld", &allowed, &period) == 2 && allowed > 0 && period > 0) {
        long whole = (allowed + period - 1) / period;
        if (whole < cores)
            cores = (int)whole;
    }
    return cores < 1 ? 1 : cores;
}
