/* pagemill keys: who may connect to a fleet over the network. It works on files below the state folder
 * (proto/key.h, proto/allowed.h); the broker notices a change by itself. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "proto/allowed.h"

struct settings {
    struct pm_cli_fleet fleet;
    const char *state, *name, *role, *out;
};
#define AT(member) offsetof(struct settings, member)
static const struct pm_option options[] = {
    {"name", 'n', PM_OPTION_TEXT, "NAME",
     "allow: how the key is called in lists, logs and fair shares. Default: the name in its file, else that "
     "of the file.",
     AT(name), 0, 0},
    {"role", 'r', PM_OPTION_TEXT, "ROLE,...",
     "allow: submit, watch, work, admin, or several of them. Default: submit.", AT(role), 0, 0},
    {"output", 'o', PM_OPTION_TEXT, "FILE", "new: the file to make. Default: NAME.key.", AT(out), 0, 0},
    {"state", 0, PM_OPTION_TEXT, "DIR",
     "The fleet's state folder. Default: that of --config or of the running fleet, then the user's.",
     AT(state), 0, 0},
    {"config", 'c', PM_OPTION_TEXT, "FILE", "Find the fleet by the configuration file it was started with.",
     AT(fleet.config), 0, 0},
    {"socket", 's', PM_OPTION_TEXT, "PATH", "Find the fleet by its client socket.", AT(fleet.socket), 0, 0},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int usage(const char *text)
{
    pm_cli_error("keys: usage: pagemill keys %s", text);
    return PM_EXIT_USAGE;
}

static int failed(const struct pm_error *err)
{
    pm_cli_error("keys: %s", err->text);
    return PM_EXIT_FAILED;
}

/* ---- new ---- */

static int make_key(const struct settings *s, const char *name)
{
    struct pm_key key;
    struct pm_error err;
    char text[PM_KEY_CHARS + 1];
    char *path = s->out ? pm_xstrdup(s->out) : pm_xprintf("%s.key", name);
    int rc = pm_key_make(name, &key, &err);
    if (!rc)
        rc = pm_key_write(path, &key, &err);
    if (!rc) {
        pm_key_text(key.open, text);
        printf("%s\n", text);
        fprintf(stderr,
                "pagemill: the key is in %s; allow it where the broker is: pagemill keys allow "
                "'%s' --name %s --role submit,watch\n",
                path, text, name);
    }
    pm_key_forget(&key);
    free(path);
    return rc ? failed(&err) : fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
}

/* ---- the list ---- */

struct keys_dir {
    char *dir, *allowed;
    int lock_fd; /* -1: not taken */
    struct pm_allowed list;
};

static void close_dir(struct keys_dir *d)
{
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    pm_allowed_free(&d->list);
    free(d->dir);
    free(d->allowed);
}

/* Two commands at once must not lose one's change: `changes` waits for the lock. */
static int open_dir(const struct settings *s, bool changes, struct keys_dir *d)
{
    struct pm_error err;
    int code = PM_EXIT_OK, rc = 0;
    *d = (struct keys_dir){.lock_fd = -1};
    char *state = s->state ? pm_xstrdup(s->state) : pm_cli_find_state(&s->fleet, &code);
    if (!state)
        return code;
    d->dir = pm_fs_join(state, PM_KEYS_DIR);
    d->allowed = pm_fs_join(d->dir, "allowed");
    free(state);
    if (changes) {
        char *lock = pm_fs_join(d->dir, "lock");
        rc = pm_fs_mkdir_p(d->dir, 0700, &err);
        if (!rc && (d->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)) < 0)
            rc = pm_fail_errno(&err, "cannot open %s", lock);
        while (!rc && flock(d->lock_fd, LOCK_EX))
            if (errno != EINTR)
                rc = pm_fail_errno(&err, "cannot lock %s", lock);
        free(lock);
    }
    if (!rc)
        rc = pm_allowed_read(d->allowed, &d->list, &err);
    return rc ? failed(&err) : PM_EXIT_OK;
}

static int list_keys(struct keys_dir *d)
{
    char text[PM_KEY_CHARS + 1], rights[PM_RIGHTS_TEXT];
    for (size_t i = 0; i < d->list.count; i++) {
        const struct pm_allowed_key *k = &d->list.keys[i];
        pm_key_text(k->key, text);
        printf("%-20s %-26s %s\n", k->name, pm_rights_text(k->rights, rights), text);
    }
    if (!d->list.count)
        fprintf(stderr, "pagemill: no key is allowed (%s)\n", d->allowed);
    return fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
}

/* WHAT is a public key or a file; the file may tell the name. */
static int allow_key(const struct settings *s, struct keys_dir *d, const char *what)
{
    uint8_t key[PM_KEY_BYTES];
    unsigned rights = 0;
    char rights_text[PM_RIGHTS_TEXT];
    struct pm_key file = {.has_secret = false};
    struct pm_error err;
    struct pm_buf text = {0};
    int rc = pm_rights_parse(s->role ? s->role : "submit", &rights, &err);
    if (!rc)
        rc = pm_key_public_of(what, key, &err);
    if (!rc && !s->name && !pm_fs_read(what, 4096, &text, NULL))
        (void)pm_key_parse(what, text.data, text.size, &file, NULL);
    char *stem = pm_xstrdup(strrchr(what, '/') ? strrchr(what, '/') + 1 : what);
    if (strrchr(stem, '.'))
        *strrchr(stem, '.') = 0;
    bool is_file = pm_fs_is_file(what) && pm_key_is_name(stem);
    const char *name = s->name ? s->name : *file.name ? file.name : is_file ? stem : "";
    if (!rc && !*name)
        rc = pm_fail(&err, PM_EINVAL, "give the key a name: --name NAME");
    /* The same name and key again changes the roles. */
    const struct pm_allowed_key *known = rc ? NULL : pm_allowed_named(&d->list, name);
    if (known && pm_key_is_same(known->key, key))
        (void)pm_allowed_remove(&d->list, name);
    if (!rc)
        rc = pm_allowed_add(&d->list, name, rights, key, &err);
    if (!rc)
        rc = pm_allowed_write(d->allowed, &d->list, &err);
    if (!rc)
        printf("%s may %s\n", name, pm_rights_text(rights, rights_text));
    pm_key_forget(&file);
    pm_buf_free(&text);
    free(stem);
    return rc ? failed(&err) : PM_EXIT_OK;
}

static int revoke_key(struct keys_dir *d, const char *what)
{
    struct pm_error err;
    if (!pm_allowed_remove(&d->list, what)) {
        pm_cli_error("keys: there is no key \"%s\" in %s", what, d->allowed);
        return PM_EXIT_FAILED;
    }
    if (pm_allowed_write(d->allowed, &d->list, &err))
        return failed(&err);
    printf("%s may not connect any more; its connections are closed\n", what);
    return PM_EXIT_OK;
}

static int server_key(struct keys_dir *d)
{
    struct pm_key key;
    struct pm_error err;
    char text[PM_KEY_CHARS + 1];
    if (pm_key_server(d->dir, &key, &err))
        return failed(&err);
    pm_key_text(key.open, text);
    pm_key_forget(&key);
    return puts(text) < 0 || fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
}

/* ---- the command ---- */

static int run_verb(const struct settings *s, const struct pm_arguments *arguments)
{
    static const char *const verbs[] = {"new", "allow", "list", "revoke", "server", NULL};
    const char *verb = arguments->items[0], *what = arguments->count > 1 ? arguments->items[1] : NULL;
    struct keys_dir d;
    if (!strcmp(verb, "new"))
        return what ? make_key(s, what) : usage("new NAME [-o FILE]");
    bool is_list = !strcmp(verb, "list"), is_allow = !strcmp(verb, "allow"),
         is_revoke = !strcmp(verb, "revoke"), is_server = !strcmp(verb, "server");
    if ((is_list || is_server) && what)
        return usage(is_list ? "list" : "server");
    if (is_allow && !what)
        return usage("allow KEY|FILE [--name NAME] [--role submit,watch,work,admin]");
    if (is_revoke && !what)
        return usage("revoke NAME|KEY");
    if (!is_list && !is_allow && !is_revoke && !is_server) {
        const char *near = pm_options_nearest(verb, verbs);
        pm_cli_error("keys: there is no verb \"%s\"%s%s%s; the verbs are new, allow, list, revoke and server",
                     verb, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
        return PM_EXIT_USAGE;
    }
    int code = open_dir(s, !is_list, &d);
    if (code == PM_EXIT_OK && d.dir)
        code = is_list     ? list_keys(&d)
               : is_allow  ? allow_key(s, &d, what)
               : is_revoke ? revoke_key(&d, what)
                           : server_key(&d);
    close_dir(&d);
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {.state = NULL};
    struct pm_arguments arguments;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0)
        code = run_verb(&s, &arguments);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_keys = {
    .name = "keys",
    .run = run,
    .usage = {.name = "pagemill keys",
              .arguments = "VERB [NAME|KEY|FILE]",
              .summary = "who may use a fleet over the network",
              .about =
                  " new NAME [-o FILE]\n"
                  " allow KEY|FILE [--name NAME] [--role ROLE,...]\n"
                  " list\n"
                  " revoke NAME|KEY\n"
                  " server\n"
                  "\n"
                  "A fleet that listens on tcp (`pagemill up --listen`) speaks only with those whose key it "
                  "was told. "
                  "Everything is encrypted, and both sides prove who they are.\n"
                  "\n"
                  "new makes a key, on the host that will use it: NAME.key holds the secret and stays there, "
                  "its public "
                  "half is printed. allow tells the fleet, on the broker's host, and says what the key may "
                  "do; once more "
                  "with other roles changes them. server prints the broker's own public key, which the other "
                  "hosts need (--server-key). revoke takes a key back: its connections are closed at once.\n"
                  "\n"
                  "Public keys hold characters that a shell understands: put them in single quotes, or pass "
                  "files.\n",
              .more = "ROLES\n"
                      " submit  give documents to the fleet; see, fetch, cancel and retry one's own jobs\n"
                      " watch   see the fleet and the state of everybody's jobs, not their texts\n"
                      " work    be a worker on another host\n"
                      " admin   everything, also other clients' jobs and stopping the fleet\n"
                      "\fFILES\n STATE/keys/allowed     NAME ROLES KEY, one key a line\n"
                      " STATE/keys/server.key  the broker's key, made at first use\n"
                      "\fEXIT STATUS\n 0    all is well\n 1    the command failed\n 2    wrong usage\n"
                      "\fEXAMPLES\n laptop$ pagemill keys new laptop > laptop.pub\n"
                      " server$ pagemill keys allow laptop.pub --name laptop --role submit,watch\n"
                      " server$ pagemill keys server > server.pub\n"
                      " laptop$ export PAGEMILL_SERVER_KEY=server.pub PAGEMILL_KEY=laptop.key\n"
                      " laptop$ pagemill jobs --broker tcp://server:5599\n",
              .tables = tables,
              .least = 1,
              .most = 2},
};
