#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "engine/text/grammar_json.h"

enum { INTEGER_DIGITS = 18, FRACTION_DIGITS = 16, EXPONENT_DIGITS = 2 };

static const char hex_edges[][2] = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};

/* ---- strings ---- */

static uint32_t hex(struct pm_nfa *nfa, int digits, uint32_t next)
{
    while (digits--) {
        struct pm_nfa_edge e[3];
        for (int i = 0; i < 3; i++)
            e[i] = (struct pm_nfa_edge){(uint8_t)hex_edges[i][0], (uint8_t)hex_edges[i][1], next};
        next = pm_nfa_bytes(nfa, e, 3);
    }
    return next;
}

static uint32_t hex_not_zero(struct pm_nfa *nfa, int digits, uint32_t next)
{
    uint32_t zero = digits > 1 ? hex_not_zero(nfa, digits - 1, next) : PM_NFA_NOTHING;
    uint32_t other = hex(nfa, digits - 1, next);
    struct pm_nfa_edge e[] = {{'0', '0', zero}, {'1', '9', other}, {'A', 'F', other}, {'a', 'f', other}};
    return pm_nfa_bytes(nfa, e, 4);
}

static uint32_t escape(struct pm_nfa *nfa, uint32_t next)
{
    struct pm_nfa_edge low_edges[] = {{'C', 'F', hex(nfa, 2, next)}, {'c', 'f', hex(nfa, 2, next)}};
    uint32_t low = pm_nfa_bytes(nfa, low_edges, 2);
    struct pm_nfa_edge d_edges[] = {{'D', 'D', low}, {'d', 'd', low}};
    low = pm_nfa_text(nfa, "\\u", 2, pm_nfa_bytes(nfa, d_edges, 2));
    low = hex(nfa, 2, low);
    uint32_t plain = hex(nfa, 2, next), free_tail = hex(nfa, 3, next);
    /* after "d": 0..7 is a character of its own, 8..b begins a pair */
    struct pm_nfa_edge after_d[] = {{'0', '7', plain}, {'8', '9', low}, {'A', 'B', low}, {'a', 'b', low}};
    uint32_t d = pm_nfa_bytes(nfa, after_d, 4);
    struct pm_nfa_edge u_edges[] = {{'0', '0', hex_not_zero(nfa, 3, next)},
                                    {'1', '9', free_tail},
                                    {'A', 'C', free_tail},
                                    {'D', 'D', d},
                                    {'E', 'F', free_tail},
                                    {'a', 'c', free_tail},
                                    {'d', 'd', d},
                                    {'e', 'f', free_tail}};
    uint32_t u = pm_nfa_bytes(nfa, u_edges, 8);
    struct pm_nfa_edge edges[] = {{'"', '"', next}, {'/', '/', next}, {'\\', '\\', next},
                                  {'b', 'b', next}, {'f', 'f', next}, {'n', 'n', next},
                                  {'r', 'r', next}, {'t', 't', next}, {'u', 'u', u}};
    return pm_nfa_bytes(nfa, edges, sizeof edges / sizeof *edges);
}

/* The characters that stand for themselves. */
static void plain_chars(const struct pm_char_set *set, struct pm_char_set *out)
{
    pm_char_set_cut(set, 0x20, '"' - 1, out);
    pm_char_set_cut(set, '"' + 1, '\\' - 1, out);
    pm_char_set_cut(set, '\\' + 1, PM_CHAR_MAX, out);
}

static bool contains(const struct pm_char_set *set, uint32_t c)
{
    size_t i = pm_char_set_find(set, c);
    return i < set->count && set->ranges[i].lo <= c;
}

uint32_t pm_json_chars(struct pm_nfa *nfa, const struct pm_char_set *set, uint32_t next)
{
    static const struct {
        char letter, stands_for; /* by letter */
    } escapes[] = {{'"', '"'}, {'\\', '\\'}, {'b', '\b'}, {'f', '\f'}, {'n', '\n'}, {'r', '\r'}, {'t', '\t'}};
    struct pm_nfa_edge edges[8];
    size_t n = 0;
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
        if (contains(set, (uint8_t)escapes[i].stands_for))
            edges[n++] = (struct pm_nfa_edge){(uint8_t)escapes[i].letter, (uint8_t)escapes[i].letter, next};
    uint32_t controls = PM_NFA_NOTHING;
    for (uint32_t c = 1; c < 0x20; c++) {
        char text[8];
        if (!contains(set, c) || c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t')
            continue;
        snprintf(text, sizeof text, "%02x", (unsigned)c);
        controls = pm_nfa_split(nfa, pm_nfa_text(nfa, text, 2, next), controls);
    }
    if (controls)
        edges[n++] = (struct pm_nfa_edge){'u', 'u', pm_nfa_text(nfa, "00", 2, controls)};
    struct pm_nfa_edge extra = {'\\', '\\', pm_nfa_bytes(nfa, edges, n)};
    struct pm_char_set plain = {0};
    plain_chars(set, &plain);
    uint32_t at = pm_nfa_chars(nfa, &plain, n ? &extra : NULL, next);
    pm_char_set_free(&plain);
    return at;
}

static void all_chars(struct pm_char_set *out)
{
    pm_char_set_negate(out);
}

/* Any character, written in any way (\u0000 excepted). */
static uint32_t any_char(struct pm_nfa *nfa, uint32_t next)
{
    struct pm_char_set all = {0}, plain = {0};
    all_chars(&all);
    plain_chars(&all, &plain);
    struct pm_nfa_edge extra = {'\\', '\\', escape(nfa, next)};
    uint32_t at = pm_nfa_chars(nfa, &plain, &extra, next);
    pm_char_set_free(&all);
    pm_char_set_free(&plain);
    return at;
}

uint32_t pm_json_string(struct pm_nfa *nfa, int min, int max, uint32_t next)
{
    uint32_t end = pm_nfa_byte(nfa, '"', '"', next), at = end, rule = 0;
    if (min > 0 || max != PM_JSON_UNBOUNDED) {
        rule = pm_nfa_rule(nfa);
        pm_nfa_rule_set(nfa, rule, any_char(nfa, PM_NFA_RETURN));
    }
    if (max == PM_JSON_UNBOUNDED) {
        at = pm_nfa_split_open(nfa);
        pm_nfa_split_set(nfa, at, any_char(nfa, at), end);
    }
    for (int i = min; i < max; i++)
        at = pm_nfa_split(nfa, pm_nfa_call(nfa, rule, at), end);
    for (int i = 0; i < min; i++)
        at = pm_nfa_call(nfa, rule, at);
    return pm_nfa_byte(nfa, '"', '"', at);
}

/* names: those that begin alike up to `from`; rest: whatever follows once the string differs from all */
static uint32_t differ(struct pm_nfa *nfa, const char *const *names, size_t count, size_t from, uint32_t rest,
                       uint32_t end)
{
    struct pm_char_set others = {0};
    size_t i = 0;
    uint32_t at = end;
    if (nfa->is_full)
        return PM_NFA_NOTHING;
    for (; i < count && names[i][from] == '\0'; i++)
        at = PM_NFA_NOTHING; /* ending here would be that name */
    while (i < count) {
        size_t n = pm_utf8_length(names[i] + from, strlen(names[i] + from)), next = i + 1;
        uint32_t c = (uint8_t)names[i][from];
        c = n > 1 ? c & (0x7fu >> n) : c;
        for (size_t k = 1; k < n; k++)
            c = c << 6 | ((uint8_t)names[i][from + k] & 0x3f);
        while (next < count && strncmp(names[next] + from, names[i] + from, n) == 0)
            next++;
        struct pm_char_set this = {0};
        pm_char_set_add(&this, c, c);
        pm_char_set_add(&others, c, c);
        at = pm_nfa_split(
            nfa, pm_json_chars(nfa, &this, differ(nfa, names + i, next - i, from + n, rest, end)), at);
        pm_char_set_free(&this);
        i = next;
    }
    pm_char_set_tidy(&others);
    pm_char_set_negate(&others);
    at = pm_nfa_split(nfa, pm_json_chars(nfa, &others, rest), at);
    pm_char_set_free(&others);
    return at;
}

uint32_t pm_json_other_string(struct pm_nfa *nfa, const char *const *names, size_t count, uint32_t next)
{
    struct pm_char_set all = {0};
    uint32_t end = pm_nfa_byte(nfa, '"', '"', next), rest = pm_nfa_split_open(nfa);
    all_chars(&all);
    pm_nfa_split_set(nfa, rest, pm_json_chars(nfa, &all, rest), end);
    pm_char_set_free(&all);
    return pm_nfa_byte(nfa, '"', '"', differ(nfa, names, count, 0, rest, end));
}

/* ---- punctuation ---- */

/* The optional blank. */
static uint32_t gap(struct pm_nfa *nfa, uint32_t next)
{
    return pm_nfa_split(nfa, pm_nfa_byte(nfa, ' ', ' ', next), next);
}

uint32_t pm_json_comma(struct pm_nfa *nfa, uint32_t next)
{
    return pm_nfa_byte(nfa, ',', ',', gap(nfa, next));
}

uint32_t pm_json_colon(struct pm_nfa *nfa, uint32_t next)
{
    return pm_nfa_byte(nfa, ':', ':', gap(nfa, next));
}

/* ---- numbers ---- */

static uint32_t digits(struct pm_nfa *nfa, int min, int max, uint32_t next)
{
    uint32_t at = next;
    for (int i = 0; i < max; i++)
        at = i < max - min ? pm_nfa_split(nfa, pm_nfa_byte(nfa, '0', '9', at), next)
                           : pm_nfa_byte(nfa, '0', '9', at);
    return at;
}

static uint32_t fraction(struct pm_nfa *nfa, uint32_t next) /* may be missing */
{
    return pm_nfa_split(nfa, pm_nfa_byte(nfa, '.', '.', digits(nfa, 1, FRACTION_DIGITS, next)), next);
}

uint32_t pm_json_number(struct pm_nfa *nfa, uint32_t next)
{
    uint32_t power = digits(nfa, 1, EXPONENT_DIGITS, next);
    struct pm_nfa_edge signs[] = {{'+', '+', power}, {'-', '-', power}};
    power = pm_nfa_split(nfa, pm_nfa_bytes(nfa, signs, 2), power);
    struct pm_nfa_edge e[] = {{'E', 'E', power}, {'e', 'e', power}};
    uint32_t tail = fraction(nfa, pm_nfa_split(nfa, pm_nfa_bytes(nfa, e, 2), next));
    struct pm_nfa_edge first[] = {{'0', '0', tail}, {'1', '9', digits(nfa, 0, INTEGER_DIGITS - 1, tail)}};
    uint32_t at = pm_nfa_bytes(nfa, first, 2);
    return pm_nfa_split(nfa, pm_nfa_byte(nfa, '-', '-', at), at);
}

static uint64_t power_of_ten(int n)
{
    uint64_t value = 1;
    while (n--)
        value *= 10;
    return value;
}

/* Numbers of exactly n digits from lo to hi. */
static uint32_t same_length(struct pm_nfa *nfa, uint64_t lo, uint64_t hi, int n, uint32_t next)
{
    if (n == 0)
        return next;
    uint64_t unit = power_of_ten(n - 1);
    if (lo == 0 && hi == unit * 10 - 1)
        return digits(nfa, n, n, next);
    uint64_t low = lo / unit, high = hi / unit;
    struct pm_nfa_edge edges[3];
    size_t count = 0;
    if (low == high) {
        uint32_t rest = same_length(nfa, lo % unit, hi % unit, n - 1, next);
        return pm_nfa_byte(nfa, (uint8_t)('0' + low), (uint8_t)('0' + low), rest);
    }
    uint32_t rest = same_length(nfa, lo % unit, unit - 1, n - 1, next);
    edges[count++] = (struct pm_nfa_edge){(uint8_t)('0' + low), (uint8_t)('0' + low), rest};
    if (high > low + 1)
        edges[count++] = (struct pm_nfa_edge){(uint8_t)('1' + low), (uint8_t)('0' + high - 1),
                                              digits(nfa, n - 1, n - 1, next)};
    rest = same_length(nfa, 0, hi % unit, n - 1, next);
    edges[count++] = (struct pm_nfa_edge){(uint8_t)('0' + high), (uint8_t)('0' + high), rest};
    return pm_nfa_bytes(nfa, edges, count);
}

/* lo to hi, no sign, no leading zeros; nothing when lo > hi */
static uint32_t natural(struct pm_nfa *nfa, int64_t lo, int64_t hi, uint32_t next)
{
    uint32_t at = PM_NFA_NOTHING;
    lo = lo < 0 ? 0 : lo;
    for (int n = 1; n <= INTEGER_DIGITS && lo <= hi; n++) {
        uint64_t least = n == 1 ? 0 : power_of_ten(n - 1), most = power_of_ten(n) - 1;
        uint64_t from = (uint64_t)lo > least ? (uint64_t)lo : least,
                 to = (uint64_t)hi < most ? (uint64_t)hi : most;
        if (from <= to)
            at = pm_nfa_split(nfa, same_length(nfa, from, to, n, next), at);
    }
    return at;
}

uint32_t pm_json_integer_range(struct pm_nfa *nfa, const struct pm_json_range *r, uint32_t next)
{
    int64_t lo = r->lo + r->lo_excluded, hi = r->hi - r->hi_excluded;
    uint32_t at = natural(nfa, lo, hi, next);
    if (lo < 0)
        at = pm_nfa_split(nfa, pm_nfa_byte(nfa, '-', '-', natural(nfa, hi < 0 ? -hi : 1, -lo, next)), at);
    return at;
}

/* ".", then up to n digits that are not all zero */
static uint32_t fraction_not_zero(struct pm_nfa *nfa, uint32_t next)
{
    uint32_t at = PM_NFA_NOTHING;
    for (int left = 0; left < FRACTION_DIGITS; left++) {
        struct pm_nfa_edge edges[] = {{'0', '0', at}, {'1', '9', digits(nfa, 0, left, next)}};
        at = pm_nfa_bytes(nfa, edges, 2);
    }
    return pm_nfa_byte(nfa, '.', '.', at);
}

static uint32_t fraction_zero(struct pm_nfa *nfa, uint32_t next) /* may be missing */
{
    uint32_t at = pm_nfa_byte(nfa, '0', '0', next);
    for (int i = 1; i < FRACTION_DIGITS; i++)
        at = pm_nfa_byte(nfa, '0', '0', pm_nfa_split(nfa, at, next));
    return pm_nfa_split(nfa, pm_nfa_byte(nfa, '.', '.', at), next);
}

/* Reals without sign from a to b. */
static uint32_t magnitude(struct pm_nfa *nfa, int64_t a, bool a_excluded, int64_t b, bool b_excluded,
                          uint32_t next)
{
    uint32_t at = PM_NFA_NOTHING;
    if (a > b || (a == b && (a_excluded || b_excluded)))
        return at;
    if (!b_excluded)
        at = natural(nfa, b, b, fraction_zero(nfa, next));
    if (a < b && a_excluded) {
        at = pm_nfa_split(nfa, natural(nfa, a, a, fraction_not_zero(nfa, next)), at);
        a++;
    }
    return pm_nfa_split(nfa, natural(nfa, a, b - 1, fraction(nfa, next)), at);
}

uint32_t pm_json_number_range(struct pm_nfa *nfa, const struct pm_json_range *r, uint32_t next)
{
    uint32_t at = PM_NFA_NOTHING;
    if (r->hi >= 0)
        at = magnitude(nfa, r->lo < 0 ? 0 : r->lo, r->lo >= 0 && r->lo_excluded, r->hi, r->hi_excluded, next);
    if (r->lo < 0) { /* "-0" is left to the other half */
        bool to_zero = r->hi >= 0;
        uint32_t below =
            magnitude(nfa, to_zero ? 0 : -r->hi, to_zero || r->hi_excluded, -r->lo, r->lo_excluded, next);
        at = pm_nfa_split(nfa, pm_nfa_byte(nfa, '-', '-', below), at);
    }
    return at;
}

/* ---- given values ---- */

char *pm_json_text(const json_t *value)
{
    if (!json_is_real(value))
        return json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    char text[40];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, json_real_value(value));
        if (strtod(text, NULL) == json_real_value(value)) // NOLINT: the same number, bit for bit
            break;
    }
    return pm_xprintf("%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static uint32_t key_text(struct pm_nfa *nfa, const char *key, uint32_t next)
{
    json_t *name = json_string(key);
    char *text = pm_json_text(name);
    next = pm_nfa_text(nfa, text, strlen(text), next);
    free(text);
    json_decref(name);
    return next;
}

/* Just this value. */
static uint32_t just(struct pm_nfa *nfa, const json_t *value, uint32_t next)
{
    if (json_is_array(value)) {
        next = pm_nfa_byte(nfa, ']', ']', next);
        for (size_t i = json_array_size(value); i-- > 0;) {
            next = just(nfa, json_array_get(value, i), next);
            next = i ? pm_json_comma(nfa, next) : next;
        }
        return pm_nfa_byte(nfa, '[', '[', next);
    }
    if (json_is_object(value)) {
        size_t n = json_object_size(value), i = 0;
        const char **keys = pm_xalloc((n + 1) * sizeof *keys), *key;
        json_t *member;
        json_object_foreach((json_t *)value, key, member) keys[i++] = key;
        next = pm_nfa_byte(nfa, '}', '}', next);
        while (i-- > 0) {
            next = just(nfa, json_object_get(value, keys[i]), next);
            next = key_text(nfa, keys[i], pm_json_colon(nfa, next));
            next = i ? pm_json_comma(nfa, next) : next;
        }
        free(keys);
        return pm_nfa_byte(nfa, '{', '{', next);
    }
    char *text = pm_json_text(value);
    next = pm_nfa_text(nfa, text, strlen(text), next);
    free(text);
    return next;
}

uint32_t pm_json_values(struct pm_nfa *nfa, const json_t *list, uint32_t next)
{
    size_t n = json_array_size(list), texts = 0;
    struct pm_nfa_literal *literals = pm_xalloc((n + 1) * sizeof *literals);
    char **owned = pm_xalloc((n + 1) * sizeof *owned);
    uint32_t at = PM_NFA_NOTHING;
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        if (json_is_array(value) || json_is_object(value)) {
            at = pm_nfa_split(nfa, just(nfa, value, next), at);
        } else {
            owned[texts] = pm_json_text(value);
            literals[texts] = (struct pm_nfa_literal){owned[texts], strlen(owned[texts])};
            texts++;
        }
    }
    at = pm_nfa_split(nfa, pm_nfa_texts(nfa, literals, texts, next), at);
    while (texts-- > 0)
        free(owned[texts]);
    free(owned);
    free(literals);
    return at;
}
