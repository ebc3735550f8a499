#include "tests/faults/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"

static void take(struct ledger *l, size_t *capacity, const char *line)
{
    char kind, text[200] = "";
    unsigned number;
    unsigned long long job;
    if (sscanf(line, "%c %u %llu %199[^\n]", &kind, &number, &job, text) < 3)
        return;
    while (l->count <= number) {
        PM_GROW(l->entries, l->count, *capacity);
        l->entries[l->count++] = (struct ledger_entry){0};
    }
    struct ledger_entry *e = &l->entries[number];
    if (kind == 'A' || kind == 'D') {
        e->doubles += e->job && e->job != job;
        e->job = e->job ? e->job : job;
        e->again += kind == 'D';
    } else if (kind == 'R') {
        e->differs += e->results && strcmp(e->hash, text) != 0;
        e->results++;
        memcpy(e->hash, text, sizeof e->hash - 1);
        e->hash[sizeof e->hash - 1] = 0;
    } else {
        memcpy(e->failure, text, sizeof text);
    }
}

void ledger_read(const char *path, struct ledger *out)
{
    struct pm_buf file = {0};
    size_t capacity = 0;
    *out = (struct ledger){0};
    if (!pm_fs_read(path, (size_t)1 << 30, &file, NULL)) {
        pm_buf_append(&file, "", 1);
        char *line = (char *)file.data;
        for (char *end; (end = strchr(line, '\n')); line = end + 1)
            take(out, &capacity, line);
    }
    pm_buf_free(&file);
}

void ledger_free(struct ledger *l)
{
    free(l->entries);
    *l = (struct ledger){0};
}

bool ledger_write(int fd, char kind, unsigned number, uint64_t job, const char *text)
{
    char line[320];
    int n = snprintf(line, sizeof line, "%c %u %llu%s%.200s\n", kind, number, (unsigned long long)job,
                     *text ? " " : "", text);
    return write(fd, line, (size_t)n) == n;
}
