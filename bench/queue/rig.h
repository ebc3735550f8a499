/* What every part of bench_queue needs: one real broker process on directories of its own, fake peers that
 * speak the wire as the services do, and a list of figures.
 *
 * Ownership: a rig owns its directories and its broker. Threads: one. Errors: the bench ends with a message.
 */
#ifndef PM_BENCH_QUEUE_RIG_H
#define PM_BENCH_QUEUE_RIG_H

#include "base/mem.h"
#include "base/supervise.h"
#include "proto/blob.h"
#include "proto/frame.h"

struct settings {
    const char *broker, *dir, *memory, *only, *json;
    uint32_t rounds, seconds, tasks_k;
};

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- figures ---- */
struct series { /* zero-initialise; samples in microseconds */
    double *items;
    size_t count, capacity;
};
void series_add(struct series *s, double value);
double series_at(struct series *s, double share); /* 0.5: the median; sorts */
void series_free(struct series *s);

/* One row of the table. target: "<= 1.4", "" when there is none. */
void figure(const char *name, double value, const char *unit, const char *target);
void figures_write(const char *json_path);

/* ---- the broker ---- */
struct rig {
    const struct settings *settings;
    char *dir, *state, *run, *pixels;
    struct pm_child broker;
    struct pm_blobs *blobs;
    void *zmq;
    int64_t ready_us; /* when the broker said that it serves */
};
/* state_dir: on which file system the journal lies. */
void rig_open(struct rig *rig, const struct settings *settings, const char *state_dir);
void rig_start(struct rig *rig, const char *const *extra); /* extra options, NULL-terminated; may be NULL */
void rig_kill(struct rig *rig);
void rig_close(struct rig *rig);
uint64_t rig_rss(const struct rig *rig);   /* bytes */
int64_t rig_cpu_us(const struct rig *rig); /* of all its threads */
/* This program again, in another role. */
void rig_again(const struct rig *rig, const char *role, const char *argument, int ready_fd,
               struct pm_child *out);
/* Waits for the byte that a child writes to the pipe. */
void wait_for_byte(int fd, const char *who);

/* ---- fake peers ---- */
struct fake {
    struct rig *rig;
    void *socket;
    uint32_t seq;
    uint64_t epoch, instance, granted;
    struct pm_arena arena;
    struct pm_message last;
};
void fake_open(struct fake *f, struct rig *rig, const char *socket_name);
void fake_close(struct fake *f);
void fake_send(struct fake *f, uint32_t type, const void *record);
/* The next message into last; false when none came within ms. PINGs are answered. */
bool fake_receive(struct fake *f, int ms);
/* Waits for this type, passing over others; its record, until the next receive. */
const void *fake_expect(struct fake *f, uint32_t type);
void fake_client(struct fake *f, struct rig *rig, const char *name);
void fake_service(struct fake *f, struct rig *rig, enum pm_role role, const char *reader, uint32_t credit);
void fake_hello(struct fake *f, enum pm_role role, const char *reader, uint32_t credit,
                const struct pm_held *held, uint32_t held_count);
void fake_credit(struct fake *f);

/* What results refer to: stored once, for all of them. */
struct goods {
    char source[PM_BLOB_KEY_SIZE], record[PM_BLOB_KEY_SIZE], page[PM_BLOB_KEY_SIZE];
    struct pm_buf text; /* an encoded region text, of a crop below 128 */
    size_t crop_at;     /* where its number stands */
    struct pm_buf manifest;
    uint32_t costs[128];
};
void goods_make(struct goods *g, struct rig *rig);
void goods_free(struct goods *g);
struct pm_msg_submit goods_submit(const struct goods *g, const char *reader);
/* Answers a lease as a good peer would: a document has `pages` pages, a page `regions` regions (< 128). The
 * credit is given back with fake_credit, as the peers' library does it: once for all that ended. */
void goods_answer(struct goods *g, struct fake *f, const struct pm_msg_lease *lease, uint32_t pages,
                  uint32_t regions);

/* ---- the parts ---- */
void part_hop(const struct settings *s);
void part_rate(const struct settings *s);
void part_submit(const struct settings *s);
void part_stock(const struct settings *s);
void part_page(const struct settings *s);
void part_idle(const struct settings *s);
void part_death(const struct settings *s);
void part_hostile(const struct settings *s);

/* Other roles of this program. */
int role_forward(const char *dir, int ready_fd);
int role_echo(const char *dir, int ready_fd);
int role_hop(const char *dir, int ready_fd);
int role_victim(const char *dir, int ready_fd);

#endif
