#include "base/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

extern char **environ;

/* ---- one child ---- */

static size_t name_length(const char *pair)
{
    const char *equals = strchr(pair, '=');
    return equals ? (size_t)(equals - pair) + 1 : strlen(pair);
}

/* environ with set_env over it; only the array is ours. */
static char **merged_environment(const char *const *set_env)
{
    size_t have = 0, more = 0, used = 0;
    while (environ[have])
        have++;
    while (set_env && set_env[more])
        more++;
    char **out = pm_xalloc((have + more + 1) * sizeof *out);
    for (size_t i = 0; i < have; i++) {
        bool is_replaced = false;
        for (size_t k = 0; k < more && !is_replaced; k++)
            is_replaced = !strncmp(environ[i], set_env[k], name_length(set_env[k]));
        if (!is_replaced)
            out[used++] = environ[i];
    }
    for (size_t k = 0; k < more; k++)
        out[used++] = (char *)set_env[k];
    return out;
}

/* In the child between fork and exec: only async-signal-safe calls, because the parent may have threads. */
static _Noreturn void become(const struct pm_spawn *spec, char **environment, pid_t parent, int null_fd,
                             int report_fd)
{
    int wanted[3] = {spec->stdin_fd, spec->stdout_fd, spec->stderr_fd};
    int error = 0;
    /* Move the three away from 0..2 first, so that no dup2 overwrites one that is still needed. */
    for (int i = 0; i < 3; i++) {
        wanted[i] = fcntl(wanted[i] < 0 ? null_fd : wanted[i], F_DUPFD_CLOEXEC, 3);
        if (wanted[i] < 0)
            goto failed;
    }
    for (int i = 0; i < 3; i++)
        if (dup2(wanted[i], i) < 0)
            goto failed;
    for (size_t i = 0; i < spec->keep_count; i++)
        if (fcntl(spec->keep_fds[i], F_SETFD, 0) < 0)
            goto failed;
    for (int n = 1; n < NSIG; n++)
        if (n != SIGKILL && n != SIGSTOP)
            signal(n, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (spec->own_group && setpgid(0, 0))
        goto failed;
    if (spec->die_with_parent) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL))
            goto failed;
        if (getppid() != parent) /* it died before the line above */
            _exit(128 + SIGKILL);
    }
    execve(spec->path, (char *const *)spec->argv, environment);
failed:
    error = errno;
    ssize_t ignored = write(report_fd, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

int pm_spawn(const struct pm_spawn *spec, struct pm_child *out, struct pm_error *err)
{
    *out = (struct pm_child){.pidfd = -1};
    int rc = 0, report[2] = {-1, -1};
    char **environment = merged_environment(spec->set_env);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0 || pipe2(report, O_CLOEXEC)) {
        rc = pm_fail_errno(err, "cannot prepare to start %s", spec->path);
        goto out;
    }
    pid_t parent = getpid();
    /* Block signals around fork: a handler of ours must not run in the child. */
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        become(spec, environment, parent, null_fd, report[1]);
    int fork_error = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        errno = fork_error;
        rc = pm_fail_errno(err, "cannot start %s", spec->path);
        goto out;
    }
    if (spec->own_group)
        setpgid(pid, pid); /* from both sides: neither order leaves a gap */
    close(report[1]);
    report[1] = -1;
    int error = 0;
    ssize_t n;
    while ((n = read(report[0], &error, sizeof error)) < 0 && errno == EINTR)
        ;
    if (n == (ssize_t)sizeof error) {
        waitpid(pid, NULL, 0);
        errno = error;
        rc = pm_fail_errno(err, "cannot execute %s", spec->path);
        goto out;
    }
    out->pidfd = pidfd_open(pid, 0); /* not reaped yet: the number is still its own */
    if (out->pidfd < 0) {
        rc = pm_fail_errno(err, "cannot watch %s", spec->path);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        goto out;
    }
    out->pid = pid;
out:
    for (int i = 0; i < 2; i++)
        if (report[i] >= 0)
            close(report[i]);
    if (null_fd >= 0)
        close(null_fd);
    free(environment);
    return rc;
}

int pm_child_signal(const struct pm_child *child, int signal_number)
{
    if (!child->pid || pidfd_send_signal(child->pidfd, signal_number, NULL, 0))
        return PM_EGONE;
    return 0;
}

int pm_child_reap(struct pm_child *child, int *status_out)
{
    int status = 0;
    if (!child->pid)
        return PM_EGONE;
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(child->pidfd);
    *child = (struct pm_child){.pidfd = -1};
    if (status_out)
        *status_out = status;
    return 0;
}

void pm_status_describe(int status, char *text, size_t text_bytes)
{
    if (WIFSIGNALED(status))
        snprintf(text, text_bytes, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, text_bytes, "exit code %d", WEXITSTATUS(status));
}

/* ---- back-off ---- */

int64_t pm_backoff_next(struct pm_backoff *b, int64_t life_us)
{
    if (life_us >= PM_BACKOFF_RESET_US)
        *b = (struct pm_backoff){0};
    b->early_deaths = life_us < PM_BACKOFF_EARLY_US ? b->early_deaths + 1 : 0;
    for (int64_t lived = life_us; lived >= PM_BACKOFF_STEP_US && b->delay_us; lived -= PM_BACKOFF_STEP_US)
        b->delay_us = b->delay_us > PM_BACKOFF_FIRST_US ? b->delay_us / 2 : 0;
    b->delay_us = b->delay_us ? b->delay_us * 2 : PM_BACKOFF_FIRST_US;
    if (b->delay_us > PM_BACKOFF_MOST_US)
        b->delay_us = PM_BACKOFF_MOST_US;
    return b->delay_us;
}

/* ---- a set of services ---- */

enum state { WAITING, RUNNING, ENDED };

struct entry {
    struct pm_service config; /* strings and arrays owned */
    enum state state;
    struct pm_child child;
    struct pm_backoff backoff;
    int64_t started_us, due_us;
    int stderr_fd;
    char input[4096]; /* read from stderr_fd and not yet looked at */
    size_t input_at, input_end;
    char line[1024]; /* being collected */
    size_t line_bytes;
    char last_line[1024];
    bool died; /* pidfd fired; reported once stderr is drained */
    bool is_ready;
    bool is_restarting; /* told to leave: what follows is its successor */
    size_t index;
};
struct pm_supervise {
    struct entry **entries;
    size_t count, capacity;
    struct entry **leaving; /* processes that were replaced; their strings are those of their service */
    size_t leaving_count, leaving_capacity;
    struct pollfd *fds;
    bool is_held;
    char text[1600];
};

static size_t total(const struct pm_supervise *s)
{
    return s->count + s->leaving_count;
}

/* Services, then leaving processes. */
static struct entry *at(const struct pm_supervise *s, size_t i)
{
    return i < s->count ? s->entries[i] : s->leaving[i - s->count];
}

static const char **copy_strings(const char *const *strings)
{
    size_t n = 0;
    while (strings && strings[n])
        n++;
    const char **out = pm_xalloc((n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = pm_xstrdup(strings[i]);
    return out;
}

static void free_strings(const char *const *strings)
{
    for (size_t i = 0; strings && strings[i]; i++)
        free((char *)strings[i]);
    free((void *)strings);
}

struct pm_supervise *pm_supervise_new(void)
{
    return pm_xalloc(sizeof(struct pm_supervise));
}

void pm_supervise_free(struct pm_supervise **s)
{
    if (!*s)
        return;
    pm_supervise_signal(*s, SIZE_MAX, SIGKILL);
    for (size_t i = 0; i < total(*s); i++) {
        struct entry *e = at(*s, i);
        pm_child_reap(&e->child, NULL);
        if (e->stderr_fd >= 0)
            close(e->stderr_fd);
    }
    for (size_t i = 0; i < (*s)->leaving_count; i++)
        free((*s)->leaving[i]);
    for (size_t i = 0; i < (*s)->count; i++) {
        struct entry *e = (*s)->entries[i];
        free((char *)e->config.name);
        free((char *)e->config.spawn.path);
        free_strings(e->config.spawn.argv);
        free_strings(e->config.spawn.set_env);
        free((void *)e->config.spawn.keep_fds);
        free(e);
    }
    free((*s)->entries);
    free((*s)->leaving);
    free((*s)->fds);
    free(*s);
    *s = NULL;
}

size_t pm_supervise_add(struct pm_supervise *s, const struct pm_service *service)
{
    struct entry *e = pm_xalloc(sizeof *e);
    e->config = *service;
    e->config.name = pm_xstrdup(service->name);
    e->config.spawn.path = pm_xstrdup(service->spawn.path);
    e->config.spawn.argv = copy_strings(service->spawn.argv);
    e->config.spawn.set_env = copy_strings(service->spawn.set_env);
    size_t keep_bytes = service->spawn.keep_count * sizeof *service->spawn.keep_fds;
    int *keep = pm_xalloc(keep_bytes);
    if (keep_bytes)
        memcpy(keep, service->spawn.keep_fds, keep_bytes);
    e->config.spawn.keep_fds = keep;
    e->child.pidfd = -1;
    e->stderr_fd = -1;
    PM_GROW(s->entries, s->count, s->capacity);
    e->index = s->count;
    s->entries[s->count] = e;
    return s->count++;
}

void pm_supervise_hold(struct pm_supervise *s)
{
    s->is_held = true;
}

void pm_supervise_signal(struct pm_supervise *s, size_t index, int signal_number)
{
    if (index < s->count)
        pm_child_signal(&s->entries[index]->child, signal_number);
    for (size_t i = 0; i < total(s) && index == SIZE_MAX; i++)
        pm_child_signal(&at(s, i)->child, signal_number);
}

bool pm_supervise_is_alive(const struct pm_supervise *s, size_t index)
{
    return index < s->count && s->entries[index]->state == RUNNING;
}

size_t pm_supervise_alive(const struct pm_supervise *s)
{
    size_t n = 0;
    for (size_t i = 0; i < total(s); i++)
        n += at(s, i)->state == RUNNING;
    return n;
}

size_t pm_supervise_count(const struct pm_supervise *s)
{
    return s->count;
}

const char *pm_supervise_name(const struct pm_supervise *s, size_t index)
{
    return s->entries[index]->config.name;
}

pid_t pm_supervise_pid(const struct pm_supervise *s, size_t index)
{
    return s->entries[index]->child.pid;
}

size_t pm_supervise_ready(struct pm_supervise *s, pid_t pid)
{
    for (size_t i = 0; i < s->count && pid > 0; i++)
        if (s->entries[i]->state == RUNNING && s->entries[i]->child.pid == pid) {
            s->entries[i]->is_ready = true;
            return i;
        }
    return SIZE_MAX;
}

/* ---- replacing ---- */

/* Moves a process, with what was read from it, from one entry to another. */
static void move_process(struct entry *to, struct entry *from)
{
    to->state = from->state;
    to->child = from->child;
    to->started_us = from->started_us;
    to->stderr_fd = from->stderr_fd;
    memcpy(to->input, from->input, sizeof to->input);
    to->input_at = from->input_at;
    to->input_end = from->input_end;
    memcpy(to->line, from->line, sizeof to->line);
    to->line_bytes = from->line_bytes;
    memcpy(to->last_line, from->last_line, sizeof to->last_line);
    to->died = from->died;
    to->is_ready = from->is_ready;
    to->is_restarting = from->is_restarting;
    from->state = WAITING;
    from->child = (struct pm_child){.pidfd = -1};
    from->stderr_fd = -1;
    from->died = from->is_ready = from->is_restarting = false;
    from->due_us = 0;
}

static struct entry *add_leaving(struct pm_supervise *s, struct entry *e)
{
    struct entry *old = pm_xalloc(sizeof *old);
    old->config = e->config;
    old->index = e->index;
    move_process(old, e);
    PM_GROW(s->leaving, s->leaving_count, s->leaving_capacity);
    s->leaving[s->leaving_count++] = old;
    return old;
}

static void drop_leaving(struct pm_supervise *s, const struct entry *old)
{
    for (size_t i = 0; i < s->leaving_count; i++)
        if (s->leaving[i] == old) {
            free(s->leaving[i]);
            s->leaving[i] = s->leaving[--s->leaving_count];
            return;
        }
}

void pm_supervise_replace(struct pm_supervise *s, size_t index)
{
    struct entry *e = s->entries[index];
    if (e->state == RUNNING)
        add_leaving(s, e);
    e->due_us = 0; /* one that waits to be started anew need not wait any longer */
}

void pm_supervise_dismiss(struct pm_supervise *s, size_t index, int signal_number)
{
    for (size_t i = 0; i < s->leaving_count; i++)
        if (s->leaving[i]->index == index)
            pm_child_signal(&s->leaving[i]->child, signal_number);
}

bool pm_supervise_has_leaving(const struct pm_supervise *s, size_t index)
{
    for (size_t i = 0; i < s->leaving_count; i++)
        if (s->leaving[i]->index == index && !s->leaving[i]->died)
            return true;
    return false;
}

bool pm_supervise_take_back(struct pm_supervise *s, size_t index)
{
    struct entry *e = s->entries[index], *old = NULL;
    for (size_t i = 0; i < s->leaving_count && !old; i++)
        if (s->leaving[i]->index == index && !s->leaving[i]->died)
            old = s->leaving[i];
    if (!old)
        return false;
    if (e->state == RUNNING)
        pm_child_signal(&add_leaving(s, e)->child, SIGKILL);
    move_process(e, old);
    drop_leaving(s, old);
    return true;
}

void pm_supervise_restart(struct pm_supervise *s, size_t index, int signal_number)
{
    struct entry *e = s->entries[index];
    e->due_us = 0;
    if (e->state != RUNNING)
        return;
    e->is_restarting = true;
    pm_child_signal(&e->child, signal_number);
}

static int start(struct entry *e, struct pm_error *err)
{
    int stderr_pipe[2] = {-1, -1};
    struct pm_spawn spec = e->config.spawn;
    if (e->config.capture_stderr) {
        if (pipe2(stderr_pipe, O_CLOEXEC))
            return pm_fail_errno(err, "cannot make a pipe for %s", e->config.name);
        fcntl(stderr_pipe[0], F_SETFL, O_NONBLOCK);
        spec.stderr_fd = stderr_pipe[1];
    }
    int rc = pm_spawn(&spec, &e->child, err);
    if (stderr_pipe[1] >= 0)
        close(stderr_pipe[1]);
    if (rc) {
        if (stderr_pipe[0] >= 0)
            close(stderr_pipe[0]);
        return rc;
    }
    e->stderr_fd = stderr_pipe[0];
    e->line_bytes = e->input_at = e->input_end = 0;
    e->last_line[0] = 0;
    e->died = e->is_ready = e->is_restarting = false;
    e->state = RUNNING;
    return 0;
}

static void fill(struct pm_supervise_event *out, enum pm_supervise_kind kind, size_t index,
                 const struct entry *e, const char *text)
{
    *out = (struct pm_supervise_event){
        .kind = kind, .index = index, .name = e->config.name, .text = text, .pid = e->child.pid};
}

/* The next byte of a service's stderr: 0..255, EOF at its end, -2 when nothing is there now. */
static int next_byte(struct entry *e)
{
    if (e->input_at == e->input_end) {
        ssize_t n;
        while ((n = read(e->stderr_fd, e->input, sizeof e->input)) < 0 && errno == EINTR)
            ;
        if (n < 0 && errno == EAGAIN)
            return -2;
        if (n <= 0)
            return EOF;
        e->input_at = 0;
        e->input_end = (size_t)n;
    }
    return (unsigned char)e->input[e->input_at++];
}

/* Takes one line off a service's stderr into last_line; an overlong one is cut into several. */
static bool take_line(struct entry *e)
{
    while (e->stderr_fd >= 0) {
        int c = next_byte(e);
        if (c == -2)
            return false;
        if (c == EOF) {
            close(e->stderr_fd);
            e->stderr_fd = -1;
            if (!e->line_bytes)
                return false;
        } else if (c != '\n') {
            e->line[e->line_bytes++] = (char)c;
            if (e->line_bytes < sizeof e->line - 1)
                continue;
        }
        e->line[e->line_bytes] = 0;
        pm_sanitize_text(e->line);
        memcpy(e->last_line, e->line, e->line_bytes + 1);
        e->line_bytes = 0;
        return true;
    }
    return false;
}

/* What a log line says, without its time, level and process: the reader of the reason knows those. */
static const char *said(const char *line)
{
    size_t n = strspn(line, "0123456789-:.TZ");
    const char *end = n > 20 && line[n] == ' ' ? strstr(line + n, "] ") : NULL;
    return end ? end + 2 : line;
}

/* Deaths that speak against the program: before it ever worked, or, of one that does not tell, soon after its
 * start. One that works and dies of what it is given to do must not end the whole set. */
static unsigned count_early(const struct entry *e, unsigned before, bool is_killed)
{
    if (is_killed) /* somebody did it, not the program itself */
        return before;
    if (e->config.tells_ready)
        return e->is_ready ? 0 : before + 1;
    return e->backoff.early_deaths;
}

/* A dead service: decides what happens next and tells it. */
static void bury(struct pm_supervise *s, struct entry *e, struct pm_supervise_event *out)
{
    size_t index = e->index;
    pid_t pid = e->child.pid;
    int status = 0;
    int64_t now = pm_clock_us();
    char how[80];
    pm_child_reap(&e->child, &status);
    if (e->stderr_fd >= 0) /* a grandchild may still hold the other end */
        close(e->stderr_fd);
    e->stderr_fd = -1;
    pm_status_describe(status, how, sizeof how);
    if (e != s->entries[index] || (e->is_restarting && !s->is_held)) {
        snprintf(s->text, sizeof s->text, "%s", how);
        fill(out, PM_SUPERVISE_LEFT, index, e, s->text);
        out->pid = pid;
        out->status = status;
        e->state = WAITING;
        e->due_us = 0;
        drop_leaving(s, e);
        out->name = s->entries[index]->config.name;
        return;
    }
    bool is_exit = WIFEXITED(status);
    bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    unsigned before = e->backoff.early_deaths;
    int64_t delay = pm_backoff_next(&e->backoff, now - e->started_us);
    e->backoff.early_deaths = count_early(e, before, is_killed);
    if (e->is_ready && delay > PM_BACKOFF_READY_US) /* what it died of is gone with its work */
        delay = e->backoff.delay_us = PM_BACKOFF_READY_US;
    const char *colon = e->last_line[0] ? ": " : "";
    if (is_exit && !WEXITSTATUS(status) && (e->config.is_finished_on_zero || s->is_held)) {
        e->state = ENDED;
        fill(out, PM_SUPERVISE_FINISHED, index, e, how);
        snprintf(s->text, sizeof s->text, "%s", how);
    } else if (!s->is_held && is_exit &&
               (WEXITSTATUS(status) == EX_CONFIG || WEXITSTATUS(status) == EX_USAGE)) {
        e->state = ENDED;
        snprintf(s->text, sizeof s->text, "%s cannot start%s%s (%s)", e->config.name, colon,
                 said(e->last_line), how);
        fill(out, PM_SUPERVISE_FATAL, index, e, s->text);
    } else if (!s->is_held && e->config.give_up_after && e->backoff.early_deaths >= e->config.give_up_after) {
        e->state = ENDED;
        snprintf(s->text, sizeof s->text, "%s died %u times in a row %s (%s)%s%s", e->config.name,
                 e->backoff.early_deaths,
                 e->config.tells_ready ? "before it was ready" : "just after its start", how, colon,
                 said(e->last_line));
        fill(out, PM_SUPERVISE_FATAL, index, e, s->text);
    } else {
        e->state = s->is_held ? ENDED : WAITING;
        e->due_us = now + delay;
        snprintf(s->text, sizeof s->text, "%s", how);
        fill(out, PM_SUPERVISE_DIED, index, e, s->text);
        out->delay_us = s->is_held ? -1 : delay;
    }
    out->text = s->text;
    out->pid = pid;
    out->status = status;
}

static bool start_due(struct pm_supervise *s, int64_t now, struct pm_supervise_event *out)
{
    for (size_t i = 0; i < s->count && !s->is_held; i++) {
        struct entry *e = s->entries[i];
        if (e->state != WAITING || e->due_us > now)
            continue;
        struct pm_error err;
        e->started_us = now;
        if (!start(e, &err)) {
            fill(out, PM_SUPERVISE_STARTED, i, e, "");
            return true;
        }
        snprintf(s->text, sizeof s->text, "%s", err.text);
        if (err.code == PM_ENOTFOUND || err.code == PM_EDENIED) {
            e->state = ENDED;
            fill(out, PM_SUPERVISE_FATAL, i, e, s->text);
            return true;
        }
        int64_t delay = pm_backoff_next(&e->backoff, 0);
        e->due_us = now + delay;
        fill(out, PM_SUPERVISE_DIED, i, e, s->text);
        out->delay_us = delay;
        return true;
    }
    return false;
}

/* Lines first, so that the last words of a process come before the news of its death. */
static bool look(struct pm_supervise *s, struct pm_supervise_event *out)
{
    for (size_t i = 0; i < total(s); i++) {
        struct entry *e = at(s, i);
        if (take_line(e)) {
            fill(out, PM_SUPERVISE_LINE, e->index, e, e->last_line);
            return true;
        }
        if (e->died) {
            e->died = false;
            bury(s, e, out);
            return true;
        }
    }
    return false;
}

static int poll_timeout_ms(const struct pm_supervise *s, int64_t now, int64_t timeout_us)
{
    int64_t wait = timeout_us < 0 ? INT64_MAX : timeout_us;
    for (size_t i = 0; i < s->count && !s->is_held; i++)
        if (s->entries[i]->state == WAITING && s->entries[i]->due_us - now < wait)
            wait = s->entries[i]->due_us > now ? s->entries[i]->due_us - now : 0;
    if (wait == INT64_MAX)
        return -1;
    wait = (wait + 999) / 1000;
    return wait > 3600000 ? 3600000 : (int)wait;
}

void pm_supervise_turn(struct pm_supervise *s, struct pollfd *extra, size_t extra_count, int64_t timeout_us,
                       struct pm_supervise_event *out)
{
    *out = (struct pm_supervise_event){0};
    for (size_t i = 0; i < extra_count; i++)
        extra[i].revents = 0;
    int64_t now = pm_clock_us();
    if (look(s, out) || start_due(s, now, out))
        return;
    size_t n = extra_count;
    s->fds = pm_xrealloc(s->fds, (extra_count + 2 * total(s) + 1) * sizeof *s->fds);
    if (extra_count)
        memcpy(s->fds, extra, extra_count * sizeof *extra);
    for (size_t i = 0; i < total(s); i++) { /* a negative descriptor is skipped by poll */
        s->fds[n++] = (struct pollfd){.fd = at(s, i)->child.pidfd, .events = POLLIN};
        s->fds[n++] = (struct pollfd){.fd = at(s, i)->stderr_fd, .events = POLLIN};
    }
    if (poll(s->fds, n, poll_timeout_ms(s, now, timeout_us)) <= 0)
        return;
    if (extra_count)
        memcpy(extra, s->fds, extra_count * sizeof *extra);
    for (size_t i = 0; i < total(s); i++)
        if (s->fds[extra_count + 2 * i].revents)
            at(s, i)->died = true;
    if (!look(s, out))
        start_due(s, pm_clock_us(), out);
}
