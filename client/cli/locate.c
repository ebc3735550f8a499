#include "client/cli/locate.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

char *pm_locate_self(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    return n > 0 ? pm_xstrndup(path, (size_t)n) : pm_xstrdup("/proc/self/exe");
}

static char *own_folder(void)
{
    char *self = pm_locate_self(), *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    return self;
}

int pm_locate_program(const char *name, char **out, struct pm_error *err)
{
    char *here = own_folder();
    char *places[4] = {pm_fs_join(here, name), pm_xprintf("%s/../libexec/pagemill/%s", here, name),
                       pm_xprintf("%s/pagemill/%s", PM_LIBEXEC_DIR, name), pm_fs_join(PM_BIN_DIR, name)};
    *out = NULL;
    for (int i = 0; i < 4; i++) {
        if (!*out && access(places[i], X_OK) == 0)
            *out = places[i];
        else
            free(places[i]);
    }
    int rc =
        *out ? 0
             : pm_fail(err, PM_ENOTFOUND,
                       "the program %s is neither in %s nor in %s/pagemill: the installation is incomplete",
                       name, here, PM_LIBEXEC_DIR);
    free(here);
    return rc;
}

#define SYSTEM_MODELS "/var/lib/pagemill/models"

char *pm_locate_user_models(void)
{
    const char *own = from_environment("PAGEMILL_MODELS"), *data = from_environment("XDG_DATA_HOME"),
               *home = from_environment("HOME");
    if (own)
        return pm_xstrndup(own, strcspn(own, ":"));
    if (data)
        return pm_fs_join(data, "pagemill/models");
    return getuid() == 0 || !home ? pm_xstrdup(SYSTEM_MODELS)
                                  : pm_xprintf("%s/.local/share/pagemill/models", home);
}

/* Appends a folder to a search path; false when there is no such folder. */
static bool add_folder(struct pm_buf *path, const char *folder)
{
    char *real = realpath(folder, NULL);
    bool can = real && !strchr(real, ':');
    if (can)
        pm_buf_printf(path, "%s%s", path->size ? ":" : "", real);
    free(real);
    return can;
}

char *pm_locate_installed_models(void)
{
    struct pm_buf path = {0};
    char *here = own_folder(), *built = pm_fs_join(here, "models");
    char *share = pm_xprintf("%s/../share/pagemill/models", here);
    if (add_folder(&path,
                   built)) /* a build tree: what was packed there, and what is ready in the source tree */
        (void)add_folder(&path, PM_SOURCE_MODELS);
    else if (!add_folder(&path, share) && !add_folder(&path, PM_DATA_DIR "/pagemill/models"))
        (void)add_folder(&path, PM_SOURCE_MODELS);
    char *out = path.size ? pm_xstrndup((const char *)path.data, path.size) : NULL;
    pm_buf_free(&path);
    free(share);
    free(built);
    free(here);
    return out;
}

/* Every folder of a list; the first that is not there is complained of when they must all be. */
static int add_folders(struct pm_buf *path, const char *list, bool must_exist, struct pm_error *err)
{
    int rc = 0;
    char *copy = pm_xstrdup(list), *rest = copy, *folder;
    while ((folder = strsep(&rest, ":")) && !rc)
        if (*folder && !add_folder(path, folder) && must_exist)
            rc = pm_fail_errno(err, "the models folder %s", folder);
    free(copy);
    return rc;
}

int pm_locate_models(const char *given, char **out, struct pm_error *err)
{
    struct pm_buf path = {0};
    int rc = 0;
    *out = NULL;
    if (given && *given) {
        rc = add_folders(&path, given, true, err);
    } else {
        const char *own = from_environment("PAGEMILL_MODELS");
        char *user = own ? pm_xstrdup(own) : pm_locate_user_models(),
             *installed = pm_locate_installed_models();
        (void)add_folders(&path, user, false, NULL);
        if (strcmp(user, SYSTEM_MODELS) != 0)
            (void)add_folder(&path, SYSTEM_MODELS);
        if (installed)
            (void)add_folders(&path, installed, false, NULL);
        free(user);
        free(installed);
    }
    if (!rc && !path.size)
        rc =
            pm_fail(err, PM_ENOTFOUND,
                    "no models are installed: set PAGEMILL_MODELS or --models to the folder that holds them");
    if (!rc)
        *out = pm_xstrndup((const char *)path.data, path.size);
    pm_buf_free(&path);
    return rc;
}

char *pm_locate_temporary(void)
{
    const char *dir = from_environment("TMPDIR");
    return pm_xstrdup(dir && dir[0] == '/' ? dir : "/tmp");
}

char *pm_locate_run_dir(void)
{
    const char *runtime = from_environment("XDG_RUNTIME_DIR");
    if (runtime)
        return pm_fs_join(runtime, "pagemill");
    if (getuid() == 0)
        return pm_xstrdup("/run/pagemill");
    char *temporary = pm_locate_temporary();
    char *out = pm_xprintf("%s/pagemill-%u", temporary, (unsigned)getuid());
    free(temporary);
    return out;
}

char *pm_locate_state_dir(void)
{
    const char *state = from_environment("XDG_STATE_HOME"), *home = from_environment("HOME");
    if (getuid() == 0)
        return pm_xstrdup("/var/lib/pagemill");
    if (state)
        return pm_fs_join(state, "pagemill");
    return home ? pm_xprintf("%s/.local/state/pagemill", home) : pm_xstrdup("/var/lib/pagemill");
}

char *pm_locate_memory(uint64_t need_bytes, uint64_t *free_bytes_out)
{
    char *temporary = pm_locate_temporary();
    const char *places[3] = {"/dev/shm", from_environment("XDG_RUNTIME_DIR"), temporary};
    char *out = NULL;
    for (int i = 0; i < 3 && !out; i++) {
        struct statvfs fs;
        if (!places[i] || access(places[i], W_OK | X_OK) || statvfs(places[i], &fs))
            continue;
        *free_bytes_out = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (*free_bytes_out >= need_bytes || i == 2)
            out = pm_xstrdup(places[i]);
    }
    if (!out) {
        *free_bytes_out = 0;
        out = pm_xstrdup(temporary);
    }
    free(temporary);
    return out;
}

/* Is this path among the kernel's listening sockets? A connection that is only tried would count as a failed
 * handshake with the fleet. */
static bool is_listening(const char *path)
{
    char *real = realpath(path, NULL), *line = NULL;
    size_t room = 0, n = real ? strlen(real) : 0;
    FILE *sockets = real ? fopen("/proc/net/unix", "re") : NULL;
    bool is = false;
    ssize_t got;
    while (sockets && !is && (got = getline(&line, &room, sockets)) > 0) {
        unsigned long flags = 0;
        got -= line[got - 1] == '\n';
        /* Num RefCount Protocol Flags Type St Inode Path */
        is = (size_t)got > n && line[(size_t)got - n - 1] == ' ' &&
             !memcmp(line + (size_t)got - n, real, n) && sscanf(line, "%*s %*s %*s %lx", &flags) == 1 &&
             flags & 0x10000;
    }
    if (sockets)
        fclose(sockets);
    free(line);
    free(real);
    return is;
}

bool pm_locate_is_alive(const char *endpoint)
{
    const char *path = !strncmp(endpoint, "ipc://", 6) ? endpoint + 6 : endpoint;
    if (strstr(path, "://"))
        return true;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (is_listening(path))
        return true;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool is_alive = !connect(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return is_alive;
}
