/* Looking into a journal from outside: counting commits, and comparing with what clients know.
 *
 * audit_install puts triggers into the file that write a line for every committed region, page and job, in
 * the same transaction: two commits of one thing are two lines, whatever the broker does to its own rows
 * later. The broker must not run. Threads: one. Errors: rig_give_up when the file cannot be read at all; what
 * is wrong with its content is counted and said on standard output. */
#ifndef PM_FAULTS_AUDIT_H
#define PM_FAULTS_AUDIT_H

#include <stdbool.h>

#include "tests/faults/ledger.h"

struct audit {
    uint64_t jobs, pages, regions; /* commits seen */
    unsigned doubled;              /* things with more than one commit, keys with more than one job */
    unsigned lost;                 /* accepted, and not in the journal */
    unsigned unfinished;           /* accepted, and neither done nor live */
    unsigned wrong;                /* results that differ, or whose blobs are missing or damaged */
    unsigned damaged;              /* integrity_check, blobs */
};
/* No file counts as readable: there is nothing to be wrong in it. */
bool audit_is_readable(const char *journal);
bool audit_has_tables(const char *journal); /* false for a file that is not there */
void audit_install(const char *journal);    /* once */
/* Counts and empties the lines of the triggers. */
void audit_commits(const char *journal, struct audit *a);
/* Every accepted job of the ledger is there with the right key; must_be_done: and done. */
void audit_ledger(const char *journal, const char *client, const struct ledger *l, bool must_be_done,
                  struct audit *a);
/* The file is whole, and every blob that it refers to is in BLOBS with the content that its key says. Pixels
 * are left out: they may be lost. */
void audit_blobs(const char *journal, const char *blobs, struct audit *a);

#endif
