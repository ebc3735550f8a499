/* A journal for the model: the rows that ops write, in flat arrays, and job images made of them. It refuses
 * what the real one refuses (a doubled result, a row that is not there) through ref_broken(). Ownership: an
 * image points into the book until the next op. Threads: one owner. */
#ifndef PM_TEST_BROKER_MODEL_BOOK_H
#define PM_TEST_BROKER_MODEL_BOOK_H

#include "reference.h"

#define BOOK_TRIES 80

struct book_page {
    struct pm_page_image image;
    uint32_t costs[REF_REGIONS];
    struct pm_region_image finals[REF_REGIONS];
};
struct book_job {
    uint64_t id; /* 0: free */
    char client[16], key[32];
    uint32_t state, generation, priority, counts[7];
    bool is_open;
    int64_t created_us, finished_us, deadline_us;
    uint64_t end; /* order of ends */
    struct book_page pages[REF_PAGES];
    uint32_t page_count;
    struct pm_tries_image tries[BOOK_TRIES];
    uint32_t tries_count;
    uint32_t attempts;
};
struct book {
    struct book_job jobs[REF_JOBS];
    uint64_t epoch, next_job, ends;
    struct pm_page_image shown[REF_PAGES];
};

void book_apply(struct book *b, const struct pm_op *op);
/* False: no such job. */
bool book_job(struct book *b, uint64_t job, struct pm_job_image *out);
/* All jobs into a scheduler, finished ones in the order of their end. */
void book_restore(struct book *b, struct pm_sched *s, struct pm_now now);

#endif
