/* What a disk would hold after a power cut: a directory as it was, the log of everything that was done to it
 * (disk_log.h), and a cut somewhere in that log.
 *
 * What was synced before the cut is there. Of the rest, each write, each sector of a write, and each change
 * of a directory is there or is not, as the policy and chance have it: a file's data by its own fsync, its
 * name by that of its directory, neither by the other's. Ownership: struct cut_disk owns all of it. Threads:
 * one. Errors: a log or tree that cannot be read ends the program. */
#ifndef PM_FAULTS_CUT_DISK_H
#define PM_FAULTS_CUT_DISK_H

#include "base/map.h"
#include "base/mem.h"

enum cut_policy { CUT_LOSES_ALL, CUT_KEEPS_ALL, CUT_KEEPS_SOME, CUT_TEARS, CUT_POLICIES };
extern const char *const cut_policy_names[CUT_POLICIES];

struct cut_disk;
/* The directory as it is now; all of it is on the disk. */
struct cut_disk *cut_disk_new(const char *root);
void cut_disk_free(struct cut_disk **disk);
/* How many records a log holds; a last one without its end does not count. */
size_t cut_disk_records(const struct pm_buf *log);
/* Plays the first `records` of them. Witness files: what was appended goes to take. */
void cut_disk_play(struct cut_disk *disk, const struct pm_buf *log, size_t records,
                   void (*take)(void *context, const char *path, const void *data, size_t bytes),
                   void *context);
/* Writes what is left of it into a new directory. random: as rand(). */
void cut_disk_write(struct cut_disk *disk, enum cut_policy policy, int (*random)(void), const char *root);
/* Changes that were not on the disk when it was cut: kept, and lost. */
void cut_disk_count(const struct cut_disk *disk, uint64_t *kept_out, uint64_t *lost_out);

#endif
