/* What layoutd finds on a page, what workers read in it, and what the collector makes of both: the records
 * that travel as blobs or payloads and that the broker passes on without looking inside.
 *
 * Coordinates are pixels of the upright page picture (after turning, border removal and deskew), top-left
 * origin. */
#ifndef PM_PROTO_PAGE_H
#define PM_PROTO_PAGE_H

#include "proto/record.h"

/* Layout classes: the 25 of PP-DocLayoutV3 (native labels), plus list and code which our rule-based layout
 * tells apart. */
enum pm_label {
    PM_LABEL_ABSTRACT,
    PM_LABEL_ALGORITHM,
    PM_LABEL_ASIDE_TEXT,
    PM_LABEL_CHART,
    PM_LABEL_CONTENT,
    PM_LABEL_DISPLAY_FORMULA,
    PM_LABEL_DOC_TITLE,
    PM_LABEL_FIGURE_TITLE,
    PM_LABEL_FOOTER,
    PM_LABEL_FOOTER_IMAGE,
    PM_LABEL_FOOTNOTE,
    PM_LABEL_FORMULA_NUMBER,
    PM_LABEL_HEADER,
    PM_LABEL_HEADER_IMAGE,
    PM_LABEL_IMAGE,
    PM_LABEL_INLINE_FORMULA,
    PM_LABEL_NUMBER,
    PM_LABEL_PARAGRAPH_TITLE,
    PM_LABEL_REFERENCE,
    PM_LABEL_REFERENCE_CONTENT,
    PM_LABEL_SEAL,
    PM_LABEL_TABLE,
    PM_LABEL_TEXT,
    PM_LABEL_VERTICAL_TEXT,
    PM_LABEL_VISION_FOOTNOTE,
    PM_LABEL_LIST,
    PM_LABEL_CODE,
    PM_LABEL_COUNT
};
const char *pm_label_name(enum pm_label label); /* native label: "paragraph_title" */
const char *
pm_label_family(enum pm_label label); /* label of the JSON: "text", "table", "formula" or "image" */

/* Crops with a lower score were not seen by the detector but only by their ink. Their text counts when its
 * reader is at least PM_RESCUED_CONFIDENCE sure; else they were specks, and no text. */
#define PM_SCORE_RESCUED      0.3f
#define PM_RESCUED_CONFIDENCE 0.6f

/* One crop: the picture a reader gets. crops[i] of the page is crop i of its sheet and region task i of the
 * page. */
struct pm_page_crop {
    uint32_t region; /* index into regions */
    uint32_t cell;   /* index into the region's cells + 1; 0: not in a table cell */
    uint32_t task;   /* enum pm_task, or PM_SHEET_PICTURE */
    float quad[8];   /* x, y of tl, tr, br, bl */
    float height_px; /* height of the line across its direction: the collector's measure of type size; 0 for
                        blocks */
    float score;     /* detector's confidence; below PM_SCORE_RESCUED: not the detector's find */
    uint32_t row;    /* visual row inside the region: crops of equal row stand on one baseline */
};
struct pm_page_cell {
    uint32_t row, column, row_span, column_span; /* spans >= 1 */
    float box[4];                                /* left, top, right, bottom */
};
struct pm_page_region {
    uint32_t label; /* enum pm_label */
    uint32_t level; /* headings: 1 = document title, 2.. = sections; 0 otherwise */
    float box[4];   /* left, top, right, bottom */
    float score;
    uint32_t column;            /* which column of its band, for people */
    struct pm_page_cell *cells; /* tables */
    uint32_t cell_count;
    uint32_t table_rows, table_columns;
};
struct pm_page {             /* regions in reading order; crops in reading order inside their region */
    uint32_t page;           /* number in the document, from 1 */
    uint32_t width, height;  /* upright picture */
    float dpi;               /* of the raster; 0 when unknown */
    uint32_t turned_degrees; /* 0, 90, 180, 270 clockwise applied */
    float skew_degrees;      /* removed by deskew */
    float source_quad[8];    /* corners of the upright page in the source picture (tl, tr, br, bl) */
    uint32_t source_width, source_height;
    const char *region_kind; /* "line" or "block": what the crops are */
    struct pm_page_region *regions;
    uint32_t region_count;
    struct pm_page_crop *crops;
    uint32_t crop_count;
};
extern const struct pm_schema pm_page_schema;

/* A worker's answer for one crop. */
struct pm_word {
    uint32_t start, end; /* bytes of text */
    float left, right;   /* shares 0..1 of the crop's width */
    float confidence;
};
struct pm_region_text {
    uint32_t crop;
    const char *text;
    float confidence;
    const char *finish; /* "stop", "length", "empty", "error" */
    struct pm_word *words;
    uint32_t word_count;
    const char *reader;
    uint64_t read_us;                    /* time in the engine */
    const char *error_code, *error_text; /* set by the broker for a crop that failed for good */
};
extern const struct pm_schema pm_region_text_schema;

/* What an assemble-page task gets: the texts of all crops that needed recognition, in any order. */
struct pm_page_texts {
    struct pm_bytes *texts; /* each an encoded pm_region_text */
    uint32_t text_count;
};
/* The payload of an assemble-page lease: a msgpack array of bins. PM_EPROTO when it is anything else; decoded
 * texts lie in the arena. */
void pm_page_texts_encode(const struct pm_page_texts *texts, struct pm_buf *out); /* appends */
int pm_page_texts_decode(const void *data, size_t bytes, struct pm_arena *arena, struct pm_page_texts *out,
                         struct pm_error *err);

/* The collector's page: what the document is put together from (a disk blob). */
struct pm_out_line {
    const char *text;
    float quad[8];
    float confidence;
    struct pm_word *words;
    uint32_t word_count;
};
struct pm_out_region {
    uint32_t label;
    const char *content; /* Markdown-ready text, or HTML for tables; "" for pictures */
    float box[4];        /* upright pixels */
    float confidence;
    const char *image_blob;              /* disk blob of a JPEG, "" when none */
    const char *error_code, *error_text; /* a region that could not be read */
    struct pm_out_line *lines;
    uint32_t line_count;
    uint32_t level;
    bool continues; /* the paragraph goes on in the next text region (column or page break, hyphen) */
    bool was_cut;   /* the text reached the reader's token limit and goes on in the picture */
};
struct pm_out_page {
    uint32_t page;
    uint32_t width, height;
    float dpi;
    uint32_t turned_degrees;
    float skew_degrees;
    struct pm_out_region *regions;
    uint32_t region_count;
    const char *error_code, *error_text; /* a page that could not be read at all */
};
extern const struct pm_schema pm_out_page_schema;

/* What an assemble-document task gets, in page order; and what it makes. */
struct pm_doc_page {
    uint32_t page;
    const char *blob; /* pm_out_page; "" when the page failed */
    const char *error_code, *error_text;
};
struct pm_doc_pages {
    struct pm_doc_page *pages;
    uint32_t page_count;
};
extern const struct pm_schema pm_doc_pages_schema;

struct pm_result_file {
    const char
        *name; /* relative: "STEM.md", "STEM.json", "imgs/cropped_page0_idx3.jpg"; never absolute, no ".." */
    const char *blob;
    uint64_t bytes;
};
struct pm_part_time { /* where the job's time went, all its tasks of a kind together */
    const char *kind; /* of task */
    const char *name; /* "wait" (ready to leased), "run" (leased to result), or a phase of the work itself */
    uint64_t us, count; /* count: of tasks */
};
enum { PM_PAGE_TIMES = 4 }; /* numbers a page in pm_manifest.page_times */
struct pm_manifest {
    struct pm_result_file *files;
    uint32_t file_count;
    uint32_t pages, pages_failed, regions, regions_failed;
    float confidence;     /* mean over characters */
    uint32_t regions_cut; /* read up to the token limit */
    /* When what happened, by the broker's clock; it adds this when it commits the result. 0: unknown, because
     * another broker was there then. */
    int64_t accepted_wall_us, started_wall_us, opened_wall_us, first_page_wall_us, finished_wall_us;
    uint32_t *page_times; /* of each page its number and, in ms since it was accepted: laid out, all its
                             regions read, assembled */
    uint32_t page_time_count;
    struct pm_part_time *times;
    uint32_t time_count;
    uint64_t tokens; /* of readers that write token by token */
};
extern const struct pm_schema pm_manifest_schema;

#endif
