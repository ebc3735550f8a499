/* Template source to tokens, as Jinja's lexer does it with trim_blocks and lstrip_blocks:
 *
 *   {%- -%} {{- -}} {#- -#}  white space on that side goes
 *   {% %} {# #}              blanks before it go when only they stand between it and the line's start; the
 *                            newline right behind it goes
 *   {%+ +%}                  not so for this tag
 *   one newline at the end of the template goes */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/text/template_internal.h"
#include "engine/text/tokenizer_unicode.h"

struct lexer {
    const char *name;
    const char *at, *end, *begin;
    struct pm_arena *arena;
    struct pm_error *err;
    struct pm_template_token *tokens;
    size_t count, capacity;
    bool at_line_start; /* the last tag took its newline along, or nothing was read yet */
    int line;
    const char *counted; /* lines are counted up to here */
};

static int line_of(struct lexer *l, const char *at)
{
    for (; l->counted < at; l->counted++)
        l->line += *l->counted == '\n';
    return l->line;
}

static int fail_lex(struct lexer *l, int code, const char *what)
{
    return pm_fail(l->err, code, "%s: line %d: %s", l->name, line_of(l, l->at), what);
}

static struct pm_template_token *add(struct lexer *l, enum pm_template_token_kind kind, const char *at)
{
    PM_GROW(l->tokens, l->count, l->capacity);
    struct pm_template_token *t = &l->tokens[l->count++];
    memset(t, 0, sizeof *t);
    t->kind = kind;
    t->line = line_of(l, at);
    return t;
}

static bool is_at(const struct lexer *l, const char *p, const char *what)
{
    size_t n = strlen(what);
    return (size_t)(l->end - p) >= n && memcmp(p, what, n) == 0;
}

static const char *skip_space(const struct lexer *l, const char *p)
{
    size_t n;
    while (p < l->end && pm_unicode_is_space(pm_unicode_at((const uint8_t *)p, (size_t)(l->end - p), &n)))
        p += n;
    return p;
}

/* Text between tags, white space before the tag at `to` taken off as its sign says. */
static void add_data(struct lexer *l, const char *from, const char *to, char sign, bool is_print)
{
    struct pm_text text = {from, (size_t)(to - from)};
    if (sign == '-') {
        text = pm_text_strip(text, 2, NULL);
    } else if (sign != '+' && !is_print) {
        size_t line = text.bytes;
        while (line > 0 && text.text[line - 1] != '\n')
            line--;
        struct pm_text last = {text.text + line, text.bytes - line};
        if ((line > 0 || l->at_line_start) && pm_text_strip(last, 1, NULL).bytes == 0)
            text.bytes = line;
    }
    if (text.bytes > 0)
        add(l, PM_T_DATA, from)->text = text;
}

/* After a tag that ends at l->at: what `-%}` or trim_blocks takes away. */
static void after_tag(struct lexer *l, bool strips, bool trims)
{
    const char *end = l->at;
    if (strips)
        l->at = skip_space(l, l->at);
    else if (trims && l->at < l->end && *l->at == '\n')
        l->at++;
    l->at_line_start = l->at > end ? l->at[-1] == '\n' : false;
}

/* ---- inside a tag ---- */

static int digit_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : 99;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_char(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static void append_character(struct pm_buf *out, uint32_t c)
{
    uint8_t b[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        b[i] = (uint8_t)(0x80 | (c & 0x3f));
    b[0] = (uint8_t)(lead[n] | c);
    pm_buf_append(out, b, n);
}

/* A backslash at p: Python's escapes. Returns what follows, or NULL when it is refused. */
static const char *escape(struct lexer *l, const char *p, struct pm_buf *out)
{
    static const char names[] = "\\'\"abfnrtv", values[] = "\\'\"\a\b\f\n\r\t\v";
    char c = p[1];
    const char *known = c ? strchr(names, c) : NULL;
    if (c == '\n')
        return p + 2;
    if (known) {
        pm_buf_append(out, &values[known - names], 1);
        return p + 2;
    }
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t value = 0;
    p += 2;
    if (c >= '0' && c <= '7') {
        p--;
        for (int i = 0; i < 3 && p < l->end && *p >= '0' && *p <= '7'; i++)
            value = value * 8 + (uint32_t)(*p++ - '0');
    } else if (digits) {
        for (int i = 0; i < digits; i++, p++) {
            if (p >= l->end || digit_of(*p) > 15 || value > 0xfffffff)
                return NULL;
            value = value * 16 + (uint32_t)digit_of(*p);
        }
    } else if (c == 'N' || (unsigned char)c >= 0x80) {
        return NULL;
    } else { /* unknown escapes stay as they are */
        pm_buf_append(out, p - 2, 2);
        return p;
    }
    if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return NULL;
    append_character(out, value);
    return p;
}

static int lex_string(struct lexer *l)
{
    const char *begin = l->at, *p = begin + 1;
    char quote = *begin;
    struct pm_buf text = {0};
    while (p < l->end && *p != quote) {
        if (*p != '\\' || p + 1 >= l->end) {
            pm_buf_append(&text, p++, 1);
            continue;
        }
        if (!(p = escape(l, p, &text))) {
            pm_buf_free(&text);
            return fail_lex(l, PM_EUNSUPPORTED, "a string has an escape that is not served");
        }
    }
    if (p >= l->end) {
        pm_buf_free(&text);
        return fail_lex(l, PM_EFORMAT, "a string does not end");
    }
    struct pm_template_token *t = add(l, PM_T_STRING, begin);
    t->text = (struct pm_text){pm_arena_text(l->arena, (char *)text.data, text.size), text.size};
    pm_buf_free(&text);
    l->at = p + 1;
    return 0;
}

static const char *skip_digits(const struct lexer *l, const char *p)
{
    while (p < l->end && (is_digit(*p) || (*p == '_' && p + 1 < l->end && is_digit(p[1]))))
        p++;
    return p;
}

static int lex_number(struct lexer *l)
{
    const char *begin = l->at, *p = skip_digits(l, begin);
    bool is_real = false, after_dot = begin > l->begin && begin[-1] == '.';
    if (p + 1 < l->end && *p == '.' && is_digit(p[1]) && !after_dot) {
        is_real = true;
        p = skip_digits(l, p + 1);
    }
    if (p + 1 < l->end && (*p == 'e' || *p == 'E') && !after_dot) {
        const char *digits = p + 1 + (p[1] == '+' || p[1] == '-');
        if (digits < l->end && is_digit(*digits)) {
            is_real = true;
            p = skip_digits(l, digits);
        }
    }
    char plain[64];
    size_t n = 0;
    for (const char *q = begin; q < p; q++)
        if (*q != '_') {
            if (n == sizeof plain - 1)
                return fail_lex(l, PM_ELIMIT, "a number is too long");
            plain[n++] = *q;
        }
    plain[n] = 0;
    if (!is_real && n > 1 && plain[0] == '0' && strspn(plain, "0") != n)
        return fail_lex(l, PM_EUNSUPPORTED, "a number starts with 0");
    if (!is_real && p < l->end && n == 1 && plain[0] == '0' && strchr("xXoObB", *p))
        return fail_lex(l, PM_EUNSUPPORTED, "a number is not decimal");
    if (!is_real && n > 18)
        return fail_lex(l, PM_ELIMIT, "a number is too large");
    struct pm_template_token *t = add(l, is_real ? PM_T_FLOAT : PM_T_INT, begin);
    t->text = (struct pm_text){begin, (size_t)(p - begin)};
    t->integer = is_real ? 0 : strtoll(plain, NULL, 10);
    t->real = is_real ? strtod(plain, NULL) : 0;
    l->at = p;
    return 0;
}

static int lex_operator(struct lexer *l, int *nesting)
{
    static const struct {
        char text[3];
        int op;
    } operators[] = {
        {"==", PM_OP_EQ},        {"!=", PM_OP_NE},        {"<=", PM_OP_LE},        {">=", PM_OP_GE},
        {"**", PM_OP_POW},       {"//", PM_OP_FLOOR_DIV}, {"<", PM_OP_LT},         {">", PM_OP_GT},
        {"+", PM_OP_ADD},        {"-", PM_OP_SUB},        {"*", PM_OP_MUL},        {"/", PM_OP_DIV},
        {"%", PM_OP_MOD},        {"~", PM_OP_TILDE},      {"=", PM_OP_ASSIGN},     {".", PM_OP_DOT},
        {",", PM_OP_COMMA},      {":", PM_OP_COLON},      {"|", PM_OP_PIPE},       {"(", PM_OP_OPEN},
        {")", PM_OP_CLOSE},      {"[", PM_OP_OPEN_LIST},  {"]", PM_OP_CLOSE_LIST}, {"{", PM_OP_OPEN_DICT},
        {"}", PM_OP_CLOSE_DICT}, {";", PM_OP_SEMICOLON}};
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (!is_at(l, l->at, operators[i].text))
            continue;
        int op = operators[i].op;
        if (op == PM_OP_OPEN || op == PM_OP_OPEN_LIST || op == PM_OP_OPEN_DICT)
            ++*nesting;
        if (op == PM_OP_CLOSE || op == PM_OP_CLOSE_LIST || op == PM_OP_CLOSE_DICT)
            if (--*nesting < 0)
                return fail_lex(l, PM_EFORMAT, "a bracket closes that was not opened");
        struct pm_template_token *t = add(l, PM_T_OP, l->at);
        t->op = op;
        t->text = (struct pm_text){l->at, strlen(operators[i].text)};
        l->at += t->text.bytes;
        return 0;
    }
    return fail_lex(l, (unsigned char)*l->at >= 0x80 ? PM_EUNSUPPORTED : PM_EFORMAT,
                    "a tag has a character that belongs to no expression");
}

/* Up to the end of a tag: "%}" or "}}". */
static int lex_tag(struct lexer *l, const char *close, bool is_print)
{
    int nesting = 0, rc = 0;
    while (!rc) {
        l->at = skip_space(l, l->at);
        const char *p = l->at;
        if (p >= l->end)
            return fail_lex(l, PM_EFORMAT, "a tag does not end");
        if (nesting == 0) {
            bool has_sign = *p == '-' || (*p == '+' && !is_print);
            if (is_at(l, p + has_sign, close)) {
                add(l, is_print ? PM_T_PRINT_END : PM_T_BLOCK_END, p);
                l->at = p + has_sign + 2;
                after_tag(l, *p == '-', !is_print && *p != '+');
                return 0;
            }
        }
        if (is_digit(*p)) {
            rc = lex_number(l);
        } else if (is_name_char(*p)) {
            while (l->at < l->end && is_name_char(*l->at))
                l->at++;
            add(l, PM_T_NAME, p)->text = (struct pm_text){p, (size_t)(l->at - p)};
        } else if (*p == '"' || *p == '\'') {
            rc = lex_string(l);
        } else {
            rc = lex_operator(l, &nesting);
        }
    }
    return rc;
}

/* ---- between tags ---- */

/* A raw tag of this name at p ("{%- raw -%}"): what follows it, or NULL. */
static const char *raw_tag(const struct lexer *l, const char *p, const char *name, char *sign_out,
                           char *end_sign)
{
    if (!is_at(l, p, "{%"))
        return NULL;
    p += 2;
    *sign_out = p < l->end && (*p == '-' || *p == '+') ? *p++ : 0;
    p = skip_space(l, p);
    if (!is_at(l, p, name))
        return NULL;
    p = skip_space(l, p + strlen(name));
    *end_sign = p < l->end && (*p == '-' || (*p == '+' && name[0] == 'e')) ? *p++ : 0;
    return is_at(l, p, "%}") ? p + 2 : NULL;
}

static int lex_raw(struct lexer *l, const char *after, char end_sign)
{
    l->at = after;
    after_tag(l, end_sign == '-', false);
    const char *from = l->at;
    for (const char *p = from; p < l->end; p++) {
        char sign;
        const char *next = raw_tag(l, p, "endraw", &sign, &end_sign);
        if (!next)
            continue;
        add_data(l, from, p, sign, false);
        l->at = next;
        after_tag(l, end_sign == '-', end_sign != '+');
        return 0;
    }
    return fail_lex(l, PM_EFORMAT, "{% raw %} without {% endraw %}");
}

static int lex_comment(struct lexer *l)
{
    for (const char *p = l->at; p + 1 < l->end; p++)
        if (p[0] == '#' && p[1] == '}') {
            char sign = p > l->at ? p[-1] : 0;
            l->at = p + 2;
            after_tag(l, sign == '-', sign != '+');
            return 0;
        }
    return fail_lex(l, PM_EFORMAT, "a comment does not end");
}

static int lex_all(struct lexer *l)
{
    int rc = 0;
    while (l->at < l->end && !rc) {
        const char *from = l->at, *p = from;
        while (p + 1 < l->end && !(p[0] == '{' && (p[1] == '%' || p[1] == '{' || p[1] == '#')))
            p++;
        if (p + 1 >= l->end) {
            add(l, PM_T_DATA, from)->text = (struct pm_text){from, (size_t)(l->end - from)};
            break;
        }
        char sign, end_sign;
        const char *raw = raw_tag(l, p, "raw", &sign, &end_sign);
        if (!raw)
            sign = p + 2 < l->end && (p[2] == '-' || p[2] == '+') ? p[2] : 0;
        add_data(l, from, p, sign, p[1] == '{');
        l->at = p + 2 + (sign != 0);
        if (raw) {
            rc = lex_raw(l, raw, end_sign);
        } else if (p[1] == '#') {
            rc = lex_comment(l);
        } else {
            bool is_print = p[1] == '{';
            add(l, is_print ? PM_T_PRINT_BEGIN : PM_T_BLOCK_BEGIN, p);
            rc = lex_tag(l, is_print ? "}}" : "%}", is_print);
        }
    }
    add(l, PM_T_END, l->end);
    return rc;
}

int pm_template_lex(const char *name, const char *text, size_t bytes, struct pm_arena *arena,
                    struct pm_template_token **out, struct pm_error *err)
{
    *out = NULL;
    if (bytes > PM_TEMPLATE_MAX_BYTES)
        return pm_fail(err, PM_ELIMIT, "%s: a template of %zu bytes; at most %d are read", name, bytes,
                       PM_TEMPLATE_MAX_BYTES);
    if (!pm_utf8_is_valid(text, bytes))
        return pm_fail(err, PM_EFORMAT, "%s: the template is not UTF-8", name);
    /* All line ends become "\n"; the last one goes. */
    char *copy = pm_arena_alloc(arena, bytes + 1);
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        copy[n++] = text[i] == '\r' ? '\n' : text[i];
        if (text[i] == '\r' && i + 1 < bytes && text[i + 1] == '\n')
            i++;
    }
    if (n > 0 && copy[n - 1] == '\n')
        n--;
    struct lexer l = {.name = name,
                      .at = copy,
                      .begin = copy,
                      .end = copy + n,
                      .arena = arena,
                      .err = err,
                      .at_line_start = true,
                      .line = 1,
                      .counted = copy};
    int rc = lex_all(&l);
    if (!rc) {
        *out = pm_arena_alloc(arena, l.count * sizeof **out);
        memcpy(*out, l.tokens, l.count * sizeof **out);
    }
    free(l.tokens);
    return rc;
}
