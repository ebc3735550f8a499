/* The two tasks that layoutd does: opening a document and laying out a page. No peer, no loop: a lease in, a
 * result out, so that tests can drive it.
 *
 * Threads: one owner, for the life of the process. Ownership: a result's lists live in the struct pm_done
 * given; pm_done_free. */
#ifndef PM_LAYOUTD_TASK_H
#define PM_LAYOUTD_TASK_H

#include <stdatomic.h>

#include "layoutd/decoders.h"
#include "layoutd/fingerprint.h"
#include "layoutd/scan.h"
#include "proto/phases.h"

struct pm_task_env {
    struct pm_decoders *decoders;
    struct pm_scan_tools tools; /* its progress function is set by pm_task_run */
    const char *models_dir;     /* where manifests of readers are, for the kind of region that they want */
    struct pm_blobs *blobs;
    const char *layout_model; /* identity of the networks; "" or NULL: pages are not to be remembered */
    /* Was a page of this fingerprint read before? NULL: nobody can be asked. */
    bool (*is_known)(void *context, uint64_t task, const char *fingerprint);
    void *is_known_context;
};

/* Shared with the thread that talks to the broker. */
struct pm_task_watch {
    atomic_bool cancel;   /* set it, and make the decoders' cancel_fd readable, to end the task */
    atomic_uint permille; /* progress */
    atomic_uint steps;    /* grows with every sign of life */
    atomic_bool is_timed; /* waiting for something that has a deadline of its own (a decoder) */
};

struct pm_done {
    struct pm_msg_result result; /* error_code "" on success */
    struct pm_error error;       /* of a failure */
    bool is_final;               /* trying again cannot help */
    char record[PM_BLOB_KEY_SIZE], sheet[PM_BLOB_KEY_SIZE], fingerprint[PM_HASH_HEX + 1];
    struct pm_found_page *pages;
    uint32_t *costs;
    struct pm_phases phases; /* the result's */
};

void pm_task_run(struct pm_task_env *env, const struct pm_msg_lease *lease, struct pm_task_watch *watch,
                 struct pm_done *out);
void pm_done_free(struct pm_done *done);

#endif
