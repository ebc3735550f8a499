#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "engine/text/grammar_regex.h"

enum kind { EMPTY, SET, SEQUENCE, CHOICE, REPEAT };
enum { UNBOUNDED = -1, INLINE_MAX = 64, SIZE_MAX_KEPT = 1 << 20 };

struct part {
    enum kind kind;
    uint32_t last, before; /* children from the last, siblings backwards; 0: none */
    int min, max;          /* of REPEAT */
    uint32_t size;         /* about as many nodes, bounded */
    bool is_only_empty;    /* matches the empty text and nothing else */
    struct pm_char_set set;
};
struct pm_regex {
    struct part *parts; /* 0 is none */
    size_t count, capacity;
    uint32_t root;
};
struct parser {
    struct pm_regex *regex;
    const char *text;
    size_t at, bytes;
    bool search;
    int depth;
    struct pm_error *err;
};

void pm_regex_free(struct pm_regex **regex)
{
    struct pm_regex *r = *regex;
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->count; i++)
        pm_char_set_free(&r->parts[i].set);
    free(r->parts);
    free(r);
    *regex = NULL;
}

/* ---- the tree ---- */

static uint32_t new_part(struct pm_regex *r, enum kind kind)
{
    PM_GROW(r->parts, r->count, r->capacity);
    r->parts[r->count] = (struct part){.kind = kind, .size = 1, .is_only_empty = kind == EMPTY};
    return (uint32_t)r->count++;
}

static uint32_t bounded_size(uint64_t size)
{
    return size < SIZE_MAX_KEPT ? (uint32_t)size : SIZE_MAX_KEPT;
}

static void add_child(struct pm_regex *r, uint32_t parent, uint32_t child)
{
    struct part *p = &r->parts[parent], *c = &r->parts[child];
    p->is_only_empty = c->is_only_empty && (p->last == 0 || p->is_only_empty);
    c->before = p->last;
    p->last = child;
    p->size = bounded_size((uint64_t)p->size + c->size);
}

static uint32_t new_set(struct pm_regex *r, struct pm_char_set *set)
{
    uint32_t part = new_part(r, SET);
    pm_char_set_tidy(set);
    r->parts[part].set = *set;
    r->parts[part].size = bounded_size(1 + set->count * 2);
    *set = (struct pm_char_set){0};
    return part;
}

static uint32_t new_repeat(struct pm_regex *r, uint32_t child, int min, int max)
{
    if (r->parts[child].is_only_empty || max == 0)
        return new_part(r, EMPTY);
    uint32_t part = new_part(r, REPEAT);
    add_child(r, part, child);
    r->parts[part].min = min;
    r->parts[part].max = max;
    uint64_t times = max == UNBOUNDED ? (uint64_t)min + 1 : (uint64_t)max;
    uint64_t size = r->parts[child].size * times;
    r->parts[part].size = bounded_size(size > INLINE_MAX ? r->parts[child].size + 2 * times : size + times);
    return part;
}

/* ---- parsing ---- */

static int bad(struct parser *p, int code, size_t at, const char *what)
{
    return pm_fail(p->err, code, "pattern: %s at byte %zu", what, at);
}

static bool next_is(const struct parser *p, const char *text)
{
    size_t n = strlen(text);
    return p->bytes - p->at >= n && memcmp(p->text + p->at, text, n) == 0;
}

static bool take(struct parser *p, const char *text)
{
    if (!next_is(p, text))
        return false;
    p->at += strlen(text);
    return true;
}

static uint32_t take_char(struct parser *p)
{
    const uint8_t *s = (const uint8_t *)p->text + p->at;
    size_t n = pm_utf8_length(s, p->bytes - p->at);
    uint32_t c = n <= 1 ? s[0] : s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (s[i] & 0x3f);
    p->at += n ? n : 1;
    return c;
}

/* digits hex digits, or -1 */
static int64_t take_hex(struct parser *p, int digits)
{
    int64_t value = 0;
    for (int i = 0; i < digits; i++) {
        char c = p->at < p->bytes ? p->text[p->at] : '\0';
        int digit = c >= '0' && c <= '9'                     ? c - '0'
                    : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                             : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
        p->at++;
    }
    return value;
}

/* After "\u": HHHH, a pair of them, or {H..} */
static int64_t take_unicode(struct parser *p)
{
    if (take(p, "{")) {
        int64_t value = 0;
        int digits = 0;
        while (p->at < p->bytes && p->text[p->at] != '}' && digits++ < 6) {
            int64_t digit = take_hex(p, 1);
            if (digit < 0)
                return -1;
            value = value * 16 + digit;
        }
        return digits && value <= PM_CHAR_MAX && take(p, "}") ? value : -1;
    }
    int64_t high = take_hex(p, 4);
    if (high < 0xd800 || high > 0xdbff)
        return high;
    size_t at = p->at;
    int64_t low = take(p, "\\u") ? take_hex(p, 4) : -1;
    if (low >= 0xdc00 && low <= 0xdfff)
        return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    p->at = at;
    return high;
}

static void add_blanks(struct pm_char_set *set)
{
    pm_char_set_add(set, '\t', '\r');
    pm_char_set_add(set, 0xfeff, 0xfeff);
    pm_char_set_add_property(set, "Zs");
    pm_char_set_add(set, 0x2028, 0x2029);
}

static int take_category(struct parser *p, size_t start, struct pm_char_set *set)
{
    char name[64];
    size_t n = 0;
    if (take(p, "{")) {
        while (p->at < p->bytes && p->text[p->at] != '}' && n < sizeof name - 1)
            name[n++] = p->text[p->at++];
        name[n] = '\0';
        if (take(p, "}") && pm_char_set_add_property(set, name))
            return 0;
    }
    return bad(p, PM_EUNSUPPORTED, start,
               "\\p without a Unicode property that is known ({L}, {Lu}, {Nd}, {Han}, ...)");
}

/* After a backslash. A set (\d, \p{..}): *is_set_out, added to set. Else one character in *char_out. */
static int take_escape(struct parser *p, bool in_class, struct pm_char_set *set, bool *is_set_out,
                       uint32_t *char_out)
{
    static const char controls[] = "n\nt\tr\rf\fv\v";
    size_t start = p->at - 1;
    *is_set_out = false;
    if (p->at >= p->bytes)
        return bad(p, PM_EFORMAT, start, "a backslash with nothing behind it");
    uint32_t c = take_char(p);
    const char *control = c < 0x80 && c ? strchr("ntrfv", (int)c) : NULL;
    int64_t code = -1;
    struct pm_char_set part = {0};
    switch (c) {
    case 'd':
    case 'D':
        pm_char_set_add(&part, '0', '9');
        break;
    case 'w':
    case 'W':
        pm_char_set_add(&part, '0', '9');
        pm_char_set_add(&part, 'A', 'Z');
        pm_char_set_add(&part, '_', '_');
        pm_char_set_add(&part, 'a', 'z');
        break;
    case 's':
    case 'S':
        add_blanks(&part);
        break;
    case 'p':
    case 'P': {
        int rc = take_category(p, start, &part);
        if (rc) {
            pm_char_set_free(&part);
            return rc;
        }
        break;
    }
    case 'x':
    case 'u':
        code = c == 'x' ? take_hex(p, 2) : take_unicode(p);
        if (code < 0)
            return bad(p, PM_EFORMAT, start, "\\x or \\u without its hexadecimal digits");
        if (code >= 0xd800 && code <= 0xdfff)
            return bad(p, PM_EFORMAT, start, "half of a surrogate pair");
        *char_out = (uint32_t)code;
        return 0;
    case '0':
        *char_out = 0;
        return p->at < p->bytes && p->text[p->at] >= '0' && p->text[p->at] <= '9'
                   ? bad(p, PM_EUNSUPPORTED, start, "an octal escape (write \\xHH)")
                   : 0;
    default:
        if (control) {
            *char_out = (uint8_t)controls[strchr(controls, (int)c) - controls + 1];
            return 0;
        }
        if (c == 'b' && in_class) {
            *char_out = '\b';
            return 0;
        }
        if (c == 'b' || c == 'B' || c == 'A' || c == 'z' || c == 'Z' || c == 'G')
            return bad(p, PM_EUNSUPPORTED, start, "a border (\\b, \\B, \\A, \\z, \\Z, \\G)");
        if ((c >= '1' && c <= '9') || c == 'k')
            return bad(p, PM_EUNSUPPORTED, start, "a reference back to a group");
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            return bad(p, PM_EUNSUPPORTED, start, "an escape that is not known");
        *char_out = c;
        return 0;
    }
    pm_char_set_tidy(&part);
    if (c < 'a')
        pm_char_set_negate(&part);
    pm_char_set_add_set(set, &part);
    pm_char_set_free(&part);
    *is_set_out = true;
    return 0;
}

/* One member of a class: a character or, by an escape, a set. */
static int take_member(struct parser *p, struct pm_char_set *set, bool *is_set_out, uint32_t *char_out)
{
    if (next_is(p, "[:") || next_is(p, "[.") || next_is(p, "[="))
        return bad(p, PM_EUNSUPPORTED, p->at, "a POSIX class ([:name:])");
    if (take(p, "\\"))
        return take_escape(p, true, set, is_set_out, char_out);
    *is_set_out = false;
    *char_out = take_char(p);
    return 0;
}

static int take_class(struct parser *p, uint32_t *out)
{
    size_t start = p->at - 1;
    bool is_negated = take(p, "^"), is_set = false;
    struct pm_char_set set = {0};
    int rc = 0;
    if (next_is(p, "]"))
        rc = bad(p, PM_EFORMAT, start, "an empty class (write \\] for the bracket)");
    while (rc == 0 && !take(p, "]")) {
        uint32_t lo, hi;
        size_t at = p->at;
        if (p->at >= p->bytes) {
            rc = bad(p, PM_EFORMAT, start, "a class that is not closed");
            break;
        }
        if ((rc = take_member(p, &set, &is_set, &lo)) || is_set)
            continue;
        hi = lo;
        if (next_is(p, "-") && p->at + 1 < p->bytes && p->text[p->at + 1] != ']') {
            p->at++;
            if ((rc = take_member(p, &set, &is_set, &hi)))
                break;
            if (is_set || hi < lo) {
                rc = bad(p, PM_EFORMAT, at, "a range whose ends are not in order");
                break;
            }
        }
        pm_char_set_add(&set, lo, hi);
    }
    if (rc == 0) {
        pm_char_set_tidy(&set);
        if (is_negated)
            pm_char_set_negate(&set);
        *out = new_set(p->regex, &set);
    }
    pm_char_set_free(&set);
    return rc;
}

static uint32_t all_but(struct pm_regex *r, bool line_ends)
{
    struct pm_char_set set = {0};
    if (line_ends) {
        pm_char_set_add(&set, '\n', '\n');
        pm_char_set_add(&set, '\r', '\r');
        pm_char_set_add(&set, 0x2028, 0x2029);
    }
    pm_char_set_negate(&set);
    return new_set(r, &set);
}

static int take_choice(struct parser *p, uint32_t *out);

static int take_group(struct parser *p, uint32_t *out)
{
    size_t start = p->at - 1;
    if (next_is(p, "?=") || next_is(p, "?!") || next_is(p, "?<=") || next_is(p, "?<!"))
        return bad(p, PM_EUNSUPPORTED, start, "a lookaround");
    if (take(p, "?<") || take(p, "?P<")) {
        while (p->at < p->bytes && p->text[p->at] != '>')
            p->at++;
        if (!take(p, ">"))
            return bad(p, PM_EFORMAT, start, "a group name that is not closed");
    } else if (!take(p, "?:") && next_is(p, "?")) {
        return bad(p, PM_EUNSUPPORTED, start, "a group with flags or conditions");
    }
    if (p->depth >= PM_REGEX_DEPTH_MAX)
        return pm_fail(p->err, PM_ELIMIT, "pattern: groups nest deeper than %d at byte %zu",
                       PM_REGEX_DEPTH_MAX, start);
    p->depth++;
    int rc = take_choice(p, out);
    p->depth--;
    if (rc)
        return rc;
    return take(p, ")") ? 0 : bad(p, PM_EFORMAT, start, "a group that is not closed");
}

static int take_atom(struct parser *p, uint32_t *out)
{
    struct pm_char_set set = {0};
    bool is_set = false;
    uint32_t c;
    size_t start = p->at;
    if (take(p, "("))
        return take_group(p, out);
    if (take(p, "["))
        return take_class(p, out);
    if (take(p, ".")) {
        *out = all_but(p->regex, true);
        return 0;
    }
    if (next_is(p, "^") || next_is(p, "$"))
        return bad(p, PM_EUNSUPPORTED, start, "^ or $ that is not at the end of the pattern or of a choice");
    if (next_is(p, "*") || next_is(p, "+") || next_is(p, "?"))
        return bad(p, PM_EFORMAT, start, "a repeat of nothing");
    if (take(p, "\\")) {
        int rc = take_escape(p, false, &set, &is_set, &c);
        if (rc)
            return rc;
    } else {
        c = take_char(p);
    }
    if (!is_set)
        pm_char_set_add(&set, c, c);
    *out = new_set(p->regex, &set);
    return 0;
}

/* -1: no number stands here, -2: it is too large */
static int take_count(struct parser *p)
{
    int value = -1;
    for (; p->at < p->bytes && p->text[p->at] >= '0' && p->text[p->at] <= '9'; p->at++)
        if (value != -2) {
            value = (value < 0 ? 0 : value) * 10 + (p->text[p->at] - '0');
            value = value > PM_REGEX_COUNT_MAX ? -2 : value;
        }
    return value;
}

/* *found_out: a repeat stands here. A brace that is none is a character. */
static int take_repeat(struct parser *p, int *min, int *max, bool *found_out)
{
    size_t start = p->at;
    *found_out = true;
    *min = 0;
    *max = UNBOUNDED;
    if (take(p, "*"))
        return 0;
    if (take(p, "?")) {
        *max = 1;
        return 0;
    }
    if (take(p, "+")) {
        *min = 1;
        return 0;
    }
    *found_out = false;
    if (!take(p, "{"))
        return 0;
    if (next_is(p, ","))
        return bad(p, PM_EUNSUPPORTED, start, "{,n}, which dialects read differently (write {0,n})");
    *min = *max = take_count(p);
    if (*min != -1 && take(p, ",")) {
        *max = take_count(p);
        *max = *max == -1 ? UNBOUNDED : *max;
    }
    if (*min == -1 || !take(p, "}")) {
        p->at = start;
        return 0;
    }
    *found_out = true;
    if (*min == -2 || *max == -2)
        return pm_fail(p->err, PM_ELIMIT, "pattern: a count above %d at byte %zu", PM_REGEX_COUNT_MAX, start);
    if (*max != UNBOUNDED && *max < *min)
        return bad(p, PM_EFORMAT, start, "a count whose ends are not in order");
    return 0;
}

static int take_sequence(struct parser *p, uint32_t *out)
{
    struct pm_regex *r = p->regex;
    bool is_top = p->depth == 0;
    bool is_fixed = is_top && take(p, "^"), is_repeat;
    uint32_t sequence = new_part(r, SEQUENCE);
    r->parts[sequence].is_only_empty = true;
    if (is_top && p->search && !is_fixed)
        add_child(r, sequence, new_repeat(r, all_but(r, false), 0, UNBOUNDED));
    is_fixed = false;
    while (p->at < p->bytes && !next_is(p, "|") && !next_is(p, ")")) {
        uint32_t atom;
        int min, max;
        if (is_top && next_is(p, "$") && (p->at + 1 == p->bytes || p->text[p->at + 1] == '|')) {
            p->at++;
            is_fixed = true;
            break;
        }
        int rc = take_atom(p, &atom);
        if (rc || (rc = take_repeat(p, &min, &max, &is_repeat)))
            return rc;
        if (is_repeat) {
            atom = new_repeat(r, atom, min, max);
            size_t at = p->at;
            if (!take(p, "?") && take(p, "+"))
                return bad(p, PM_EUNSUPPORTED, at, "a possessive repeat");
            at = p->at;
            if ((rc = take_repeat(p, &min, &max, &is_repeat)))
                return rc;
            if (is_repeat)
                return bad(p, PM_EFORMAT, at, "a repeat of a repeat (use a group)");
        }
        add_child(r, sequence, atom);
    }
    if (is_top && p->search && !is_fixed)
        add_child(r, sequence, new_repeat(r, all_but(r, false), 0, UNBOUNDED));
    *out = sequence;
    return 0;
}

static int take_choice(struct parser *p, uint32_t *out)
{
    uint32_t choice = 0, sequence;
    int rc = take_sequence(p, &sequence);
    if (rc == 0 && next_is(p, "|")) {
        choice = new_part(p->regex, CHOICE);
        add_child(p->regex, choice, sequence);
    }
    while (rc == 0 && take(p, "|")) {
        rc = take_sequence(p, &sequence);
        if (rc == 0)
            add_child(p->regex, choice, sequence);
    }
    *out = choice ? choice : sequence;
    return rc;
}

int pm_regex_parse(const char *pattern, bool search, struct pm_regex **out, struct pm_error *err)
{
    struct pm_regex *r = pm_xalloc(sizeof *r);
    struct parser p = {r, pattern, 0, strlen(pattern), search, 0, err};
    int rc = 0;
    *out = NULL;
    new_part(r, EMPTY);
    if (p.bytes > PM_REGEX_MAX_BYTES)
        rc = pm_fail(err, PM_ELIMIT, "pattern: %zu bytes, %d are allowed", p.bytes, PM_REGEX_MAX_BYTES);
    else if (!pm_utf8_is_valid(pattern, p.bytes))
        rc = pm_fail(err, PM_EFORMAT, "pattern: it is not UTF-8");
    if (rc == 0)
        rc = take_choice(&p, &r->root);
    if (rc == 0 && p.at < p.bytes)
        rc = bad(&p, PM_EFORMAT, p.at, "a group is closed that was not opened");
    if (rc)
        pm_regex_free(&r);
    *out = r;
    return rc;
}

/* ---- building ---- */

struct builder {
    const struct pm_regex *regex;
    struct pm_nfa *nfa;
    pm_regex_chars *chars;
};

static uint32_t build(struct builder *b, uint32_t part, uint32_t next);

static uint32_t build_repeat(struct builder *b, const struct part *p, uint32_t next)
{
    int times = p->max == UNBOUNDED ? p->min + 1 : p->max;
    uint32_t rule = 0, at = next;
    if (p->max == UNBOUNDED && p->min <= 1) { /* one copy, which leads back to itself */
        uint32_t split = pm_nfa_split_open(b->nfa), body = build(b, p->last, split);
        pm_nfa_split_set(b->nfa, split, body, next);
        return p->min ? body : split;
    }
    if (times > 1 && (uint64_t)b->regex->parts[p->last].size * (uint64_t)times > INLINE_MAX) {
        rule = pm_nfa_rule(b->nfa);
        pm_nfa_rule_set(b->nfa, rule, build(b, p->last, PM_NFA_RETURN));
    }
#define ONCE(after) (rule ? pm_nfa_call(b->nfa, rule, after) : build(b, p->last, after))
    if (p->max == UNBOUNDED) {
        at = pm_nfa_split_open(b->nfa);
        pm_nfa_split_set(b->nfa, at, ONCE(at), next);
    }
    for (int i = p->min; i < p->max; i++)
        at = pm_nfa_split(b->nfa, ONCE(at), next);
    for (int i = 0; i < p->min; i++)
        at = ONCE(at);
#undef ONCE
    return at;
}

/* A sequence of plain characters, written alike in texts and in JSON strings, appended to out. */
static bool is_word(const struct pm_regex *r, uint32_t index, struct pm_buf *out)
{
    const struct part *p = &r->parts[index];
    uint32_t chars[64];
    size_t n = 0;
    if (p->kind != SEQUENCE || p->last == 0)
        return false;
    for (uint32_t child = p->last; child; child = r->parts[child].before) {
        const struct part *c = &r->parts[child];
        if (c->kind != SET || c->set.count != 1 || c->set.ranges->lo != c->set.ranges->hi || n == 64)
            return false;
        chars[n] = c->set.ranges->lo;
        if (chars[n] < 0x20 || chars[n] > 0x7e || chars[n] == '"' || chars[n] == '\\')
            return false;
        n++;
    }
    while (n--)
        pm_buf_append(out, &(char){(char)chars[n]}, 1);
    return true;
}

/* Words become one tree: a list of thousands would be as many places to be at once. */
static uint32_t build_choice(struct builder *b, const struct part *p, uint32_t next)
{
    struct pm_nfa_literal *words = NULL;
    size_t count = 0, capacity = 0;
    struct pm_buf text = {0};
    uint32_t at = PM_NFA_NOTHING;
    for (uint32_t child = p->last; child; child = b->regex->parts[child].before) {
        size_t start = text.size;
        if (is_word(b->regex, child, &text)) {
            PM_GROW(words, count, capacity);
            words[count++] = (struct pm_nfa_literal){NULL, text.size - start};
        } else {
            at = pm_nfa_split(b->nfa, build(b, child, next), at);
        }
    }
    size_t start = 0;
    for (size_t i = 0; i < count; start += words[i++].bytes)
        words[i].text = (const char *)text.data + start;
    at = pm_nfa_split(b->nfa, pm_nfa_texts(b->nfa, words, count, next), at);
    free(words);
    pm_buf_free(&text);
    return at;
}

static uint32_t build(struct builder *b, uint32_t index, uint32_t next)
{
    const struct part *p = &b->regex->parts[index];
    uint32_t at = next;
    if (b->nfa->is_full)
        return PM_NFA_NOTHING;
    switch (p->kind) {
    case EMPTY:
        return next;
    case SET:
        return b->chars(b->nfa, &p->set, next);
    case SEQUENCE:
        for (uint32_t child = p->last; child; child = b->regex->parts[child].before)
            at = build(b, child, at);
        return at;
    case CHOICE:
        return build_choice(b, p, next);
    case REPEAT:
        return build_repeat(b, p, next);
    }
    return PM_NFA_NOTHING;
}

uint32_t pm_regex_utf8(struct pm_nfa *nfa, const struct pm_char_set *set, uint32_t next)
{
    return pm_nfa_chars(nfa, set, NULL, next);
}

uint32_t pm_regex_build(const struct pm_regex *regex, struct pm_nfa *nfa, pm_regex_chars *chars,
                        uint32_t next)
{
    struct builder b = {regex, nfa, chars};
    return build(&b, regex->root, next);
}
