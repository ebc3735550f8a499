/* Plain text: paragraphs separated by empty lines, cells of tables by tabs, pages by form feeds. Paragraphs
 * are put together over columns, not over pages. */
#include <stdlib.h>
#include <string.h>

#include "collector/escape.h"
#include "collector/flow.h"
#include "collector/writer.h"

struct txt {
    struct pm_sink *out;
    struct pm_flow flow;
    struct pm_buf block;
    bool has_text; /* on this page */
};

static void emit(void *ctx, const char *text, size_t bytes)
{
    struct txt *txt = ctx;
    if (txt->has_text)
        pm_sink_text(txt->out, "\n");
    pm_sink_put(txt->out, text, bytes);
    pm_sink_text(txt->out, "\n");
    txt->has_text = true;
}

static void *txt_begin(struct pm_sink *out)
{
    struct txt *txt = pm_xalloc(sizeof *txt);
    txt->out = out;
    txt->flow.emit = emit;
    txt->flow.ctx = txt;
    return txt;
}

static void txt_page(void *state, struct pm_sink *out, const struct pm_writer_page *page)
{
    struct txt *txt = state;
    const struct pm_out_page *p = page->page;
    struct pm_buf *b = &txt->block;
    if (page->index)
        pm_sink_text(out, "\f");
    txt->has_text = false;
    if (*p->error_code) {
        b->size = 0;
        pm_buf_printf(b, "[unreadable page %u: %s]", p->page, p->error_text);
        emit(txt, (const char *)b->data, b->size);
    }
    for (uint32_t i = 0; i < p->region_count; i++) {
        const struct pm_out_region *r = &p->regions[i];
        b->size = 0;
        if (*r->content)
            pm_plain_text(b, r->content, strlen(r->content));
        else if (*r->error_code)
            pm_buf_printf(b, "[unreadable region: %s]", r->error_text);
        if (b->size)
            pm_flow_add(&txt->flow, r, (const char *)b->data, b->size);
    }
    pm_flow_flush(&txt->flow);
}

static void txt_end(void *state, struct pm_sink *out)
{
    struct txt *txt = state;
    (void)out;
    pm_flow_free(&txt->flow);
    pm_buf_free(&txt->block);
    free(txt);
}

const struct pm_writer pm_writer_txt = {"txt", ".txt", txt_begin, txt_page, txt_end};
