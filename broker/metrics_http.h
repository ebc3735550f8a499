/* The pages of the broker over HTTP: GET /metrics and GET /healthz, everything else is 404. libmicrohttpd
 * runs inside the broker's loop (its epoll descriptor is polled with the sockets), so no second thread sees
 * the broker's state.
 *
 * Bounded: PM_HTTP_CONNECTIONS at once, 8 KB of request each, 5 s of silence; it gets a turn at most every
 * PM_HTTP_REST_US, and a page is made at most every PM_HTTP_FRESH_US and shared by all who ask meanwhile. So
 * a flood of requests costs little.
 *
 * Addresses: PORT and HOST:PORT with a numeric host or "localhost" (a port alone means 127.0.0.1),
 * [HOST]:PORT, or the absolute path of a UNIX socket. Ownership: pm_http_free. Threads: one owner. Errors:
 * PM_EINVAL for an address that makes no sense, PM_EIO when it cannot be listened on. */
#ifndef PM_BROKER_METRICS_HTTP_H
#define PM_BROKER_METRICS_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/mem.h"

#define PM_HTTP_CONNECTIONS 32u
#define PM_HTTP_REST_US     20000
#define PM_HTTP_FRESH_US    250000

struct pm_http_pages {
    void *context;
    void (*metrics)(void *context, struct pm_buf *out);
    const char *(*health)(void *context); /* "" or why not */
};

struct pm_http;
int pm_http_check(const char *address, struct pm_error *err); /* is it one? */
int pm_http_open(const char *address, const struct pm_http_pages *pages, struct pm_http **out,
                 struct pm_error *err);
void pm_http_free(struct pm_http **http);
/* What it listens on, with the port that was chosen: "127.0.0.1:9464". */
const char *pm_http_address(const struct pm_http *http);
bool pm_http_is_public(const struct pm_http *http); /* can other machines reach it? */

/* The descriptor to wait for; -1 while it rests, until pm_http_next_us. */
int pm_http_fd(const struct pm_http *http, int64_t now_us);
int64_t pm_http_next_us(const struct pm_http *http, int64_t now_us); /* INT64_MAX: nothing to be done */
/* Serves what has arrived. */
void pm_http_turn(struct pm_http *http, int64_t now_us);

#endif
