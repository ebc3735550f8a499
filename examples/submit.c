/* Submits one document to a running fleet, follows it page by page and fetches its files.
 *
 *     cc submit.c $(pkg-config --cflags --libs pagemill) -o submit
 *     ./submit scan.pdf out/scan
 */
#include <pagemill.h>
#include <stdio.h>

static int follow(pagemill *pm, uint64_t job, struct pagemill_error *err)
{
    const struct pagemill_event *event;
    int rc = pagemill_watch(pm, job, NULL, 0, 5000, err);
    while (!rc && !(rc = pagemill_next_event(pm, 60000, &event, err))) {
        if (event->kind == PAGEMILL_EVENT_PAGE)
            printf("page %u of %u\n", event->page, event->job.pages);
        if (event->kind == PAGEMILL_EVENT_RESYNC || pagemill_job_is_final((int)event->job.state))
            break;
    }
    return rc ? rc : pagemill_wait(pm, job, -1, NULL, err);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: submit FILE OUT\n");
        return 2;
    }
    struct pagemill_submit_options options = PAGEMILL_SUBMIT_OPTIONS_INIT;
    options.formats = "md,json";
    struct pagemill_error err;
    pagemill *pm = NULL;
    uint64_t job;
    int rc = pagemill_connect(NULL, NULL, 5000, &pm, &err);
    if (!rc)
        rc = pagemill_submit_path(pm, argv[1], &options, 60000, &job, &err);
    if (!rc)
        rc = follow(pm, job, &err);
    if (!rc)
        rc = pagemill_fetch(pm, job, argv[2], 60000, &err);
    if (rc)
        fprintf(stderr, "submit: %s: %s\n", argv[1], err.text);
    pagemill_close(&pm);
    return rc ? 1 : 0;
}
