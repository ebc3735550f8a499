/* JSON as the GLM-OCR SDK lays it out: a list of pages, each a list of regions, indented by two, UTF-8 as it
 * is. The SDK's keys come first and mean the same; ours follow: confidence, page, level, continues, error,
 * lines. Lines and words take one line of the file each line of text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collector/writer.h"

struct json {
    struct pm_buf b; /* one page */
    bool has_page;
};

/* A string literal; text is valid UTF-8 (records are checked when decoded). */
static void put_string(struct pm_buf *b, const char *text, size_t bytes)
{
    static const char hex[] = "0123456789abcdef";
    pm_buf_append(b, "\"", 1);
    for (size_t i = 0; i < bytes; i++) {
        uint8_t c = (uint8_t)text[i];
        const char *escape = NULL;
        switch (c) {
        case '"':
            escape = "\\\"";
            break;
        case '\\':
            escape = "\\\\";
            break;
        case '\b':
            escape = "\\b";
            break;
        case '\f':
            escape = "\\f";
            break;
        case '\n':
            escape = "\\n";
            break;
        case '\r':
            escape = "\\r";
            break;
        case '\t':
            escape = "\\t";
            break;
        default:
            break;
        }
        if (escape) {
            pm_buf_append(b, escape, 2);
        } else if (c < 0x20) {
            char u[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
            pm_buf_append(b, u, sizeof u);
        } else {
            pm_buf_append(b, text + i, 1);
        }
    }
    pm_buf_append(b, "\"", 1);
}

static void put_cstring(struct pm_buf *b, const char *text)
{
    put_string(b, text, strlen(text));
}

/* Pixels -> 0..1000 of the page; a page without size gives 0 (never a division by zero). */
static int thousandth(float px, uint32_t size)
{
    if (!size || !(px > 0))
        return 0;
    double v = (double)px * 1000 / size;
    return v < 1000 ? (int)lround(v) : 1000;
}

struct box {
    int v[4]; /* left, top, right, bottom, 0..1000 */
};

static struct box box_of(const float *px, const struct pm_out_page *page)
{
    struct box b = {{thousandth(px[0], page->width), thousandth(px[1], page->height),
                     thousandth(px[2], page->width), thousandth(px[3], page->height)}};
    return b;
}

static void put_confidence(struct pm_buf *b, float confidence)
{
    pm_buf_printf(b, "\"confidence\": %.4f", (double)confidence);
}

static void put_flat_box(struct pm_buf *b, const struct box *box)
{
    pm_buf_printf(b, "\"bbox_2d\": [%d, %d, %d, %d]", box->v[0], box->v[1], box->v[2], box->v[3]);
}

/* ---- lines and words --------------------------------------------------------------------------------- */

/* The part [left, right] (shares of its width) of a line's quadrilateral, as a box. */
static struct box part_of(const float *quad, float left, float right, const struct pm_out_page *page)
{
    float at[2] = {left, right}, px[4] = {1e9f, 1e9f, -1e9f, -1e9f};
    for (int k = 0; k < 2; k++) {
        for (int edge = 0; edge < 2; edge++) { /* top: tl -> tr; bottom: bl -> br */
            const float *from = edge ? quad + 6 : quad, *to = edge ? quad + 4 : quad + 2;
            float x = from[0] + (to[0] - from[0]) * at[k], y = from[1] + (to[1] - from[1]) * at[k];
            px[0] = fminf(px[0], x);
            px[1] = fminf(px[1], y);
            px[2] = fmaxf(px[2], x);
            px[3] = fmaxf(px[3], y);
        }
    }
    return box_of(px, page);
}

static void put_line(struct pm_buf *b, const struct pm_out_line *line, const struct pm_out_page *page)
{
    struct box box = part_of(line->quad, 0, 1, page);
    size_t size = strlen(line->text);
    pm_buf_text(b, "        {\"text\": ");
    put_string(b, line->text, size);
    pm_buf_text(b, ", ");
    put_flat_box(b, &box);
    pm_buf_text(b, ", ");
    put_confidence(b, line->confidence);
    pm_buf_text(b, ", \"words\": [");
    bool has_word = false;
    for (uint32_t i = 0; i < line->word_count; i++) {
        const struct pm_word *w = &line->words[i];
        if (w->start >= w->end || w->end > size)
            continue;
        box = part_of(line->quad, w->left, w->right, page);
        pm_buf_text(b, has_word ? ", {\"text\": " : "{\"text\": ");
        put_string(b, line->text + w->start, w->end - w->start);
        pm_buf_text(b, ", ");
        put_flat_box(b, &box);
        pm_buf_text(b, ", ");
        put_confidence(b, w->confidence);
        pm_buf_text(b, "}");
        has_word = true;
    }
    pm_buf_text(b, "]}");
}

/* ---- regions ------------------------------------------------------------------------------------------- */

static void put_key(struct pm_buf *b, const char *key)
{
    pm_buf_printf(b, ",\n      \"%s\": ", key);
}

static void put_box(struct pm_buf *b, const struct box *box)
{
    const int *v = box->v;
    put_key(b, "bbox_2d");
    pm_buf_printf(b, "[\n        %d,\n        %d,\n        %d,\n        %d\n      ]", v[0], v[1], v[2], v[3]);
    put_key(b, "polygon");
    const int corners[4][2] = {{v[0], v[1]}, {v[2], v[1]}, {v[2], v[3]}, {v[0], v[3]}};
    for (int i = 0; i < 4; i++)
        pm_buf_printf(b, "%s        [\n          %d,\n          %d\n        ]", i ? ",\n" : "[\n",
                      corners[i][0], corners[i][1]);
    pm_buf_text(b, "\n      ]");
}

static void put_error(struct pm_buf *b, const char *code, const char *text)
{
    put_key(b, "error");
    pm_buf_text(b, "{\n        \"code\": ");
    put_cstring(b, code);
    pm_buf_text(b, ",\n        \"text\": ");
    put_cstring(b, text);
    pm_buf_text(b, "\n      }");
}

static void put_region(struct pm_buf *b, const struct pm_writer_page *page, uint32_t i)
{
    const struct pm_out_region *r = &page->page->regions[i];
    struct box box = box_of(r->box, page->page);
    pm_buf_printf(b, "    {\n      \"index\": %u", i);
    put_key(b, "label");
    put_cstring(b, pm_label_family((enum pm_label)r->label));
    put_key(b, "native_label");
    put_cstring(b, pm_label_name((enum pm_label)r->label));
    put_key(b, "content");
    if (!*r->content && (*r->error_code || !strcmp(pm_label_family((enum pm_label)r->label), "image")))
        pm_buf_text(b, "null");
    else
        put_cstring(b, r->content);
    put_box(b, &box);
    if (page->images[i].path) {
        put_key(b, "image_path");
        put_cstring(b, page->images[i].path);
    }
    pm_buf_text(b, ",\n      ");
    put_confidence(b, r->confidence);
    put_key(b, "page");
    pm_buf_printf(b, "%u", page->page->page);
    if (r->level) {
        put_key(b, "level");
        pm_buf_printf(b, "%u", r->level);
    }
    if (r->continues) {
        put_key(b, "continues");
        pm_buf_text(b, "true");
    }
    if (r->was_cut) {
        put_key(b, "finish");
        put_cstring(b, "length");
    }
    if (*r->error_code)
        put_error(b, r->error_code, r->error_text);
    if (r->line_count) {
        put_key(b, "lines");
        for (uint32_t k = 0; k < r->line_count; k++) {
            pm_buf_text(b, k ? ",\n" : "[\n");
            put_line(b, &r->lines[k], page->page);
        }
        pm_buf_text(b, "\n      ]");
    }
    pm_buf_text(b, "\n    }");
}

/* A page that could not be read: one region that says so. */
static void put_failed_page(struct pm_buf *b, const struct pm_out_page *page)
{
    pm_buf_text(b, "    {\n      \"index\": 0");
    put_key(b, "label");
    put_cstring(b, "error");
    put_key(b, "native_label");
    put_cstring(b, "page_error");
    put_key(b, "content");
    pm_buf_text(b, "null");
    put_key(b, "bbox_2d");
    pm_buf_text(b, "null");
    put_key(b, "polygon");
    pm_buf_text(b, "null");
    pm_buf_text(b, ",\n      ");
    put_confidence(b, 0);
    put_key(b, "page");
    pm_buf_printf(b, "%u", page->page);
    put_error(b, page->error_code, page->error_text);
    pm_buf_text(b, "\n    }");
}

/* ---- the file --------------------------------------------------------------------------------------------
 */

static void *json_begin(struct pm_sink *out)
{
    pm_sink_text(out, "[");
    return pm_xalloc(sizeof(struct json));
}

static void json_page(void *state, struct pm_sink *out, const struct pm_writer_page *page)
{
    struct json *json = state;
    struct pm_buf *b = &json->b;
    b->size = 0;
    pm_buf_text(b, json->has_page ? ",\n  [" : "\n  [");
    json->has_page = true;
    uint32_t count = *page->page->error_code ? 1 : page->page->region_count;
    for (uint32_t i = 0; i < count; i++) {
        pm_buf_text(b, i ? ",\n" : "\n");
        if (*page->page->error_code)
            put_failed_page(b, page->page);
        else
            put_region(b, page, i);
    }
    pm_buf_text(b, count ? "\n  ]" : "]");
    pm_sink_put(out, b->data, b->size);
}

static void json_end(void *state, struct pm_sink *out)
{
    struct json *json = state;
    pm_sink_text(out, json->has_page ? "\n]\n" : "]\n");
    pm_buf_free(&json->b);
    free(json);
}

const struct pm_writer pm_writer_json = {"json", ".json", json_begin, json_page, json_end};
