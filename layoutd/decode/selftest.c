/* The sandbox tries itself: each forbidden thing in a child of its own, for most of them are deadly. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layoutd/decode/loader.h"
#include "layoutd/decode/sandbox.h"

/* Each attempt returns 0 when it was let through, otherwise -1 with errno (or does not return). */
static int try_open(const char *path, int flags)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600) >= 0 ? 0 : -1;
}
static int open_passwd(void)
{
    return try_open("/etc/passwd", O_RDONLY);
}
static int open_memory(void)
{
    return try_open("/proc/1/mem", O_RDONLY);
}
static int list_root(void)
{
    return try_open("/", O_RDONLY | O_DIRECTORY);
}
static int write_file(void)
{
    return try_open("/tmp/pagemill-decode-self-test", O_WRONLY | O_CREAT);
}
static int write_font(void)
{
    return try_open("/usr/share/fonts/pagemill-decode-self-test", O_RDWR | O_CREAT);
}
static int temporary_file(void)
{
    return try_open("/tmp", O_TMPFILE | O_RDWR);
}
static int make_socket(void)
{
    return (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : -1;
}
static int make_local_socket(void)
{
    return (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0) >= 0 ? 0 : -1;
}
static int execute(void)
{
    char *const arguments[] = {(char *)(uintptr_t) "true", NULL}, *const environment[] = {NULL};
    return (int)syscall(SYS_execve, "/bin/true", arguments, environment);
}
static int fork_child(void)
{
    long pid = syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
    if (pid == 0)
        _exit(0);
    return pid > 0 ? 0 : -1;
}
static int trace(void)
{
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}
static int kill_parent(void)
{
    return (int)syscall(SYS_kill, getppid(), 0);
}
static int map_code(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p != MAP_FAILED ? 0 : -1;
}
static int raise_limit(void)
{
    static const struct {
        unsigned long soft, hard;
    } none = {~0ul, ~0ul};
    return (int)syscall(SYS_prlimit64, 0, 9 /* RLIMIT_AS */, &none, NULL);
}

static const struct {
    const char *name;
    int (*attempt)(void);
    bool needs_landlock; /* with fonts allowed, only Landlock refuses it */
} attempts[] = {
    {"open /etc/passwd", open_passwd, true},
    {"open /proc/1/mem", open_memory, true},
    {"list /", list_root, true},
    {"create a file in /tmp", write_file, false},
    {"create a file in /usr/share/fonts", write_font, false},
    {"make a temporary file", temporary_file, false},
    {"make an internet socket", make_socket, false},
    {"make a local socket", make_local_socket, false},
    {"run /bin/true", execute, false},
    {"start a process", fork_child, false},
    {"ptrace", trace, false},
    {"signal another process", kill_parent, false},
    {"map executable memory", map_code, false},
    {"raise the memory limit", raise_limit, false},
};

enum { EXIT_LET_THROUGH = 100, EXIT_NO_LANDLOCK, EXIT_NO_SANDBOX };

/* In the child: walls up, attempt, tell by the exit status (errno when refused). */
static void run_attempt(size_t index, bool needs_fonts)
{
    struct pm_sandbox sandbox = {
        .memory_bytes = (uint64_t)1 << 30, .max_file_bytes = 1 << 20, .needs_fonts = needs_fonts};
    struct pm_error err = {0};
    bool has_landlock;
    if (needs_fonts)
        pm_loader_pdf.prepare();
    if (pm_sandbox_enter(&sandbox, &has_landlock, &err)) {
        fprintf(stderr, "%s\n", err.text);
        _exit(EXIT_NO_SANDBOX);
    }
    int rc = attempts[index].attempt();
    if (rc != 0)
        _exit(errno < EXIT_LET_THROUGH ? errno : 99);
    _exit(needs_fonts && attempts[index].needs_landlock && !has_landlock ? EXIT_NO_LANDLOCK
                                                                         : EXIT_LET_THROUGH);
}

static bool report(const char *kind, const char *name, int status)
{
    printf("%-8s %-36s ", kind, name);
    if (WIFSIGNALED(status)) {
        printf("refused: killed (%s)\n", strsignal(WTERMSIG(status)));
        return WTERMSIG(status) == SIGSYS;
    }
    int code = WEXITSTATUS(status);
    if (code == EXIT_NO_LANDLOCK)
        printf("let through: this kernel has no Landlock\n");
    else if (code == EXIT_LET_THROUGH)
        printf("LET THROUGH\n");
    else if (code == EXIT_NO_SANDBOX)
        printf("NO SANDBOX\n");
    else
        printf("refused: %s\n", strerror(code));
    return code < EXIT_LET_THROUGH || code == EXIT_NO_LANDLOCK;
}

int pm_sandbox_self_test(void)
{
    bool all_refused = true;
    for (int fonts = 0; fonts < 2; fonts++)
        for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
            int status = 0;
            fflush(NULL);
            pid_t pid = fork();
            if (pid == 0)
                run_attempt(i, fonts);
            if (pid < 0 || waitpid(pid, &status, 0) != pid) {
                printf("cannot start a child: %s\n", strerror(errno));
                return 1;
            }
            all_refused &= report(fonts ? "PDF" : "picture", attempts[i].name, status);
        }
    printf("%s\n", all_refused ? "the sandbox holds" : "THE SANDBOX LEAKS");
    return all_refused ? 0 : 1;
}
