/* Files: bounded reads, durable atomic writes, directory trees. Paths are NUL-terminated bytes.
 * Threads: all functions are reentrant. Errors name the path. */
#ifndef PM_BASE_FS_H
#define PM_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/mem.h"

/* Reads a whole regular file (or a pipe/stdin for path "-") of at most limit_bytes into out (appended). */
int pm_fs_read(const char *path, size_t limit_bytes, struct pm_buf *out, struct pm_error *err);

/* Writes path so that a crash leaves the old file or the whole new one: temporary beside it, then rename.
 * durable: fsync of the file before and of the directory after the rename. */
int pm_fs_write(const char *path, const void *data, size_t bytes, bool durable, struct pm_error *err);

/* write(2) until all is out, EINTR included. */
int pm_fs_write_all(int fd, const void *data, size_t bytes, struct pm_error *err);

int pm_fs_sync_dir(const char *dir, struct pm_error *err);
int pm_fs_mkdir_p(const char *dir, unsigned mode, struct pm_error *err);
/* As above; the directory and those made on the way survive a power cut. */
int pm_fs_mkdir_durable(const char *dir, unsigned mode, struct pm_error *err);
/* Removes a tree without following links; a path that is not there is not an error. */
int pm_fs_remove_tree(const char *path, struct pm_error *err);
bool pm_fs_is_dir(const char *path);
bool pm_fs_is_file(const char *path);
char *pm_fs_join(const char *dir, const char *name); /* caller frees */

/* A file name made of an untrusted one, by the rules of the GLM-OCR SDK: characters that are illegal on some
 * file system (control, <>:"/\|?*) become '_', trailing blanks and dots go, empty (or "." "..") becomes
 * "result", at most 200 bytes cut at a UTF-8 boundary. Caller frees. */
char *pm_fs_clean_name(const char *name);

/* Maps a regular file read-only and shared. An empty file gives data NULL, size 0. Undo with pm_fs_unmap. */
int pm_fs_map(const char *path, const uint8_t **data_out, size_t *bytes_out, struct pm_error *err);
void pm_fs_unmap(const uint8_t *data, size_t bytes); /* NULL is fine */

#endif
