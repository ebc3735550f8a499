#include "client/cli/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/mem.h"

int pm_screen_key(const unsigned char *bytes, size_t count, size_t *used_out)
{
    static const struct {
        const char *tail;
        int key;
    } sequences[] = {{"[A", PM_KEY_UP},   {"[B", PM_KEY_DOWN},     {"OA", PM_KEY_UP},
                     {"OB", PM_KEY_DOWN}, {"[5~", PM_KEY_PAGE_UP}, {"[6~", PM_KEY_PAGE_DOWN},
                     {"[H", PM_KEY_HOME}, {"[F", PM_KEY_END},      {"OH", PM_KEY_HOME},
                     {"OF", PM_KEY_END},  {"[1~", PM_KEY_HOME},    {"[4~", PM_KEY_END}};
    *used_out = 0;
    if (!count)
        return PM_KEY_NONE;
    *used_out = 1;
    if (bytes[0] != 0x1b)
        return bytes[0];
    if (count == 1)
        return PM_KEY_ESCAPE;
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) {
        size_t n = strlen(sequences[i].tail);
        if (count > n && !memcmp(bytes + 1, sequences[i].tail, n)) {
            *used_out = n + 1;
            return sequences[i].key;
        }
    }
    /* A sequence that we do not know is no key, least of all its letters. */
    size_t at = 1;
    if (bytes[at] == '[' || bytes[at] == 'O')
        for (at++; at < count && (bytes[at] < 0x40 || bytes[at] > 0x7e);)
            at++;
    *used_out = at < count ? at + 1 : count;
    return PM_KEY_NONE;
}

static void measure(struct pm_screen *s)
{
    struct winsize size;
    s->rows = 24;
    s->columns = 80;
    if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_row && size.ws_col) {
        s->rows = size.ws_row;
        s->columns = size.ws_col;
    }
}

static void forget(struct pm_screen *s)
{
    for (int i = 0; i < s->shown_rows; i++)
        free(s->shown[i]);
    free(s->shown);
    s->shown = NULL;
    s->shown_rows = 0;
}

static void enter(struct pm_screen *s)
{
    if (s->has_keys) {
        struct termios raw = s->before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    fputs("\033[?1049h\033[?25l\033[2J", stdout); /* the other buffer, no cursor */
    fflush(stdout);
    s->is_open = true;
    forget(s);
    measure(s);
}

static void leave(struct pm_screen *s)
{
    if (!s->is_open)
        return;
    s->is_open = false;
    fputs("\033[0m\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    if (s->has_keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &s->before);
}

void pm_screen_open(struct pm_screen *s)
{
    sigset_t set;
    *s = (struct pm_screen){.signal_fd = -1};
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGTSTP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    /* In the background a terminal may be written to but not set up. */
    s->has_keys =
        isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp() && !tcgetattr(STDIN_FILENO, &s->before);
    enter(s);
}

void pm_screen_close(struct pm_screen *s)
{
    leave(s);
    forget(s);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    s->signal_fd = -1;
}

void pm_screen_draw(struct pm_screen *s, const char *const *lines, int count)
{
    if (s->shown_rows != s->rows) {
        forget(s);
        s->shown = pm_xalloc((size_t)s->rows * sizeof *s->shown);
        s->shown_rows = s->rows;
        fputs("\033[2J", stdout);
    }
    for (int i = 0; i < s->rows; i++) {
        const char *line = i < count ? lines[i] : "";
        if (s->shown[i] ? !strcmp(s->shown[i], line) : !*line)
            continue;
        free(s->shown[i]);
        s->shown[i] = pm_xstrdup(line);
        printf("\033[%d;1H%s\033[0m\033[K", i + 1, line);
    }
    fflush(stdout);
}

/* Ctrl-Z: the shell gets its terminal as it was. */
static void stop_and_return(struct pm_screen *s)
{
    leave(s);
    raise(SIGSTOP);
    enter(s);
}

static void on_signals(struct pm_screen *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGTSTP) {
            stop_and_return(s);
        } else {
            forget(s);
            measure(s);
        }
    }
}

static int take_key(struct pm_screen *s)
{
    size_t used;
    int key = pm_screen_key(s->keys, s->key_count, &used);
    memmove(s->keys, s->keys + used, s->key_count - used);
    s->key_count -= used;
    return key;
}

int pm_screen_wait(struct pm_screen *s, int stop_fd, int64_t timeout_us, bool *stop_out)
{
    struct pollfd fds[4] = {{.fd = stop_fd, .events = POLLIN},
                            {.fd = s->signal_fd, .events = POLLIN},
                            {.fd = s->has_keys ? STDIN_FILENO : -1, .events = POLLIN},
                            {.fd = STDOUT_FILENO}};
    *stop_out = false;
    if (s->key_count)
        return take_key(s);
    if (poll(fds, 4, timeout_us > 0 ? (int)((timeout_us + 999) / 1000) : 0) < 0)
        return errno == EINTR ? PM_KEY_NONE : PM_KEY_GONE;
    *stop_out = fds[0].revents != 0;
    if (fds[1].revents)
        on_signals(s);
    if (fds[3].revents & (POLLERR | POLLHUP))
        return PM_KEY_GONE;
    if (!fds[2].revents)
        return PM_KEY_NONE;
    ssize_t n = read(STDIN_FILENO, s->keys, sizeof s->keys);
    if (n <= 0)
        return n < 0 && (errno == EINTR || errno == EAGAIN) ? PM_KEY_NONE : PM_KEY_GONE;
    s->key_count = (size_t)n;
    return take_key(s);
}
