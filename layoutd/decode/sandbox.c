#include "layoutd/decode/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fontconfig/fontconfig.h>

#include "layoutd/decode/wire.h"

#ifdef PM_SANITIZED
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

/* As in linux/landlock.h of kernel 6.12; Debian 12's header knows fewer, the running kernel may know more. */
#define LL_READ_FILE      (UINT64_C(1) << 2)
#define LL_READ_DIR       (UINT64_C(1) << 3)
#define LL_PATH_BENEATH   1
#define LL_CREATE_VERSION 1u

struct ll_ruleset {
    uint64_t handled_access_fs;
    uint64_t handled_access_net; /* from version 4 */
    uint64_t scoped;             /* from version 6 */
};
struct ll_path_beneath {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

static void ll_allow(int ruleset, const char *path)
{
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return; /* not on this machine */
    uint64_t access = LL_READ_FILE;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        access |= LL_READ_DIR;
    struct ll_path_beneath rule = {access, fd};
    syscall(SYS_landlock_add_rule, ruleset, LL_PATH_BENEATH, &rule, 0);
    close(fd);
}

static void ll_allow_list(int ruleset, FcStrList *list)
{
    FcChar8 *path;
    if (!list)
        return;
    while ((path = FcStrListNext(list)))
        ll_allow(ruleset, (const char *)path);
    FcStrListDone(list);
}

/* Fontconfig has read its configuration by now; it opens fonts, and Poppler its tables, when a page needs
 * them. */
static void ll_allow_fonts(int ruleset)
{
    ll_allow_list(ruleset, FcConfigGetFontDirs(NULL));
    ll_allow_list(ruleset, FcConfigGetCacheDirs(NULL));
    ll_allow_list(ruleset, FcConfigGetConfigFiles(NULL));
    static const char *const paths[] = {"/usr/share/fonts",   "/usr/local/share/fonts",
                                        "/usr/share/poppler", "/usr/share/ghostscript/fonts",
                                        "/etc/fonts",         "/usr/share/fontconfig"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        ll_allow(ruleset, paths[i]);
}

static int enter_landlock(const struct pm_sandbox *sandbox, bool *has_landlock_out, struct pm_error *err)
{
    /* Rights of the file system that each version brought: 13, refer, truncate, ioctl on devices. */
    static const int rights[] = {13, 14, 15, 15, 16};
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LL_CREATE_VERSION);
    *has_landlock_out = version >= 1;
    if (version < 1)
        return 0;
    struct ll_ruleset attributes = {.handled_access_fs =
                                        (UINT64_C(1) << rights[version > 5 ? 4 : version - 1]) - 1};
    size_t size = sizeof attributes.handled_access_fs;
    if (version >= 4) {
        attributes.handled_access_net = 3; /* bind, connect */
        size += sizeof attributes.handled_access_net;
    }
    if (version >= 6) {
        attributes.scoped = 3; /* abstract sockets, signals */
        size += sizeof attributes.scoped;
    }
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0);
    if (ruleset < 0)
        return pm_fail_errno(err, "the decoder cannot set up Landlock");
    if (sandbox->needs_fonts)
        ll_allow_fonts(ruleset);
    if (IS_SANITIZED)
        ll_allow(ruleset, "/proc/self");
    long rc = syscall(SYS_landlock_restrict_self, ruleset, 0);
    int number = errno;
    close(ruleset);
    errno = number;
    return rc ? pm_fail_errno(err, "the decoder cannot enter Landlock") : 0;
}

static uint64_t mapped_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%llu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int limit(int resource, uint64_t value, const char *name, struct pm_error *err)
{
    struct rlimit r;
    if (getrlimit(resource, &r) == 0 && r.rlim_max != RLIM_INFINITY && value > r.rlim_max)
        value = r.rlim_max;
    r.rlim_cur = r.rlim_max = value;
    return setrlimit(resource, &r) ? pm_fail_errno(err, "the decoder cannot limit its %s", name) : 0;
}

static int enter_limits(const struct pm_sandbox *sandbox, struct pm_error *err)
{
    int rc = limit(RLIMIT_CORE, 0, "core files", err);
    if (rc == 0)
        rc = limit(RLIMIT_NOFILE, 64, "open files", err);
    /* A memfd counts as a file: 0 would forbid the pages themselves. */
    if (rc == 0)
        rc = limit(RLIMIT_FSIZE, sandbox->max_file_bytes, "files", err);
    if (rc == 0 && sandbox->memory_bytes && !IS_SANITIZED)
        rc = limit(RLIMIT_AS, mapped_bytes() + sandbox->memory_bytes, "memory", err);
    return rc;
}

static int drop_capabilities(struct pm_error *err)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    if (syscall(SYS_capset, &header, none))
        return pm_fail_errno(err, "the decoder cannot drop its privileges");
    return 0;
}

/* Calls that the libraries make, with any arguments. */
static const int plain_calls[] = {
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(pread64),
    SCMP_SYS(lseek),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(stat),
    SCMP_SYS(lstat),
    SCMP_SYS(statx),
    SCMP_SYS(statfs),
    SCMP_SYS(fstatfs),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(getdents64),
    SCMP_SYS(getcwd),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(clock_getres),
    SCMP_SYS(getrandom),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(uname),
    SCMP_SYS(sysinfo),
    SCMP_SYS(getrusage),
    SCMP_SYS(times),
    SCMP_SYS(sched_yield),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(memfd_create),
    SCMP_SYS(ftruncate),
    SCMP_SYS(rseq),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
};

/* Calls that fail politely, because a library tries them and lives without. */
static const struct {
    int call, error;
} refused_calls[] = {
    {SCMP_SYS(clone3), ENOSYS},   {SCMP_SYS(ioctl), ENOTTY},        {SCMP_SYS(mkdir), EACCES},
    {SCMP_SYS(mkdirat), EACCES},  {SCMP_SYS(unlink), EACCES},       {SCMP_SYS(unlinkat), EACCES},
    {SCMP_SYS(prctl), EPERM},     {SCMP_SYS(getxattr), EOPNOTSUPP}, {SCMP_SYS(prlimit64), EPERM},
    {SCMP_SYS(getrlimit), EPERM}, {SCMP_SYS(fadvise64), ENOSYS},    {SCMP_SYS(openat2), ENOSYS},
};

static int rule(scmp_filter_ctx filter, uint32_t action, int call, const struct scmp_arg_cmp *args,
                unsigned count)
{
    int rc = seccomp_rule_add_array(filter, action, call, count, args);
    /* A call that this machine does not have cannot be made either. */
    return rc == -EDOM || (rc == -EINVAL && call < 0) ? 0 : rc;
}

static int rule1(scmp_filter_ctx filter, uint32_t action, int call, struct scmp_arg_cmp a)
{
    return rule(filter, action, call, &a, 1);
}

/* Opening for reading only. O_TMPFILE and O_CREAT need write access or make files: the mask covers them. */
static int add_open_rules(scmp_filter_ctx f, bool may_read)
{
    const uint64_t writing = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND;
    int rc = 0;
    if (!may_read) {
        rc |= rule(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(open), NULL, 0);
        rc |= rule(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), NULL, 0);
        return rc;
    }
    rc |= rule1(f, SCMP_ACT_ALLOW, SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, writing, O_RDONLY));
    rc |= rule1(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, writing, O_RDONLY));
    /* Any bit of the mask set: refused with an error, for fontconfig would like to write its cache. */
    static const uint64_t bits[] = {O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND};
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        rc |= rule1(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, bits[i], bits[i]));
        rc |=
            rule1(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, bits[i], bits[i]));
    }
    return rc;
}

static int add_memory_rules(scmp_filter_ctx f)
{
    int rc = 0;
    static const int calls[] = {SCMP_SYS(mmap), SCMP_SYS(mprotect)};
    for (size_t i = 0; i < 2; i++) {
        rc |= rule1(f, SCMP_ACT_ALLOW, calls[i], SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
        /* Loading a library would end here; the caller goes on without it. */
        rc |= rule1(f, SCMP_ACT_ERRNO(EACCES), calls[i], SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
    }
    return rc;
}

static int add_descriptor_rules(scmp_filter_ctx f)
{
    static const int commands[] = {F_GETFD, F_SETFD, F_GETFL, F_ADD_SEALS, F_GET_SEALS};
    static const int socket_calls[] = {SCMP_SYS(sendmsg), SCMP_SYS(recvmsg), SCMP_SYS(recvfrom),
                                       SCMP_SYS(sendto)};
    int rc = 0;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        rc |= rule1(f, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, (uint64_t)commands[i], 0));
    for (size_t i = 0; i < sizeof socket_calls / sizeof socket_calls[0]; i++)
        rc |= rule1(f, SCMP_ACT_ALLOW, socket_calls[i], SCMP_A0(SCMP_CMP_EQ, PM_WIRE_SOCKET_FD, 0));
    /* Standard output and error are /dev/null in use, a terminal when a person runs the self-test. */
    static const int write_calls[] = {SCMP_SYS(write), SCMP_SYS(writev)};
    for (size_t i = 0; i < 2; i++) {
        rc |= rule1(f, SCMP_ACT_ALLOW, write_calls[i], SCMP_A0(SCMP_CMP_EQ, STDOUT_FILENO, 0));
        rc |= rule1(f, SCMP_ACT_ALLOW, write_calls[i], SCMP_A0(SCMP_CMP_EQ, STDERR_FILENO, 0));
    }
    /* abort() and failing assertions: signals to itself. */
    rc |= rule1(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, (uint64_t)getpid(), 0));
    return rc;
}

static int enter_seccomp(const struct pm_sandbox *sandbox, struct pm_error *err)
{
    int rc = 0;
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!f)
        return pm_fail(err, PM_ENOMEM, "the decoder cannot make its system call filter");
    for (size_t i = 0; i < sizeof plain_calls / sizeof plain_calls[0]; i++)
        rc |= rule(f, SCMP_ACT_ALLOW, plain_calls[i], NULL, 0);
    for (size_t i = 0; i < sizeof refused_calls / sizeof refused_calls[0]; i++)
        rc |= rule(f, SCMP_ACT_ERRNO((uint32_t)refused_calls[i].error), refused_calls[i].call, NULL, 0);
    rc |= add_open_rules(f, sandbox->needs_fonts || IS_SANITIZED);
    rc |= add_memory_rules(f);
    rc |= add_descriptor_rules(f);
    if (rc == 0)
        rc = seccomp_load(f);
    seccomp_release(f);
    return rc ? pm_fail(err, PM_EIO, "the decoder cannot load its system call filter: %s", strerror(-rc)) : 0;
}

int pm_sandbox_enter(const struct pm_sandbox *sandbox, bool *has_landlock_out, struct pm_error *err)
{
    int rc = 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return pm_fail_errno(err, "the decoder cannot give up new privileges");
    rc = enter_landlock(sandbox, has_landlock_out, err);
    if (rc == 0)
        rc = enter_limits(sandbox, err);
    if (rc == 0)
        rc = drop_capabilities(err);
    if (rc == 0)
        rc = enter_seccomp(sandbox, err);
    return rc;
}
