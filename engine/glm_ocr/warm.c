#include "engine/glm_ocr/warm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/thread.h"

#define PART_BYTES ((size_t)16 << 20) /* a few ms from the page cache */

struct pm_warm {
    const struct pm_pack *pack;
    pthread_t thread;
    atomic_bool stop;
};

static void *warm_main(void *arg)
{
    struct pm_warm *w = arg;
    for (size_t at = 0; !atomic_load(&w->stop) && pm_pack_warm(w->pack, at, PART_BYTES); at += PART_BYTES)
        ;
    return NULL;
}

struct pm_warm *pm_warm_begin(const struct pm_pack *pack)
{
    struct pm_warm *w = pm_xalloc(sizeof *w);
    w->pack = pack;
    if (pm_thread_start(&w->thread, warm_main, w)) {
        free(w);
        return NULL;
    }
    return w;
}

void pm_warm_end(struct pm_warm **warm)
{
    struct pm_warm *w = *warm;
    if (!w)
        return;
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    free(w);
    *warm = NULL;
}
