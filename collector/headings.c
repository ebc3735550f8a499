#include "collector/headings.h"

#include <string.h>

#define DEEPEST     6 /* that Markdown has */
#define PLAIN_PLACE 7 /* of unnumbered headings behind numbered ones of the same level */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

uint32_t pm_heading_depth(const char *text)
{
    uint32_t depth = 0;
    for (;;) {
        size_t digits = 0;
        while (is_digit(text[digits]))
            digits++;
        if (!digits || digits > 3)
            break;
        depth++;
        text += digits;
        if (*text == '\\') /* escaped */
            text++;
        if (*text != '.' || !is_digit(text[1])) {
            text += *text == '.';
            return *text == ' ' && depth < PM_HEADING_DEPTHS ? depth : 0;
        }
        text++;
    }
    return 0;
}

/* The text behind the marks; NULL when the region is no heading. */
static const char *heading_text(const struct pm_out_region *r)
{
    if (!r->level || !*r->content || (r->label != PM_LABEL_PARAGRAPH_TITLE && r->label != PM_LABEL_DOC_TITLE))
        return NULL;
    const char *text = r->content + strspn(r->content, "#");
    return text > r->content && *text == ' ' ? text + 1 : NULL;
}

/* A title that is numbered deeply is a section that happens to stand on the first page. */
static bool is_title(const struct pm_out_region *r, uint32_t depth)
{
    return r->label == PM_LABEL_DOC_TITLE && depth < 2;
}

static uint32_t native_level(const struct pm_out_region *r)
{
    uint32_t level = r->level < 2 ? 2 : r->level;
    return level < PM_HEADING_LEVELS ? level : PM_HEADING_LEVELS - 1;
}

void pm_headings_count(struct pm_headings *h, const struct pm_out_page *page)
{
    for (uint32_t i = 0; i < page->region_count; i++) {
        const struct pm_out_region *r = &page->regions[i];
        const char *text = heading_text(r);
        uint32_t depth = text ? pm_heading_depth(text) : 0;
        if (!text || is_title(r, depth))
            continue;
        if (depth)
            h->numbered[depth][native_level(r)]++;
        else
            h->plain[native_level(r)]++;
    }
}

/* Places of the kinds of headings in one order: level of the layout, then depth. */
struct places {
    uint32_t depth[PM_HEADING_DEPTHS]; /* 0: not in use */
};

static struct places find_places(const struct pm_headings *h)
{
    struct places p = {{0}};
    uint32_t above = 0;
    for (uint32_t depth = 1; depth < PM_HEADING_DEPTHS; depth++) {
        uint32_t all = 0, seen = 0, level = 0;
        for (uint32_t k = 0; k < PM_HEADING_LEVELS; k++)
            all += h->numbered[depth][k];
        while (all && seen * 2 < all) /* the median, so that one mistake does not matter */
            seen += h->numbered[depth][level++];
        if (!all)
            continue;
        p.depth[depth] = (level - 1) * 8 + depth;
        if (p.depth[depth] <= above) /* a deeper number never stands above */
            p.depth[depth] = above + 1;
        above = p.depth[depth];
    }
    return p;
}

static uint32_t place_of(const struct places *p, const struct pm_out_region *r, uint32_t depth)
{
    return depth ? p->depth[depth] : native_level(r) * 8 + PLAIN_PLACE;
}

/* How many places in use come before this one. */
static uint32_t rank_of(const struct pm_headings *h, const struct places *p, uint32_t place)
{
    uint32_t rank = 0;
    for (uint32_t level = 0; level < PM_HEADING_LEVELS; level++)
        rank += h->plain[level] && level * 8 + PLAIN_PLACE < place;
    for (uint32_t depth = 1; depth < PM_HEADING_DEPTHS; depth++) {
        bool is_shared = p->depth[depth] % 8 == PLAIN_PLACE && h->plain[p->depth[depth] / 8];
        rank += p->depth[depth] && p->depth[depth] < place && !is_shared;
    }
    return rank;
}

void pm_headings_apply(const struct pm_headings *h, struct pm_out_page *page, struct pm_arena *arena)
{
    struct places places = find_places(h);
    for (uint32_t i = 0; i < page->region_count; i++) {
        struct pm_out_region *r = &page->regions[i];
        const char *text = heading_text(r);
        uint32_t depth = text ? pm_heading_depth(text) : 0;
        if (!text)
            continue;
        uint32_t level = is_title(r, depth) ? 1 : 2 + rank_of(h, &places, place_of(&places, r, depth));
        level = level < DEEPEST ? level : DEEPEST;
        struct pm_buf content = {0};
        pm_buf_append(&content, "######", level);
        pm_buf_append(&content, " ", 1);
        pm_buf_text(&content, text);
        r->content = pm_arena_text(arena, (const char *)content.data, content.size);
        r->level = level;
        pm_buf_free(&content);
    }
}
