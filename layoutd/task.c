#include "layoutd/task.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/pages.h"
#include "engine/manifest.h"

struct running {
    struct pm_task_env *env;
    const struct pm_msg_lease *lease;
    struct pm_task_watch *watch;
    struct pm_done *out;
};

static int step(void *context, unsigned permille)
{
    struct running *r = context;
    atomic_store(&r->watch->permille, permille);
    atomic_fetch_add(&r->watch->steps, 1);
    return atomic_load(&r->watch->cancel);
}

/* Between the stages of a scan. The one that ends here is told by its progress. */
static int scan_step(void *context, unsigned permille)
{
    struct running *r = context;
    pm_phases_end(&r->out->phases, permille == 600 ? "detect" : permille <= 700 ? "orient" : "layout");
    return step(context, permille);
}

/* Which failures another attempt may cure: a crash or a timeout may have been the machine's fault. */
static bool is_final(int code)
{
    return code == PM_EFORMAT || code == PM_EPASSWORD || code == PM_ELIMIT || code == PM_EINVAL ||
           code == PM_EUNSUPPORTED;
}

static int get_decoder(struct running *r, struct pm_decoder **out, struct pm_error *err)
{
    const struct pm_msg_lease *l = r->lease;
    atomic_store(&r->watch->is_timed, true);
    int rc = pm_decoders_get(r->env->decoders, r->env->blobs, l->source, l->options.password, pm_clock_us(),
                             out, err);
    atomic_store(&r->watch->is_timed, false);
    if (!rc)
        pm_log(PM_LOG_DEBUG, "decoder is ready job=%llu page=%u task=%llu attempt=%u pid=%d",
               (unsigned long long)l->job, l->page, (unsigned long long)l->task, l->attempt,
               pm_decode_pid(*out));
    return rc;
}

/* ---- open ---- */

static int check_selection(const struct pm_pages *pages, uint32_t total, struct pm_error *err)
{
    for (uint32_t i = 0; i < pages->range_count; i++) {
        const struct pm_page_range *g = &pages->ranges[i];
        uint32_t beyond = g->first > total                              ? g->first
                          : g->last > total && g->last != PM_PAGES_LAST ? g->last
                                                                        : 0;
        if (beyond)
            return pm_fail(err, PM_EINVAL, "there is no page %u: the document has %u page%s", beyond, total,
                           total == 1 ? "" : "s");
    }
    return 0;
}

static int open_document(struct running *r, struct pm_error *err)
{
    struct pm_decoder *decoder;
    struct pm_pages pages;
    struct pm_done *out = r->out;
    int rc = pm_pages_parse(r->lease->options.pages, &pages, err);
    if (!rc)
        rc = get_decoder(r, &decoder, err);
    if (rc)
        return rc;
    pm_phases_end(&out->phases, "open");
    uint32_t total = (uint32_t)pm_decode_info(decoder)->page_count;
    rc = check_selection(&pages, total, err);
    if (rc)
        return rc;
    out->pages = pm_xalloc(sizeof *out->pages * (pm_pages_count(&pages, total) + 1u));
    out->result.document_pages = total;
    for (uint32_t p = 1; p <= total; p++) {
        struct pm_decode_size size = {0};
        struct pm_error lost;
        if (!pm_pages_has(&pages, p))
            continue;
        if (step(r, (unsigned)((uint64_t)p * 1000 / total)))
            return pm_fail(err, PM_ECANCELLED, "stopped as asked");
        /* A page whose size cannot be told is tried all the same: rendering says what is wrong with it. */
        rc = pm_decode_page_size(decoder, (int)p - 1, r->lease->options.dpi, &size, &lost);
        if (rc == PM_ECANCELLED)
            return pm_fail(err, PM_ECANCELLED, "stopped as asked");
        out->pages[out->result.page_count++] =
            (struct pm_found_page){p, rc ? 0 : (uint32_t)size.width_px, rc ? 0 : (uint32_t)size.height_px};
    }
    out->result.pages = out->pages;
    pm_phases_end(&out->phases, "pages");
    return 0;
}

/* ---- page ---- */

/* What the reader of this job wants as one picture. A reader that is not installed here (its workers may run
 * elsewhere) gets lines. */
static enum pm_region_kind region_kind(const struct running *r)
{
    struct pm_model_manifest manifest = {0};
    const char *reader = r->lease->options.reader;
    if (!*reader || !r->env->models_dir || pm_model_find(r->env->models_dir, reader, &manifest, NULL))
        return PM_REGION_LINE;
    enum pm_region_kind kind = manifest.region_kind;
    pm_model_manifest_free(&manifest);
    return kind;
}

static int render(struct running *r, struct pm_image *out, double *dpi_out, struct pm_error *err)
{
    struct pm_decoder *decoder;
    const struct pm_msg_lease *l = r->lease;
    int rc = get_decoder(r, &decoder, err);
    if (rc)
        return rc;
    int total = pm_decode_info(decoder)->page_count;
    if (l->page < 1 || l->page > (uint32_t)total)
        return pm_fail(err, PM_EINVAL, "there is no page %u: the document has %d", l->page, total);
    atomic_store(&r->watch->is_timed, true);
    rc = pm_decode_render(decoder, (int)l->page - 1, l->options.dpi, out, dpi_out, err);
    atomic_store(&r->watch->is_timed, false);
    if (!rc && *pm_decode_warning(decoder))
        pm_log(PM_LOG_WARNING, "decoder warns job=%llu page=%u task=%llu attempt=%u: %s",
               (unsigned long long)l->job, l->page, (unsigned long long)l->task, l->attempt,
               pm_decode_warning(decoder));
    return rc;
}

static int store(struct running *r, struct pm_crops *crops, struct pm_error *err)
{
    struct pm_done *out = r->out;
    struct pm_buf record = {0};
    uint64_t bytes = 0;
    int rc = pm_sheet_write(r->env->blobs, r->lease->task, r->lease->attempt, crops->sheet, crops->count,
                            out->sheet, &bytes, err);
    if (rc)
        return rc;
    pm_record_encode(&pm_page_schema, &crops->page, &record);
    rc = pm_blob_put(r->env->blobs, PM_BLOB_DISK, record.data, record.size, out->record, err);
    pm_buf_free(&record);
    if (rc)
        return rc;
    out->costs = crops->costs;
    crops->costs = NULL;
    out->result.costs = out->costs;
    out->result.cost_count = crops->count;
    out->result.record = out->record;
    out->result.sheet = out->sheet;
    out->result.sheet_bytes = bytes;
    return 0;
}

/* "": pages are laid out; else the task of the page as one region. */
static int read_whole(const char *whole, struct pm_scan_options *out, struct pm_error *err)
{
    static const char *const tasks[] = {"text", "table", "formula"}; /* by enum pm_task */
    if (!whole || !*whole)
        return 0;
    for (int t = 0; t < 3; t++)
        if (!strcmp(whole, tasks[t])) {
            out->is_whole = true;
            out->whole_task = (enum pm_task)t;
        }
    if (!out->is_whole)
        return pm_fail(err, PM_EINVAL, "a page can be read as text, table or formula, not as \"%.40s\"",
                       whole);
    if (out->region_kind != PM_REGION_BLOCK)
        return pm_fail(err, PM_EINVAL, "pages as a whole are for readers of blocks: this one reads lines");
    return 0;
}

/* A page that was read before needs no layout: its result says so, and the broker has the rest. */
static bool was_read_before(struct running *r, const struct pm_image *image, double dpi)
{
    const struct pm_task_env *env = r->env;
    struct pm_done *out = r->out;
    if (!pm_page_has_fingerprint(env->layout_model, r->lease))
        return false;
    pm_page_fingerprint(image, dpi, env->layout_model, r->lease, out->fingerprint);
    out->result.fingerprint = out->fingerprint;
    out->result.is_known =
        env->is_known && env->is_known(env->is_known_context, r->lease->task, out->fingerprint);
    return out->result.is_known;
}

static int lay_out_page(struct running *r, struct pm_error *err)
{
    struct pm_image image = {0};
    struct pm_scan scan = {0};
    struct pm_crops crops = {0};
    const struct pm_options *o = &r->lease->options;
    double dpi = 0;
    int rc = render(r, &image, &dpi, err);
    if (rc)
        return rc;
    pm_phases_end(&r->out->phases, "render");
    struct pm_scan_options options = {.page = r->lease->page,
                                      .dpi = (float)dpi,
                                      .no_orientation = o->no_orientation,
                                      .no_deskew = o->no_deskew,
                                      .no_images = o->no_images,
                                      .region_kind = region_kind(r)};
    rc = read_whole(o->whole, &options, err);
    bool is_done = rc || was_read_before(r, &image, dpi);
    pm_phases_end(&r->out->phases, "known");
    if (is_done) {
        pm_decode_image_free(&image);
        return rc;
    }
    struct pm_scan_tools tools = r->env->tools;
    tools.progress = scan_step;
    tools.progress_context = r;
    rc = pm_scan_page(&image, &options, &tools, &scan, err);
    if (!rc) {
        rc = pm_crops_cut(&scan, &options, &crops, err);
        if (!rc && step(r, 950))
            rc = pm_fail(err, PM_ECANCELLED, "stopped as asked");
        if (!rc)
            rc = store(r, &crops, err);
        pm_phases_end(&r->out->phases, "crops");
        pm_crops_free(&crops);
        pm_scan_free(&scan);
    }
    pm_decode_image_free(&image);
    return rc;
}

void pm_task_run(struct pm_task_env *env, const struct pm_msg_lease *lease, struct pm_task_watch *watch,
                 struct pm_done *out)
{
    *out = (struct pm_done){
        .result = {
            .error_code = "", .error_text = "", .record = "", .sheet = "", .blob = "", .fingerprint = ""}};
    struct running r = {env, lease, watch, out};
    pm_phases_begin(&out->phases);
    int64_t start = out->phases.at_us;
    int rc;
    if (lease->kind == PM_KIND_OPEN)
        rc = open_document(&r, &out->error);
    else if (lease->kind == PM_KIND_PAGE)
        rc = lay_out_page(&r, &out->error);
    else
        rc =
            pm_fail(&out->error, PM_EPROTO, "layoutd cannot do a task of kind %s", pm_kind_name(lease->kind));
    out->is_final = is_final(rc);
    out->result.run_us = (uint64_t)(pm_clock_us() - start);
    out->result.phases = out->phases.list;
    out->result.phase_count = out->phases.count;
}

void pm_done_free(struct pm_done *done)
{
    free(done->pages);
    free(done->costs);
    *done = (struct pm_done){0};
}
