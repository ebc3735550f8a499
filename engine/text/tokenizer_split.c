#include "engine/text/tokenizer_split.h"

#include <oniguruma.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/text/tokenizer_unicode.h"

/* A run of one kind of character takes one stack entry (some 50 bytes) a character. */
enum { PATTERN_MAX_BYTES = 16384, STACK_ENTRIES = 4 << 20, STEPS = 16 << 20 };

struct pm_splitter {
    regex_t *regex;
};

struct pm_split_scan {
    const struct pm_splitter *splitter;
    const uint8_t *text;
    size_t bytes;
    size_t search_at;   /* where the next search begins */
    size_t released;    /* pieces cover the text up to here */
    size_t match_end;   /* of the last match; SIZE_MAX: none yet */
    size_t held, until; /* a match found behind a gap: the next piece */
    OnigRegion *region;
    OnigMatchParam *limits;
};

static int fail_onig(struct pm_error *err, int code, int rc, const char *doing)
{
    UChar why[ONIG_MAX_ERROR_MESSAGE_LEN] = "";
    /* Codes with a parameter want an OnigErrorInfo that a search does not have. */
    if (rc != ONIGERR_UNDEFINED_NAME_REFERENCE && rc != ONIGERR_UNDEFINED_GROUP_REFERENCE &&
        rc != ONIGERR_INVALID_CHAR_PROPERTY_NAME && rc != ONIGERR_MULTIPLEX_DEFINED_NAME &&
        rc != ONIGERR_MULTIPLEX_DEFINITION_NAME_CALL && rc != ONIGERR_INVALID_GROUP_NAME)
        onig_error_code_to_str(why, rc);
    return pm_fail(err, code, "%s: %s", doing, why[0] ? (char *)why : "unknown name or property");
}

int pm_splitter_new(const char *pattern, size_t bytes, struct pm_splitter **out, struct pm_error *err)
{
    *out = NULL;
    int rc = pm_unicode_init();
    if (rc != 0)
        return fail_onig(err, PM_EINTERNAL, rc, "starting the regular expression library");
    if (bytes > PATTERN_MAX_BYTES)
        return pm_fail(err, PM_ELIMIT, "the expression has %zu bytes; at most %d are allowed", bytes,
                       PATTERN_MAX_BYTES);
    regex_t *regex;
    const UChar *begin = (const UChar *)pattern;
    rc = onig_new(&regex, begin, begin + bytes, ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT,
                  NULL);
    if (rc != ONIG_NORMAL)
        return fail_onig(err, PM_EFORMAT, rc, "the expression does not compile");
    struct pm_splitter *s = pm_xalloc(sizeof *s);
    s->regex = regex;
    *out = s;
    return 0;
}

void pm_splitter_free(struct pm_splitter **splitter)
{
    if (*splitter) {
        onig_free((*splitter)->regex);
        free(*splitter);
    }
    *splitter = NULL;
}

struct pm_split_scan *pm_split_scan_new(void)
{
    struct pm_split_scan *scan = pm_xalloc(sizeof *scan);
    scan->region = onig_region_new();
    scan->limits = onig_new_match_param();
    PM_ASSERT(scan->region && scan->limits);
    onig_initialize_match_param(scan->limits);
    onig_set_match_stack_limit_size_of_match_param(scan->limits, STACK_ENTRIES);
    onig_set_retry_limit_in_match_of_match_param(scan->limits, STEPS);
    onig_set_retry_limit_in_search_of_match_param(scan->limits, STEPS);
    return scan;
}

void pm_split_scan_free(struct pm_split_scan **scan)
{
    if (*scan) {
        onig_region_free((*scan)->region, 1);
        onig_free_match_param((*scan)->limits);
        free(*scan);
    }
    *scan = NULL;
}

void pm_split_start(struct pm_split_scan *scan, const struct pm_splitter *splitter, const uint8_t *text,
                    size_t bytes)
{
    scan->splitter = splitter;
    scan->text = text;
    scan->bytes = bytes;
    scan->search_at = scan->released = scan->held = scan->until = 0;
    scan->match_end = SIZE_MAX;
}

/* The next match as the reference iterates them: an empty match right behind another match does not count,
 * the search then goes on one character later. */
static int next_match(struct pm_split_scan *scan, bool *found, size_t *from, size_t *to, struct pm_error *err)
{
    *found = false;
    while (scan->search_at <= scan->bytes) {
        const UChar *end = scan->text + scan->bytes, *begin = scan->text + scan->search_at;
        onig_region_clear(scan->region);
        int rc = onig_search_with_param(scan->splitter->regex, scan->text, end, begin, end, scan->region,
                                        ONIG_OPTION_NONE, scan->limits);
        if (rc == ONIG_MISMATCH)
            return 0;
        if (rc < 0)
            return fail_onig(err, rc == ONIGERR_MEMORY ? PM_ENOMEM : PM_ELIMIT, rc,
                             "the split expression of the tokenizer is too much work on this text");
        size_t s = (size_t)scan->region->beg[0], e = (size_t)scan->region->end[0];
        if (s == e && e == scan->match_end) {
            size_t n = 1;
            if (scan->search_at < scan->bytes)
                pm_unicode_at(scan->text + scan->search_at, scan->bytes - scan->search_at, &n);
            scan->search_at += n;
            continue;
        }
        scan->search_at = scan->match_end = e;
        *found = true;
        *from = s;
        *to = e;
        return 0;
    }
    return 0;
}

int pm_split_next(struct pm_split_scan *scan, const uint8_t **piece_out, size_t *bytes_out,
                  struct pm_error *err)
{
    size_t from = scan->held, to = scan->until;
    scan->held = scan->until = 0;
    while (from == to) {
        if (scan->released == scan->bytes)
            return PM_ENOTFOUND;
        bool found;
        int rc = next_match(scan, &found, &from, &to, err);
        if (rc)
            return rc;
        if (!found)
            from = to = scan->bytes;
        /* \K and lookbehind may report a match that starts before the last one's end. */
        if (from < scan->released)
            from = scan->released;
        if (to < from)
            to = from;
        if (from > scan->released) { /* the gap first */
            scan->held = from;
            scan->until = to;
            to = from;
            from = scan->released;
        }
    }
    scan->released = to;
    *piece_out = scan->text + from;
    *bytes_out = to - from;
    return 0;
}
