#include <oniguruma.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/grammar_chars.h"
#include "engine/text/tokenizer_unicode.h"

void pm_char_set_free(struct pm_char_set *set)
{
    free(set->ranges);
    *set = (struct pm_char_set){0};
}

void pm_char_set_add(struct pm_char_set *set, uint32_t lo, uint32_t hi)
{
    PM_GROW(set->ranges, set->count, set->capacity);
    set->ranges[set->count++] = (struct pm_char_range){lo, hi};
}

void pm_char_set_add_set(struct pm_char_set *set, const struct pm_char_set *other)
{
    for (size_t i = 0; i < other->count; i++)
        pm_char_set_add(set, other->ranges[i].lo, other->ranges[i].hi);
}

/* Oniguruma's tables, as the tokenizer has brought them up to date. */
bool pm_char_set_add_property(struct pm_char_set *set, const char *name)
{
    const OnigCodePoint *ranges;
    OnigCodePoint single_bytes;
    OnigUChar *start = (OnigUChar *)(uintptr_t)name; /* only read */
    if (pm_unicode_init())
        return false;
    int type = ONIG_ENCODING_UTF8->property_name_to_ctype(ONIG_ENCODING_UTF8, start, start + strlen(name));
    if (type < 0 || ONIG_ENCODING_UTF8->get_ctype_code_range((OnigCtype)type, &single_bytes, &ranges))
        return false;
    for (OnigCodePoint i = 0; i < ranges[0]; i++)
        pm_char_set_add(set, ranges[1 + 2 * i],
                        ranges[2 + 2 * i] < PM_CHAR_MAX ? ranges[2 + 2 * i] : PM_CHAR_MAX);
    return true;
}

static int by_start(const void *a, const void *b)
{
    const struct pm_char_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* Appends a range to a tidy set, without NUL and surrogates. */
static void append(struct pm_char_set *set, uint32_t lo, uint32_t hi)
{
    if (lo < 0xd800 && hi > 0xdfff) {
        append(set, lo, 0xd7ff);
        append(set, 0xe000, hi);
        return;
    }
    lo = lo ? lo : 1;
    if (lo >= 0xd800 && lo <= 0xdfff)
        lo = 0xe000;
    if (hi >= 0xd800 && hi <= 0xdfff)
        hi = 0xd7ff;
    if (lo <= hi)
        pm_char_set_add(set, lo, hi);
}

void pm_char_set_tidy(struct pm_char_set *set)
{
    struct pm_char_set old = *set;
    *set = (struct pm_char_set){0};
    if (old.count)
        qsort(old.ranges, old.count, sizeof *old.ranges, by_start);
    for (size_t i = 0; i < old.count;) {
        uint32_t lo = old.ranges[i].lo, hi = old.ranges[i].hi;
        for (i++; i < old.count && old.ranges[i].lo <= hi + 1; i++)
            hi = old.ranges[i].hi > hi ? old.ranges[i].hi : hi;
        append(set, lo, hi);
    }
    pm_char_set_free(&old);
}

void pm_char_set_negate(struct pm_char_set *set)
{
    struct pm_char_set old = *set;
    *set = (struct pm_char_set){0};
    uint32_t from = 0;
    for (size_t i = 0; i < old.count; i++) {
        if (old.ranges[i].lo > from)
            append(set, from, old.ranges[i].lo - 1);
        from = old.ranges[i].hi + 1;
    }
    if (from <= PM_CHAR_MAX)
        append(set, from, PM_CHAR_MAX);
    pm_char_set_free(&old);
}

size_t pm_char_set_find(const struct pm_char_set *set, uint32_t c)
{
    size_t lo = 0, hi = set->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (set->ranges[mid].hi < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void pm_char_set_cut(const struct pm_char_set *set, uint32_t lo, uint32_t hi, struct pm_char_set *out)
{
    for (size_t i = pm_char_set_find(set, lo); i < set->count && set->ranges[i].lo <= hi; i++)
        pm_char_set_add(out, set->ranges[i].lo > lo ? set->ranges[i].lo : lo,
                        set->ranges[i].hi < hi ? set->ranges[i].hi : hi);
}
