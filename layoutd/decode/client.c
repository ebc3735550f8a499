#include "layoutd/decode/client.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "layoutd/decode/wire.h"

#ifndef PM_LIBEXEC_DIR
#define PM_LIBEXEC_DIR "/usr/bin"
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

struct pm_decoder {
    char *program;
    int source_fd;
    bool has_password;
    char password[PM_WIRE_PASSWORD_BYTES];
    struct pm_decode_limits limits;
    struct pm_decode_info info;
    char warning[PM_WIRE_TEXT_BYTES];
    uint32_t serial;
    uint32_t pages_served; /* by the present child */

    pid_t pid; /* 0: no child */
    int pidfd, socket_fd;

    /* The last answer about sizes: documents are asked page by page. */
    struct pm_wire_size sizes[PM_WIRE_SIZES_MAX];
    uint32_t sizes_first, sizes_count;
    double sizes_dpi;
};

void pm_decode_limits_default(struct pm_decode_limits *out)
{
    *out = (struct pm_decode_limits){
        .timeout_us = 60 * (int64_t)1000000,
        .memory_bytes = (uint64_t)2048 << 20,
        .max_pages = 20000,
        .max_source_px = 120000000,
        .pdf_longest_px = 3500,
        .picture_longest_px = 10000,
        .max_page_px = 60000000,
        .cancel_fd = -1,
    };
}

static int check_limits(const struct pm_decode_limits *l, struct pm_error *err)
{
    if (l->timeout_us <= 0 || l->memory_bytes < (uint64_t)64 << 20 || l->max_pages < 1 ||
        l->max_source_px < 1 || l->max_source_px > UINT64_C(1) << 31 || l->pdf_longest_px < 1 ||
        l->pdf_longest_px > 30000 || l->picture_longest_px < 1 ||
        l->picture_longest_px > PM_IMAGE_MAX_SIDE_PX || l->max_page_px < 1 ||
        l->max_page_px > UINT64_C(300000000))
        return pm_fail(err, PM_EINVAL,
                       "cannot be decoded: a limit is zero or absurd (at least 64 MB of memory, at "
                       "most 300 megapixels a page)");
    return 0;
}

char *pm_decode_default_program(void)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = 0;
        char *slash = strrchr(self, '/');
        if (slash) {
            *slash = 0;
            char *beside = pm_xprintf("%s/pagemill-decode", self);
            if (access(beside, X_OK) == 0)
                return beside;
            free(beside);
        }
    }
    return pm_xstrdup(PM_LIBEXEC_DIR "/pagemill-decode");
}

/* ------------------------------------------------------------------------------------------------- child */

/* Only what the libraries need to find fonts, and what developers need. */
static char **child_environment(void)
{
    static const char *const kept[] = {"HOME",
                                       "XDG_CACHE_HOME",
                                       "XDG_DATA_HOME",
                                       "XDG_CONFIG_HOME",
                                       "FONTCONFIG_FILE",
                                       "FONTCONFIG_PATH",
                                       "LD_LIBRARY_PATH",
                                       "ASAN_OPTIONS",
                                       "UBSAN_OPTIONS",
                                       "LSAN_OPTIONS"};
    size_t count = sizeof kept / sizeof kept[0], used = 0;
    char **environment = pm_xalloc((count + 2) * sizeof *environment);
    for (size_t i = 0; i < count; i++) {
        const char *value = getenv(kept[i]);
        if (value)
            environment[used++] = pm_xprintf("%s=%s", kept[i], value);
    }
    environment[used++] = pm_xstrdup("LC_ALL=C.UTF-8");
    return environment;
}

static void free_environment(char **environment)
{
    for (char **p = environment; *p; p++)
        free(*p);
    free(environment);
}

/* Descriptors above those that the child gets at fixed numbers, so that dup2 cannot overwrite a source. */
static int move_up(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 10);
}

static int spawn_actions(posix_spawn_file_actions_t *actions, int socket_fd, int source_fd)
{
    int rc = posix_spawn_file_actions_init(actions);
    if (rc)
        return rc;
    rc |= posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    rc |= posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_WRONLY, 0);
#ifndef PM_SANITIZED /* a sanitizer's report must be seen */
    rc |= posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_WRONLY, 0);
#endif
    rc |= posix_spawn_file_actions_adddup2(actions, socket_fd, PM_WIRE_SOCKET_FD);
    rc |= posix_spawn_file_actions_adddup2(actions, source_fd, PM_WIRE_SOURCE_FD);
    rc |= posix_spawn_file_actions_addclosefrom_np(actions, PM_WIRE_SOURCE_FD + 1);
    return rc;
}

static int spawn_with(struct pm_decoder *d, int socket_fd, int source_fd)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    char *arguments[] = {(char *)(uintptr_t) "pagemill-decode", NULL};
    int rc = spawn_actions(&actions, socket_fd, source_fd);
    if (rc)
        return rc;
    posix_spawnattr_init(&attributes);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    char **environment = child_environment();
    rc = posix_spawn(&d->pid, d->program, &actions, &attributes, arguments, environment);
    free_environment(environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

static int spawn(struct pm_decoder *d, struct pm_error *err)
{
    int pair[2], rc;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return pm_fail_errno(err, "cannot be decoded: no socket for the decoder");
    int child_socket = move_up(pair[1]), child_source = move_up(d->source_fd);
    if (child_socket < 0 || child_source < 0)
        rc = errno;
    else
        rc = spawn_with(d, child_socket, child_source);
    if (child_socket >= 0)
        close(child_socket);
    if (child_source >= 0)
        close(child_source);
    close(pair[1]);
    if (rc) {
        close(pair[0]);
        d->pid = 0;
        errno = rc;
        return pm_fail_errno(err, "cannot be decoded: %s does not start", d->program);
    }
    d->socket_fd = pair[0];
    d->pidfd = (int)syscall(SYS_pidfd_open, d->pid, 0);
    return 0;
}

/* Kills, reaps, and gives the wait status (-1 when it is not known). */
static int end_child(struct pm_decoder *d, bool is_killed)
{
    int status = -1;
    if (d->pid == 0)
        return -1;
    if (is_killed)
        kill(d->pid, SIGKILL); /* not reaped yet, so the number is still its own */
    pid_t got;
    do
        got = waitpid(d->pid, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got != d->pid)
        status = -1;
    if (d->pidfd >= 0)
        close(d->pidfd);
    close(d->socket_fd);
    d->pid = 0;
    d->pidfd = d->socket_fd = -1;
    d->sizes_count = 0;
    d->pages_served = 0;
    return status;
}

/* ----------------------------------------------------------------------------------------------- requests */

struct exchange {
    struct pm_wire_request request;
    struct pm_wire_reply reply;
    int fd;         /* the descriptor that came with the reply, -1 for none */
    char place[40]; /* " on page 3" */
};

static const char *signal_name(int number)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGILL, "SIGILL"},
                 {SIGFPE, "SIGFPE"},   {SIGSYS, "SIGSYS"},   {SIGKILL, "SIGKILL"}, {SIGTRAP, "SIGTRAP"},
                 {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"}, {SIGTERM, "SIGTERM"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].number == number)
            return names[i].name;
    return "another signal";
}

/* The child has closed its end: say how it went. */
static int explain_death(struct pm_decoder *d, const struct exchange *x, struct pm_error *err)
{
    /* It may have closed the socket and live on; the status of a death of its own is kept by kill. */
    int status = end_child(d, true);
    if (status != -1 && WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        if (number == SIGXCPU)
            return pm_fail(err, PM_ETIMEOUT, "took longer than %lld s to decode%s",
                           (long long)(d->limits.timeout_us / 1000000), x->place);
        return pm_fail(err, PM_ECRASH, "crashed the decoder (%s%s)%s", signal_name(number),
                       number == SIGSYS    ? ": it tried what the sandbox forbids"
                       : number == SIGKILL ? ": killed from outside, perhaps for lack of memory"
                       : number == SIGBUS  ? ": the file may have changed while it was read"
                                           : "",
                       x->place);
    }
    return pm_fail(err, PM_ECRASH, "made the decoder exit%s (status %d)", x->place,
                   status == -1 ? -1 : WEXITSTATUS(status));
}

/* The backstop behind the deadline: the child may use that much processor time until its next request. */
static void limit_cpu(const struct pm_decoder *d)
{
    clockid_t clock;
    struct timespec used;
    struct rlimit limit;
    if (clock_getcpuclockid(d->pid, &clock) != 0 || clock_gettime(clock, &used) != 0 ||
        prlimit(d->pid, RLIMIT_CPU, NULL, &limit) != 0)
        return;
    rlim_t seconds = (rlim_t)used.tv_sec + (rlim_t)(d->limits.timeout_us / 1000000) + 2;
    if (limit.rlim_max != RLIM_INFINITY && seconds > limit.rlim_max)
        seconds = limit.rlim_max;
    limit.rlim_cur = seconds;
    prlimit(d->pid, RLIMIT_CPU, &limit, NULL);
}

/* One packet with at most one descriptor; others that a hostile child sends along are closed. */
static ssize_t receive(int socket_fd, struct pm_wire_reply *reply, int *fd_out)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec iov = {reply, sizeof *reply};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t n;
    *fd_out = -1;
    do
        n = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (*fd_out < 0)
                *fd_out = fd;
            else
                close(fd);
        }
    }
    if (message.msg_flags & MSG_TRUNC)
        return (ssize_t)sizeof *reply + 1;
    return n;
}

static int check_reply(struct pm_decoder *d, struct exchange *x, ssize_t bytes, struct pm_error *err)
{
    struct pm_wire_reply *r = &x->reply;
    if (bytes == (ssize_t)sizeof *r && r->magic == PM_WIRE_MAGIC && r->kind == x->request.kind &&
        r->serial == x->request.serial && r->code <= 0 && r->code >= PM_EINTERNAL) {
        r->text[sizeof r->text - 1] = 0;
        pm_sanitize_text(r->text);
        if (r->code == 0)
            return 0;
        if (r->code == PM_ENOMEM || r->code == PM_EIO || r->code == PM_EDENIED) {
            end_child(d, true); /* what is left of its memory is not worth having */
            return pm_fail(err, r->code == PM_ENOMEM ? PM_ELIMIT : r->code, "%s%s%s%s",
                           r->code == PM_ENOMEM ? "needed more memory to decode than is allowed" : r->text,
                           r->code == PM_ENOMEM && r->text[0] ? ": " : "",
                           r->code == PM_ENOMEM ? r->text : "", x->place);
        }
        return pm_fail(err, r->code, "%s%s", r->text, r->code == PM_EPASSWORD ? "" : x->place);
    }
    end_child(d, true);
    return pm_fail(err, PM_EPROTO, "made the decoder answer nonsense%s: it was stopped", x->place);
}

static int give_up(struct pm_decoder *d, const struct exchange *x, bool is_cancelled, struct pm_error *err)
{
    end_child(d, true);
    if (is_cancelled)
        return pm_fail(err, PM_ECANCELLED, "was cancelled while being decoded%s", x->place);
    double seconds = (double)d->limits.timeout_us / 1e6;
    return pm_fail(err, PM_ETIMEOUT, "took longer than %g s to decode%s", seconds, x->place);
}

static int await_reply(struct pm_decoder *d, struct exchange *x, struct pm_error *err)
{
    int64_t deadline_us = pm_clock_us() + d->limits.timeout_us;
    for (;;) {
        int64_t left_us = deadline_us - pm_clock_us();
        if (left_us <= 0)
            return give_up(d, x, false, err);
        struct pollfd fds[2] = {{.fd = d->socket_fd, .events = POLLIN},
                                {.fd = d->limits.cancel_fd, .events = POLLIN}};
        int64_t wait_ms = left_us / 1000 + 1;
        int n = poll(fds, 2, wait_ms > 1000000 ? 1000000 : (int)wait_ms);
        if (n < 0 && errno != EINTR)
            return pm_fail_errno(err, "cannot be decoded: poll");
        if (n <= 0)
            continue;
        if (fds[1].revents)
            return give_up(d, x, true, err);
        ssize_t bytes = receive(d->socket_fd, &x->reply, &x->fd);
        if (bytes > 0)
            return check_reply(d, x, bytes, err);
        if (bytes == 0 || errno != EAGAIN)
            return explain_death(d, x, err);
    }
}

/* Sends x->request and waits for its reply; the child is running. On failure no descriptor is left open. */
static int exchange(struct pm_decoder *d, struct exchange *x, struct pm_error *err)
{
    x->request.magic = PM_WIRE_MAGIC;
    x->request.serial = ++d->serial;
    x->fd = -1;
    limit_cpu(d);
    ssize_t n;
    do
        n = send(d->socket_fd, &x->request, sizeof x->request, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    int rc = n == (ssize_t)sizeof x->request ? await_reply(d, x, err) : explain_death(d, x, err);
    if (rc && x->fd >= 0) {
        close(x->fd);
        x->fd = -1;
    }
    return rc;
}

static int sniff_source(struct pm_decoder *d, struct pm_error *err)
{
    uint8_t bytes[PM_SNIFF_BYTES];
    struct stat st;
    if (fstat(d->source_fd, &st) != 0)
        return pm_fail_errno(err, "cannot be read");
    if (!S_ISREG(st.st_mode))
        return pm_fail(err, PM_EFORMAT, "is not a regular file");
    ssize_t n;
    do
        n = pread(d->source_fd, bytes, sizeof bytes, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return pm_fail_errno(err, "cannot be read");
    if (n == 0)
        return pm_fail(err, PM_EFORMAT, "is empty");
    d->info.format = pm_sniff(bytes, (size_t)n);
    if (d->info.format == PM_FORMAT_UNKNOWN) {
        char what[96];
        pm_sniff_describe(bytes, (size_t)n, what, sizeof what);
        return pm_fail(err, PM_EFORMAT,
                       "is not a PDF or a picture we read (PDF, PNG, JPEG, TIFF, WebP, BMP, GIF): it %s",
                       what);
    }
    return 0;
}

/* Starts a child and lets it open the source. */
static int open_source(struct pm_decoder *d, struct pm_error *err)
{
    struct exchange x = {.request = {.kind = PM_WIRE_OPEN, .format = (uint32_t)d->info.format}};
    int rc = spawn(d, err);
    if (rc)
        return rc;
    x.request.limits = (struct pm_wire_limits){
        .memory_bytes = d->limits.memory_bytes,
        .max_source_px = d->limits.max_source_px,
        .max_page_px = d->limits.max_page_px,
        .max_pages = (uint32_t)d->limits.max_pages,
        .pdf_longest_px = (uint32_t)d->limits.pdf_longest_px,
        .picture_longest_px = (uint32_t)d->limits.picture_longest_px,
    };
    x.request.has_password = d->has_password;
    memcpy(x.request.password, d->password, sizeof d->password);
    rc = exchange(d, &x, err);
    if (rc) {
        end_child(d, true);
        return rc;
    }
    if (x.fd >= 0)
        close(x.fd);
    uint32_t pages = x.reply.u.open.page_count;
    bool is_restart = d->info.page_count > 0;
    if (x.fd >= 0 || pages < 1 || pages > (uint32_t)d->limits.max_pages ||
        (is_restart && pages != (uint32_t)d->info.page_count)) {
        end_child(d, true);
        return pm_fail(err, PM_EPROTO, "made the decoder answer nonsense: it was stopped");
    }
    d->info.page_count = (int)pages;
    memcpy(d->info.title, x.reply.u.open.title, sizeof d->info.title);
    d->info.title[sizeof d->info.title - 1] = 0;
    pm_sanitize_text(d->info.title);
    return 0;
}

int pm_decode_start(const char *program, int source_fd, const char *password,
                    const struct pm_decode_limits *limits, struct pm_decoder **decoder_out,
                    struct pm_error *err)
{
    *decoder_out = NULL;
    struct pm_decoder *d = pm_xalloc(sizeof *d);
    d->program = pm_xstrdup(program);
    d->pidfd = d->socket_fd = -1;
    d->source_fd = fcntl(source_fd, F_DUPFD_CLOEXEC, 10);
    if (limits)
        d->limits = *limits;
    else
        pm_decode_limits_default(&d->limits);
    int rc = d->source_fd < 0 ? pm_fail_errno(err, "cannot be read") : check_limits(&d->limits, err);
    if (rc == 0 && password && strlen(password) >= sizeof d->password)
        rc = pm_fail(err, PM_EPASSWORD, "cannot be opened: a password has at most %zu bytes",
                     sizeof d->password - 1);
    if (rc == 0 && password && *password) {
        d->has_password = true;
        snprintf(d->password, sizeof d->password, "%s", password);
    }
    if (rc == 0)
        rc = sniff_source(d, err);
    if (rc == 0)
        rc = open_source(d, err);
    if (rc) {
        pm_decode_stop(&d);
        return rc;
    }
    *decoder_out = d;
    return 0;
}

int pm_decode_start_path(const char *program, const char *source_path, const char *password,
                         const struct pm_decode_limits *limits, struct pm_decoder **decoder_out,
                         struct pm_error *err)
{
    *decoder_out = NULL;
    /* O_NONBLOCK: a named pipe must not hang us; it is refused as not regular. */
    int fd = open(source_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return pm_fail_errno(err, "cannot be read");
    int rc = pm_decode_start(program, fd, password, limits, decoder_out, err);
    close(fd);
    return rc;
}

const struct pm_decode_info *pm_decode_info(const struct pm_decoder *decoder)
{
    return &decoder->info;
}

const char *pm_decode_warning(const struct pm_decoder *decoder)
{
    return decoder->warning;
}

int pm_decode_pid(const struct pm_decoder *decoder)
{
    return decoder->pid;
}

/* Common beginning of the requests about a page. */
static int prepare(struct pm_decoder *d, int page, double *dpi, struct exchange *x, struct pm_error *err)
{
    d->warning[0] = 0;
    if (page < 0 || page >= d->info.page_count)
        return pm_fail(err, PM_EINVAL, "has no page %d: it has %d", page + 1, d->info.page_count);
    if (*dpi == 0)
        *dpi = 200;
    if (!(*dpi >= 10 && *dpi <= 2400))
        return pm_fail(err, PM_EINVAL, "cannot be rendered at %g dpi: 10 to 2400", *dpi);
    *x = (struct exchange){.request = {.page = (uint32_t)page, .dpi = *dpi}, .fd = -1};
    if (d->info.page_count > 1)
        snprintf(x->place, sizeof x->place, " (page %d)", page + 1);
    return d->pid ? 0 : open_source(d, err);
}

static bool is_valid_size(const struct pm_decoder *d, uint32_t width, uint32_t height)
{
    uint32_t longest =
        (uint32_t)(d->info.format == PM_FORMAT_PDF ? d->limits.pdf_longest_px : d->limits.picture_longest_px);
    return width >= 1 && height >= 1 && width <= longest && height <= longest &&
           (uint64_t)width * height <= d->limits.max_page_px + longest; /* each side was rounded */
}

static int fetch_sizes(struct pm_decoder *d, int page, double dpi, struct exchange *x, struct pm_error *err)
{
    uint32_t left = (uint32_t)(d->info.page_count - page);
    x->request.kind = PM_WIRE_SIZES;
    x->request.count = left < PM_WIRE_SIZES_MAX ? left : PM_WIRE_SIZES_MAX;
    int rc = exchange(d, x, err);
    if (rc)
        return rc;
    bool is_valid = x->fd < 0 && x->reply.u.sizes.count >= 1 && x->reply.u.sizes.count <= x->request.count;
    if (x->fd >= 0)
        close(x->fd);
    for (uint32_t i = 0; is_valid && i < x->reply.u.sizes.count; i++) {
        const struct pm_wire_size *s = &x->reply.u.sizes.sizes[i];
        is_valid = is_valid_size(d, s->width_px, s->height_px) && isfinite(s->width_pt) &&
                   isfinite(s->height_pt) && s->width_pt >= 0 && s->height_pt >= 0;
    }
    if (!is_valid) {
        end_child(d, true);
        return pm_fail(err, PM_EPROTO, "made the decoder answer nonsense%s: it was stopped", x->place);
    }
    memcpy(d->sizes, x->reply.u.sizes.sizes, sizeof d->sizes);
    d->sizes_first = (uint32_t)page;
    d->sizes_count = x->reply.u.sizes.count;
    d->sizes_dpi = dpi;
    return 0;
}

int pm_decode_page_size(struct pm_decoder *d, int page, double dpi, struct pm_decode_size *out,
                        struct pm_error *err)
{
    struct exchange x;
    int rc = prepare(d, page, &dpi, &x, err);
    if (rc)
        return rc;
    uint32_t p = (uint32_t)page;
    if (d->sizes_dpi != dpi || p < d->sizes_first || p - d->sizes_first >= d->sizes_count) {
        rc = fetch_sizes(d, page, dpi, &x, err);
        if (rc)
            return rc;
    }
    const struct pm_wire_size *s = &d->sizes[p - d->sizes_first];
    *out = (struct pm_decode_size){(int)s->width_px, (int)s->height_px, s->width_pt, s->height_pt};
    return 0;
}

/* Nobody but us may change the pixels any more, and the file has exactly their size. */
static bool is_valid_page(const struct pm_decoder *d, const struct exchange *x, size_t *bytes_out)
{
    uint32_t width = x->reply.u.render.width_px, height = x->reply.u.render.height_px;
    uint32_t channels = x->reply.u.render.channels;
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    struct stat st;
    if (x->fd < 0 || !is_valid_size(d, width, height) || (channels != 1 && channels != 3) ||
        x->reply.u.render.stride_bytes != (uint64_t)width * channels)
        return false;
    double dpi = x->reply.u.render.dpi;
    if (!(dpi == 0 || (dpi > 0 && dpi <= 100000)))
        return false;
    int got = fcntl(x->fd, F_GET_SEALS);
    *bytes_out = (size_t)width * height * channels;
    return got >= 0 && (got & seals) == seals && fstat(x->fd, &st) == 0 && S_ISREG(st.st_mode) &&
           st.st_size == (off_t)*bytes_out;
}

/* Poppler keeps fonts and pictures of pages gone by: a page for which they left no room gets a fresh child.
 */
static int request_page(struct pm_decoder *d, int page, double dpi, struct exchange *x, struct pm_error *err)
{
    for (;;) {
        int rc = prepare(d, page, &dpi, x, err);
        if (rc)
            return rc;
        bool is_worn = d->pages_served > 0;
        x->request.kind = PM_WIRE_RENDER;
        rc = exchange(d, x, err);
        if (rc == 0)
            d->pages_served++;
        if (rc != PM_ELIMIT || d->pid != 0 || !is_worn)
            return rc;
    }
}

int pm_decode_render(struct pm_decoder *d, int page, double dpi, struct pm_image *out, double *dpi_out,
                     struct pm_error *err)
{
    struct exchange x;
    size_t bytes = 0;
    *out = (struct pm_image){0};
    *dpi_out = 0;
    int rc = request_page(d, page, dpi, &x, err);
    if (rc)
        return rc;
    if (!is_valid_page(d, &x, &bytes)) {
        if (x.fd >= 0)
            close(x.fd);
        end_child(d, true);
        return pm_fail(err, PM_EPROTO, "made the decoder answer nonsense%s: it was stopped", x.place);
    }
    void *pixels = mmap(NULL, bytes, PROT_READ, MAP_SHARED, x.fd, 0);
    int number = errno;
    close(x.fd);
    if (pixels == MAP_FAILED) {
        errno = number;
        return pm_fail_errno(err, "cannot be decoded: mapping a page of %zu MB", bytes >> 20);
    }
    snprintf(d->warning, sizeof d->warning, "%s", x.reply.text);
    *out = (struct pm_image){.pixels = pixels,
                             .width_px = (int)x.reply.u.render.width_px,
                             .height_px = (int)x.reply.u.render.height_px,
                             .channels = (int)x.reply.u.render.channels,
                             .stride_bytes = (size_t)x.reply.u.render.stride_bytes};
    *dpi_out = x.reply.u.render.dpi;
    return 0;
}

void pm_decode_image_free(struct pm_image *image)
{
    if (image->pixels)
        munmap((void *)(uintptr_t)image->pixels, image->stride_bytes * (size_t)image->height_px);
    *image = (struct pm_image){0};
}

void pm_decode_stop(struct pm_decoder **decoder)
{
    struct pm_decoder *d = *decoder;
    if (!d)
        return;
    end_child(d, true);
    if (d->source_fd >= 0)
        close(d->source_fd);
    explicit_bzero(d->password, sizeof d->password);
    free(d->program);
    free(d);
    *decoder = NULL;
}
