/* Tokens to the tree: statements, and the template as a whole. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_parser.h"

static int parse_body(struct pm_parser *p, const char *ends, struct pm_node **out);

/* ---- statements ---- */

/* A name, name.attribute (in set), or several with commas. */
static int parse_target(struct pm_parser *p, bool may_be_attribute, struct pm_node **out)
{
    struct pm_node_list items = {0};
    struct pm_node *n = pm_parse_new_node(p, PM_N_TUPLE, p->at->line);
    bool has_brackets = pm_parse_skip_op(p, PM_OP_OPEN), is_tuple = false;
    int rc = 0;
    do {
        if (p->at->kind != PM_T_NAME || (items.count && pm_parse_is_word(p->at, "in"))) {
            if (items.count == 0)
                rc = pm_parse_fail_unexpected(p, "a name");
            break;
        }
        struct pm_node *name = pm_parse_new_node(p, PM_N_NAME, p->at->line);
        name->text = p->at++->text;
        if (may_be_attribute && pm_parse_skip_op(p, PM_OP_DOT)) {
            name->kind = PM_N_NS_TARGET;
            rc = pm_parse_expect_name(p, &name->attribute);
            if (!rc && name->attribute.text[0] == '_')
                rc = pm_parse_fail_at(p, PM_EUNSUPPORTED, name->line,
                                      "the namespace attribute %.*s begins with _, which is not served",
                                      name->attribute);
        } else {
            pm_parse_bind_name(p, name->text);
        }
        pm_parse_list_add(&items, name);
        is_tuple |= pm_parse_is_op(p, PM_OP_COMMA);
    } while (!rc && pm_parse_skip_op(p, PM_OP_COMMA));
    if (!rc && has_brackets)
        rc = pm_parse_expect_op(p, PM_OP_CLOSE, ")");
    *out = n;
    if (!rc && !is_tuple) {
        *out = items.items[0];
        free(items.items);
        return 0;
    }
    return pm_parse_list_close(p, &items, n, rc);
}

static int end_tag(struct pm_parser *p)
{
    if (p->at->kind != PM_T_BLOCK_END)
        return pm_parse_fail_unexpected(p, "%}");
    p->at++;
    return 0;
}

/* The rest of a tag, the body, and the word that ended it (still the next token). */
static int parse_block(struct pm_parser *p, const char *ends, struct pm_node **out)
{
    int rc = end_tag(p);
    return rc ? rc : parse_body(p, ends, out);
}

static int parse_if(struct pm_parser *p, struct pm_node *n)
{
    struct pm_node_list items = {0};
    struct pm_node *part;
    int rc;
    for (;;) {
        if ((rc = pm_parse_tuple(p, false, false, &part)))
            break;
        pm_parse_list_add(&items, part);
        if ((rc = parse_block(p, "elif else endif", &part)))
            break;
        pm_parse_list_add(&items, part);
        if (pm_parse_skip_word(p, "elif"))
            continue;
        if (pm_parse_skip_word(p, "else"))
            rc = parse_block(p, "endif", &n->c);
        if (!rc)
            p->at++; /* endif */
        break;
    }
    return pm_parse_list_close(p, &items, n, rc);
}

static int parse_for(struct pm_parser *p, struct pm_node *n)
{
    int rc = parse_target(p, false, &n->a);
    if (!rc && !pm_parse_skip_word(p, "in"))
        rc = pm_parse_fail_unexpected(p, "in");
    if (!rc)
        rc = pm_parse_tuple(p, false, false, &n->b);
    if (!rc && pm_parse_skip_word(p, "if"))
        rc = pm_parse_expression(p, true, &n->c);
    if (!rc && pm_parse_is_word(p->at, "recursive"))
        return pm_parse_fail_at(p, PM_EUNSUPPORTED, p->at->line, "a %.*s loop is not served", p->at->text);
    p->loops++;
    if (!rc)
        rc = parse_block(p, "else endfor", &n->d);
    p->loops--;
    if (!rc && pm_parse_skip_word(p, "else"))
        rc = parse_block(p, "endfor", &n->e);
    if (!rc)
        p->at++; /* endfor */
    return rc ? rc : pm_parse_close_node(p, n);
}

static int parse_filters(struct pm_parser *p, struct pm_node **out)
{
    int rc = 0;
    *out = pm_parse_new_node(p, PM_N_INPUT, p->at->line);
    do
        rc = pm_parse_filter(p, *out, out);
    while (!rc && pm_parse_skip_op(p, PM_OP_PIPE));
    return rc;
}

static int parse_set(struct pm_parser *p, struct pm_node *n)
{
    int rc = parse_target(p, true, &n->a);
    if (!rc && pm_parse_skip_op(p, PM_OP_ASSIGN)) {
        n->kind = PM_N_SET;
        rc = pm_parse_tuple(p, true, false, &n->b);
    } else if (!rc) {
        n->kind = PM_N_SET_BLOCK;
        if (pm_parse_skip_op(p, PM_OP_PIPE))
            rc = parse_filters(p, &n->b);
        if (!rc)
            rc = parse_block(p, "endset", &n->d);
        if (!rc)
            p->at++;
    }
    return rc ? rc : pm_parse_close_node(p, n);
}

static int parse_macro(struct pm_parser *p, struct pm_node *n)
{
    struct pm_node_list items = {0}, defaults = {0};
    int loops = p->loops, rc = pm_parse_expect_name(p, &n->text);
    if (!rc)
        pm_parse_bind_name(p, n->text);
    if (!rc)
        rc = pm_parse_expect_op(p, PM_OP_OPEN, "(");
    while (!rc && !pm_parse_skip_op(p, PM_OP_CLOSE)) {
        struct pm_node *name = pm_parse_new_node(p, PM_N_NAME, p->at->line), *value;
        if (items.count && (rc = pm_parse_expect_op(p, PM_OP_COMMA, "a comma or )")))
            break;
        if ((rc = pm_parse_expect_name(p, &name->text)))
            break;
        pm_parse_bind_name(p, name->text);
        pm_parse_list_add(&items, name);
        if (pm_parse_skip_op(p, PM_OP_ASSIGN)) {
            if (!(rc = pm_parse_expression(p, true, &value)))
                pm_parse_list_add(&defaults, value);
        } else if (defaults.count) {
            rc = pm_parse_fail_unexpected(p, "a default, as the argument before has one");
        }
    }
    n->arguments = items.count;
    for (size_t i = 0; i < defaults.count; i++)
        pm_parse_list_add(&items, defaults.items[i]);
    free(defaults.items);
    p->loops = 0; /* no break out of a macro */
    p->macros++;
    if (!rc)
        rc = parse_block(p, "endmacro", &n->d);
    p->macros--;
    p->loops = loops;
    if (!rc)
        p->at++;
    return pm_parse_list_close(p, &items, n, rc);
}

static int parse_with(struct pm_parser *p, struct pm_node *n)
{
    struct pm_node_list items = {0};
    int rc = 0;
    while (!rc && p->at->kind != PM_T_BLOCK_END) {
        struct pm_node *target, *value;
        if (items.count && (rc = pm_parse_expect_op(p, PM_OP_COMMA, "a comma")))
            break;
        if (p->at->kind != PM_T_NAME) {
            rc = pm_parse_fail_unexpected(p, "a name");
            break;
        }
        target = pm_parse_new_node(p, PM_N_NAME, p->at->line);
        target->text = p->at++->text;
        pm_parse_bind_name(p, target->text);
        if ((rc = pm_parse_expect_op(p, PM_OP_ASSIGN, "=")) || (rc = pm_parse_expression(p, true, &value)))
            break;
        pm_parse_list_add(&items, target);
        pm_parse_list_add(&items, value);
    }
    if (!rc)
        rc = parse_block(p, "endwith", &n->d);
    if (!rc)
        p->at++;
    return pm_parse_list_close(p, &items, n, rc);
}

/* Behind "{%": one statement with all that belongs to it; the closing "%}" stays. */
static int parse_statement(struct pm_parser *p, struct pm_node **out)
{
    struct pm_node *n = pm_parse_new_node(p, PM_N_IF, p->at->line);
    struct pm_text word;
    int rc = pm_parse_expect_name(p, &word);
    *out = n;
    if (rc)
        return rc;
    if (pm_text_is(word, "if"))
        return parse_if(p, n);
    if (pm_text_is(word, "for")) {
        n->kind = PM_N_FOR;
        return parse_for(p, n);
    }
    if (pm_text_is(word, "set"))
        return parse_set(p, n);
    if (pm_text_is(word, "macro")) {
        n->kind = PM_N_MACRO;
        return parse_macro(p, n);
    }
    if (pm_text_is(word, "with")) {
        n->kind = PM_N_SCOPE;
        return parse_with(p, n);
    }
    if (pm_text_is(word, "generation")) { /* marks what the model said; the text is the same */
        n->kind = PM_N_SCOPE;
        if (!(rc = parse_block(p, "endgeneration", &n->d)))
            p->at++;
        return rc ? rc : pm_parse_close_node(p, n);
    }
    if (pm_text_is(word, "filter")) {
        n->kind = PM_N_FILTER_BLOCK;
        if (!(rc = parse_filters(p, &n->b)) && !(rc = parse_block(p, "endfilter", &n->d)))
            p->at++;
        return rc ? rc : pm_parse_close_node(p, n);
    }
    bool is_break = pm_text_is(word, "break");
    if (is_break || pm_text_is(word, "continue")) {
        n->kind = is_break ? PM_N_BREAK : PM_N_CONTINUE;
        return p->loops ? 0 : pm_parse_fail_at(p, PM_EFORMAT, n->line, "%.*s outside of a loop", word);
    }
    static const char *const known[] = {"block", "extends", "include", "import",     "from",     "call",
                                        "do",    "debug",   "trans",   "autoescape", "pluralize"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (pm_text_is(word, known[i]))
            return pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "{%% %.*s %%} is not served", word);
    return pm_parse_fail_at(p, PM_EFORMAT, n->line, "the tag %.*s is unknown here", word);
}

static int parse_print(struct pm_parser *p, struct pm_node **out)
{
    struct pm_node *n = pm_parse_new_node(p, PM_N_PRINT, p->at->line);
    int rc = pm_parse_tuple(p, true, false, &n->a);
    /* Escaping is off, so that the last safe changes nothing; anywhere else it would change what + and ~ do.
     */
    while (!rc && n->a->kind == PM_N_FILTER && pm_text_is(n->a->text, "safe")) {
        n->a = n->a->a;
        p->safe_count--;
    }
    if (!rc && p->at->kind != PM_T_PRINT_END)
        rc = pm_parse_fail_unexpected(p, "}}");
    p->at++;
    *out = n;
    return rc ? rc : pm_parse_close_node(p, n);
}

static bool is_listed(struct pm_text word, const char *list)
{
    return pm_parse_parameter_index(list, word) >= 0;
}

/* Statements up to "{% word" with a word of ends (which is then the next token), or the end of the template
 * when ends is empty. */
static int parse_body(struct pm_parser *p, const char *ends, struct pm_node **out)
{
    struct pm_node_list items = {0};
    struct pm_node *n = pm_parse_new_node(p, PM_N_BODY, p->at->line), *part;
    int rc = pm_parse_enter(p);
    while (!rc) {
        if (p->at->kind == PM_T_DATA) {
            part = pm_parse_new_node(p, PM_N_DATA, p->at->line);
            part->text = p->at++->text;
        } else if (p->at->kind == PM_T_PRINT_BEGIN) {
            p->at++;
            rc = parse_print(p, &part);
        } else if (p->at->kind == PM_T_BLOCK_BEGIN) {
            p->at++;
            if (p->at->kind == PM_T_NAME && is_listed(p->at->text, ends))
                break;
            if (!(rc = parse_statement(p, &part)))
                rc = end_tag(p);
        } else {
            if (*ends)
                rc = pm_fail(p->err, PM_EFORMAT,
                             "%s: line %d: the template ends where one of \"%s\" should stand", p->name,
                             p->at->line, ends);
            break;
        }
        if (!rc)
            pm_parse_list_add(&items, part);
    }
    p->nesting--;
    *out = n;
    return pm_parse_list_close(p, &items, n, rc);
}

/* ---- all ---- */

/* What the renderer calls by name, besides macros. */
static const char *const functions[] = {"range", "namespace", "dict", "raise_exception"};

static int check_calls(struct pm_parser *p)
{
    for (size_t i = 0; i < p->called_count; i++) {
        bool is_known = false;
        for (size_t k = 0; k < sizeof functions / sizeof functions[0]; k++)
            is_known |= pm_text_is(p->called[i].name, functions[k]);
        for (size_t k = 0; k < p->bound_count && !is_known; k++)
            is_known = p->bound[k].bytes == p->called[i].name.bytes &&
                       memcmp(p->bound[k].text, p->called[i].name.text, p->bound[k].bytes) == 0;
        if (!is_known)
            return pm_parse_fail_at(p, PM_EUNSUPPORTED, p->called[i].line, "the function %.*s is not served",
                                    p->called[i].name);
    }
    if (p->safe_count)
        return pm_parse_fail_at(p, PM_EUNSUPPORTED, 1, "the filter %.*s is served only at the end of {{ }}",
                                (struct pm_text){"safe", 4});
    return 0;
}

int pm_template_parse(const char *name, const char *text, size_t bytes, struct pm_template **out,
                      struct pm_error *err)
{
    struct pm_template *t = pm_xalloc(sizeof *t);
    struct pm_template_token *tokens;
    t->name = pm_xstrdup(name);
    int rc = pm_template_lex(name, text, bytes, &t->arena, &tokens, err);
    if (!rc) {
        struct pm_parser p = {.name = t->name, .err = err, .arena = &t->arena, .at = tokens};
        rc = parse_body(&p, "", &t->body);
        if (!rc)
            rc = check_calls(&p);
        free(p.called);
        free(p.bound);
    }
    if (rc)
        pm_template_free(&t);
    *out = t;
    return rc;
}

void pm_template_free(struct pm_template **tmpl)
{
    if (*tmpl) {
        pm_arena_free(&(*tmpl)->arena);
        free((*tmpl)->name);
        free(*tmpl);
    }
    *tmpl = NULL;
}
