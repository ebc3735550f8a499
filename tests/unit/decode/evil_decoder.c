/* A decoder that lies. Stands in for pagemill-decode in test_client.c: the kind of lie is in the source file,
 * after "%PDF-evil:". What the client believes must hold whatever comes from the other end. */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "layoutd/decode/wire.h"

static char kind[100];
static int pages_answered;

static int is(const char *name)
{
    return strcmp(kind, name) == 0;
}

static void send_it(const void *bytes, size_t size, const int *fds, size_t count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)bytes, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *h = CMSG_FIRSTHDR(&message);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(h), fds, count * sizeof(int));
    }
    if (sendmsg(PM_WIRE_SOCKET_FD, &message, MSG_NOSIGNAL) < 0)
        exit(9);
}

static int page_file(size_t bytes, int seals)
{
    int fd = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0 || (seals && fcntl(fd, F_ADD_SEALS, seals) != 0))
        exit(8);
    return fd;
}

static void answer_open(struct pm_wire_reply *r)
{
    static struct {
        struct pm_wire_reply reply;
        char more[100];
    } longer;
    r->u.open.page_count = 3;
    if (is("exit"))
        exit(3);
    if (is("hang"))
        pause();
    if (is("close")) {
        close(PM_WIRE_SOCKET_FD);
        pause();
    }
    if (is("magic"))
        r->magic ^= 1;
    if (is("serial"))
        r->serial++;
    if (is("kind"))
        r->kind = PM_WIRE_RENDER;
    if (is("positive-code"))
        r->code = 5;
    if (is("unknown-code"))
        r->code = -1000;
    if (is("no-pages"))
        r->u.open.page_count = 0;
    if (is("too-many-pages"))
        r->u.open.page_count = 0xffffffff;
    if (is("endless-title"))
        memset(r->u.open.title, 'T', sizeof r->u.open.title);
    if (is("title-with-controls"))
        strcpy(r->u.open.title, "a\033[2J\nb");
    if (is("endless-text")) {
        r->code = PM_EFORMAT;
        memset(r->text, 'X', sizeof r->text);
    }
    if (is("out-of-memory"))
        r->code = PM_ENOMEM;
    if (is("descriptor-with-open")) {
        int fd = page_file(10, 0);
        send_it(r, sizeof *r, &fd, 1);
    } else if (is("short")) {
        send_it(r, 10, NULL, 0);
    } else if (is("long")) {
        longer.reply = *r;
        send_it(&longer, sizeof longer, NULL, 0);
    } else {
        send_it(r, sizeof *r, NULL, 0);
    }
}

static void answer_sizes(struct pm_wire_reply *r, const struct pm_wire_request *request)
{
    r->u.sizes.count = request->count;
    for (uint32_t i = 0; i < PM_WIRE_SIZES_MAX; i++)
        r->u.sizes.sizes[i] = (struct pm_wire_size){10, 10, 5, 5};
    if (is("sizes-count"))
        r->u.sizes.count = 1000000;
    if (is("sizes-none"))
        r->u.sizes.count = 0;
    if (is("sizes-huge"))
        r->u.sizes.sizes[1].width_px = 1000000;
    if (is("sizes-nan"))
        r->u.sizes.sizes[0].width_pt = NAN;
    send_it(r, sizeof *r, NULL, 0);
}

static void answer_render(struct pm_wire_reply *r, uint32_t page)
{
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    int fds[6];
    size_t count = 1;
    r->u.render.width_px = 10;
    r->u.render.height_px = 10;
    r->u.render.channels = 3;
    r->u.render.stride_bytes = 30;
    r->u.render.dpi = 100;
    if (is("crash-on-2") && page == 1) {
        signal(SIGSEGV, SIG_DFL); /* not a sanitizer's, which would exit */
        raise(SIGSEGV);
    }
    if (is("forbidden"))
        raise(SIGSYS);
    if (is("killed"))
        raise(SIGKILL);
    fds[0] = page_file(is("small-file")   ? 299
                       : is("large-file") ? 301
                                          : 300,
                       is("no-seals")     ? 0
                       : is("may-shrink") ? F_SEAL_GROW | F_SEAL_WRITE
                                          : all);
    if (is("no-file"))
        count = 0;
    if (is("device"))
        fds[0] = open("/dev/zero", O_RDONLY);
    if (is("socket"))
        fds[0] = PM_WIRE_SOCKET_FD;
    if (is("many-files"))
        for (count = 1; count < 6; count++)
            fds[count] = page_file(300, all);
    if (is("two-channels"))
        r->u.render.channels = 2;
    if (is("no-width"))
        r->u.render.width_px = 0;
    if (is("huge"))
        r->u.render.width_px = r->u.render.height_px = 0x7fffffff;
    if (is("stride"))
        r->u.render.stride_bytes = 29;
    if (is("stride-wraps"))
        r->u.render.stride_bytes = (uint64_t)0 - 30;
    if (is("dpi-nan"))
        r->u.render.dpi = NAN;
    if (is("worn") && pages_answered++)
        r->code = PM_ENOMEM;
    if (is("error-with-file"))
        r->code = PM_EFORMAT;
    if (is("wrong-kind"))
        r->kind = PM_WIRE_OPEN;
    send_it(r, sizeof *r, fds, count);
}

int main(void)
{
    struct pm_wire_request request;
    char text[100] = "";
    if (pread(PM_WIRE_SOURCE_FD, text, sizeof text - 1, 0) < 10)
        return 7;
    snprintf(kind, sizeof kind, "%s", text + strlen("%PDF-evil:"));
    while (recv(PM_WIRE_SOCKET_FD, &request, sizeof request, 0) == (ssize_t)sizeof request) {
        struct pm_wire_reply r = {.magic = PM_WIRE_MAGIC, .kind = request.kind, .serial = request.serial};
        if (request.kind == PM_WIRE_OPEN)
            answer_open(&r);
        else if (request.kind == PM_WIRE_SIZES)
            answer_sizes(&r, &request);
        else
            answer_render(&r, request.page);
    }
    return 0;
}
