/* doctor: limits of the process, processor, memory, clock, libraries, the decoder's sandbox, systemd. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timex.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/host.h"
#include "base/mem.h"
#include "base/supervise.h"
#include "client/cli/doctor.h"
#include "client/cli/locate.h"
#include "engine/kernels/kernels.h"

#define FILES_LEAST  1024u
#define TOOL_US      10000000 /* patience with a program that is asked something */
#define ANSWER_BYTES 16384u

/* ---- limits ---- */

static uint64_t soft_limit(int resource)
{
    struct rlimit limit;
    return getrlimit((__rlimit_resource_t)resource, &limit) || limit.rlim_cur == RLIM_INFINITY
               ? UINT64_MAX
               : limit.rlim_cur;
}

/* A number in a file of /sys or /proc; UINT64_MAX for "max" and where there is none. */
static uint64_t number_in(const char *path)
{
    struct pm_buf text = {0};
    uint64_t value = UINT64_MAX;
    if (!pm_fs_read(path, 64, &text, NULL)) {
        pm_buf_text(&text, "");
        if (text.size && text.data[0] >= '0' && text.data[0] <= '9')
            value = strtoull((const char *)text.data, NULL, 10);
    }
    pm_buf_free(&text);
    return value;
}

void pm_doctor_limits(struct pm_doctor *d)
{
    uint64_t files = soft_limit(RLIMIT_NOFILE), processes = soft_limit(RLIMIT_NPROC);
    uint64_t pids = number_in("/sys/fs/cgroup/pids.max"), cores = (uint64_t)pm_host_cores();
    uint64_t need = 16 * cores + 64; /* processes and threads of a fleet, decoders included, twice over */
    if (files < FILES_LEAST)
        pm_doctor_add(
            d, "limits", PM_DOCTOR_FAIL,
            "`ulimit -n 65536` before `pagemill up`; in a systemd unit LimitNOFILE=65536; for good in "
            "/etc/security/limits.conf",
            "only %llu open files: the broker needs one for each connection and file",
            (unsigned long long)files);
    else
        pm_doctor_add(d, "limits", PM_DOCTOR_OK, NULL, "%llu open files", (unsigned long long)files);
    if (processes < need || pids < need)
        pm_doctor_add(d, "limits", PM_DOCTOR_WARN,
                      "`ulimit -u 4096`, in a systemd unit TasksMax=4096, for a container `docker run "
                      "--pids-limit 4096`",
                      "at most %llu processes and threads, a fleet on %llu cores may take %llu",
                      (unsigned long long)(processes < pids ? processes : pids), (unsigned long long)cores,
                      (unsigned long long)need);
    if (soft_limit(RLIMIT_AS) != UINT64_MAX)
        pm_doctor_add(d, "limits", PM_DOCTOR_WARN,
                      "`ulimit -v unlimited`; limit memory by MemoryMax= or a cgroup instead",
                      "the address space is limited to %llu MB: weights are mapped whole and need room there",
                      (unsigned long long)(soft_limit(RLIMIT_AS) >> 20));
    if (soft_limit(RLIMIT_FSIZE) != UINT64_MAX)
        pm_doctor_add(d, "limits", PM_DOCTOR_WARN, "`ulimit -f unlimited`",
                      "files may have %llu MB at most: journal and documents can be larger",
                      (unsigned long long)(soft_limit(RLIMIT_FSIZE) >> 20));
}

/* ---- programs that are asked ---- */

/* Standard output and error of a program, at most ANSWER_BYTES. PM_ETIMEOUT when it does not end. */
static int ask(const char *path, const char *const *argv, struct pm_buf *out, int *status_out,
               struct pm_error *err)
{
    int fds[2];
    struct pm_child child;
    if (pipe2(fds, O_CLOEXEC))
        return pm_fail_errno(err, "cannot make a pipe");
    struct pm_spawn spawn = {.path = path,
                             .argv = argv,
                             .stdin_fd = -1,
                             .stdout_fd = fds[1],
                             .stderr_fd = fds[1],
                             .die_with_parent = true};
    int rc = pm_spawn(&spawn, &child, err);
    close(fds[1]);
    int64_t until = pm_clock_us() + TOOL_US;
    char bytes[1024];
    ssize_t n = 1;
    while (!rc && n > 0) {
        struct pollfd p = {.fd = fds[0], .events = POLLIN};
        int64_t left = until - pm_clock_us();
        if (left <= 0 || poll(&p, 1, (int)(left / 1000) + 1) <= 0)
            rc = pm_fail(err, PM_ETIMEOUT, "%s does not end", path);
        else if ((n = read(fds[0], bytes, sizeof bytes)) > 0 && out->size < ANSWER_BYTES)
            pm_buf_append(out, bytes, (size_t)n);
    }
    close(fds[0]);
    if (child.pid && rc)
        pm_child_signal(&child, SIGKILL);
    if (child.pid)
        pm_child_reap(&child, status_out);
    pm_buf_text(out, "");
    return rc;
}

static void check_programs(struct pm_doctor *d)
{
    static const char *const names[] = {"pagemill-broker", "pagemill-layoutd", "pagemill-worker",
                                        "pagemill-collector"};
    size_t good = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct pm_error err;
        struct pm_buf text = {0};
        char *path = NULL;
        int status = 0;
        const char *argv[] = {names[i], "--version", NULL};
        if (pm_locate_program(names[i], &path, &err) || ask(path, argv, &text, &status, &err))
            pm_doctor_add(d, "programs", PM_DOCTOR_FAIL, "install Pagemill again, whole", "%s", err.text);
        else if (status || !strstr((const char *)text.data, PM_VERSION))
            pm_doctor_add(d, "programs", PM_DOCTOR_FAIL, "install Pagemill again, whole",
                          "%s says \"%.60s\", this is version %s", path, (const char *)text.data, PM_VERSION);
        else
            good++;
        pm_buf_free(&text);
        free(path);
    }
    if (good == sizeof names / sizeof *names)
        pm_doctor_add(d, "programs", PM_DOCTOR_OK, NULL, "version %s, all of them", PM_VERSION);
}

/* The decoder tries in children of its own what its sandbox forbids. */
static void check_sandbox(struct pm_doctor *d)
{
    static const char *const argv[] = {"pagemill-decode", "--self-test-sandbox", NULL};
    static const char fix[] =
        "the kernel must allow seccomp filters (CONFIG_SECCOMP_FILTER); in a container use the default "
        "seccomp profile or a newer runtime; `pagemill-decode --self-test-sandbox` shows what is wrong";
    struct pm_error err;
    struct pm_buf text = {0};
    char *path = NULL;
    int status = 0;
    if (pm_locate_program("pagemill-decode", &path, &err) || ask(path, argv, &text, &status, &err)) {
        pm_doctor_add(d, "sandbox", PM_DOCTOR_FAIL, fix, "%s", err.text);
    } else if (status) {
        const char *first = (const char *)text.data;
        pm_doctor_add(d, "sandbox", PM_DOCTOR_FAIL, fix, "documents cannot be decoded safely: %.*s",
                      (int)strcspn(first, "\n"), first);
    } else {
        pm_doctor_add(d, "sandbox", PM_DOCTOR_OK, NULL,
                      "decoders are walled in: what they must not do is refused");
    }
    pm_buf_free(&text);
    free(path);
}

static void check_systemd(struct pm_doctor *d)
{
    static const char *const argv[] = {
        "systemctl", "show", "pagemill.service", "-p", "LoadState,ActiveState,Result,NRestarts", NULL};
    struct pm_buf text = {0};
    int status = 0;
    if (access("/run/systemd/system", F_OK) || access("/usr/bin/systemctl", X_OK) ||
        ask("/usr/bin/systemctl", argv, &text, &status, NULL) || status) {
        pm_buf_free(&text);
        return;
    }
    const char *have = (const char *)text.data;
    if (strstr(have, "LoadState=loaded")) {
        bool has_failed = strstr(have, "ActiveState=failed"), is_active = strstr(have, "ActiveState=active");
        pm_doctor_add(
            d, "systemd", has_failed ? PM_DOCTOR_FAIL : PM_DOCTOR_OK,
            "`journalctl -u pagemill -n 50` says why; then `systemctl reset-failed pagemill; systemctl start "
            "pagemill`",
            "pagemill.service is %s",
            has_failed  ? "failed"
            : is_active ? "active"
                        : "not running");
    }
    pm_buf_free(&text);
}

/* ---- the machine ---- */

static void check_processor(struct pm_doctor *d)
{
    const char *missing = pm_kernels_missing(), *name = pm_kernels_get(NULL)->name;
    if (missing)
        pm_doctor_add(
            d, "cpu", PM_DOCTOR_WARN, "`unset PAGEMILL_ISA`",
            "PAGEMILL_ISA asks for \"%s\", which this processor or program does not have: \"%s\" is used",
            missing, name);
    if (!strcmp(name, "plain"))
        pm_doctor_add(
            d, "cpu", PM_DOCTOR_WARN,
            "use a processor with AVX2 (since 2013); a virtual machine must pass it on: -cpu host for QEMU",
            "no AVX2: reading is several times slower");
    else
        pm_doctor_add(d, "cpu", PM_DOCTOR_OK, NULL, "%d core%s, kernels \"%s\"", pm_host_cores(),
                      pm_host_cores() == 1 ? "" : "s", name);
}

static void check_clock(struct pm_doctor *d)
{
    struct timex t = {0};
    int state = adjtimex(&t);
    if (pm_wall_us() < (int64_t)1704067200 * 1000000) /* 2024 */
        pm_doctor_add(d, "clock", PM_DOCTOR_WARN, "`timedatectl set-ntp true`, or `date -s`",
                      "the clock is years behind: results expire by it");
    else
        pm_doctor_add(d, "clock", PM_DOCTOR_OK, NULL, "%s",
                      state >= 0 && !(t.status & STA_UNSYNC)
                          ? "synchronised"
                          : "not known to be synchronised; only the times that people "
                            "see depend on it");
}

static void check_libraries(struct pm_doctor *d)
{
    int major, minor, patch;
    zmq_version(&major, &minor, &patch);
    if (zmq_has("curve"))
        pm_doctor_add(d, "zeromq", PM_DOCTOR_OK, NULL, "%d.%d.%d with CURVE", major, minor, patch);
    else
        pm_doctor_add(d, "zeromq", PM_DOCTOR_WARN,
                      "install a libzmq that was built with libsodium (Debian's is)",
                      "%d.%d.%d without CURVE: no workers or clients on other hosts", major, minor, patch);
}

void pm_doctor_machine(struct pm_doctor *d)
{
    check_processor(d);
    check_programs(d);
    check_sandbox(d);
    check_libraries(d);
    check_clock(d);
    check_systemd(d);
}
