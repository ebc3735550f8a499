/* pagemill model add, pack, remove: what changes the folder of models. */
#include "client/cli/cmd_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/locate.h"
#include "engine/manifest.h"
#include "engine/pack_build.h"

/* ---- progress on stderr ---- */

struct progress {
    const char *name;
    bool is_terminal;
    int64_t shown_us;
    unsigned shown_quarter;
    bool has_line; /* of a terminal, to be cleared */
};

static void show_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct progress *p = ctx;
    double share = total ? (double)done / (double)total : 1;
    if (p->is_terminal) {
        int64_t now = pm_clock_us();
        if (now - p->shown_us < 100000)
            return;
        p->shown_us = now;
        fprintf(stderr, "\r\033[Kpacking %s: %3.0f %% of %.1f MB", p->name, share * 100, (double)total / 1e6);
        p->has_line = true;
    } else if ((unsigned)(share * 4) > p->shown_quarter) {
        p->shown_quarter = (unsigned)(share * 4);
        fprintf(stderr, "packing %s: %u %% of %.1f MB\n", p->name, p->shown_quarter * 25,
                (double)total / 1e6);
    }
}

static int build(const struct pm_model_settings *s, const char *source, const char *name, const char *out,
                 struct pm_error *err)
{
    struct progress progress = {.name = name ? name : "model",
                                .is_terminal = pm_cli_is_terminal(STDERR_FILENO)};
    const struct pm_pack_build_options options = {
        .name = name, .precision = s->precision, .progress = show_progress, .progress_ctx = &progress};
    int rc = pm_pack_build(source, out, &options, err);
    if (progress.has_line)
        fputs("\r\033[K", stderr);
    return rc;
}

int pm_cli_model_pack(const struct pm_model_settings *s, const char *source)
{
    struct pm_error err;
    int rc = build(s, source, s->name, s->out, &err);
    if (rc)
        pm_cli_error("%s", err.text);
    return !rc                                                                              ? PM_EXIT_OK
           : rc == PM_EINVAL && s->precision && pm_pack_build_precision(s->precision, NULL) ? PM_EXIT_USAGE
                                                                                            : PM_EXIT_FAILED;
}

/* ---- the folder that add and remove work on ---- */

/* The first folder of --models, else the user's; it may not be there yet. */
static char *own_folder(const struct pm_model_settings *s)
{
    return s->models && *s->models ? pm_xstrndup(s->models, strcspn(s->models, ":"))
                                   : pm_locate_user_models();
}

static bool is_same_path(const char *a, const char *b)
{
    char *x = realpath(a, NULL), *y = realpath(b, NULL);
    bool is_same = x && y && !strcmp(x, y);
    free(x);
    free(y);
    return is_same;
}

/* Is dir a folder right below parent? */
static bool is_below(const char *dir, const char *parent)
{
    const char *slash = strrchr(dir, '/');
    char *above = slash ? pm_xstrndup(dir, (size_t)(slash - dir)) : pm_xstrdup(".");
    bool is = is_same_path(above, parent);
    free(above);
    return is;
}

/* The same for any folder of a search path. */
static bool is_below_any(const char *dir, const char *path)
{
    char *copy = pm_xstrdup(path ? path : ""), *rest = copy, *folder;
    bool is = false;
    while ((folder = strsep(&rest, ":")))
        is = is || is_below(dir, folder);
    free(copy);
    return is;
}

/* What a killed `model add` left: .NAME.PID.tmp and .NAME.PID.new of processes that are gone. */
static void remove_leftovers(const char *folder)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, NULL, NULL);
    for (int i = 0; i < n; i++) {
        char *name = entries[i]->d_name, *end = strrchr(name, '.'), *number = NULL;
        if (name[0] == '.' && end > name && (!strcmp(end, ".tmp") || !strcmp(end, ".new"))) {
            *end = 0;
            number = strrchr(name, '.');
            *end = '.';
        }
        char *after = NULL;
        long pid = number && number > name ? strtol(number + 1, &after, 10) : 0;
        if (pid > 1 && after == end && kill((pid_t)pid, 0) && errno == ESRCH) {
            char *path = pm_fs_join(folder, name);
            (void)pm_fs_remove_tree(path, NULL);
            free(path);
        }
        free(entries[i]);
    }
    free(entries);
}

/* ---- add ---- */

/* Who has the name, and may it be replaced? */
static int check_taken(const struct pm_model_settings *s, const char *name, const char *folder,
                       struct pm_error *err)
{
    char *models = NULL;
    struct pm_model_manifest there;
    int rc = 0;
    if (s->models && *s->models) /* the first may be about to be made, all others must be there */
        models = pm_xstrdup(s->models);
    else if (pm_locate_models(NULL, &models, NULL))
        return 0;
    if (!pm_model_find(models, name, &there, NULL)) {
        if (!is_below(there.dir, folder))
            rc = pm_fail(err, PM_EINVAL, "the name \"%s\" is taken by %s: choose another with --name", name,
                         there.dir);
        else if (!s->replaces)
            rc = pm_fail(err, PM_EINVAL,
                         "there is a model \"%s\" in %s: choose another --name, or --replace it", name,
                         there.dir);
        pm_model_manifest_free(&there);
    }
    free(models);
    return rc;
}

/* Puts a finished folder in its place: at once, so that whoever looks finds the old model or the new one. */
static int put_in_place(const char *staged, const char *target, struct pm_error *err)
{
    if (!rename(staged, target)) /* also over an empty folder */
        return 0;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return pm_fail_errno(err, "cannot rename %s to %s", staged, target);
    if (renameat2(AT_FDCWD, staged, AT_FDCWD, target, RENAME_EXCHANGE))
        return pm_fail_errno(err, "cannot put %s in the place of %s", staged, target);
    return pm_fs_remove_tree(staged, err);
}

/* The folder of the model of that name in ours (it may have been named otherwise), else FOLDER/NAME. */
static char *target_of(const char *folder, const char *name)
{
    struct pm_model_manifest old;
    char *target;
    if (pm_model_find(folder, name, &old, NULL))
        return pm_fs_join(folder, name);
    target = pm_xstrdup(old.dir);
    pm_model_manifest_free(&old);
    return target;
}

static int add_named(const struct pm_model_settings *s, const char *source, const char *name,
                     const char *folder, struct pm_error *err)
{
    char *staged = pm_xprintf("%s/.%s.%ld.new", folder, name, (long)getpid());
    char *target = target_of(folder, name);
    char *manifest = pm_fs_join(target, "pagemill.json");
    int rc = check_taken(s, name, folder, err);
    if (!rc && pm_fs_is_dir(target) && !pm_fs_is_file(manifest) && rmdir(target))
        rc = pm_fail(err, PM_EINVAL, "%s is there and is no model: choose another --name", target);
    if (!rc)
        rc = pm_fs_mkdir_p(folder, 0755, err);
    if (!rc) {
        remove_leftovers(folder);
        rc = build(s, source, name, staged, err);
    }
    if (!rc)
        rc = put_in_place(staged, target, err);
    if (!rc)
        rc = pm_fs_sync_dir(folder, err);
    if (!rc)
        printf("%s: added in %s\n", name, target);
    else
        (void)pm_fs_remove_tree(staged, NULL);
    free(manifest);
    free(target);
    free(staged);
    return rc;
}

int pm_cli_model_add(const struct pm_model_settings *s, const char *source)
{
    struct pm_error err;
    char *name = s->name ? pm_xstrdup(s->name) : NULL, *folder = own_folder(s);
    int rc = pm_pack_build_precision(s->precision, &err), code = rc ? PM_EXIT_USAGE : PM_EXIT_FAILED;
    if (!rc && access(source, R_OK))
        rc = pm_fail_errno(&err, "%s", source);
    if (!rc && !name)
        rc = pm_pack_build_name(source, &name, &err);
    if (!rc && (!*name || *name == '.' || strchr(name, '/')))
        rc = pm_fail(&err, PM_EINVAL, "\"%s\" cannot be the name of a model", name);
    if (!rc)
        rc = add_named(s, source, name, folder, &err);
    if (rc)
        pm_cli_error("%s", err.text);
    free(folder);
    free(name);
    return rc ? code : PM_EXIT_OK;
}

/* ---- remove ---- */

/* A process that has a file of dir mapped: a worker reading with it. 0: none that we may look at. */
static long user_of(const char *dir)
{
    long found = 0;
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    char *real = realpath(dir, NULL), *line = NULL;
    size_t capacity = 0;
    while (proc && real && !found && (entry = readdir(proc))) {
        long pid = strtol(entry->d_name, NULL, 10);
        char *path = pid > 0 ? pm_xprintf("/proc/%ld/maps", pid) : NULL;
        FILE *maps = path ? fopen(path, "re") : NULL;
        while (maps && !found && getline(&line, &capacity, maps) > 0) {
            char *file = strchr(line, '/');
            size_t n = strlen(real);
            if (file && !strncmp(file, real, n) && file[n] == '/')
                found = pid;
        }
        if (maps)
            fclose(maps);
        free(path);
    }
    if (proc)
        closedir(proc);
    free(line);
    free(real);
    return found;
}

static int remove_model(const struct pm_model_settings *s, const char *name, const char *folder,
                        struct pm_error *err)
{
    char *models = NULL;
    struct pm_model_manifest model;
    int rc = pm_locate_models(s->models, &models, err);
    if (!rc)
        rc = pm_model_find(models, name, &model, err);
    free(models);
    if (rc)
        return rc;
    long pid = 0;
    char *installed = pm_locate_installed_models();
    char *away = pm_xprintf("%s/.%s.%ld.tmp", folder, name, (long)getpid());
    if (is_below_any(model.dir, installed))
        rc = pm_fail(err, PM_EDENIED, "\"%s\" came with the program: it is not removed", name);
    else if (!is_below(model.dir, folder))
        rc = pm_fail(err, PM_EDENIED, "\"%s\" is in %s, not in %s: name its folder with --models", name,
                     model.dir, folder);
    else if ((pid = user_of(model.dir)))
        rc = pm_fail(err, PM_EBUSY, "process %ld is reading with \"%s\": stop its fleet first", pid, name);
    /* It goes at once for whoever looks for models, then file by file. */
    else if (rename(model.dir, away))
        rc = pm_fail_errno(err, "cannot remove %s", model.dir);
    else
        rc = pm_fs_remove_tree(away, err);
    if (!rc)
        printf("%s: removed\n", name);
    free(away);
    free(installed);
    pm_model_manifest_free(&model);
    return rc;
}

int pm_cli_model_remove(const struct pm_model_settings *s, const char *name)
{
    struct pm_error err;
    char *folder = own_folder(s);
    int rc = remove_model(s, name, folder, &err);
    if (rc)
        pm_cli_error("%s", err.text);
    free(folder);
    return rc ? PM_EXIT_FAILED : PM_EXIT_OK;
}
