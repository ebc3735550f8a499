#include "base/pages.h"

#include <stdlib.h>

static const char *skip_blanks(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads a number at *p; `text` is the whole selection, for the message. */
static int read_number(const char *text, const char **p, uint32_t *out, struct pm_error *err)
{
    uint64_t value = 0;
    const char *start = *p;
    for (; is_digit(**p); (*p)++) {
        value = value * 10 + (uint64_t)(**p - '0');
        if (value >= PM_PAGES_LAST)
            return pm_fail(err, PM_EINVAL,
                           "page selection \"%.60s\": the number at character %d is too large", text,
                           (int)(start - text) + 1);
    }
    if (!value)
        return pm_fail(err, PM_EINVAL, "page selection \"%.60s\": pages count from 1, not 0 (character %d)",
                       text, (int)(start - text) + 1);
    *out = (uint32_t)value;
    return 0;
}

/* One item: "7", "3-9", "3-", "-5". */
static int read_range(const char *text, const char **p, struct pm_page_range *out, struct pm_error *err)
{
    bool has_first = is_digit(**p);
    out->first = 1;
    if (has_first) {
        int rc = read_number(text, p, &out->first, err);
        if (rc)
            return rc;
    } else if (**p != '-') {
        if (!**p || **p == ',')
            return pm_fail(err, PM_EINVAL,
                           "page selection \"%.60s\": a page or range is missing at character %d", text,
                           (int)(*p - text) + 1);
        return pm_fail(
            err, PM_EINVAL,
            "page selection \"%.60s\": expected a page number at character %d, for example 1-20,31", text,
            (int)(*p - text) + 1);
    }
    out->last = out->first;
    *p = skip_blanks(*p);
    if (**p == '-') {
        *p = skip_blanks(*p + 1);
        out->last = PM_PAGES_LAST;
        if (is_digit(**p)) {
            int rc = read_number(text, p, &out->last, err);
            if (rc)
                return rc;
        } else if (!has_first) {
            return pm_fail(err, PM_EINVAL, "page selection \"%.60s\": a range needs a first or a last page",
                           text);
        }
    }
    if (out->last < out->first)
        return pm_fail(err, PM_EINVAL, "page selection \"%.60s\": range %u-%u runs backwards", text,
                       out->first, out->last);
    return 0;
}

static int by_first(const void *a, const void *b)
{
    const struct pm_page_range *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

static void merge(struct pm_pages *pages)
{
    qsort(pages->ranges, pages->range_count, sizeof pages->ranges[0], by_first);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < pages->range_count; i++) {
        struct pm_page_range r = pages->ranges[i];
        struct pm_page_range *prior = kept ? &pages->ranges[kept - 1] : NULL;
        if (prior && (prior->last == PM_PAGES_LAST || r.first <= prior->last + 1)) {
            if (r.last > prior->last)
                prior->last = r.last;
        } else {
            pages->ranges[kept++] = r;
        }
    }
    pages->range_count = kept;
}

int pm_pages_parse(const char *text, struct pm_pages *out, struct pm_error *err)
{
    const char *p = skip_blanks(text);
    out->range_count = 0;
    if (!*p)
        return 0;
    for (;;) {
        if (out->range_count == PM_PAGES_MAX_RANGES)
            return pm_fail(err, PM_EINVAL, "page selection \"%.60s...\": more than %d ranges", text,
                           PM_PAGES_MAX_RANGES);
        int rc = read_range(text, &p, &out->ranges[out->range_count], err);
        if (rc)
            return rc;
        out->range_count++;
        p = skip_blanks(p);
        if (!*p)
            break;
        if (*p != ',')
            return pm_fail(err, PM_EINVAL, "page selection \"%.60s\": expected ',' or '-' at character %d",
                           text, (int)(p - text) + 1);
        p = skip_blanks(p + 1);
    }
    merge(out);
    return 0;
}

bool pm_pages_has(const struct pm_pages *pages, uint32_t page)
{
    if (!page || !pages->range_count)
        return page > 0;
    for (uint32_t i = 0; i < pages->range_count; i++)
        if (page >= pages->ranges[i].first && page <= pages->ranges[i].last)
            return true;
    return false;
}

uint32_t pm_pages_count(const struct pm_pages *pages, uint32_t total)
{
    if (!pages->range_count)
        return total;
    uint32_t count = 0;
    for (uint32_t i = 0; i < pages->range_count; i++) {
        const struct pm_page_range *r = &pages->ranges[i];
        if (r->first > total)
            break;
        count += (r->last < total ? r->last : total) - r->first + 1;
    }
    return count;
}
