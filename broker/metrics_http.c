#include "broker/metrics_http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/exposition.h"

#define REQUEST_BYTES 8192
#define SILENCE_S     5
#define BACKLOG       64
#define TEXT_BYTES    512

struct pm_http {
    struct pm_http_pages pages;
    struct MHD_Daemon *daemon;
    int listen_fd, epoll_fd;
    char *address;
    char *path; /* of a UNIX socket; NULL: none */
    bool is_public, has_more;
    int64_t now_us, turned_us, made_us;
    struct MHD_Response *page; /* shared by all that ask for it; NULL: none yet */
    struct pm_buf text;
};

/* ---- addresses ---- */

struct place {
    char host[64], port[8];
    const char *path; /* UNIX: into the address given */
};

static int read_place(const char *address, struct place *out, struct pm_error *err)
{
    const char *colon = strrchr(address, ':'), *port = colon ? colon + 1 : address, *host = "127.0.0.1";
    size_t host_bytes = strlen(host);
    *out = (struct place){.host = ""};
    if (*address == '/') {
        out->path = address;
        struct sockaddr_un un;
        return strlen(address) < sizeof un.sun_path
                   ? 0
                   : pm_fail(err, PM_EINVAL, "%s is too long for a socket", address);
    }
    if (colon) {
        host = address;
        host_bytes = (size_t)(colon - address);
        if (host_bytes > 2 && host[0] == '[' && host[host_bytes - 1] == ']') {
            host++;
            host_bytes -= 2;
        }
    }
    size_t digits = strspn(port, "0123456789");
    if (!digits || port[digits] || digits > 5 || strtoul(port, NULL, 10) > 65535 || !host_bytes ||
        host_bytes >= sizeof out->host)
        return pm_fail(err, PM_EINVAL,
                       "\"%s\" is no address for metrics: give PORT, HOST:PORT or the path of a socket",
                       address);
    memcpy(out->host, host, host_bytes);
    memcpy(out->port, port, digits);
    if (!strcmp(out->host, "localhost"))
        strcpy(out->host, "127.0.0.1");
    return 0;
}

static int resolve(const char *address, const struct place *place, struct addrinfo **out,
                   struct pm_error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    int failed = getaddrinfo(place->host, place->port, &hints, out);
    return failed
               ? pm_fail(err, PM_EINVAL, "\"%s\" is no address for metrics: the host must be a number (%s)",
                         address, gai_strerror(failed))
               : 0;
}

int pm_http_check(const char *address, struct pm_error *err)
{
    struct place place;
    struct addrinfo *found = NULL;
    int rc = read_place(address, &place, err);
    if (!rc && !place.path)
        rc = resolve(address, &place, &found, err);
    if (found)
        freeaddrinfo(found);
    return rc;
}

/* ---- listening ---- */

static bool is_loopback(const struct sockaddr *at)
{
    if (at->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)at)->sin_addr.s_addr) >> 24 == 127;
    return at->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)at)->sin6_addr);
}

static int listen_tcp(struct pm_http *h, const char *address, const struct place *place, struct pm_error *err)
{
    struct addrinfo *found;
    int on = 1, rc = resolve(address, place, &found, err);
    if (rc)
        return rc;
    h->is_public = !is_loopback(found->ai_addr);
    h->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (h->listen_fd < 0 || setsockopt(h->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        bind(h->listen_fd, found->ai_addr, found->ai_addrlen) || listen(h->listen_fd, BACKLOG))
        rc = pm_fail_errno(err, "cannot listen on %s", address);
    freeaddrinfo(found);
    struct sockaddr_storage at = {0};
    socklen_t bytes = sizeof at;
    char host[64], port[8];
    if (rc)
        return rc;
    if (getsockname(h->listen_fd, (struct sockaddr *)&at, &bytes) ||
        getnameinfo((struct sockaddr *)&at, bytes, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return pm_fail_errno(err, "cannot tell where %s is", address);
    h->address = pm_xprintf(at.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return 0;
}

/* A socket that is left from before is removed, nothing else. */
static int listen_unix(struct pm_http *h, const char *path, struct pm_error *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct stat st;
    strcpy(at.sun_path, path);
    if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
        unlink(path);
    h->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (h->listen_fd < 0 || bind(h->listen_fd, (const struct sockaddr *)&at, sizeof at) ||
        listen(h->listen_fd, BACKLOG))
        return pm_fail_errno(err, "cannot listen on %s", path);
    h->path = pm_xstrdup(path);
    h->address = pm_xstrdup(path);
    return 0;
}

/* ---- answers ---- */

static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, struct MHD_Response *r,
                              const char *type)
{
    if (!r)
        return MHD_NO;
    if (type)
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    return MHD_queue_response(c, status, r);
}

static enum MHD_Result say(struct MHD_Connection *c, unsigned status, const char *text)
{
    char line[TEXT_BYTES];
    int n = snprintf(line, sizeof line, "%s\n", text);
    size_t bytes = n < (int)sizeof line ? (size_t)n : sizeof line - 1;
    struct MHD_Response *r = MHD_create_response_from_buffer(bytes, line, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result rc = answer(c, status, r, "text/plain; charset=utf-8");
    if (r)
        MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result say_metrics(struct pm_http *h, struct MHD_Connection *c)
{
    if (!h->page || h->now_us - h->made_us >= PM_HTTP_FRESH_US) {
        if (h->page)
            MHD_destroy_response(h->page); /* those who are still being sent it keep theirs */
        pm_buf_clear(&h->text);
        h->pages.metrics(h->pages.context, &h->text);
        h->made_us = h->now_us;
        h->page = MHD_create_response_from_buffer(h->text.size, h->text.data, MHD_RESPMEM_MUST_COPY);
        if (h->page)
            MHD_add_response_header(h->page, MHD_HTTP_HEADER_CONTENT_TYPE, PM_EXPO_TYPE);
    }
    return answer(c, MHD_HTTP_OK, h->page, NULL);
}

static enum MHD_Result serve(void *context, struct MHD_Connection *c, const char *url, const char *method,
                             const char *version, const char *data, size_t *bytes, void **state)
{
    struct pm_http *h = context;
    (void)version;
    (void)data;
    (void)bytes;
    (void)state;
    bool is_get = !strcmp(method, MHD_HTTP_METHOD_GET) || !strcmp(method, MHD_HTTP_METHOD_HEAD);
    if (is_get && !strcmp(url, "/metrics"))
        return say_metrics(h, c);
    if (is_get && !strcmp(url, "/healthz")) {
        const char *why = h->pages.health(h->pages.context);
        return say(c, *why ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK, *why ? why : "ok");
    }
    return say(c, MHD_HTTP_NOT_FOUND, "there are /metrics and /healthz");
}

/* What clients did wrong is theirs to know; the library would write it to standard error. */
static void say_nothing(void *context, const char *format, va_list args)
{
    (void)context;
    (void)format;
    (void)args;
}

int pm_http_open(const char *address, const struct pm_http_pages *pages, struct pm_http **out,
                 struct pm_error *err)
{
    struct pm_http *h = pm_xalloc(sizeof *h);
    struct place place;
    h->pages = *pages;
    h->listen_fd = h->epoll_fd = -1;
    int rc = read_place(address, &place, err);
    if (!rc)
        rc = place.path ? listen_unix(h, place.path, err) : listen_tcp(h, address, &place, err);
    if (!rc) {
        h->daemon =
            MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, serve, h, MHD_OPTION_EXTERNAL_LOGGER, say_nothing,
                             NULL, MHD_OPTION_LISTEN_SOCKET, h->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
                             PM_HTTP_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SILENCE_S,
                             MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_BYTES, MHD_OPTION_END);
        const union MHD_DaemonInfo *info =
            h->daemon ? MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
        if (info)
            h->epoll_fd = info->epoll_fd;
        else
            rc = pm_fail(err, PM_EIO, "cannot start the HTTP server for metrics");
    }
    if (rc)
        pm_http_free(&h);
    *out = h;
    return rc;
}

void pm_http_free(struct pm_http **http)
{
    struct pm_http *h = *http;
    if (!h)
        return;
    if (h->page)
        MHD_destroy_response(h->page);
    if (h->daemon)
        MHD_stop_daemon(h->daemon); /* closes the socket too */
    else if (h->listen_fd >= 0)
        close(h->listen_fd);
    if (h->path)
        unlink(h->path);
    pm_buf_free(&h->text);
    free(h->address);
    free(h->path);
    free(h);
    *http = NULL;
}

const char *pm_http_address(const struct pm_http *h)
{
    return h->address;
}

bool pm_http_is_public(const struct pm_http *h)
{
    return h->is_public;
}

static bool is_resting(const struct pm_http *h, int64_t now_us)
{
    return h->turned_us && now_us < h->turned_us + PM_HTTP_REST_US;
}

int pm_http_fd(const struct pm_http *h, int64_t now_us)
{
    return is_resting(h, now_us) ? -1 : h->epoll_fd;
}

int64_t pm_http_next_us(const struct pm_http *h, int64_t now_us)
{
    if (h->has_more || is_resting(h, now_us))
        return h->turned_us + PM_HTTP_REST_US;
    return INT64_MAX;
}

void pm_http_turn(struct pm_http *h, int64_t now_us)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;
    h->now_us = h->turned_us = now_us;
    MHD_run(h->daemon);
    h->has_more = MHD_get_timeout(h->daemon, &wait_ms) == MHD_YES && !wait_ms;
}
