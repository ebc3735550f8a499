/* What a client of a storm knows for sure: a file of lines, each appended with one write(2) after the thing
 * has happened, so that a killed client, and the storm at the end, can read it again.
 *
 *     A NUMBER JOB          document NUMBER was accepted as JOB
 *     D NUMBER JOB          submitted again with the same key: JOB was answered
 *     R NUMBER JOB HASH     its result was received
 *     F NUMBER JOB TEXT     it ended otherwise, or is not known any more
 *
 * A last line without its end (a power cut) does not count. Ownership: the caller's. Threads: one. */
#ifndef PM_FAULTS_LEDGER_H
#define PM_FAULTS_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

struct ledger_entry { /* by document number */
    uint64_t job;     /* 0: not accepted yet */
    unsigned results; /* R lines */
    unsigned again;   /* D lines */
    unsigned doubles; /* another job for the same key */
    unsigned differs; /* results that were not equal to each other */
    char hash[PM_HASH_HEX + 1];
    char failure[200]; /* "": none */
};
struct ledger {
    struct ledger_entry *entries;
    size_t count; /* numbers 0 to count - 1 */
};
void ledger_read(const char *path, struct ledger *out); /* a file that is not there is an empty one */
void ledger_free(struct ledger *l);
bool ledger_write(int fd, char kind, unsigned number, uint64_t job, const char *text);

#endif
