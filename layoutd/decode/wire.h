/* What layoutd and pagemill-decode say to each other: one request, one reply, over a SOCK_SEQPACKET pair.
 *
 *   fd 3   the socket          fd 4   the source file, opened read-only by the parent
 *
 *   parent                       child
 *     OPEN {limits, password} ->             the child enters its sandbox, then reads the first source byte
 *                          <- {code, pages, title} or {code, text}
 *     SIZES {first, count}  ->
 *                          <- {code, count, sizes[]}
 *     RENDER {page, dpi}    ->
 *                          <- {code, width, height, channels, stride, dpi, warning} + the memfd (SCM_RIGHTS)
 *     END                   ->             the child exits; end of file on the socket means the same
 *
 * Both ends are the same build on the same machine, so the structs travel as they lie in memory; a packet has
 * exactly the size of its struct. The parent checks every field of a reply: the child may have been taken
 * over by the file that it reads. Threads, ownership: plain data. */
#ifndef PM_LAYOUTD_DECODE_WIRE_H
#define PM_LAYOUTD_DECODE_WIRE_H

#include <stdint.h>

#define PM_WIRE_MAGIC          0x504d4401u /* "PMD" and the version */
#define PM_WIRE_SOCKET_FD      3
#define PM_WIRE_SOURCE_FD      4
#define PM_WIRE_PASSWORD_BYTES 256
#define PM_WIRE_TITLE_BYTES    256
#define PM_WIRE_TEXT_BYTES     400
#define PM_WIRE_SIZES_MAX      64 /* page sizes in one reply */

enum pm_wire_kind { PM_WIRE_OPEN = 1, PM_WIRE_SIZES, PM_WIRE_RENDER, PM_WIRE_END };

struct pm_wire_limits {
    uint64_t memory_bytes;
    uint64_t max_source_px;
    uint64_t max_page_px;
    uint32_t max_pages;
    uint32_t pdf_longest_px;
    uint32_t picture_longest_px;
    uint32_t pad;
};

struct pm_wire_request {
    uint32_t magic;
    uint32_t kind;                /* enum pm_wire_kind */
    uint32_t serial;              /* comes back in the reply */
    uint32_t format;              /* OPEN: enum pm_format, as sniffed by the parent */
    uint32_t page;                /* SIZES: the first; RENDER: the one */
    uint32_t count;               /* SIZES */
    double dpi;                   /* SIZES, RENDER: 10 to 2400 */
    struct pm_wire_limits limits; /* OPEN */
    uint32_t has_password;
    uint32_t pad;
    char password[PM_WIRE_PASSWORD_BYTES]; /* OPEN, NUL-terminated */
};

struct pm_wire_size {
    uint32_t width_px, height_px;
    double width_pt, height_pt;
};

struct pm_wire_reply {
    uint32_t magic;
    uint32_t kind;
    uint32_t serial;
    int32_t code;                  /* 0 or enum pm_err */
    char text[PM_WIRE_TEXT_BYTES]; /* code != 0: what is wrong; RENDER with code 0: a warning or "" */
    union {
        struct {
            uint32_t page_count;
            char title[PM_WIRE_TITLE_BYTES];
        } open;
        struct {
            uint32_t count;
            uint32_t pad;
            struct pm_wire_size sizes[PM_WIRE_SIZES_MAX];
        } sizes;
        struct {
            uint32_t width_px, height_px, channels, pad;
            uint64_t stride_bytes; /* == width_px * channels */
            double dpi;            /* 0: unknown */
        } render;
    } u;
};

#endif
