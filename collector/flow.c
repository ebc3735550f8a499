#include "collector/flow.h"

#include <string.h>

#include "collector/format.h"
#include "collector/text.h"

#define HELD_BYTES (64u * 1024)

void pm_flow_flush(struct pm_flow *flow)
{
    if (flow->is_open)
        flow->emit(flow->ctx, (const char *)flow->text.data, flow->text.size);
    flow->is_open = false;
    flow->text.size = 0;
    for (size_t at = 0; at < flow->held.size;) {
        const char *block = (const char *)flow->held.data + at;
        size_t n = strlen(block);
        flow->emit(flow->ctx, block, n);
        at += n + 1;
    }
    flow->held.size = 0;
}

void pm_flow_free(struct pm_flow *flow)
{
    pm_buf_free(&flow->text);
    pm_buf_free(&flow->held);
}

/* Remembers what pm_region_goes_on asks of the first half. */
static void remember(struct pm_flow *flow, const struct pm_out_region *region)
{
    float h = pm_region_type_px(region);
    flow->last = (struct pm_out_region){.label = region->label, .content = "", .error_code = ""};
    flow->line = (struct pm_out_line){.quad = {0, 0, 1, 0, 1, h, 0, h}};
    if (h > 0) {
        flow->last.lines = &flow->line;
        flow->last.line_count = 1;
    }
}

static void join(struct pm_flow *flow, const char *text, size_t bytes)
{
    const uint8_t *data = flow->text.data;
    size_t start = flow->text.size;
    while (start > 0 && data[start - 1] != '\n')
        start--;
    pm_text_join(&flow->text, start, text, bytes, true);
}

void pm_flow_add(struct pm_flow *flow, const struct pm_out_region *region, const char *text, size_t bytes)
{
    if (flow->is_open && pm_label_is_furniture(region->label) && flow->held.size + bytes < HELD_BYTES) {
        pm_buf_append(&flow->held, text, bytes);
        pm_buf_append(&flow->held, "", 1);
        return;
    }
    bool joins = flow->is_open && pm_region_goes_on(&flow->last, region);
    if (joins)
        join(flow, text, bytes);
    else
        pm_flow_flush(flow);
    if (region->continues) {
        if (!joins)
            pm_buf_append(&flow->text, text, bytes);
        flow->is_open = true;
        remember(flow, region);
    } else if (joins) {
        pm_flow_flush(flow);
    } else {
        flow->emit(flow->ctx, text, bytes);
    }
}
