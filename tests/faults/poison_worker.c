/* A worker that dies of one region: takes the options of pagemill-worker, reads every crop as "crop N", and
 * aborts when it is given crop 3 of page 2. For tests/faults/test_poison.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void read_crop(struct pm_peer *peer, const struct pm_msg_lease *lease)
{
    if (lease->page == POISON_PAGE && lease->region == POISON_CROP)
        abort();
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
