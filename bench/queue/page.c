/* A page of 4 MB from a layoutd to a worker: written in place in the pixel store, announced through the
 * broker as a RESULT, and mapped and read by whoever gets the LEASE. Beside it the same bytes through a
 * forwarder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "rig.h"

#define PAGE_BYTES ((size_t)4 << 20)
#define PAGES      200u

/* Every line of memory once. */
static uint64_t touch(const uint8_t *data, size_t bytes)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes; i += 64)
        sum += data[i];
    return sum;
}

static void send_page(struct goods *g, struct fake *layout, const struct pm_msg_lease *lease,
                      const char *sheet)
{
    struct pm_msg_result r = {.task = lease->task,
                              .epoch = lease->epoch,
                              .attempt = lease->attempt,
                              .error_code = "",
                              .error_text = "",
                              .record = g->record,
                              .sheet = sheet,
                              .blob = "",
                              .costs = g->costs,
                              .cost_count = 1};
    layout->granted++;
    fake_send(layout, PM_MSG_RESULT, &r);
    fake_credit(layout);
}

struct times { /* us */
    struct series named, told, read, all;
};

/* From the picture filled in to its last byte read by the worker. */
static void one_page(struct rig *rig, struct goods *g, struct fake *layout, struct fake *worker, uint8_t fill,
                     struct times *t)
{
    struct pm_error err;
    struct pm_blob_draft draft;
    struct pm_blob_map map;
    char sheet[PM_BLOB_KEY_SIZE];
    struct pm_msg_lease lease = *(const struct pm_msg_lease *)fake_expect(layout, PM_MSG_LEASE);
    if (pm_blob_draft(rig->blobs, PM_BLOB_PIXELS, PAGE_BYTES, &draft, &err))
        die("%s", err.text);
    memset(draft.data, fill, PAGE_BYTES);
    memcpy(draft.data, &lease.task, sizeof lease.task);
    int64_t start = pm_clock_us();
    if (pm_blob_finish(rig->blobs, &draft, sheet, &err))
        die("%s", err.text);
    int64_t named = pm_clock_us();
    send_page(g, layout, &lease, sheet);
    const struct pm_msg_lease *region = fake_expect(worker, PM_MSG_LEASE);
    int64_t told = pm_clock_us();
    if (pm_blob_map(rig->blobs, region->sheet, &map, &err))
        die("%s", err.text);
    volatile uint64_t sum = touch(map.data, map.bytes);
    (void)sum;
    int64_t end = pm_clock_us();
    series_add(&t->named, (double)(named - start));
    series_add(&t->told, (double)(told - named));
    series_add(&t->read, (double)(end - told));
    series_add(&t->all, (double)(end - start));
    pm_blob_unmap(&map);
    goods_answer(g, worker, region, 1, 1);
    fake_credit(worker);
}

static double one_message(void *front, uint8_t *page, int64_t *half)
{
    int64_t start = pm_clock_us();
    zmq_send(front, page, PAGE_BYTES, 0);
    zmq_recv(front, page, PAGE_BYTES, 0);
    volatile uint64_t sum = touch(page, PAGE_BYTES);
    (void)sum;
    *half = (pm_clock_us() - start) / 2; /* it comes back the same way */
    return (double)*half;
}

void part_page(const struct settings *s)
{
    struct rig rig;
    struct goods goods;
    struct fake client, layout, worker, collector;
    struct pm_child forward, echo;
    struct series sent = {0}, read = {0};
    struct times t = {.all = {0}};
    int fds[2];
    rig_open(&rig, s, s->memory);
    rig_start(&rig, NULL);
    goods_make(&goods, &rig);
    static const char *const roles[] = {"forward", "echo"};
    for (int i = 0; i < 2; i++) {
        if (pipe(fds))
            die("cannot make a pipe");
        rig_again(&rig, roles[i], rig.run, fds[1], i ? &echo : &forward);
        close(fds[1]);
        wait_for_byte(fds[0], roles[i]);
    }
    char *endpoint = pm_xprintf("ipc://%s/front.sock", rig.run);
    void *front = zmq_socket(rig.zmq, ZMQ_DEALER);
    zmq_connect(front, endpoint);
    free(endpoint);
    fake_client(&client, &rig, "bench");
    fake_service(&layout, &rig, PM_ROLE_LAYOUTD, "layout", 1);
    fake_service(&worker, &rig, PM_ROLE_WORKER, "fast", 1);
    fake_service(&collector, &rig, PM_ROLE_COLLECTOR, "collect", 1000);
    struct pm_msg_submit submit = goods_submit(&goods, "fast");
    fake_send(&client, PM_MSG_SUBMIT, &submit);
    goods_answer(&goods, &layout, fake_expect(&layout, PM_MSG_LEASE), PAGES, 1);
    fake_credit(&layout);
    uint8_t *page = pm_xalloc(PAGE_BYTES);
    for (uint32_t i = 0; i < PAGES; i++) {
        int64_t half;
        one_page(&rig, &goods, &layout, &worker, (uint8_t)i, &t);
        while (fake_receive(&collector, 0))
            if (collector.last.header.type == PM_MSG_LEASE)
                goods_answer(&goods, &collector, collector.last.record, PAGES, 1);
        series_add(&sent, one_message(front, page, &half));
        int64_t start = pm_clock_us();
        volatile uint64_t sum = touch(page, PAGE_BYTES);
        (void)sum;
        series_add(&read, (double)(pm_clock_us() - start));
    }
    free(page);
    figure("reading 4 MB that lie in memory, p50", series_at(&read, 0.5), "us", "");
    figure("4 MB through the bare forwarder, one way, p50", series_at(&sent, 0.5), "us", "");
    figure("4 MB page: naming it, p50", series_at(&t.named, 0.5), "us", "");
    figure("4 MB page: RESULT to LEASE, journal on tmpfs, p50", series_at(&t.told, 0.5), "us", "");
    figure("4 MB page: mapping and reading it, p50", series_at(&t.read, 0.5), "us", "");
    figure("4 MB page handed over by name (all three), p50", series_at(&t.all, 0.5), "us", "<= 300");
    figure("4 MB page handed over by name, p99", series_at(&t.all, 0.99), "us", "");
    zmq_close(front);
    fake_close(&client);
    fake_close(&layout);
    fake_close(&worker);
    fake_close(&collector);
    pm_child_signal(&forward, 9);
    pm_child_signal(&echo, 9);
    pm_child_reap(&forward, NULL);
    pm_child_reap(&echo, NULL);
    goods_free(&goods);
    series_free(&t.named);
    series_free(&t.told);
    series_free(&t.read);
    series_free(&t.all);
    series_free(&sent);
    series_free(&read);
    rig_close(&rig);
}
