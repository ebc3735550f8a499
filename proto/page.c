/* Field tables of the records about pages, and the names of labels. docs/wire.md is generated from them. */
#include "proto/page.h"

#include <msgpack.h>

#include "proto/messages.h"
#include "proto/schema.h"
#include "proto/token.h"

#define VERSION   100u
#define VERSION_2 101u /* since protocol 2 */
#define BLOB_SIZE 65u
#define MAX_WORDS 100000u
#define MAX_CELLS 20000u
#define MAX_FILES 50000u
#define MAX_TIMES 256u

#define T struct pm_page_crop
static const struct pm_field crop_rows[] = {
    PM_ROW_U32(T, region, true, "index into regions"),
    PM_ROW_U32(T, cell, false, "index into the region's cells + 1; 0: not in a table cell"),
    PM_ROW_MAX(T, task, 255, false, "0 text, 1 table, 2 formula; 255: a picture, not read"),
    PM_ROW_F32S(T, quad, 8, true, "x, y of the corners tl, tr, br, bl"),
    PM_ROW_F32(T, height_px, false, "height of the line across its direction; 0: a block"),
    PM_ROW_F32(T, score, false, "the detector's confidence"),
    PM_ROW_U32(T, row, false, "visual row inside the region"),
};
#undef T
static const struct pm_schema crop = PM_SCHEMA_OF("page_crop", VERSION, struct pm_page_crop, crop_rows);

#define T struct pm_page_cell
static const struct pm_field cell_rows[] = {
    PM_ROW_U32(T, row, true, "from 0"),
    PM_ROW_U32(T, column, true, "from 0"),
    PM_ROW_U32(T, row_span, false, "1 and above"),
    PM_ROW_U32(T, column_span, false, "1 and above"),
    PM_ROW_F32S(T, box, 4, true, "left, top, right, bottom"),
};
#undef T
static const struct pm_schema cell = PM_SCHEMA_OF("page_cell", VERSION, struct pm_page_cell, cell_rows);

#define T struct pm_page_region
static const struct pm_field region_rows[] = {
    PM_ROW_MAX(T, label, PM_LABEL_COUNT - 1, true, "layout class"),
    PM_ROW_U32(T, level, false, "headings: 1 the document's title, 2 and above sections"),
    PM_ROW_F32S(T, box, 4, true, "left, top, right, bottom"),
    PM_ROW_F32(T, score, false, "confidence of the layout"),
    PM_ROW_U32(T, column, false, "column inside its band, for people"),
    PM_ROW_RECS(T, cells, cell_count, struct pm_page_cell, &cell, MAX_CELLS, false, "tables"),
    PM_ROW_U32(T, table_rows, false, "tables"),
    PM_ROW_U32(T, table_columns, false, "tables"),
};
#undef T
static const struct pm_schema region =
    PM_SCHEMA_OF("page_region", VERSION, struct pm_page_region, region_rows);

#define T struct pm_page
static const struct pm_field page_rows[] = {
    PM_ROW_U32(T, page, true, "number in the document, from 1"),
    PM_ROW_U32(T, width, true, "of the upright picture, pixels"),
    PM_ROW_U32(T, height, true, "of the upright picture, pixels"),
    PM_ROW_F32(T, dpi, false, "of the raster; 0: unknown"),
    PM_ROW_MAX(T, turned_degrees, 270, false, "0, 90, 180, 270 clockwise applied"),
    PM_ROW_F32(T, skew_degrees, false, "removed by straightening"),
    PM_ROW_F32S(T, source_quad, 8, false, "corners of the upright page in the source picture"),
    PM_ROW_U32(T, source_width, false, "of the source picture, pixels"),
    PM_ROW_U32(T, source_height, false, "of the source picture, pixels"),
    PM_ROW_STR(T, region_kind, PM_LIMIT_NAME, false, "line or block: what the crops are"),
    PM_ROW_RECS(T, regions, region_count, struct pm_page_region, &region, PM_LIMIT_PAGE_REGIONS, false,
                "in reading order"),
    PM_ROW_RECS(T, crops, crop_count, struct pm_page_crop, &crop, PM_LIMIT_PAGE_CROPS, false,
                "crop i is region task i"),
};
#undef T
const struct pm_schema pm_page_schema = PM_SCHEMA_OF("page", VERSION, struct pm_page, page_rows);

#define T struct pm_word
static const struct pm_field word_rows[] = {
    PM_ROW_U32(T, start, false, "first byte of the text"),
    PM_ROW_U32(T, end, true, "byte behind the last"),
    PM_ROW_F32(T, left, false, "share of the crop's width"),
    PM_ROW_F32(T, right, false, "share of the crop's width"),
    PM_ROW_F32(T, confidence, false, "0 to 1"),
};
#undef T
static const struct pm_schema word = PM_SCHEMA_OF("word", VERSION, struct pm_word, word_rows);

#define T struct pm_region_text
static const struct pm_field region_text_rows[] = {
    PM_ROW_U32(T, crop, true, "index of the crop"),
    PM_ROW_STR(T, text, PM_LIMIT_REGION_TEXT, false, "what was read"),
    PM_ROW_F32(T, confidence, false, "0 to 1"),
    PM_ROW_STR(T, finish, PM_LIMIT_NAME, false, "stop, length, empty or error"),
    PM_ROW_RECS(T, words, word_count, struct pm_word, &word, MAX_WORDS, false, "where the words stand"),
    PM_ROW_STR(T, reader, PM_LIMIT_NAME, false, "who read it"),
    PM_ROW_U64(T, read_us, false, "time in the engine"),
    PM_ROW_STR(T, error_code, PM_LIMIT_NAME, false, "set by the broker for a crop that failed for good"),
    PM_ROW_STR(T, error_text, PM_LIMIT_ERROR_TEXT, false, "why, for people"),
};
#undef T
const struct pm_schema pm_region_text_schema =
    PM_SCHEMA_OF("region_text", VERSION, struct pm_region_text, region_text_rows);

#define T struct pm_out_line
static const struct pm_field out_line_rows[] = {
    PM_ROW_STR(T, text, PM_LIMIT_REGION_TEXT, false, "of the line"),
    PM_ROW_F32S(T, quad, 8, false, "x, y of the corners tl, tr, br, bl"),
    PM_ROW_F32(T, confidence, false, "0 to 1"),
    PM_ROW_RECS(T, words, word_count, struct pm_word, &word, MAX_WORDS, false, "where the words stand"),
};
#undef T
static const struct pm_schema out_line = PM_SCHEMA_OF("out_line", VERSION, struct pm_out_line, out_line_rows);

#define T struct pm_out_region
static const struct pm_field out_region_rows[] = {
    PM_ROW_MAX(T, label, PM_LABEL_COUNT - 1, true, "layout class"),
    PM_ROW_STR(T, content, 4u << 20, false, "Markdown, or HTML of a table; empty for pictures"),
    PM_ROW_F32S(T, box, 4, true, "left, top, right, bottom"),
    PM_ROW_F32(T, confidence, false, "0 to 1"),
    PM_ROW_STR(T, image_blob, BLOB_SIZE, false, "blob of a JPEG"),
    PM_ROW_STR(T, error_code, PM_LIMIT_NAME, false, "a region that could not be read"),
    PM_ROW_STR(T, error_text, PM_LIMIT_ERROR_TEXT, false, "why, for people"),
    PM_ROW_RECS(T, lines, line_count, struct pm_out_line, &out_line, PM_LIMIT_PAGE_CROPS, false,
                "what it was put together from"),
    PM_ROW_U32(T, level, false, "headings"),
    PM_ROW_BOOL(T, continues, false, "the paragraph goes on in the next text region"),
    PM_ROW_BOOL(T, was_cut, false, "the text reached the reader's token limit"),
};
#undef T
static const struct pm_schema out_region =
    PM_SCHEMA_OF("out_region", VERSION, struct pm_out_region, out_region_rows);

#define T struct pm_out_page
static const struct pm_field out_page_rows[] = {
    PM_ROW_U32(T, page, true, "number in the document, from 1"),
    PM_ROW_U32(T, width, false, "of the upright picture, pixels"),
    PM_ROW_U32(T, height, false, "of the upright picture, pixels"),
    PM_ROW_F32(T, dpi, false, "of the raster; 0: unknown"),
    PM_ROW_MAX(T, turned_degrees, 270, false, "0, 90, 180, 270 clockwise applied"),
    PM_ROW_F32(T, skew_degrees, false, "removed by straightening"),
    PM_ROW_RECS(T, regions, region_count, struct pm_out_region, &out_region, PM_LIMIT_PAGE_REGIONS, false,
                "in reading order"),
    PM_ROW_STR(T, error_code, PM_LIMIT_NAME, false, "a page that could not be read at all"),
    PM_ROW_STR(T, error_text, PM_LIMIT_ERROR_TEXT, false, "why, for people"),
};
#undef T
const struct pm_schema pm_out_page_schema =
    PM_SCHEMA_OF("out_page", VERSION, struct pm_out_page, out_page_rows);

#define T struct pm_doc_page
static const struct pm_field doc_page_rows[] = {
    PM_ROW_U32(T, page, true, "number in the document, from 1"),
    PM_ROW_STR(T, blob, BLOB_SIZE, false, "out_page record; empty when the page failed"),
    PM_ROW_STR(T, error_code, PM_LIMIT_NAME, false, "failed pages: error name"),
    PM_ROW_STR(T, error_text, PM_LIMIT_ERROR_TEXT, false, "failed pages: why"),
};
#undef T
static const struct pm_schema doc_page = PM_SCHEMA_OF("doc_page", VERSION, struct pm_doc_page, doc_page_rows);

#define T struct pm_doc_pages
static const struct pm_field doc_pages_rows[] = {
    PM_ROW_RECS(T, pages, page_count, struct pm_doc_page, &doc_page, PM_LIMIT_DOCUMENT_PAGES, false,
                "in page order"),
};
#undef T
const struct pm_schema pm_doc_pages_schema =
    PM_SCHEMA_OF("doc_pages", VERSION, struct pm_doc_pages, doc_pages_rows);

#define T struct pm_result_file
static const struct pm_field result_file_rows[] = {
    PM_ROW_STR(T, name, PM_LIMIT_PATH, true, "relative path; never absolute, no \"..\""),
    PM_ROW_STR(T, blob, BLOB_SIZE, true, "its content"),
    PM_ROW_U64(T, bytes, false, "its size"),
};
#undef T
static const struct pm_schema result_file =
    PM_SCHEMA_OF("result_file", VERSION, struct pm_result_file, result_file_rows);

#define T struct pm_part_time
static const struct pm_field part_time_rows[] = {
    PM_ROW_STR(T, kind, PM_LIMIT_NAME, true, "kind of task"),
    PM_ROW_STR(T, name, PM_LIMIT_NAME, true, "wait, run, or a phase of the work itself"),
    PM_ROW_U64(T, us, false, "all tasks of the job together"),
    PM_ROW_U64(T, count, false, "how many tasks"),
};
#undef T
static const struct pm_schema part_time =
    PM_SCHEMA_OF("part_time", VERSION, struct pm_part_time, part_time_rows);

#define T struct pm_manifest
static const struct pm_field manifest_rows[] = {
    PM_ROW_RECS(T, files, file_count, struct pm_result_file, &result_file, MAX_FILES, false, "of the result"),
    PM_ROW_U32(T, pages, false, "selected pages"),
    PM_ROW_U32(T, pages_failed, false, ""),
    PM_ROW_U32(T, regions, false, "all regions"),
    PM_ROW_U32(T, regions_failed, false, ""),
    PM_ROW_F32(T, confidence, false, "mean over characters"),
    PM_ROW_U32(T, regions_cut, false, "read up to the token limit"),
    PM_ROW_I64(T, accepted_wall_us, false, "when it was accepted (the broker adds this and what follows)"),
    PM_ROW_I64(T, started_wall_us, false, "first lease"),
    PM_ROW_I64(T, opened_wall_us, false, "its pages were known; 0: unknown"),
    PM_ROW_I64(T, first_page_wall_us, false, "the first page was done; 0: unknown"),
    PM_ROW_I64(T, finished_wall_us, false, "the result was committed"),
    PM_ROW_U32S(T, page_times, page_time_count, PM_PAGE_TIMES *PM_LIMIT_DOCUMENT_PAGES, false,
                "four numbers a page: its number and, in ms since accepted, laid out, read, assembled"),
    PM_ROW_RECS(T, times, time_count, struct pm_part_time, &part_time, MAX_TIMES, false,
                "where the time went, by kind of task"),
    PM_ROW_U64(T, tokens, false, "written by readers that write token by token"),
};
#undef T
const struct pm_schema pm_manifest_schema =
    PM_SCHEMA_OF("manifest", VERSION_2, struct pm_manifest, manifest_rows);

/* ---- the texts of a page ---- */

static int write_out(void *data, const char *bytes, size_t n)
{
    pm_buf_append(data, bytes, n);
    return 0;
}

void pm_page_texts_encode(const struct pm_page_texts *texts, struct pm_buf *out)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, write_out);
    msgpack_pack_array(&pk, texts->text_count);
    for (uint32_t i = 0; i < texts->text_count; i++) {
        msgpack_pack_bin(&pk, texts->texts[i].size);
        if (texts->texts[i].size)
            msgpack_pack_bin_body(&pk, texts->texts[i].data, texts->texts[i].size);
    }
}

int pm_page_texts_decode(const void *data, size_t bytes, struct pm_arena *arena, struct pm_page_texts *out,
                         struct pm_error *err)
{
    struct pm_cursor cursor = {data, bytes};
    struct pm_token t;
    *out = (struct pm_page_texts){0};
    if (!pm_token_read(&cursor, &t) || t.kind != PM_TOKEN_ARRAY)
        return pm_fail(err, PM_EPROTO, "the texts of a page are not a list");
    if (t.size > PM_LIMIT_PAGE_CROPS)
        return pm_fail(err, PM_EPROTO, "the texts of a page are %zu, the limit is %d", t.size,
                       PM_LIMIT_PAGE_CROPS);
    uint32_t count = (uint32_t)t.size;
    struct pm_bytes *texts = pm_arena_alloc(arena, count * sizeof *texts);
    for (uint32_t i = 0; i < count; i++) {
        if (!pm_token_read(&cursor, &t) || t.kind != PM_TOKEN_BIN)
            return pm_fail(err, PM_EPROTO, "text %u of a page is cut off or not bin", i);
        texts[i].data = (const uint8_t *)pm_arena_text(arena, (const char *)t.data, t.size);
        texts[i].size = t.size;
    }
    if (cursor.left)
        return pm_fail(err, PM_EPROTO, "the texts of a page are followed by %zu bytes too many", cursor.left);
    out->texts = texts;
    out->text_count = count;
    return 0;
}

/* ---- labels ---- */

static const struct {
    const char *name, *family;
} labels[PM_LABEL_COUNT] = {
    [PM_LABEL_ABSTRACT] = {"abstract", "text"},
    [PM_LABEL_ALGORITHM] = {"algorithm", "text"},
    [PM_LABEL_ASIDE_TEXT] = {"aside_text", "text"},
    [PM_LABEL_CHART] = {"chart", "image"},
    [PM_LABEL_CONTENT] = {"content", "text"},
    [PM_LABEL_DISPLAY_FORMULA] = {"display_formula", "formula"},
    [PM_LABEL_DOC_TITLE] = {"doc_title", "text"},
    [PM_LABEL_FIGURE_TITLE] = {"figure_title", "text"},
    [PM_LABEL_FOOTER] = {"footer", "text"},
    [PM_LABEL_FOOTER_IMAGE] = {"footer_image", "image"},
    [PM_LABEL_FOOTNOTE] = {"footnote", "text"},
    [PM_LABEL_FORMULA_NUMBER] = {"formula_number", "text"},
    [PM_LABEL_HEADER] = {"header", "text"},
    [PM_LABEL_HEADER_IMAGE] = {"header_image", "image"},
    [PM_LABEL_IMAGE] = {"image", "image"},
    [PM_LABEL_INLINE_FORMULA] = {"inline_formula", "formula"},
    [PM_LABEL_NUMBER] = {"number", "text"},
    [PM_LABEL_PARAGRAPH_TITLE] = {"paragraph_title", "text"},
    [PM_LABEL_REFERENCE] = {"reference", "text"},
    [PM_LABEL_REFERENCE_CONTENT] = {"reference_content", "text"},
    [PM_LABEL_SEAL] = {"seal", "text"},
    [PM_LABEL_TABLE] = {"table", "table"},
    [PM_LABEL_TEXT] = {"text", "text"},
    [PM_LABEL_VERTICAL_TEXT] = {"vertical_text", "text"},
    [PM_LABEL_VISION_FOOTNOTE] = {"vision_footnote", "text"},
    [PM_LABEL_LIST] = {"list", "text"},
    [PM_LABEL_CODE] = {"code", "text"},
};

const char *pm_label_name(enum pm_label label)
{
    return (unsigned)label < PM_LABEL_COUNT ? labels[label].name : "?";
}

const char *pm_label_family(enum pm_label label)
{
    return (unsigned)label < PM_LABEL_COUNT ? labels[label].family : "text";
}
