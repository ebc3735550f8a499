/* One page picture, read for its layout: found, turned upright, straightened, its lines detected and put in
 * order; then cut into crops.
 *
 * Ownership: pm_scan_free releases everything; the picture given is borrowed and must live as long. Threads:
 * one owner. */
#ifndef PM_LAYOUTD_SCAN_H
#define PM_LAYOUTD_SCAN_H

#include "engine/ppocr/det.h"
#include "engine/reader.h"
#include "layoutd/layout.h"
#include "layoutd/upright.h"
#include "proto/sheet.h"

/* The networks behind functions, so that tests need none. */
struct pm_scan_tools {
    /* picture -> boxes in its pixels; limit_px: the longer side that the network sees. free(*boxes_out). */
    int (*detect)(void *context, const struct pm_image *image, int limit_px, struct pm_det_box **boxes_out,
                  size_t *count_out, struct pm_error *err);
    pm_turned_fn is_turned; /* NULL: pages are taken to be upright */
    void *context;
    /* Called between stages with 0..1000; a non-zero return ends the scan with PM_ECANCELLED. May be NULL. */
    int (*progress)(void *progress_context, unsigned permille);
    void *progress_context;
};

struct pm_scan_options {
    uint32_t page;
    float dpi;
    bool no_orientation, no_deskew, no_images;
    enum pm_region_kind region_kind;
    bool is_whole;           /* no layout: the page is one region ... */
    enum pm_task whole_task; /* ... for this task; a reader of blocks reads it */
};

struct pm_scan {
    const struct pm_image *picture; /* what crops are taken from: the picture given, or `turned` */
    struct pm_image turned;         /* picture after a turn or a page crop; pixels only when there was one */
    struct pm_map3 to_picture;      /* upright page -> picture */
    struct pm_map3 to_source;       /* upright page -> the picture given */
    uint32_t width, height;         /* upright page */
    uint32_t source_width, source_height;
    uint32_t turned_degrees;
    float skew_degrees;  /* removed altogether ... */
    float drawn_degrees; /* ... of which `turned` is free already */
    uint8_t paper;
    struct pm_lines lines;
    struct pm_rules rules;
    struct pm_tables tables;
    struct pm_rect *pictures;
    uint32_t picture_count;
    struct pm_layout layout;
};

int pm_scan_page(const struct pm_image *image, const struct pm_scan_options *options,
                 const struct pm_scan_tools *tools, struct pm_scan *out, struct pm_error *err);
void pm_scan_free(struct pm_scan *scan);

/* The record and its crops. Images of crops are fresh; pm_crops_free. */
struct pm_crops {
    struct pm_page page; /* lists below */
    struct pm_sheet_crop *sheet;
    uint32_t *costs; /* of each crop: width of the reader's input in px at height 48; 0 for pictures */
    struct pm_page_region *regions;
    struct pm_page_crop *crops;
    uint32_t count;
};
int pm_crops_cut(const struct pm_scan *scan, const struct pm_scan_options *options, struct pm_crops *out,
                 struct pm_error *err);
void pm_crops_free(struct pm_crops *crops);

#endif
