/* The "ppocr" reader family: text lines through the PP-OCRv6 recogniser (engine/reader.h has the contract).
 *
 * Lines are taken in the order of admission, each at its own exact width (no padding), so that a result
 * depends on its picture only. A step spends a fixed number of multiply-adds, counted and not timed: wide
 * lines are left in the middle and go on in the next step; all lines that end in a step share one pass over
 * the head's weights. Lines wider than PM_PPOCR_PIECE_PX at height 48 are cut at the widest gaps between ink
 * and joined again. Spaces that the network doubts are checked against the ink (spacing.h). */
#ifndef PM_ENGINE_PPOCR_READER_H
#define PM_ENGINE_PPOCR_READER_H

#include "engine/reader.h"

enum {
    PM_PPOCR_PIECE_PX = 3200,       /* most columns at height 48 that go through the network at once */
    PM_PPOCR_LINE_PX_MAX = 1 << 16, /* most columns of a line; wider pictures are refused */
};

extern const struct pm_reader_family pm_ppocr_reader;

/* Where to cut a line of height 48: the first column of the next piece, at most max_px after begin; width
 * when no cut is needed. *gap_px_out: how wide the gap of empty columns around the cut is (0: through ink).
 * Pure. */
struct pm_image;
int pm_ppocr_cut(const struct pm_image *line, int begin, int max_px, int *gap_px_out);

#endif
