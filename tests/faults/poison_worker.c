/* A worker that one region is poison for: takes the options of pagemill-worker, reads every crop as "crop N",
 * and aborts when it is given crop 3 of page 2. The file that $PM_POISON names says otherwise, for as long as
 * it is there: "PAGE CROP crash", "... hang" (once, the file is removed), "... memory" (twice), "... input".
 * For tests/faults/test_poison.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "proto/page.h"
#include "proto/peer.h"

#define POISON_PAGE 2
#define POISON_CROP 3

static const char *value_of(int argc, char **argv, const char *option, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], option))
            return argv[i + 1];
    return otherwise;
}

/* What this region is: "" or one of the words above. */
static const char *poison_of(const struct pm_msg_lease *lease, char word[16])
{
    const char *path = getenv("PM_POISON");
    if (!path)
        return lease->page == POISON_PAGE && lease->region == POISON_CROP ? "crash" : "";
    unsigned page = 0, crop = 0;
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%u %u %15s", &page, &crop, word) != 3 || lease->page != page ||
        lease->region != crop)
        word[0] = 0;
    if (file)
        fclose(file);
    return word;
}

static void fail(struct pm_peer *peer, const struct pm_msg_lease *lease, const char *code, const char *text)
{
    struct pm_msg_result result = {.error_code = code, .error_text = text, .run_us = 1000};
    pm_peer_result(peer, lease->task, &result);
}

static void read_crop(struct pm_peer *peer, const struct pm_msg_lease *lease)
{
    char word[16];
    const char *poison = poison_of(lease, word);
    if (!strcmp(poison, "crash"))
        abort();
    if (!strcmp(poison, "hang")) {
        unlink(getenv("PM_POISON"));
        for (;;)
            pause();
    }
    if (!strcmp(poison, "input")) {
        fail(peer, lease, "format", "glyphs of no language");
        return;
    }
    if (!strcmp(poison, "memory") && (lease->attempt & 0xff) <= 2) {
        fail(peer, lease, "no-memory", "8 GB wanted, 2 GB there");
        return;
    }
    char words[32];
    snprintf(words, sizeof words, "crop %u", lease->region);
    struct pm_region_text text = {.crop = lease->region,
                                  .text = words,
                                  .confidence = 1,
                                  .finish = "stop",
                                  .reader = "fast",
                                  .error_code = "",
                                  .error_text = ""};
    struct pm_buf record = {0};
    pm_record_encode(&pm_region_text_schema, &text, &record);
    struct pm_msg_result result = {.text = {record.data, record.size}, .run_us = 1000};
    pm_peer_result(peer, lease->task, &result);
    pm_buf_free(&record);
}

int main(int argc, char **argv)
{
    static const char *const readers[] = {"fast"};
    struct pm_peer_config config = {.endpoint = value_of(argc, argv, "--endpoint", ""),
                                    .role = PM_ROLE_WORKER,
                                    .name = value_of(argc, argv, "--name", "poison"),
                                    .readers = readers,
                                    .reader_count = 1,
                                    .ready_fd = atoi(value_of(argc, argv, "--ready-fd", "0")),
                                    .credit = 8};
    struct pm_peer *peer = NULL;
    struct pm_error err;
    struct pm_peer_event event = {0};
    pm_log_setup("poison-worker", PM_LOG_INFO);
    int rc = pm_peer_open(&config, &peer, &err);
    while (!rc && event.kind != PM_PEER_STOP) {
        rc = pm_peer_next(peer, 1000000, &event, &err);
        if (!rc && event.kind == PM_PEER_LEASE)
            read_crop(peer, event.lease);
        else if (!rc && event.kind == PM_PEER_REVOKE)
            pm_peer_release(peer, event.task);
    }
    if (rc)
        pm_log(PM_LOG_ERROR, "%s", err.text);
    pm_peer_free(&peer);
    return rc ? 1 : 0;
}
