/* pagemill-collector: puts pages and documents together. Started by the supervisor; see
 * pagemill-collector(8). */
#include "collector/collector.h"
#include "proto/peer_options.h"

static const struct pm_option options[] = {
    {"credit", 0, PM_OPTION_UINT, "N",
     "Tasks held at once; they are done one after the other, the others wait here instead of in the broker. "
     "Default: 4.",
     offsetof(struct pm_peer_settings, credit), 1, 64},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {pm_peer_options, options, pm_daemon_options, NULL};

static int run(void *settings, struct pm_error *err)
{
    struct pm_peer_config config = pm_peer_config_of(settings, PM_ROLE_COLLECTOR);
    struct pm_peer *peer = NULL;
    int rc = pm_peer_open(&config, &peer, err);
    if (!rc) {
        struct pm_collector *collector = pm_collector_new(peer);
        rc = pm_collector_run(collector, err);
        pm_collector_free(&collector);
    }
    pm_peer_free(&peer);
    return rc ? 1 : 0;
}

static const struct pm_daemon collector = {
    .usage =
        {.name = "pagemill-collector",
         .summary = "put pages and documents together",
         .about = "Turns what workers read into documents. It takes two kinds of task from the broker: a "
                  "page, as soon as all its regions have been read, and a document, when all its pages "
                  "are done. Lines become paragraphs, lists, headings, code blocks and tables; pages "
                  "become Markdown, JSON and plain text files; pictures become JPEG files. The files are "
                  "blobs in the store that the broker names; clients fetch them from there.\n"
                  "\n"
                  "It is started by `pagemill up` and `pagemill parse`. One collector serves a fleet; "
                  "more can run beside it.\n",
         .more =
             "WHAT CANNOT BE READ\nNothing is left out silently. A line, region or page that could not be "
             "read stays in the output with its reason: as a visible mark and a comment in Markdown, as "
             "an \"error\" object in JSON. The counts of failed pages and regions are part of the "
             "result.\n"
             "\fSIGNALS\nSIGTERM and SIGINT stop it after the page in hand. A document that is not "
             "finished goes to the next collector, which starts it again from its pages and makes the "
             "same bytes. A second signal ends the process at once.\n"
             "\fEXIT STATUS\n 0      stopped as asked\n 64     wrong usage\n"
             " other  something failed; start it again\n"
             "\fDIAGNOSTICS\nTasks that fail are logged and reported to the broker. A full disk, a read "
             "or write error and a blob that is not there may pass: the broker tries the task again. "
             "Damaged records, unknown formats and limits do not pass.\n"
             "\fFILES\nThe files and every rule of the formatter are described in docs/output.md.\n",
         .tables = tables},
    .see_also = "pagemill(1), pagemill-broker(8), pagemill-layoutd(8), pagemill-worker(8)",
    .run = run};

int main(int argc, char **argv)
{
    struct pm_peer_settings s = {.daemon = {.name = "collector", .log_level = PM_LOG_INFO}, .credit = 4};
    return pm_daemon_main(&collector, argc, argv, &s);
}
