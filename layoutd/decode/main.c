/* pagemill-decode: one source file in, pages out, behind the walls of sandbox.h. Started by layoutd with the
 * socket as descriptor 3 and the file as descriptor 4 (wire.h); not for use by hand. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layoutd/decode/loader.h"
#include "layoutd/decode/memory.h"
#include "layoutd/decode/sandbox.h"
#include "layoutd/decode/wire.h"

struct decoder {
    struct pm_source source;
    const struct pm_loader *loader;
    void *document;
    uint32_t page_count;
    bool is_open;
};

/* The out-of-memory report is sent from a signal handler: it needs the request that was being served. */
static struct pm_wire_reply last_words;

static void say_last_words(void)
{
    while (send(PM_WIRE_SOCKET_FD, &last_words, sizeof last_words, MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
}

/* Sends with the descriptor when fd >= 0. */
static int send_reply(const struct pm_wire_reply *reply, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {(void *)(uintptr_t)reply, sizeof *reply};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    ssize_t n;
    do
        n = sendmsg(PM_WIRE_SOCKET_FD, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof *reply ? 0 : -1;
}

/* 1: a request; 0: the parent has left; -1: something else than a request */
static int receive(struct pm_wire_request *request)
{
    ssize_t n;
    do
        n = recv(PM_WIRE_SOCKET_FD, request, sizeof *request, MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return 0;
    if (n != (ssize_t)sizeof *request || request->magic != PM_WIRE_MAGIC)
        return -1;
    request->password[sizeof request->password - 1] = 0;
    return 1;
}

static int check_limits(const struct pm_wire_limits *l, struct pm_error *err)
{
    const uint32_t side = 65535;
    if (l->max_source_px == 0 || l->max_source_px > UINT64_C(1) << 31 || l->max_page_px == 0 ||
        l->max_page_px > UINT64_C(300000000) || l->max_pages == 0 || l->max_pages > 10000000 ||
        l->pdf_longest_px == 0 || l->pdf_longest_px > 30000 || l->picture_longest_px == 0 ||
        l->picture_longest_px > side)
        return pm_fail(err, PM_EINVAL, "cannot be decoded within limits that are zero or absurd");
    return 0;
}

/* The bytes are mapped, not read: that works behind the walls without a system call. */
static int map_source(struct pm_source *source, struct pm_error *err)
{
    struct stat st;
    if (fstat(PM_WIRE_SOURCE_FD, &st) != 0)
        return pm_fail_errno(err, "cannot be read");
    if (!S_ISREG(st.st_mode))
        return pm_fail(err, PM_EFORMAT, "is not a regular file");
    if (st.st_size <= 0)
        return pm_fail(err, PM_EFORMAT, "is empty");
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, PM_WIRE_SOURCE_FD, 0);
    if (bytes == MAP_FAILED)
        return pm_fail_errno(err, "cannot be mapped");
    close(PM_WIRE_SOURCE_FD);
    source->bytes = bytes;
    source->size = (size_t)st.st_size;
    return 0;
}

static int serve_open(struct decoder *d, struct pm_wire_request *request, struct pm_wire_reply *reply,
                      struct pm_error *err)
{
    bool has_landlock;
    if (d->is_open)
        return pm_fail(err, PM_EPROTO, "cannot be opened twice");
    int rc = check_limits(&request->limits, err);
    if (rc)
        return rc;
    d->loader = pm_loader_for((enum pm_format)request->format);
    if (!d->loader)
        return pm_fail(err, PM_EUNSUPPORTED, "is of a format without a decoder");
    d->source.limits = request->limits;
    d->source.password = request->has_password ? request->password : NULL;
    if (d->loader->prepare)
        d->loader->prepare();
    rc = map_source(&d->source, err);
    if (rc)
        return rc;
    struct pm_sandbox sandbox = {.memory_bytes = request->limits.memory_bytes,
                                 .max_file_bytes = request->limits.max_page_px * 3 + 4096,
                                 .needs_fonts = d->loader->format == PM_FORMAT_PDF};
    rc = pm_sandbox_enter(&sandbox, &has_landlock, err);
    if (rc)
        return rc;
    rc = pm_loader_open(d->loader, &d->source, &d->document, &d->page_count, reply->u.open.title, err);
    if (rc)
        return rc;
    d->is_open = true;
    reply->u.open.page_count = d->page_count;
    return 0;
}

static int check_page(const struct decoder *d, const struct pm_wire_request *request, uint32_t count,
                      struct pm_error *err)
{
    if (!d->is_open || request->page >= d->page_count || count == 0 || count > d->page_count - request->page)
        return pm_fail(err, PM_EINVAL, "has no page %u", request->page + 1);
    if (!(request->dpi >= 10 && request->dpi <= 2400))
        return pm_fail(err, PM_EINVAL, "cannot be rendered at %g dpi", request->dpi);
    return 0;
}

static int serve_sizes(struct decoder *d, const struct pm_wire_request *request, struct pm_wire_reply *reply,
                       struct pm_error *err)
{
    uint32_t count = request->count < PM_WIRE_SIZES_MAX ? request->count : PM_WIRE_SIZES_MAX;
    int rc = check_page(d, request, count, err);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < count; i++) {
        rc = d->loader->size(d->document, request->page + i, request->dpi, &reply->u.sizes.sizes[i], err);
        if (rc && i == 0)
            return rc;
        if (rc)
            break; /* the bad page is asked for by itself later, and gets its error then */
        reply->u.sizes.count = i + 1;
    }
    return 0;
}

static int serve_render(struct decoder *d, const struct pm_wire_request *request, struct pm_wire_reply *reply,
                        struct pm_raster *raster, struct pm_error *err)
{
    int rc = check_page(d, request, 1, err);
    if (rc == 0)
        rc = d->loader->render(d->document, request->page, request->dpi, raster, err);
    if (rc)
        return rc;
    reply->u.render.width_px = raster->width_px;
    reply->u.render.height_px = raster->height_px;
    reply->u.render.channels = raster->channels;
    reply->u.render.stride_bytes = (uint64_t)raster->width_px * raster->channels;
    reply->u.render.dpi = isfinite(raster->dpi) ? raster->dpi : 0;
    snprintf(reply->text, sizeof reply->text, "%s", raster->warning);
    /* Poppler and cairo leave out a picture that they have no memory for, and say nothing. */
    if (pm_memory_failed_bytes() && !reply->text[0])
        snprintf(reply->text, sizeof reply->text,
                 "parts of the page may be missing: %zu MB of memory for them were refused",
                 pm_memory_failed_bytes() >> 20);
    pm_sanitize_text(reply->text);
    return 0;
}

/* Whether the loop goes on. */
static bool serve(struct decoder *d, struct pm_wire_request *request)
{
    static struct pm_wire_reply reply;
    struct pm_raster raster = {0};
    struct pm_error err = {0};
    int rc;
    memset(&reply, 0, sizeof reply);
    reply.magic = PM_WIRE_MAGIC;
    reply.kind = request->kind;
    reply.serial = request->serial;
    last_words = reply;
    last_words.code = PM_ENOMEM;
    pm_memory_forget();
    switch (request->kind) {
    case PM_WIRE_OPEN:
        rc = serve_open(d, request, &reply, &err);
        break;
    case PM_WIRE_SIZES:
        rc = serve_sizes(d, request, &reply, &err);
        break;
    case PM_WIRE_RENDER:
        rc = serve_render(d, request, &reply, &raster, &err);
        break;
    default:
        return false;
    }
    reply.code = rc;
    if (rc)
        snprintf(reply.text, sizeof reply.text, "%s", err.text);
    int sent = send_reply(&reply, rc == 0 && request->kind == PM_WIRE_RENDER ? raster.memfd : -1);
    pm_raster_free(&raster);
    return sent == 0;
}

static int serve_all(void)
{
    static struct decoder decoder;
    static struct pm_wire_request open_request; /* the password stays in it */
    struct pm_wire_request request;
    while (receive(&request) == 1) {
        if (request.kind == PM_WIRE_OPEN)
            open_request = request;
        if (!serve(&decoder, request.kind == PM_WIRE_OPEN ? &open_request : &request))
            break;
    }
    if (decoder.is_open)
        decoder.loader->close(decoder.document);
    return 0;
}

static void usage(FILE *to)
{
    fputs("usage: pagemill-decode [--help | --version | --self-test-sandbox]\n"
          "\n"
          "Decodes one document (PDF, PNG, JPEG, TIFF, WebP, BMP, GIF) in a sandbox. Started by\n"
          "pagemill-layoutd, which passes a socket as descriptor 3 and the file as descriptor 4.\n"
          "\n"
          "  --self-test-sandbox  try what the sandbox forbids, print a line for each, exit 0\n"
          "                       when everything was refused\n"
          "  --version            print the version\n"
          "  --help               print this text\n",
          to);
}

int main(int argc, char **argv)
{
    struct stat st;
    /* The parent may be gone before prctl takes effect; the closed socket then ends the loop. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    signal(SIGINT, SIG_IGN); /* Ctrl-C at the terminal is for the parent */
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("pagemill-decode " PM_VERSION);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--self-test-sandbox") == 0)
        return pm_sandbox_self_test();
    if (argc != 1 || fstat(PM_WIRE_SOCKET_FD, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        usage(stderr);
        return 2;
    }
    pm_memory_watch(say_last_words);
    return serve_all();
}
