#include "fixture.h"

#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"

void drawn_init(struct drawn *d)
{
    *d =
        (struct drawn){.page = {.page = 1, .width = 1000, .height = 1000, .dpi = 200, .region_kind = "line"}};
}

void drawn_free(struct drawn *d)
{
    for (uint32_t i = 0; i < d->page.region_count; i++)
        free(d->page.regions[i].cells);
    free(d->page.regions);
    free(d->page.crops);
    free(d->texts);
    pm_arena_free(&d->arena);
}

uint32_t drawn_crop(struct drawn *d, uint32_t region, uint32_t cell, float left, float top, float right,
                    float bottom, const char *text)
{
    PM_GROW(d->page.crops, d->page.crop_count, d->crop_capacity);
    uint32_t crop = d->page.crop_count++;
    d->page.crops[crop] = (struct pm_page_crop){.region = region,
                                                .cell = cell,
                                                .task = text ? 0 : PM_SHEET_PICTURE,
                                                .quad = {left, top, right, top, right, bottom, left, bottom},
                                                .height_px = bottom - top,
                                                .score = 1,
                                                .row = (uint32_t)(top / ROW_PX)};
    if (text) {
        PM_GROW(d->texts, d->text_count, d->text_capacity);
        d->texts[d->text_count++] = (struct pm_region_text){.crop = crop,
                                                            .text = text,
                                                            .confidence = 0.5f,
                                                            .finish = "stop",
                                                            .error_code = "",
                                                            .error_text = ""};
    }
    return crop;
}

static size_t columns(const char *text, size_t bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += ((uint8_t)text[i] & 0xC0) != 0x80;
    return n;
}

static void draw_row(struct drawn *d, uint32_t region, float left, float top, const char *row, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        if (row[at] == ' ' || row[at] == '\t') {
            at++;
            continue;
        }
        size_t end = at;
        while (end < bytes && row[end] != '\t')
            end++;
        size_t next = end;
        while (end > at && row[end - 1] == ' ')
            end--;
        float x = left + (float)columns(row, at) * CHARACTER_PX;
        float right = x + (float)columns(row + at, end - at) * CHARACTER_PX;
        drawn_crop(d, region, 0, x, top, right, top + TYPE_PX, pm_arena_text(&d->arena, row + at, end - at));
        at = next;
    }
}

uint32_t drawn_region(struct drawn *d, enum pm_label label, float left, float top, const char *art)
{
    PM_GROW(d->page.regions, d->page.region_count, d->region_capacity);
    uint32_t region = d->page.region_count++;
    size_t widest = 0;
    float y = top;
    d->page.regions[region] = (struct pm_page_region){.label = label, .score = 0.9f};
    while (*art) {
        size_t bytes = strcspn(art, "\n");
        draw_row(d, region, left, y, art, bytes);
        widest = columns(art, bytes) > widest ? columns(art, bytes) : widest;
        y += ROW_PX;
        art += bytes + (art[bytes] == '\n');
    }
    struct pm_page_region *r = &d->page.regions[region];
    float box[4] = {left, top, left + (float)widest * CHARACTER_PX, y - ROW_PX + TYPE_PX};
    memcpy(r->box, box, sizeof box);
    return region;
}

uint32_t drawn_cell(struct drawn *d, uint32_t region, uint32_t row, uint32_t column, uint32_t row_span,
                    uint32_t column_span, const char *text)
{
    struct pm_page_region *r = &d->page.regions[region];
    r->cells = pm_xrealloc(r->cells, (r->cell_count + 1) * sizeof *r->cells);
    float left = (float)column * 200, top = (float)row * 90;
    r->cells[r->cell_count++] =
        (struct pm_page_cell){.row = row,
                              .column = column,
                              .row_span = row_span,
                              .column_span = column_span,
                              .box = {left, top, left + 200.0f * (float)column_span, top + 90}};
    r->table_rows = row + row_span > r->table_rows ? row + row_span : r->table_rows;
    r->table_columns = column + column_span > r->table_columns ? column + column_span : r->table_columns;
    for (float y = top; *text; y += ROW_PX) {
        size_t bytes = strcspn(text, "\n");
        drawn_crop(d, region, r->cell_count, left + 5, y,
                   left + 5 + (float)columns(text, bytes) * CHARACTER_PX, y + TYPE_PX,
                   pm_arena_text(&d->arena, text, bytes));
        text += bytes + (text[bytes] == '\n');
    }
    return r->cell_count - 1;
}

struct pm_out_page drawn_format(struct drawn *d)
{
    struct pm_out_page out;
    struct pm_error err = {0};
    if (pm_format_page(&d->page, d->texts, d->text_count, &d->arena, &out, &err))
        fail_msg("pm_format_page: %s", err.text);
    return out;
}

const char *drawn_content(struct drawn *d, enum pm_label label, const char *art)
{
    drawn_init(d);
    drawn_region(d, label, 100, 0, art);
    return drawn_format(d).regions[0].content;
}

void store_open(struct store *s)
{
    struct pm_error err = {0};
    strcpy(s->dir, "/tmp/pm-collector-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    char *disk = pm_fs_join(s->dir, "disk"), *pixels = pm_fs_join(s->dir, "pixels");
    if (pm_blobs_open(disk, pixels, &s->blobs, &err))
        fail_msg("%s", err.text);
    free(disk);
    free(pixels);
}

void store_close(struct store *s)
{
    pm_blobs_free(&s->blobs);
    pm_fs_remove_tree(s->dir, NULL);
}

char *store_text(struct store *s, const char *key, size_t *bytes_out)
{
    struct pm_blob_map map;
    struct pm_error err = {0};
    if (pm_blob_map(s->blobs, key, &map, &err))
        fail_msg("%s", err.text);
    char *text = pm_xstrndup(map.bytes ? (const char *)map.data : "", map.bytes);
    if (bytes_out)
        *bytes_out = map.bytes;
    pm_blob_unmap(&map);
    return text;
}

void store_page(struct store *s, const struct pm_out_page *page, char *key_out)
{
    struct pm_buf record = {0};
    pm_record_encode(&pm_out_page_schema, page, &record);
    assert_int_equal(pm_blob_put(s->blobs, PM_BLOB_DISK, record.data, record.size, key_out, NULL), 0);
    pm_buf_free(&record);
}
